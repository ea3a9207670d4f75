//! The statements that make a run that has ended an open one again, and those
//! that forget what is about to be written anew.

use super::register::ADMITTED;
use super::tables::table;
use super::{RunFacts, Unwritable};
use crate::audience::{Schema, Statement, TableNames};
use crate::id::BatchPath;
use std::fmt::Write as _;

const STEP: &str = "reopen";

/// The rows that closing writes, once for each member who was left out.
const WITHHELD: &str = "'held_out', 'suppressed', 'capped', 'cooling_down', 'over_limit'";

/// What a resumed run has still to do.
const UNSENT: &str = "'failed', 'cancelled'";

/// Batches that one `delete` names.
const BATCHES_PER_DELETE: usize = 500;

/// Puts the run back into `open_runs`, admitted, with `mark` as when it was
/// registered first.
pub fn register_again(
    schema: &Schema,
    run: &RunFacts,
    mark: &str,
) -> Result<Statement, Unwritable> {
    let row = super::cells::Cells::new(schema.dialect)
        .text(run.run.as_str())
        .text(run.campaign.as_str())
        .text(&run.channel)
        .text(&run.owner.to_string())
        .number(run.term)
        .text(ADMITTED)
        .text(&format!("{}{mark}", TableNames::of(&run.run).run))
        .now()
        .now()
        .row()?;
    let sql = format!(
        "insert into {} ({}) values ({row})",
        schema.table("open_runs"),
        table("open_runs").column_list(),
    );
    Ok(Statement::new(STEP, run.run.as_str(), &sql))
}

/// Forgets what closing has written and will write again; where the run
/// `resends`, what it has not delivered as well. History before deliveries.
pub fn forget(
    schema: &Schema,
    run: &RunFacts,
    resends: bool,
) -> Result<Vec<Statement>, Unwritable> {
    let id = schema.dialect.literal(run.run.as_str())?;
    let delete = |name: &str, statuses: &str| {
        let sql = format!(
            "delete from {} where run_id = {id} and status in ({statuses})",
            schema.table(name)
        );
        Statement::new(STEP, run.run.as_str(), &sql)
    };
    let mut script = vec![delete("contact_history", WITHHELD)];
    if resends {
        script.push(delete("contact_history", UNSENT));
        script.push(delete("deliveries", UNSENT));
    }
    Ok(script)
}

/// Forgets history and deliveries of some batches, to be written anew.
pub fn forget_batches(
    schema: &Schema,
    run: &str,
    paths: &[BatchPath],
) -> Result<Vec<Statement>, Unwritable> {
    let id = schema.dialect.literal(run)?;
    let mut script = Vec::new();
    for some in paths.chunks(BATCHES_PER_DELETE) {
        let mut these = String::new();
        for path in some {
            let part = schema.dialect.literal(&path.part)?;
            let or = if these.is_empty() { "" } else { " or " };
            write!(these, "{or}(batch = {} and part = {part})", path.batch)
                .expect("writing to a string cannot fail");
        }
        for name in ["contact_history", "deliveries"] {
            let sql = format!(
                "delete from {} where run_id = {id} and ({these})",
                schema.table(name)
            );
            script.push(Statement::new("settle", run, &sql));
        }
    }
    Ok(script)
}

/// The row of a run in `runs` that was never staged, so that it can be begun
/// again.
pub fn forget_run(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "delete from {} where run_id = {}",
        schema.table("runs"),
        schema.dialect.literal(run.run.as_str())?
    );
    Ok(Statement::new(STEP, run.run.as_str(), &sql))
}

/// Whether a run whose row in `runs` says this was never staged, so that
/// nothing of it was ever sent.
pub fn was_never_staged(status: &str, ended: u64) -> bool {
    let never = ["failed", "cancelled", "held", "missed", "skipped"];
    never.contains(&status) && ended == 0
}
