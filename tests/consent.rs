//! Members on suppression lists: withheld when the audience is frozen, and
//! when they are put on a list afterwards.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;
use support::oracle;
use support::receiver::Answer;
use support::site::{Site, sqlite_rows};

const CAMPAIGN: &str = "name: hello
connector: warehouse
enabled: false
schedule: { cron: '0 9 * * *', timezone: UTC }
audience: { key: profile_id, sql: 'select profile_id, n from people' }
policy: { suppress: [ do_not_contact, bounced ] }
activation: { destination: sink, batch_size: 10 }
";

/// 300 people, and two lists without anybody on them.
const PEOPLE: &str = "create table people as
    with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 300)
    select 'p-' || n as profile_id, n from numbers";

async fn site(site: Site) -> Site {
    site.sql(PEOPLE).await;
    for list in ["do_not_contact", "bounced"] {
        site.sql(&format!(
            "create table {list} (profile_id varchar(64), since varchar(64))"
        ))
        .await;
    }
    site.write("campaigns/hello.yaml", CAMPAIGN);
    let settings = site
        .settings()
        .replace("timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.write("campaignd.yaml", &(settings + "recheck_after: 1s\n"));
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    site
}

async fn suppressed(site: &Site) -> BTreeSet<String> {
    let rows = site
        .sql("select profile_id, batch, contacted_at, reason from campaignd.contact_history where status = 'suppressed'")
        .await;
    assert!(
        rows.iter()
            .all(|row| row["batch"].is_none() && row["contacted_at"].is_none())
    );
    assert!(
        rows.iter()
            .all(|row| row["reason"].as_deref() == Some("on a suppression list"))
    );
    let keys = rows
        .into_iter()
        .map(|row| row["profile_id"].clone().unwrap());
    keys.collect()
}

async fn the_funnel_counts_the_suppressed(site: Site) {
    // Once, twice, on both lists, behind blanks, nobody, and a stranger.
    site.sql(
        "insert into do_not_contact (profile_id) values
         ('p-1'), ('p-2'), ('p-2'), ('p-3'), ('p-4  '), (null), ('stranger')",
    )
    .await;
    site.sql("insert into bounced (profile_id) values ('p-3'), ('p-300')")
        .await;
    let run = site.json(&["run", "hello"]).await;
    let counts = ["audience", "suppressed", "planned", "delivered"].map(|key| run[key].as_u64());
    assert_eq!(counts, [Some(300), Some(5), Some(295), Some(295)]);
    assert_eq!(run["status"], "finished");
    oracle::check(&site).await;
    let expected = ["p-1", "p-2", "p-3", "p-300", "p-4"].map(str::to_owned);
    assert_eq!(suppressed(&site).await, BTreeSet::from(expected));
    assert_eq!(site.receiver.count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_a_list_is_withheld_on_sqlite() {
    the_funnel_counts_the_suppressed(site(Site::sqlite().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_a_list_is_withheld_on_postgresql() {
    the_funnel_counts_the_suppressed(site(Site::new("suppressed").await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_a_list_is_withheld_on_redshift() {
    the_funnel_counts_the_suppressed(site(Site::on_redshift("suppressed").await).await).await;
}

/// Unsubscribes people while their run is under way, and asserts that those
/// who were not attempted by the time of the next look are left out.
async fn the_unsubscribed_are_left_out(site: Site, is_killed: bool) {
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(150)));
    let spawn = || {
        let mut command = site.command(&["run", "hello"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut run = spawn();
    site.receiver.wait_for(2).await;
    // Every even number, and the whole of a batch towards the end.
    site.sql(
        "insert into do_not_contact (profile_id)
         select profile_id from people where n % 2 = 0 or n between 271 and 280",
    )
    .await;
    if is_killed {
        site.receiver.wait_for(14).await;
        run.kill().await.unwrap();
        run = spawn();
    }
    assert_eq!(run.wait().await.unwrap().code(), Some(0));
    oracle::check(&site).await;

    let withheld = suppressed(&site).await;
    let runs = site
        .sql("select status, planned, suppressed, delivered from campaignd.runs")
        .await;
    let count = |column: &str| {
        runs[0][column]
            .as_deref()
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    assert_eq!(runs[0]["status"].as_deref(), Some("finished"));
    assert_eq!(count("suppressed"), withheld.len());
    assert_eq!(count("planned"), 300 - withheld.len());
    assert_eq!(count("delivered"), count("planned"));
    let requests = site.receiver.requests();
    // It may have overtaken another; it keeps its number.
    let mut newest = requests.iter().rev();
    let last = newest.find(|request| request.json()["data"]["batch"] == 30);
    let last = last.unwrap();
    let members = last.members();
    assert_eq!(members.len(), 5, "five of ten are left in the last batch");
    assert_eq!(last.json()["data"]["batches"], 30);
    let batches: BTreeSet<u64> = requests
        .iter()
        .map(|request| request.json()["data"]["batch"].as_u64().unwrap())
        .collect();
    assert!(batches.len() < 30, "an empty batch is not sent");
    assert!(withheld.len() > 75, "{}", withheld.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unsubscribes_between_stage_and_send_is_withheld_on_postgresql() {
    the_unsubscribed_are_left_out(site(Site::new("unsubscribed").await).await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unsubscribes_between_stage_and_send_is_withheld_on_redshift() {
    the_unsubscribed_are_left_out(site(Site::on_redshift("unsubscribed").await).await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unsubscribes_between_stage_and_send_is_withheld_on_sqlite() {
    the_unsubscribed_are_left_out(site(Site::sqlite().await).await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_withheld_stays_withheld_after_a_kill() {
    the_unsubscribed_are_left_out(site(Site::new("withheld_killed").await).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_withheld_stays_withheld_after_a_kill_on_redshift() {
    the_unsubscribed_are_left_out(site(Site::on_redshift("withheld_killed").await).await, true)
        .await;
}

/// The run is paused for longer than consent lasts, with batches read and not
/// begun, and people unsubscribe meanwhile.
async fn whose_page_was_read_before_a_pause_is_asked_again(site: Site) {
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(150)));
    let mut daemon = site.serve();
    site.wait_for_log("ready; ", 1).await;
    let mut run = site.command(&["run", "hello"]);
    let mut run = run
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    site.receiver.wait_for(4).await;
    let paused = site.campaignd(&["pause", "--all"]).await;
    assert!(paused.status.success());
    // Those that were begun keep their bytes: their outcomes come in first.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Those that were only written down ahead of the wire are taken back.
    let state = site.path().join("state.db");
    let begun = sqlite_rows(&state, "select batch, state from batches_now").await;
    assert!(
        begun
            .iter()
            .all(|row| row["state"].as_deref() == Some("accepted")),
        "{begun:?}"
    );
    let begun: BTreeSet<u64> = begun
        .iter()
        .map(|row| row["batch"].as_deref().unwrap().parse().unwrap())
        .collect();
    let before = site.receiver.count();
    site.sql(
        "insert into do_not_contact (profile_id) select profile_id from people where n % 2 = 0",
    )
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(site.receiver.count(), before);
    let lifted = site.campaignd(&["unpause", "--all"]).await;
    assert!(lifted.status.success());
    assert_eq!(run.wait().await.unwrap().code(), Some(0), "{}", site.log());
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;

    let withheld = suppressed(&site).await;
    let later = &site.receiver.requests()[before..];
    let mut checked = 0;
    for request in later {
        let batch = request.json()["data"]["batch"].as_u64().unwrap();
        if begun.contains(&batch) {
            continue;
        }
        checked += 1;
        for member in request.members() {
            let key = member["profile_id"].as_str().unwrap();
            let number: u32 = key[2..].parse().unwrap();
            assert!(number % 2 == 1, "batch {batch}: {key} has unsubscribed");
        }
    }
    assert!(checked >= 10, "{checked}, begun: {begun:?}");
    let sent: usize = site
        .receiver
        .requests()
        .iter()
        .map(|it| it.members().len())
        .sum();
    assert_eq!(withheld.len() + sent, 300, "begun: {begun:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unsubscribes_during_a_pause_is_withheld_on_postgresql() {
    let site = site(Site::new("unsubscribed_paused").await).await;
    whose_page_was_read_before_a_pause_is_asked_again(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unsubscribes_during_a_pause_is_withheld_on_redshift() {
    let site = site(Site::on_redshift("unsubscribed_paused").await).await;
    whose_page_was_read_before_a_pause_is_asked_again(site).await;
}
