//! The rows that say that a run exists: `open_runs` while it is under way,
//! `runs` for good.

use super::cells::Cells;
use super::tables::table;
use super::{RunFacts, RunStatus, Tally, UnstartedRun, Unwritable};
use crate::audience::{Funnel, Schema, Statement, TableNames};
use jiff::Timestamp;

/// The state of a run in `open_runs` before its members are numbered.
pub const STAGING: &str = "staging";
/// Its state once they are.
pub const ADMITTED: &str = "admitted";

/// The most rows one `insert` carries.
const ROWS_PER_INSERT: usize = 500;

/// The row of a run in `open_runs`: owner and state, if there is one.
pub fn open_run(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select owner, state from {} where run_id = {}",
        schema.table("open_runs"),
        schema.dialect.literal(run.run.as_str())?
    );
    Ok(Statement::new("look", run.run.as_str(), &sql))
}

/// The other runs whose members are numbered: campaign, channel and the name
/// of the run's table a row. Nothing changes them while `cap_lock` is held.
pub fn admitted_runs(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select campaign, channel, run_table from {} where state = '{ADMITTED}' and run_id <> {}",
        schema.table("open_runs"),
        schema.dialect.literal(run.run.as_str())?
    );
    Ok(Statement::new("look", run.run.as_str(), &sql))
}

/// The row of a run in `runs`: its status and how many of its members have
/// ended, if there is one.
pub fn run_status(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select status, planned - still_open from {} where run_id = {}",
        schema.table("runs"),
        schema.dialect.literal(run.run.as_str())?
    );
    Ok(Statement::new("look", run.run.as_str(), &sql))
}

/// Whether a run that is in `runs` and in no `open_runs` may be begun under
/// its id: only one that was held before any of its members had ended. What
/// is `open` there has lost its other row, and with it who knows what was sent.
pub fn may_begin_again(status: &str, ended: u64) -> bool {
    status == RunStatus::Held.as_str() && ended == 0
}

/// Makes the run ours. `mark` follows the name of its table: see
/// [`super::carried::mark`].
pub fn register(schema: &Schema, run: &RunFacts, mark: &str) -> Result<Statement, Unwritable> {
    let row = Cells::new(schema.dialect)
        .text(run.run.as_str())
        .text(run.campaign.as_str())
        .text(&run.channel)
        .text(&run.owner.to_string())
        .number(run.term)
        .text(STAGING)
        .text(&format!("{}{mark}", TableNames::of(&run.run).run))
        .now()
        .now()
        .row()?;
    let sql = insert(schema, "open_runs", &[row]);
    Ok(Statement::new("register", run.run.as_str(), &sql))
}

/// Notes that the run is alive, under the term it has now, and in `state` if
/// that is new. A late host does not put back the term.
pub fn touch(
    schema: &Schema,
    run: &RunFacts,
    state: Option<&'static str>,
) -> Result<Statement, Unwritable> {
    let state = state.map_or(String::new(), |state| format!(", state = '{state}'"));
    let sql = format!(
        "update {} set seen_at = {}, term = case when term > {term} then term else {term} end{state} \
         where run_id = {} and owner = '{}'",
        schema.table("open_runs"),
        schema.dialect.now(),
        schema.dialect.literal(run.run.as_str())?,
        run.owner,
        term = run.term,
    );
    Ok(Statement::new("touch", run.run.as_str(), &sql))
}

/// Takes the run out of `open_runs`.
pub fn deregister(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "delete from {} where run_id = {} and owner = '{}'",
        schema.table("open_runs"),
        schema.dialect.literal(run.run.as_str())?,
        run.owner,
    );
    Ok(Statement::new("close", run.run.as_str(), &sql))
}

/// The funnel of a run, as `runs` has it: one row, its columns in the order
/// of [`funnel_of`].
pub fn read_funnel(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select audience, no_key, bad_key, duplicate, suppressed, capped, cooling_down, \
         held_out, over_limit, planned from {} where run_id = {}",
        schema.table("runs"),
        schema.dialect.literal(run.run.as_str())?
    );
    Ok(Statement::new("look", run.run.as_str(), &sql))
}

/// The funnel in a row of [`read_funnel`].
pub fn funnel_of(counts: [u64; 10]) -> Funnel {
    let [
        audience,
        no_key,
        bad_key,
        duplicate,
        suppressed,
        capped,
        cooling_down,
        held_out,
        over_limit,
        planned,
    ] = counts;
    Funnel {
        audience,
        no_key,
        bad_key,
        duplicate,
        suppressed,
        capped,
        cooling_down,
        held_out,
        over_limit,
        planned,
    }
}

/// What `runs` says of a run from now on.
#[derive(Debug, Clone, Copy)]
pub struct RunRow<'a> {
    /// The run.
    pub facts: &'a RunFacts,
    /// From the audience to the planned members.
    pub funnel: &'a Funnel,
    /// Where these are.
    pub tally: &'a Tally,
    /// How it stands.
    pub status: RunStatus,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or is held.
    pub error: Option<&'a str>,
}

/// Replaces the run's row in `runs`.
pub fn replace_run(schema: &Schema, row: RunRow<'_>) -> Result<[Statement; 2], Unwritable> {
    let what = row.facts.run.as_str();
    let delete = format!(
        "delete from {} where run_id = {}",
        schema.table("runs"),
        schema.dialect.literal(what)?
    );
    let cells = Cells::new(schema.dialect)
        .text(what)
        .text(row.facts.campaign.as_str())
        .text(&row.facts.campaign_version)
        .instant(row.facts.fire_time)
        .text(row.facts.trigger.as_str())
        .text(row.status.as_str())
        .instant(row.facts.started_at)
        .maybe_instant(row.finished_at);
    let cells = counts(cells, row.funnel, row.tally).reason(row.error);
    let insert = insert(schema, "runs", &[cells.row()?]);
    Ok([
        Statement::new("run row", what, &delete),
        Statement::new("run row", what, &insert),
    ])
}

fn counts(cells: Cells, funnel: &Funnel, tally: &Tally) -> Cells {
    [
        funnel.audience,
        funnel.no_key,
        funnel.bad_key,
        funnel.duplicate,
        funnel.suppressed,
        funnel.capped,
        funnel.cooling_down,
        funnel.held_out,
        funnel.over_limit,
        funnel.planned,
        tally.delivered,
        tally.rejected,
        tally.failed,
        tally.unknown,
        tally.cancelled,
        tally.still_open,
    ]
    .into_iter()
    .fold(cells, Cells::number)
}

/// The ids among those of `runs` that `runs` has already, one a row.
pub fn known_runs(schema: &Schema, runs: &[UnstartedRun]) -> Result<Vec<Statement>, Unwritable> {
    let among = |chunk: &[UnstartedRun]| {
        let ids = chunk.iter().map(|r| schema.dialect.literal(r.run.as_str()));
        let ids = ids.collect::<Result<Vec<_>, _>>()?.join(", ");
        let sql = format!(
            "select run_id from {} where run_id in ({ids})",
            schema.table("runs")
        );
        Ok(Statement::new("look", "fire times", &sql))
    };
    runs.chunks(ROWS_PER_INSERT).map(among).collect()
}

/// Rows for fire times that no run was started for.
pub fn unstarted(schema: &Schema, runs: &[UnstartedRun]) -> Result<Vec<Statement>, Unwritable> {
    let row = |run: &UnstartedRun| {
        let cells = Cells::new(schema.dialect)
            .text(run.run.as_str())
            .text(run.campaign.as_str())
            .text(&run.campaign_version)
            .instant(run.fire_time)
            .text("scheduled")
            .text(run.status.as_str())
            .maybe_instant(None)
            .maybe_instant(None);
        counts(cells, &Funnel::default(), &Tally::default())
            .reason(Some(&run.reason))
            .row()
    };
    let inserts = runs.chunks(ROWS_PER_INSERT).map(|chunk| {
        let rows = chunk.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let sql = insert(schema, "runs", &rows);
        Ok(Statement::new("unstarted", "fire times", &sql))
    });
    inserts.collect()
}

/// `insert` of all columns of the table `name`.
pub(super) fn insert(schema: &Schema, name: &str, rows: &[String]) -> String {
    format!(
        "insert into {} ({}) values ({})",
        schema.table(name),
        table(name).column_list(),
        rows.join("), (")
    )
}
