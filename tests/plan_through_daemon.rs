//! `plan` and `count` beside a running daemon: it is the one that asks.

use crate::support;

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
