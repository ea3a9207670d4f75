//! State stores that earlier versions left, taken up by this one.

use crate::support;

use support::oracle;
use support::site::{Site, sqlite_rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_left_open_by_the_first_state_store_is_carried_to_its_end() {
    let site = Site::new("upgrade").await;
    site.sql(
        "create table people as select 'p-' || n as profile_id, n from generate_series(1, 50) n",
    )
    .await;
    let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(output.status.success());
    let store = site.path().join("state.db");
    std::fs::copy("tests/fixtures/state-v1.db", &store).unwrap();
    let before = sqlite_rows(&store, "select run_id, state from runs").await;
    assert_eq!(before[0]["state"].as_deref(), Some("staging"));
    let mut daemon = site.serve();
    let runs = site
        .wait_for_row("select run_id from campaignd.runs where status = 'finished'")
        .await;
    daemon.signal("TERM").await;
    assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    oracle::check(&site).await;
    assert_eq!(runs[0]["run_id"], before[0]["run_id"]);
    assert_eq!(site.receiver.members().len(), 50);
    let after = sqlite_rows(&store, "select state, term from runs").await;
    assert_eq!(after[0]["state"].as_deref(), Some("finished"));
    assert_eq!(after[0]["term"].as_deref(), Some("1"));
}
