//! Ten thousand campaigns in one folder, a thousand of them due in the same
//! second: `cargo bench --bench folder`.
//!
//! The built daemon is started on the folder, left alone, and watched while
//! the thousand come due. Lag is measured twice: as the ledger says it
//! (`claimed_at`), and as another reader of the ledger sees it, when the claim
//! has been committed.

#[path = "../activation/process.rs"]
mod process;
#[path = "../activation/receiver.rs"]
#[expect(dead_code, reason = "the other bench keeps bodies")]
mod receiver;
mod site;

use campaignd::run::{Clock as _, SystemClock};
use jiff::{SignedDuration, Timestamp};
use receiver::Receiver;
use site::{Daemon, Ledger};
use std::time::Duration;
use tokio::time::Instant;

/// Campaign files.
const FILES: u32 = 10_000;

/// How many of them are due in one second.
const DUE: u32 = 1_000;

/// How long after the start they are due.
const DUE_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How long the daemon is watched doing nothing.
const IDLE: Duration = Duration::from_secs(10);

/// How long the runs may take to end.
const GIVE_UP: Duration = Duration::from_secs(120);

/// How often the ledger is looked at while the campaigns come due.
const LOOK_EVERY: Duration = Duration::from_millis(2);

fn main() {
    // `cargo test --benches` and `cargo nextest` call benches with these.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(bench());
}

#[expect(clippy::print_stdout, reason = "a bench prints its table")]
async fn bench() {
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let due_at = Timestamp::from_second((SystemClock.now() + DUE_AFTER).as_second());
    let due_at = due_at.expect("a time of this century");
    site::write(dir.path(), receiver.port(), (FILES, DUE), due_at).await;
    process::run(dir.path(), &["bootstrap", "warehouse", "--apply"]).await;

    let begun = Instant::now();
    let daemon = Daemon::start(dir.path()).await;
    let ready = begun.elapsed().as_secs_f64();
    let mut ledger = Ledger::open(dir.path()).await;
    while ledger.campaigns().await < FILES {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let known = begun.elapsed().as_secs_f64();
    let before = daemon.cpu();
    tokio::time::sleep(IDLE).await;
    let idle = (daemon.cpu() - before).as_secs_f64() / IDLE.as_secs_f64();
    let rss = daemon.rss_mib();
    assert!(SystemClock.now() < due_at, "too slow to be watched in time");

    let (seen, most, ended) = spike(&mut ledger, due_at).await;
    println!("{FILES} campaign files, {DUE} of them due in one second");
    println!("{:<36} {ready:>8.2}", "ready after, s");
    println!("{:<36} {known:>8.2}", "each known to the ledger after, s");
    println!("{:<36} {rss:>8.1}", "RSS idle, MiB");
    println!("{:<36} {:>8.2}", "CPU idle, % of a core", idle * 100.0);
    println!("{:<36} {:>8} {:>8} {:>8}", "lag, ms", "p50", "p99", "max");
    lags("due to claimed_at", ledger.lags(due_at).await);
    lags("due to committed, as a reader sees", seen);
    println!("{:<36} {most:>8}", "runs under way at a time, most seen");
    println!("{:<36} {ended:>8.1}", "all runs ended after, s");
    println!("{:<36} {:>8.1}", "RSS at most, MiB", daemon.peak_rss_mib());
}

/// Watches the campaigns come due until their runs have ended. Returns when
/// each was seen to be claimed, in milliseconds after `due_at`; how many runs
/// were under way at most; and after how many seconds all had ended.
async fn spike(ledger: &mut Ledger, due_at: Timestamp) -> (Vec<f64>, u32, f64) {
    let mut seen = Vec::new();
    let mut most = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let counts = ledger.counts().await;
        let after = SystemClock.now().duration_since(due_at);
        seen.resize(counts.claimed, after.as_secs_f64() * 1_000.0);
        most = most.max(counts.under_way);
        if counts.ended == DUE {
            return (seen, most, after.as_secs_f64());
        }
        let limit = SignedDuration::try_from(GIVE_UP).expect("minutes");
        assert!(after < limit, "not all runs ended: {counts:?}");
    }
}

#[expect(clippy::print_stdout, reason = "a bench prints its table")]
fn lags(what: &str, mut millis: Vec<f64>) {
    millis.sort_by(f64::total_cmp);
    let rank = |percent: usize| millis[(millis.len() * percent).div_ceil(100) - 1];
    let (p50, p99, max) = (rank(50), rank(99), rank(100));
    println!("{what:<36} {p50:>8.1} {p99:>8.1} {max:>8.1}");
}
