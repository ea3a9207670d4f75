//! The statements that remove what has been kept long enough.

use super::Unwritable;
use super::adoption::seconds_since;
use crate::audience::{Dialect, Schema, Statement};
use crate::id::RunId;
use std::time::Duration;

const STEP: &str = "tidy";

/// The most runs a `delete` takes at a time: what it holds `settle_lock` for.
const RUNS_PER_DELETE: usize = 200;

/// What names the tables of runs; what follows is 16 hexadecimal digits.
pub(super) const PREFIXES: [&str; 3] = ["run_", "stage_", "admit_"];

/// How long the warehouse keeps what runs have left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rows of ended runs: history, deliveries and the runs themselves.
    pub history: Duration,
    /// The tables of ended runs with members who were not delivered.
    pub tables: Duration,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    /// Runs whose rows were.
    pub runs: u64,
    /// Tables of runs that were dropped.
    pub tables: u64,
}

/// The runs that ended longer than `age` ago, by the warehouse's clock, and
/// are in no `open_runs`: one id a row. A fire time without a run has no end:
/// it counts from itself.
pub fn ended_before(schema: &Schema, age: Duration) -> Statement {
    let sql = format!(
        "select run_id from {runs} where {since} >= {} and status <> 'open' \
         and run_id not in (select run_id from {open})",
        age.as_secs(),
        runs = schema.table("runs"),
        since = seconds_since(schema.dialect, "coalesce(finished_at, fire_time)"),
        open = schema.table("open_runs"),
    );
    Statement::new(STEP, "ended runs", &sql)
}

/// The newest started run of each campaign in `runs`: one id a row. They stay,
/// since a state store tells by its newest run whether the warehouse was put
/// back to an older state, and more than one may share the warehouse.
pub fn newest_runs(schema: &Schema) -> Statement {
    let runs = schema.table("runs");
    let sql = format!(
        "select r.run_id from {runs} r join (select campaign, max(started_at) as newest \
         from {runs} group by campaign) n on n.campaign = r.campaign and n.newest = r.started_at"
    );
    Statement::new(STEP, "newest runs", &sql)
}

/// Forgets `runs`, some at a time: each element is what one transaction under
/// `settle_lock` does. The row in `runs` goes last, so that what was cut short
/// is found again. A run that was opened meanwhile stays whole.
pub fn forget_runs(schema: &Schema, runs: &[String]) -> Result<Vec<Vec<Statement>>, Unwritable> {
    let open = schema.table("open_runs");
    let forget = |some: &[String]| {
        let ids = some.iter().map(|run| schema.dialect.literal(run));
        let ids = ids.collect::<Result<Vec<_>, _>>()?.join(", ");
        let delete = |name: &&str| {
            let sql = format!(
                "delete from {} where run_id in ({ids}) \
                 and run_id not in (select run_id from {open})",
                schema.table(name)
            );
            Statement::new(STEP, "ended runs", &sql)
        };
        Ok(["contact_history", "deliveries", "runs"]
            .iter()
            .map(delete)
            .collect())
    };
    runs.chunks(RUNS_PER_DELETE).map(forget).collect()
}

/// The tables of our schema that may be those of runs: one name a row.
pub fn run_tables(schema: &Schema) -> Statement {
    let like = |column: &str| {
        let each = PREFIXES.map(|prefix| format!("{column} like '{prefix}%'"));
        each.join(" or ")
    };
    let sql = match schema.dialect {
        Dialect::Sqlite => format!(
            "select name from sqlite_master where type = 'table' and ({})",
            like("name")
        ),
        Dialect::Postgres | Dialect::Redshift => format!(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = {} and c.relkind = 'r' and ({})",
            schema.name_literal(),
            like("c.relname")
        ),
    };
    Statement::new(STEP, "tables", &sql)
}

/// Every run there is, open or ended: one id a row.
pub fn all_runs(schema: &Schema) -> Statement {
    let sql = format!(
        "select run_id from {} union all select run_id from {}",
        schema.table("runs"),
        schema.table("open_runs"),
    );
    Statement::new(STEP, "tables of no run", &sql)
}

/// Whether the run is in `open_runs`: a row if it is.
pub fn is_open(schema: &Schema, run: &RunId) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select run_id from {} where run_id = {}",
        schema.table("open_runs"),
        schema.dialect.literal(run.as_str())?
    );
    Ok(Statement::new(STEP, run.as_str(), &sql))
}
