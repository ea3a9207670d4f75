//! Whole runs by the real engine in a world in memory that fails, and in which
//! the process dies, as a seed says. `SEED` plays one seed again.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::campaign::RunSpec;
use campaignd::delivery::{OnAmbiguous, Rules};
use campaignd::history::{BatchStatus, RunStatus};
use campaignd::id::{RunId, Trigger};
use campaignd::run::{
    Carrier, Clock as _, DEFAULT_LEASE, Guards, Kit, Limit, Memory, Pauses, Reporter, RunError,
    RunRecord, RunState, Settler, Throttle, ThrottleOptions, Turns,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::dream::{Dream, Kept, draw};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Seeds in a test run.
const SEEDS: u64 = 300;

/// Processes after which a run must have ended.
const PROCESSES: u64 = 400;

fn record(dream: &Dream, batch_size: u64) -> RunRecord {
    let spec = serde_json::json!({
        "campaign": "winback", "connector": "warehouse", "priority": 50,
        "audience": {"key": "profile_id", "sql": "select profile_id from people"},
        "batch_size": batch_size, "destination": "email-esp", "channel": "email",
        "max_body": 1_048_576, "attributes": {},
    });
    let spec = RunSpec::from_json(&spec.to_string()).unwrap();
    let now = dream.clock.now();
    RunRecord {
        run: RunId::scheduled(&spec.campaign, now),
        campaign: spec.campaign.clone(),
        connector: spec.connector.clone(),
        fire_time: now,
        trigger: Trigger::Scheduled,
        campaign_version: spec.version(),
        spec: spec.to_json(),
        state: RunState::Queued,
        claimed_at: now,
        started_at: None,
        finished_at: None,
        asked: None,
        funnel: None,
        tally: None,
        error: None,
        term: 0,
    }
}

fn rules(seed: u64) -> Rules {
    let (on_ambiguous, dedupe_window) = match seed % 4 {
        0 => (OnAmbiguous::Park, None),
        1 => (OnAmbiguous::Resend, Some(Duration::from_secs(75))),
        2 => (OnAmbiguous::Resend, Some(Duration::from_secs(600))),
        _ => (OnAmbiguous::Resend, Some(Duration::from_secs(86_400))),
    };
    Rules {
        timeout: Duration::from_secs(2),
        retry_initial: Duration::from_secs(1),
        retry_max: Duration::from_secs(60),
        give_up_after: Duration::from_secs(60 + draw(seed) % 20_000),
        dedupe_window,
        on_ambiguous,
        not_processed: match seed % 3 {
            0 => vec![],
            _ => vec![409],
        },
    }
}

fn kit(dream: &Arc<Dream>, rules: &Arc<Rules>) -> Kit {
    Kit {
        clock: dream.clock.clone(),
        ledger: dream.clone(),
        warehouse: dream.clone(),
        settler: Settler::start(dream.clone(), &TaskTracker::new()),
        destination: dream.clone(),
        rules: Arc::clone(rules),
        queries: Turns::new(2, dream.clock.clone()),
        throttle: Throttle::new(
            ThrottleOptions {
                name: "dream".parse().unwrap(),
                max_in_flight: 1 + u32::try_from(dream.seed % 4).unwrap(),
                rate_limit: None,
            },
            dream.clock.clone(),
            Limit::new(3),
        ),
        memory: Memory::new(1_600),
        pauses: Pauses::default(),
        lease: DEFAULT_LEASE,
        give_up_on_warehouse: None,
        guards: Guards::default(),
    }
}

/// One process: carries the run until it has ended, the process dies, or an
/// error is left to the next.
fn live(dream: &Arc<Dream>, rules: &Arc<Rules>) -> Option<RunState> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let record = dream.kept.lock().unwrap().run.clone().unwrap();
        let (reporter, _) = Reporter::new(record.state);
        let stop = CancellationToken::new();
        let carrier = Carrier::new(&record, kit(dream, rules), reporter, stop).unwrap();
        let time_passes = async {
            loop {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                dream.clock.wake_next();
            }
        };
        tokio::select! {
            biased;
            () = dream.crashed.notified() => None,
            ended = carrier.carry() => match ended {
                Ok(state) => Some(state),
                Err(error @ (RunError::Illegal(_) | RunError::Task(_))) => {
                    panic!("SEED={}: {error}", dream.seed)
                }
                Err(_) => None,
            },
            () = time_passes => None,
        }
    })
}

/// Plays a seed, and returns how the run ended.
fn play(seed: u64) -> RunState {
    let people = draw(seed ^ 1) % 120;
    let dream = Arc::new(Dream::new(seed, people));
    let record = record(&dream, 1 + draw(seed ^ 2) % 12);
    dream.kept.lock().unwrap().run = Some(record);
    let rules = Arc::new(rules(seed));
    let deaths = draw(seed ^ 3) % 8;
    for process in 0..PROCESSES {
        let moment = draw(seed ^ process << 32) % 150;
        dream.begin_process((process < deaths).then_some(1 + moment));
        if let Some(state) = live(&dream, &rules) {
            check(&dream, &rules, state);
            return state;
        }
        // The source goes on living, and so does time.
        dream.kept.lock().unwrap().source.push(1_000 + process);
        let downtime = draw(seed ^ process << 40);
        let longest = [2, 60, 3_600, 100_000][usize::try_from(downtime % 4).unwrap()];
        let downtime = (downtime >> 8) % longest;
        dream.clock.pass(Duration::from_secs(downtime));
    }
    panic!("SEED={seed}: the run has not ended");
}

fn part(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["data"]["part"].as_str().unwrap().to_owned()
}

fn keys(body: &[u8]) -> Vec<u64> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let members = body["data"]["members"].as_array().unwrap();
    let key = |member: &serde_json::Value| {
        let key = member["profile_id"].as_str().unwrap();
        key.trim_start_matches("p-").parse().unwrap()
    };
    members.iter().map(key).collect()
}

/// The identity, from what the warehouse and the receiver have.
fn check(dream: &Dream, rules: &Rules, state: RunState) {
    let seed = dream.seed;
    let kept = dream.kept.lock().unwrap();
    if matches!(state, RunState::Failed | RunState::Skipped) {
        // Only before anything is sent. It is found closed where the ledger
        // could not be told.
        assert!(
            kept.had.is_empty() && kept.history.is_empty(),
            "SEED={seed}"
        );
        assert_eq!(kept.row.unwrap().0, RunStatus::Failed, "SEED={seed}");
        return;
    }
    let planned = kept.admitted.unwrap().planned;
    let (status, tally) = kept.row.unwrap();
    assert_eq!(tally.total(), planned, "SEED={seed}: planned");
    let expected = match state {
        RunState::Finished => RunStatus::Finished,
        RunState::Incomplete => RunStatus::Incomplete,
        RunState::Held => RunStatus::Held,
        other => panic!("SEED={seed}: ended {other:?}"),
    };
    assert_eq!(status, expected, "SEED={seed}");
    let recorded: BTreeMap<u64, &_> = kept.history.iter().map(|row| (row.key, row)).collect();
    assert_eq!(
        recorded.len(),
        kept.history.len(),
        "SEED={seed}: twice in history"
    );
    assert_eq!(
        planned - tally.still_open,
        recorded.len() as u64,
        "SEED={seed}: lost"
    );
    assert!(
        state == RunState::Held || tally.still_open == 0,
        "SEED={seed}"
    );

    // Of each member, the parts it was sent in, and whether one took effect.
    let mut parts: BTreeMap<u64, BTreeMap<String, bool>> = BTreeMap::new();
    for had in &kept.had {
        for key in keys(&had.body) {
            let part = parts.entry(key).or_default().entry(part(&had.body));
            *part.or_default() |= had.has_effect;
            let status = recorded.get(&key).map(|row| row.status);
            let hides_it = matches!(status, Some(BatchStatus::Failed | BatchStatus::Cancelled));
            assert!(
                !(had.has_effect && hides_it),
                "SEED={seed}: p-{key} is {status:?}"
            );
            let was_refused = status == Some(BatchStatus::Rejected);
            assert!(
                !(had.has_effect && was_refused),
                "SEED={seed}: p-{key} is rejected"
            );
        }
    }
    for (key, parts) in &parts {
        // In the order of their names a part comes before those it was cut
        // into, which are sent only because it was refused.
        let (all, effects): (Vec<&String>, Vec<&bool>) = parts.iter().unzip();
        let is_cut = |pair: &[&String]| pair[1].starts_with(pair[0].as_str());
        assert!(
            all.windows(2).all(is_cut),
            "SEED={seed}: p-{key} in {all:?}"
        );
        let cut = effects.len() - 1;
        assert!(
            !effects[..cut].iter().any(|effect| **effect),
            "SEED={seed}: p-{key} took effect in a part that was cut"
        );
    }
    for (key, row) in &recorded {
        let was_accepted = kept
            .had
            .iter()
            .any(|had| had.was_accepted && had.id == row.message);
        let is_delivered = row.status == BatchStatus::Delivered;
        assert!(
            !is_delivered || was_accepted,
            "SEED={seed}: p-{key} was not received"
        );
    }
    each_id_is_sound(&kept, rules, seed);
}

/// One body an id; and after a request that took effect nothing of that id
/// outside the window in which the receiver knows it again.
fn each_id_is_sound(kept: &Kept, rules: &Rules, seed: u64) {
    let mut by_id: BTreeMap<&str, Vec<&_>> = BTreeMap::new();
    for had in &kept.had {
        by_id.entry(&had.id).or_default().push(had);
    }
    for (id, all) in by_id {
        assert!(
            all.iter().all(|had| had.body == all[0].body),
            "SEED={seed}: {id}"
        );
        let Some(first) = all.iter().position(|had| had.has_effect) else {
            continue;
        };
        for again in &all[first + 1..] {
            let after = again.at.duration_since(all[first].at).unsigned_abs();
            let is_known = rules.dedupe_window.is_some_and(|window| after < window);
            assert!(is_known, "SEED={seed}: {id} again after {after:?}");
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a seed is given from outside to play it again"
)]
fn whole_runs_keep_the_identity_whatever_fails_and_whenever_the_process_dies() {
    if let Ok(seed) = std::env::var("SEED") {
        play(seed.parse().unwrap());
        return;
    }
    let ends: Vec<RunState> = (0..SEEDS).map(play).collect();
    for wanted in [RunState::Finished, RunState::Incomplete, RunState::Held] {
        assert!(ends.contains(&wanted), "no run ended {wanted:?}: {ends:?}");
    }
}
