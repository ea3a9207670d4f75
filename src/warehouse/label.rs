//! What Redshift files our statements under: `query_group`, which its own
//! logs show and its queues can be chosen by.

use crate::audience::Statement;
use sha2::{Digest as _, Sha256};

/// As much of a label as `SYS_QUERY_HISTORY` keeps. `STL_QUERY` shows the
/// first 30 characters, so what tells runs apart comes first.
const MAX_LABEL: usize = 320;

/// Bytes of the run id's hash; two digits each. Of a million runs two have the
/// same with a chance of one in five hundred, and only if they run at the same
/// time can they be taken for each other.
const HASH_BYTES: usize = 6;

/// The step and the run, or what stands for it, that a statement's leading
/// comment names.
pub(super) fn purpose(statement: &Statement) -> Option<(&str, &str)> {
    let inside = statement.sql.strip_prefix("/* campaignd ")?;
    inside.split_once(" */")?.0.split_once(' ')
}

/// Names the campaign and the run that a statement works for, in letters,
/// digits, `_` and `-`: `b97c7c7210d5_winback-lapsed-buyers_20261122T140000Z`.
/// The digits before it are the first of those in the names of the run's
/// tables.
pub(super) fn label(what: &str) -> String {
    let text = match what.contains('@') {
        true => {
            let digest = Sha256::digest(what.as_bytes());
            format!("{}_{}", hex::encode(&digest[..HASH_BYTES]), plain(what))
        }
        false => format!("campaignd_{}", plain(what)),
    };
    text.chars().take(MAX_LABEL).collect()
}

fn plain(text: &str) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.chars()
        .map(|c| if sound(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::TableNames;
    use crate::id::RunId;
    use proptest::prelude::*;

    /// What `STL_QUERY` shows of a label.
    fn shown(label: &str) -> &str {
        &label[..label.len().min(30)]
    }

    #[test]
    fn a_label_names_the_campaign_and_the_run() {
        for (what, wanted) in [
            (
                "winback@20261122T140000Z",
                "9e0605e4be49_winback_20261122T140000Z",
            ),
            (
                "winback@20261122T140000Z-manual-3",
                "c7d9d3ed4383_winback_20261122T140000Z-manual-3",
            ),
            ("fire times", "campaignd_fire_times"),
        ] {
            assert_eq!(label(what), wanted);
        }
    }

    #[test]
    fn runs_of_one_instant_are_told_apart_however_long_their_names_agree() {
        let long = "a".repeat(120);
        let of = |end: &str| label(&format!("{long}-{end}@20261122T140000Z"));
        let (one, other) = (of("north"), of("south"));
        assert_ne!(shown(&one), shown(&other));
        assert!(one.ends_with("-north_20261122T140000Z"), "{one}");
    }

    #[test]
    fn a_label_begins_as_the_names_of_the_runs_tables_end() {
        let campaign = "winback".parse().unwrap();
        let run = RunId::scheduled(&campaign, "2026-11-22T14:00:00Z".parse().unwrap());
        let label = label(run.as_str());
        let (hash, _) = label.split_once('_').unwrap();
        let table = TableNames::of(&run).run;
        assert!(table.starts_with(&format!("run_{hash}")), "{table} {label}");
    }

    #[test]
    fn the_purpose_is_read_from_the_leading_comment() {
        let statement = Statement::new("page", "a@20261122T140000Z", "select 1");
        assert_eq!(purpose(&statement), Some(("page", "a@20261122T140000Z")));
    }

    proptest! {
        #[test]
        fn a_label_is_bounded_and_needs_no_escape(what in ".{0,400}") {
            let label = label(&what);
            prop_assert!(label.len() <= MAX_LABEL);
            prop_assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)));
        }
    }
}
