//! `plan` and `count` beside a running daemon: it is the one that asks.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use support::night::{self, CAMPAIGN, NEVER, campaign, change_settings, furnish};
use support::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn plan_and_count_beside_a_daemon_need_no_credentials_and_say_the_same() {
    let site = Site::new("asked").await;
    furnish(&site, 70, NEVER).await;
    let mut alone = site.json(&["plan", CAMPAIGN, "--sql"]).await;
    let counted = site.json(&["count", CAMPAIGN]).await;
    assert_eq!(
        (&counted["audience"], &alone["batches"]),
        (&70.into(), &10.into())
    );

    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    // What only the daemon was given when it started.
    change_settings(&site, " }, tls:", ", password: '${env:NOT_THERE}' }, tls:");
    let mut asked = site.json(&["plan", CAMPAIGN, "--sql"]).await;
    assert_eq!(site.json(&["count", CAMPAIGN]).await["audience"], 70);
    let text = site.campaignd(&["plan", CAMPAIGN, "--explain"]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("EXPLAIN") && text.contains("would now plan 70 members"),
        "{text}"
    );
    for view in [&mut alone, &mut asked] {
        // Another moment, and so another id in the statement.
        for key in ["planned_at", "sql", "first_payload"] {
            let gone = view.as_object_mut().and_then(|view| view.shift_remove(key));
            assert!(gone.is_some_and(|value| !value.is_null()), "{key}");
        }
    }
    assert_eq!(asked, alone);

    // With the campaign that is in force, and problems with their exit codes.
    let broken = campaign(NEVER, 7).replace("from people", "from nowhere");
    site.write("campaigns/hello.yaml", &broken);
    site.wait_for_log("hello has changed", 1).await;
    for (name, code) in [(CAMPAIGN, 3), ("helo", 2)] {
        for verb in ["plan", "count"] {
            let output = site.campaignd(&[verb, name]).await;
            assert_eq!(
                output.status.code(),
                Some(code),
                "{verb} {name}: {output:?}"
            );
        }
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    night::check(&site).await;
}

/// The locks that processes have on a file, as the kernel lists them.
fn locks_on(path: &Path) -> Vec<String> {
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let on = all.lines().filter(|line| line.contains(&inode));
    on.map(str::to_owned).collect()
}

/// Without its lock SQLite's log would pass for a dead process's: the next who
/// closes the file takes it away, with all that is written from then on.
#[tokio::test(flavor = "multi_thread")]
async fn who_looks_through_the_daemon_leaves_it_its_lock_on_a_file() {
    let site = Site::sqlite().await;
    furnish(&site, 2, NEVER).await;
    let mut daemon = site.serve();
    site.wait_for_log("ready;", 1).await;
    let file = site.path().join("warehouse.db");
    for args in [
        &["run", CAMPAIGN][..],
        &["count", CAMPAIGN],
        &["plan", CAMPAIGN],
        &["run", CAMPAIGN],
    ] {
        let done = site.campaignd(args).await;
        assert!(done.status.success(), "{args:?}: {done:?}");
        assert!(!locks_on(&file).is_empty(), "after {args:?}");
    }
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    assert_eq!(locks_on(&file), [""; 0]);
    night::check(&site).await;
}
