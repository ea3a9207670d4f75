//! The daemon killed at random moments under load, over and over: nothing is
//! lost, and with a receiver that deduplicates nobody is contacted twice.
//!
//! `KILLS` sets how often it is killed and `SEED` when; both are printed.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![expect(clippy::print_stdout, reason = "the soak's table is what it is for")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::gate::{Act, Cut};
use support::night::{self, change_settings, furnish, number};
use support::receiver::{Answer, Recorded};
use support::site::Site;

const KILLS: u64 = 20;
const SEED: u64 = 20_261_122;

/// What a receiver does with a request, drawn from the seed and the request's
/// number alone, so that it can be said again afterwards.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Taken,
    TakenAndLost(Loss),
    LeftWithoutEffect(u16),
}

#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Unavailable,
    Reset,
    Closed,
    Hang,
}

impl Fate {
    fn of(seed: u64, number: usize) -> Self {
        match draw(seed ^ (number as u64) << 20) % 100 {
            0..3 => Self::TakenAndLost(Loss::Unavailable),
            3..6 => Self::TakenAndLost(Loss::Reset),
            6..8 => Self::TakenAndLost(Loss::Closed),
            8..9 => Self::TakenAndLost(Loss::Hang),
            9..13 => Self::LeftWithoutEffect(429),
            13..16 => Self::LeftWithoutEffect(500),
            _ => Self::Taken,
        }
    }

    fn answer(self) -> Answer {
        match self {
            Self::Taken => Answer::status(200).after(Duration::from_millis(25)),
            Self::TakenAndLost(Loss::Unavailable) => Answer::status(503),
            Self::TakenAndLost(Loss::Reset) => Answer::reset(),
            Self::TakenAndLost(Loss::Closed) => Answer::half_a_status_line(),
            Self::TakenAndLost(Loss::Hang) => Answer::hang(),
            Self::LeftWithoutEffect(status) => Answer::status(status),
        }
    }

    fn has_effect(self) -> bool {
        !matches!(self, Self::LeftWithoutEffect(_))
    }
}

/// SplitMix64: small, and the same everywhere.
fn draw(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a soak is told from outside how long it lasts"
)]
fn from_environment(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().unwrap())
}

/// Members that took effect twice at a receiver that knows every `webhook-id`
/// again.
fn doubles(requests: &[Recorded], seed: u64) -> usize {
    let mut known = BTreeSet::new();
    let mut effects: BTreeMap<(String, String), u32> = BTreeMap::new();
    for request in requests {
        if !Fate::of(seed, request.number).has_effect() || !known.insert(request.id().to_owned()) {
            continue;
        }
        let run = request.json()["data"]["run_id"].to_string();
        for member in request.members() {
            let member = (run.clone(), member["profile_id"].to_string());
            *effects.entry(member).or_default() += 1;
        }
    }
    effects.values().filter(|times| **times > 1).count()
}

/// Kills a daemon: every third while it starts, the others under load.
async fn start_and_kill(site: &Site, moment: u64) {
    let before = site.receiver.count();
    let daemon = site.serve();
    if !moment.is_multiple_of(3) {
        let more = usize::try_from(moment % 29).unwrap();
        site.receiver.wait_for(before + more).await;
    }
    tokio::time::sleep(Duration::from_micros(moment % 300_000)).await;
    night::kill(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_random_moments_loses_nothing_and_contacts_nobody_twice() {
    let site = Site::new("crash").await;
    kill_over_and_over(&site, from_environment("KILLS", KILLS)).await;
    let left = site
        .sql("select tablename from pg_tables where schemaname = 'campaignd' and tablename ~ '^(stage|admit|run)_'")
        .await;
    assert_eq!(left, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_the_warehouse_is_a_file() {
    kill_over_and_over(&Site::sqlite().await, KILLS / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_the_warehouse_is_redshift() {
    kill_over_and_over(&Site::on_redshift("redshift_crash").await, KILLS / 2).await;
}

/// Commits are slow, and of ten one is lost on the way back, one on the way
/// there, and one refused.
async fn kill_while_commits_fail(site: &Site) {
    site.gate().slow_commits(Duration::from_millis(150));
    site.gate().rule(|passing| match passing.number % 10 {
        3 if passing.step == "commit" => Act::CutAfter(Cut::Close),
        6 if passing.step == "commit" => Act::CutBefore(Cut::Reset),
        9 if passing.step == "commit" => Act::error_1023(),
        _ => Act::Pass,
    });
    kill_over_and_over(site, KILLS / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_the_warehouse_commits_slowly_and_loses_replies() {
    kill_while_commits_fail(&Site::behind_gate("slow_crash").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_redshift_commits_slowly_and_loses_replies() {
    kill_while_commits_fail(&Site::on_redshift("slow_redshift").await).await;
}

async fn kill_over_and_over(site: &Site, kills: u64) {
    let seed = from_environment("SEED", SEED);
    println!("SEED={seed} KILLS={kills}");
    furnish(site, 600, "*/2 * * * * *").await;
    change_settings(site, "timeout: 2s", "timeout: 500ms\n    max_in_flight: 4");
    change_settings(site, "max: 1s", "max: 200ms");
    site.receiver
        .rule(move |request| Fate::of(seed, request.number).answer());
    for kill in 0..kills {
        start_and_kill(site, draw(seed.wrapping_add(kill))).await;
    }
    night::finish(site).await;

    let requests = site.receiver.requests();
    let ids: BTreeSet<_> = requests.iter().map(Recorded::id).collect();
    let doubles = doubles(&requests, seed);
    let planned = number(site, "select sum(planned) from campaignd.runs").await;
    let rows = "select count(*) from campaignd.contact_history";
    let lost = planned.abs_diff(number(site, rows).await);
    let parked = "select count(*) from campaignd.deliveries where status = 'unknown'";
    let parked = number(site, parked).await;
    let runs = "select count(*) from campaignd.runs where planned > 0";
    let runs = number(site, runs).await;
    println!(
        "runs {runs}, kills {kills}, requests {}, resends {}, parked {parked}, doubles {doubles}, lost {lost}",
        requests.len(),
        requests.len() - ids.len(),
    );
    assert_eq!((doubles, lost, parked), (0, 0, 0), "SEED={seed}");
    assert!(runs > 1 && requests.len() > ids.len(), "SEED={seed}");
}
