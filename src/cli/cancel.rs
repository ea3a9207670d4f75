//! `campaignd cancel` and `campaignd resume`: a run ended early, or let go on.

use super::exit::Failure;
use super::load;
use super::pause::tell;
use super::run::carry;
use super::show::Format;
use crate::admin::{ControlError, Reply, Request, ask};
use crate::daemon::settings::Settings;
use crate::id::RunId;
use std::path::Path;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run id, as `campaignd runs` prints it.
    run: RunId,
}

/// What is done with the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// It ends early.
    Cancel,
    /// It goes on.
    Resume,
}

pub(super) async fn run(
    config: &Path,
    args: Args,
    verb: Verb,
    format: Format,
) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let run = args.run.clone();
    let request = match verb {
        Verb::Cancel => Request::Cancel { run },
        Verb::Resume => Request::Resume { run },
    };
    let reply = match ask(&settings.control, &request).await {
        Ok(reply) => reply,
        Err(ControlError::NobodyThere { .. }) => act_here(&settings, &args.run, verb).await?,
        Err(error) => return Err(Failure::unreachable(error)),
    };
    tell(reply, format)
}

/// Nobody is running: the run is carried to its end here.
async fn act_here(settings: &Settings, run: &RunId, verb: Verb) -> Result<Reply, Failure> {
    let by = "the command line";
    let world = load::world(settings).await?;
    let found = match verb {
        Verb::Cancel => world.desk.cancel(run, by).await,
        Verb::Resume => world.desk.resume(run, by).await,
    };
    let reply = match found {
        Ok(record) => {
            carry(&world, &record).await?;
            let ended = world.ledger.run(run).await.map_err(Failure::unreachable)?;
            let state = ended.map_or("gone", |ended| ended.state.as_str());
            Reply::Done(format!("{run} is {state}"))
        }
        Err(reply) => reply,
    };
    world.close().await;
    Ok(reply)
}
