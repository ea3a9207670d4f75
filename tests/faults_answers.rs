//! What a receiver can answer, met by the program itself: answers without
//! end, odd `Retry-After`s, answers that stop a destination, and certificates
//! that are not good. Faults 12, 13, 14 and 33.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use support::night::{self, NEVER, change_settings, furnish, ledger, number, start_run, text};
use support::receiver::{Answer, Receiver, Recorded};
use support::site::{Daemon, Site};
use support::tls::{Authority, Pair, TlsFront, self_signed};

const PEOPLE: u32 = 28;
/// Of seven members each.
const BATCHES: usize = 4;
/// What a daemon may hold of memory at its peak, in KiB, itself included.
const MOST_MEMORY: u64 = 64 * 1024;

async fn site() -> Site {
    let site = Site::sqlite().await;
    furnish(&site, PEOPLE, NEVER).await;
    site
}

fn batch(request: &Recorded) -> u64 {
    request.json()["data"]["batch"].as_u64().unwrap()
}

/// Batch 2 meets `fault` once; all else is taken.
fn break_once(site: &Site, fault: Answer) {
    let left = AtomicBool::new(true);
    site.receiver.rule(move |request| {
        match batch(request) == 2 && left.swap(false, Ordering::SeqCst) {
            true => fault.clone(),
            false => Answer::status(200),
        }
    });
}

/// The most memory the process has had, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

async fn members(site: &Site, status: &str) -> u64 {
    let sql = format!("select count(*) from campaignd.contact_history where status = '{status}'");
    number(site, &sql).await
}

async fn all_were_delivered(site: &Site) {
    night::check(site).await;
    assert_eq!(members(site, "delivered").await, u64::from(PEOPLE));
}

/// The daemon meets `fault` once, in bounded memory, and carries the run to
/// its end.
async fn survives(fault: Answer) -> Site {
    let site = site().await;
    break_once(&site, fault);
    let cron = night::campaign("*/2 * * * * *", 7).replace(
        "connector:",
        "policy: { frequency_cap: [ { contacts: 1, within: 1d } ] }\nconnector:",
    );
    site.write("campaigns/hello.yaml", &cron);
    let mut daemon = site.serve();
    let all = "select 1 from campaignd.runs where delivered = 28 and status = 'finished'";
    site.wait_for_row(all).await;
    let peak = peak(&daemon);
    assert!(peak < MOST_MEMORY, "{peak} KiB");
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::finish(&site).await;
    all_were_delivered(&site).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_one_byte_a_second_is_cut_off_by_the_time_out_and_sent_again() {
    let site = survives(Answer::dribble(Duration::from_secs(1))).await;
    assert_eq!(site.receiver.count(), BATCHES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered_is_sent_again_after_the_time_out() {
    let site = survives(Answer::hang()).await;
    assert_eq!(site.receiver.count(), BATCHES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_gibibyte_counts_by_its_status_and_is_not_read() {
    let site = survives(Answer::huge_body(1 << 30)).await;
    assert_eq!(site.receiver.count(), BATCHES);
    let taken = site.receiver.sent();
    assert!(taken < 64 << 20, "{taken} bytes were taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_no_answer_and_are_not_kept() {
    let site = survives(Answer::endless_headers()).await;
    assert_eq!(site.receiver.count(), BATCHES + 1);
    let taken = site.receiver.sent();
    assert!(taken < 64 << 20, "{taken} bytes were taken");
}

/// A list of refused members without end is read no further than its bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_of_refused_members_is_not_read_either() {
    let site = site().await;
    let listing = "activation: { destination: sink, rejected_at: /rejected, batch_size: 7 }";
    let campaign = night::campaign(NEVER, 7);
    let line = campaign
        .lines()
        .find(|line| line.starts_with("activation:"));
    site.write(
        "campaigns/hello.yaml",
        &campaign.replace(line.unwrap(), listing),
    );
    break_once(&site, Answer::huge_body(1 << 30));
    let run = site.json(&["run", night::CAMPAIGN]).await;
    assert_eq!(run["status"], "finished", "{run}");
    all_were_delivered(&site).await;
    assert!(site.receiver.sent() < 64 << 20);
}

fn again_later(retry_after: &str) -> Answer {
    Answer::reply(429, &[("retry-after", retry_after)], "")
}

/// When batch 2 arrived, each time.
fn arrivals(site: &Site) -> Vec<SystemTime> {
    let requests = site.receiver.requests();
    let of_it = requests.iter().filter(|request| batch(request) == 2);
    of_it.map(|request| request.at).collect()
}

const WARNING: &str = "`Retry-After` that is neither seconds nor an HTTP date";

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_in_seconds_is_waited() {
    let site = site().await;
    break_once(&site, again_later("2"));
    let mut run = start_run(&site);
    assert_eq!(run.ended().await, Some(0), "{}", site.log());
    all_were_delivered(&site).await;
    let [first, second] = arrivals(&site).try_into().unwrap();
    assert!(second.duration_since(first).unwrap() >= Duration::from_secs(2));
    assert!(!site.log().contains(WARNING));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_until_a_date_is_waited() {
    let site = site().await;
    let until = jiff::Timestamp::try_from(now() + Duration::from_secs(4)).unwrap();
    let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    break_once(&site, again_later(&date));
    let mut run = start_run(&site);
    assert_eq!(run.ended().await, Some(0), "{}", site.log());
    all_were_delivered(&site).await;
    let [_, second] = arrivals(&site).try_into().unwrap();
    let whole = jiff::Timestamp::from_second(until.as_second()).unwrap();
    assert!(jiff::Timestamp::try_from(second).unwrap() >= whole);
    assert!(!site.log().contains(WARNING));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_says_nothing_is_ignored_with_one_warning_that_repeats_no_word_of_it() {
    for odd in [
        "-3600",
        "canary-word",
        "Sun, 99 Foo 2026",
        "gr\u{fc}n",
        "1e9",
    ] {
        let site = site().await;
        let odd_answer = again_later(odd);
        let seen = std::sync::Mutex::new(BTreeMap::<u64, u32>::new());
        site.receiver.rule(move |request| {
            let mut seen = seen.lock().unwrap();
            let times = seen.entry(batch(request)).or_default();
            *times += 1;
            match *times {
                1 => odd_answer.clone(),
                _ => Answer::status(200),
            }
        });
        let mut run = start_run(&site);
        assert_eq!(run.ended().await, Some(0), "{}", site.log());
        all_were_delivered(&site).await;
        let log = site.log();
        assert_eq!(log.matches(WARNING).count(), 1, "{odd}: {log}");
        let warning = log.lines().find(|line| line.contains(WARNING)).unwrap();
        assert!(warning.contains("WARN"), "{warning}");
        assert!(!log.contains("canary-word"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_ten_years_is_an_hour() {
    for long in ["315360000", "Sat, 22 Nov 2036 14:00:00 GMT"] {
        let site = site().await;
        break_once(&site, again_later(long));
        let run = start_run(&site);
        site.receiver.wait_for(BATCHES).await;
        let waiting = "select cast((next_at - first_sending_at) / 1000000 as text) as seconds
            from batches_now where state = 'waiting'";
        let mut rows = Vec::new();
        for _ in 0..200 {
            rows = ledger(&site, waiting).await;
            if !rows.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seconds: u64 = text(&rows[0], "seconds").parse().unwrap();
        // Some more than the hour, so that not all come back at once.
        assert!((3_600..=4_500).contains(&seconds), "{seconds}");
        night::kill(run).await;
        support::oracle::check(&site).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the receiver's clock is the test's"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_gone_stays_paused_after_a_restart_until_it_is_resumed() {
    let site = site().await;
    break_once(&site, Answer::status(410));
    let mut run = start_run(&site);
    assert_eq!(run.ended().await, Some(4), "{}", site.log());
    let paused = "select * from pauses";
    assert_eq!(ledger(&site, paused).await.len(), 1, "{}", site.log());
    support::oracle::check(&site).await;
    let before = site.receiver.count();

    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let list = site.json(&["destination", "list"]).await;
    assert_eq!(list[0]["state"], "paused", "{list}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        site.receiver.count(),
        before,
        "nothing leaves while it is paused"
    );

    site.json(&["destination", "resume", "sink"]).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    resumed(&site).await;
}

async fn held_by(site: &Site) -> String {
    let output = site.campaignd(&["run", night::CAMPAIGN]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    support::oracle::check(site).await;
    let runs = site.sql("select * from campaignd.runs").await;
    assert_eq!(text(&runs[0], "status"), "held");
    text(&runs[0], "error").to_owned()
}

/// Carries the held run on.
async fn resumed(site: &Site) {
    site.receiver.rule(|_| Answer::status(200));
    let runs = site.sql("select * from campaignd.runs").await;
    let output = site.campaignd(&["resume", text(&runs[0], "run_id")]).await;
    assert!(output.status.success(), "{output:?}");
    night::finish(site).await;
    all_were_delivered(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_holds_the_run_says_why_and_goes_on_when_resumed() {
    let site = site().await;
    site.receiver.rule(|_| Answer::status(401));
    let why = held_by(&site).await;
    assert!(why.contains("401") && why.contains("`auth`"), "{why}");
    let list = site.json(&["destination", "list"]).await;
    assert_eq!(list[0]["state"], "paused", "{list}");
    resumed(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_points_elsewhere_is_not_followed() {
    for status in [301, 307] {
        let (site, elsewhere) = (site().await, Receiver::start().await);
        let location = elsewhere.url();
        site.receiver
            .rule(move |_| Answer::reply(status, &[("location", &location)], ""));
        let why = held_by(&site).await;
        assert!(why.contains(&status.to_string()), "{why}");
        assert_eq!(elsewhere.connections(), 0);
        resumed(&site).await;
    }
}

/// A site whose receiver stands behind TLS and shows `own`; `authority` is
/// what it trusts beside the system's roots.
async fn behind_tls(authority: &Authority, own: &Pair) -> (Site, TlsFront) {
    let site = site().await;
    let front = TlsFront::before(site.receiver.address(), own, None).await;
    site.write("ca.pem", &authority.cert);
    let url = format!("https://localhost:{}/activate", front.port());
    change_settings(&site, &site.receiver.url(), &url);
    change_settings(
        &site,
        "timeout: 2s",
        "timeout: 2s\n    tls_ca_file: ./ca.pem",
    );
    (site, front)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_good_lets_nothing_leave_and_a_good_one_everything() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (bad, says) in [
        (authority.sign("localhost", 2020), "has expired"),
        (
            authority.sign("elsewhere.example", 4000),
            "is for another name",
        ),
        (other.sign("localhost", 4000), "signed by nobody we trust"),
        (self_signed("localhost"), "nobody we trust"),
    ] {
        let (site, front) = behind_tls(&authority, &bad).await;
        let mut run = start_run(&site);
        site.wait_for_log(says, 1).await;
        let waiting = "select batch from batches_now where state = 'waiting' and attempts >= 2";
        for _ in 0..600 {
            if !ledger(&site, waiting).await.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!ledger(&site, waiting).await.is_empty(), "{}", site.log());
        assert_eq!(site.receiver.connections(), 0, "{says}");
        let unclear = "select * from batches_now where state in ('ambiguous', 'parked')";
        assert_eq!(ledger(&site, unclear).await, []);
        run.signal("TERM").await;
        run.ended().await;
        support::oracle::check(&site).await;

        // Its owner renews it, at the same address or another.
        let good = authority.sign("localhost", 4000);
        let renewed = TlsFront::before(site.receiver.address(), &good, None).await;
        let port = |front: &TlsFront| format!("localhost:{}/", front.port());
        change_settings(&site, &port(&front), &port(&renewed));
        night::finish(&site).await;
        all_were_delivered(&site).await;
    }
}
