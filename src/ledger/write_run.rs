//! Writes to runs and cursors.

use super::command::{Failure, Written};
use super::rows::{self, micros};
use super::trouble::{self, conflict};
use crate::id::{RunId, Trigger};
use crate::run::{Claim, NewRun, RunChange};
use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;

const FIRST_CURSOR: &str = "/* first cursor */ \
    insert into cursors (campaign, schedule_hash, seen_until, schedule, is_disabled) \
    values (?1, ?2, ?3, ?4, ?5) \
    on conflict do nothing";

const MOVE_CURSOR: &str = "/* move cursor */ \
    update cursors set schedule_hash = ?2, seen_until = ?3, schedule = ?4, is_disabled = ?5 \
    where campaign = ?1 and schedule_hash = ?6 and seen_until = ?7";

const INSERT_RUN: &str = "/* insert run */ \
    insert into runs (run_id, campaign, connector, fire_time, \"trigger\", manual_number, \
    campaign_version, state, is_open, claimed_at, finished_at, error) \
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) on conflict do nothing";

const INSERT_SPEC: &str = "/* insert spec */ \
    insert into run_specs (campaign_version, spec) values (?1, ?2) on conflict do nothing";

const OPEN_RUN: &str = "/* open run */ \
    select run_id from runs where campaign = ?1 and is_open = 1 \
    union all select h.run_id from runs h where h.campaign = ?1 and h.state = 'held' \
    and exists (select 1 from batches b where b.run_id = h.run_id) limit 1";

const NEXT_NUMBER: &str = "/* next manual number */ \
    select coalesce(max(manual_number), 0) + 1 from runs \
    where campaign = ?1 and fire_time >= ?2 and fire_time < ?3";

const CHANGE_RUN: &str = "/* change run */ \
    update runs set state = ?3, is_open = ?4, started_at = coalesce(?5, started_at), \
    finished_at = case when ?4 then null when ?2 = ?3 then coalesce(finished_at, ?6) else ?6 end, \
    funnel = coalesce(?7, funnel), tally = coalesce(?8, tally), error = nullif(coalesce(?9, error), '') \
    where run_id = ?1 and state = ?2 and term = ?10";

const TAKE_LEASE: &str =
    "/* take lease */ update runs set term = term + 1 where run_id = ?1 returning term";

const HAS_TERM: &str = "/* has term */ select count(*) from runs where run_id = ?1 and term = ?2";

/// Moves the cursor, then writes the runs; refused unless the cursor is where
/// the claim says.
pub(super) async fn claim(db: &mut SqliteConnection, claim: &Claim) -> Result<Written, Failure> {
    let statement = if claim.before.is_some() {
        MOVE_CURSOR
    } else {
        FIRST_CURSOR
    };
    let mut cursor = sqlx::query(statement)
        .bind(claim.campaign.as_str())
        .bind(&claim.after.schedule_hash)
        .bind(micros(claim.after.seen_until))
        .bind(claim.after.schedule.as_deref())
        .bind(claim.after.is_disabled);
    if let Some(before) = &claim.before {
        cursor = cursor
            .bind(&before.schedule_hash)
            .bind(micros(before.seen_until));
    }
    if cursor.execute(&mut *db).await?.rows_affected() == 0 {
        let what = format!("the cursor of campaign {}", claim.campaign);
        return Err(conflict(what).into());
    }
    let mut written = Vec::new();
    let mut version = None;
    for run in &claim.runs {
        if insert(db, run, &run.run, None, claim.at).await? {
            written.push(run.run.clone());
            if version != Some(&run.campaign_version) {
                insert_spec(db, run).await?;
                version = Some(&run.campaign_version);
            }
        }
    }
    Ok(written.into())
}

/// Writes `run` under its campaign's next number; refused while one is open,
/// or held with something sent.
pub(super) async fn claim_manual(
    db: &mut SqliteConnection,
    run: &NewRun,
    at: Timestamp,
) -> Result<Written, Failure> {
    let open: Option<String> = sqlx::query_scalar(OPEN_RUN)
        .bind(run.campaign.as_str())
        .fetch_optional(&mut *db)
        .await?;
    if let Some(open) = open {
        let what = format!(
            "campaign {} without an open or held run, but with {open},",
            run.campaign
        );
        return Err(conflict(what).into());
    }
    // A run id names its fire time to the second, so the number is counted
    // within it.
    let second = run.fire_time.as_second();
    let from = Timestamp::from_second(second).map_err(trouble::unreadable)?;
    let to = from
        .checked_add(SignedDuration::from_secs(1))
        .map_err(trouble::unreadable)?;
    let number: u32 = sqlx::query_scalar(NEXT_NUMBER)
        .bind(run.campaign.as_str())
        .bind(micros(from))
        .bind(micros(to))
        .fetch_one(&mut *db)
        .await?;
    let id = RunId::manual(&run.campaign, run.fire_time, number);
    if !insert(db, run, &id, Some(number), at).await? {
        return Err(conflict(format!("room for run {id}")).into());
    }
    insert_spec(db, run).await?;
    Ok(vec![id].into())
}

/// Writes a run; false where its id, or the fire time of a scheduled one, is
/// there already.
async fn insert(
    db: &mut SqliteConnection,
    run: &NewRun,
    id: &RunId,
    number: Option<u32>,
    at: Timestamp,
) -> Result<bool, sqlx::Error> {
    let trigger = match number {
        Some(_) => Trigger::Manual,
        None => run.trigger,
    };
    let done = sqlx::query(INSERT_RUN)
        .bind(id.as_str())
        .bind(run.campaign.as_str())
        .bind(run.connector.as_str())
        .bind(micros(run.fire_time))
        .bind(trigger.as_str())
        .bind(number)
        .bind(&run.campaign_version)
        .bind(run.state.as_str())
        .bind(run.state.is_open())
        .bind(micros(at))
        .bind((!run.state.is_open()).then(|| micros(at)))
        .bind(&run.error)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

async fn insert_spec(db: &mut SqliteConnection, run: &NewRun) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT_SPEC)
        .bind(&run.campaign_version)
        .bind(&*run.spec)
        .execute(db)
        .await?;
    Ok(())
}

/// Moves a run; refused unless it is in the state it is moved from.
pub(super) async fn change(db: &mut SqliteConnection, change: &RunChange) -> Result<(), Failure> {
    use crate::run::RunState::Queued;
    let starts = change.from == Queued && change.to != Queued;
    let done = sqlx::query(CHANGE_RUN)
        .bind(change.run.as_str())
        .bind(change.from.as_str())
        .bind(change.to.as_str())
        .bind(change.to.is_open())
        .bind(starts.then(|| micros(change.at)))
        .bind(micros(change.at))
        .bind(change.funnel.as_ref().map(rows::to_json))
        .bind(change.tally.as_ref().map(rows::to_json))
        .bind(&change.error)
        .bind(change.term)
        .execute(db)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let what = format!(
        "run {} in state {} under term {}",
        change.run,
        change.from.as_str(),
        change.term
    );
    Err(conflict(what).into())
}

/// The next term of a run. The lock beside the file has seen to it that no
/// other host has one in force.
pub(super) async fn take_lease(db: &mut SqliteConnection, run: &RunId) -> Result<Written, Failure> {
    let term: Option<i32> = sqlx::query_scalar(TAKE_LEASE)
        .bind(run.as_str())
        .fetch_optional(db)
        .await?;
    match term {
        None => Err(conflict(format!("run {run}")).into()),
        term => Ok(Written {
            term,
            ..Written::default()
        }),
    }
}

/// Refused unless the run is still under `term`.
pub(super) async fn renew_lease(
    db: &mut SqliteConnection,
    run: &RunId,
    term: i32,
) -> Result<(), Failure> {
    let has_term: i64 = sqlx::query_scalar(HAS_TERM)
        .bind(run.as_str())
        .bind(term)
        .fetch_one(db)
        .await?;
    match has_term {
        0 => Err(conflict(format!("run {run} under term {term}")).into()),
        _ => Ok(()),
    }
}
