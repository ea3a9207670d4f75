//! Campaign files that change while the daemon runs, with nobody to tell it.

use crate::support;

use std::fs;
use std::time::Duration;
use support::night::{self, CAMPAIGN, NEVER, campaign, furnish};
use support::receiver::Answer;
use support::site::{Daemon, Site};

const FILE: &str = "campaigns/hello.yaml";

async fn served(name: &str) -> (Site, Daemon) {
    let site = Site::new(name).await;
    furnish(&site, 70, NEVER).await;
    let daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    (site, daemon)
}

/// Ends the daemon, and counts everything.
async fn end(site: &Site, mut daemon: Daemon) {
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(site).await;
}

/// How many requests one run of the campaign in force makes.
async fn requests_of_a_run(site: &Site, name: &str) -> usize {
    let before = site.receiver.count();
    let run = site.json(&["run", name]).await;
    assert_eq!(run["delivered"], 70, "{run}");
    site.receiver.count() - before
}

/// Waits until something is logged once more than `before`.
async fn says(site: &Site, what: &str, act: impl FnOnce()) {
    let before = site.log().matches(what).count();
    act();
    site.wait_for_log(what, before + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_edited_added_or_removed_holds_without_a_signal() {
    let (site, daemon) = served("edited").await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 10);
    says(&site, "hello has changed", || {
        site.write(FILE, &campaign(NEVER, 35));
    })
    .await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 2);

    let other = campaign(NEVER, 14).replace("name: hello", "name: other");
    says(&site, "other is in force", || {
        site.write("campaigns/other.yml", &other);
    })
    .await;
    assert_eq!(requests_of_a_run(&site, "other").await, 5);

    says(&site, "hello is retired", || {
        fs::remove_file(site.path().join(FILE)).unwrap();
    })
    .await;
    let output = site.campaignd(&["run", CAMPAIGN]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_last_good_version_in_force_and_says_the_place() {
    let (site, daemon) = served("spoilt").await;
    let good = campaign(NEVER, 7);
    let half = &good[..good.find("profile_id, n").unwrap()];
    let twice = campaign(NEVER, 1);
    for (file, text, said) in [
        (FILE, good.replace("sink,", "[sink,"), "this is not YAML"),
        (
            FILE,
            good.replace("batch_size: 7", "batchsize: 35"),
            "batchsize",
        ),
        (FILE, good.replace(NEVER, "61 * * * *"), "hello.yaml:3:19"),
        (FILE, good.replace("UTC", "Mars/Base"), "Mars/Base"),
        (FILE, half.to_owned(), "this is not YAML"),
        ("campaigns/twice.yaml", twice, "twice.yaml:1:7"),
    ] {
        says(&site, said, || {
            site.write(file, &text);
        })
        .await;
        let log = site.log();
        let line = log.lines().rfind(|line| line.contains(said)).unwrap();
        assert!(line.contains("what was in force stays"), "{line}");
        let (_, place) = line.split_once(".yaml:").expect("a place");
        assert!(place.starts_with(|at: char| at.is_ascii_digit()), "{line}");
        assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 10, "{text}");
    }
    fs::remove_file(site.path().join("campaigns/twice.yaml")).unwrap();
    says(&site, "hello has changed", || {
        site.write(FILE, &campaign(NEVER, 35));
    })
    .await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 2);
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_keeps_its_version_when_its_file_is_changed_and_removed() {
    let (site, daemon) = served("kept").await;
    site.receiver
        .rule(|_| Answer::status(200).after(Duration::from_millis(1_500)));
    let mut run = site.start(&["run", CAMPAIGN]);
    site.receiver.wait_for(1).await;
    says(&site, "hello has changed", || {
        site.write(FILE, &campaign(NEVER, 70));
    })
    .await;
    says(&site, "hello is retired", || {
        fs::remove_file(site.path().join(FILE)).unwrap();
    })
    .await;
    assert_eq!(run.ended().await, Some(0), "{}", site.log());
    assert_eq!(site.receiver.count(), 10);
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editors_own_files_change_nothing_and_its_renamed_file_does() {
    let (site, daemon) = served("editors").await;
    let folder = site.path().join("campaigns");
    let text = campaign(NEVER, 1);
    for name in [
        ".hello.yaml.swp",
        "hello.yaml~",
        "#hello.yaml#",
        ".#hello.yaml",
        "4913",
    ] {
        fs::write(folder.join(name), &text).unwrap();
    }
    // As editors save: the old one aside, the new one in its place.
    says(&site, "hello has changed", || {
        fs::rename(folder.join("hello.yaml"), folder.join("hello.yaml~")).unwrap();
        fs::write(folder.join("hello.yaml"), campaign(NEVER, 35)).unwrap();
    })
    .await;
    says(&site, "hello has changed", || {
        fs::write(folder.join(".hello.new"), campaign(NEVER, 70)).unwrap();
        fs::rename(folder.join(".hello.new"), folder.join("hello.yaml")).unwrap();
    })
    .await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 1);
    assert!(!site.log().contains("is retired"), "{}", site.log());
    assert!(
        !site.log().contains("what was in force stays"),
        "{}",
        site.log()
    );
    end(&site, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_taken_away_leaves_all_in_force_and_is_read_when_it_is_back() {
    let (site, daemon) = served("gone").await;
    let folder = site.path().join("campaigns");
    let aside = site.path().join("aside");
    says(&site, "could not read the folder", || {
        fs::rename(&folder, &aside).unwrap();
    })
    .await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 10);
    fs::write(aside.join("hello.yaml"), campaign(NEVER, 35)).unwrap();
    says(&site, "hello has changed", || {
        fs::rename(&aside, &folder).unwrap();
    })
    .await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 2);
    // It is listened to again.
    says(&site, "hello has changed", || {
        site.write(FILE, &campaign(NEVER, 70));
    })
    .await;
    assert_eq!(requests_of_a_run(&site, CAMPAIGN).await, 1);
    end(&site, daemon).await;
}
