//! `activation` and `vars`: where members go, and in which words.

use super::compile::destination_name;
use super::file::{Activation, Known};
use super::template_parts::{failing_parts, unreadable_parts};
use super::yaml::{Field, Section, suggestion};
use crate::audience::Selected;
use crate::delivery::template::{Parsed, RUN_NAMES, RunValues, Unreadable, engine};
use crate::delivery::{Format, MAX_ATTRIBUTES_HEADER, Payload, ascii_json};
use crate::id::{CampaignName, RunId};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How many members a batch has unless the file says otherwise.
const DEFAULT_BATCH_SIZE: u32 = 500;

/// The largest batch: beyond it a refusal costs more than the requests saved.
const MAX_BATCH_SIZE: u32 = 10_000;

/// What is unsent may expire this long after the fire time.
const EXPIRIES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

/// The longest JSON pointer, in bytes.
const MAX_POINTER_BYTES: usize = 256;

/// `vars`: the campaign's own values, each one text, number or boolean; those
/// that are sound, and whether all are.
pub(super) fn vars_of(mut section: Section) -> (Map<String, Value>, bool) {
    let read: Vec<_> = section
        .named()
        .into_iter()
        .map(|(name, field)| {
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                field.error_at_key("the name of a var is letters, digits and `_`".to_owned());
                return None;
            }
            if field.is_list() || field.is_section() {
                let path = field.path();
                field.error(format!("`{path}` must be a text, a number, true or false"));
                return None;
            }
            let value = field.json()?;
            if value.is_null() {
                field.error_at_key(format!("`{}` has no value", field.path()));
                return None;
            }
            Some((name.to_owned(), value))
        })
        .collect();
    let all_sound = read.iter().all(Option::is_some);
    (read.into_iter().flatten().collect(), all_sound)
}

/// What templates are tried with before there is a run.
pub(super) fn sample_values(name: Option<&CampaignName>, vars: Map<String, Value>) -> RunValues {
    let campaign = name.cloned().unwrap_or_else(|| {
        "campaign"
            .parse()
            .expect("a plain word is a campaign's name")
    });
    let fire_time = Timestamp::UNIX_EPOCH;
    RunValues {
        run: RunId::scheduled(&campaign, fire_time),
        campaign,
        channel: "channel".to_owned(),
        fire_time,
        vars,
    }
}

/// What `activation` is checked against.
pub(super) struct Check<'a> {
    pub(super) known: &'a Known,
    pub(super) values: &'a RunValues,
    /// The columns the audience selects.
    pub(super) selected: &'a Selected,
}

/// Reads `activation`.
pub(super) fn read(mut section: Section, check: &Check) -> Option<Activation> {
    let destination_field = section.required("destination");
    let destination = destination_field.and_then(|field| destination_name(&field, check.known));
    let format = destination
        .as_ref()
        .and_then(|name| check.known.formats.get(name).copied());
    let format = format.unwrap_or_default();
    let size_field = section.optional("batch_size");
    let batch_size = size_field
        .as_ref()
        .map_or(Some(DEFAULT_BATCH_SIZE), |f| f.number(1..=MAX_BATCH_SIZE));
    let payload_field = section.optional("payload");
    let payload = payload_field.map_or(Some(Payload::default()), |field| {
        check.payload(field.section()?, format)
    });
    let expires = section.optional("expires_after");
    let expires_after_ms = expires.map_or(Some(None), |f| {
        let after = f.duration(EXPIRIES)?;
        Some(u64::try_from(after.as_millis()).ok())
    });
    let rejected_at = section.optional("rejected_at");
    let rejected_at = rejected_at.map_or(Some(None), |f| pointer(&f).map(Some));
    let has_body = payload.as_ref().is_some_and(|p| p.body.is_some());
    let why = match format {
        Format::Form => Some("its destination takes forms, which hold one member"),
        _ if has_body => Some("`activation.payload.body` holds one member"),
        _ => None,
    };
    if let (Some(why), Some(2..)) = (why, batch_size) {
        let message = format!("`activation.batch_size` must be 1: {why}");
        match &size_field {
            Some(field) => field.error(message),
            None => section.error(&message),
        }
    }
    section.finish();
    Some(Activation {
        destination: destination?,
        batch_size: NonZeroU32::new(batch_size?)?,
        payload: payload?,
        rejected_at: rejected_at?,
        expires_after_ms: expires_after_ms?,
    })
}

/// A JSON pointer (RFC 6901).
fn pointer(field: &Field) -> Option<String> {
    let text = field.text()?;
    let escapes_well = text
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    let begins_well = text.is_empty() || text.starts_with('/');
    if text.len() > MAX_POINTER_BYTES || !begins_well || !escapes_well {
        let path = field.path();
        field.error(format!(
            "`{path}` must be a JSON pointer of at most {MAX_POINTER_BYTES} bytes, as in `/rejected`"
        ));
        return None;
    }
    Some(text.to_owned())
}

impl Check<'_> {
    fn payload(&self, mut section: Section, format: Format) -> Option<Payload> {
        let member_field = section.optional("member");
        let body_field = section.optional("body");
        let attributes_field = section.optional("attributes");
        section.finish();
        if let Some(body) = &body_field {
            let others = [&member_field, &attributes_field];
            for other in others.into_iter().flatten() {
                let path = other.path();
                other.error_at_key(format!(
                    "`{path}` has no effect beside `activation.payload.body`; remove one of them"
                ));
            }
            if format == Format::Ndjson {
                body.error_at_key(
                    "the destination takes one member a line; use `activation.payload.member`"
                        .to_owned(),
                );
            }
        }
        let read = |field: &Option<Field>, of: Of| match field {
            Some(field) => self.map(field, of).map(Some),
            None => Some(None),
        };
        let member = read(&member_field, Of::Member);
        let body = read(&body_field, Of::Member);
        let attributes = read(&attributes_field, Of::Batch);
        if let (Some(field), Some(Some(map)), Format::Ndjson) =
            (&attributes_field, &attributes, format)
        {
            header_fits(field, map);
        }
        Some(Payload {
            member: member?,
            attributes: attributes?,
            body: body?,
        })
    }

    /// `contact_history.attributes`, where they go into a header.
    pub(super) fn fits_header(
        &self,
        field: &Field,
        map: &Map<String, Value>,
        activation: &Activation,
    ) {
        let format = self.known.formats.get(&activation.destination);
        if format == Some(&Format::Ndjson) && activation.payload.attributes.is_none() {
            header_fits(field, map);
        }
    }

    fn map(&self, field: &Field, of: Of) -> Option<Map<String, Value>> {
        field.section()?;
        match self.value(field, of)? {
            Value::Object(map) => Some(map),
            _ => None,
        }
    }

    /// The value as JSON, every text in it a sound template.
    fn value(&self, field: &Field, of: Of) -> Option<Value> {
        if field.is_section() {
            // Read all before giving up, so that no problem hides another.
            let entries = field.section()?.named().into_iter();
            let read: Vec<_> = entries
                .map(|(key, field)| Some((key.to_owned(), self.value(&field, of)?)))
                .collect();
            let map = read.into_iter().collect::<Option<_>>()?;
            return Some(Value::Object(map));
        }
        if field.is_list() {
            let read: Vec<_> = field.list()?.iter().map(|f| self.value(f, of)).collect();
            return read.into_iter().collect::<Option<_>>().map(Value::Array);
        }
        let value = field.json()?;
        if let Value::String(text) = &value {
            self.template(field, text, of);
        }
        Some(value)
    }

    fn template(&self, field: &Field, text: &str, of: Of) {
        let env = engine(self.values);
        let parsed = match Parsed::of(&env, text) {
            Ok(parsed) => parsed,
            Err(unreadable) => {
                for unreadable in unreadable_parts(&env, text, unreadable) {
                    unreadable_at(field, text, &unreadable);
                }
                return;
            }
        };
        let mut may_work = true;
        let mut columns = match of {
            Of::Member => self.selected.names.clone(),
            Of::Batch => Vec::new(),
        };
        for name in parsed.names() {
            let Some((is_note, message)) = self.unknown(&name, of) else {
                continue;
            };
            let (line, column) = line_and_column(text, place_of(text, &name));
            field.at_line(line, column, is_note, message);
            may_work &= is_note;
            columns.push(name);
        }
        if may_work {
            for unreadable in failing_parts(&env, text, &parsed, &columns) {
                unreadable_at(field, text, &unreadable);
            }
        }
    }

    /// What to say of a name that is neither a column nor the run's own, and
    /// whether as a note.
    fn unknown(&self, name: &str, of: Of) -> Option<(bool, String)> {
        if RUN_NAMES.contains(&name) {
            return None;
        }
        if let Of::Batch = of {
            let message = format!(
                "`{name}` is not known here: attributes are of a whole batch, and have no columns"
            );
            return Some((false, message));
        }
        let selected = &self.selected.names;
        if selected
            .iter()
            .any(|column| column.eq_ignore_ascii_case(name))
        {
            return None;
        }
        if !self.selected.is_whole {
            let message = format!(
                "whether `{name}` is a selected column cannot be told from the SQL; the run will tell"
            );
            return Some((true, message));
        }
        let known = selected.iter().map(String::as_str).chain(RUN_NAMES);
        let right = match suggestion(name, known) {
            nothing if nothing.is_empty() => "; select it".to_owned(),
            right => right,
        };
        Some((false, format!("`{name}` is not a selected column{right}")))
    }
}

/// Whose templates they are.
#[derive(Clone, Copy)]
enum Of {
    Member,
    Batch,
}

fn header_fits(field: &Field, map: &Map<String, Value>) {
    let json = serde_json::to_string(map).map_or(0, |json| ascii_json(&json).len());
    if json > MAX_ATTRIBUTES_HEADER {
        field.error_at_key(format!(
            "the attributes take {json} bytes as a header, and at most {MAX_ATTRIBUTES_HEADER} are \
             sent with `format: ndjson`; make them shorter"
        ));
    }
}

/// Reports what is wrong with the template `text` in `field`, at its place.
pub(super) fn unreadable_at(field: &Field, text: &str, unreadable: &Unreadable) {
    let (line, column) = line_and_column(text, unreadable.at);
    field.at_line(line, column, false, unreadable.message.clone());
}

/// The line and column (in characters), from 1, of the byte `at`.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// The byte at which `name` stands in the template as a word of its own.
pub(super) fn place_of(template: &str, name: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let begin = template.find("{{").into_iter().chain(template.find("{%"));
    let begin = begin.min().unwrap_or(0);
    let found = template[begin..].match_indices(name).find(|(at, _)| {
        let (before, after) = (
            &template[..begin + at],
            &template[begin + at + name.len()..],
        );
        !before.ends_with(is_word) && !after.starts_with(is_word)
    });
    found.map_or(begin, |(at, _)| begin + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::{Campaign, DestinationTerms, RunSpec, Source, compile};
    use serde_json::json;

    fn campaign(activation: &str) -> Campaign {
        let text = format!(
            "name: winback
connector: sandbox
schedule: {{ cron: '0 9 * * *', timezone: UTC }}
vars: {{ shop: north, n: 5, on: true }}
audience: {{ key: id, sql: 'select id, Email from t' }}
activation: {{ destination: email-esp, batch_size: 1{activation} }}
"
        );
        let known = Known {
            connectors: ["sandbox".parse().unwrap()].into(),
            destinations: ["email-esp".parse().unwrap()].into(),
            ..Known::default()
        };
        let source = Source {
            name: "f",
            text: &text,
        };
        let (campaign, notes) = compile(&source, &known).unwrap();
        assert_eq!(notes, []);
        campaign
    }

    fn spec(campaign: &Campaign) -> RunSpec {
        let terms = DestinationTerms {
            channel: "email".to_owned(),
            max_body: 1024,
            format: Format::Json,
        };
        RunSpec::of(campaign, &terms)
    }

    #[test]
    fn what_a_campaign_says_is_frozen_with_its_runs() {
        let said = campaign(
            ", expires_after: 12h, rejected_at: /data/rejected~1now,
             payload: { member: { to: '{{ email }}', n: [ 1, '{{ var(\"n\") }}', null ] } }",
        );
        let spec = spec(&said);
        assert_eq!(spec.expires_after_ms, Some(12 * 3_600_000));
        assert_eq!(spec.rejected_at.as_deref(), Some("/data/rejected~1now"));
        assert_eq!(
            Value::Object(spec.payload.member.clone().unwrap()),
            json!({"to": "{{ email }}", "n": [1, "{{ var(\"n\") }}", null]})
        );
        assert_eq!(
            Value::Object(spec.vars.clone()),
            json!({"n": 5, "on": true, "shop": "north"})
        );
        assert_eq!(RunSpec::from_json(&spec.to_json()).unwrap(), spec);
    }

    #[test]
    fn what_a_campaign_does_not_say_is_not_stored() {
        let mut silent = campaign("");
        silent.vars.clear();
        let json = spec(&silent).to_json();
        for key in ["payload", "vars", "format", "rejected_at", "expires_after"] {
            assert!(!json.contains(key), "{json}");
        }
    }

    #[test]
    fn a_name_is_found_where_it_stands_by_itself() {
        assert_eq!(place_of("a {{ ab + a }}", "a"), 10);
        assert_eq!(line_and_column("\u{e9}\n\u{e9}x", 5), (2, 2));
    }
}
