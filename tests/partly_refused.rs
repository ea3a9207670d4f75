//! Members refused one by one in an answer that accepts their batch, and runs
//! that expire: with the built program.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::support;

use std::collections::BTreeMap;
use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, TextRow, World};

crate::in_both_worlds! {
    Postgres
    members_refused_one_by_one_are_rejected_and_the_others_of_their_batch_delivered
    an_answer_that_cannot_be_read_takes_nothing_back
    what_is_not_sent_in_time_is_cancelled_and_stays_so
}

async fn site(world: World, name: &str, activation: &str) -> Site {
    let site = Site::of(world, name).await;
    site.sql(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, 60) n",
    )
    .await;
    let campaign = format!(
        "name: hello
connector: warehouse
schedule: {{ cron: '0 9 1 1 *', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, n from people' }}
activation: {{ destination: sink, batch_size: 20, {activation} }}
"
    );
    site.write("campaigns/hello.yaml", &campaign);
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success(), "{output:?}");
    site
}

fn count(row: &TextRow, column: &str) -> u64 {
    row[column].as_deref().unwrap_or("").parse().unwrap()
}

const TWICE_AND_STRANGERS: &str = r#"{"rejected":[
    {"key":"p-7","reason":"no such address\u0007"},
    {"key":"p-9"},
    {"key":"p-7","reason":"again"},
    "p-11",
    {"key":"stranger","reason":"who?"}
]}"#;

async fn members_refused_one_by_one_are_rejected_and_the_others_of_their_batch_delivered(
    world: World,
) {
    let site = site(world, "one_by_one", "rejected_at: /rejected").await;
    site.receiver.rule(|_| {
        let json = [("content-type", "application/json")];
        Answer::reply(200, &json, TWICE_AND_STRANGERS)
    });
    let output = site.campaignd(&["run", "hello"]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    oracle::check(&site).await;
    let rejected = "select profile_id, reason, counts_as_contact from campaignd.contact_history \
                    where status = 'rejected'";
    let rejected: BTreeMap<String, TextRow> = site
        .sql(rejected)
        .await
        .into_iter()
        .map(|row| (row["profile_id"].clone().unwrap(), row))
        .collect();
    let keys: Vec<&str> = rejected.keys().map(String::as_str).collect();
    assert_eq!(keys, ["p-11", "p-7", "p-9"]);
    let reason = rejected["p-7"]["reason"].as_deref().unwrap();
    assert!(
        reason.starts_with("no such address") && !reason.contains('\u{7}'),
        "{reason:?}"
    );
    assert_eq!(
        rejected["p-9"]["reason"].as_deref(),
        Some("refused by the receiver")
    );
    let row = site.sql("select * from campaignd.runs").await.remove(0);
    assert_eq!((count(&row, "delivered"), count(&row, "rejected")), (57, 3));
    assert_eq!(row["status"].as_deref(), Some("finished"));
    let ledger = std::fs::read(site.path().join("state.db")).unwrap();
    assert!(!String::from_utf8_lossy(&ledger).contains("no such address"));
}

async fn an_answer_that_cannot_be_read_takes_nothing_back(world: World) {
    for answer in [
        "{",
        r#"{"rejected":7}"#,
        r#"{"rejected":[{"no":"key"}]}"#,
        "",
    ] {
        let site = site(world, "unreadable", "rejected_at: /rejected").await;
        let answer = answer.to_owned();
        site.receiver
            .rule(move |_| Answer::reply(200, &[], &answer));
        let output = site.campaignd(&["run", "hello"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        oracle::check(&site).await;
        let row = site.sql("select * from campaignd.runs").await.remove(0);
        assert_eq!(count(&row, "delivered"), 60);
    }
}

async fn what_is_not_sent_in_time_is_cancelled_and_stays_so(world: World) {
    let site = site(world, "expired", "expires_after: 3s").await;
    // The second batch is told to wait for longer than there is time.
    site.receiver
        .rule(|request| match request.json()["data"]["batch"].as_u64() {
            Some(2) => Answer::reply(429, &[("retry-after", "30")], ""),
            _ => Answer::status(200),
        });
    let output = site.campaignd(&["run", "hello"]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    oracle::check(&site).await;
    let row = site.sql("select * from campaignd.runs").await.remove(0);
    assert_eq!(row["status"].as_deref(), Some("incomplete"), "{row:?}");
    assert_eq!(
        (count(&row, "delivered"), count(&row, "cancelled")),
        (40, 20)
    );
    let reasons =
        "select distinct reason from campaignd.contact_history where status = 'cancelled'";
    let reasons = site.sql(reasons).await;
    assert_eq!(
        reasons[0]["reason"].as_deref(),
        Some("expired"),
        "{reasons:?}"
    );

    // One that fires long after its time is over before it asks for anybody.
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(1)));
    let requests = site.receiver.count();
    let late = ["run", "hello", "--fire-time", "2026-01-01T00:00:00Z"];
    let output = site.campaignd(&late).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(site.receiver.count(), requests);
    oracle::check(&site).await;
    let late = "select * from campaignd.runs where fire_time = '2026-01-01'";
    let row = site.sql(late).await.remove(0);
    let told = ["status", "error"].map(|column| row[column].as_deref());
    assert_eq!(told, [Some("cancelled"), Some("expired")]);
    assert_eq!((count(&row, "cancelled"), count(&row, "planned")), (0, 0));
}
