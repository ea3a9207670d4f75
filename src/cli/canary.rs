//! What is asked once a run's canary was sent.

use super::exit::Failure;
use super::follow::follow;
use super::run::refusal;
use crate::admin::{Reply, Request, ask};
use crate::id::RunId;
use crate::run::{RunRecord, RunState};
use std::io::{IsTerminal as _, Write as _};
use std::num::NonZeroU32;
use std::path::Path;

/// Asks on the terminal whether the members after the canary are to be sent,
/// where the run is held for that. No terminal, or anything but a yes: no.
pub(super) async fn goes_on(canary: Option<NonZeroU32>, record: &RunRecord) -> bool {
    let is_held = canary.is_some() && record.state == RunState::Held;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !is_held || !is_terminal {
        return false;
    }
    let (run, why) = (&record.run, record.error.as_deref().unwrap_or("held"));
    let asked = format!("{run} is held: {why}\nSend the others now? [y/N] ");
    // Read beside the runtime: nobody may ever answer.
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        let mut screen = std::io::stderr();
        screen.write_all(asked.as_bytes())?;
        screen.flush()?;
        std::io::stdin().read_line(&mut answer)?;
        Ok::<String, std::io::Error>(answer)
    });
    let answer = answer.await.ok().and_then(Result::ok).unwrap_or_default();
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Has the daemon carry the run on, and follows it.
pub(super) async fn resume_there(control: &Path, run: &RunId) -> Result<RunRecord, Failure> {
    for request in [
        Request::Resume { run: run.clone() },
        Request::Look { run: run.clone() },
    ] {
        match ask(control, &request).await.map_err(Failure::unreachable)? {
            Reply::Done(_) => {}
            Reply::Seen(seen) => return follow(control, *seen).await,
            reply => return Err(refusal(reply)),
        }
    }
    Err(anyhow::anyhow!("the daemon does not say how {run} stands").into())
}
