//! The daemon: wakes, looks, reloads, drains.

use super::counter::Counter;
use super::files::FilesView;
use super::folder::Folder;
use super::look::keep_looking;
use super::manual::Directory;
use super::reload::{Reloaded, Why};
use super::runs::{Runs, Unstarted};
use super::ticker::Ticker;
use super::wake::WakeUps;
use super::world::World;
use crate::admin;
use crate::run::LedgerError;
use jiff::Timestamp;
use sd_notify::NotifyState;
use std::future::Future;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long after the last look the wall clock is read again at the latest,
/// should every wake-up fail.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// For how many of the newest fire times without a run it is seen to at start
/// that the warehouse has their rows: more than a long time in which nothing
/// was running leaves.
const UNSTARTED_LOOKED_AT: u32 = 50_000;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger, at start. Later it is asked again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Signals or wake-ups cannot be had.
    #[error("{0}")]
    System(String),
}

/// What the daemon is run with.
pub struct Service {
    /// The adapters.
    pub world: Arc<World>,
    /// Runs at a time.
    pub max_runs: u32,
    /// How long a drain may take.
    pub shutdown_grace: Duration,
    /// Where commands reach it; nowhere if none.
    pub control: Option<PathBuf>,
    /// The campaigns, to begin with.
    pub folder: Folder,
    /// Where they are.
    pub campaigns: PathBuf,
    /// Tells when the files are to be read again. Listened to from before the
    /// start, which a signal must not end.
    pub hangup: Signal,
}

/// Runs the daemon until `shutdown`, then drains it. `reread` reads the
/// operator's file and the campaigns folder anew, given what they were; it is
/// called on `SIGHUP` and when campaign files have changed, once the daemon is
/// ready.
pub async fn serve(
    mut service: Service,
    reread: impl Fn(Why, &World, Folder) -> Reloaded,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut wake_ups = WakeUps::start()
        .await
        .map_err(|error| ServeError::System(format!("no wake-ups: {error}")))?;
    let stop = CancellationToken::new();
    let runs = Runs::new(Arc::clone(&service.world), service.max_runs, stop.clone());
    service.world.desk.look().await?;
    let helpers = TaskTracker::new();
    let mut files_seen = FilesView::default();
    let now = service.world.clock.now();
    let directory = Directory::of(&service.folder, &mut files_seen, now);
    let (tell, campaigns_in_force) = watch::channel(Arc::new(directory));
    attend(&service, &runs, campaigns_in_force, (&helpers, &stop));
    take_up(&service.world, &runs).await?;
    let mut silent = stop.child_token();
    runs.look_after_silent(&silent);
    runs.keep_tidy(&silent);
    runs.watch_other_hosts();
    runs.watch_expired(&stop);
    let campaigns = service.folder.campaigns.len();
    let (move_to, dir) = watch::channel(service.campaigns.clone());
    let (look, mut files) = watch::channel(service.folder.stamp.clone());
    let clock = Arc::clone(&service.world.clock);
    helpers.spawn(keep_looking(dir, look, clock, stop.clone()));
    let mut ticker = Ticker::new(Arc::clone(&service.world), runs.clone(), service.folder);
    tell_systemd(&[NotifyState::Ready]);
    tracing::info!(campaigns, "ready; campaigns: {campaigns}");
    let watchdog = sd_notify::watchdog_enabled();
    tokio::pin!(shutdown);
    loop {
        let wait = match ticker.look().await {
            Ok(next) => {
                // Said here and nowhere else: a look that hangs, in the ledger
                // or on its way to it, ends in a restart.
                if watchdog.is_some() {
                    tell_systemd(&[NotifyState::Watchdog]);
                }
                until(next, service.world.clock.now())
            }
            Err(error) => {
                tracing::error!("fire times cannot be taken; trying again: {error}");
                Duration::from_secs(1)
            }
        };
        let why = tokio::select! {
            () = &mut shutdown => break,
            () = wake_ups.next() => continue,
            () = service.world.clock.sleep(wait) => continue,
            _ = service.hangup.recv() => Why::Asked,
            Ok(()) = files.changed() => {
                // As they are since a hangup was answered.
                if *files.borrow_and_update() == ticker.folder().stamp {
                    continue;
                }
                Why::Changed
            }
        };
        if let Some((grace, campaigns)) = reload(why, &mut ticker, &runs, &reread) {
            service.shutdown_grace = grace;
            move_to.send_replace(campaigns);
            silent.cancel();
            silent = stop.child_token();
            runs.look_after_silent(&silent);
            runs.keep_tidy(&silent);
        }
        let now = service.world.clock.now();
        let directory = Directory::of(ticker.folder(), &mut files_seen, now);
        tell.send_replace(Arc::new(directory));
    }
    tell_systemd(&[NotifyState::Stopping]);
    wake_ups.stop().await;
    stop.cancel();
    drain(&runs, service.shutdown_grace).await;
    helpers.close();
    helpers.wait().await;
    Ok(())
}

/// Reads the files again. Returns how long a drain may take now, and where the
/// campaigns are, if the operator's file was read and is without a problem.
fn reload(
    why: Why,
    ticker: &mut Ticker,
    runs: &Runs,
    reread: impl Fn(Why, &World, Folder) -> Reloaded,
) -> Option<(Duration, PathBuf)> {
    let mut changed = None;
    let campaigns = ticker.reload(|last| {
        let reloaded = reread(why, &runs.world(), last);
        if let Some(operator) = reloaded.operator {
            changed = Some((operator.shutdown_grace, operator.campaigns));
            runs.change(Arc::new(operator.world), operator.max_runs);
        }
        reloaded.folder
    });
    if why == Why::Asked {
        tracing::info!(
            campaigns,
            "the folder was read again; campaigns: {campaigns}"
        );
    }
    changed
}

/// Listens to people, here and on the other hosts of a shared ledger.
fn attend(
    service: &Service,
    runs: &Runs,
    campaigns: watch::Receiver<Arc<Directory>>,
    (helpers, stop): (&TaskTracker, &CancellationToken),
) {
    let desk = Arc::clone(&service.world.desk);
    if let Some(path) = service.control.clone() {
        let (desk, runs) = (Arc::clone(&desk), runs.clone());
        let counter = Arc::new(Counter::new(desk, runs, campaigns));
        helpers.spawn(answer_at(path, counter, stop.clone()));
    }
    if service.world.rescan_every().is_some() {
        let (runs, stop) = (runs.clone(), stop.clone());
        helpers.spawn(async move { desk.keep_looking(&runs, stop).await });
    }
}

/// How often a control socket that another has is tried for.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Answers at the control socket until `stop`; once it is free, where a run in
/// the foreground has it.
async fn answer_at(path: PathBuf, counter: Arc<Counter>, stop: CancellationToken) {
    let mut said = false;
    while let Err(error) = admin::serve(&path, Arc::clone(&counter) as _, stop.clone()).await {
        if !said {
            said = true;
            let path = path.display();
            tracing::error!("commands cannot reach this daemon at {path}: {error}");
        }
        if error.kind() != ErrorKind::AddrInUse {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

/// Carries on what an earlier process left.
async fn take_up(world: &World, runs: &Runs) -> Result<(), ServeError> {
    runs.take_up().await?;
    let mut unstarted = Unstarted::default();
    let newest = world.ledger.unstarted_runs(UNSTARTED_LOOKED_AT).await?;
    newest.iter().for_each(|record| unstarted.add(record));
    runs.record_unstarted(unstarted);
    Ok(())
}

async fn drain(runs: &Runs, grace: Duration) {
    tracing::info!(
        grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        "draining"
    );
    if tokio::time::timeout(grace, runs.drained()).await.is_err() {
        tracing::warn!("runs still open after {grace:?}; the next start carries them on");
    }
    tracing::info!("stopped");
}

fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    next.and_then(|next| Duration::try_from(next.duration_since(now)).ok())
        .map_or(LOOK_AT_LEAST_EVERY, |wait| wait.min(LOOK_AT_LEAST_EVERY))
}

/// Tells systemd, where it is there to be told.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd was not told: {error}");
    }
}
