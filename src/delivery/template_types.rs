//! Whether templates fit the types of the columns they use: tried on values
//! that nobody has, of each type.

use super::page::Kind;
use super::template::{Parsed, RunValues, engine, render_text};
use super::template_payload::{Payload, cell_value, column_at};
use super::template_value::write_engine_value;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};
use serde_json::Map;

/// A template and the types of its columns do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The template's path in the campaign file.
    pub key: String,
    /// What comes of it, and the one thing to do.
    pub message: String,
    /// Whether members are sent all the same, and perhaps as is meant.
    pub is_note: bool,
}

/// What a column of each kind is tried with. The decimals are those that a
/// floating-point number is written as too.
const SAMPLES: usize = 6;
const INTEGERS: [&str; SAMPLES] = ["1", "7", "100", "100000", "-5", "12"];
const NUMBERS: [&str; SAMPLES] = ["1.5", "7.25", "100.5", "100000.5", "-5.5", "12.75"];
const BOOLEANS: [&str; SAMPLES] = ["true", "false", "true", "false", "true", "false"];
const INSTANT: &str = "2026-01-02 03:04:05";
const JSON: &str = "{\"cd_json\":1}";

/// What does not fit in `payload`, by the columns of the campaign's query and
/// what their cells are.
pub fn misfits(payload: &Payload, values: &RunValues, columns: &[(String, Kind)]) -> Vec<Misfit> {
    let env = engine(values);
    let parts = [("member", &payload.member), ("body", &payload.body)];
    let mut found = Vec::new();
    for (name, map) in parts {
        if let Some(map) = map {
            let trial = Trial { env: &env, columns };
            trial.map(&format!("activation.payload.{name}"), map, &mut found);
        }
    }
    found
}

/// How decimals are handed to a template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decimals {
    Exact,
    Rounded,
}

struct Trial<'c> {
    env: &'c Environment<'c>,
    columns: &'c [(String, Kind)],
}

impl<'c> Trial<'c> {
    fn map(&self, path: &str, map: &'c Map<String, serde_json::Value>, found: &mut Vec<Misfit>) {
        for (name, value) in map {
            self.value(&format!("{path}.{name}"), value, found);
        }
    }

    fn value(&self, path: &str, value: &'c serde_json::Value, found: &mut Vec<Misfit>) {
        match value {
            serde_json::Value::String(text) => {
                let misfit = self.template(text);
                found.extend(misfit.map(|(message, is_note)| Misfit {
                    key: path.to_owned(),
                    message,
                    is_note,
                }));
            }
            serde_json::Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.value(&format!("{path}[{at}]"), item, found);
                }
            }
            serde_json::Value::Object(map) => self.map(path, map, found),
            _ => {}
        }
    }

    /// What is wrong with a template, and whether as a note.
    fn template(&self, text: &'c str) -> Option<(String, bool)> {
        // One that cannot be read is for the file's own check.
        let parsed = Parsed::of(self.env, text).ok()?;
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let used: Vec<(String, &str, Kind)> = parsed
            .names()
            .into_iter()
            .filter_map(|name| {
                let (column, kind) = self.columns.get(column_at(&names, &name)?)?;
                Some((name, column.as_str(), *kind))
            })
            .collect();
        inexact(&parsed, &used)
            .or_else(|| unworkable(&parsed, &used))
            .map(|message| (message, false))
            .or_else(|| Some((json_in_text(&parsed, &used)?, true)))
    }
}

/// Exact decimals that it calculates with, which fails, or compares, which
/// comes out wrong: it works otherwise with the numbers nearest to them.
fn inexact(parsed: &Parsed, used: &[(String, &str, Kind)]) -> Option<String> {
    let decimals = used.iter().filter(|(_, _, kind)| *kind == Kind::Decimal);
    let decimals: Vec<&str> = decimals.map(|(_, column, _)| *column).collect();
    let first = decimals.first()?;
    let differs = |sample| {
        let exact = outcome(parsed, used, sample, Decimals::Exact);
        let rounded = outcome(parsed, used, sample, Decimals::Rounded);
        rounded.is_ok() && exact != rounded
    };
    (0..SAMPLES).any(differs).then(|| {
        format!(
            "it calculates with or compares {}, an exact decimal, which comes out wrong or \
             not at all; write `{first} | float` there",
            listed(&decimals)
        )
    })
}

/// What it does that values of these types do not allow, whatever they are.
fn unworkable(parsed: &Parsed, used: &[(String, &str, Kind)]) -> Option<String> {
    // What a text or JSON holds is not known.
    let is_known = |kind: Kind| !matches!(kind, Kind::Text | Kind::Json | Kind::Null);
    if used.is_empty() || !used.iter().all(|(_, _, kind)| is_known(*kind)) {
        return None;
    }
    let fails = |sample| {
        let tried = outcome(parsed, used, sample, Decimals::Rounded);
        tried.is_err_and(|kind| kind != ErrorKind::UndefinedError)
    };
    let columns: Vec<String> = used
        .iter()
        .map(|(_, column, kind)| format!("`{column}` as {}", word(*kind)))
        .collect();
    (0..SAMPLES).all(fails).then(|| {
        format!(
            "it does not work with {}; cast it in `audience.sql`, or change the template",
            columns.join(" and ")
        )
    })
}

/// JSON that is written out within other text.
fn json_in_text(parsed: &Parsed, used: &[(String, &str, Kind)]) -> Option<String> {
    if !matches!(parsed, Parsed::Text(_)) {
        return None;
    }
    let (name, column, _) = used.iter().find(|(_, _, kind)| *kind == Kind::Json)?;
    let text = outcome(parsed, used, 0, Decimals::Rounded).ok()?;
    let is_whole = text.replace(' ', "").contains(JSON);
    is_whole.then(|| {
        format!(
            "`{column}` is JSON, and within text it is written as JSON; name a field of it, as in \
             `{name}.name`, or let it stand alone"
        )
    })
}

fn outcome(
    parsed: &Parsed,
    used: &[(String, &str, Kind)],
    sample: usize,
    decimals: Decimals,
) -> Result<String, ErrorKind> {
    let value = |kind: Kind| match kind {
        Kind::Integer => cell_value(kind, INTEGERS[sample]),
        Kind::Decimal if decimals == Decimals::Rounded => cell_value(Kind::Float, NUMBERS[sample]),
        Kind::Decimal | Kind::Float => cell_value(kind, NUMBERS[sample]),
        Kind::Bool => cell_value(kind, BOOLEANS[sample]),
        Kind::Timestamp => cell_value(kind, INSTANT),
        Kind::TimestampTz => cell_value(kind, &format!("{INSTANT}+00")),
        Kind::Json => cell_value(kind, JSON),
        Kind::Text | Kind::Null => Value::from("1"),
    };
    let columns = used
        .iter()
        .map(|(name, _, kind)| (name.as_str(), value(*kind)));
    let batch = std::iter::once(("batch", Value::from(1)));
    let scope = Value::from_pairs(batch.chain(columns));
    match parsed {
        Parsed::Fixed => Ok(String::new()),
        Parsed::Expression(expression) => {
            let value = expression.eval(scope).map_err(|error| error.kind())?;
            let mut json = Vec::new();
            write_engine_value(&mut json, &value).ok_or(ErrorKind::UndefinedError)?;
            Ok(String::from_utf8_lossy(&json).into_owned())
        }
        Parsed::Text(template) => render_text(template, scope).map_err(|error| error.kind()),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::Integer => "a whole number",
        Kind::Decimal => "an exact decimal",
        Kind::Float => "a floating-point number",
        Kind::Timestamp | Kind::TimestampTz => "a timestamp",
        Kind::Json => "JSON",
        Kind::Text | Kind::Null => "text",
    }
}

fn listed(columns: &[&str]) -> String {
    let quoted: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
    quoted.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;
    use serde_json::json;

    /// What is said of the template `text`: `-` in front of a note.
    fn said(text: &str) -> Option<String> {
        let campaign: crate::id::CampaignName = "winback".parse().unwrap();
        let fire_time = "2026-11-22T14:00:00Z".parse().unwrap();
        let values = RunValues {
            run: RunId::scheduled(&campaign, fire_time),
            campaign,
            channel: "email".to_owned(),
            fire_time,
            vars: Map::new(),
        };
        let columns = [
            ("Spent", Kind::Decimal),
            ("visits", Kind::Integer),
            ("score", Kind::Float),
            ("active", Kind::Bool),
            ("seen_at", Kind::Timestamp),
            ("prefs", Kind::Json),
            ("name", Kind::Text),
        ];
        let columns = columns.map(|(name, kind)| (name.to_owned(), kind));
        let payload = Payload {
            member: json!({ "deep": [{ "to": text }] }).as_object().cloned(),
            ..Payload::default()
        };
        let mut found = misfits(&payload, &values, &columns);
        assert!(found.len() <= 1, "{found:?}");
        let misfit = found.pop()?;
        assert_eq!(misfit.key, "activation.payload.member.deep[0].to");
        let mark = if misfit.is_note { "-" } else { "" };
        Some(format!("{mark}{}", misfit.message))
    }

    #[test]
    fn what_fits_is_not_spoken_of() {
        for text in [
            "{{ spent }}",
            "paid {{ spent }} on {{ seen_at }}",
            "{{ 'gold' if spent | float > 100 else 'basic' }}",
            "{{ spent | float + visits }}",
            "{{ spent | string | length }}",
            "{{ visits + 1 }} {{ score | round }}",
            "{{ 10 / (visits - 7) }}",
            "{{ ['a', 'b'][visits] }}",
            "{{ 'yes' if active else 'no' }}",
            "{{ seen_at[:10] }}",
            "{{ prefs }}",
            "likes {{ prefs.colour | default('none') }}",
            "{% for key in prefs %}{{ key }} {% endfor %}",
            "{{ name | float + 1 }}",
            "{{ name.nothing }}",
            "hello {{ name }} of {{ campaign }}",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn exact_decimals_that_are_calculated_with_or_compared_are_told_of() {
        for text in [
            "{{ spent + 1 }}",
            "{{ spent | round }}",
            "{{ 'gold' if spent > 100 else 'basic' }}",
            "{{ spent }}, {% if spent > 100 %}gold{% endif %}",
            "{{ name }} {{ spent - visits }}",
        ] {
            let said = said(text).unwrap_or_default();
            assert!(said.contains("`Spent`, an exact decimal"), "{text}: {said}");
            assert!(
                said.ends_with("write `Spent | float` there"),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn what_no_value_of_a_type_allows_is_told_of() {
        for (text, column) in [
            ("{{ seen_at | round }}", "`seen_at` as a timestamp"),
            ("{{ seen_at - 1 }}", "`seen_at` as a timestamp"),
            (
                "{{ days_ago(score) }}",
                "`score` as a floating-point number",
            ),
        ] {
            let said = said(text).unwrap_or_default();
            assert!(said.contains(column), "{text}: {said}");
            assert!(said.ends_with("or change the template"), "{text}: {said}");
        }
    }

    #[test]
    fn json_within_text_is_noted() {
        let said = said("likes {{ prefs }}").unwrap_or_default();
        assert!(said.starts_with("-`prefs` is JSON"), "{said}");
    }
}
