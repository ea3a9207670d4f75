//! `audience.expect` of a campaign file.

use super::yaml::{Field, Section};
use crate::audience::Expect;

/// More members than any audience has.
const MAX_AUDIENCE: u32 = 4_000_000_000;

/// A change that nobody would notice: a hundredfold.
const MAX_CHANGE_PERCENT: f64 = 10_000.0;

pub(super) fn expect_of(mut section: Section) -> Option<Expect> {
    let size = |field: Option<Field>| -> Option<Option<u64>> {
        field.map_or(Some(None), |f| {
            Some(Some(f.number(0..=MAX_AUDIENCE)?.into()))
        })
    };
    let min = size(section.optional("min"));
    let max_field = section.optional("max");
    let max = size(max_field.clone());
    let change = section.optional("max_change");
    let max_change = change.map_or(Some(None), |f| Some(Some(percentage(&f)?)));
    let is_empty = matches!((min, max, max_change), (Some(None), Some(None), Some(None)));
    if is_empty {
        section.error("`audience.expect` is empty; give `min`, `max` or `max_change`");
    }
    section.finish();
    if let (Some(Some(min)), Some(Some(max)), Some(field)) = (min, max, &max_field)
        && min > max
    {
        let path = field.path();
        field.error(format!(
            "`{path}` is below `audience.expect.min`; exchange the two"
        ));
    }
    Some(Expect {
        min: min?,
        max: max?,
        max_change_basis_points: max_change?,
    })
}

/// `50%` or `12.5 %`, in hundredths of a per cent.
fn percentage(field: &Field) -> Option<u32> {
    let text = field.filled_text()?.trim();
    let number = text.strip_suffix('%').map(str::trim);
    let is_plain = |n: &&str| n.chars().all(|c| c.is_ascii_digit() || c == '.');
    let percent: Option<f64> = number.filter(is_plain).and_then(|n| n.parse().ok());
    let points = percent
        .filter(|percent| *percent <= MAX_CHANGE_PERCENT)
        .map(|percent| percent * 100.0)
        .filter(|points| (points - points.round()).abs() < 1e-6);
    let Some(points) = points else {
        let path = field.path();
        field.error(format!(
            "`{path}` must be a percentage such as `50%`, at most 10000% and with at most two decimals"
        ));
        return None;
    };
    format!("{points:.0}").parse().ok()
}
