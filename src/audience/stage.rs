//! The statements of a run's own tables: freeze, admit, lay out, page.

use super::columns::Column;
use super::quote::identifier;
use super::{AudienceSpec, Dialect, Schema, Statement, TableNames};
use crate::id::RunId;

/// The longest member key, in bytes: the width of `profile_id`.
const MAX_KEY_BYTES: u32 = 256;

/// The statements about one run's tables.
#[derive(Debug, Clone, Copy)]
pub struct RunTables<'a> {
    schema: &'a Schema,
    run: &'a RunId,
    audience: &'a AudienceSpec,
}

impl<'a> RunTables<'a> {
    /// Of `run`, whose audience is `audience`.
    pub fn new(schema: &'a Schema, run: &'a RunId, audience: &'a AudienceSpec) -> Self {
        Self {
            schema,
            run,
            audience,
        }
    }

    fn names(&self) -> TableNames {
        TableNames::of(self.run)
    }

    fn statement(&self, step: &str, sql: &str) -> Statement {
        Statement::new(step, self.run.as_str(), sql)
    }

    fn around(&self, step: &str, before: &str, after: &str) -> Statement {
        let sql = super::lint::without_semicolon(&self.audience.sql);
        Statement::around(step, self.run.as_str(), [before, &sql, after])
    }

    /// Makes the probe, which costs next to nothing: no row is read. SQLite
    /// looks into a view only later, so the query is tried by itself first.
    pub fn probe(&self) -> Vec<Statement> {
        match self.schema.dialect {
            Dialect::Sqlite => vec![
                self.around("probe", "select 1 from (", ") as q where 0"),
                self.around("probe", "create temp view cd_probe as", ""),
            ],
            Dialect::Postgres | Dialect::Redshift => vec![self.around(
                "probe",
                "create temp table cd_probe as select q.* from (",
                ") as q where 1 = 0",
            )],
        }
    }

    /// The probe's columns, as [`Schema::columns_of`] gives them.
    pub fn probed_columns(&self) -> Statement {
        let sql = match self.schema.dialect {
            Dialect::Sqlite => "select name, type from pragma_table_info('cd_probe')",
            Dialect::Postgres | Dialect::Redshift => {
                "select a.attname, a.atttypid from pg_attribute a join pg_class c \
                 on c.oid = a.attrelid where c.relname = 'cd_probe' \
                 and pg_table_is_visible(c.oid) \
                 and a.attnum > 0 and not a.attisdropped order by a.attnum"
            }
        };
        self.statement("probe", sql)
    }

    /// Drops the probe.
    pub fn drop_probe(&self) -> Statement {
        let sql = match self.schema.dialect {
            Dialect::Sqlite => "drop view temp.cd_probe",
            Dialect::Postgres | Dialect::Redshift => "drop table cd_probe",
        };
        self.statement("probe", sql)
    }

    /// Freezes the audience: every row with its key, its status and, where it
    /// is the one row of its key, its place and its batch. The table is
    /// written in that order. One statement where one can carry the types,
    /// else one transaction: the stage table is there complete or not at all.
    pub fn freeze(&self, columns: &[Column], key: &Column, batch_size: u32) -> Vec<Statement> {
        let stage = self.schema.table(&self.names().stage);
        let (before, after) = self.ranked_rows(columns, key);
        let integer = self.schema.dialect.integer();
        let select = format!(
            "select {}, x.cd_key, case when x.cd_bytes is null then 'no_key' \
             when x.cd_key is null then 'bad_key' when x.cd_rank > 1 then 'duplicate' \
             else 'ok' end as cd_status, \
             case when x.cd_key is not null and x.cd_rank = 1 then x.cd_place end as cd_seq, \
             case when x.cd_key is not null and x.cd_rank = 1 \
             then cast((x.cd_place - 1) / {batch_size} + 1 as {integer}) end as cd_batch from (",
            listed(columns, "x."),
        );
        match self.schema.dialect {
            Dialect::Sqlite => {
                let declared: Vec<String> = columns.iter().map(Column::declaration).collect();
                let create = format!(
                    "create table {stage} ({}, cd_key text, cd_status text, cd_seq integer, cd_batch integer)",
                    declared.join(", ")
                );
                let insert = format!("insert into {stage} {select}{before}");
                let mut script = self.schema.begin(self.run.as_str(), None);
                script.push(self.statement("freeze", &create));
                script.push(self.around("freeze", &insert, &after));
                script.push(self.schema.commit(self.run.as_str()));
                script
            }
            Dialect::Postgres => {
                let create = format!("create table {stage} as {select}{before}");
                vec![self.around("freeze", &create, &after)]
            }
            Dialect::Redshift => {
                let create = format!(
                    "create table {stage} diststyle even compound sortkey (cd_seq) as {select}{before}"
                );
                vec![self.around("freeze", &create, &after)]
            }
        }
    }

    /// The two sides of the campaign's SQL that give each row its key, its
    /// rank among the rows of the same key and its key's place among all
    /// keys. A key that is too long is none; its length tells it from one
    /// that was not there. Both windows are in the order of the key, so the
    /// rows are sorted once.
    fn ranked_rows(&self, columns: &[Column], key: &Column) -> (String, String) {
        let key = format!("q.{}", identifier(&key.name));
        let dialect = self.schema.dialect;
        let text = match dialect {
            Dialect::Sqlite => format!("rtrim(cast({key} as text))"),
            Dialect::Postgres | Dialect::Redshift => {
                format!("rtrim(cast({key} as varchar(65535)))")
            }
        };
        let bytes = match dialect {
            Dialect::Sqlite => format!("length(cast({text} as blob))"),
            Dialect::Postgres | Dialect::Redshift => format!("octet_length({text})"),
        };
        // The servers put nulls last by themselves, and Redshift does not
        // take the words everywhere.
        let last = match dialect {
            Dialect::Sqlite => " nulls last",
            Dialect::Postgres | Dialect::Redshift => "",
        };
        let order: Vec<String> = columns
            .iter()
            .filter_map(|column| column.order_term(dialect, "k"))
            .collect();
        let order = match order.is_empty() {
            true => "k.cd_key".to_owned(),
            false => order.join(", "),
        };
        let before = format!(
            "select k.*, row_number() over (partition by k.cd_key order by {order}) as cd_rank, \
             dense_rank() over (order by k.cd_key{last}) as cd_place from (\
             select {columns}, {bytes} as cd_bytes, \
             case when {bytes} <= {MAX_KEY_BYTES} then {text} end as cd_key from (",
            columns = listed(columns, "q."),
        );
        (before, ") as q) as k) as x order by x.cd_key".to_owned())
    }

    /// Counts the frozen rows: a status and its count a row.
    pub fn count_stage(&self) -> Statement {
        let stage = self.schema.table(&self.names().stage);
        let sql = format!("select cd_status, count(*) from {stage} group by cd_status");
        self.statement("count", &sql)
    }

    /// Makes the stage the run table: what was frozen is written in the order
    /// it is sent, so only the rows that nobody is contacted by go, and the
    /// name. One transaction: the run table is there complete or not at all.
    pub fn lay_out(&self) -> Vec<Statement> {
        let names = self.names();
        let stage = self.schema.table(&names.stage);
        let run = self.schema.table(&names.run);
        let mut lines = vec![
            format!("delete from {stage} where cd_seq is null"),
            format!("alter table {stage} rename to {}", identifier(&names.run)),
        ];
        match self.schema.dialect {
            Dialect::Sqlite => lines.push(format!(
                "create index {} on {run} (cd_seq)",
                identifier(&format!("{}_by_cd_seq", names.run)),
            )),
            Dialect::Postgres => lines.extend([
                format!("create index on {run} using brin (cd_seq) with (pages_per_range = 32)"),
                format!("analyze {run} (cd_seq, cd_batch)"),
            ]),
            // Found by its sort key.
            Dialect::Redshift => {}
        }
        let mut script = self.schema.begin(self.run.as_str(), None);
        script.extend(lines.iter().map(|sql| self.statement("lay out", sql)));
        script.push(self.schema.commit(self.run.as_str()));
        script
    }

    /// The planned members from `first` to `last`, both inclusive, in order.
    pub fn page(&self, columns: &[Column], first: u64, last: u64) -> Statement {
        let sql = format!(
            "select {} from {} r where r.cd_seq between {first} and {last} order by r.cd_seq",
            listed(columns, "r."),
            self.schema.table(&self.names().run),
        );
        self.statement("page", &sql)
    }
}

/// The columns behind `row`, in order.
fn listed(columns: &[Column], row: &str) -> String {
    let names = columns
        .iter()
        .map(|c| format!("{row}{}", identifier(&c.name)));
    names.collect::<Vec<_>>().join(", ")
}
