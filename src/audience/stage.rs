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

    /// Freezes the audience: every row with its key and its status. One
    /// statement where one can carry the types, else one transaction: the
    /// stage table is there complete or not at all.
    pub fn freeze(&self, columns: &[Column], key: &Column) -> Vec<Statement> {
        let stage = self.schema.table(&self.names().stage);
        let (before, after) = self.numbered_rows(columns, key);
        let select = format!(
            "select {}, x.cd_key, case when x.cd_key is null then 'no_key' \
             when {} > {MAX_KEY_BYTES} then 'bad_key' \
             when x.cd_rank > 1 then 'duplicate' else 'ok' end as cd_status from (",
            listed(columns, "x."),
            self.byte_length("x.cd_key"),
        );
        match self.schema.dialect {
            Dialect::Sqlite => {
                let declared: Vec<String> = columns.iter().map(Column::declaration).collect();
                let create = format!(
                    "create table {stage} ({}, cd_key text, cd_status text)",
                    declared.join(", ")
                );
                let insert = format!("insert into {stage} {select}{before}");
                let mut script = self.schema.begin(self.run.as_str(), None);
                script.push(self.statement("freeze", &create));
                script.push(self.around("freeze", &insert, &format!("{after}) as x")));
                script.push(self.schema.commit(self.run.as_str()));
                script
            }
            Dialect::Postgres | Dialect::Redshift => {
                let create = format!("create table {stage} as {select}{before}");
                vec![self.around("freeze", &create, &format!("{after}) as x"))]
            }
        }
    }

    /// The two sides of the campaign's SQL that give each row its key and its
    /// place among the rows of the same key.
    fn numbered_rows(&self, columns: &[Column], key: &Column) -> (String, String) {
        let key = identifier(&key.name);
        let cd_key = match self.schema.dialect {
            Dialect::Sqlite => format!("rtrim(cast(q.{key} as text))"),
            Dialect::Postgres | Dialect::Redshift => {
                format!("rtrim(cast(q.{key} as varchar(65535)))")
            }
        };
        let order: Vec<String> = columns
            .iter()
            .filter_map(|column| column.order_term(self.schema.dialect, "q"))
            .collect();
        let order = match order.is_empty() {
            true => cd_key.clone(),
            false => order.join(", "),
        };
        let before = format!(
            "select {}, {cd_key} as cd_key, \
             row_number() over (partition by {cd_key} order by {order}) as cd_rank from (",
            listed(columns, "q."),
        );
        (before, ") as q".to_owned())
    }

    fn byte_length(&self, expression: &str) -> String {
        match self.schema.dialect {
            Dialect::Sqlite => format!("length(cast({expression} as blob))"),
            Dialect::Postgres | Dialect::Redshift => format!("octet_length({expression})"),
        }
    }

    /// Counts the frozen rows: a status and its count a row.
    pub fn count_stage(&self) -> Statement {
        let stage = self.schema.table(&self.names().stage);
        let sql = format!("select cd_status, count(*) from {stage} group by cd_status");
        self.statement("count", &sql)
    }

    /// Decides who is contacted and numbers them from 1 without a gap.
    pub fn admit(&self) -> Statement {
        let names = self.names();
        let sql = format!(
            "create table {} as select s.cd_key, 'planned' as cd_status, \
             row_number() over (order by s.cd_key) as cd_seq from {} s where s.cd_status = 'ok'",
            self.schema.table(&names.admit),
            self.schema.table(&names.stage),
        );
        self.statement("admit", &sql)
    }

    /// Writes the planned rows in the order they are sent, found by it, and
    /// drops the tables they come from. One transaction: where the run table
    /// is, the others are not needed any more.
    pub fn lay_out(&self, columns: &[Column], batch_size: u32) -> Vec<Statement> {
        let run = self.schema.table(&self.names().run);
        let select = self.planned_rows(columns, batch_size);
        let mut script = self.schema.begin(self.run.as_str(), None);
        let lines = match self.schema.dialect {
            Dialect::Sqlite => {
                let declared: Vec<String> = columns.iter().map(Column::declaration).collect();
                let create = format!(
                    "create table {run} ({}, cd_seq integer primary key, cd_batch integer, cd_key text)",
                    declared.join(", ")
                );
                vec![create, format!("insert into {run} {select}")]
            }
            Dialect::Postgres => vec![
                format!("create table {run} as {select}"),
                format!("create index on {run} using brin (cd_seq) with (pages_per_range = 32)"),
                format!("analyze {run}"),
            ],
            Dialect::Redshift => vec![format!(
                "create table {run} diststyle even compound sortkey (cd_seq) as {select}"
            )],
        };
        script.extend(lines.iter().map(|sql| self.statement("lay out", sql)));
        script.extend(self.drop_sources());
        script.push(self.schema.commit(self.run.as_str()));
        script
    }

    fn planned_rows(&self, columns: &[Column], batch_size: u32) -> String {
        let names = self.names();
        let integer = match self.schema.dialect {
            Dialect::Sqlite => "integer",
            Dialect::Postgres | Dialect::Redshift => "int",
        };
        format!(
            "select {}, a.cd_seq, cast((a.cd_seq - 1) / {batch_size} + 1 as {integer}) as cd_batch, \
             a.cd_key from {} s join {} a on a.cd_key = s.cd_key \
             where s.cd_status = 'ok' order by a.cd_seq",
            listed(columns, "s."),
            self.schema.table(&names.stage),
            self.schema.table(&names.admit),
        )
    }

    /// Drops what the run table was made from, if it is still there.
    pub fn drop_sources(&self) -> [Statement; 2] {
        let names = self.names();
        [names.stage, names.admit].map(|table| self.schema.drop_table(self.run.as_str(), &table))
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
