//! What `fresh_when` would say to a run that began now.

use super::plan::refused;
use crate::admin::Reply;
use crate::campaign::{Campaign, RunSpec};
use crate::history::RunFacts;
use crate::run::WarehouseErrorClass;
use crate::warehouse::{ConnectorOptions, newest_data};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How recent a campaign's data is, as `--format json` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Freshness {
    /// What a run would make of it.
    pub verdict: Verdict,
    /// The time of the newest data; none where there is none, or it cannot be
    /// asked.
    pub newest: Option<Timestamp>,
    /// How old that is.
    pub age_secs: Option<u64>,
    /// How old it may be.
    pub max_age_secs: u64,
    /// How long a run would wait for newer data.
    pub wait_secs: u64,
    /// Why it cannot be asked.
    pub error: Option<String>,
}

/// What a run would make of how recent its data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would go on.
    Fresh,
    /// It would wait, and fail if nothing newer comes.
    Stale,
    /// It would fail.
    Error,
}

/// Asks `fresh_when`, if the campaign has one. That the warehouse cannot be
/// asked at all is told as [`Reply`].
pub(super) async fn freshness(
    campaign: &Campaign,
    spec: &RunSpec,
    (options, facts): (ConnectorOptions, &RunFacts),
) -> Result<Option<Freshness>, Reply> {
    let asked = spec.fresh_when_of(&facts.run, facts.fire_time, options.dialect());
    let Some(asked) = asked.map_err(|error| Reply::Problems(error.to_string()))? else {
        return Ok(None);
    };
    let now = facts.started_at;
    let mut found = Freshness {
        verdict: Verdict::Error,
        newest: None,
        age_secs: None,
        max_age_secs: asked.max_age_secs,
        wait_secs: asked.wait_secs,
        error: None,
    };
    match newest_data(options, facts, &asked).await {
        Ok(newest) => {
            found.verdict = match asked.is_fresh(newest, now) {
                true => Verdict::Fresh,
                false => Verdict::Stale,
            };
            found.newest = newest;
            let age = newest.map(|newest| now.duration_since(newest).as_secs());
            found.age_secs = age.map(|secs| u64::try_from(secs).unwrap_or(0));
        }
        Err(error) if error.class == WarehouseErrorClass::Statement => {
            found.error = Some(error.message);
        }
        Err(error) => return Err(refused(campaign, &error)),
    }
    Ok(Some(found))
}
