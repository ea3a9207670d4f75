//! A fire time that arrives while the campaign's last run is open.

use crate::id::RunId;

/// Whether a run is started for a fire time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a fire time that is neither started nor recorded is lost"]
pub enum Start {
    /// Yes.
    Go,
    /// No; recorded as skipped.
    Skip {
        /// Why, in our words.
        reason: String,
    },
}

/// Overlap `skip`: a fire time is left out while `open_run` is.
pub fn skip_if_open(open_run: Option<&RunId>) -> Start {
    match open_run {
        None => Start::Go,
        Some(run) => Start::Skip {
            reason: format!("run {run} was still open, and overlap is `skip`"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fire_time_is_skipped_while_a_run_is_open_and_the_reason_names_it() {
        let run: RunId = "winback@20261122T140000Z".parse().unwrap();
        let Start::Skip { reason } = skip_if_open(Some(&run)) else {
            panic!("not skipped");
        };
        assert!(reason.contains("winback@20261122T140000Z"), "{reason}");
        assert_eq!(skip_if_open(None), Start::Go);
    }
}
