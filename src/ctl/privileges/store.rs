//! Roles and privileges, as the catalog has them.

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};

/// Where the tables are.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) database: String,
    pub(super) schema: String,
}

/// What a role can do.
#[derive(Debug)]
pub(super) struct Abilities {
    pub(super) role: Role,
    /// It can become the owner of a table.
    pub(super) may_be_owner: bool,
    pub(super) may_create: bool,
    pub(super) may_create_temporary: bool,
    pub(super) tables: Vec<Table>,
}

#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) is_superuser: bool,
    pub(super) may_create_roles: bool,
}

/// What a role can do with one table.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "privileges are independent of each other")]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) insert: bool,
    pub(super) update: bool,
    /// At least one column.
    pub(super) update_columns: Vec<String>,
    pub(super) delete: bool,
    pub(super) truncate: bool,
    pub(super) add_trigger: bool,
}

/// Keeps others from granting until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection) -> sqlx::Result<()> {
    // "grants", as a number.
    const LOCK: i64 = 0x6772_616e_7473;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK).execute(tx).await?;
    Ok(())
}

pub(super) async fn me(db: impl PgExecutor<'_>) -> sqlx::Result<String> {
    sqlx::query_scalar!(r#"SELECT current_user::text AS "me!""#).fetch_one(db).await
}

pub(super) async fn place(db: impl PgExecutor<'_>) -> sqlx::Result<Place> {
    sqlx::query_as!(
        Place,
        r#"SELECT current_database()::text AS "database!", current_schema()::text AS "schema!""#,
    )
    .fetch_one(db)
    .await
}

pub(super) async fn role_exists(db: impl PgExecutor<'_>, role: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text) AS "exists!""#,
        role,
    )
    .fetch_one(db)
    .await
}

/// The names of all tables and views of the schema.
pub(super) async fn tables(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        SELECT relname::text AS "name!"
        FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v')
        ORDER BY relname
        "#,
    )
    .fetch_all(db)
    .await
}

/// Runs statements whose names have been quoted.
pub(super) async fn execute(tx: &mut PgConnection, script: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(script)).execute(tx).await?;
    Ok(())
}

/// What the role can do, by its own privileges and those of the roles it is a member of.
pub(super) async fn abilities(db: &mut PgConnection, name: &str) -> sqlx::Result<Abilities> {
    let role = sqlx::query_as!(
        Role,
        r#"
        SELECT
            rolname::text AS "name!",
            rolsuper AS "is_superuser!",
            rolcreaterole AS "may_create_roles!"
        FROM pg_roles
        WHERE rolname = $1::text
        "#,
        name,
    )
    .fetch_one(&mut *db)
    .await?;
    let reach = sqlx::query!(
        r#"
        SELECT
            has_schema_privilege($1::text::name, current_schema(), 'CREATE') AS "may_create!",
            has_database_privilege($1::text::name, current_database(), 'TEMPORARY')
                AS "may_create_temporary!",
            EXISTS (
                SELECT
                FROM pg_class
                WHERE relnamespace = current_schema()::regnamespace
                    AND pg_has_role($1::text::name, relowner, 'MEMBER')
            ) AS "may_be_owner!"
        "#,
        name,
    )
    .fetch_one(&mut *db)
    .await?;
    let tables = sqlx::query_as!(
        Table,
        r#"
        SELECT
            relname::text AS "name!",
            has_table_privilege($1::text::name, oid, 'INSERT') AS "insert!",
            has_table_privilege($1::text::name, oid, 'UPDATE') AS "update!",
            ARRAY(
                SELECT attname::text
                FROM pg_attribute
                WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
                    AND has_column_privilege($1::text::name, attrelid, attnum, 'UPDATE')
                ORDER BY attnum
            ) AS "update_columns!",
            has_table_privilege($1::text::name, oid, 'DELETE') AS "delete!",
            has_table_privilege($1::text::name, oid, 'TRUNCATE') AS "truncate!",
            has_table_privilege($1::text::name, oid, 'TRIGGER') AS "add_trigger!"
        FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v')
        ORDER BY relname
        "#,
        name,
    )
    .fetch_all(db)
    .await?;
    Ok(Abilities {
        role,
        may_be_owner: reach.may_be_owner,
        may_create: reach.may_create,
        may_create_temporary: reach.may_create_temporary,
        tables,
    })
}
