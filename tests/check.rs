//! What `check` says beside the problems of single files.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support::site::Site;
use serde_json::Value;

fn campaign(name: &str, schedule: &str) -> String {
    format!(
        "name: {name}
connector: warehouse
schedule: {schedule}
audience: {{ key: profile_id, sql: select profile_id from shoppers }}
activation: {{ destination: sink }}
"
    )
}

/// The exit code of `check`, and what it says as `line:column severity message`.
async fn checked(site: &Site, files: &[&str]) -> (i32, Vec<String>) {
    let args = [&["check", "--format", "json"], files].concat();
    let output = site.campaignd(&args).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap().iter();
    let said = problems.map(|problem| {
        format!(
            "{}:{} {} {}",
            problem["line"],
            problem["column"],
            problem["severity"].as_str().unwrap(),
            problem["message"].as_str().unwrap()
        )
    });
    (output.status.code().unwrap(), said.collect())
}

#[tokio::test]
async fn changes_of_the_clock_are_noted_with_file_names_and_without() {
    let site = Site::sqlite().await;
    let nightly = campaign("nightly", "{ cron: 30 2 * * *, timezone: Europe/Berlin }");
    site.write("campaigns/nightly.yaml", &nightly);
    let (code, notes) = checked(&site, &[]).await;
    assert_eq!(code, 0);
    // In 400 days there is at least one of each.
    for part in ["does not exist there", "comes twice there"] {
        let is_said = |note: &&String| note.starts_with("3:19 note ") && note.contains(part);
        assert!(notes.iter().find(is_said).is_some(), "{notes:?}");
    }
    let by_name = checked(&site, &["campaigns/nightly.yaml"]).await;
    assert_eq!(by_name, (0, notes));
}

#[tokio::test]
async fn a_campaign_that_does_not_fire_again_is_noted() {
    let site = Site::sqlite().await;
    for (name, schedule, place) in [
        ("once", "{ at: 2020-02-01T08:00, timezone: UTC }", "3:17"),
        (
            "over",
            "{ cron: 0 9 * * *, timezone: UTC, ends: 2020-02-01 }",
            "3:51",
        ),
    ] {
        let file = format!("campaigns/{name}.yaml");
        site.write(&file, &campaign(name, schedule));
        let (code, notes) = checked(&site, &[&file]).await;
        assert_eq!((code, notes.len()), (0, 1), "{notes:?}");
        assert!(notes[0].starts_with(&format!("{place} note ")), "{notes:?}");
        assert!(notes[0].ends_with("does not fire again"), "{notes:?}");
    }
}

#[tokio::test]
async fn a_name_that_two_of_the_named_files_have_is_a_problem_of_both() {
    let site = Site::sqlite().await;
    let text = campaign("twice", "{ every: 1d }");
    site.write("a.yaml", &text);
    site.write("b.yaml", &text);
    let (code, problems) = checked(&site, &["a.yaml", "b.yaml"]).await;
    assert_eq!((code, problems.len()), (3, 2), "{problems:?}");
    for (problem, other) in problems.iter().zip(["b.yaml", "a.yaml"]) {
        let expect = format!("1:7 error `twice` is also the name of the campaign in {other}");
        assert!(problem.starts_with(&expect), "{problem}");
    }
    // The same file under two names is one file.
    assert_eq!(checked(&site, &["a.yaml", "./a.yaml"]).await, (0, vec![]));
    // Beside the folder it may stand in for a file there; within it may not.
    site.write("campaigns/c.yaml", &text);
    assert_eq!(checked(&site, &["a.yaml"]).await, (0, vec![]));
    site.write("campaigns/d.yaml", &text);
    let (code, problems) = checked(&site, &["campaigns/d.yaml"]).await;
    assert_eq!((code, problems.len()), (3, 1), "{problems:?}");
    assert!(problems[0].ends_with("campaigns/c.yaml"), "{problems:?}");
}

#[tokio::test]
async fn sql_is_read_as_the_database_of_its_connector_reads_it() {
    let site = Site::sqlite().await;
    let text = campaign("paths", "{ every: 1d }").replace(
        "from shoppers",
        r"from shoppers where home = 'C:\' and away <> '\'",
    );
    site.write("campaigns/paths.yaml", &text);
    assert_eq!(checked(&site, &[]).await, (0, vec![]));
    site.sql("create table shoppers (profile_id text, home text, away text)")
        .await;
    site.sql(r"insert into shoppers values ('p-1', 'C:\', 'D:\'), ('p-2', 'C:', 'D:')")
        .await;
    let count = site.json(&["count", "paths"]).await;
    assert_eq!(count["audience"], 1, "{count}");
}
