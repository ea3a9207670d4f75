//! `campaignd serve`.

use super::exit::Failure;
use super::load;
use crate::daemon::settings::{Secrets, Settings};
use crate::daemon::{self, Operator, Reloaded, Service, Why, World, fixed_keys, folder};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn run(config: &Path) -> Result<(), Failure> {
    // Before anything that takes time: a stop that comes early is one too.
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let hangup = signal(SignalKind::hangup()).map_err(anyhow::Error::from)?;
    let settings = load::settings(config)?;
    let world = Arc::new(load::world(&settings).await?);
    let folder = load::campaigns(&settings);
    folder::log_problems(&folder);
    let service = Service {
        world,
        max_runs: settings.limits.max_runs,
        shutdown_grace: settings.shutdown_grace,
        control: Some(settings.control.clone()),
        folder,
        campaigns: settings.campaigns.clone(),
        hangup,
    };
    let started = settings.clone();
    let last_good = Mutex::new(settings);
    let reread = |why: Why, world: &World, last: folder::Folder| {
        let mut last_good = last_good.lock().unwrap_or_else(PoisonError::into_inner);
        if why == Why::Changed {
            let folder = folder::load(&last_good.campaigns, &last_good.known(), last.clone());
            folder::log_changes(&last, &folder);
            let operator = None;
            return Reloaded { operator, folder };
        }
        let operator = operator(config, &started, world);
        let operator = operator.map(|(settings, operator)| {
            *last_good = settings;
            operator
        });
        let folder = folder::load(&last_good.campaigns, &last_good.known(), last);
        folder::log_problems(&folder);
        Reloaded { operator, folder }
    };
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    daemon::serve(service, reread, shutdown)
        .await
        .map_err(Failure::unreachable)
}

/// The operator's file as it is now; where it has a problem, the last good one
/// stays in force, and the log has every problem.
fn operator(config: &Path, started: &Settings, world: &World) -> Option<(Settings, Operator)> {
    let shown = config.display();
    let stays = "the operator's file is refused; its last good version stays in force";
    let settings = match load::compiled(config) {
        Ok(settings) => settings,
        Err(problems) => {
            for problem in &problems {
                tracing::error!("{problem}");
            }
            tracing::error!(problems = problems.len(), "{shown}: {stays}");
            return None;
        }
    };
    let world = match world.reassemble(&settings, &Secrets::from_process()) {
        Ok(world) => world,
        Err(error) => {
            tracing::error!("{shown}: {error}");
            tracing::error!(problems = 1, "{shown}: {stays}");
            return None;
        }
    };
    for key in fixed_keys(started, &settings) {
        tracing::warn!(
            key,
            "{shown}: `{key}` has changed and stays as it was; restart the daemon for it"
        );
    }
    tracing::info!("{shown} was read again; it holds for what begins from now on");
    let operator = Operator {
        world,
        max_runs: settings.limits.max_runs,
        shutdown_grace: settings.shutdown_grace,
        campaigns: settings.campaigns.clone(),
    };
    Some((settings, operator))
}
