//! `campaignd pause` and `campaignd unpause`: the emergency stop.

use super::exit::Failure;
use super::load;
use super::run::refusal;
use super::show::{Format, say, say_json};
use crate::admin::{ControlError, Reply, Request, ask, own_name};
use crate::daemon::Desk;
use crate::daemon::settings::Settings;
use crate::id::{CampaignName, DestinationName};
use crate::run::{PauseScope, SystemClock};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// What is asked.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("scope").required(true))]
pub(super) struct Args {
    /// Everything.
    #[arg(long, group = "scope")]
    all: bool,
    /// What goes to one destination.
    #[arg(long, group = "scope", value_name = "NAME")]
    destination: Option<DestinationName>,
    /// The runs of one campaign.
    #[arg(group = "scope")]
    campaign: Option<CampaignName>,
}

#[derive(Debug, Serialize)]
struct Told {
    message: String,
}

pub(super) async fn run(
    config: &Path,
    args: Args,
    paused: bool,
    format: Format,
) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    if let Some(name) = args.campaign.as_ref().filter(|_| paused) {
        // A stop with a slip of the pen in it stops nothing.
        load::campaign(&load::campaigns(&settings), name.as_str())?;
    }
    let scope = match (args.destination, args.campaign) {
        (Some(name), _) => PauseScope::Destination(name),
        (None, Some(name)) => PauseScope::Campaign(name),
        (None, None) => PauseScope::All,
    };
    set(&settings, scope, paused, format).await
}

/// Lets a paused destination go on.
pub(super) async fn unpause(
    settings: &Settings,
    destination: DestinationName,
    format: Format,
) -> Result<(), Failure> {
    let scope = PauseScope::Destination(destination);
    set(settings, scope, false, format).await
}

async fn set(
    settings: &Settings,
    scope: PauseScope,
    paused: bool,
    format: Format,
) -> Result<(), Failure> {
    if let PauseScope::Destination(name) = &scope
        && !settings.destinations.contains_key(name)
    {
        return Err(Failure::usage(format!("there is no destination `{name}`")));
    }
    let scope = scope.to_string();
    let request = match paused {
        true => Request::Pause {
            scope: scope.clone(),
        },
        false => Request::Unpause {
            scope: scope.clone(),
        },
    };
    let reply = match ask(&settings.control, &request).await {
        Ok(reply) => reply,
        // Nobody is running: what is written is what the next start reads.
        Err(ControlError::NobodyThere { .. }) => {
            let ledger = load::ledger(settings).await?;
            let desk = Desk::new(ledger, Arc::new(SystemClock));
            desk.set_pause(&scope, paused, &own_name()).await
        }
        Err(error) => return Err(Failure::unreachable(error)),
    };
    tell(reply, format)
}

/// Prints what the daemon, or who acts for it, has answered.
pub(super) fn tell(reply: Reply, format: Format) -> Result<(), Failure> {
    match reply {
        Reply::Done(message) => {
            match format {
                Format::Json => say_json(&Told { message }),
                Format::Text => say(message),
            }
            Ok(())
        }
        other => Err(refusal(other)),
    }
}
