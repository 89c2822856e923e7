//! What the role of the processes may do in the database. Everything else only the owner may do, as
//! whom `ctl migrate` runs.
//!
//! A process that was taken over, or that has a mistake in it, can then neither rewrite what happened
//! nor touch the schema.

mod store;

use std::collections::BTreeMap;

use sqlx::PgPool;

/// What the role may do with one table, beside reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub table: &'static str,
    pub insert: bool,
    pub update: Change,
    pub delete: bool,
}

/// Which columns of a row may get another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    Only(&'static [&'static str]),
    Everything,
}

impl Change {
    /// Whether somebody who may change these columns may change more.
    fn is_exceeded_by(self, columns: &[String]) -> bool {
        columns.iter().any(|column| match self {
            Self::Nothing => true,
            Self::Only(allowed) => !allowed.contains(&column.as_str()),
            Self::Everything => false,
        })
    }
}

impl Rule {
    /// Rows come and change, and none goes: what holds for a table without a rule.
    const fn usual(table: &'static str) -> Self {
        Self { table, insert: true, update: Change::Everything, delete: false }
    }

    /// Only migrations write it.
    const fn read_only(table: &'static str) -> Self {
        Self { insert: false, update: Change::Nothing, ..Self::usual(table) }
    }

    /// A ledger: what it says stays said.
    const fn insert_only(table: &'static str) -> Self {
        Self { update: Change::Nothing, ..Self::usual(table) }
    }

    /// Only these columns follow the course of things.
    const fn changing(table: &'static str, columns: &'static [&'static str]) -> Self {
        Self { update: Change::Only(columns), ..Self::usual(table) }
    }

    /// Old rows are removed.
    const fn purged(self) -> Self {
        Self { delete: true, ..self }
    }
}

/// Every table and view whose rule is not the usual one.
pub const RULES: &[Rule] = &[
    Rule::read_only("_sqlx_migrations"),
    Rule::read_only("order_transitions"),
    Rule::read_only("payment_transitions"),
    Rule::read_only("purchases"),
    Rule::read_only("refund_transitions"),
    Rule::insert_only("account_tokens"),
    Rule::insert_only("audit_log"),
    Rule::insert_only("order_events"),
    Rule::insert_only("order_lines"),
    Rule::insert_only("prices"),
    Rule::insert_only("products"),
    Rule::insert_only("restocks"),
    Rule::insert_only("stock_ledger"),
    Rule::changing("captures", &["fate", "reason", "order_id"]),
    Rule::changing("findings", &["closed_at", "closed_by", "note"]),
    Rule::changing("holds", &["state", "expires_at"]),
    Rule::changing(
        "orders",
        &[
            "status",
            "expires_at",
            "extended_at",
            "adopted_by",
            "email",
            "shipping_address",
            "erased_at",
        ],
    ),
    Rule::changing(
        "payments",
        &[
            "state",
            "provider_ref",
            "last_decline",
            "key_generation",
            "looks",
            "next_look_at",
            "updated_at",
        ],
    ),
    Rule::changing(
        "refunds",
        &[
            "state",
            "provider_ref",
            "failure",
            "key_generation",
            "looks",
            "next_look_at",
            "updated_at",
        ],
    ),
    Rule::changing(
        "variants",
        &["opens_at", "closes_at", "purchase_limit", "purchase_window_seconds", "sale_set_at"],
    ),
    Rule::changing("account_requests", &["used_at", "email_before"]).purged(),
    Rule::changing("provider_events", &["state", "reason", "raw", "finished_at"]).purged(),
    Rule::changing("refresh_tokens", &["used_at"]).purged(),
    Rule::usual("addresses").purged(),
    Rule::usual("sessions").purged(),
    Rule::usual("users").purged(),
    Rule::usual("deliveries").purged(),
    Rule::usual("erased_accounts").purged(),
    Rule::usual("idempotency_keys").purged(),
    Rule::usual("job_ledger").purged(),
    Rule::usual("reconciliation_runs").purged(),
];

/// The rule of a table.
pub fn rule(table: &str) -> Rule {
    let known = RULES.iter().find(|rule| rule.table == table);
    known.copied().unwrap_or(Rule::usual(""))
}

/// Why a role does not get its privileges.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    #[error("there is no role {0}; make it with CREATE ROLE {0} LOGIN PASSWORD '…'")]
    NoRole(String),
    #[error("the role of the processes may do too much: {}", .0.join("; "))]
    Excess(Vec<String>),
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
}

/// Gives the role what the processes need in the schema, and takes everything else from it. Returns
/// what only the owner of the database could take, a line each.
///
/// All or nothing, and safe to repeat. Processes that run meanwhile notice nothing.
///
/// Fails where the role is mighty by itself: a superuser, an owner of tables, or a member of one.
pub async fn grant(db: &PgPool, role: &str) -> Result<Vec<String>, PrivilegesError> {
    let mut tx = db.begin().await?;
    // Two at a time would update the same rows of the catalog.
    store::lock(&mut tx).await?;
    if !store::role_exists(&mut *tx, role).await? {
        tx.rollback().await?;
        return Err(PrivilegesError::NoRole(role.to_owned()));
    }
    let place = store::place(&mut *tx).await?;
    let tables = store::tables(&mut *tx).await?;
    store::execute(&mut tx, script(&place, &tables, role)).await?;
    let abilities = store::abilities(&mut tx, role).await?;
    let left = excess_in_database(&abilities);
    let excess = excess_of(abilities);
    if !excess.is_empty() {
        tx.rollback().await?;
        return Err(PrivilegesError::Excess(excess));
    }
    tx.commit().await?;
    Ok(left)
}

/// What the role that is connected may do beyond [`RULES`], a line each.
pub async fn excess(db: &PgPool) -> Result<Vec<String>, PrivilegesError> {
    let mut connection = db.acquire().await?;
    let me = store::me(&mut *connection).await?;
    let abilities = store::abilities(&mut connection, &me).await?;
    let left = excess_in_database(&abilities);
    Ok([excess_of(abilities), left].concat())
}

/// What the role may do too much in the database beside the schema. Whoever migrates may not own the
/// database, and cannot take it away then.
fn excess_in_database(abilities: &store::Abilities) -> Vec<String> {
    let line = format!("{} can make temporary tables", abilities.role.name);
    if abilities.may_create_temporary { vec![line] } else { Vec::new() }
}

fn excess_of(abilities: store::Abilities) -> Vec<String> {
    let store::Abilities { role, may_be_owner, may_create, tables, .. } = abilities;
    if role.is_superuser {
        return vec![format!("{} is a superuser", role.name)];
    }
    let mut lines = Vec::new();
    for (is_so, line) in [
        (role.may_create_roles, "can make roles"),
        (may_create, "can create objects in the schema"),
        (may_be_owner, "can act as the owner of tables"),
    ] {
        lines.extend(is_so.then(|| format!("{} {line}", role.name)));
    }
    if may_be_owner {
        // That is everything.
        return lines;
    }
    for table in tables {
        let rule = rule(&table.name);
        let mut too_much = Vec::new();
        for (is_so, privilege) in [
            (table.insert && !rule.insert, "insert into"),
            (table.update && rule.update != Change::Everything, "update"),
            (
                !table.update && rule.update.is_exceeded_by(&table.update_columns),
                "update columns of",
            ),
            (table.delete && !rule.delete, "delete from"),
            (table.truncate, "truncate"),
            (table.add_trigger, "add triggers to"),
        ] {
            too_much.extend(is_so.then_some(privilege));
        }
        if !too_much.is_empty() {
            lines.push(format!("{} can {} {}", role.name, too_much.join(", "), table.name));
        }
    }
    lines
}

/// The statements that make it so.
fn script(place: &store::Place, tables: &[String], role: &str) -> String {
    let (database, schema, role) = (quote(&place.database), quote(&place.schema), quote(role));
    let mut script = format!(
        "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {role};
         REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, {role};
         GRANT CONNECT ON DATABASE {database} TO {role};
         GRANT USAGE ON SCHEMA {schema} TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT ON TABLES TO {role};\n"
    );
    // One statement for all tables of one kind.
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in tables {
        let table_name = format!("{schema}.{}", quote(table));
        kinds.entry(privileges(&rule(table))).or_default().push(table_name);
    }
    script.extend(kinds.into_iter().map(|(privileges, tables)| {
        format!("GRANT {privileges} ON {} TO {role};\n", tables.join(", "))
    }));
    script
}

fn privileges(rule: &Rule) -> String {
    let update = match rule.update {
        Change::Nothing => None,
        Change::Only(columns) => {
            let columns: Vec<_> = columns.iter().map(|column| quote(column)).collect();
            Some(format!("UPDATE ({})", columns.join(", ")))
        }
        Change::Everything => Some("UPDATE".to_owned()),
    };
    let insert = rule.insert.then(|| "INSERT".to_owned());
    let delete = rule.delete.then(|| "DELETE".to_owned());
    let all = [Some("SELECT".to_owned()), insert, update, delete];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The name as SQL wants it, whatever is in it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
