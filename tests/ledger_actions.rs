//! What people asked for and what is paused, on both ledgers, and in stores
//! that an earlier version has left.

use crate::support;

use campaignd::ledger::{PostgresLedger, SqliteLedger};
use campaignd::run::{Action, Ledger, PauseChange, Paused};
use jiff::Timestamp;
use support::ledger::{open, options};
use support::postgres::Postgres;
use support::site::{TextRow, postgres_rows, sqlite_rows};

const ACTIONS: &str = "select target, outcome from actions order by at, target, outcome";

fn minute(n: u32) -> Timestamp {
    format!("2026-11-22T09:{n:02}:00Z")
        .parse()
        .expect("an instant")
}

fn action(target: &str, outcome: Option<&str>) -> Action {
    Action {
        by: "ada".to_owned(),
        verb: "resume".to_owned(),
        target: target.to_owned(),
        outcome: outcome.map(str::to_owned),
        at: minute(1),
    }
}

fn pause(scope: &str, by: &str, at: Timestamp) -> PauseChange {
    PauseChange {
        scope: scope.parse().expect("a scope"),
        paused: true,
        by: by.to_owned(),
        at,
    }
}

/// One command that ended, one that did not, one that was refused at once; and
/// a pause that was said twice.
async fn fill(ledger: &dyn Ledger) {
    let noted = [
        ("a", None),
        ("b", None),
        ("a", Some("done")),
        ("c", Some("refused: no")),
    ];
    for (target, outcome) in noted {
        let action = action(target, outcome);
        ledger.note_action(action).await.expect("a note");
    }
    for (by, at) in [("ada", minute(2)), ("bob", minute(3))] {
        let change = pause("all", by, at);
        ledger.set_pause(change).await.expect("a pause");
    }
    let paused = Paused {
        scope: "all".parse().expect("a scope"),
        by: Some("ada".to_owned()),
        since: Some(minute(2)),
    };
    assert_eq!(ledger.paused().await, Ok(vec![paused]));
}

fn written(rows: &[TextRow]) -> Vec<String> {
    let cell = |row: &TextRow, column: &str| row[column].clone().unwrap_or("-".to_owned());
    rows.iter()
        .map(|row| format!("{} {}", cell(row, "target"), cell(row, "outcome")))
        .collect()
}

const FILLED: [&str; 5] = ["a done", "b -", "c refused: no", "all done", "all done"];

#[tokio::test]
async fn an_outcome_completes_what_was_asked_and_the_first_pause_counts_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.db");
    let ledger = SqliteLedger::open(&path).await.expect("a ledger");
    fill(&ledger).await;
    ledger.close().await;
    assert_eq!(written(&sqlite_rows(&path, ACTIONS).await), FILLED);

    // As the version before this one had it.
    let older = "alter table pauses drop column who; alter table pauses drop column since";
    sqlite_rows(&path, older).await;
    let reader = SqliteLedger::open_read_only(&path).await.expect("a ledger");
    unknown(&reader).await;
}

#[tokio::test]
async fn an_outcome_completes_what_was_asked_and_the_first_pause_counts_on_postgres() {
    let server = Postgres::start();
    let database = server.database("ledger");
    let ledger = open(&database).await;
    fill(&ledger).await;
    ledger.close().await;
    let actions = ACTIONS.replace("from ", "from campaignd_ledger.");
    assert_eq!(written(&postgres_rows(&database, &actions).await), FILLED);

    let older = "alter table campaignd_ledger.pauses drop column who, drop column since";
    postgres_rows(&database, older).await;
    let reader = PostgresLedger::open_read_only(&options(&database)).await;
    unknown(&reader.expect("a server").expect("a ledger")).await;
}

/// What is paused is known without the rest.
async fn unknown(ledger: &dyn Ledger) {
    let paused = Paused {
        scope: "all".parse().expect("a scope"),
        by: None,
        since: None,
    };
    assert_eq!(ledger.paused().await, Ok(vec![paused]));
}
