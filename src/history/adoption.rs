//! The statements about runs that nobody shows to be alive any more.

use super::{RunFacts, Unwritable};
use crate::audience::{AudienceSpec, Dialect, Funnel, Policy, Schema, Statement, TableNames};
use crate::id::{CampaignName, RunId, Trigger};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::time::Duration;
use uuid::Uuid;

/// Where a run was sent of which nothing says it.
pub const UNKNOWN_DESTINATION: &str = "unknown";

/// A run in `open_runs` that has not been seen for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentRun {
    /// The run.
    pub run: RunId,
    /// Its campaign.
    pub campaign: CampaignName,
    /// How its members are reached.
    pub channel: String,
    /// Who carries it.
    pub owner: Uuid,
    /// Under which term.
    pub term: i32,
    /// For how long it has not been seen, by the warehouse's clock.
    pub silent_for: Duration,
}

/// What the warehouse says of a run that was taken over.
#[derive(Debug, Clone)]
pub struct Remains {
    /// The run, as far as it is known; ours, under its new term.
    pub facts: RunFacts,
    /// What admission counted; all zero where it was not reached.
    pub funnel: Funnel,
    /// Whether its members had been laid out. If not, nothing was sent.
    pub laid_out: bool,
    /// The batches of which `deliveries` does not have every member, and how
    /// many it does not have.
    pub unsettled: Vec<(u32, u32)>,
}

/// The runs not seen for longer than `older_than`: run id, campaign, channel,
/// owner, term, the seconds since and the name of the run's table.
pub fn silent_runs(schema: &Schema, older_than: Duration) -> Statement {
    let since = seconds_since_seen(schema.dialect);
    let sql = format!(
        "select run_id, campaign, channel, owner, term, {since}, run_table from {} where {since} >= {}",
        schema.table("open_runs"),
        older_than.as_secs(),
    );
    Statement::new("look", "silent runs", &sql)
}

fn seconds_since_seen(dialect: Dialect) -> String {
    seconds_since(dialect, "seen_at")
}

/// The whole seconds since `column`, by the warehouse's clock.
pub(super) fn seconds_since(dialect: Dialect, column: &str) -> String {
    let now = dialect.now();
    match dialect {
        Dialect::Sqlite => {
            format!("cast((julianday({now}) - julianday({column})) * 86400 as integer)")
        }
        Dialect::Postgres => format!("cast(floor(extract(epoch from {now} - {column})) as bigint)"),
        Dialect::Redshift => format!("datediff(second, {column}, {now})"),
    }
}

/// Makes a silent run ours, if it is still the one that was seen.
pub fn take_over(
    schema: &Schema,
    silent: &SilentRun,
    by: Uuid,
    older_than: Duration,
) -> Result<Statement, Unwritable> {
    let sql = format!(
        "update {} set owner = '{by}', term = {}, seen_at = {} where run_id = {} \
         and owner = '{}' and term = {} and {} >= {}",
        schema.table("open_runs"),
        silent.term.saturating_add(1),
        schema.dialect.now(),
        schema.dialect.literal(silent.run.as_str())?,
        silent.owner,
        silent.term,
        seconds_since_seen(schema.dialect),
        older_than.as_secs(),
    );
    Ok(Statement::new("adopt", silent.run.as_str(), &sql))
}

/// Owner and term of a run in `open_runs`.
pub fn owner_and_term(schema: &Schema, run: &RunId) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select owner, term from {} where run_id = {}",
        schema.table("open_runs"),
        schema.dialect.literal(run.as_str())?
    );
    Ok(Statement::new("look", run.as_str(), &sql))
}

/// Version and beginning of a run, as `runs` has them.
pub fn version_and_start(schema: &Schema, run: &RunId) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select campaign_version, started_at from {} where run_id = {}",
        schema.table("runs"),
        schema.dialect.literal(run.as_str())?
    );
    Ok(Statement::new("look", run.as_str(), &sql))
}

/// The batches of a run's own table: number, members still to be contacted,
/// last place.
pub fn batches(schema: &Schema, run: &RunId) -> Statement {
    let sql = format!(
        "select cd_batch, sum(case when cd_status = 'suppressed' then 0 else 1 end), max(cd_seq) \
         from {} where cd_seq is not null group by cd_batch order by cd_batch",
        schema.table(&TableNames::of(run).run)
    );
    Statement::new("adopt", run.as_str(), &sql)
}

/// The batches that `deliveries` has of a run: number, where they were sent,
/// and the members of all their parts.
pub fn settled_batches(schema: &Schema, run: &RunId) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select batch, max(destination), sum(members) from {} where run_id = {} group by batch",
        schema.table("deliveries"),
        schema.dialect.literal(run.as_str())?
    );
    Ok(Statement::new("adopt", run.as_str(), &sql))
}

/// The run that was taken over, from its row in `open_runs` and its id; the
/// rest is filled in from what else there is.
pub fn bare_facts(silent: &SilentRun, by: Uuid, now: Timestamp) -> RunFacts {
    let (fire_time, trigger) = from_id(&silent.run).unwrap_or((now, Trigger::Scheduled));
    RunFacts {
        run: silent.run.clone(),
        campaign: silent.campaign.clone(),
        campaign_version: String::new(),
        fire_time,
        trigger,
        started_at: fire_time,
        audience: AudienceSpec {
            key: String::new(),
            sql: String::new(),
        },
        batch_size: 1,
        destination: UNKNOWN_DESTINATION.parse().expect("it is a name"),
        channel: silent.channel.clone(),
        attributes: None,
        owner: by,
        term: silent.term.saturating_add(1),
        suppress: Vec::new(),
        policy: Policy::default(),
        canary: 0,
    }
}

/// Fire time and trigger, which the id of a run names.
fn from_id(run: &RunId) -> Option<(Timestamp, Trigger)> {
    let (_, rest) = run.as_str().rsplit_once('@')?;
    let (time, trigger) = match rest.split_once('-') {
        Some((time, _)) => (time, Trigger::Manual),
        None => (rest, Trigger::Scheduled),
    };
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    Some((instant(time)?, trigger))
}

/// A `timestamp` cell, which is in UTC.
pub fn instant_of_cell(cell: &str) -> Option<Timestamp> {
    instant(cell.parse().ok()?)
}

fn instant(at: DateTime) -> Option<Timestamp> {
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_run_tells_its_fire_time_and_trigger() {
        let at: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        for (id, trigger) in [
            ("a-b@20261122T140000Z", Trigger::Scheduled),
            ("a-b@20261122T140000Z-manual-2", Trigger::Manual),
        ] {
            assert_eq!(from_id(&id.parse().unwrap()), Some((at, trigger)));
        }
        assert_eq!(instant_of_cell("2026-11-22 14:00:00.000000"), Some(at));
        assert_eq!(instant_of_cell("2026-11-22 14:00:00"), Some(at));
    }
}
