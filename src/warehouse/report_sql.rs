//! The questions of a connector's report, to catalogs alone. Redshift answers
//! privilege functions only beside catalog tables, so columns are asked for
//! apart from them.

use crate::audience::Dialect;

/// Who we are, and where.
pub(super) const LOGIN: &str = "select current_user || ' in ' || current_database()";

/// How PostgreSQL sees this connection.
pub(super) const ENCRYPTION: &str =
    "select version || ', ' || cipher from pg_stat_ssl where pid = pg_backend_pid() and ssl";

/// Schemas that are nobody's data.
const OTHERS: &str =
    "n.nspname not in ('information_schema', 'catalog_history') and n.nspname not like 'pg\\_%'";

/// What the server is.
pub(super) fn version(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "select 'SQLite ' || sqlite_version()",
        Dialect::Postgres | Dialect::Redshift => "select version()",
    }
}

/// A row where the login may do anything.
pub(super) const SUPERUSER: &str =
    "select usename from pg_user where usename = current_user and usesuper";

/// What an ordinary login may and does not need: a row for each, and what is said of
/// it.
pub(super) fn excesses(dialect: Dialect) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        (
            "select usename from pg_user where usename = current_user and usecreatedb",
            "the login `{}` may create databases; an administrator must run `alter user … nocreatedb`",
        ),
        (
            "select current_database() where has_database_privilege(current_database(), 'create')",
            "the login may create schemas in the database `{}`; an administrator must revoke create on it",
        ),
        (
            "select n.nspname from pg_namespace n where n.nspname = 'public' \
             and has_schema_privilege(n.nspname, 'create')",
            "the login may create tables in the schema `{}`; an administrator must revoke create on it from public",
        ),
    ];
    if dialect == Dialect::Postgres {
        all.push((
            "select rolname from pg_roles where rolname = current_user and rolcreaterole",
            "the login `{}` may create roles; an administrator must run `alter role … nocreaterole`",
        ));
    }
    all
}

/// Whether the login may use the daemon's schema, and create in it; no row
/// where there is none.
pub(super) fn own_schema(literal: &str) -> String {
    format!(
        "select has_schema_privilege(n.nspname, 'usage'), has_schema_privilege(n.nspname, 'create') \
         from pg_namespace n where n.nspname = {literal}"
    )
}

/// What is there to read: schema, name, kind, whether the login may change it,
/// and whether it is a view of every column.
pub(super) fn relations(dialect: Dialect, own_schema: &str, most: usize) -> String {
    let may = |what: &str| format!("has_table_privilege(c.oid, '{what}')");
    let changes = ["insert", "update", "delete"].map(may).join(" or ");
    let definition = "lower(pg_get_viewdef(c.oid))";
    let (kind, star) = match dialect {
        Dialect::Sqlite => {
            return format!(
                "select '', name, type, 0, 0 from sqlite_master where type in ('table', 'view') \
                 and name not like 'sqlite\\_%' escape '\\' and name not in ({}) order by name limit {most}",
                own_names()
            );
        }
        // It stores a view's columns by their names.
        Dialect::Postgres => ("c.relkind::text".to_owned(), "false".to_owned()),
        // The text of a late-binding view is kept as it was written.
        Dialect::Redshift => (
            format!(
                "case when c.relkind = 'v' and {definition} like '%with no schema binding%' \
                 then 'l' else c.relkind::text end"
            ),
            format!("c.relkind = 'v' and {definition} like '%select *%'"),
        ),
    };
    let others = match dialect {
        // In a literal of Redshift's the backslash needs one of its own.
        Dialect::Redshift => OTHERS.replace('\\', "\\\\"),
        Dialect::Postgres | Dialect::Sqlite => OTHERS.to_owned(),
    };
    format!(
        "select n.nspname, c.relname, {kind}, {changes}, {star} \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'v', 'm', 'f', 'p') and n.nspname <> {own_schema} and {others} \
         and has_schema_privilege(n.nspname, 'usage') and has_table_privilege(c.oid, 'select') \
         order by 1, 2 limit {most}"
    )
}

fn own_names() -> String {
    let names = crate::history::TABLES.iter();
    let names: Vec<String> = names.map(|table| format!("'{}'", table.name)).collect();
    names.join(", ")
}

/// The columns of a relation and their types, in order. Names with a NUL there
/// are none.
pub(super) fn columns(dialect: Dialect, schema: &str, table: &str) -> String {
    let literal = |text: &str| {
        let text = text.replace('\0', "");
        dialect
            .literal(&text)
            .expect("a name without NUL is a literal")
    };
    let (schema, table) = (literal(schema), literal(table));
    let view = match dialect {
        Dialect::Sqlite => {
            return format!("select name, type from pragma_table_info({table}) order by cid");
        }
        Dialect::Postgres => "information_schema.columns",
        Dialect::Redshift => "svv_columns",
    };
    format!(
        "select column_name, data_type from {view} \
         where table_schema = {schema} and table_name = {table} order by ordinal_position"
    )
}
