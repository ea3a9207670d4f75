//! How fast the built program sends: not faster than a destination takes, and
//! none the slower for another that hangs.

use crate::support;

use std::time::Duration;
use support::night::{self, NEVER, change_settings, furnish, ledger, number, start_run};
use support::oracle;
use support::receiver::{Answer, Receiver, Recorded};
use support::site::{SIGNING_SECRET, Site};

const PEOPLE: u32 = 280;

/// A quiet minute's campaigns, seven members a batch: forty batches.
async fn site(name: &str) -> Site {
    let site = Site::new(name).await;
    furnish(&site, PEOPLE, NEVER).await;
    site
}

async fn members(site: &Site, status: &str) -> u64 {
    let sql = format!("select count(*) from campaignd.contact_history where status = '{status}'");
    number(site, &sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_hangs_delays_no_other() {
    let site = Site::new("one_hangs").await;
    furnish(&site, PEOPLE, "* * * * * *").await;
    let hanging = Receiver::start().await;
    hanging.rule(|_| Answer::hang());
    let other = format!(
        "destinations:\n  other: {{ url: '{}', signing_secrets: ['{SIGNING_SECRET}'], timeout: 2m, \
         max_in_flight: 8, dedupe_window: 1h, allow_http: true, allow_private_network: true }}\n",
        hanging.url()
    );
    change_settings(&site, "destinations:\n", &other);
    // As many as the hanging one begins with, and one more.
    change_settings(
        &site,
        "log:",
        "limits: { max_in_flight: 3 }\nshutdown_grace: 1s\nlog:",
    );
    let stuck = night::campaign("* * * * * *", 7)
        .replace("name: hello", "name: stuck")
        .replace("sink", "other");
    site.write("campaigns/stuck.yaml", &stuck);
    let mut daemon = site.serve();
    hanging.wait_for(2).await;
    for n in 1..=2 {
        let finished = format!(
            "select 1 from campaignd.runs where campaign = 'hello' and status = 'finished'
             having count(*) >= {n}"
        );
        site.wait_for_row(&finished).await;
    }
    assert_eq!(hanging.count(), 2, "it has had no more than it began with");
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let unsound = "select * from campaignd.runs where campaign = 'hello' and planned > 0
                   and status = 'finished' and delivered <> planned";
    assert_eq!(site.sql(unsound).await, []);
    oracle::check(&site).await;
}

/// Stuck are a campaign, whose query never ends, and a connector, whose server
/// takes connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_and_a_connector_that_are_stuck_delay_no_other() {
    let site = Site::new("stuck").await;
    furnish(&site, PEOPLE, "* * * * * *").await;
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = silent.local_addr().unwrap().port();
    let connectors = format!(
        "connectors:\n  silent: {{ kind: postgres, host: 127.0.0.1, port: {port}, database: none, \
         auth: {{ user: nobody }}, tls: disable }}\n"
    );
    change_settings(&site, "connectors:\n", &connectors);
    change_settings(
        &site,
        "log:",
        "limits: { max_runs: 4 }\nshutdown_grace: 1s\nlog:",
    );
    let urgent = "priority: 100\nconnector:";
    let endless = night::campaign("* * * * * *", 7)
        .replace("name: hello", "name: endless")
        .replace("connector:", urgent)
        .replace(
            "from people",
            "from people where pg_sleep(3600) is not null",
        );
    site.write("campaigns/endless.yaml", &endless);
    for name in ["silent-1", "silent-2"] {
        let silent = night::campaign("* * * * * *", 7)
            .replace("name: hello", &format!("name: {name}"))
            .replace("connector: warehouse", "priority: 100\nconnector: silent");
        site.write(&format!("campaigns/{name}.yaml"), &silent);
    }
    let mut daemon = site.serve();
    let asking = "select 1 from pg_stat_activity where state = 'active'
                  and query like '%freeze endless%' and pid <> pg_backend_pid()";
    site.wait_for_row(asking).await;
    let knocking = tokio::time::timeout(Duration::from_secs(30), silent.accept());
    let _knocked = knocking.await.unwrap().unwrap();
    for n in 1..=3 {
        let finished = format!(
            "select 1 from campaignd.runs where campaign = 'hello' and status = 'finished'
             having count(*) >= {n}"
        );
        site.wait_for_row(&finished).await;
    }
    assert_eq!(site.sql(asking).await.len(), 1, "it is still at it");
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let unsound = "select * from campaignd.runs where campaign = 'hello' and planned > 0
                   and status = 'finished' and delivered <> planned";
    assert_eq!(site.sql(unsound).await, []);
    oracle::check(&site).await;
}

/// The most requests whose heads arrived within any span of this length.
fn most_within(requests: &[Recorded], span: Duration) -> usize {
    let count = |first: &Recorded| {
        let within = requests
            .iter()
            .filter(|r| r.at >= first.at && r.at < first.at + span);
        within.count()
    };
    requests.iter().map(count).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_over_a_whole_run() {
    let site = site("rate_limit").await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    rate_limit: 10/s");
    let run = site.json(&["run", night::CAMPAIGN]).await;
    assert_eq!(run["status"], "finished");
    night::check(&site).await;
    let requests = site.receiver.requests();
    assert_eq!(requests.len(), 40);
    // One burst, and what the rate gives meanwhile; two for what was late.
    for seconds in [1_u8, 2] {
        let most = most_within(&requests, Duration::from_secs(seconds.into()));
        assert!(
            most <= 10 + 10 * usize::from(seconds) + 2,
            "{most} in {seconds} s"
        );
    }
    let lasted = requests[39].at.duration_since(requests[0].at).unwrap();
    assert!(lasted > Duration::from_millis(2_800), "{lasted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_at_everything_is_left_alone_and_loses_nothing() {
    let site = site("breaker").await;
    site.receiver.rule(|_| Answer::status(500));
    change_settings(&site, "max: 1s", "max: 1s, give_up_after: 20s");
    let run = start_run(&site);
    site.wait_for_log("fails at nearly everything", 1).await;
    // What was on the wire when it opened.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = site.receiver.count();
    assert!((10..=18).contains(&before), "{before}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(site.receiver.count(), before, "it is left alone");
    site.receiver.rule(|_| Answer::status(200));
    // Half a minute of rest, which is longer than batches are tried for.
    night::wait_until_nothing_is_open(&site).await;
    drop(run);
    site.wait_for_log("answers again", 1).await;
    night::check(&site).await;
    assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE));
    let parked = "select * from batches_now where state <> 'accepted'";
    assert_eq!(ledger(&site, parked).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_four_at_a_time_is_asked_for_little_more() {
    let site = site("defers").await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 32");
    let busy = std::sync::Arc::new(std::sync::Mutex::new(Vec::<std::time::SystemTime>::new()));
    let each = Duration::from_millis(50);
    site.receiver.rule(move |request| {
        let mut busy = busy.lock().unwrap();
        busy.retain(|since| *since + each > request.at);
        if busy.len() >= 4 {
            return Answer::status(429);
        }
        busy.push(request.at);
        Answer::status(200).after(each)
    });
    let run = site.json(&["run", night::CAMPAIGN]).await;
    assert_eq!(run["status"], "finished");
    night::check(&site).await;
    assert_eq!(members(&site, "delivered").await, u64::from(PEOPLE));
    let refused = site.receiver.requests();
    let refused = refused.iter().filter(|r| r.answered == 429).count();
    assert!(refused < 40, "{refused} of its answers were 429");
}
