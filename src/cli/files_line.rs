//! How the campaign files are, in words below a table.

use super::show::{counted, instant};
use crate::daemon::FilesView;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// The most files that are named.
const NAMED: usize = 10;

/// What the running daemon has `told` of the files, and which are invalid:
/// by its word, or `here` where none is running. Nothing where all is well and
/// no daemon is asked.
pub(super) fn files_line(
    told: Option<&FilesView>,
    here: &BTreeSet<String>,
    now: Timestamp,
) -> String {
    let invalid = told.map_or(here, |told| &told.invalid);
    let mut text = String::new();
    if !invalid.is_empty() {
        let names: Vec<&str> = invalid.iter().map(String::as_str).take(NAMED).collect();
        let more = match invalid.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let stays = match told {
            Some(_) => "; what the daemon had of them stays in force",
            None => "",
        };
        text = format!(
            "\n\nnot valid: {}{more}{stays}; see `campaignd check`",
            names.join(", ")
        );
    }
    let Some(told) = told else {
        return text;
    };
    let in_force = counted(told.in_force, "campaign");
    let read = match told.read_well_at {
        Some(at) => format!("last read without a problem {}", instant(at, now)),
        None => "not read without a problem since it was started".to_owned(),
    };
    text + &format!("\n\nthe daemon has {in_force} in force; campaign files were {read}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T14:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_daemon_says_when_all_was_well_and_what_is_not() {
        let well = FilesView {
            in_force: 2,
            invalid: BTreeSet::new(),
            read_well_at: "2026-11-22T13:57:00Z".parse().ok(),
            kept: Vec::new(),
        };
        assert_eq!(
            files_line(Some(&well), &BTreeSet::new(), now()),
            "\n\nthe daemon has 2 campaigns in force; campaign files were last read without a \
             problem 2026-11-22 13:57:00Z (3m ago)"
        );
        let ill = FilesView {
            invalid: ["c/a.yaml".to_owned()].into(),
            read_well_at: None,
            ..well
        };
        assert_eq!(
            files_line(Some(&ill), &BTreeSet::new(), now()),
            "\n\nnot valid: c/a.yaml; what the daemon had of them stays in force; see \
             `campaignd check`\n\nthe daemon has 2 campaigns in force; campaign files were not \
             read without a problem since it was started"
        );
    }

    #[test]
    fn without_a_daemon_what_is_not_valid_here_is_named() {
        let files: BTreeSet<String> = (0..12).map(|n| format!("{n:02}.yaml")).collect();
        let line = files_line(None, &files, now());
        assert!(
            line.ends_with("09.yaml and 2 more; see `campaignd check`"),
            "{line}"
        );
        assert_eq!(files_line(None, &BTreeSet::new(), now()), "");
    }
}
