//! Bodies in the campaign's own words, or in another form than JSON.

use super::format::{Form, Format, ascii_json, ascii_text};
use super::page::Page;
use super::payload::{Keys, write_member};
use super::template::{RunValues, engine};
use super::template_payload::{self as templates, Payload, Plan, RenderError};
use crate::id::BatchPath;
use bytes::Bytes;
use minijinja::Environment;
use serde_json::{Map, Value};
use std::ops::Range;

/// The longest `campaignd-attributes` header, in bytes; receivers refuse all
/// headers together beyond 8 KiB.
pub const MAX_ATTRIBUTES_HEADER: usize = 4096;

/// What it takes to render anything but the usual body.
pub(super) struct Special {
    pub(super) payload: Payload,
    pub(super) format: Format,
    pub(super) values: RunValues,
    pub(super) batches: u32,
    pub(super) attributes: Map<String, Value>,
    /// Whether members only show their shape.
    pub(super) is_masked: bool,
}

impl Special {
    /// Whether a member goes out as templates say.
    pub(super) fn has_templates(&self) -> bool {
        self.templates().is_some()
    }

    /// The templates of a member, and where they stand.
    fn templates(&self) -> Option<(&'static str, &Map<String, Value>)> {
        let body = self.payload.body.as_ref();
        let body = body.map(|map| ("activation.payload.body", map));
        let member = self.payload.member.as_ref();
        body.or_else(|| member.map(|map| ("activation.payload.member", map)))
    }

    pub(super) fn write_members(
        &self,
        out: &mut Vec<u8>,
        batch: u32,
        page: &Page,
        rows: Range<usize>,
        between: &[u8],
    ) -> Result<(), RenderError> {
        let env = engine(&self.values);
        let plan = match self.templates() {
            Some((path, map)) => Some(self.plan(&env, path, map, page)?),
            None => None,
        };
        let keys = Keys::of(page);
        let first = rows.start;
        for index in rows {
            if index != first {
                out.extend_from_slice(between);
            }
            match &plan {
                Some(plan) => plan.write(out, Some(&page.row(index)), batch)?,
                None => write_member(out, &keys, page, index),
            }
        }
        Ok(())
    }

    fn plan<'e, 's>(
        &self,
        env: &'e Environment<'s>,
        path: &str,
        map: &'s Map<String, Value>,
        page: &Page,
    ) -> Result<Plan<'e, 's>, RenderError> {
        let mut plan = Plan::of(env, path, map, page.columns())?;
        plan.is_masked = self.is_masked;
        Ok(plan)
    }

    pub(super) fn attributes(&self, batch: u32) -> Result<Vec<u8>, RenderError> {
        match &self.payload.attributes {
            Some(map) => templates::attributes(&self.values, map, batch),
            None => Ok(serde_json::to_vec(&self.attributes).expect("a map with text keys is JSON")),
        }
    }

    pub(super) fn render_ndjson(
        &self,
        path: &BatchPath,
        page: &Page,
        rows: Range<usize>,
    ) -> Result<Bytes, RenderError> {
        let mut out = Vec::new();
        let any = !rows.is_empty();
        self.write_members(&mut out, path.batch, page, rows, b"\n")?;
        if any {
            out.push(b'\n');
        }
        Ok(out.into())
    }

    pub(super) fn render_form(
        &self,
        path: &BatchPath,
        page: &Page,
        rows: Range<usize>,
    ) -> Result<Bytes, RenderError> {
        let row = page.row(self.only(path, &rows)?);
        let mut form = Form::default();
        match self.templates() {
            Some((key, map)) => {
                let env = engine(&self.values);
                let plan = self.plan(&env, key, map, page)?;
                plan.fields(&row, path.batch, |name, json| form.push(name, json))?;
            }
            None => templates::columns(page, &row, |name, json| form.push(name, json)),
        }
        Ok(form.into_bytes())
    }

    /// The one member of a batch that can have no other.
    pub(super) fn only(&self, path: &BatchPath, rows: &Range<usize>) -> Result<usize, RenderError> {
        if rows.len() == 1 {
            return Ok(rows.start);
        }
        let key = match self.format {
            Format::Form => "activation.batch_size",
            _ => "activation.payload.body",
        };
        Err(RenderError {
            key: key.to_owned(),
            reason: format!(
                "batch {path} has {} members, and the body has room for one; set `batch_size: 1`",
                rows.len()
            ),
        })
    }

    pub(super) fn headers(
        &self,
        path: &BatchPath,
    ) -> Result<Vec<(&'static str, String)>, RenderError> {
        let attributes = self.attributes(path.batch)?;
        let attributes = ascii_json(&String::from_utf8_lossy(&attributes));
        if attributes.len() > MAX_ATTRIBUTES_HEADER {
            return Err(RenderError {
                key: "activation.payload.attributes".to_owned(),
                reason: format!(
                    "they take {} bytes as a header, and at most {MAX_ATTRIBUTES_HEADER} are \
                     sent; make them shorter",
                    attributes.len()
                ),
            });
        }
        Ok(vec![
            (
                "campaignd-campaign",
                ascii_text(self.values.campaign.as_str()),
            ),
            ("campaignd-run-id", ascii_text(self.values.run.as_str())),
            ("campaignd-fire-time", self.values.fire_time.to_string()),
            ("campaignd-channel", ascii_text(&self.values.channel)),
            ("campaignd-batch", path.batch.to_string()),
            ("campaignd-part", path.part.to_string()),
            ("campaignd-batches", self.batches.to_string()),
            ("campaignd-attributes", attributes),
        ])
    }
}
