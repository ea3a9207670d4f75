//! Writes to runs, cursors and leases on the ledger's server.

use super::claims::{self, Names, Row};
use super::command::{Failure, Written};
use super::postgres_trouble;
use super::rows::{self, micros};
use super::trouble::{self, conflict};
use crate::id::RunId;
use crate::run::{Claim, NewRun, RunChange, RunState};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sqlx::PgConnection;
use std::time::Duration;

// Two hosts must not each find a campaign without an open run. One by one in
// this order, so that hosts do not wait for each other.
const LOCK_CAMPAIGNS: &str = "/* lock campaigns */ \
    select pg_advisory_xact_lock(hashtextextended(c, 20261122)) \
    from (select c from unnest($1::text[]) c order by c offset 0) as c";

const LOCK_CAMPAIGN: &str =
    "/* lock campaign */ select pg_advisory_xact_lock(hashtextextended($1, 20261122))";

const FIRST_CURSORS: &str = "/* first cursors */ \
    insert into cursors (campaign, schedule_hash, seen_until, schedule, is_disabled) \
    select campaign, schedule_hash, seen_until, schedule, is_disabled \
    from json_to_recordset($1::json) as c (campaign text, schedule_hash text, seen_until bigint, \
    schedule text, is_disabled bool) on conflict do nothing returning campaign";

const MOVE_CURSORS: &str = "/* move cursors */ \
    update cursors set schedule_hash = c.schedule_hash, seen_until = c.seen_until, \
    schedule = c.schedule, is_disabled = c.is_disabled \
    from json_to_recordset($1::json) as c (campaign text, schedule_hash text, seen_until bigint, \
    schedule text, is_disabled bool, hash_before text, seen_before bigint) \
    where cursors.campaign = c.campaign and cursors.schedule_hash = c.hash_before \
    and cursors.seen_until = c.seen_before returning cursors.campaign";

const INSERT_RUNS: &str = "/* insert runs */ \
    insert into runs (run_id, campaign, connector, fire_time, \"trigger\", manual_number, \
    campaign_version, state, is_open, claimed_at, finished_at, error) \
    select run_id, campaign, connector, fire_time, \"trigger\", manual_number, \
    campaign_version, state, is_open, claimed_at, finished_at, error \
    from json_to_recordset($1::json) as c (run_id text, campaign text, connector text, \
    fire_time bigint, \"trigger\" text, manual_number bigint, campaign_version text, state text, \
    is_open bool, claimed_at bigint, finished_at bigint, error text) \
    on conflict do nothing returning run_id";

const INSERT_SPECS: &str = "/* insert specs */ \
    insert into run_specs (campaign_version, spec) \
    select * from unnest($1::text[], $2::text[]) on conflict do nothing";

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
    funnel = coalesce($7, funnel), tally = coalesce($8, tally), error = nullif(coalesce($9, error), ''), \
    asked = coalesce($11, asked) where run_id = $1 and state = $2 and term = $10";

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

/// A cursor as the statement reads it.
#[derive(Serialize)]
struct CursorRow<'a> {
    campaign: &'a str,
    schedule_hash: &'a str,
    seen_until: i64,
    schedule: Option<&'a str>,
    is_disabled: bool,
    hash_before: Option<&'a str>,
    seen_before: Option<i64>,
}

impl<'a> CursorRow<'a> {
    fn of(claim: &'a Claim) -> Self {
        let before = claim.before.as_ref();
        Self {
            campaign: claim.campaign.as_str(),
            schedule_hash: &claim.after.schedule_hash,
            seen_until: micros(claim.after.seen_until),
            schedule: claim.after.schedule.as_deref(),
            is_disabled: claim.after.is_disabled,
            hash_before: before.map(|before| before.schedule_hash.as_str()),
            seen_before: before.map(|before| micros(before.seen_until)),
        }
    }
}

/// A run as the statement reads it.
#[derive(Serialize)]
struct RunRow<'a> {
    run_id: &'a str,
    campaign: &'a str,
    connector: &'a str,
    fire_time: i64,
    trigger: &'static str,
    manual_number: Option<u32>,
    campaign_version: &'a str,
    state: &'static str,
    is_open: bool,
    claimed_at: i64,
    finished_at: Option<i64>,
    error: Option<&'a str>,
}

impl<'a> RunRow<'a> {
    fn of(row: &Row<'a>) -> Self {
        let (run, is_open) = (row.run, row.run.state.is_open());
        Self {
            run_id: row.id.as_str(),
            campaign: run.campaign.as_str(),
            connector: run.connector.as_str(),
            fire_time: micros(run.fire_time),
            trigger: row.trigger().as_str(),
            manual_number: row.number,
            campaign_version: &run.campaign_version,
            state: run.state.as_str(),
            is_open,
            claimed_at: micros(row.at),
            finished_at: (!is_open).then(|| micros(row.at)),
            error: run.error.as_deref(),
        }
    }
}

/// Moves the cursors, then writes the runs; a claim is refused unless its
/// cursor is where it says.
pub(super) async fn claim(db: &mut PgConnection, claims: &[Claim]) -> Result<Written, Failure> {
    let campaigns: Vec<&str> = claims.iter().map(|claim| claim.campaign.as_str()).collect();
    sqlx::query(LOCK_CAMPAIGNS)
        .bind(campaigns)
        .execute(&mut *db)
        .await?;
    let (later, first): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.before.is_some());
    let mut moved = Names::new();
    for (statement, claims) in [(FIRST_CURSORS, first), (MOVE_CURSORS, later)] {
        if !claims.is_empty() {
            let rows: Vec<_> = claims.into_iter().map(CursorRow::of).collect();
            let query = sqlx::query_scalar(statement).bind(rows::to_json(&rows));
            moved.extend(query.fetch_all(&mut *db).await?);
        }
    }
    let rows = claims::rows(claims, &moved);
    let written = insert(db, &rows).await?;
    insert_specs(db, &claims::specs(&rows, &written)).await?;
    Ok(claims::answers(claims, &moved, &written))
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

pub(super) async fn lock(db: &mut PgConnection, campaign: &str) -> Result<(), sqlx::Error> {
    sqlx::query(LOCK_CAMPAIGN)
        .bind(campaign)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes runs, and returns the ids of those whose id, and whose fire time if
/// they are scheduled, was not there already.
async fn insert(db: &mut PgConnection, rows: &[Row<'_>]) -> Result<Names, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Names::new());
    }
    let rows: Vec<RunRow<'_>> = rows.iter().map(RunRow::of).collect();
    let query = sqlx::query_scalar(INSERT_RUNS).bind(rows::to_json(&rows));
    Ok(query.fetch_all(db).await?.into_iter().collect())
}

async fn insert_specs(db: &mut PgConnection, specs: &[(&str, &str)]) -> Result<(), sqlx::Error> {
    if specs.is_empty() {
        return Ok(());
    }
    let (versions, specs): (Vec<&str>, Vec<&str>) = specs.iter().copied().unzip();
    sqlx::query(INSERT_SPECS)
        .bind(versions)
        .bind(specs)
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
