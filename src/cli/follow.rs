//! A run that the daemon carries, watched from the command line.

use super::exit::{Failure, UNDELIVERED};
use super::run::{bar, draw_once};
use crate::admin::{Reply, Request, Seen, ask};
use crate::history::Tally;
use crate::id::RunId;
use crate::run::{Progress, RunRecord, RunState};
use indicatif::ProgressBar;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How often the daemon is asked how the run stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a daemon may be away, which is as long as a restart takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Shows how the run goes, on standard error, until it has ended or is held.
/// Returns its last record. Whoever stops watching does not stop the run.
pub(super) async fn follow(control: &Path, first: Seen) -> Result<RunRecord, Failure> {
    let run = first.record.run.clone();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut screen = Screen::new(&run);
    let mut seen = first;
    let mut last_seen = Instant::now();
    loop {
        screen.show(&seen);
        if !seen.record.state.is_open() {
            screen.bar.finish_and_clear();
            return Ok(seen.record);
        }
        tokio::select! {
            _ = interrupt.recv() => return Err(left(&run)),
            _ = terminate.recv() => return Err(left(&run)),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        match ask(control, &Request::Look { run: run.clone() }).await {
            Ok(Reply::Seen(now)) => {
                seen = *now;
                last_seen = Instant::now();
            }
            // A ledger that is away for a moment, or a daemon that restarts.
            other if last_seen.elapsed() > PATIENCE => {
                let why = match other {
                    Ok(Reply::Failed(why) | Reply::Refused(why)) => why,
                    Ok(_) => "its answer is not understood".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(Failure::unreachable(anyhow::anyhow!(
                    "{run} cannot be watched: {why}; the daemon carries it on, `campaignd runs show {run}` tells how it ended"
                )));
            }
            _ => {}
        }
    }
}

fn left(run: &RunId) -> Failure {
    Failure::new(
        UNDELIVERED,
        anyhow::anyhow!(
            "{run} goes on in the daemon; `campaignd runs show {run}` tells how it stands, `campaignd cancel {run}` ends it"
        ),
    )
}

/// A line of progress, where there is no terminal to draw a bar on.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line<'a> {
    run_id: &'a RunId,
    state: &'static str,
    planned: Option<u64>,
    ended: u64,
}

/// What is shown of a run.
struct Screen {
    bar: ProgressBar,
    is_terminal: bool,
    shown: Option<(RunState, u64)>,
}

impl Screen {
    fn new(run: &RunId) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        if is_terminal {
            say(&format!(
                "{run} is carried by the daemon; Ctrl-C leaves it to go on"
            ));
        }
        Self {
            bar: bar(),
            is_terminal,
            shown: None,
        }
    }

    fn show(&mut self, seen: &Seen) {
        let now = standing(seen);
        draw_once(&self.bar, now);
        let step = step(&now);
        if self.is_terminal || self.shown == Some(step) {
            return;
        }
        self.shown = Some(step);
        let line = Line {
            run_id: &seen.record.run,
            state: now.state.as_str(),
            planned: now.funnel.map(|funnel| funnel.planned),
            ended: ended(&now),
        };
        say(&serde_json::to_string(&line).unwrap_or_default());
    }
}

/// How it stands: as its carrier counts, or as the ledger has it.
fn standing(seen: &Seen) -> Progress {
    let record = &seen.record;
    let counted = seen.progress.filter(|_| record.state.is_open());
    counted.unwrap_or(Progress {
        state: record.state,
        funnel: record.funnel,
        tally: record.tally.unwrap_or(Tally {
            still_open: record.funnel.map_or(0, |funnel| funnel.planned),
            ..Tally::default()
        }),
        requests: 0,
    })
}

fn ended(now: &Progress) -> u64 {
    now.tally.total().saturating_sub(now.tally.still_open)
}

/// What must change for another line: the state, or a tenth of the members. So
/// a run has some twenty lines, however large it is.
fn step(now: &Progress) -> (RunState, u64) {
    let planned = now.funnel.map_or(0, |funnel| funnel.planned);
    let tenths = (ended(now).saturating_mul(10)).checked_div(planned);
    (now.state, tenths.unwrap_or(0))
}

fn say(line: &str) {
    // Nobody may be there to read it.
    drop(writeln!(std::io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::Funnel;
    use std::collections::BTreeSet;

    #[test]
    fn a_run_has_as_many_lines_however_large_it_is() {
        for planned in [1, 10, 1_000, 1_000_000] {
            let steps: BTreeSet<u64> = (0..=1_000)
                .map(|part| {
                    let delivered = planned * part / 1_000;
                    let progress = Progress {
                        state: RunState::Sending,
                        funnel: Some(Funnel {
                            planned,
                            ..Funnel::default()
                        }),
                        tally: Tally {
                            delivered,
                            still_open: planned - delivered,
                            ..Tally::default()
                        },
                        requests: 0,
                    };
                    step(&progress).1
                })
                .collect();
            assert!(steps.len() <= 11, "{planned}: {steps:?}");
        }
    }
}
