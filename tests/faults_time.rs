//! Fire times while nothing was running, or while too much was.

use crate::support;

use std::time::Duration;
use support::night::{self, CAMPAIGN, campaign, change_settings, furnish, ledger, number, text};
use support::receiver::Answer;
use support::site::{Site, World};

crate::in_both_worlds! {
    Postgres
    of_a_schedule_edited_while_nothing_ran_the_old_is_missed_and_the_new_makes_up_for_nothing
    of_the_fire_times_while_nothing_ran_the_newest_runs_and_the_others_are_recorded
    a_daemon_killed_while_it_makes_up_for_fire_times_records_each_of_them_once
    a_schedule_edited_by_a_version_that_did_not_keep_it_leaves_nothing_behind
    time_spent_disabled_is_not_missed_although_it_is_enabled_while_nothing_runs
    a_fire_time_that_finds_the_last_run_open_is_skipped_and_recorded
    a_queue_holds_one_fire_time_behind_the_open_run_and_the_others_are_skipped
}

const EVERY_MINUTE: &str = "* * * * *";

/// A site whose daemon has looked at the schedule once and has been stopped.
async fn looked_at(world: World, name: &str) -> Site {
    let site = Site::of(world, name).await;
    furnish(&site, 10, EVERY_MINUTE).await;
    let mut daemon = site.serve();
    wait_for_cursor(&site, "").await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    site
}

/// The schedule that was looked at, and whether it was disabled.
async fn looked_at_what(site: &Site) -> String {
    let cursor = ledger(
        site,
        "select schedule_hash || is_disabled as it from cursors",
    )
    .await;
    cursor
        .first()
        .map_or_else(String::new, |row| text(row, "it").to_owned())
}

/// Waits until what was looked at is not `before`.
async fn wait_for_cursor(site: &Site, before: &str) {
    for _ in 0..600 {
        let is_there = site.path().join("state.db").exists() && site.log().contains("ready;");
        if is_there && looked_at_what(site).await != before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the schedule was not looked at: {}", site.log());
}

/// As if nothing had been running for so many minutes.
async fn was_down_for(site: &Site, minutes: u64) {
    let back = minutes * 60_000_000;
    let sql = format!("update cursors set seen_until = seen_until - {back}");
    ledger(site, &sql).await;
}

/// Each minute has one row, all of them missed but the last, and one more
/// where the minute has turned meanwhile.
async fn every_minute_is_recorded(site: &Site, at_least: u64) {
    let per_minute = "select count(*) from (select fire_time from campaignd.runs
                      group by fire_time having count(*) > 1) twice";
    assert_eq!(number(site, per_minute).await, 0);
    let gaps = "select count(*) from (select fire_time - lag(fire_time) over
                (order by fire_time) as gap from campaignd.runs) g where gap <> interval '1 minute'";
    assert_eq!(number(site, gaps).await, 0);
    let rows = number(site, "select count(*) from campaignd.runs").await;
    assert!((at_least..=at_least + 2).contains(&rows), "{rows}");
    let run = "select count(*) from campaignd.runs where status = 'finished'";
    let run = number(site, run).await;
    assert!((1..=2).contains(&run), "{run}");
    // The newest minute may have come while the one before was under way, or
    // been left for the next start.
    let newest = "select count(*) from campaignd.runs where status in ('open', 'skipped')
                  and fire_time = (select max(fire_time) from campaignd.runs)";
    let newest = number(site, newest).await;
    let missed = "select count(*) from campaignd.runs where status = 'missed'";
    assert_eq!(number(site, missed).await, rows - run - newest);
}

async fn of_the_fire_times_while_nothing_ran_the_newest_runs_and_the_others_are_recorded(
    world: World,
) {
    // One look takes 10,000: the last case is more than that.
    for minutes in [1, 5, 10_000] {
        let site = looked_at(world, "down").await;
        was_down_for(&site, minutes).await;
        let mut daemon = site.serve();
        site.wait_for_row("select * from campaignd.runs where status = 'finished'")
            .await;
        let rows = format!(
            "select 1 from (select count(*) as n from campaignd.runs) r where n >= {minutes}"
        );
        site.wait_for_row(&rows).await;
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        night::check(&site).await;
        every_minute_is_recorded(&site, minutes).await;
    }
}

async fn a_daemon_killed_while_it_makes_up_for_fire_times_records_each_of_them_once(world: World) {
    let site = looked_at(world, "killed_catching_up").await;
    let minutes = 3_000;
    was_down_for(&site, minutes).await;
    for pause in [0, 40, 5] {
        let daemon = site.serve();
        let claimed = "select 1 from runs limit 1";
        for _ in 0..1_000 {
            if !ledger(&site, claimed).await.is_empty() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        night::kill(daemon).await;
    }
    let mut daemon = site.serve();
    let rows =
        format!("select 1 from (select count(*) as n from campaignd.runs) r where n >= {minutes}");
    site.wait_for_row(&rows).await;
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(&site).await;
    every_minute_is_recorded(&site, minutes).await;
}

/// Starts the daemon anew with `edited` as its campaign, and stops it when it
/// has looked at it.
async fn start_with(site: &Site, edited: &str) {
    let before = looked_at_what(site).await;
    site.write("campaigns/hello.yaml", edited);
    let mut daemon = site.serve();
    wait_for_cursor(site, &before).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
}

async fn of_a_schedule_edited_while_nothing_ran_the_old_is_missed_and_the_new_makes_up_for_nothing(
    world: World,
) {
    let site = looked_at(world, "edited").await;
    was_down_for(&site, 60).await;
    start_with(&site, &campaign("30 30 0 1 1 *", 7)).await;
    night::check(&site).await;
    let gaps = "select count(*) from (select fire_time - lag(fire_time) over
                (order by fire_time) as gap from campaignd.runs) g where gap <> interval '1 minute'";
    assert_eq!(number(&site, gaps).await, 0);
    let missed = "select count(*) from campaignd.runs
                  where status = 'missed' and error like '%schedule has changed%'";
    let missed = number(&site, missed).await;
    assert!((60..=62).contains(&missed), "{missed}: {}", site.log());
}

async fn a_schedule_edited_by_a_version_that_did_not_keep_it_leaves_nothing_behind(world: World) {
    let site = looked_at(world, "edited_by_an_older").await;
    was_down_for(&site, 60).await;
    ledger(&site, "update cursors set schedule = null").await;
    let runs = number(&site, "select count(*) from campaignd.runs").await;
    start_with(&site, &campaign("0 0 1 1 *", 7)).await;
    let claimed = format!("select * from runs where campaign = '{CAMPAIGN}'");
    assert_eq!(ledger(&site, &claimed).await.len() as u64, runs);
    night::check(&site).await;
}

async fn time_spent_disabled_is_not_missed_although_it_is_enabled_while_nothing_runs(world: World) {
    let site = looked_at(world, "enabled_while_down").await;
    let enabled = campaign(EVERY_MINUTE, 7);
    let disabled = enabled.replacen("connector:", "enabled: false\nconnector:", 1);
    start_with(&site, &disabled).await;
    let before = number(&site, "select count(*) from campaignd.runs").await;
    was_down_for(&site, 2_880).await;
    start_with(&site, &enabled).await;
    let runs = number(&site, "select count(*) from campaignd.runs").await;
    assert!(runs <= before + 1, "{runs}: {}", site.log());
    night::check(&site).await;
}

async fn a_fire_time_that_finds_the_last_run_open_is_skipped_and_recorded(world: World) {
    let site = Site::of(world, "overlap").await;
    furnish(&site, 100, "* * * * * *").await;
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(200)));
    let mut daemon = site.serve();
    site.wait_for_row("select * from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::finish(&site).await;
    let skipped = site
        .sql("select * from campaignd.runs where status = 'skipped'")
        .await;
    assert!(skipped.len() >= 2, "{}", site.log());
    assert!(
        skipped
            .iter()
            .all(|run| text(run, "error").contains("open")),
        "{skipped:?}"
    );
    // Neither is one lost: each second from the first to the last has a row.
    let gaps = "select count(*) from (select fire_time - lag(fire_time) over
                (order by fire_time) as gap from campaignd.runs) g where gap <> interval '1 second'";
    assert_eq!(number(&site, gaps).await, 0);
}

async fn a_queue_holds_one_fire_time_behind_the_open_run_and_the_others_are_skipped(world: World) {
    let site = Site::of(world, "overlap_queue").await;
    furnish(&site, 70, "* * * * * *").await;
    let queued =
        campaign("* * * * * *", 7).replace("timezone: UTC", "timezone: UTC, overlap: queue");
    site.write("campaigns/hello.yaml", &queued);
    change_settings(&site, "timeout: 2s", "timeout: 2s\n    max_in_flight: 1");
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(200)));
    let mut daemon = site.serve();
    let two = "select 1 from (select count(*) as n from campaignd.runs
               where status = 'finished') r where n >= 2";
    site.wait_for_row(two).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::finish(&site).await;
    // How many runs were open when each fire time was taken.
    let open = "select a.state, a.error, (select count(*) from runs b
                where b.fire_time < a.fire_time and b.state <> 'skipped'
                and (b.finished_at is null or b.finished_at > a.claimed_at)) as open
                from runs a order by a.fire_time";
    let rows = ledger(&site, open).await;
    let count = |state: &str, open: &str| {
        let is_so = |row: &&_| text(row, "state") == state && text(row, "open") == open;
        rows.iter().filter(is_so).count()
    };
    let log = site.log();
    assert!(count("finished", "1") >= 1, "one is queued: {rows:?}");
    assert_eq!(
        count("finished", "2"),
        0,
        "no more than one: {rows:?} {log}"
    );
    let skipped: Vec<_> = rows
        .iter()
        .filter(|row| text(row, "state") == "skipped")
        .collect();
    let says_why = |row: &&_| text(row, "error").ends_with("overlap `queue` holds one");
    assert!(
        !skipped.is_empty() && skipped.iter().all(says_why),
        "{rows:?}"
    );
    let gaps = "select count(*) from (select fire_time - lag(fire_time) over
                (order by fire_time) as gap from campaignd.runs) g where gap <> interval '1 second'";
    assert_eq!(number(&site, gaps).await, 0);
}

/// Together they are more than is taken at a time.
#[tokio::test(flavor = "multi_thread")]
async fn several_campaigns_that_are_far_behind_are_taken_a_part_at_a_time_and_whole() {
    let site = Site::sqlite().await;
    furnish(&site, 1, night::NEVER).await;
    let names = ["hello", "hullo", "hallo"];
    for name in names {
        let text = campaign(EVERY_MINUTE, 7).replace("name: hello", &format!("name: {name}"));
        site.write(&format!("campaigns/{name}.yaml"), &text);
    }
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    for _ in 0..600 {
        if ledger(&site, "select campaign from cursors").await.len() == names.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let minutes = 9_000;
    was_down_for(&site, minutes).await;
    let mut daemon = site.serve();
    for name in names {
        let rows = format!(
            "select campaign from campaignd.runs where campaign = '{name}'
             group by campaign having count(distinct fire_time) >= {minutes}
             and count(distinct fire_time) = count(*)"
        );
        site.wait_for_row(&rows).await;
    }
    site.wait_for_row(
        "select count(*) from campaignd.runs where status = 'finished' having count(*) >= 3",
    )
    .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(&site).await;
}
