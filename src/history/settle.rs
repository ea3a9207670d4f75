//! The statements that turn ended batches into contact history, inside the
//! warehouse: one row a batch goes in, one a member comes out.

use super::cells::Cells;
use super::tables::table;
use super::{BatchOutcome, BatchStatus, RunFacts, Settlement, Tally, Unwritable};
use crate::audience::{Schema, Statement};
use std::collections::HashSet;

/// The most outcomes one `insert` carries: 1,000 rows of at most 1 KiB stay
/// far below the 16 MB of a Redshift statement.
const OUTCOMES_PER_INSERT: usize = 1_000;

/// What is said of a refused member whose receiver's words are forgotten.
const REFUSED: &str = "refused by the receiver";

/// What names these statements: they are of several runs.
const STEP: &str = "settle";

/// The outcomes' temporary table, with the outcomes in it.
pub fn outcomes(schema: &Schema, settlements: &[Settlement]) -> Result<Vec<Statement>, Unwritable> {
    let create = "create temp table cd_outcomes (run_id varchar(200), batch int, \
                  part varchar(64), message_id varchar(64), destination varchar(128), \
                  status varchar(16), members int, rejected int, attempts int, \
                  http_status int, first_attempt_at timestamp, settled_at timestamp, \
                  error varchar(512), first_seq bigint, last_seq bigint)";
    // SQLite would read a time in a column declared `timestamp` as a number
    // if it looked like one; ours never does.
    let mut script = vec![Statement::new(STEP, "outcomes", create)];
    let mut rows = Vec::new();
    let mut insert = |rows: &mut Vec<String>| {
        let sql = format!("insert into cd_outcomes values ({})", rows.join("), ("));
        script.push(Statement::new(STEP, "outcomes", &sql));
        rows.clear();
    };
    for settlement in settlements {
        let mut seen = HashSet::new();
        for outcome in &*settlement.outcomes {
            if seen.insert(&outcome.path) {
                rows.push(outcome_row(schema, &settlement.facts, outcome)?);
            }
            if rows.len() == OUTCOMES_PER_INSERT {
                insert(&mut rows);
            }
        }
    }
    if !rows.is_empty() {
        insert(&mut rows);
    }
    script.extend(refused(schema, settlements)?);
    Ok(script)
}

/// The temporary table of the members refused one by one, with them in it;
/// nothing where there are none.
fn refused(schema: &Schema, settlements: &[Settlement]) -> Result<Vec<Statement>, Unwritable> {
    if !settlements.iter().any(has_refused) {
        return Ok(Vec::new());
    }
    let create = "create temp table cd_refused (run_id varchar(200), cd_seq bigint, \
                  reason varchar(512))";
    let mut script = vec![Statement::new(STEP, "refused members", create)];
    let mut rows = Vec::new();
    for settlement in settlements {
        let mut seen = HashSet::new();
        let members = settlement.outcomes.iter().flat_map(|o| &o.refused);
        for member in members.filter(|member| seen.insert(member.place)) {
            let row = Cells::new(schema.dialect)
                .text(settlement.facts.run.as_str())
                .number(member.place)
                .reason(Some(member.reason.as_deref().unwrap_or(REFUSED)));
            rows.push(row.row()?);
        }
    }
    for chunk in rows.chunks(OUTCOMES_PER_INSERT) {
        let sql = format!("insert into cd_refused values ({})", chunk.join("), ("));
        script.push(Statement::new(STEP, "refused members", &sql));
    }
    Ok(script)
}

fn has_refused(settlement: &Settlement) -> bool {
    settlement.outcomes.iter().any(|o| !o.refused.is_empty())
}

fn outcome_row(
    schema: &Schema,
    facts: &RunFacts,
    outcome: &BatchOutcome,
) -> Result<String, Unwritable> {
    let (first, last) = outcome.places.unzip();
    let rejected = rejected(outcome);
    Cells::new(schema.dialect)
        .text(facts.run.as_str())
        .number(outcome.path.batch)
        .text(&outcome.path.part)
        .text(&outcome.message_id.to_string())
        .text(facts.destination.as_str())
        .text(outcome.status.as_str())
        .number(outcome.members)
        .number(rejected)
        .number(outcome.attempts)
        .maybe_number(outcome.http_status)
        .maybe_instant(outcome.first_attempt_at)
        .instant(outcome.settled_at)
        .reason(outcome.error.as_deref())
        .maybe_number(first)
        .maybe_number(last)
        .row()
}

/// The rejected among the members of a batch.
fn rejected(outcome: &BatchOutcome) -> u32 {
    match outcome.status {
        BatchStatus::Rejected => outcome.members,
        _ => u32::try_from(outcome.refused.len()).unwrap_or(outcome.members),
    }
}

/// The runs of `settlements`, which have one outcome at least, with outcomes
/// that are new: run id, how many of them `deliveries` has with another status,
/// and how many they are, a row.
pub fn count_new(schema: &Schema, settlements: &[Settlement]) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select o.run_id, count(d.run_id), count(*) from {} \
         where d.run_id is null or d.status <> o.status group by o.run_id",
        known_outcomes(schema, settlements, "left join")?,
    );
    Ok(Statement::new(STEP, "count", &sql))
}

/// The outcomes that `deliveries` has with another status: run id, batch and
/// part a row.
pub fn changed_outcomes(
    schema: &Schema,
    settlements: &[Settlement],
) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select o.run_id, o.batch, o.part from {} where d.status <> o.status",
        known_outcomes(schema, settlements, "join")?,
    );
    Ok(Statement::new(STEP, "changed", &sql))
}

/// The outcomes as `o`, beside what `deliveries` has of them, as `d`.
fn known_outcomes(
    schema: &Schema,
    settlements: &[Settlement],
    join: &str,
) -> Result<String, Unwritable> {
    Ok(format!(
        "cd_outcomes o {join} {} d on d.run_id = o.run_id and d.batch = o.batch \
         and d.part = o.part and {}",
        schema.table("deliveries"),
        within_reach(schema, settlements)?,
    ))
}

/// The rows `d` of `deliveries` that may be of the outcomes. The runs and their
/// batches are named, though the join says as much: the table is looked up by
/// them, and what was settled of a run before is not read. There is one outcome
/// at least.
fn within_reach(schema: &Schema, settlements: &[Settlement]) -> Result<String, Unwritable> {
    let mut reaches = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let run = schema.dialect.literal(settlement.facts.run.as_str())?;
        if let Some((first, last)) = batches(settlement) {
            reaches.push(format!(
                "d.run_id = {run} and d.batch between {first} and {last}"
            ));
        }
    }
    Ok(format!("({})", reaches.join(" or ")))
}

/// The first and the last batch among the outcomes.
fn batches(settlement: &Settlement) -> Option<(u32, u32)> {
    let batches = || settlement.outcomes.iter().map(|o| o.path.batch);
    batches().min().zip(batches().max())
}

fn run_ids<'a>(
    schema: &Schema,
    runs: impl IntoIterator<Item = &'a RunFacts>,
) -> Result<String, Unwritable> {
    let ids = runs
        .into_iter()
        .map(|facts| schema.dialect.literal(facts.run.as_str()));
    Ok(ids.collect::<Result<Vec<_>, _>>()?.join(", "))
}

/// Leaves of the outcomes those that `deliveries` does not have. Done once and
/// before the others: to ask it of each member would cost as many comparisons
/// as members times batches of the run settled before.
pub fn forget_known(schema: &Schema, settlements: &[Settlement]) -> Result<Statement, Unwritable> {
    let sql = format!(
        "delete from cd_outcomes where exists (select 1 from {} d \
         where d.run_id = cd_outcomes.run_id and d.batch = cd_outcomes.batch \
         and d.part = cd_outcomes.part and {})",
        schema.table("deliveries"),
        within_reach(schema, settlements)?,
    );
    Ok(Statement::new(STEP, "known", &sql))
}

/// One history row for each member of the run's outcomes, out of `members`:
/// the run's table, or what stands for it. Comes after [`forget_known`].
pub fn contact_history(
    schema: &Schema,
    settlement: &Settlement,
    members: &str,
) -> Result<Statement, Unwritable> {
    let facts = &settlement.facts;
    let run = schema.dialect.literal(facts.run.as_str())?;
    let (first, last) = batches(settlement).unwrap_or_default();
    let cut = facts.cut();
    let before = Cells::new(schema.dialect)
        .text(facts.campaign.as_str())
        .instant(facts.fire_time)
        .row()?;
    let place = Cells::new(schema.dialect)
        .text(facts.destination.as_str())
        .text(&facts.channel)
        .row()?;
    let about = Cells::new(schema.dialect)
        .maybe_text(facts.attributes.as_deref())
        .text(&facts.campaign_version)
        .row()?;
    // A part shares its batch's number with its neighbours.
    let has_parts = settlement.outcomes.iter().any(|o| o.places.is_some());
    let within = match has_parts {
        true => " and (o.first_seq is null or r.cd_seq between o.first_seq and o.last_seq)",
        false => "",
    };
    let (status, reason, refused) = match has_refused(settlement) {
        true => (
            "case when x.cd_seq is null then o.status else 'rejected' end",
            "case when x.cd_seq is null then o.error else x.reason end",
            " left join cd_refused x on x.run_id = o.run_id and x.cd_seq = r.cd_seq",
        ),
        false => ("o.status", "o.error", ""),
    };
    let (known, unknown) = match settlement.fills_gaps {
        true => (
            format!(
                " left join (select distinct profile_id from {} where run_id = {run}) h \
                 on h.profile_id = r.cd_key",
                schema.table("contact_history")
            ),
            " and h.profile_id is null",
        ),
        false => (String::new(), ""),
    };
    let sql = format!(
        "insert into {history} ({columns}) \
         select o.run_id, {before}, r.cd_key, {place}, {status}, \
         case when {status} in ('delivered', 'unknown') then {yes} else {no} end, {no}, \
         o.batch, o.part, o.message_id, {reason}, {about}, o.first_attempt_at, {now} \
         from cd_outcomes o \
         join {members} r on r.cd_batch = o.batch{within}{refused}{known} \
         where o.run_id = {run} and r.cd_seq between {first_seq} and {last_seq} and r.cd_status <> 'suppressed'{unknown}",
        history = schema.table("contact_history"),
        columns = table("contact_history").column_list(),
        yes = schema.dialect.boolean(true),
        no = schema.dialect.boolean(false),
        now = schema.dialect.now_in_each(),
        first_seq = cut.places_of(u64::from(first)).0,
        last_seq = cut.places_of(u64::from(last)).1,
    );
    Ok(Statement::new(STEP, facts.run.as_str(), &sql))
}

/// One delivery row for each outcome, of all runs. Comes after
/// [`forget_known`].
pub fn deliveries(schema: &Schema) -> Statement {
    let sql = format!(
        "insert into {} ({}) select o.run_id, o.batch, o.part, o.message_id, o.destination, \
         o.status, o.members, o.rejected, o.attempts, o.http_status, o.first_attempt_at, \
         o.settled_at, o.error from cd_outcomes o",
        schema.table("deliveries"),
        table("deliveries").column_list(),
    );
    Statement::new(STEP, "deliveries", &sql)
}

/// Drops the temporary tables.
pub fn drop_outcomes(settlements: &[Settlement]) -> Vec<Statement> {
    let mut script = vec![Statement::new(STEP, "outcomes", "drop table cd_outcomes")];
    if settlements.iter().any(has_refused) {
        script.push(Statement::new(
            STEP,
            "refused members",
            "drop table cd_refused",
        ));
    }
    script
}

/// What `deliveries` says of `runs`: run id, status, members and the rejected
/// among them a row.
pub fn count_deliveries<'a>(
    schema: &Schema,
    runs: impl IntoIterator<Item = &'a RunFacts>,
) -> Result<Statement, Unwritable> {
    let ids = run_ids(schema, runs)?;
    let sql = format!(
        "select run_id, status, sum(members), sum(rejected) from {} \
         where run_id in ({ids}) group by run_id, status",
        schema.table("deliveries")
    );
    Ok(Statement::new(STEP, "tally", &sql))
}

/// What `runs` says of `runs`, whose rows are written with their `deliveries`:
/// run id, delivered, rejected, failed, unknown and cancelled a row. A run with
/// several rows has none: one of them is not the last.
pub fn tallies_so_far<'a>(
    schema: &Schema,
    runs: impl IntoIterator<Item = &'a RunFacts>,
) -> Result<Statement, Unwritable> {
    let ids = run_ids(schema, runs)?;
    let sql = format!(
        "select run_id, sum(delivered), sum(rejected), sum(failed), sum(unknown), \
         sum(cancelled) from {} where run_id in ({ids}) group by run_id having count(*) = 1",
        schema.table("runs")
    );
    Ok(Statement::new(STEP, "tally", &sql))
}

/// Adds outcomes that `deliveries` did not have to the tally of those it had.
pub fn add_outcomes(tally: &mut Tally, outcomes: &[BatchOutcome]) {
    let mut seen = HashSet::new();
    for outcome in outcomes.iter().filter(|o| seen.insert(&o.path)) {
        let (members, rejected) = (outcome.members.into(), rejected(outcome).into());
        add_to_tally(tally, outcome.status, members, rejected);
    }
}

/// What a status of `deliveries` adds to a tally: the rejected members of a
/// delivered batch count as rejected.
pub fn add_to_tally(tally: &mut Tally, status: BatchStatus, members: u64, rejected: u64) {
    match status {
        BatchStatus::Delivered => {
            tally.add(BatchStatus::Delivered, members.saturating_sub(rejected));
            tally.add(BatchStatus::Rejected, rejected);
        }
        other => tally.add(other, members),
    }
}

/// Sets what is left of the `planned` members.
pub fn close_tally(tally: &mut Tally, planned: u64) {
    tally.still_open = 0;
    tally.still_open = planned.saturating_sub(tally.total());
}
