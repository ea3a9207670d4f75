//! Runs as `--format json` shows them: the columns of the `runs` table, and
//! the state beside them.

use super::show::count;
use crate::audience::Funnel;
use crate::history::Tally;
use crate::id::MessageId;
use crate::run::{BatchRecord, RunRecord};
use jiff::Timestamp;
use serde::Serialize;

/// One run. Field names are those of the `runs` table; `state` says where an
/// open run is.
#[derive(Debug, Serialize)]
pub(super) struct RunView {
    pub(super) run_id: String,
    pub(super) campaign: String,
    pub(super) campaign_version: String,
    pub(super) connector: String,
    pub(super) fire_time: Timestamp,
    pub(super) trigger: &'static str,
    pub(super) status: &'static str,
    pub(super) state: &'static str,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) audience: u64,
    pub(super) no_key: u64,
    pub(super) bad_key: u64,
    pub(super) duplicate: u64,
    pub(super) suppressed: u64,
    pub(super) capped: u64,
    pub(super) cooling_down: u64,
    pub(super) held_out: u64,
    pub(super) over_limit: u64,
    pub(super) planned: u64,
    pub(super) delivered: u64,
    pub(super) rejected: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    pub(super) cancelled: u64,
    pub(super) still_open: u64,
    pub(super) error: Option<String>,
}

impl RunView {
    pub(super) fn of(record: &RunRecord) -> Self {
        let funnel = record.funnel.unwrap_or_default();
        let tally = record.tally.unwrap_or(Tally {
            still_open: funnel.planned,
            ..Tally::default()
        });
        Self::with_counts(record, funnel, tally)
    }

    fn with_counts(record: &RunRecord, funnel: Funnel, tally: Tally) -> Self {
        Self {
            run_id: record.run.to_string(),
            campaign: record.campaign.to_string(),
            campaign_version: record.campaign_version.clone(),
            connector: record.connector.to_string(),
            fire_time: record.fire_time,
            trigger: record.trigger.as_str(),
            status: if record.state.is_open() {
                "open"
            } else {
                record.state.as_str()
            },
            state: record.state.as_str(),
            started_at: record.started_at,
            finished_at: record.finished_at,
            audience: funnel.audience,
            no_key: funnel.no_key,
            bad_key: funnel.bad_key,
            duplicate: funnel.duplicate,
            suppressed: funnel.suppressed,
            capped: funnel.capped,
            cooling_down: funnel.cooling_down,
            held_out: funnel.held_out,
            over_limit: funnel.over_limit,
            planned: funnel.planned,
            delivered: tally.delivered,
            rejected: tally.rejected,
            failed: tally.failed,
            unknown: tally.unknown,
            cancelled: tally.cancelled,
            still_open: tally.still_open,
            error: record.error.clone(),
        }
    }

    /// The withheld members by reason, those that are none left out.
    pub(super) fn withheld(&self) -> String {
        let reasons = [
            ("no key", self.no_key),
            ("bad key", self.bad_key),
            ("duplicate", self.duplicate),
            ("suppressed", self.suppressed),
            ("capped", self.capped),
            ("cooling down", self.cooling_down),
            ("held out", self.held_out),
            ("over limit", self.over_limit),
        ];
        let said: Vec<String> = reasons
            .into_iter()
            .filter(|(_, members)| *members > 0)
            .map(|(reason, members)| format!("{} {reason}", count(members)))
            .collect();
        if said.is_empty() {
            "none".to_owned()
        } else {
            said.join(", ")
        }
    }
}

/// One batch of a run.
#[derive(Debug, Serialize)]
pub(super) struct BatchView {
    pub(super) batch: u32,
    pub(super) part: String,
    pub(super) message_id: String,
    pub(super) state: &'static str,
    pub(super) status: Option<&'static str>,
    pub(super) members: u32,
    pub(super) attempts: u32,
    pub(super) http_status: Option<u16>,
    pub(super) first_attempt_at: Timestamp,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) settled: bool,
    pub(super) error: Option<String>,
}

impl BatchView {
    pub(super) fn of(run: &RunRecord, record: &BatchRecord) -> Self {
        Self {
            batch: record.path.batch,
            part: record.path.part.clone(),
            message_id: MessageId::of(&run.run, &record.path, record.generation).to_string(),
            state: record.state.as_str(),
            status: record.status.map(|status| status.as_str()),
            members: record.members,
            attempts: record.attempts,
            http_status: record.http_status,
            first_attempt_at: record.first_sending_at,
            next_attempt_at: record.next_at,
            settled: record.settled,
            error: record.error.clone(),
        }
    }
}
