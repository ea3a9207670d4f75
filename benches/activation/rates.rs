//! Requests in a second, beside what a load generator gets of the same
//! receiver: one member a batch, and an answer at once or after 50 ms.

use super::limits;
use super::postgres::ConnDetails;
use super::receiver::Receiver;
use std::path::Path;
use std::time::Duration;

/// Requests in flight: those of the load generator too.
const IN_FLIGHT: u32 = 64;

/// How long the receiver takes, and the audience, one of the bench's: with the
/// longer time eighty seconds of requests, in which the slow start is lost.
const CASES: [(Duration, u32); 2] = [
    (Duration::ZERO, 100_000),
    (Duration::from_millis(50), 100_000),
];

/// A line for each delay.
pub(super) async fn rates(database: &ConnDetails, receiver: &Receiver) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    super::write_files(dir.path(), database, receiver.port());
    let settings = dir.path().join("campaignd.yaml");
    change(&settings, "max_in_flight: ", IN_FLIGHT);
    let mut lines = Vec::new();
    for (delay, members) in CASES {
        let name = format!("audience-{members}");
        let file = format!("campaigns/{name}.yaml");
        change(&dir.path().join(file), "batch_size: ", 1);
        receiver.delay(delay);
        receiver.record();
        super::run_ours(dir.path(), &name).await;
        let ours = receiver.rate();
        let bodies = receiver.recorded();
        assert_eq!(bodies.len(), members as usize, "every batch came once");
        // What is kept of a body costs the receiver the same each time.
        receiver.record();
        let took = limits::post(&bodies, receiver.port(), IN_FLIGHT).await;
        let generator = f64::from(members) / took.as_secs_f64();
        let took = limits::post_by_client(&bodies, receiver.port(), IN_FLIGHT).await;
        let client = f64::from(members) / took.as_secs_f64();
        receiver.recorded();
        let mut line = format!(
            "batch 1, {IN_FLIGHT} in flight, answers after {delay:?}: {ours:.0} requests/s, \
             the HTTP client alone {client:.0}: ratio {:.2}, bare sockets {generator:.0}: ratio {:.2}",
            ours / client,
            ours / generator
        );
        if !delay.is_zero() {
            let most = f64::from(IN_FLIGHT) / delay.as_secs_f64();
            line += &format!(", in flight ÷ delay {most:.0}: ratio {:.2}", ours / most);
        }
        lines.push(line);
    }
    receiver.delay(Duration::ZERO);
    lines
}

/// Puts another number behind `key`.
fn change(path: &Path, key: &str, number: u32) {
    let text = std::fs::read_to_string(path).expect("the file is there");
    let (before, behind) = text.split_once(key).expect("it has the key");
    let rest = behind.trim_start_matches(|c: char| c.is_ascii_digit());
    let changed = format!("{before}{key}{number}{rest}");
    std::fs::write(path, changed).expect("the file is written");
}
