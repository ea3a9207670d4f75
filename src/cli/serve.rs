//! `campaignd serve`.

use super::exit::Failure;
use super::load;
use crate::daemon::{self, Service, folder};
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn run(config: &Path) -> Result<(), Failure> {
    // Before anything that takes time: a stop that comes early is one too.
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let settings = load::settings(config)?;
    let world = Arc::new(load::world(&settings).await?);
    let folder = load::campaigns(&settings);
    folder::log_problems(&folder);
    let known = settings.known();
    let campaigns = settings.campaigns.clone();
    let service = Service {
        world,
        max_runs: settings.limits.max_runs,
        shutdown_grace: settings.shutdown_grace,
        control: Some(settings.control.clone()),
        folder,
    };
    let reread = |last: folder::Folder| {
        let folder = folder::load(&campaigns, &known, last);
        folder::log_problems(&folder);
        folder
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
