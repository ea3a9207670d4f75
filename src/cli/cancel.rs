//! `campaignd cancel`: ends a run early.

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

pub(super) async fn run(config: &Path, args: Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let request = Request::Cancel {
        run: args.run.clone(),
    };
    let reply = match ask(&settings.control, &request).await {
        Ok(reply) => reply,
        Err(ControlError::NobodyThere { .. }) => cancel_here(&settings, &args.run).await?,
        Err(error) => return Err(Failure::unreachable(error)),
    };
    tell(reply, format)
}

/// Nobody is running: the run is carried to its end here.
async fn cancel_here(settings: &Settings, run: &RunId) -> Result<Reply, Failure> {
    let world = load::world(settings).await?;
    let reply = match world.desk.cancel(run, "the command line").await {
        Ok(record) => {
            carry(&world, &record).await?;
            Reply::Done(format!("{run} is cancelled"))
        }
        Err(reply) => reply,
    };
    world.close().await;
    Ok(reply)
}
