//! `campaignd run`: one manual run, carried in the foreground.

use super::canary;
use super::door::Door;
use super::exit::{Failure, PROBLEMS, UNDELIVERED};
use super::follow::follow;
use super::load;
use super::runs::summary;
use super::show::{Format, count, say, say_json};
use super::view::RunView;
use crate::admin::{ControlError, Reply, Request, ask, own_name};
use crate::campaign::{Campaign, RunSpec};
use crate::daemon::settings::Settings;
use crate::daemon::{OpenRun, Wish, World};
use crate::id::RunId;
use crate::run::{
    Carrier, Clock as _, Progress, Reporter, RunError, RunRecord, RunState, SystemClock,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The campaign to run.
    campaign: String,
    /// The time its run id names, such as 2026-11-22T14:00:00Z; now if not
    /// given.
    #[arg(long, value_name = "TIME")]
    fire_time: Option<Timestamp>,
    /// Carries the fire time that was missed or skipped, under its own id and
    /// as the campaign was then.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["fire_time", "canary"])]
    missed: Option<Timestamp>,
    /// Sends this many members first, then asks whether to send the others;
    /// without a terminal or an answer the run is held.
    #[arg(long, value_name = "MEMBERS")]
    canary: Option<NonZeroU32>,
}

impl Args {
    fn request(&self) -> Request {
        let campaign = self.campaign.clone();
        match self.missed {
            Some(fire_time) => Request::RunMissed {
                campaign,
                fire_time,
            },
            None => Request::Run {
                campaign,
                fire_time: self.fire_time,
                canary: self.canary,
            },
        }
    }
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let record = match ask(&settings.control, &args.request()).await {
        Ok(Reply::Seen(seen)) => {
            let record = follow(&settings.control, *seen).await?;
            match canary::goes_on(args.canary, &record).await {
                true => canary::resume_there(&settings.control, &record.run).await?,
                false => record,
            }
        }
        Ok(reply) => return Err(refusal(reply)),
        Err(ControlError::NobodyThere { .. }) => act_here(&settings, args).await?,
        Err(error) => return Err(Failure::unreachable(error)),
    };
    let view = RunView::of(&record);
    match format {
        Format::Json => say_json(&view),
        Format::Text => say(summary(&view, SystemClock.now())),
    }
    ended(&record, &view)
}

/// Nobody is running: the run is carried here.
async fn act_here(settings: &Settings, args: &Args) -> Result<RunRecord, Failure> {
    if let Some(fire_time) = args.missed {
        let world = load::world_for_now(settings).await?;
        let by = own_name();
        let door = Door::of(&world);
        let carrying = async {
            let begun = world.begin_missed(&args.campaign, fire_time, &by).await;
            carry_begun(&world, &door, begun).await
        };
        let result = door.open_while(&settings.control, carrying).await;
        world.close().await;
        return result;
    }
    let folder = load::campaigns(settings);
    let campaign = load::campaign(&folder, &args.campaign)?;
    let world = load::world_for(settings, campaign).await?;
    let wish = Wish {
        fire_time: args.fire_time,
        canary: args.canary,
    };
    let door = Door::of(&world);
    let carrying = async {
        let record = run_here(&world, &door, campaign, wish).await?;
        match canary::goes_on(args.canary, &record).await {
            true => {
                let resumed = world.desk.resume(&record.run, &own_name()).await;
                carry_begun(&world, &door, resumed).await
            }
            // As it is by now: it may have been cancelled meanwhile.
            false => find(&world, &record.run).await,
        }
    };
    let result = door.open_while(&settings.control, carrying).await;
    world.close().await;
    result
}

/// What the person at the terminal and the exit code say of an ended run.
fn ended(record: &RunRecord, view: &RunView) -> Result<(), Failure> {
    let run = &view.run_id;
    let undelivered = count(view.planned - view.delivered.min(view.planned));
    let message = match record.state {
        RunState::Finished if view.delivered == view.planned => return Ok(()),
        RunState::Failed => format!("{run} failed; nothing was sent"),
        RunState::Held => format!(
            "{run} is held with {undelivered} members not delivered; nothing more is sent, nothing is lost"
        ),
        RunState::Cancelled if view.planned == 0 => format!(
            "{run} was cancelled before anything was sent: {}",
            record.error.as_deref().unwrap_or("a person has said so")
        ),
        RunState::Skipped => format!("{run} was skipped; nothing was sent"),
        _ => format!("{run} ended with {undelivered} members not delivered"),
    };
    Err(Failure::new(UNDELIVERED, anyhow::Error::msg(message)))
}

/// Carries the campaign's open run if an earlier process left one, else a new
/// one, and returns its last record.
pub(super) async fn run_here(
    world: &World,
    door: &Door,
    campaign: &Campaign,
    wish: Wish,
) -> Result<RunRecord, Failure> {
    let by = own_name();
    let begun = world.begin_manual(campaign, wish, OpenRun::IsTakenUp, &by);
    carry_begun(world, door, begun.await).await
}

/// Carries what was begun, and returns its last record.
async fn carry_begun(
    world: &World,
    door: &Door,
    begun: Result<RunRecord, Reply>,
) -> Result<RunRecord, Failure> {
    let record = begun.map_err(refusal)?;
    carry(world, door, &record).await?;
    find(world, &record.run).await
}

/// What was asked and not done.
pub(super) fn refusal(reply: Reply) -> Failure {
    match reply {
        Reply::Refused(why) => Failure::usage(why),
        Reply::Problems(why) => Failure::new(PROBLEMS, anyhow::Error::msg(why)),
        Reply::Undelivered(why) => Failure::new(UNDELIVERED, anyhow::Error::msg(why)),
        Reply::Failed(why) => Failure::unreachable(anyhow::Error::msg(why)),
        Reply::Done(_) | Reply::Seen(_) | Reply::Told(_) | Reply::NobodyThere => {
            anyhow::anyhow!("the daemon's answer is not one to what was asked").into()
        }
    }
}

async fn find(world: &World, run: &RunId) -> Result<RunRecord, Failure> {
    let record = world.ledger.run(run).await.map_err(Failure::unreachable)?;
    record
        .ok_or_else(|| anyhow::anyhow!("{run} is not in the ledger that it was written to").into())
}

/// Carries the run to its end, waiting for fresh data where it must.
pub(super) async fn carry(world: &World, door: &Door, record: &RunRecord) -> Result<(), Failure> {
    let mut record = record.clone();
    let carried = door.carries(&record.run);
    let cancel = &carried.cancel;
    loop {
        let ended = carry_once(world, &record, cancel.clone()).await?;
        let Err(RunError::NotFresh(again)) = ended else {
            // It may have been held in the moment in which it was cancelled.
            if ended.is_ok() && cancel.is_cancelled() {
                record = find(world, &record.run).await?;
                if record.state.is_open() {
                    continue;
                }
            }
            return ended.map_err(failure);
        };
        tracing::info!(run.id = %record.run, "its data is not fresh; asked again in {again:.0?}");
        let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
        tokio::select! {
            () = world.clock.sleep(again) => {}
            () = cancel.cancelled() => {}
            _ = interrupt.recv() => return Err(failure(RunError::Interrupted)),
            _ = terminate.recv() => return Err(failure(RunError::Interrupted)),
        }
        record = find(world, &record.run).await?;
    }
}

async fn carry_once(
    world: &World,
    record: &RunRecord,
    cancel: CancellationToken,
) -> Result<Result<(), RunError>, Failure> {
    let spec = RunSpec::from_json(&record.spec).map_err(anyhow::Error::from)?;
    let kit = world.kit(record, &spec).await;
    let kit = kit
        .map_err(Failure::unreachable)?
        .map_err(|error| Failure::usage(error.to_string()))?;
    let stop = CancellationToken::new();
    let (reporter, progress) = Reporter::new(record.state);
    let carrier = Carrier::new(record, kit, reporter, stop.clone()).map_err(failure)?;
    // In the heap: it is large, and those around it would be so too.
    let mut carrying = Box::pin(carrier.until_cancelled(cancel).carry());
    let bar = bar();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let ended = loop {
        tokio::select! {
            ended = &mut carrying => break ended,
            never = draw(&bar, progress.clone()) => match never {},
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // The first time the requests on their way end first, the second time
        // not even they; either way the run stays open.
        if stop.is_cancelled() {
            break Err(RunError::Interrupted);
        }
        stop.cancel();
    };
    bar.finish_and_clear();
    Ok(ended.map(drop))
}

fn failure(error: RunError) -> Failure {
    match error {
        RunError::Warehouse(_) | RunError::Ledger(_) => Failure::unreachable(error),
        RunError::Interrupted => Failure::new(
            UNDELIVERED,
            anyhow::Error::msg(
                "stopped before its end; run the campaign again or start the daemon, and it is carried on",
            ),
        ),
        RunError::Restored(_) => Failure::new(UNDELIVERED, error),
        _ => anyhow::Error::from(error).into(),
    }
}

pub(super) fn bar() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(
        "{msg:<10} {bar:40} {human_pos}/{human_len} members  {elapsed}",
    )
    .expect("the template is ours");
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// Draws a run as it stands.
pub(super) fn draw_once(bar: &ProgressBar, now: Progress) {
    bar.set_message(now.state.as_str());
    bar.set_length(now.funnel.map_or(0, |funnel| funnel.planned));
    bar.set_position(now.tally.total().saturating_sub(now.tally.still_open));
}

/// Draws what the carrier reports. Never ends by itself.
async fn draw(bar: &ProgressBar, progress: watch::Receiver<Progress>) -> Infallible {
    loop {
        draw_once(bar, *progress.borrow());
        tokio::time::sleep(DRAW_EVERY).await;
    }
}
