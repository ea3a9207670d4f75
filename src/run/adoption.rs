//! Takes over the runs of a daemon that was lost. Nothing is known of what it
//! sent beyond what it settled, so nothing is rendered and nothing sent: what
//! may have been sent is parked for a person.

use super::carrier::RunError;
use super::guards::Guards;
use super::ports::{Ledger, Warehouse};
use super::records::{Adopted, NewRun};
use super::state::RunState;
use crate::audience::{AudienceSpec, Expect, Policy};
use crate::campaign::RunSpec;
use crate::delivery::{Format, Payload};
use crate::history::{
    BatchOutcome, BatchStatus, Closing, Remains, RunFacts, RunStatus, Settlement, SilentRun, Tally,
};
use crate::id::{BatchPath, ConnectorName, MessageId};
use jiff::Timestamp;
use std::num::NonZeroU32;
use std::sync::Arc;

/// What is recorded of each batch that may have been sent.
const PARKED: &str = "parked: adopted, it is not known what was sent";

/// What is said of a run whose members had been laid out.
const INCOMPLETE: &str = "taken over from a daemon that was lost; what it had not settled is \
    parked, and nothing is sent again by itself";

/// What is said of one whose members had not.
const NOTHING_SENT: &str = "taken over from a daemon that was lost before it sent anything; \
    run the campaign again";

/// Looks once through the connector's `open_runs`: what is ours and known is
/// shown to be alive, what nobody has shown to be alive for too long is taken
/// over. Returns how many runs were.
pub async fn adopt_silent(
    connector: &ConnectorName,
    warehouse: &Arc<dyn Warehouse>,
    ledger: &dyn Ledger,
    guards: &Guards,
    now: Timestamp,
) -> Result<usize, RunError> {
    let mut adopted = 0;
    for silent in warehouse.silent_runs(guards.seen_every()).await? {
        let us = ledger.installation().id;
        let known = ledger.run(&silent.run).await?.map(|record| record.state);
        match known {
            // Waiting for its turn, a person or better times: it is looked
            // after, and who carries it shows so only while it does.
            Some(state) if silent.owner == us && is_looked_after(state) => {
                warehouse.touch(&bare(&silent, ledger)).await?;
            }
            _ if silent.silent_for < guards.adopt_after => {}
            // We know it better than who took it from us and was lost.
            Some(state) if state.is_open() => {
                warehouse.adopt(&silent, us, guards.adopt_after).await?;
            }
            _ => {
                let remains = warehouse.adopt(&silent, us, guards.adopt_after).await?;
                if let Some(remains) = remains {
                    let rows = guards.withheld_rows;
                    end(connector, warehouse.as_ref(), ledger, (remains, rows), now).await?;
                    adopted += 1;
                }
            }
        }
    }
    Ok(adopted)
}

fn is_looked_after(state: RunState) -> bool {
    state.is_open() || state == RunState::Held
}

/// The run as far as touching it needs.
fn bare(silent: &SilentRun, ledger: &dyn Ledger) -> RunFacts {
    let us = ledger.installation().id;
    let facts = crate::history::adoption::bare_facts(silent, us, Timestamp::UNIX_EPOCH);
    RunFacts {
        term: silent.term,
        ..facts
    }
}

/// Parks what is not settled and closes the run: in the ledger first, so that
/// whoever finds it half done knows that it is to be done.
async fn end(
    connector: &ConnectorName,
    warehouse: &dyn Warehouse,
    ledger: &dyn Ledger,
    (remains, withheld_rows): (Remains, bool),
    now: Timestamp,
) -> Result<(), RunError> {
    let (status, state, why) = match remains.laid_out {
        true => (RunStatus::Incomplete, RunState::Incomplete, INCOMPLETE),
        false => (RunStatus::Failed, RunState::Failed, NOTHING_SENT),
    };
    let facts = Arc::new(remains.facts);
    let parked = remains.unsettled.iter().map(|&(batch, members)| {
        let path = BatchPath::whole(batch);
        BatchOutcome {
            message_id: MessageId::of(&facts.run, &path, 0),
            path,
            status: BatchStatus::Unknown,
            members,
            attempts: 0,
            http_status: None,
            // Caps count by it: the latest it can have been.
            first_attempt_at: Some(now),
            settled_at: now,
            error: Some(PARKED.to_owned()),
            places: None,
            refused: Vec::new(),
        }
    });
    let parked: Vec<BatchOutcome> = parked.collect();
    let parked_members: u64 = parked.iter().map(|batch| u64::from(batch.members)).sum();
    let funnel = remains.funnel;
    let tally = Tally {
        unknown: parked_members,
        delivered: funnel.planned.saturating_sub(parked_members),
        ..Tally::default()
    };
    let settled = parked
        .iter()
        .map(|batch| (batch.path.clone(), batch.status))
        .collect();
    ledger
        .adopt(Adopted {
            run: record(connector, &facts, state, why),
            started_at: facts.started_at,
            at: now,
            funnel,
            tally,
            parked: parked.clone(),
        })
        .await?;
    if !parked.is_empty() {
        let settlement = Settlement {
            facts: Arc::clone(&facts),
            funnel,
            status: RunStatus::Open,
            error: None,
            outcomes: parked.into(),
            fills_gaps: true,
            counts_anew: true,
        };
        warehouse.settle(&[settlement]).await?;
    }
    let closing = Closing {
        facts: Arc::clone(&facts),
        funnel,
        status,
        finished_at: now,
        error: Some(why.to_owned()),
        cancels_rest: None,
        keep_run_table: remains.laid_out,
        withheld_rows,
    };
    let tally = warehouse.close(&closing).await?;
    let term = ledger.run(&facts.run).await?.map_or(0, |run| run.term);
    ledger.mark_settled(&facts.run, term, settled).await?;
    tracing::error!(
        campaign.name = %facts.campaign, run.id = %facts.run,
        members.delivered = tally.delivered, members.unknown = tally.unknown,
        "{} {}: {why}", facts.run, status.as_str(),
    );
    Ok(())
}

/// The run for the ledger. Its specification was lost with the other ledger;
/// the one it gets names what is known and lets no body be sent.
fn record(connector: &ConnectorName, facts: &RunFacts, state: RunState, why: &str) -> NewRun {
    let spec = RunSpec {
        campaign: facts.campaign.clone(),
        connector: connector.clone(),
        priority: 0,
        audience: AudienceSpec {
            key: String::new(),
            sql: String::new(),
        },
        batch_size: NonZeroU32::new(facts.batch_size).unwrap_or(NonZeroU32::MIN),
        destination: facts.destination.clone(),
        channel: facts.channel.clone(),
        max_body: 0,
        attributes: serde_json::Map::new(),
        suppress: Vec::new(),
        policy: Policy::default(),
        payload: Payload::default(),
        vars: serde_json::Map::new(),
        format: Format::Json,
        rejected_at: None,
        expires_after_ms: None,
        expect: Expect::default(),
        fresh_when: None,
        send_window: None,
        canary: NonZeroU32::new(facts.canary),
    };
    NewRun {
        run: facts.run.clone(),
        campaign: facts.campaign.clone(),
        connector: connector.clone(),
        fire_time: facts.fire_time,
        trigger: facts.trigger,
        campaign_version: spec.version(),
        spec: spec.to_json().into(),
        state,
        error: Some(why.to_owned()),
    }
}
