//! Waiting until the campaign's data is recent enough.

use super::carrier::{Carrier, RunError, Step};
use super::ports::{WarehouseError, WarehouseErrorClass};
use super::state::RunEvent;
use crate::audience::FreshWhen;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// What is done about the newest data being from then.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Fresh,
    /// Asked again after so long.
    Again(Duration),
    Stale(String),
}

impl Carrier {
    /// The event that leaves `Queued`.
    pub(super) fn begun(&self) -> RunEvent {
        match &self.spec.fresh_when {
            Some(_) => RunEvent::MustBeFresh,
            None => RunEvent::Admitted,
        }
    }

    /// Asks once. While the data is stale and there is time, the run is laid
    /// aside with [`RunError::NotFresh`], so that it waits without a permit.
    pub(super) async fn look_whether_fresh(&self) -> Result<Step, RunError> {
        let (run, fire_time) = (&self.facts.run, self.facts.fire_time);
        let dialect = self.kit.warehouse.dialect();
        let fresh_when = self.spec.fresh_when_of(run, fire_time, dialect);
        let Some(fresh_when) = &fresh_when.map_err(|error| RunError::Spec(error.to_string()))?
        else {
            return Ok(RunEvent::Fresh.into());
        };
        let newest = self
            .ask(|warehouse| async move { warehouse.newest_data(&self.facts, fresh_when).await })
            .await?;
        let (since, now) = (self.facts.started_at, self.kit.clock.now());
        match judge(
            fresh_when,
            newest,
            (since, now),
            self.kit.guards.fresh_every,
        ) {
            Answer::Fresh => Ok(RunEvent::Fresh.into()),
            Answer::Again(after) => Err(RunError::NotFresh(after)),
            Answer::Stale(message) => Err(WarehouseError {
                class: WarehouseErrorClass::Statement,
                code: None,
                message,
                place: None,
            }
            .into()),
        }
    }
}

/// `since` is when the run was begun. It is asked a last time when the time to
/// wait is over.
fn judge(
    fresh_when: &FreshWhen,
    newest: Option<Timestamp>,
    (since, now): (Timestamp, Timestamp),
    every: Duration,
) -> Answer {
    let seconds = |secs: u64| SignedDuration::from_secs(i64::try_from(secs).unwrap_or(i64::MAX));
    if fresh_when.is_fresh(newest, now) {
        return Answer::Fresh;
    }
    let left = seconds(fresh_when.wait_secs) - now.duration_since(since);
    if left > SignedDuration::ZERO {
        return Answer::Again(left.unsigned_abs().min(every));
    }
    let wait = humantime::format_duration(Duration::from_secs(fresh_when.wait_secs));
    let max_age = humantime::format_duration(Duration::from_secs(fresh_when.max_age_secs));
    let newest = match newest {
        Some(newest) => format!("the newest is from {newest}"),
        None => "there is none".to_owned(),
    };
    Answer::Stale(format!(
        "the data is stale: {newest}, after waiting {wait} for some that is at most {max_age} old \
         (`fresh_when`); see to what loads it, then resume the run"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    #[track_caller]
    fn check(newest: Option<&str>, now: &str, expect: Option<Answer>) {
        let fresh_when = FreshWhen {
            sql: String::new(),
            max_age_secs: 3_600,
            wait_secs: 600,
        };
        let times = (at("09:00:00"), at(now));
        let every = Duration::from_secs(30);
        let answer = judge(&fresh_when, newest.map(at), times, every);
        match expect {
            Some(expect) => assert_eq!(answer, expect),
            None => assert!(matches!(answer, Answer::Stale(_)), "{answer:?}"),
        }
    }

    #[test]
    fn stale_data_is_asked_about_again_until_the_time_to_wait_is_over() {
        let again = |secs| Some(Answer::Again(Duration::from_secs(secs)));
        check(Some("08:00:00"), "09:00:00", Some(Answer::Fresh));
        check(Some("07:59:59"), "09:00:00", again(30));
        check(None, "09:09:45", again(15));
        check(None, "09:10:00", None);
        check(Some("08:00:00"), "09:10:00", None);
        check(Some("08:10:00"), "09:10:00", Some(Answer::Fresh));
    }
}
