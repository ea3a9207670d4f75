//! From a campaign file's text to a campaign, or all its problems.

use super::expect::expect_of;
use super::file::{Campaign, Known};
use super::fresh::fresh_when_of;
use super::policy::{About, policy_of};
use super::schedule::schedule_of;
use super::yaml::{Document, Field, Problem, Reader, Section, Source, suggestion};
use super::{activation, sql_template};
use crate::audience::{AudienceSpec, Dialect, Expect, Policy, Selected};
use crate::delivery::template::RunValues;
use crate::id::{CampaignName, ConnectorName, DestinationName};
use serde_json::{Map, Value};
use std::str::FromStr;

/// The longest `contact_history.attributes`, as JSON: the width of its column.
const MAX_ATTRIBUTES_BYTES: usize = 4096;

/// Compiles one campaign file. A campaign comes with notes, which refuse
/// nothing; without one, all that is wrong is listed in the order of the file.
pub fn compile(source: &Source, known: &Known) -> Result<(Campaign, Vec<Problem>), Vec<Problem>> {
    let document = Document::read(source).map_err(|problem| vec![problem])?;
    let reader = Reader::new(source);
    let campaign = reader.top(&document).and_then(|top| read(top, known));
    let refused = reader.has_errors();
    let problems = reader.into_problems();
    match campaign {
        Some(campaign) if !refused => Ok((campaign, problems)),
        _ => Err(problems),
    }
}

/// The problem of a file whose campaign has the name of the one in `other`.
pub fn duplicate_name(source: &Source, name: &CampaignName, other: &str) -> Problem {
    let message = format!("`{name}` is also the name of the campaign in {other}");
    let document = match Document::read(source) {
        Ok(document) => document,
        Err(problem) => return problem,
    };
    let reader = Reader::new(source);
    if let Some(field) = reader
        .top(&document)
        .and_then(|mut top| top.optional("name"))
    {
        field.error(&message);
    }
    let found = reader.into_problems().pop();
    found.unwrap_or_else(|| Problem::of_file(source.name, message))
}

fn read(mut top: Section, known: &Known) -> Option<Campaign> {
    let name = top.required("name").and_then(|f| f.parse::<CampaignName>());
    let description = top.optional("description").and_then(|f| f.text());
    let owner = top.optional("owner").and_then(|f| f.text());
    let enabled = top.optional("enabled").map_or(Some(true), |f| f.boolean());
    let connector = top.required("connector");
    let connector = connector.and_then(|f| connector_name(&f, known));
    let dialect = known.dialect_of(connector.as_ref());
    let priority = top
        .optional("priority")
        .map_or(Some(50), |f| f.number(0..=100));
    let schedule = top
        .required("schedule")
        .and_then(|f| schedule_of(f.section()?, name.as_ref()));
    let vars = top.optional("vars");
    let (vars, vars_are_sound) = match vars {
        Some(field) => field
            .section()
            .map_or((Map::new(), false), activation::vars_of),
        None => (Map::new(), true),
    };
    let values = activation::sample_values(name.as_ref(), vars.clone());
    let (audience, selected) = top
        .required("audience")
        .and_then(|f| Some(audience(f.section()?, &values, dialect)))
        .unwrap_or_default();
    let (audience, expect) = audience.unzip();
    let activation = top.required("activation");
    let check = activation::Check {
        known,
        values: &values,
        selected: &selected,
    };
    let activation = activation.and_then(|f| activation::read(f.section()?, &check));
    let history = top.optional("contact_history");
    let attributes = history
        .as_ref()
        .map_or(Some(Map::new()), |f| attributes(f.section()?));
    if let (Some(field), Some(map), Some(activation)) = (&history, &attributes, &activation) {
        check.fits_header(field, map, activation);
    }
    let about = About {
        name: name.as_ref(),
        selected: &selected,
    };
    let (suppress, policy) = match top.optional("policy") {
        None => (Some(Vec::new()), Some(Policy::default())),
        Some(field) => match field.section() {
            None => (None, None),
            Some(mut section) => (suppress_of(&mut section), policy_of(section, &about)),
        },
    };
    if let (Some(connector), Some(policy)) = (&connector, &policy) {
        counts_elsewhere(&mut top, connector, policy, known);
    }
    let fresh_when = top.optional("fresh_when");
    let fresh_when = fresh_when.map_or(Some(None), |f| {
        fresh_when_of(f.section()?, &values, dialect).map(Some)
    });
    top.finish();
    Some(Campaign {
        name: name?,
        description: description.map(str::to_owned),
        owner: owner.map(str::to_owned),
        enabled: enabled?,
        connector: connector?,
        priority: u8::try_from(priority?).ok()?,
        schedule: schedule?,
        audience: audience?,
        activation: activation?,
        attributes: attributes?,
        suppress: suppress?,
        policy: policy?,
        vars: vars_are_sound.then_some(vars)?,
        expect: expect?,
        fresh_when: fresh_when?,
    })
}

fn connector_name(field: &Field, known: &Known) -> Option<ConnectorName> {
    let names = known.connectors.iter();
    one_of(field, "connector", names.map(|name| (name.as_str(), name)))
}

pub(super) fn destination_name(field: &Field, known: &Known) -> Option<DestinationName> {
    let names = known.destinations.iter();
    one_of(
        field,
        "destination",
        names.map(|name| (name.as_str(), name)),
    )
}

/// A name the operator has defined, or a problem with the nearest one.
fn one_of<'k, T: Clone + FromStr + 'k>(
    field: &Field,
    what: &str,
    known: impl Iterator<Item = (&'k str, &'k T)> + Clone,
) -> Option<T> {
    let text = field.text()?;
    if let Some((_, name)) = known.clone().find(|(name, _)| *name == text) {
        return Some(name.clone());
    }
    let shown: String = text.chars().take(128).collect();
    let right = match suggestion(text, known.clone().map(|(name, _)| name)) {
        nothing if nothing.is_empty() => all_of(what, known.map(|(name, _)| name)),
        right => right,
    };
    field.error(format!("unknown {what} `{shown}`{right}"));
    None
}

/// The names there are, where they are few enough to be read.
fn all_of<'k>(what: &str, known: impl Iterator<Item = &'k str>) -> String {
    let names: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => format!("; no {what} is defined"),
        1..=8 => format!("; there are {}", names.join(", ")),
        _ => String::new(),
    }
}

/// The audience with what is expected of it, and the columns it selects.
fn audience(
    mut section: Section,
    values: &RunValues,
    dialect: Dialect,
) -> (Option<(AudienceSpec, Expect)>, Selected) {
    let key = section.required("key").and_then(|f| f.filled_text());
    let sql = section.required("sql");
    let expect = section.optional("expect");
    let expect = expect.map_or(Some(Expect::default()), |f| expect_of(f.section()?));
    section.finish();
    let sql_text = sql.as_ref().and_then(|field| field.filled_text());
    let selected = match (&sql, sql_text) {
        (Some(field), Some(text)) => sql_template::check(field, text, key, (values, dialect)),
        _ => Selected::default(),
    };
    let spec = key.zip(sql_text).map(|(key, sql)| AudienceSpec {
        key: key.trim().to_owned(),
        sql: sql.to_owned(),
    });
    (spec.zip(expect), selected)
}

/// Contacts are counted where the audience is read: where the connector's
/// history is another one's, something must show them there.
fn counts_elsewhere(top: &mut Section, connector: &ConnectorName, policy: &Policy, known: &Known) {
    let (true, Some(relation)) = (policy.counts_contacts(), known.histories.get(connector)) else {
        return;
    };
    let Some(mut section) = top.optional("policy").and_then(|field| field.section()) else {
        return;
    };
    for key in ["frequency_cap", "cooldown"] {
        let Some(field) = section.optional(key) else {
            continue;
        };
        let path = field.path().to_owned();
        match relation {
            None => field.error(format!(
                "`{path}` counts contacts, and the connector `{connector}` does not see its history; \
                 ask the operator to give it a `history_relation`"
            )),
            Some(relation) => field.note(format!(
                "`{path}` is not exact: the connector `{connector}` counts a contact once {relation} shows it, \
                 so runs in the same second may both pass"
            )),
        }
    }
}

/// The relations of `policy.suppress`, each once, as they are written.
fn suppress_of(section: &mut Section) -> Option<Vec<String>> {
    let field = section.optional("suppress");
    let mut relations = Vec::new();
    let mut all_sound = true;
    for item in field.as_ref().map(Field::one_or_more).unwrap_or_default() {
        let Some(name) = item.filled_text() else {
            all_sound = false;
            continue;
        };
        if !is_relation(name) {
            let path = item.path();
            item.error(format!(
                "`{path}` must name a table or view, as in `shared.do_not_contact`"
            ));
            all_sound = false;
        } else if !relations.iter().any(|known| known == name) {
            relations.push(name.to_owned());
        }
    }
    all_sound.then_some(relations)
}

/// Up to three names with dots between, plain or in double quotes, which no
/// dialect reads as anything else.
pub fn is_relation(text: &str) -> bool {
    let mut rest = text;
    for _ in 0..3 {
        let behind = match rest.starts_with('"') {
            true => quoted_name(rest).map(|(_, behind)| behind),
            false => behind_plain_name(rest),
        };
        let Some(behind) = behind else {
            return false;
        };
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None => return behind.is_empty(),
        }
    }
    false
}

/// The longest name, in bytes: that of Redshift.
const MAX_NAME: usize = 127;

fn behind_plain_name(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (name, behind) = text.split_at(end.unwrap_or(text.len()));
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (begins_well && name.len() <= MAX_NAME).then_some(behind)
}

/// The name in double quotes that `text` begins with, in which a quote is
/// written twice, and what is behind it.
pub(super) fn quoted_name(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('"')?;
    let mut end = quoted.find('"')?;
    while quoted[end + 1..].starts_with('"') {
        end += 2 + quoted[end + 2..].find('"')?;
    }
    let name = quoted[..end].replace("\"\"", "\"");
    let is_sound = (1..=MAX_NAME).contains(&name.len()) && !name.contains(char::is_control);
    is_sound.then(|| (name, &quoted[end + 1..]))
}

fn attributes(mut section: Section) -> Option<Map<String, Value>> {
    let field = section.optional("attributes");
    section.finish();
    let Some(field) = field else {
        return Some(Map::new());
    };
    field.section()?;
    let Some(Value::Object(map)) = field.json() else {
        return None;
    };
    let bytes = serde_json::to_string(&map).map_or(0, |json| json.len());
    if bytes > MAX_ATTRIBUTES_BYTES {
        let path = field.path();
        field.error(format!(
            "`{path}` is {bytes} bytes long as JSON; at most {MAX_ATTRIBUTES_BYTES} are stored, so make them shorter"
        ));
        return None;
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_is_up_to_three_names_plain_or_in_double_quotes() {
        for sound in [
            "people",
            "a.b.c",
            "_x1",
            r#""DNC""#,
            r#"a."do not".c"#,
            r#""a.""b""#,
        ] {
            assert!(is_relation(sound), "{sound}");
        }
        let long = "x".repeat(128);
        for unsound in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a.b.c.d",
            "1a",
            "do not",
            "a;b",
            "a--",
            "a b",
            "x(1)",
            "naïve",
            r#"""#,
            r#""""#,
            r#""a"#,
            r#"a""#,
            r#""a"b"#,
            r#""a" b"#,
            "\"a\nb\"",
            long.as_str(),
        ] {
            assert!(!is_relation(unsound), "{unsound}");
        }
        assert_eq!(
            quoted_name(r#""a ""b""" desc"#),
            Some((r#"a "b""#.to_owned(), " desc"))
        );
    }
}
