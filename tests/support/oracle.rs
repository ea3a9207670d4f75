//! The accounting identity, judged from outside: what the warehouse says
//! against what the receiver got. Shares nothing with `src/`.

use super::receiver::Recorded;
use super::site::{SIGNING_SECRET, Site, TextRow};
use std::collections::{BTreeMap, BTreeSet};

fn text<'a>(row: &'a TextRow, column: &str) -> &'a str {
    row.get(column)
        .unwrap_or_else(|| panic!("there is no column {column}"))
        .as_deref()
        .unwrap_or("")
}

fn number(row: &TextRow, column: &str) -> u64 {
    text(row, column).parse().unwrap()
}

/// Checks everything that must hold whatever happened. The members' key column
/// is `profile_id`.
pub async fn check(site: &Site) {
    check_with_ids(site, 1).await;
}

/// The same where a person has resolved batches as not delivered, and resumed
/// their runs: a member may have gone out under as many as `ids` ids.
pub async fn check_with_ids(site: &Site, ids: usize) {
    site.check_gate();
    let requests = site.receiver.requests();
    let history = site.sql("select * from campaignd.contact_history").await;
    let deliveries = site.sql("select * from campaignd.deliveries").await;
    let runs = site.sql("select * from campaignd.runs").await;
    for run in &runs {
        adds_up(run, &history);
    }
    requests_are_sound(&requests);
    // A run that was stopped in the middle owes history for what is open.
    let open: BTreeSet<&str> = runs
        .iter()
        .filter(|run| number(run, "still_open") > 0)
        .map(|run| text(run, "run_id"))
        .collect();
    history_is_what_was_sent(&history, &requests, &open, ids);
    batches_are_settled_once(&deliveries);
}

fn adds_up(run: &TextRow, history: &[TextRow]) {
    let id = text(run, "run_id");
    let sum = |columns: &[&str]| columns.iter().map(|c| number(run, c)).sum::<u64>();
    let withheld = [
        "suppressed",
        "capped",
        "cooling_down",
        "held_out",
        "over_limit",
    ];
    let outcomes = ["delivered", "rejected", "failed", "unknown", "cancelled"];
    let uncounted = sum(&["no_key", "bad_key", "duplicate", "planned"]);
    assert_eq!(
        number(run, "audience"),
        uncounted + sum(&withheld),
        "{id}: audience"
    );
    assert_eq!(
        number(run, "planned"),
        sum(&outcomes) + number(run, "still_open"),
        "{id}: planned"
    );
    for status in outcomes {
        let rows = history
            .iter()
            .filter(|row| text(row, "run_id") == id && text(row, "status") == status)
            .count();
        assert_eq!(
            rows as u64,
            number(run, status),
            "{id}: rows that are {status}"
        );
    }
}

/// Every signature verifies, and no id was seen with two bodies.
fn requests_are_sound(requests: &[Recorded]) {
    let mut bodies: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for request in requests {
        assert!(
            request.is_signed_with(SIGNING_SECRET),
            "request {}",
            request.number
        );
        assert_eq!(request.header("idempotency-key"), Some(request.id()));
        let body = bodies.entry(request.id()).or_insert(&request.body);
        assert_eq!(*body, request.body, "two bodies under {}", request.id());
    }
}

/// Every member received is in history under the id it was sent under, no
/// member of a run went out under two ids, and nobody is `delivered` who was
/// not received.
fn history_is_what_was_sent(
    history: &[TextRow],
    requests: &[Recorded],
    open: &BTreeSet<&str>,
    most: usize,
) {
    let mut sent: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut parts: BTreeMap<(String, String), BTreeSet<(String, String)>> = BTreeMap::new();
    let mut refused: BTreeMap<&str, bool> = BTreeMap::new();
    for request in requests {
        let (run, part) = (request.run_id(), request.part());
        *refused.entry(request.id()).or_insert(true) &=
            matches!(request.answered, 400 | 413 | 422 | 429);
        for member in request.members() {
            let key = member["profile_id"].as_str().unwrap().trim_end().to_owned();
            let member = (run.clone(), key);
            let ids = sent.entry(member.clone()).or_default();
            ids.insert(request.id().to_owned());
            let of_member = parts.entry(member).or_default();
            of_member.insert((part.clone(), request.id().to_owned()));
        }
    }
    // A second id is that of a part of what was refused for good.
    for (member, parts) in &parts {
        let all: Vec<_> = parts.iter().collect();
        for pair in all.windows(2) {
            let ((cut, id), (part, _)) = (pair[0], pair[1]);
            if cut == part {
                continue;
            }
            assert!(
                part.starts_with(cut) && refused[id.as_str()],
                "{member:?} went out in part {cut:?}, not refused, and in part {part:?}"
            );
            sent.get_mut(member).expect("it was sent").remove(id);
        }
    }
    let mut recorded = BTreeSet::new();
    for row in history {
        let member = (
            text(row, "run_id").to_owned(),
            text(row, "profile_id").to_owned(),
        );
        let status = text(row, "status");
        let ids = sent.get(&member).cloned().unwrap_or_default();
        match status {
            "delivered" => assert!(
                ids.contains(text(row, "message_id")),
                "{member:?} was not received"
            ),
            "held_out" | "suppressed" | "capped" | "cooling_down" | "over_limit" => {
                assert!(ids.is_empty(), "{member:?} is {status} and was sent");
            }
            _ => {}
        }
        let counts = matches!(status, "delivered" | "unknown");
        assert_eq!(
            matches!(text(row, "counts_as_contact"), "t" | "1"),
            counts,
            "{member:?}"
        );
        assert!(recorded.insert(member.clone()), "{member:?} has two rows");
    }
    for (member, ids) in &sent {
        assert!(ids.len() <= most, "{member:?} went out under {ids:?}");
    }
    let lost: Vec<_> = sent
        .keys()
        .filter(|member| !recorded.contains(*member) && !open.contains(member.0.as_str()))
        .take(5)
        .collect();
    assert!(lost.is_empty(), "received and not in history: {lost:?} …");
}

fn batches_are_settled_once(deliveries: &[TextRow]) {
    let mut seen = BTreeSet::new();
    for row in deliveries {
        let batch = (text(row, "run_id"), text(row, "batch"), text(row, "part"));
        assert!(seen.insert(batch), "{batch:?} has two rows in deliveries");
    }
}
