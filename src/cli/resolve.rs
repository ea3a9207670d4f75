//! `campaignd resolve`: what became of a parked batch, decided by a person.

use super::cancel::finish;
use super::exit::Failure;
use super::load;
use super::pause::tell;
use super::show::Format;
use crate::admin::{ControlError, Reply, Request, ask, own_name};
use crate::daemon::settings::Settings;
use crate::id::{BatchPath, RunId};
use crate::run::Resolution;
use std::path::Path;

/// What is decided.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run id, as `campaignd runs` prints it.
    run: RunId,
    /// The parked batch, as `campaignd runs show` prints it: 3, or 3.01 for a
    /// part of it.
    #[arg(long, value_name = "BATCH")]
    batch: BatchPath,
    #[command(flatten)]
    outcome: Outcome,
}

/// One of the two.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Outcome {
    /// The receiver has it.
    #[arg(long)]
    delivered: bool,
    /// The receiver does not have it: `campaignd resume` sends it again, under
    /// another message id.
    #[arg(long)]
    not_delivered: bool,
}

pub(super) async fn run(config: &Path, args: Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let resolution = Resolution {
        path: args.batch,
        delivered: args.outcome.delivered,
    };
    let request = Request::Resolve {
        run: args.run.clone(),
        resolution: resolution.clone(),
    };
    let reply = match ask(&settings.control, &request).await {
        Ok(reply) => reply,
        Err(ControlError::NobodyThere { .. }) => act_here(&settings, &args.run, resolution).await?,
        Err(error) => return Err(Failure::unreachable(error)),
    };
    tell(reply, format)
}

/// Nobody is running: history is brought up to date here.
async fn act_here(
    settings: &Settings,
    run: &RunId,
    resolution: Resolution,
) -> Result<Reply, Failure> {
    let world = load::world_for_now(settings).await?;
    let by = &own_name();
    let resolved = world.desk.resolve(run, resolution, by).await;
    let reply = finish(&world, &settings.control, resolved).await?;
    world.close().await;
    Ok(reply)
}
