//! The tables the daemon writes for good, column by column.

use crate::audience::{Dialect, Schema, Statement, identifier};

/// Rows are written in the order of this column. PostgreSQL finds them by it
/// at next to no cost; SQLite would pay with every row, and holds few.
const RECORDED_AT: &str = "recorded_at";

/// A table of ours. Nothing is declared a key: Redshift does not enforce keys
/// and yet plans by them.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Each column and its type, in order. New ones are added at the end.
    pub columns: &'static [(&'static str, &'static str)],
    /// How Redshift lays it out.
    redshift: &'static str,
    /// The columns PostgreSQL and SQLite find its rows by.
    found_by: Option<&'static str>,
}

/// Every table, lock tables included.
pub const TABLES: &[Table] = &[
    Table {
        name: "contact_history",
        columns: &[
            ("run_id", "varchar(200)"),
            ("campaign", "varchar(128)"),
            ("fire_time", "timestamp"),
            ("profile_id", "varchar(256)"),
            ("destination", "varchar(128)"),
            ("channel", "varchar(64)"),
            ("status", "varchar(16)"),
            ("counts_as_contact", "boolean"),
            ("is_test", "boolean"),
            ("batch", "int"),
            ("part", "varchar(64)"),
            ("message_id", "varchar(64)"),
            ("reason", "varchar(512)"),
            ("attributes", "varchar(4096)"),
            ("campaign_version", "varchar(64)"),
            ("contacted_at", "timestamp"),
            ("recorded_at", "timestamp"),
        ],
        redshift: " diststyle key distkey (profile_id) compound sortkey (recorded_at)",
        found_by: Some(RECORDED_AT),
    },
    Table {
        name: "deliveries",
        columns: &[
            ("run_id", "varchar(200)"),
            ("batch", "int"),
            ("part", "varchar(64)"),
            ("message_id", "varchar(64)"),
            ("destination", "varchar(128)"),
            ("status", "varchar(16)"),
            ("members", "int"),
            ("rejected", "int"),
            ("attempts", "int"),
            ("http_status", "int"),
            ("first_attempt_at", "timestamp"),
            ("settled_at", "timestamp"),
            ("error", "varchar(512)"),
        ],
        redshift: "",
        found_by: Some("run_id, batch"),
    },
    Table {
        name: "runs",
        columns: &[
            ("run_id", "varchar(200)"),
            ("campaign", "varchar(128)"),
            ("campaign_version", "varchar(64)"),
            ("fire_time", "timestamp"),
            ("trigger", "varchar(16)"),
            ("status", "varchar(16)"),
            ("started_at", "timestamp"),
            ("finished_at", "timestamp"),
            ("audience", "bigint"),
            ("no_key", "bigint"),
            ("bad_key", "bigint"),
            ("duplicate", "bigint"),
            ("suppressed", "bigint"),
            ("capped", "bigint"),
            ("cooling_down", "bigint"),
            ("held_out", "bigint"),
            ("over_limit", "bigint"),
            ("planned", "bigint"),
            ("delivered", "bigint"),
            ("rejected", "bigint"),
            ("failed", "bigint"),
            ("unknown", "bigint"),
            ("cancelled", "bigint"),
            ("still_open", "bigint"),
            ("error", "varchar(512)"),
        ],
        redshift: "",
        found_by: Some("run_id"),
    },
    Table {
        name: "open_runs",
        columns: &[
            ("run_id", "varchar(200)"),
            ("campaign", "varchar(128)"),
            ("channel", "varchar(64)"),
            ("owner", "varchar(36)"),
            ("term", "int"),
            ("state", "varchar(16)"),
            ("run_table", "varchar(64)"),
            ("opened_at", "timestamp"),
            ("seen_at", "timestamp"),
        ],
        redshift: "",
        found_by: None,
    },
    Table {
        name: "cap_lock",
        columns: &[("id", "int")],
        redshift: "",
        found_by: None,
    },
    Table {
        name: "settle_lock",
        columns: &[("id", "int")],
        redshift: "",
        found_by: None,
    },
];

impl Table {
    /// Creates it if it is not there.
    pub fn create(&self, schema: &Schema) -> Statement {
        let columns = self
            .columns
            .iter()
            .map(|&column| declared(schema.dialect, column));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let layout = match schema.dialect {
            Dialect::Redshift => self.redshift,
            Dialect::Sqlite | Dialect::Postgres => "",
        };
        let sql = format!(
            "create table if not exists {} ({columns}){layout}",
            schema.table(self.name)
        );
        Statement::new("bootstrap", self.name, &sql)
    }

    /// The index its rows are found by, where there is one. Redshift has no
    /// indexes.
    pub fn index(&self, schema: &Schema) -> Option<Statement> {
        let by = self.found_by?;
        let name = identifier(&format!("{}_by_{}", self.name, by.replace(", ", "_")));
        let using = match (schema.dialect, by) {
            (Dialect::Redshift, _) | (Dialect::Sqlite, RECORDED_AT) => return None,
            (Dialect::Postgres, RECORDED_AT) => " using brin",
            (Dialect::Sqlite | Dialect::Postgres, _) => "",
        };
        let sql = format!(
            "create index if not exists {name} on {}{using} ({by})",
            schema.table(self.name)
        );
        Some(Statement::new("bootstrap", self.name, &sql))
    }

    /// Adds the columns that are not among `present`, one a statement.
    pub fn add_missing(&self, schema: &Schema, present: &[String]) -> Vec<Statement> {
        let is_missing =
            |column: &&(&str, &str)| !present.iter().any(|p| p.eq_ignore_ascii_case(column.0));
        let add = |&column: &(&str, &str)| {
            let sql = format!(
                "alter table {} add column {}",
                schema.table(self.name),
                declared(schema.dialect, column)
            );
            Statement::new("bootstrap", self.name, &sql)
        };
        self.columns.iter().filter(is_missing).map(add).collect()
    }

    /// Its columns, for an `insert`.
    pub(super) fn column_list(&self) -> String {
        let names = self.columns.iter().map(|(name, _)| identifier(name));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// The table called `name`, which is one of [`TABLES`].
pub(super) fn table(name: &str) -> &'static Table {
    TABLES
        .iter()
        .find(|table| table.name == name)
        .expect("only our own tables are asked for")
}

/// The day, UTC, of a `timestamp` column.
pub(super) fn day_of(dialect: Dialect, column: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("substr({column}, 1, 10)"),
        Dialect::Postgres | Dialect::Redshift => format!("cast({column} as date)"),
    }
}

/// SQLite keeps times as text and has no lengths.
fn declared(dialect: Dialect, (name, type_name): (&str, &str)) -> String {
    let type_name = match (dialect, type_name) {
        (Dialect::Sqlite, "timestamp") => "text",
        (Dialect::Sqlite, "int" | "bigint") => "integer",
        (Dialect::Sqlite, text) if text.starts_with("varchar") => "text",
        (_, other) => other,
    };
    format!("{} {type_name}", identifier(name))
}
