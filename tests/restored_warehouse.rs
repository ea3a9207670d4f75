//! A warehouse that was restored to an older state: nothing is sent until a
//! person says so.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use support::oracle;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    nothing_is_sent_on_a_restored_server_until_a_person_says_so
}

const CAMPAIGN: &str = "name: hello
connector: warehouse
enabled: false
schedule: { cron: '0 9 * * *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
activation: { destination: sink, batch_size: 10 }
";

async fn nothing_is_sent_until_a_person_says_so(site: Site) {
    site.sql("create table people as select 'p-1' as profile_id, 1 as n")
        .await;
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site.json(&["run", "hello"]).await;
    site.json(&["run", "hello"]).await;
    oracle::check(&site).await;
    // As it was before the second run, which has ended since.
    for table in ["runs", "deliveries", "contact_history"] {
        let newest = format!("(select max(run_id) from campaignd.{table})");
        site.sql(&format!(
            "delete from campaignd.{table} where run_id = {newest}"
        ))
        .await;
    }
    let refused = site.campaignd(&["run", "hello"]).await;
    assert_eq!(refused.status.code(), Some(4));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("campaignd connector accept warehouse"),
        "{said}"
    );
    assert_eq!(site.receiver.count(), 2);
    let status = site.json(&["status"]).await;
    let alarm = status[0]["connector_alarm"].as_str().unwrap();
    assert!(
        alarm.contains("nothing is sent on connector `warehouse`"),
        "{alarm}"
    );
    let status = site.campaignd(&["status"]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("campaignd connector accept"));

    let mut daemon = site.serve();
    site.wait_for_log("nothing is sent on connector", 1).await;
    assert_eq!(site.receiver.count(), 2);

    // Through the control socket: the run that was refused goes on.
    let accepted = site.json(&["connector", "accept", "warehouse"]).await;
    assert_eq!(accepted["accepted"], true);
    site.receiver.wait_for(3).await;
    site.wait_for_log("finished: ", 1).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert_eq!(site.receiver.count(), 3);
    let status = site.json(&["status"]).await;
    assert!(status[0]["connector_alarm"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_on_a_restored_sqlite_until_a_person_says_so() {
    nothing_is_sent_until_a_person_says_so(Site::sqlite().await).await;
}

async fn nothing_is_sent_on_a_restored_server_until_a_person_says_so(world: World) {
    let site = Site::of(world, "restored").await;
    nothing_is_sent_until_a_person_says_so(site).await;
}
