//! What every command reads first: the operator's file and the campaigns.

use super::exit::{Failure, PROBLEMS};
use super::problems;
use super::show::colors;
use crate::campaign::{Campaign, Problem};
use crate::daemon::folder::{self, Folder};
use crate::daemon::settings::{self, Connector, Secrets, Settings, SettingsError, StateStore};
use crate::daemon::source::{self, SourceText};
use crate::daemon::{World, log};
use crate::id::CampaignName;
use crate::ledger::{PostgresLedger, SqliteLedger};
use crate::run::{Ledger, SystemClock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The operator's file, or everything that is wrong with it.
pub(super) fn compiled(config: &Path) -> Result<Settings, Vec<Problem>> {
    let found = source::read(config).map_err(|problem| vec![problem])?;
    let file = settings::compile(&found.source())?;
    Ok(file.resolve_paths(config.parent().unwrap_or(Path::new(""))))
}

/// The operator's file, without a problem.
pub(super) fn settings(config: &Path) -> Result<Settings, Failure> {
    let found = source::read(config).map_err(|problem| {
        let hint = anyhow::anyhow!(
            "{}: {}; name another with --config FILE",
            problem.file,
            problem.message
        );
        Failure::new(PROBLEMS, hint)
    })?;
    let file = settings::compile(&found.source()).map_err(|problems| refused(&problems, &found))?;
    let base = config.parent().unwrap_or(Path::new(""));
    Ok(file.resolve_paths(base))
}

fn refused(found: &[Problem], text: &SourceText) -> Failure {
    let sources = BTreeMap::from([(text.name.clone(), settings::masked(&text.source()))]);
    let text = problems::render(found, &sources, colors());
    Failure::new(PROBLEMS, anyhow::Error::msg(text))
}

/// The campaigns folder as it is now.
pub(super) fn campaigns(settings: &Settings) -> Folder {
    folder::load(&settings.campaigns, &settings.known(), Folder::default())
}

/// One campaign by name, or what is wrong with it.
pub(super) fn campaign<'a>(folder: &'a Folder, name: &str) -> Result<&'a Arc<Campaign>, Failure> {
    let found = name
        .parse::<CampaignName>()
        .ok()
        .and_then(|name| folder.campaigns.get(&name));
    match found {
        Some(loaded) => Ok(&loaded.campaign),
        None if folder.problems.is_empty() => {
            let names = folder.campaigns.keys();
            Err(Failure::usage(folder::unknown(name, names)))
        }
        None => Err(Failure::new(
            PROBLEMS,
            anyhow::Error::msg(format!(
                "there is no campaign `{name}` without problems; see `campaignd check`"
            )),
        )),
    }
}

/// The ledger, for reading, beside a daemon that may be writing it; none where
/// no run has been begun yet.
pub(super) async fn ledger_to_read(
    settings: &Settings,
) -> Result<Option<Arc<dyn Ledger>>, Failure> {
    let ledger: Option<Arc<dyn Ledger>> = match &settings.state {
        StateStore::Sqlite(path) if !path.exists() => None,
        StateStore::Sqlite(path) => {
            let ledger = SqliteLedger::open_read_only(path).await;
            Some(Arc::new(ledger.map_err(Failure::unreachable)?))
        }
        StateStore::Postgres(server) => {
            let options = server.options(&Secrets::from_process());
            let options = options.map_err(|error| Failure::new(PROBLEMS, error))?;
            let ledger = PostgresLedger::open_read_only(&options).await;
            let ledger = ledger.map_err(Failure::unreachable)?;
            ledger.map(|ledger| Arc::new(ledger) as Arc<dyn Ledger>)
        }
    };
    Ok(ledger)
}

/// The ledger to write.
pub(super) async fn ledger(settings: &Settings) -> Result<Arc<dyn Ledger>, Failure> {
    open(settings, &Secrets::from_process()).await
}

async fn open(settings: &Settings, secrets: &Secrets) -> Result<Arc<dyn Ledger>, Failure> {
    match &settings.state {
        StateStore::Sqlite(path) => {
            let ledger = SqliteLedger::open(path).await;
            Ok(Arc::new(ledger.map_err(Failure::unreachable)?))
        }
        StateStore::Postgres(server) => {
            let options = server.options(secrets);
            let options = options.map_err(|error| Failure::new(PROBLEMS, error))?;
            let ledger = PostgresLedger::open(options).await;
            Ok(Arc::new(ledger.map_err(Failure::unreachable)?))
        }
    }
}

/// How long a person waits for a warehouse that went away. What was begun, or
/// cancelled, is in the ledger, and is carried on from there.
const PATIENCE: Duration = Duration::from_mins(1);

/// The same as [`world`] for a person who waits.
pub(super) async fn world_for_now(settings: &Settings) -> Result<World, Failure> {
    Ok(world(settings).await?.with_patience(PATIENCE))
}

/// The same for a run of `campaign`, which needs the secrets of its own
/// connector and destination only.
pub(super) async fn world_for(settings: &Settings, campaign: &Campaign) -> Result<World, Failure> {
    log::start(&settings.log);
    let secrets = Secrets::from_process();
    let usable = usable(settings, &secrets, campaign);
    let world = assembled(&usable, &secrets).await?;
    Ok(world.with_patience(PATIENCE))
}

/// The settings without what has no secret here and `campaign` does not need.
/// That is said: an interrupted run of the campaign may be on another way.
fn usable(settings: &Settings, secrets: &Secrets, campaign: &Campaign) -> Settings {
    let mut usable = settings.clone();
    let needed = settings.connectors.get(&campaign.connector);
    let history = needed.and_then(Connector::history);
    let has_secrets = |found: Result<(), SettingsError>| match found {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("{error}; nothing that needs it is done here");
            false
        }
    };
    usable.connectors.retain(|name, connector| {
        *name == campaign.connector
            || history.is_some_and(|history| history.connector == *name)
            || has_secrets(
                settings
                    .connector_options(name, connector, secrets)
                    .map(drop),
            )
    });
    usable.destinations.retain(|name, destination| {
        *name == campaign.activation.destination
            || has_secrets(destination.options(secrets).map(drop))
    });
    usable
}

/// The ledger to write, and the adapters around it.
pub(super) async fn world(settings: &Settings) -> Result<World, Failure> {
    log::start(&settings.log);
    assembled(settings, &Secrets::from_process()).await
}

async fn assembled(settings: &Settings, secrets: &Secrets) -> Result<World, Failure> {
    let ledger = open(settings, secrets).await?;
    let world = World::assemble(settings, secrets, Arc::new(SystemClock), ledger)
        .map_err(|error| Failure::new(PROBLEMS, error))?;
    // What is paused is paused for a manual run too.
    world.desk.look().await.map_err(Failure::unreachable)?;
    Ok(world)
}
