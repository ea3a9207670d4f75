//! Writes to runs, cursors and leases on the ledger's server.

use super::command::{Failure, Written};
use super::postgres_trouble;
use super::rows::{self, micros};
use super::trouble::{self, conflict};
use crate::id::{RunId, Trigger};
use crate::run::{Claim, NewRun, RunChange, RunState};
use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use std::time::Duration;

// Two hosts must not each find a campaign without an open run.
const LOCK_CAMPAIGN: &str =
    "/* lock campaign */ select pg_advisory_xact_lock(hashtextextended($1, 20261122))";

const FIRST_CURSOR: &str = "/* first cursor */ \
    insert into cursors (campaign, schedule_hash, seen_until, schedule, is_disabled) \
    values ($1, $2, $3, $4, $5) \
    on conflict do nothing";

const MOVE_CURSOR: &str = "/* move cursor */ \
    update cursors set schedule_hash = $2, seen_until = $3, schedule = $4, is_disabled = $5 \
    where campaign = $1 and schedule_hash = $6 and seen_until = $7";

const INSERT_RUN: &str = "/* insert run */ \
    insert into runs (run_id, campaign, connector, fire_time, \"trigger\", manual_number, \
    campaign_version, state, is_open, claimed_at, finished_at, error) \
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict do nothing";

const INSERT_SPEC: &str = "/* insert spec */ \
    insert into run_specs (campaign_version, spec) values ($1, $2) on conflict do nothing";

const OPEN_RUN: &str = "/* open run */ \
    select run_id from runs where campaign = $1 and is_open \
    union all select h.run_id from runs h where h.campaign = $1 and h.state = 'held' \
    and exists (select 1 from batches b where b.run_id = h.run_id) limit 1";

const NEXT_NUMBER: &str = "/* next manual number */ \
    select coalesce(max(manual_number), 0) + 1 from runs \
    where campaign = $1 and fire_time >= $2 and fire_time < $3";

const CHANGE_RUN: &str = "/* change run */ \
    update runs set state = $3, is_open = $4, started_at = coalesce($5, started_at), \
    finished_at = case when $4 then null when $2 = $3 then coalesce(finished_at, $6) else $6 end, \
    funnel = coalesce($7, funnel), tally = coalesce($8, tally), error = nullif(coalesce($9, error), '') \
    where run_id = $1 and state = $2 and term = $10";

const TAKE_LEASE: &str = "/* take lease */ \
    update runs set term = term + 1, lease_host = $2, \
    lease_until = clock_timestamp() + make_interval(secs => $3) \
    where run_id = $1 and (lease_until is null or lease_until <= clock_timestamp() \
    or lease_host = $2) returning term";

const IS_THERE: &str = "/* is there */ select count(*) from runs where run_id = $1";

const RENEW_LEASE: &str = "/* renew lease */ \
    update runs set lease_until = clock_timestamp() + make_interval(secs => $4) \
    where run_id = $1 and term = $2 and lease_host = $3";

const RELEASE_LEASE: &str = "/* release lease */ \
    update runs set lease_host = null, lease_until = null \
    where run_id = $1 and term = $2 and lease_host = $3";

/// Moves the cursor, then writes the runs; refused unless the cursor is where
/// the claim says.
pub(super) async fn claim(db: &mut PgConnection, claim: &Claim) -> Result<Written, Failure> {
    lock(db, claim.campaign.as_str()).await?;
    let statement = match claim.before {
        Some(_) => MOVE_CURSOR,
        None => FIRST_CURSOR,
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
    db: &mut PgConnection,
    run: &NewRun,
    at: Timestamp,
) -> Result<Written, Failure> {
    lock(db, run.campaign.as_str()).await?;
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
    let from = Timestamp::from_second(run.fire_time.as_second()).map_err(trouble::unreadable)?;
    let to = from
        .checked_add(SignedDuration::from_secs(1))
        .map_err(trouble::unreadable)?;
    let number: i64 = sqlx::query_scalar(NEXT_NUMBER)
        .bind(run.campaign.as_str())
        .bind(micros(from))
        .bind(micros(to))
        .fetch_one(&mut *db)
        .await?;
    let number = u32::try_from(number).map_err(trouble::unreadable)?;
    let id = RunId::manual(&run.campaign, run.fire_time, number);
    if !insert(db, run, &id, Some(number), at).await? {
        return Err(conflict(format!("room for run {id}")).into());
    }
    insert_spec(db, run).await?;
    Ok(vec![id].into())
}

pub(super) async fn lock(db: &mut PgConnection, campaign: &str) -> Result<(), sqlx::Error> {
    sqlx::query(LOCK_CAMPAIGN)
        .bind(campaign)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes a run; false where its id, or the fire time of a scheduled one, is
/// there already.
async fn insert(
    db: &mut PgConnection,
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
        .bind(number.map(i64::from))
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

async fn insert_spec(db: &mut PgConnection, run: &NewRun) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT_SPEC)
        .bind(&run.campaign_version)
        .bind(&*run.spec)
        .execute(db)
        .await?;
    Ok(())
}

/// Moves a run; refused unless it is in the state it is moved from, under the
/// term of whoever moves it.
pub(super) async fn change(db: &mut PgConnection, change: &RunChange) -> Result<(), Failure> {
    let starts = change.from == RunState::Queued && change.to != RunState::Queued;
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

/// Takes the lease for `host`; no term while another host's is in force.
pub(super) async fn take_lease(
    db: &mut PgConnection,
    (run, host): (&RunId, &str),
    ttl: Duration,
) -> Result<Written, Failure> {
    let term: Option<i32> = sqlx::query_scalar(TAKE_LEASE)
        .bind(run.as_str())
        .bind(host)
        .bind(ttl.as_secs_f64())
        .fetch_optional(&mut *db)
        .await?;
    if term.is_none() {
        let there: i64 = sqlx::query_scalar(IS_THERE)
            .bind(run.as_str())
            .fetch_one(db)
            .await?;
        if there == 0 {
            return Err(conflict(format!("run {run}")).into());
        }
    }
    Ok(Written {
        term,
        ..Written::default()
    })
}

/// Makes the lease last; refused when it is not this host's any more.
pub(super) async fn renew_lease(
    db: &mut PgConnection,
    (run, host): (&RunId, &str),
    term: i32,
    ttl: Duration,
) -> Result<(), Failure> {
    let done = sqlx::query(RENEW_LEASE)
        .bind(run.as_str())
        .bind(term)
        .bind(host)
        .bind(ttl.as_secs_f64())
        .execute(db)
        .await?;
    match done.rows_affected() {
        0 => Err(conflict(format!("run {run} leased to this host under term {term}")).into()),
        _ => Ok(()),
    }
}

/// Gives the lease back, if it is this host's.
pub(super) async fn release_lease(
    db: &mut PgConnection,
    (run, host): (&RunId, &str),
    term: i32,
) -> Result<(), Failure> {
    sqlx::query(RELEASE_LEASE)
        .bind(run.as_str())
        .bind(term)
        .bind(host)
        .execute(db)
        .await
        .map_err(Failure::Database)?;
    Ok(())
}

/// The identity of the ledger, which all its hosts share: written by whoever
/// is first.
pub(super) const FOUND: &str = "/* found */ \
    insert into meta (id, installation, body_key) values (1, $1, $2) on conflict do nothing";

/// Brings [`FOUND`] back.
pub(super) const INSTALLATION: &str = "/* installation */ select installation, body_key from meta";

/// Our schema, made if it is not there and the login may.
pub(super) async fn make_schema(db: &mut PgConnection) -> Result<(), crate::run::LedgerError> {
    let is_there = "/* look */ select to_regnamespace('campaignd_ledger') is not null";
    let is_there: bool = sqlx::query_scalar(is_there)
        .fetch_one(&mut *db)
        .await
        .map_err(postgres_trouble::unusable)?;
    if !is_there {
        sqlx::query("/* schema */ create schema if not exists campaignd_ledger")
            .execute(db)
            .await
            .map_err(postgres_trouble::unusable)?;
    }
    Ok(())
}
