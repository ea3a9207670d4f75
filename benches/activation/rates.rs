//! Requests in a second, beside what a load generator gets of the same
//! receiver: one member a batch, and an answer at once or after 50 ms.

use super::limits;
use super::postgres::ConnDetails;
use super::receiver::Receiver;
use std::path::Path;
use std::time::Duration;

/// Requests in flight: those of the load generator too.
const IN_FLIGHT: u32 = 64;

/// The audience, one of the bench's.
const MEMBERS: u32 = 10_000;

/// How long the receiver takes.
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(50)];

/// A line for each delay.
pub(super) async fn rates(database: &ConnDetails, receiver: &Receiver) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    super::write_files(dir.path(), database, receiver.port());
    let name = format!("audience-{MEMBERS}");
    let file = format!("campaigns/{name}.yaml");
    change(&dir.path().join(file), "batch_size: ", 1);
    let settings = dir.path().join("campaignd.yaml");
    change(&settings, "max_in_flight: ", IN_FLIGHT);
    let mut lines = Vec::new();
    for delay in DELAYS {
        receiver.delay(delay);
        receiver.record();
        super::run_ours(dir.path(), &name).await;
        let ours = receiver.rate();
        let bodies = receiver.recorded();
        assert_eq!(bodies.len(), MEMBERS as usize, "every batch came once");
        let took = limits::post(&bodies, receiver.port(), IN_FLIGHT).await;
        let generator = f64::from(MEMBERS) / took.as_secs_f64();
        let took = limits::post_by_client(&bodies, receiver.port(), IN_FLIGHT).await;
        let client = f64::from(MEMBERS) / took.as_secs_f64();
        lines.push(format!(
            "batch 1, {IN_FLIGHT} in flight, answers after {delay:?}: {ours:.0} requests/s, \
             the HTTP client alone {client:.0}: ratio {:.2}, bare sockets {generator:.0}: ratio {:.2}",
            ours / client,
            ours / generator
        ));
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
