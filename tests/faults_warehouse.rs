//! The warehouse's faults, made on the wire before a real PostgreSQL: replies
//! lost, sessions cut, transactions refused, and the daemon killed meanwhile.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::time::Duration;
use support::gate::{Act, Cut, Passing};
use support::night::{self, NEVER, furnish, number, start_run};
use support::site::{Site, World};

const PEOPLE: u32 = 100;
/// Of seven members each.
const BATCHES: usize = 15;

/// Picks a statement.
type Wanted = fn(&Passing) -> bool;

async fn site(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    furnish(&site, PEOPLE, NEVER).await;
    site
}

/// Runs the campaign to its end in the foreground; everybody is delivered.
async fn run_whole(site: &Site) {
    let run = site.json(&["run", night::CAMPAIGN]).await;
    assert_eq!(run["status"], "finished");
    everybody_was_contacted_once(site).await;
}

async fn everybody_was_contacted_once(site: &Site) {
    night::check(site).await;
    let delivered = "select sum(delivered) from campaignd.runs";
    assert_eq!(number(site, delivered).await, u64::from(PEOPLE));
    assert_eq!(site.receiver.count(), BATCHES);
    let runs = "select count(*) from campaignd.runs";
    assert_eq!(number(site, runs).await, 1);
}

/// Whether something was refused or cut as the test wants it.
fn was_hit(site: &Site) -> bool {
    hits(site) > 0
}

fn hits(site: &Site) -> usize {
    let log = site.gate().log();
    let hits = log.iter().filter(|ended| !matches!(ended.act, Act::Pass));
    hits.count()
}

/// Applies `act` to the first statement for which `wanted` holds.
fn once(site: &Site, wanted: Wanted, act: Act) {
    let left = std::sync::atomic::AtomicBool::new(true);
    site.gate().rule(move |passing| {
        let is_it = wanted(passing) && left.swap(false, std::sync::atomic::Ordering::SeqCst);
        if is_it { act.clone() } else { Act::Pass }
    });
}

/// Every transaction a run makes, by what it has done before it commits, and
/// the steps that are a statement of their own.
fn every_commit() -> [(&'static str, Wanted); 6] {
    [
        ("register", |s| s.commits("register")),
        ("freeze", |s| s.step == "freeze"),
        // Admission writes the run's row, as settling and closing do.
        ("admit", |s| {
            s.commits("run") && s.commits("touch") && !s.commits("settle")
        }),
        ("lay out", |s| s.commits("lay")),
        ("settle", |s| s.commits("settle") && !s.commits("close")),
        ("close", |s| s.commits("close")),
    ]
}

/// RST and FIN in turn, the other one first in the other world: of the two
/// worlds each commit is cut off both ways.
fn either_cut(world: World) -> impl Iterator<Item = Cut> {
    let both = [Cut::Reset, Cut::Close];
    let first = usize::from(world == World::Redshift);
    both.into_iter().cycle().skip(first)
}

crate::in_both_worlds! {
    Gate
    a_commit_whose_reply_is_lost_is_read_again_and_not_repeated
    a_commit_that_never_arrived_is_made_again
    a_page_that_breaks_off_is_read_again_and_nobody_gets_it_twice
    a_session_that_is_shut_down_or_cancelled_at_any_step_is_taken_up_again
    every_third_commit_refused_for_a_concurrent_transaction_costs_only_time
    commits_that_queue_for_seconds_each_slow_a_run_and_break_nothing
    a_daemon_killed_between_the_answers_and_the_settle_settles_from_the_ledger
    a_daemon_killed_while_staging_leaves_one_stage_and_one_run
    a_daemon_restarted_while_its_own_freeze_still_runs_has_one_stage
}

async fn a_commit_whose_reply_is_lost_is_read_again_and_not_repeated(world: World) {
    for ((step, wanted), how) in every_commit().into_iter().zip(either_cut(world)) {
        let site = site(world, "reply_lost").await;
        once(&site, wanted, Act::CutAfter(how));
        run_whole(&site).await;
        assert!(was_hit(&site), "{step} was not hit");
    }
}

async fn a_commit_that_never_arrived_is_made_again(world: World) {
    for ((step, wanted), how) in every_commit().into_iter().zip(either_cut(world)) {
        let site = site(world, "never_arrived").await;
        once(&site, wanted, Act::CutBefore(how));
        run_whole(&site).await;
        assert!(was_hit(&site), "{step} was not hit");
    }
}

async fn a_page_that_breaks_off_is_read_again_and_nobody_gets_it_twice(world: World) {
    // The page is asked for anew after each cut: behind a row, by RST and by
    // FIN, and in the middle of one.
    let site = site(world, "mid_page").await;
    let cuts = [
        Act::CutAfterRows(40, Cut::Reset),
        Act::CutAfterRows(40, Cut::Close),
        Act::CutAfterBytes(1_001, Cut::Close),
    ];
    let left = std::sync::Mutex::new(cuts.into_iter());
    site.gate().rule(move |passing| match &*passing.step {
        "page" => left.lock().unwrap().next().unwrap_or(Act::Pass),
        _ => Act::Pass,
    });
    run_whole(&site).await;
    assert_eq!(hits(&site), 3);
}

async fn a_session_that_is_shut_down_or_cancelled_at_any_step_is_taken_up_again(world: World) {
    let acts = [Act::shut_down(), Act::cancelled()];
    let steps: [Wanted; 5] = [
        |s| s.step == "freeze",
        |s| s.step == "lay",
        |s| s.step == "page",
        |s| s.step == "settle",
        |s| s.step == "close",
    ];
    let site = site(world, "shut_down").await;
    for act in acts {
        for wanted in steps {
            once(&site, wanted, act.clone());
            let hits = hits(&site);
            let run = site.json(&["run", night::CAMPAIGN]).await;
            assert_eq!(run["status"], "finished");
            assert!(hits < self::hits(&site), "{act:?}");
        }
    }
    night::check(&site).await;
    assert_eq!(site.receiver.count(), 10 * BATCHES);
}

async fn every_third_commit_refused_for_a_concurrent_transaction_costs_only_time(world: World) {
    let site = site(world, "third_commit").await;
    site.gate().rule(|passing| match passing.number % 6 {
        0 if passing.step == "commit" => Act::conflict(),
        3 if passing.step == "commit" => Act::error_1023(),
        _ => Act::Pass,
    });
    run_whole(&site).await;
    assert!(hits(&site) >= 1);
}

async fn commits_that_queue_for_seconds_each_slow_a_run_and_break_nothing(world: World) {
    let site = site(world, "slow_commits").await;
    // Once the real five; elsewhere a second, since nothing else differs.
    let seconds = if world == World::Redshift { 5 } else { 1 };
    let commit = Duration::from_secs(seconds);
    site.gate().slow_commits(commit);
    run_whole(&site).await;
    let log = site.gate().log();
    let mut commits = log.iter().filter(|ended| ended.passing.step == "commit");
    assert!(commits.clone().count() > 3);
    assert!(commits.all(|ended| ended.time >= commit));
}

/// Kills a run while the statement is held that `wanted` says; what becomes of
/// the statement is `act`.
async fn killed_while(world: World, name: &str, wanted: Wanted, act: Act) -> Site {
    let site = site(world, name).await;
    site.gate().rule(move |passing| {
        if wanted(passing) {
            act.clone()
        } else {
            Act::Pass
        }
    });
    let run = start_run(&site);
    site.gate().wait_for(wanted).await;
    night::kill(run).await;
    site.gate()
        .wait_for_end(move |ended| wanted(&ended.passing))
        .await;
    site.gate().rule(|_| Act::Pass);
    site
}

async fn a_daemon_killed_between_the_answers_and_the_settle_settles_from_the_ledger(world: World) {
    let settles: Wanted = |s| s.commits("settle") && !s.commits("close");
    for act in [
        Act::Delay(Duration::from_secs(1)),
        Act::CutBefore(Cut::Reset),
    ] {
        let site = killed_while(world, "killed_settling", settles, act).await;
        assert_eq!(site.receiver.count(), BATCHES);
        night::finish(&site).await;
        everybody_was_contacted_once(&site).await;
    }
}

async fn a_daemon_killed_while_staging_leaves_one_stage_and_one_run(world: World) {
    // One statement where no function can write, else one transaction.
    let freezes: Wanted = match world {
        World::Redshift => |s| s.step == "freeze",
        World::Postgres | World::Gate => |s| s.commits("freeze"),
    };
    for act in [
        Act::Delay(Duration::from_secs(1)),
        Act::CutBefore(Cut::Reset),
    ] {
        let is_made = matches!(act, Act::Delay(_));
        let site = killed_while(world, "killed_staging", freezes, act).await;
        let stages = "select count(*) from pg_tables where tablename ~ '^stage_'";
        assert_eq!(number(&site, stages).await, u64::from(is_made));
        let rule = "select count(*) from campaignd.open_runs";
        assert_eq!(number(&site, rule).await, 1);
        night::finish(&site).await;
        everybody_was_contacted_once(&site).await;
    }
}

async fn a_daemon_restarted_while_its_own_freeze_still_runs_has_one_stage(world: World) {
    let site = site(world, "still_freezing").await;
    once(
        &site,
        |s| s.step == "freeze",
        Act::Delay(Duration::from_secs(3)),
    );
    let run = start_run(&site);
    site.gate().wait_for(|s| s.step == "freeze").await;
    night::kill(run).await;
    // The other session's freeze comes in the middle of this, or after it.
    night::finish(&site).await;
    everybody_was_contacted_once(&site).await;
    site.gate()
        .wait_for_end(|ended| matches!(ended.act, Act::Delay(_)))
        .await;
}
