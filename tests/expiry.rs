//! What is not sent in time is not sent at all, with the built program.

use crate::support;

use campaignd::run::{Clock as _, SystemClock};
use jiff::SignedDuration;
use support::night::{CAMPAIGN, NEVER, campaign, furnish, ledger, number, text};
use support::site::Site;

/// A send window that is closed now, and for a while.
fn closed_window() -> String {
    let hour = |hours| {
        let at = SystemClock.now() + SignedDuration::from_hours(hours);
        at.strftime("%H:%M").to_string()
    };
    format!("send_window: {{ from: '{}', to: '{}' }}", hour(2), hour(3))
}

fn expiring(cron: &str, terms: &str, after: &str) -> String {
    campaign(cron, 7)
        .replace("timezone: UTC", &format!("timezone: UTC{terms}"))
        .replace(
            "batch_size: 7",
            &format!("batch_size: 7, expires_after: {after}"),
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_send_window_ends_when_it_expires_and_the_next_follows() {
    let site = Site::sqlite().await;
    furnish(&site, 10, NEVER).await;
    let terms = format!(", {}", closed_window());
    site.write(
        "campaigns/hello.yaml",
        &expiring("* * * * * *", &terms, "1s"),
    );
    let mut daemon = site.serve();
    let expired = "select count(*) as n from campaignd.runs
                   where status = 'cancelled' and error = 'expired' having count(*) >= 2";
    site.wait_for_row(expired).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert_eq!(site.receiver.count(), 0);
    let told = ledger(&site, "select error from runs where state = 'cancelled'").await;
    assert!(
        told.iter().all(|run| text(run, "error") == "expired"),
        "{told:?}"
    );

    // By hand and without a daemon it is the same.
    let late = ["run", CAMPAIGN, "--fire-time", "2026-01-02T03:04:05Z"];
    let open = ledger(&site, "select run_id from runs where is_open = 1").await;
    for run in open {
        site.campaignd(&["cancel", text(&run, "run_id")]).await;
    }
    let output = site.campaignd(&late).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let by_hand = "select * from campaignd.runs where trigger = 'manual' and error = 'expired'";
    assert_eq!(site.sql(by_hand).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_run_ends_when_it_expires_and_history_says_why() {
    let site = Site::sqlite().await;
    furnish(&site, 30, NEVER).await;
    site.write("campaigns/hello.yaml", &expiring(NEVER, "", "1h"));
    let output = site.campaignd(&["run", CAMPAIGN, "--canary", "10"]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    // As if it had been held for two hours.
    let back = 2 * 3_600 * 1_000_000_u64;
    ledger(
        &site,
        &format!("update runs set fire_time = fire_time - {back}"),
    )
    .await;
    let mut daemon = site.serve();
    let ended = "select * from campaignd.runs where status = 'incomplete'";
    let row = site.wait_for_row(ended).await.remove(0);
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert_eq!(text(&row, "error"), "expired");
    assert_eq!(
        [text(&row, "delivered"), text(&row, "cancelled")],
        ["10", "20"]
    );
    let of_members = "select count(*) from campaignd.contact_history
                      where status = 'cancelled' and reason = 'expired'";
    assert_eq!(number(&site, of_members).await, 20);
    let shown = site.json(&["runs", "show", text(&row, "run_id")]).await;
    assert_eq!(shown["error"], "expired");
    assert_eq!(site.sql("select * from campaignd.open_runs").await, []);
}
