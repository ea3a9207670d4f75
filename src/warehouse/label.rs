//! What Redshift files our statements under: `query_group`, which its own
//! logs show and its queues can be chosen by.

use crate::audience::Statement;

/// As much of a label as `STL_QUERY` keeps.
const MAX_LABEL: usize = 30;

/// The step and the run, or what stands for it, that a statement's leading
/// comment names.
pub(super) fn purpose(statement: &Statement) -> Option<(&str, &str)> {
    let inside = statement.sql.strip_prefix("/* campaignd ")?;
    inside.split_once(" */")?.0.split_once(' ')
}

/// Names the campaign and the run that a statement works for, in letters,
/// digits, `_` and `-`: `winback-lapsed-bu_261122140000`, and `m1` behind it
/// for a manual run. A long campaign name is cut; the comment has it whole.
pub(super) fn label(what: &str) -> String {
    let Some((campaign, run)) = what.split_once('@') else {
        return cut(&format!("campaignd_{}", plain(what)), MAX_LABEL);
    };
    let (instant, manual) = run.split_once("-manual-").unwrap_or((run, ""));
    let digits = instant.chars().filter(char::is_ascii_digit).skip(2);
    let mut tail: String = ['_'].into_iter().chain(digits).collect();
    if !manual.is_empty() {
        tail = format!("{tail}m{}", plain(manual));
    }
    let tail = cut(&tail, MAX_LABEL - 1);
    let room = MAX_LABEL - tail.len();
    format!("{}{tail}", cut(&plain(campaign), room))
}

fn plain(text: &str) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.chars()
        .map(|c| if sound(c) { c } else { '_' })
        .collect()
}

/// Of ASCII text.
fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_names_the_campaign_and_the_run() {
        for (what, wanted) in [
            ("winback@20261122T140000Z", "winback_261122140000"),
            (
                "winback@20261122T140000Z-manual-3",
                "winback_261122140000m3",
            ),
            (
                "winback-lapsed-buyers@20261122T140000Z",
                "winback-lapsed-bu_261122140000",
            ),
            ("fire times", "campaignd_fire_times"),
        ] {
            assert_eq!(label(what), wanted);
        }
    }

    #[test]
    fn the_purpose_is_read_from_the_leading_comment() {
        let statement = Statement::new("page", "a@20261122T140000Z", "select 1");
        assert_eq!(purpose(&statement), Some(("page", "a@20261122T140000Z")));
    }

    proptest! {
        #[test]
        fn a_label_is_short_and_needs_no_escape(what in ".{0,80}") {
            let label = label(&what);
            prop_assert!(label.len() <= MAX_LABEL);
            prop_assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)));
        }
    }
}
