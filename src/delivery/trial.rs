//! The message that tries a destination out: signed and shaped as any other,
//! about nobody.

use crate::id::RunId;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

/// The body of a test message: the envelope of a run's only batch with
/// `"test":true` in its data, and one member who does not exist.
pub fn trial_body(run: &RunId, at: Timestamp, channel: &str) -> Bytes {
    let at = at.to_string();
    let body = json!({
        "type": "campaign.activation",
        "timestamp": at,
        "data": {
            "campaign": "destination-test",
            "run_id": run.as_str(),
            "fire_time": at,
            "channel": channel,
            "batch": 1,
            "part": "",
            "batches": 1,
            "test": true,
            "attributes": {},
            "members": [{ "id": "test-member", "email": "test-member@example.invalid" }],
        },
    });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_that_it_is_a_test_and_names_nobody() {
        let run: RunId = "destination-test@20261122T140000Z".parse().unwrap();
        let at = "2026-11-22T14:00:00Z".parse().unwrap();
        let body: serde_json::Value =
            serde_json::from_slice(&trial_body(&run, at, "email")).unwrap();
        assert_eq!(body["type"], "campaign.activation");
        assert_eq!(body["data"]["test"], true);
        assert_eq!(body["data"]["run_id"], run.as_str());
        let member = body["data"]["members"][0]["email"].as_str().unwrap();
        assert!(member.ends_with(".invalid"), "{member}");
    }
}
