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

/// What the login itself is: a row of booleans, and what they stand for.
pub(super) fn attributes(dialect: Dialect) -> (&'static str, &'static [&'static str]) {
    match dialect {
        Dialect::Redshift => (
            "select usesuper, usecreatedb from pg_user where usename = current_user",
            &["superuser", "createdb"],
        ),
        Dialect::Postgres | Dialect::Sqlite => (
            "select rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls \
             from pg_roles where rolname = current_user",
            &[
                "superuser",
                "createdb",
                "createrole",
                "replication",
                "bypassrls",
            ],
        ),
    }
}

/// PostgreSQL's roles that the login is in, and what each of them may do.
pub(super) const ROLES: &str = "select rolname, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls from pg_roles \
     where rolname <> current_user and pg_has_role(current_user, oid, 'member') order by 1";

/// The groups that the login is in.
pub(super) const GROUPS: &str = "select g.groname from pg_group g, pg_user u \
     where u.usename = current_user and u.usesysid = any (g.grolist) order by 1";

/// Redshift's roles that were granted to the login: each sees its own.
pub(super) const USER_GRANTS: &str =
    "select role_name from svv_user_grants where user_name = current_user";

/// Redshift's roles that were granted to roles.
pub(super) const ROLE_GRANTS: &str = "select role_name, granted_role_name from svv_role_grants";

/// What the login holds on the database: a row of booleans, and what they
/// stand for.
pub(super) fn on_database(dialect: Dialect) -> (&'static str, &'static [&'static str]) {
    match dialect {
        Dialect::Redshift => (
            "select has_database_privilege(current_database(), 'create'), \
             has_database_privilege(current_database(), 'temporary')",
            &["create", "temporary"],
        ),
        Dialect::Postgres | Dialect::Sqlite => (
            "select has_database_privilege(current_database(), 'connect'), \
             has_database_privilege(current_database(), 'create'), \
             has_database_privilege(current_database(), 'temporary')",
            &["connect", "create", "temporary"],
        ),
    }
}

/// The schemas in which the login may do something: whether use, whether
/// create.
pub(super) fn on_schemas(dialect: Dialect, most: usize) -> String {
    let may = |what: &str| format!("has_schema_privilege(n.nspname, '{what}')");
    let (usage, create) = (may("usage"), may("create"));
    format!(
        "select n.nspname, {usage}, {create} from pg_namespace n \
         where {} and ({usage} or {create}) order by 1 limit {most}",
        others(dialect)
    )
}

/// The isolation of Redshift's transactions, where it may be seen.
pub(super) const ISOLATION: &str = "select database_isolation_level from svv_redshift_databases \
     where database_name = current_database()";

/// The databases made from data shares.
pub(super) const SHARED_DATABASES: &str =
    "select database_name from svv_redshift_databases where database_type = 'shared' order by 1";

/// What data shares hold that were given to this warehouse.
pub(super) fn shared_objects(most: usize) -> String {
    format!(
        "select share_name, object_name, object_type from svv_datashare_objects \
         where share_type = 'INBOUND' and (object_type like '%table%' or object_type like '%view%') \
         order by 1, 2 limit {most}"
    )
}

/// Privileges on relations that Redshift has no function for, with whom they
/// are granted to.
pub(super) const FURTHER_PRIVILEGES: &str = "select namespace_name, relation_name, lower(privilege_type), identity_name \
     from svv_relation_privileges where lower(privilege_type) in ('truncate', 'drop', 'alter')";

/// What may be held on a relation, as the functions of the database have it.
pub(super) fn on_relations(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Sqlite => &[],
        Dialect::Redshift => &["select", "insert", "update", "delete", "references"],
        Dialect::Postgres => &[
            "select",
            "insert",
            "update",
            "delete",
            "truncate",
            "references",
            "trigger",
        ],
    }
}

/// [`OTHERS`] as the database reads it: in a literal of Redshift's the
/// backslash needs one of its own.
fn others(dialect: Dialect) -> String {
    match dialect {
        Dialect::Redshift => OTHERS.replace('\\', "\\\\"),
        Dialect::Postgres | Dialect::Sqlite => OTHERS.to_owned(),
    }
}

/// Whether the login may use the daemon's schema, and create in it; no row
/// where there is none.
pub(super) fn own_schema(literal: &str) -> String {
    format!(
        "select has_schema_privilege(n.nspname, 'usage'), has_schema_privilege(n.nspname, 'create') \
         from pg_namespace n where n.nspname = {literal}"
    )
}

/// What is there to read or to change: schema, name, kind, whether it is a view
/// of every column, and then what of [`on_relations`] the login holds.
pub(super) fn relations(dialect: Dialect, own_schema: &str, most: usize) -> String {
    let may = |what: &str| format!("has_table_privilege(c.oid, '{what}')");
    let held: Vec<String> = on_relations(dialect).iter().copied().map(may).collect();
    let definition = "lower(pg_get_viewdef(c.oid))";
    let (kind, star) = match dialect {
        Dialect::Sqlite => {
            return format!(
                "select '', name, type, 0 from sqlite_master where type in ('table', 'view') \
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
    format!(
        "select n.nspname, c.relname, {kind}, {star}, {} \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'v', 'm', 'f', 'p') and n.nspname <> {own_schema} and {} \
         and has_schema_privilege(n.nspname, 'usage') and ({}) \
         order by 1, 2 limit {most}",
        held.join(", "),
        others(dialect),
        held.join(" or ")
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
