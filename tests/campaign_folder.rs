//! What `status` says of campaign files that the running daemon has read.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::os::unix::net::UnixListener;
use std::time::Duration;
use support::night::{self, NEVER, campaign, furnish};
use support::site::Site;

const FILE: &str = "campaigns/hello.yaml";

async fn status(site: &Site) -> String {
    let output = site.campaignd(&["status"]).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The last words of the status: when all was well.
fn read_well(status: &str) -> &str {
    let (_, at) = status.split_once("last read without a problem ").unwrap();
    at.split(" (").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_when_the_folder_was_last_read_well_and_which_files_are_not_valid() {
    let site = Site::new("folder_seen").await;
    furnish(&site, 7, NEVER).await;
    assert!(!status(&site).await.contains("the daemon has"));
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let well = status(&site).await;
    assert!(
        well.contains("the daemon has 1 campaign in force"),
        "{well}"
    );
    assert!(!well.contains("not valid"), "{well}");

    // The file is spoilt, and the campaign of the file before stays in force.
    site.write(FILE, &campaign("61 * * * *", 7));
    site.wait_for_log("what was in force stays", 1).await;
    let ill = status(&site).await;
    assert!(ill.contains("the daemon has 1 campaign in force"), "{ill}");
    let line = ill.lines().find(|line| line.starts_with("not valid: "));
    assert!(
        line.unwrap().contains("hello.yaml; what the daemon"),
        "{ill}"
    );
    assert_eq!(read_well(&ill), read_well(&well));
    let line = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("hello "))
            .map(str::to_owned)
    };
    assert_eq!(line(&ill), line(&well));
    for args in [&["status"][..], &["status", "hello"]] {
        let campaigns = site.json(args).await;
        assert_eq!(campaigns[0]["campaign"], "hello", "{args:?}");
        assert_eq!(campaigns[0]["destination"], "sink", "{args:?}");
    }

    site.write(FILE, &campaign(NEVER, 35));
    site.wait_for_log("hello has changed", 1).await;
    let mended = status(&site).await;
    assert!(!mended.contains("not valid"), "{mended}");
    assert!(read_well(&mended) > read_well(&ill), "{mended}");

    // Without a daemon the command reads the files itself.
    site.write(FILE, "name: 7\n");
    site.wait_for_log("what was in force stays", 2).await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    let alone = status(&site).await;
    assert!(alone.contains("not valid: "), "{alone}");
    assert!(!alone.contains("the daemon has"), "{alone}");
    night::check(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_socket_that_another_has_is_taken_once_it_is_free() {
    let site = Site::sqlite().await;
    furnish(&site, 7, NEVER).await;
    let path = site.path().join("control.sock");
    let other = UnixListener::bind(&path).unwrap();
    let mut daemon = site.serve();
    site.wait_for_log("a run in the foreground listens there", 1)
        .await;
    assert!(path.exists(), "it is left to the other");
    drop(other);
    // What a run in the foreground does at its end.
    std::fs::remove_file(&path).unwrap();
    for _ in 0..100 {
        if status(&site).await.contains("the daemon has 1 campaign") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(status(&site).await.contains("the daemon has 1 campaign"));
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert!(!path.exists());
}
