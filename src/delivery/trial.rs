//! The message that tries a destination out: signed and shaped as any other,
//! about nobody.

use super::format::Format;
use super::page::{Kind, Page};
use super::payload::{Envelope, Renderer, Shape};
use super::template_payload::RenderError;
use crate::id::{BatchPath, CampaignName, RunId};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, json};
use std::sync::Arc;

/// A test message.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its body.
    pub body: Bytes,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its other headers, where the format has any: name and visible ASCII.
    pub headers: Vec<(&'static str, String)>,
}

/// A run's only batch, with one member who does not exist, in `format`. That it
/// is a test stands where the format has room for it: `"test":true` in the
/// data of JSON, the header `campaignd-test` beside ndjson, the field `test` in
/// a form.
pub fn trial(
    campaign: &CampaignName,
    run: &RunId,
    at: Timestamp,
    channel: &str,
    format: Format,
) -> Result<Trial, RenderError> {
    if format.is_json() {
        return Ok(Trial {
            body: trial_body(campaign, run, at, channel),
            content_type: format.content_type(),
            headers: Vec::new(),
        });
    }
    let mut fields = MEMBER.to_vec();
    if format == Format::Form {
        fields.push(("test", "true"));
    }
    let names: Arc<[String]> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut page = Page::new(names);
    for (_, value) in fields {
        page.push(Kind::Text, value);
    }
    let envelope = Envelope {
        campaign: campaign.clone(),
        run: run.clone(),
        fire_time: at,
        channel: channel.to_owned(),
        batches: 1,
        attributes: Map::new(),
    };
    let shape = Shape {
        format,
        ..Shape::default()
    };
    let (renderer, path) = (Renderer::of(&envelope, shape), BatchPath::whole(1));
    let mut headers = renderer.headers(&path)?;
    if format == Format::Ndjson {
        headers.push(("campaignd-test", "true".to_owned()));
    }
    Ok(Trial {
        body: renderer.render(&path, &page, 0..1)?,
        content_type: format.content_type(),
        headers,
    })
}

/// The member who does not exist.
const MEMBER: [(&str, &str); 2] = [
    ("id", "test-member"),
    ("email", "test-member@example.invalid"),
];

/// The envelope with `"test":true` in its data.
fn trial_body(campaign: &CampaignName, run: &RunId, at: Timestamp, channel: &str) -> Bytes {
    let at = at.to_string();
    let body = json!({
        "type": "campaign.activation",
        "timestamp": at,
        "data": {
            "campaign": campaign.as_str(),
            "run_id": run.as_str(),
            "fire_time": at,
            "channel": channel,
            "batch": 1,
            "part": "",
            "batches": 1,
            "test": true,
            "attributes": {},
            "members": [MEMBER.into_iter().collect::<std::collections::BTreeMap<_, _>>()],
        },
    });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(format: Format) -> Trial {
        let campaign = "destination-test".parse().unwrap();
        let run: RunId = "destination-test@20261122T140000Z".parse().unwrap();
        let at = "2026-11-22T14:00:00Z".parse().unwrap();
        trial(&campaign, &run, at, "email", format).unwrap()
    }

    #[test]
    fn it_says_that_it_is_a_test_and_names_nobody() {
        let body: serde_json::Value = serde_json::from_slice(&of(Format::Json).body).unwrap();
        assert_eq!(body["type"], "campaign.activation");
        assert_eq!(body["data"]["test"], true);
        assert_eq!(body["data"]["run_id"], "destination-test@20261122T140000Z");
        let member = body["data"]["members"][0]["email"].as_str().unwrap();
        assert!(member.ends_with(".invalid"), "{member}");
    }

    #[test]
    fn it_says_so_in_every_format() {
        let lines = of(Format::Ndjson);
        assert_eq!(
            lines.body,
            "{\"id\":\"test-member\",\"email\":\"test-member@example.invalid\"}\n"
        );
        assert_eq!(lines.content_type, "application/x-ndjson");
        assert!(
            lines
                .headers
                .contains(&("campaignd-test", "true".to_owned()))
        );
        let form = of(Format::Form);
        assert_eq!(
            form.body,
            "id=test-member&email=test-member%40example.invalid&test=true"
        );
        assert_eq!(form.headers, []);
    }
}
