//! The `policy` of a campaign file: who of the audience is not contacted.

use super::compile::quoted_name;
use super::yaml::{Field, Section, suggestion};
use crate::audience::{FrequencyCap, Holdout, OrderBy, Policy, Selected};
use crate::id::CampaignName;
use std::ops::RangeInclusive;
use std::time::Duration;

/// For how long, in seconds, contacts can be counted: for a minute at least,
/// and for 400 days, as long as history is kept.
const COUNTED: RangeInclusive<u64> = 60..=400 * 86_400;

/// More contacts than anybody allows.
const MAX_CONTACTS: u32 = 10_000;

/// More members than any run has.
const MAX_LIMIT: u32 = 1_000_000_000;

/// The longest channel, in bytes: the width of its column.
const MAX_CHANNEL_BYTES: usize = 64;

/// The longest salt, in bytes; it is part of a statement.
const MAX_SALT_BYTES: usize = 128;

/// What the rest of the file says that a policy depends on; none of what is
/// wrong there.
pub(super) struct About<'a> {
    pub(super) name: Option<&'a CampaignName>,
    pub(super) selected: &'a Selected,
}

/// Everything of `policy` but `suppress`, which the caller has read.
pub(super) fn policy_of(mut section: Section, about: &About) -> Option<Policy> {
    let caps = section.optional("frequency_cap");
    let caps = caps.map_or(Some(Vec::new()), |field| frequency_caps(&field));
    let cooldown = section.optional("cooldown");
    let cooldown = cooldown.map_or(Some(None), |field| Some(Some(seconds(&field)?)));
    let holdout = section.optional("holdout");
    let holdout = holdout.map_or(Some(None), |field| {
        Some(Some(holdout_of(field.section()?, about.name)?))
    });
    let limit = section.optional("limit");
    let limit = limit.map_or(Some(None), |field| {
        Some(Some(u64::from(field.number(1..=MAX_LIMIT)?)))
    });
    let order_by = section.optional("order_by");
    let order_by = order_by.map_or(Some(Vec::new()), |field| order_of(&field, about.selected));
    section.finish();
    Some(Policy {
        frequency_cap: caps?,
        cooldown_secs: cooldown?,
        holdout: holdout?,
        limit: limit?,
        order_by: order_by?,
    })
}

/// All of `items` read, so that no problem hides another; nothing where one
/// has a problem.
fn all<T>(items: &[Field], read: impl Fn(&Field) -> Option<T>) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = items.iter().map(read).collect();
    read.into_iter().collect()
}

fn frequency_caps(field: &Field) -> Option<Vec<FrequencyCap>> {
    all(&field.one_or_more(), |item| {
        let mut section = item.section()?;
        let contacts = section.required("contacts");
        let contacts = contacts.and_then(|f| f.number(1..=MAX_CONTACTS));
        let within = section.required("within");
        let within = within.and_then(|f| seconds(&f));
        let channel = section.optional("channel");
        let channel = channel.map_or(Some(None), |f| Some(Some(short(&f, MAX_CHANNEL_BYTES)?)));
        section.finish();
        Some(FrequencyCap {
            contacts: contacts?,
            within_secs: within?,
            channel: channel?,
        })
    })
}

fn seconds(field: &Field) -> Option<u64> {
    let seconds = field.duration(Duration::ZERO..=Duration::MAX)?.as_secs();
    if !COUNTED.contains(&seconds) {
        let path = field.path();
        field.error(format!("`{path}` must be from 1m to 400d"));
        return None;
    }
    Some(seconds)
}

fn short(field: &Field, bytes: usize) -> Option<String> {
    let text = field.filled_text()?;
    if text.len() > bytes {
        let path = field.path();
        field.error(format!("`{path}` is longer than {bytes} bytes; shorten it"));
        return None;
    }
    Some(text.to_owned())
}

/// The salt is the campaign's name unless it is given.
fn holdout_of(mut section: Section, name: Option<&CampaignName>) -> Option<Holdout> {
    let percent = section.required("percent");
    let percent = percent.and_then(|field| basis_points(&field));
    let salt = section.optional("salt");
    let salt = salt.map(|field| short(&field, MAX_SALT_BYTES));
    section.finish();
    Some(Holdout {
        basis_points: percent?,
        salt: match salt {
            Some(salt) => salt?,
            None => name?.to_string(),
        },
    })
}

/// A percentage in hundredths of a per cent.
fn basis_points(field: &Field) -> Option<u32> {
    let value = field.json()?;
    let hundredths = value.as_f64().map(|percent| percent * 100.0);
    // A text such as `0.07` is not exactly a float.
    let whole = hundredths.filter(|h| (h - h.round()).abs() < 1e-6);
    let points = (0..=10_000).find(|&n| whole.is_some_and(|h| h.round() == f64::from(n)));
    if points.is_none() {
        let path = field.path();
        field.error(format!(
            "`{path}` must be a number from 0 to 100 with at most two decimals"
        ));
    }
    points
}

fn order_of(field: &Field, selected: &Selected) -> Option<Vec<OrderBy>> {
    // Where the text does not tell all of them, the warehouse says it.
    let columns = selected.is_whole.then_some(selected.names.as_slice());
    all(&field.one_or_more(), |item| order_term(item, columns))
}

fn order_term(field: &Field, columns: Option<&[String]>) -> Option<OrderBy> {
    let text = field.filled_text()?.trim();
    let (column, behind) = quoted_name(text).unwrap_or_else(|| {
        let (column, behind) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        (column.to_owned(), behind)
    });
    let mut words = behind.split_whitespace();
    let (direction, more) = (words.next(), words.next());
    let direction = direction.map(str::to_ascii_lowercase);
    let descending = match (direction.as_deref(), more) {
        (None | Some("asc"), None) => false,
        (Some("desc"), None) => true,
        _ => {
            let path = field.path();
            field.error(format!(
                "`{path}` must be a selected column, in double quotes where it holds a blank, with `asc` or \
                 `desc` behind it if you like; for several write a list"
            ));
            return None;
        }
    };
    if let Some(columns) = columns {
        let is_there = columns
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&column));
        if !is_there {
            let shown: String = column.chars().take(128).collect();
            let right = match suggestion(&column, columns.iter().map(String::as_str)) {
                nothing if nothing.is_empty() => "; select it".to_owned(),
                right => right,
            };
            field.error(format!(
                "`{}` names `{shown}`, which is not a selected column{right}",
                field.path()
            ));
            return None;
        }
    }
    Some(OrderBy { column, descending })
}
