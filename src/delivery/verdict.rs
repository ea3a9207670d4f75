//! What follows from an attempt's outcome.

use super::outcome::{Outcome, Verdict};
use super::rules::{OnAmbiguous, Rules};
use jiff::Timestamp;
use std::time::Duration;

/// How far a receiver's clock and ours, and its way of counting its window,
/// may be apart.
const WINDOW_MARGIN: Duration = Duration::from_secs(60);

/// What follows from `outcome` at a destination with these rules.
pub fn verdict(outcome: &Outcome, rules: &Rules) -> Verdict {
    match outcome {
        Outcome::Answered {
            status,
            retry_after,
            ..
        } => answered(*status, retry_after.unwrap_or_default(), rules),
        Outcome::NotSent { .. } => Verdict::RetryLater {
            at_least: Duration::ZERO,
        },
        Outcome::Ambiguous { .. } => Verdict::MayHaveArrived {
            at_least: Duration::ZERO,
        },
    }
}

fn answered(status: u16, at_least: Duration, rules: &Rules) -> Verdict {
    match status {
        200..=299 => Verdict::Accept,
        429 | 409 => Verdict::RetryLater { at_least },
        _ if rules.not_processed.contains(&status) => Verdict::RetryLater { at_least },
        400 | 413 | 422 => Verdict::Refuse,
        408 | 425 => Verdict::MayHaveArrived { at_least },
        300..=499 => Verdict::Stop {
            reason: stop_reason(status),
        },
        _ => Verdict::MayHaveArrived { at_least },
    }
}

fn stop_reason(status: u16) -> String {
    let advice = match status {
        300..=399 => "a redirect, which is never followed; set `url` to where it leads",
        401 | 403 => "it does not know us; check its `auth`, `headers` and `signing_secrets`",
        404 | 405 => "nothing takes webhooks there; check its `url`",
        410 => "it is gone; check with its owner before letting it go on",
        _ => "it does not take what is sent; check its `url`, `headers` and `format`",
    };
    format!("the destination answered {status}: {advice}")
}

/// Whether a batch that may have arrived may be sent again under its id: only
/// where its receiver has promised to know the id until the attempt has ended.
pub fn may_resend(rules: &Rules, first_sending: Timestamp, now: Timestamp) -> bool {
    let Some(window) = rules.dedupe_window else {
        return false;
    };
    // A first sending that lies ahead means that the clock was set back: how
    // old the batch is, is not known.
    let Ok(age) = Duration::try_from(now.duration_since(first_sending)) else {
        return false;
    };
    let ended_by = age
        .saturating_add(rules.timeout)
        .saturating_add(WINDOW_MARGIN);
    rules.on_ambiguous == OnAmbiguous::Resend && ended_by < window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Rejections;

    fn rules() -> Rules {
        Rules {
            timeout: Duration::from_secs(30),
            retry_initial: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
            give_up_after: Duration::from_secs(21_600),
            dedupe_window: Some(Duration::from_secs(3600)),
            on_ambiguous: OnAmbiguous::Resend,
            not_processed: Vec::new(),
        }
    }

    #[track_caller]
    fn check(statuses: &[u16], expect: &str) {
        for &status in statuses {
            let outcome = Outcome::Answered {
                status,
                retry_after: Some(Duration::from_secs(7)),
                rejections: Rejections::None,
            };
            let shown = match verdict(&outcome, &rules()) {
                Verdict::Accept => "accept".to_owned(),
                Verdict::Refuse => "refuse".to_owned(),
                Verdict::RetryLater { at_least } => format!("later {at_least:?}"),
                Verdict::MayHaveArrived { at_least } => format!("perhaps {at_least:?}"),
                Verdict::Stop { reason } => {
                    assert!(reason.contains(&status.to_string()), "{reason}");
                    "stop".to_owned()
                }
            };
            assert_eq!(shown, expect, "{status}");
        }
    }

    #[test]
    fn every_status_has_the_promised_verdict() {
        check(&[200, 201, 202, 204, 299], "accept");
        check(&[400, 413, 422], "refuse");
        check(&[409, 429], "later 7s");
        check(&[408, 425, 500, 502, 503, 504, 599], "perhaps 7s");
        check(&[301, 302, 304, 307, 308, 401, 403, 404, 410, 451], "stop");
        check(&[100, 101, 199, 600, 999], "perhaps 7s");
    }

    #[test]
    fn a_status_the_operator_vouches_for_is_a_definite_no() {
        let mut rules = rules();
        rules.not_processed = vec![503, 404];
        for status in [503, 404] {
            let outcome = Outcome::Answered {
                status,
                retry_after: None,
                rejections: Rejections::None,
            };
            let at_least = Duration::ZERO;
            assert_eq!(verdict(&outcome, &rules), Verdict::RetryLater { at_least });
        }
    }

    #[test]
    fn without_an_answer_it_matters_whether_anything_left() {
        let reason = String::new();
        let at_least = Duration::ZERO;
        assert_eq!(
            verdict(
                &Outcome::NotSent {
                    reason: reason.clone()
                },
                &rules()
            ),
            Verdict::RetryLater { at_least }
        );
        assert_eq!(
            verdict(&Outcome::Ambiguous { reason }, &rules()),
            Verdict::MayHaveArrived { at_least }
        );
    }

    #[test]
    fn a_batch_is_resent_only_well_inside_the_dedupe_window() {
        let first: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let after = |secs: i64| first + jiff::SignedDuration::from_secs(secs);
        assert!(may_resend(&rules(), first, first));
        assert!(may_resend(&rules(), first, after(3600 - 60 - 30 - 1)));
        assert!(!may_resend(&rules(), first, after(3600 - 60 - 30)));
        assert!(!may_resend(&rules(), first, after(-1)));
    }

    #[test]
    fn a_batch_is_not_resent_without_a_promise_or_when_parking_is_asked_for() {
        let first: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let unpromised = Rules {
            dedupe_window: None,
            ..rules()
        };
        let parking = Rules {
            on_ambiguous: OnAmbiguous::Park,
            ..rules()
        };
        assert!(!may_resend(&unpromised, first, first));
        assert!(!may_resend(&parking, first, first));
    }
}
