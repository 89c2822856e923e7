//! Two roles: the owner, who migrates, and the one that the processes are.

use std::{collections::BTreeSet, fs, path::PathBuf};

use holdfast::ctl::privileges::{Change, rule};
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::support::{app::TestApp, roles::APP_ROLE};

/// What PostgreSQL calls it when a role may not do something.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Every table of the shop, and the columns of each.
async fn tables(app: &TestApp) -> Vec<(String, Vec<String>)> {
    let rows = sqlx::query(
        "
        SELECT relname::text, array_agg(attname::text ORDER BY attnum)
        FROM pg_class
        JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        GROUP BY relname
        ORDER BY relname
        ",
    );
    let rows = rows.fetch_all(&app.db).await.unwrap();
    assert!(rows.len() > 20, "the catalog was read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Whether the role of the processes is refused the statement for want of a privilege.
async fn is_denied(processes: &PgPool, statement: &str) -> bool {
    let mut tx = processes.begin().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut *tx).await;
    tx.rollback().await.unwrap();
    match done {
        Ok(_) => false,
        Err(error) => {
            let error = error.as_database_error().expect("the database answers");
            error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE)
        }
    }
}

#[tokio::test]
async fn privilege_in_database_ledger_and_audit_rows_cannot_be_changed_or_removed() {
    TestApp::run(async |app| {
        let ledgers = ["audit_log", "order_events", "order_lines", "restocks", "stock_ledger"];
        for (table, columns) in tables(app).await {
            let rule = rule(&table);
            let column = &columns[0];
            let mut denied = vec![(format!("TRUNCATE {table}"), true)];
            denied.push((format!("DELETE FROM {table} WHERE false"), !rule.delete));
            for column in &columns {
                let is_fixed = match rule.update {
                    Change::Nothing => true,
                    Change::Only(columns) => !columns.contains(&&**column),
                    Change::Everything => false,
                };
                let update = format!("UPDATE {table} SET {column} = {column} WHERE false");
                denied.push((update, is_fixed));
            }
            let insert = format!("INSERT INTO {table} SELECT * FROM {table} WHERE false");
            denied.push((insert, !rule.insert));
            denied.push((format!("SELECT {column} FROM {table} LIMIT 1"), false));
            for (statement, expected) in denied {
                assert_eq!(is_denied(&app.cx.db, &statement).await, expected, "{statement}");
            }
            if ledgers.contains(&&*table) {
                assert_eq!((rule.update, rule.delete), (Change::Nothing, false), "{table}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn privilege_in_database_the_processes_cannot_change_the_schema() {
    TestApp::run(async |app| {
        let mut denied = vec![
            "CREATE TABLE mine (id int)".to_owned(),
            "CREATE TEMP TABLE mine (id int)".to_owned(),
            "CREATE SCHEMA mine".to_owned(),
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
            "CREATE ROLE mine SUPERUSER".to_owned(),
            "DROP FUNCTION refuse_change() CASCADE".to_owned(),
            "DROP SCHEMA public CASCADE".to_owned(),
            format!("ALTER ROLE {APP_ROLE} SUPERUSER"),
            "SET session_replication_role = replica".to_owned(),
            "COPY users TO PROGRAM 'cat'".to_owned(),
        ];
        for (table, columns) in tables(app).await {
            denied.extend([
                format!("DROP TABLE {table} CASCADE"),
                format!("ALTER TABLE {table} ADD COLUMN mine int"),
                format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
                format!("ALTER TABLE {table} OWNER TO {APP_ROLE}"),
                format!("CREATE INDEX ON {table} ({})", columns[0]),
                format!(
                    "CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION refuse_change()"
                ),
            ]);
        }

        for statement in denied {
            assert!(is_denied(&app.cx.db, &statement).await, "{statement}");
        }
        let me: String =
            sqlx::query_scalar("SELECT current_user::text").fetch_one(&app.cx.db).await.unwrap();
        assert_eq!(me, APP_ROLE);
    })
    .await;
}

/// What the SQL in the sources does to a table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    updated: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

fn done_in_sources() -> Done {
    let mut done = Done::default();
    let mut folders = vec![PathBuf::from("src"), PathBuf::from("jobs/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                note(&fs::read_to_string(path).unwrap(), &mut done);
            }
        }
    }
    done
}

/// Notes which tables a source updates and deletes from; row locks need the privilege to update.
fn note(source: &str, done: &mut Done) {
    let is_sign = |sign: char| !sign.is_alphanumeric() && sign != '_';
    let words: Vec<_> = source.split(is_sign).filter(|word| !word.is_empty()).collect();
    let mut inserted = None;
    for (index, word) in words.iter().enumerate() {
        let next = |ahead: usize| words.get(index + ahead).copied().unwrap_or("").to_owned();
        match *word {
            "INSERT" if next(1) == "INTO" => inserted = Some(next(2)),
            "DO" if next(1) == "UPDATE" => done.updated.extend(inserted.clone()),
            "DELETE" if next(1) == "FROM" => {
                done.deleted.insert(next(2));
            }
            "UPDATE" if next(2) == "SET" || next(2) == "AS" => {
                done.updated.insert(next(1));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn privilege_in_database_the_processes_get_what_their_sql_needs_and_no_more() {
    let done = done_in_sources();
    assert!(done.updated.contains("orders") && done.deleted.contains("job_ledger"), "{done:?}");

    TestApp::run(async |app| {
        for (table, _) in tables(app).await {
            let rule = rule(&table);
            let is_updated = done.updated.contains(&table);
            assert_eq!(rule.update != Change::Nothing, is_updated || rule.delete, "{table}");
            assert_eq!(rule.delete, done.deleted.contains(&table), "{table}");
        }
    })
    .await;
}

#[tokio::test]
async fn granting_again_takes_back_what_somebody_added() {
    TestApp::run(async |app| {
        for statement in [
            "GRANT UPDATE, TRUNCATE ON audit_log TO holdfast_test_app",
            "GRANT UPDATE (total_minor) ON orders TO holdfast_test_app",
            "GRANT DELETE ON orders TO PUBLIC",
        ] {
            app.execute(statement).await;
        }
        let warned = app.ctl(&["doctor"]).await;

        app.migrate(&[]).await.assert(0, &[]);

        warned.assert(0, &["may do too much", "update, truncate audit_log"]);
        warned.assert(0, &["can update columns of, delete from orders"]);
        let denied = [
            "UPDATE audit_log SET action = action",
            "TRUNCATE audit_log",
            "DELETE FROM orders",
            "UPDATE orders SET total_minor = total_minor",
        ];
        for statement in denied {
            assert!(is_denied(&app.cx.db, statement).await, "{statement}");
        }
        let doctor = app.ctl(&["doctor"]).await;
        assert!(!doctor.text.contains("too much"), "{}", doctor.text);
    })
    .await;
}

#[tokio::test]
async fn a_table_of_a_later_migration_can_be_filled_before_anybody_grants() {
    TestApp::run(async |app| {
        app.execute("CREATE TABLE later (id int)").await;

        assert!(!is_denied(&app.cx.db, "INSERT INTO later VALUES (1)").await);
        assert!(is_denied(&app.cx.db, "UPDATE later SET id = 2").await);
    })
    .await;
}

#[tokio::test]
async fn a_role_that_is_missing_or_mighty_gets_no_privileges() {
    TestApp::run(async |app| {
        let owner: String = app.scalar("SELECT current_user::text").await;

        let missing = app.migrate(&["--app-role", "no_such_role"]).await;
        let mighty = app.migrate(&["--app-role", &owner]).await;
        let doctor = app.ctl_with(&["doctor"], "", &[("DATABASE_URL", &app.owner_url)]).await;

        let nobody = [("MIGRATE_DATABASE_URL", ""), ("DATABASE_URL", &*app.owner_url)];
        let nobody = app.ctl_with(&["migrate"], "", &nobody).await;

        nobody.assert(0, &["up to date", "nothing was granted", "APP_ROLE"]);
        missing.assert(1, &["there is no role no_such_role", "CREATE ROLE"]);
        mighty.assert(1, &["may do too much", &owner]);
        doctor.assert(0, &["warning", &owner]);
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_own_the_database_migrates_and_is_told_what_is_left() {
    TestApp::run(async |app| {
        // It owns the tables and not their database, as a tenant of somebody else's server does.
        app.execute(
            "DO $$
             DECLARE name text;
             BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_test_tenant') THEN
                     CREATE ROLE holdfast_test_tenant;
                 END IF;
                 GRANT USAGE, CREATE ON SCHEMA public TO holdfast_test_tenant;
                 FOR name IN
                     SELECT oid::regclass::text FROM pg_class
                     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
                 LOOP
                     EXECUTE format('ALTER TABLE %s OWNER TO holdfast_test_tenant', name);
                 END LOOP;
                 EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database());
             END $$",
        )
        .await;
        let sign = if app.owner_url.contains('?') { '&' } else { '?' };
        let tenant = format!("{}{sign}options[role]=holdfast_test_tenant", app.owner_url);
        let left = format!("{APP_ROLE} can make temporary tables");

        let by_tenant = app.ctl_with(&["migrate"], "", &[("MIGRATE_DATABASE_URL", &tenant)]).await;
        let doctor = app.ctl(&["doctor"]).await;
        let by_owner = app.migrate(&[]).await;

        by_tenant.assert(0, &["up to date", "warning", &left, APP_ROLE]);
        doctor.assert(0, &["warning", &left]);
        by_owner.assert(0, &[]);
        assert!(!by_owner.text.contains("warning"), "{}", by_owner.text);
        assert!(is_denied(&app.cx.db, "CREATE TEMP TABLE mine (id int)").await);
    })
    .await;
}

#[tokio::test]
async fn the_processes_role_cannot_migrate() {
    TestApp::run(async |app| {
        app.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
            .await;

        let migrated = app.ctl(&["migrate"]).await;

        assert_eq!(migrated.status, 1, "{}", migrated.text);
        assert!(migrated.text.contains("permission denied"), "{}", migrated.text);
        let url = holdfast_password(&app.database_url);
        assert!(!migrated.text.contains(&url), "{}", migrated.text);
    })
    .await;
}

fn holdfast_password(url: &str) -> String {
    url.split([':', '@']).nth(2).unwrap().to_owned()
}
