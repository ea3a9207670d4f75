//! `campaignd cancel` and `campaignd resume`: a run ended early, or let go on.

use super::door::Door;
use super::exit::{Failure, UNDELIVERED};
use super::load;
use super::pause::tell;
use super::run::carry;
use super::show::Format;
use crate::admin::{ControlError, Reply, Request, ask, own_name};
use crate::daemon::World;
use crate::daemon::settings::Settings;
use crate::id::RunId;
use crate::run::{RunRecord, RunState};
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
    let by = &own_name();
    let world = load::world_for_now(settings).await?;
    let found = match verb {
        Verb::Cancel => world.desk.cancel(run, by).await,
        Verb::Resume => world.desk.resume(run, by).await,
    };
    let reply = finish(&world, &settings.control, found).await?;
    let ended = world.ledger.run(run).await.map_err(Failure::unreachable)?;
    world.close().await;
    let is_whole = ended.is_none_or(|ended| ended.state == RunState::Finished);
    match reply {
        Reply::Done(text) if verb == Verb::Resume && !is_whole => {
            Err(Failure::new(UNDELIVERED, anyhow::Error::msg(text)))
        }
        reply => Ok(reply),
    }
}

/// Carries the run to its end, and says how it stands then.
pub(super) async fn finish(
    world: &World,
    control: &Path,
    found: Result<RunRecord, Reply>,
) -> Result<Reply, Failure> {
    let record = match found {
        Ok(record) => record,
        Err(reply) => return Ok(reply),
    };
    let door = Door::of(world);
    let carrying = carry(world, &door, &record);
    door.open_while(control, carrying).await?;
    let run = &record.run;
    let ended = world.ledger.run(run).await.map_err(Failure::unreachable)?;
    Ok(match ended {
        Some(ended) => match &ended.error {
            Some(why) => Reply::Done(format!("{run} is {}: {why}", ended.state.as_str())),
            None => Reply::Done(format!("{run} is {}", ended.state.as_str())),
        },
        None => Reply::Failed(format!("{run} is gone")),
    })
}
