//! Writes to runs and cursors.

use super::claims::{self, Names, Row};
use super::command::{Failure, Written};
use super::rows::{self, micros};
use super::trouble::{self, conflict};
use super::write_batch::{pieces, with_rows};
use crate::id::RunId;
use crate::run::{Claim, NewRun, RunChange};
use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, SqliteConnection};

const FIRST_CURSORS: &str = "/* first cursors */ \
    insert into cursors (campaign, schedule_hash, seen_until, schedule, is_disabled) \
    values {rows} on conflict do nothing returning campaign";

const MOVE_CURSORS: &str = "/* move cursors */ \
    with c (campaign, schedule_hash, seen_until, schedule, is_disabled, hash_before, \
    seen_before) as (values {rows}) \
    update cursors set schedule_hash = c.schedule_hash, seen_until = c.seen_until, \
    schedule = c.schedule, is_disabled = c.is_disabled from c \
    where cursors.campaign = c.campaign and cursors.schedule_hash = c.hash_before \
    and cursors.seen_until = c.seen_before returning campaign";

const INSERT_RUNS: &str = "/* insert runs */ \
    insert into runs (run_id, campaign, connector, fire_time, \"trigger\", manual_number, \
    campaign_version, state, is_open, claimed_at, finished_at, error) \
    values {rows} on conflict do nothing returning run_id";

const INSERT_SPECS: &str = "/* insert specs */ \
    insert into run_specs (campaign_version, spec) values {rows} on conflict do nothing";

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
    funnel = coalesce(?7, funnel), tally = coalesce(?8, tally), error = nullif(coalesce(?9, error), ''), \
    asked = coalesce(?11, asked) where run_id = ?1 and state = ?2 and term = ?10";

const TAKE_LEASE: &str =
    "/* take lease */ update runs set term = term + 1 where run_id = ?1 returning term";

const HAS_TERM: &str = "/* has term */ select count(*) from runs where run_id = ?1 and term = ?2";

/// Moves the cursors, then writes the runs; a claim is refused unless its
/// cursor is where it says.
pub(super) async fn claim(db: &mut SqliteConnection, claims: &[Claim]) -> Result<Written, Failure> {
    let (later, first): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.before.is_some());
    let mut moved = first_cursors(db, &first).await?;
    moved.extend(move_cursors(db, &later).await?);
    let rows = claims::rows(claims, &moved);
    let written = insert(db, &rows).await?;
    insert_specs(db, &claims::specs(&rows, &written)).await?;
    Ok(claims::answers(claims, &moved, &written))
}

async fn first_cursors(db: &mut SqliteConnection, claims: &[&Claim]) -> Result<Names, sqlx::Error> {
    let mut moved = Names::new();
    for some in pieces(claims) {
        let sql = with_rows(FIRST_CURSORS, 5, some.len());
        let mut query = sqlx::query_scalar(AssertSqlSafe(sql));
        for claim in some {
            query = query
                .bind(claim.campaign.as_str())
                .bind(&claim.after.schedule_hash)
                .bind(micros(claim.after.seen_until))
                .bind(claim.after.schedule.as_deref())
                .bind(claim.after.is_disabled);
        }
        moved.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(moved)
}

async fn move_cursors(db: &mut SqliteConnection, claims: &[&Claim]) -> Result<Names, sqlx::Error> {
    let mut moved = Names::new();
    for some in pieces(claims) {
        let sql = with_rows(MOVE_CURSORS, 7, some.len());
        let mut query = sqlx::query_scalar(AssertSqlSafe(sql));
        for claim in some {
            let before = claim.before.as_ref();
            query = query
                .bind(claim.campaign.as_str())
                .bind(&claim.after.schedule_hash)
                .bind(micros(claim.after.seen_until))
                .bind(claim.after.schedule.as_deref())
                .bind(claim.after.is_disabled)
                .bind(before.map(|before| before.schedule_hash.as_str()))
                .bind(before.map(|before| micros(before.seen_until)));
        }
        moved.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(moved)
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
    let row = Row {
        run,
        id: &id,
        number: Some(number),
        at,
    };
    if insert(db, &[row]).await?.is_empty() {
        return Err(conflict(format!("room for run {id}")).into());
    }
    insert_specs(db, &[(&run.campaign_version, &run.spec)]).await?;
    Ok(vec![id].into())
}

/// Writes runs, and returns the ids of those whose id, and whose fire time if
/// they are scheduled, was not there already.
async fn insert(db: &mut SqliteConnection, rows: &[Row<'_>]) -> Result<Names, sqlx::Error> {
    let mut written = Names::new();
    for some in pieces(rows) {
        let sql = with_rows(INSERT_RUNS, 12, some.len());
        let mut query = sqlx::query_scalar(AssertSqlSafe(sql));
        for row in some {
            let run = row.run;
            query = query
                .bind(row.id.as_str())
                .bind(run.campaign.as_str())
                .bind(run.connector.as_str())
                .bind(micros(run.fire_time))
                .bind(row.trigger().as_str())
                .bind(row.number)
                .bind(&run.campaign_version)
                .bind(run.state.as_str())
                .bind(run.state.is_open())
                .bind(micros(row.at))
                .bind((!run.state.is_open()).then(|| micros(row.at)))
                .bind(run.error.as_deref());
        }
        written.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(written)
}

async fn insert_specs(
    db: &mut SqliteConnection,
    specs: &[(&str, &str)],
) -> Result<(), sqlx::Error> {
    for some in pieces(specs) {
        let mut query = sqlx::query(AssertSqlSafe(with_rows(INSERT_SPECS, 2, some.len())));
        for (version, spec) in some {
            query = query.bind(*version).bind(*spec);
        }
        query.execute(&mut *db).await?;
    }
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
        .bind(change.asked.map(rows::micros_of))
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
