//! A batch as the bytes of its request: rendered once, the same each time it
//! is rendered again.

use super::format::Format;
use super::mask::masked;
use super::page::Page;
use super::special::Special;
use super::template::RunValues;
use super::template_payload::{Payload, RenderError};
use super::value::{write_string, write_value};
use crate::id::{BatchPath, CampaignName, RunId};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::io::Write;
use std::ops::Range;

/// What every batch of a run says besides its members.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The campaign.
    pub campaign: CampaignName,
    /// The run.
    pub run: RunId,
    /// The nominal instant the run is for.
    pub fire_time: Timestamp,
    /// How its members are reached.
    pub channel: String,
    /// Batches of the run, splits not counted.
    pub batches: u32,
    /// The campaign's own attributes.
    pub attributes: Map<String, Value>,
}

/// What a campaign or its destination changes in the usual body.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// The campaign's own templates.
    pub payload: Payload,
    /// The form of the body.
    pub format: Format,
    /// What `var` gives in templates.
    pub vars: Map<String, Value>,
}

/// Renders a run's batches. What all of them share is prepared once.
pub struct Renderer {
    /// From the start to the batch's number.
    head: Vec<u8>,
    /// From behind `part` to the first member.
    middle: Vec<u8>,
    /// Where in `middle` the attributes begin.
    attributes_at: usize,
    /// None for the usual body.
    special: Option<Special>,
}

/// Between the attributes and the first member.
const MEMBERS: &[u8] = b",\"members\":[";

impl Renderer {
    /// Prepares the batches of one run.
    pub fn new(envelope: &Envelope) -> Self {
        let mut head = Vec::new();
        let mut string = |key: &str, value: &str| {
            head.extend_from_slice(key.as_bytes());
            write_string(&mut head, value);
        };
        let fire_time = envelope.fire_time.to_string();
        string("{\"type\":", "campaign.activation");
        string(",\"timestamp\":", &fire_time);
        string(",\"data\":{\"campaign\":", envelope.campaign.as_str());
        string(",\"run_id\":", envelope.run.as_str());
        string(",\"fire_time\":", &fire_time);
        string(",\"channel\":", &envelope.channel);
        head.extend_from_slice(b",\"batch\":");

        let mut middle = Vec::new();
        append(
            &mut middle,
            format_args!(",\"batches\":{},\"attributes\":", envelope.batches),
        );
        let attributes_at = middle.len();
        serde_json::to_writer(&mut middle, &envelope.attributes)
            .expect("a map with text keys is JSON");
        middle.extend_from_slice(MEMBERS);
        Self {
            head,
            middle,
            attributes_at,
            special: None,
        }
    }

    /// Prepares the batches of one run, in the given shape.
    pub fn of(envelope: &Envelope, shape: Shape) -> Self {
        let usual = Self::new(envelope);
        if shape.payload.is_empty() && shape.format.is_json() {
            return usual;
        }
        let special = Special {
            payload: shape.payload,
            format: shape.format,
            values: RunValues {
                campaign: envelope.campaign.clone(),
                run: envelope.run.clone(),
                channel: envelope.channel.clone(),
                fire_time: envelope.fire_time,
                vars: shape.vars,
            },
            batches: envelope.batches,
            attributes: envelope.attributes.clone(),
            is_masked: false,
        };
        Self {
            special: Some(special),
            ..usual
        }
    }

    /// The `Content-Type` of its requests.
    pub fn content_type(&self) -> &'static str {
        let format = self.special.as_ref().map(|special| special.format);
        format.unwrap_or_default().content_type()
    }

    /// The headers that carry the envelope of the batch `path`, where the body
    /// does not: name and visible ASCII.
    pub fn headers(&self, path: &BatchPath) -> Result<Vec<(&'static str, String)>, RenderError> {
        match &self.special {
            Some(special) if special.format == Format::Ndjson => special.headers(path),
            _ => Ok(Vec::new()),
        }
    }

    /// The batch `path` of the page's members at `rows`; an error where a
    /// template of the campaign does not fit one of them.
    pub fn render(
        &self,
        path: &BatchPath,
        page: &Page,
        rows: Range<usize>,
    ) -> Result<Bytes, RenderError> {
        match &self.special {
            None => Ok(self.render_usual(path, page, rows)),
            Some(special) => match special.format {
                Format::Json => self.render_json(special, path, page, rows),
                Format::Ndjson => special.render_ndjson(path, page, rows),
                Format::Form => special.render_form(path, page, rows),
            },
        }
    }

    /// The same with every letter and digit of a member's values an `x`, for a
    /// person to see. Templates are given the true values and what comes of
    /// them is masked, so that they work as they will.
    pub fn render_masked(
        mut self,
        path: &BatchPath,
        page: &Page,
        rows: Range<usize>,
    ) -> Result<Bytes, RenderError> {
        match &mut self.special {
            Some(special) if special.has_templates() => {
                special.is_masked = true;
                self.render(path, page, rows)
            }
            _ => self.render(path, &masked(page), rows),
        }
    }

    fn render_usual(&self, path: &BatchPath, page: &Page, rows: Range<usize>) -> Bytes {
        let keys = Keys::of(page);
        let mut out = Vec::with_capacity(self.size_hint(&keys, page, rows.clone()));
        out.extend_from_slice(&self.head);
        append(&mut out, format_args!("{},\"part\":", path.batch));
        write_string(&mut out, &path.part);
        out.extend_from_slice(&self.middle);
        let first = rows.start;
        for index in rows {
            if index != first {
                out.push(b',');
            }
            write_member(&mut out, &keys, page, index);
        }
        out.extend_from_slice(b"]}}");
        out.into()
    }

    fn render_json(
        &self,
        special: &Special,
        path: &BatchPath,
        page: &Page,
        rows: Range<usize>,
    ) -> Result<Bytes, RenderError> {
        let mut out = Vec::new();
        if special.payload.body.is_some() {
            let index = special.only(path, &rows)?;
            special.write_members(&mut out, path.batch, page, index..index + 1, b"")?;
            return Ok(out.into());
        }
        out.extend_from_slice(&self.head);
        append(&mut out, format_args!("{},\"part\":", path.batch));
        write_string(&mut out, &path.part);
        out.extend_from_slice(&self.middle[..self.attributes_at]);
        out.extend_from_slice(&special.attributes(path.batch)?);
        out.extend_from_slice(MEMBERS);
        special.write_members(&mut out, path.batch, page, rows, b",")?;
        out.extend_from_slice(b"]}}");
        Ok(out.into())
    }

    /// Bytes the batch takes when nothing in it needs escaping.
    fn size_hint(&self, keys: &Keys, page: &Page, rows: Range<usize>) -> usize {
        /// The batch's number and part, and the end.
        const AROUND: usize = 100;
        /// Quotes around a value, or what a timestamp gains.
        const PER_CELL: usize = 3;
        let members = rows.len() * (keys.text.len() + keys.ends.len() * PER_CELL + 3);
        let cells: usize = rows
            .flat_map(|index| page.row(index).cells().map(|(_, text)| text.len()))
            .sum();
        self.head.len() + self.middle.len() + members + cells + AROUND
    }
}

/// A page's columns as JSON keys, `"name":`, end to end.
pub(super) struct Keys {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    pub(super) fn of(page: &Page) -> Self {
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(page.columns().len());
        for column in page.columns().iter() {
            write_string(&mut text, column);
            text.push(b':');
            ends.push(text.len());
        }
        Self { text, ends }
    }
}

pub(super) fn write_member(out: &mut Vec<u8>, keys: &Keys, page: &Page, index: usize) {
    out.push(b'{');
    let mut start = 0;
    for ((kind, text), &end) in page.row(index).cells().zip(&keys.ends) {
        if start > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&keys.text[start..end]);
        start = end;
        write_value(out, kind, text);
    }
    out.push(b'}');
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::super::page::Kind;
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn envelope() -> Envelope {
        let Value::Object(attributes) = json!({"offer": "winback10", "tier": {"a": 1}}) else {
            unreachable!("an object was written");
        };
        Envelope {
            campaign: "winback-lapsed-buyers".parse().unwrap(),
            run: "winback-lapsed-buyers@20261122T140000Z".parse().unwrap(),
            fire_time: "2026-11-22T14:00:00Z".parse().unwrap(),
            channel: "email".to_owned(),
            batches: 20,
            attributes,
        }
    }

    fn page() -> Page {
        let columns: Vec<String> = ["profile_id", "first \"name\"", "total"]
            .map(str::to_owned)
            .into();
        let mut page = Page::new(Arc::from(columns));
        for (id, name, total) in [
            ("p-1", "Ada", "12.50"),
            ("p-2", "Zoë 🦊\n", "7"),
            ("p-3", "", "8"),
        ] {
            page.push(Kind::Text, id);
            page.push(Kind::Text, name);
            page.push(Kind::Decimal, total);
        }
        page
    }

    #[test]
    fn a_batch_has_the_promised_bytes() {
        let path: BatchPath = "3.01".parse().unwrap();
        let body = Renderer::new(&envelope())
            .render(&path, &page(), 0..2)
            .unwrap();
        let expect = concat!(
            r#"{"type":"campaign.activation","timestamp":"2026-11-22T14:00:00Z","#,
            r#""data":{"campaign":"winback-lapsed-buyers","#,
            r#""run_id":"winback-lapsed-buyers@20261122T140000Z","#,
            r#""fire_time":"2026-11-22T14:00:00Z","channel":"email","#,
            r#""batch":3,"part":"01","batches":20,"#,
            r#""attributes":{"offer":"winback10","tier":{"a":1}},"#,
            r#""members":[{"profile_id":"p-1","first \"name\"":"Ada","total":12.50},"#,
            r#"{"profile_id":"p-2","first \"name\"":"Zoë 🦊\n","total":7}]}}"#,
        );
        assert_eq!(std::str::from_utf8(&body).unwrap(), expect);
    }

    #[test]
    fn a_batch_from_the_middle_of_a_page_holds_its_own_members_only() {
        let body = Renderer::new(&envelope())
            .render(&BatchPath::whole(2), &page(), 1..3)
            .unwrap();
        let read: Value = serde_json::from_slice(&body).unwrap();
        let members = read["data"]["members"].as_array().unwrap();
        let ids: Vec<_> = members.iter().map(|m| &m["profile_id"]).collect();
        assert_eq!(ids, ["p-2", "p-3"]);
        assert_eq!(read["data"]["part"], "");
    }

    #[test]
    fn a_batch_without_members_is_still_one_json_value() {
        let body = Renderer::new(&envelope())
            .render(&BatchPath::whole(1), &page(), 1..1)
            .unwrap();
        let read: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["data"]["members"], json!([]));
    }

    #[test]
    fn plain_text_never_makes_the_buffer_grow() {
        let renderer = Renderer::new(&envelope());
        let page = page();
        let hint = renderer.size_hint(&Keys::of(&page), &page, 0..3);
        let body = renderer.render(&BatchPath::whole(1), &page, 0..3).unwrap();
        assert!(
            body.len() <= hint && hint < body.len() + 150,
            "{hint} for {}",
            body.len()
        );
    }
}
