//! What a ledger promises, as functions over `&dyn Ledger`: one list, run on
//! every database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use campaignd::id::{BatchPath, RunId, Trigger};
use campaignd::ledger::SqliteLedger;
use campaignd::run::{
    AttemptBegun, BatchChange, BatchRecord, BatchState, BatchStatus, Funnel, Ledger, LedgerError,
    NewRun, Reopen, Reopening, Resolution, RunChange, RunState, Tally,
};
use futures_util::future::join_all;
use jiff::SignedDuration;
use std::time::Duration;
use support::claims::claims_made_together_are_each_taken_or_refused;
use support::records::{
    attempt, campaign, claim, cursor, ends, manual, minute, moves, new_run, only_batch, queued,
    refused, some_run,
};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod on_sqlite {
            use super::SqliteLedger;

            $(#[tokio::test]
            async fn $promise() {
                let folder = tempfile::tempdir().unwrap();
                let ledger = SqliteLedger::open(&folder.path().join("state.db")).await.unwrap();
                super::$promise(&ledger).await;
                ledger.close().await;
            })*
        }

        mod on_postgres {
            use super::support::postgres::Postgres;

            $(#[tokio::test]
            async fn $promise() {
                let server = Postgres::start();
                let ledger = super::support::ledger::open(&server.database("ledger")).await;
                super::$promise(&ledger).await;
                ledger.close().await;
            })*
        }
    };
}

promises! {
    a_fire_time_is_claimed_once
    a_claim_from_a_stale_cursor_is_refused
    claims_made_together_are_each_taken_or_refused
    a_claim_brings_back_what_it_wrote
    fire_times_that_were_not_run_are_kept_with_their_reason
    a_specification_is_kept_once_and_comes_with_each_of_its_runs
    a_manual_run_takes_the_next_number
    a_manual_run_is_refused_while_one_is_open
    runs_come_newest_first_and_open_ones_by_fire_time
    a_run_moves_only_from_the_state_it_is_in
    a_run_keeps_what_a_later_move_does_not_bring
    a_run_that_is_taken_up_again_has_not_finished
    an_attempt_begins_once
    a_later_attempt_follows_the_one_before_it
    a_later_attempt_must_bring_the_same_body
    a_batch_moves_only_from_the_state_and_attempt_it_is_at
    an_ambiguity_is_never_cleared
    an_ended_batch_has_its_outcome
    ended_batches_are_unsettled_until_marked
    parts_of_a_batch_are_batches_of_their_own
    a_refused_write_does_not_undo_its_neighbours
    an_ended_run_is_opened_again_once_and_beside_no_other
    a_resumed_run_sends_what_failed_under_the_same_id
    what_a_person_says_was_not_delivered_is_sent_under_the_next_generation
    only_a_parked_batch_is_resolved
}

async fn a_fire_time_is_claimed_once(ledger: &dyn Ledger) {
    let first = claim(None, minute(0), vec![new_run(minute(0), RunState::Queued)]);
    let runs = ledger.claim(first).await.unwrap();
    assert_eq!(runs, [some_run()]);
    let both = vec![
        new_run(minute(0), RunState::Queued),
        new_run(minute(5), RunState::Queued),
    ];
    let again = claim(Some(minute(0)), minute(5), both);
    let runs = ledger.claim(again).await.unwrap();
    assert_eq!(runs, [RunId::scheduled(&campaign(), minute(5))]);
    assert_eq!(ledger.runs(None, 10).await.unwrap().len(), 2);
}

async fn a_claim_from_a_stale_cursor_is_refused(ledger: &dyn Ledger) {
    let runs = || vec![new_run(minute(5), RunState::Queued)];
    refused(
        ledger
            .claim(claim(Some(minute(0)), minute(5), runs()))
            .await,
    );
    ledger.claim(claim(None, minute(0), vec![])).await.unwrap();
    refused(ledger.claim(claim(None, minute(5), runs())).await);
    refused(
        ledger
            .claim(claim(Some(minute(1)), minute(5), runs()))
            .await,
    );
    let mut other_schedule = claim(Some(minute(0)), minute(5), runs());
    other_schedule.before.as_mut().unwrap().schedule_hash = "other".to_owned();
    refused(ledger.claim(other_schedule).await);
    assert_eq!(ledger.runs(None, 10).await.unwrap(), []);
    let seen = ledger.cursor(&campaign()).await.unwrap();
    assert_eq!(seen, Some(cursor(minute(0))));
}

async fn a_claim_brings_back_what_it_wrote(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    let record = ledger.run(&run).await.unwrap().unwrap();
    let asked = new_run(minute(0), RunState::Queued);
    assert_eq!(record.run, asked.run);
    assert_eq!(record.campaign, asked.campaign);
    assert_eq!(record.connector, asked.connector);
    assert_eq!(record.fire_time, minute(0));
    assert_eq!(record.trigger, Trigger::Scheduled);
    assert_eq!(record.state, RunState::Queued);
    assert_eq!(record.claimed_at, minute(0));
    assert_eq!((record.started_at, record.finished_at), (None, None));
    let unknown = RunId::scheduled(&campaign(), minute(99));
    assert_eq!(ledger.run(&unknown).await.unwrap(), None);
}

async fn fire_times_that_were_not_run_are_kept_with_their_reason(ledger: &dyn Ledger) {
    let missed = NewRun {
        error: Some("passed while nothing was running".to_owned()),
        ..new_run(minute(0), RunState::Missed)
    };
    ledger
        .claim(claim(None, minute(5), vec![missed]))
        .await
        .unwrap();
    let record = ledger.run(&some_run()).await.unwrap().unwrap();
    assert_eq!(record.state, RunState::Missed);
    assert_eq!(record.finished_at, Some(minute(5)));
    assert_eq!(
        record.error.as_deref(),
        Some("passed while nothing was running")
    );
    assert_eq!(ledger.open_runs().await.unwrap(), []);
}

async fn a_specification_is_kept_once_and_comes_with_each_of_its_runs(ledger: &dyn Ledger) {
    let mut runs: Vec<NewRun> = (0..3)
        .map(|n| new_run(minute(n), RunState::Queued))
        .collect();
    runs[2].campaign_version = "v2".to_owned();
    runs[2].spec = r#"{"audience":"select 1"}"#.into();
    ledger.claim(claim(None, minute(5), runs)).await.unwrap();
    let specs: Vec<String> = ledger
        .open_runs()
        .await
        .unwrap()
        .into_iter()
        .map(|run| run.spec)
        .collect();
    assert_eq!(specs, ["{}", "{}", r#"{"audience":"select 1"}"#]);
}

async fn a_manual_run_takes_the_next_number(ledger: &dyn Ledger) {
    for n in 1..=3 {
        // The id names the fire time to the second only.
        let fire_time = minute(0) + SignedDuration::from_millis(n * 100);
        let run = ledger
            .claim_manual(manual(fire_time), minute(0))
            .await
            .unwrap();
        assert_eq!(run.as_str(), format!("winback@20261122T090000Z-manual-{n}"));
        let cancelled = moves(&run, RunState::Queued, RunState::Cancelled);
        ledger.change_run(cancelled).await.unwrap();
    }
    let later = ledger
        .claim_manual(manual(minute(1)), minute(1))
        .await
        .unwrap();
    assert_eq!(later.as_str(), "winback@20261122T090100Z-manual-1");
    let record = ledger.run(&later).await.unwrap().unwrap();
    assert_eq!(record.trigger, Trigger::Manual);
}

async fn a_manual_run_is_refused_while_one_is_open(ledger: &dyn Ledger) {
    let open = queued(ledger, minute(0)).await;
    refused(ledger.claim_manual(manual(minute(1)), minute(1)).await);
    let held = moves(&open, RunState::Queued, RunState::Held);
    ledger.change_run(held).await.unwrap();
    let (one, other) = tokio::join!(
        ledger.claim_manual(manual(minute(1)), minute(1)),
        ledger.claim_manual(manual(minute(1)), minute(1)),
    );
    assert!(one.is_ok() != other.is_ok(), "one of two at once");
}

async fn runs_come_newest_first_and_open_ones_by_fire_time(ledger: &dyn Ledger) {
    let late = queued(ledger, minute(9)).await;
    let early = queued(ledger, minute(3)).await;
    let ended = queued(ledger, minute(6)).await;
    let failed = moves(&ended, RunState::Queued, RunState::Failed);
    ledger.change_run(failed).await.unwrap();
    let ids = |runs: Vec<campaignd::run::RunRecord>| -> Vec<RunId> {
        runs.into_iter().map(|run| run.run).collect()
    };
    let newest = ledger.runs(Some(&campaign()), 2).await.unwrap();
    assert_eq!(ids(newest), [ended.clone(), early.clone()]);
    let all = ledger.runs(None, 9).await.unwrap();
    assert_eq!(ids(all), [ended, early.clone(), late.clone()]);
    assert_eq!(ids(ledger.open_runs().await.unwrap()), [early, late]);
    let other = "welcome".parse().unwrap();
    assert_eq!(ledger.runs(Some(&other), 9).await.unwrap(), []);
}

async fn a_run_moves_only_from_the_state_it_is_in(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    refused(
        ledger
            .change_run(moves(&run, RunState::Staging, RunState::Admitting))
            .await,
    );
    let started = moves(&run, RunState::Queued, RunState::Staging);
    ledger.change_run(started.clone()).await.unwrap();
    refused(ledger.change_run(started).await);
    let record = ledger.run(&run).await.unwrap().unwrap();
    assert_eq!(record.state, RunState::Staging);
    assert_eq!(record.started_at, Some(minute(1)));
    assert_eq!(record.finished_at, None);
}

async fn a_run_keeps_what_a_later_move_does_not_bring(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    let funnel = Funnel {
        audience: 3,
        duplicate: 1,
        planned: 2,
        ..Funnel::default()
    };
    let tally = Tally {
        delivered: 2,
        ..Tally::default()
    };
    let steps = [
        RunChange {
            funnel: Some(funnel),
            error: Some("a note".to_owned()),
            ..moves(&run, RunState::Queued, RunState::Sending)
        },
        RunChange {
            tally: Some(tally),
            asked: Some(Duration::from_micros(1_234)),
            ..moves(&run, RunState::Sending, RunState::Sending)
        },
        RunChange {
            at: minute(7),
            ..moves(&run, RunState::Sending, RunState::Finished)
        },
    ];
    for step in steps {
        ledger.change_run(step).await.unwrap();
    }
    let record = ledger.run(&run).await.unwrap().unwrap();
    assert_eq!((record.funnel, record.tally), (Some(funnel), Some(tally)));
    assert_eq!(record.asked, Some(Duration::from_micros(1_234)));
    assert_eq!(record.error.as_deref(), Some("a note"));
    assert_eq!(record.started_at, Some(minute(1)));
    assert_eq!(record.finished_at, Some(minute(7)));
    assert_eq!(ledger.open_runs().await.unwrap(), []);
}

async fn a_run_that_is_taken_up_again_has_not_finished(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    for (from, to) in [
        (RunState::Queued, RunState::Held),
        (RunState::Held, RunState::Staging),
    ] {
        ledger.change_run(moves(&run, from, to)).await.unwrap();
    }
    let record = ledger.run(&run).await.unwrap().unwrap();
    assert_eq!(record.finished_at, None);
    assert_eq!(ledger.open_runs().await.unwrap(), [record]);
}

async fn an_attempt_begins_once(ledger: &dyn Ledger) {
    refused(ledger.begin_attempt(attempt("1", 2)).await);
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    refused(ledger.begin_attempt(attempt("1", 1)).await);
    refused(ledger.begin_attempt(attempt("1", 2)).await);
    let batch = only_batch(ledger).await;
    assert_eq!((batch.state, batch.attempts), (BatchState::Sending, 1));
    assert_eq!((batch.members, batch.body_hash), (500, [7; 32]));
    assert_eq!(batch.first_sending_at, minute(1));
    assert!(!batch.was_ambiguous && !batch.settled);
}

async fn a_later_attempt_follows_the_one_before_it(ledger: &dyn Ledger) {
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let waiting = BatchChange {
        next_at: Some(minute(31)),
        http_status: Some(503),
        error: Some("asked to wait".to_owned()),
        ..ends("1", 1, BatchState::Waiting)
    };
    ledger.change_batch(waiting).await.unwrap();
    assert_eq!(only_batch(ledger).await.next_at, Some(minute(31)));
    refused(ledger.begin_attempt(attempt("1", 3)).await);
    let mut next_generation = attempt("1", 2);
    next_generation.generation = 1;
    refused(ledger.begin_attempt(next_generation).await);
    ledger.begin_attempt(attempt("1", 2)).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!((batch.state, batch.attempts), (BatchState::Sending, 2));
    assert_eq!(batch.first_sending_at, minute(1));
    assert_eq!((batch.next_at, batch.http_status), (None, Some(503)));
}

async fn a_later_attempt_must_bring_the_same_body(ledger: &dyn Ledger) {
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let waiting = ends("1", 1, BatchState::Waiting);
    ledger.change_batch(waiting).await.unwrap();
    let changed = AttemptBegun {
        body_hash: [8; 32],
        ..attempt("1", 2)
    };
    let error = ledger.begin_attempt(changed).await.unwrap_err();
    let expect = LedgerError::BodyChanged {
        run: some_run(),
        path: BatchPath::whole(1),
    };
    assert_eq!(error, expect);
    assert_eq!(only_batch(ledger).await.state, BatchState::Waiting);
}

async fn a_batch_moves_only_from_the_state_and_attempt_it_is_at(ledger: &dyn Ledger) {
    refused(
        ledger
            .change_batch(ends("1", 1, BatchState::Accepted))
            .await,
    );
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    refused(
        ledger
            .change_batch(ends("1", 2, BatchState::Accepted))
            .await,
    );
    let accepted = ends("1", 1, BatchState::Accepted);
    ledger.change_batch(accepted.clone()).await.unwrap();
    refused(ledger.change_batch(accepted).await);
    refused(ledger.change_batch(ends("1", 1, BatchState::Waiting)).await);
    assert_eq!(only_batch(ledger).await.state, BatchState::Accepted);
}

async fn an_ambiguity_is_never_cleared(ledger: &dyn Ledger) {
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    for (n, to) in [
        (1, BatchState::Ambiguous),
        (2, BatchState::Waiting),
        (3, BatchState::Refused),
    ] {
        if n > 1 {
            ledger.begin_attempt(attempt("1", n)).await.unwrap();
        }
        ledger.change_batch(ends("1", n, to)).await.unwrap();
        let batch = only_batch(ledger).await;
        assert!(batch.was_ambiguous, "after {to:?}");
        assert_eq!(batch.state, to);
    }
}

fn reopened(from: RunState, to: RunState, reopening: Reopening) -> Reopen {
    Reopen {
        run: some_run(),
        campaign: campaign(),
        from,
        to,
        reopening,
        error: None,
        at: minute(40),
    }
}

/// A run that has ended incomplete.
async fn incomplete(ledger: &dyn Ledger) -> RunId {
    let run = queued(ledger, minute(0)).await;
    let ended = moves(&run, RunState::Queued, RunState::Incomplete);
    ledger.change_run(ended).await.unwrap();
    run
}

async fn an_ended_run_is_opened_again_once_and_beside_no_other(ledger: &dyn Ledger) {
    let run = incomplete(ledger).await;
    ledger.cancel(&run, "me", minute(2)).await.unwrap();
    let resume = reopened(RunState::Incomplete, RunState::Sending, Reopening::Resume);
    let other = queued(ledger, minute(5)).await;
    refused(ledger.reopen(resume.clone()).await);
    let ended = moves(&other, RunState::Queued, RunState::Incomplete);
    ledger.change_run(ended).await.unwrap();
    ledger.reopen(resume.clone()).await.unwrap();
    refused(ledger.reopen(resume).await);
    let record = ledger.run(&run).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.finished_at),
        (RunState::Sending, None)
    );
    assert!(!ledger.is_cancelled(&run).await.unwrap());
    assert_eq!(ledger.open_runs().await.unwrap(), [record]);
    let reopening = ledger.reopening(&run).await.unwrap();
    assert_eq!(reopening, Some(Reopening::Resume));
    refused(ledger.apply_reopening(&run, 7, minute(41)).await);
    for _ in 0..2 {
        ledger.apply_reopening(&run, 0, minute(41)).await.unwrap();
        assert_eq!(ledger.reopening(&run).await.unwrap(), None);
    }
}

async fn a_resumed_run_sends_what_failed_under_the_same_id(ledger: &dyn Ledger) {
    let run = incomplete(ledger).await;
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let failed = ends("1", 1, BatchState::Refused);
    ledger.change_batch(failed).await.unwrap();
    let resume = reopened(RunState::Incomplete, RunState::Sending, Reopening::Resume);
    ledger.reopen(resume).await.unwrap();
    ledger.apply_reopening(&run, 0, minute(41)).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!((batch.state, batch.status), (BatchState::Waiting, None));
    assert_eq!((batch.generation, batch.attempts), (0, 1));
    assert_eq!(batch.first_sending_at, minute(1));
    // The time until now was not the destination's.
    assert_eq!(batch.excused.as_secs(), 40 * 60);
    let other_body = AttemptBegun {
        body_hash: [8; 32],
        ..attempt("1", 2)
    };
    assert!(ledger.begin_attempt(other_body).await.is_err());
    ledger.begin_attempt(attempt("1", 2)).await.unwrap();
}

async fn what_a_person_says_was_not_delivered_is_sent_under_the_next_generation(
    ledger: &dyn Ledger,
) {
    let run = incomplete(ledger).await;
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    let parked = ends("1", 1, BatchState::Parked);
    ledger.change_batch(parked).await.unwrap();
    let settled = vec![(BatchPath::whole(1), BatchStatus::Unknown)];
    ledger.mark_settled(&run, 0, settled).await.unwrap();
    let no = Resolution {
        path: BatchPath::whole(1),
        delivered: false,
    };
    let resolve = Reopening::Resolve(no);
    let resolve = reopened(RunState::Incomplete, RunState::Settling, resolve);
    ledger.reopen(resolve).await.unwrap();
    ledger.apply_reopening(&run, 0, minute(41)).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!(batch.status, Some(BatchStatus::Failed));
    assert_eq!(batch.generation, 0, "what failed is what was sent");
    assert_eq!(ledger.unsettled(&run, 9).await.unwrap(), [batch]);
    let ended = moves(&run, RunState::Settling, RunState::Incomplete);
    ledger.change_run(ended).await.unwrap();
    let resume = reopened(RunState::Incomplete, RunState::Sending, Reopening::Resume);
    ledger.reopen(resume).await.unwrap();
    ledger.apply_reopening(&run, 0, minute(42)).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!((batch.state, batch.generation), (BatchState::Waiting, 1));
    assert_eq!(batch.first_sending_at, minute(42));
    assert!(!batch.was_ambiguous);
    let anew = AttemptBegun {
        generation: 1,
        body_hash: [8; 32],
        ..attempt("1", 2)
    };
    ledger.begin_attempt(anew).await.unwrap();
    assert_eq!(only_batch(ledger).await.body_hash, [8; 32]);
}

async fn only_a_parked_batch_is_resolved(ledger: &dyn Ledger) {
    let run = queued(ledger, minute(0)).await;
    let yes = Resolution {
        path: BatchPath::whole(1),
        delivered: true,
    };
    refused(ledger.resolve(&run, &yes, minute(40)).await);
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    refused(ledger.resolve(&run, &yes, minute(40)).await);
    let parked = ends("1", 1, BatchState::Parked);
    ledger.change_batch(parked).await.unwrap();
    ledger.resolve(&run, &yes, minute(40)).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!(batch.status, Some(BatchStatus::Delivered));
    assert_eq!(batch.error, None);
    refused(ledger.resolve(&run, &yes, minute(41)).await);
}

async fn an_ended_batch_has_its_outcome(ledger: &dyn Ledger) {
    ledger.begin_attempt(attempt("1", 1)).await.unwrap();
    assert_eq!(only_batch(ledger).await.outcome(&some_run()), None);
    let waiting = BatchChange {
        error: Some("no connection".to_owned()),
        ..ends("1", 1, BatchState::Waiting)
    };
    ledger.change_batch(waiting).await.unwrap();
    ledger.begin_attempt(attempt("1", 2)).await.unwrap();
    let accepted = BatchChange {
        http_status: Some(202),
        ..ends("1", 2, BatchState::Accepted)
    };
    ledger.change_batch(accepted).await.unwrap();
    let batch = only_batch(ledger).await;
    assert_eq!(batch.ended_at, Some(minute(30)));
    let outcome = batch.outcome(&some_run()).unwrap();
    assert_eq!(outcome.status, BatchStatus::Delivered);
    assert_eq!((outcome.attempts, outcome.http_status), (2, Some(202)));
    assert_eq!(outcome.first_attempt_at, Some(minute(1)));
    assert_eq!(outcome.error, None);
}

async fn ended_batches_are_unsettled_until_marked(ledger: &dyn Ledger) {
    use BatchState::{Accepted, Ambiguous, Parked, Refused, Sending, Split, Waiting};
    use BatchStatus::{Delivered, Failed, Unknown};
    let states = [
        Accepted, Refused, Parked, Waiting, Ambiguous, Split, Sending,
    ];
    for (n, to) in (1..).zip(states) {
        let path = format!("{n}");
        ledger.begin_attempt(attempt(&path, 1)).await.unwrap();
        if to != Sending {
            ledger.change_batch(ends(&path, 1, to)).await.unwrap();
        }
    }
    let paths = |batches: Vec<BatchRecord>| -> Vec<String> {
        batches.iter().map(|b| b.path.to_string()).collect()
    };
    let run = some_run();
    assert_eq!(
        paths(ledger.unsettled(&run, 9).await.unwrap()),
        ["1", "2", "3"]
    );
    assert_eq!(paths(ledger.unsettled(&run, 2).await.unwrap()), ["1", "2"]);
    // Another outcome than the warehouse was told stays to be settled.
    let marked = [
        ("1", Delivered),
        ("2", Unknown),
        ("3", Unknown),
        ("4", Delivered),
        ("77", Failed),
    ];
    let marked = marked.map(|(path, status)| (path.parse().unwrap(), status));
    ledger.mark_settled(&run, 0, marked.to_vec()).await.unwrap();
    assert_eq!(paths(ledger.unsettled(&run, 9).await.unwrap()), ["2"]);
    let batches = ledger.batches(&run).await.unwrap();
    let settled = batches.into_iter().filter(|batch| batch.settled).collect();
    assert_eq!(paths(settled), ["1", "3"]);
    // A person settles the parked one: the warehouse is to hear of it.
    let resolved = BatchChange {
        from: Parked,
        ..ends("3", 1, Accepted)
    };
    ledger.change_batch(resolved).await.unwrap();
    assert_eq!(paths(ledger.unsettled(&run, 9).await.unwrap()), ["2", "3"]);
    let other = RunId::scheduled(&campaign(), minute(1));
    assert_eq!(ledger.unsettled(&other, 9).await.unwrap(), []);
}

async fn parts_of_a_batch_are_batches_of_their_own(ledger: &dyn Ledger) {
    for path in ["10", "3.01", "3", "3.0", "3.1"] {
        ledger.begin_attempt(attempt(path, 1)).await.unwrap();
    }
    let accepted = ends("3.01", 1, BatchState::Accepted);
    ledger.change_batch(accepted).await.unwrap();
    let batches = ledger.batches(&some_run()).await.unwrap();
    let paths: Vec<String> = batches.iter().map(|b| b.path.to_string()).collect();
    assert_eq!(paths, ["3", "3.0", "3.01", "3.1", "10"]);
    let unsettled = ledger.unsettled(&some_run(), 9).await.unwrap();
    assert_eq!(unsettled, [batches[2].clone()]);
    let path = "3.01".parse().unwrap();
    ledger
        .mark_settled(&some_run(), 0, vec![(path, BatchStatus::Delivered)])
        .await
        .unwrap();
    assert_eq!(ledger.unsettled(&some_run(), 9).await.unwrap(), []);
}

async fn a_refused_write_does_not_undo_its_neighbours(ledger: &dyn Ledger) {
    // Each batch is begun twice, all at once: one of each pair is refused.
    let attempts = (0..600).map(|n| ledger.begin_attempt(attempt(&format!("{}", n / 2), 1)));
    let answers = join_all(attempts).await;
    for pair in answers.chunks(2) {
        assert_eq!(pair.iter().filter(|answer| answer.is_ok()).count(), 1);
    }
    assert_eq!(ledger.batches(&some_run()).await.unwrap().len(), 300);
}
