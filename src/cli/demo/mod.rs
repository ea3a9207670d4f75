//! `campaignd demo`: the main job on embedded SQLite, with sample customers
//! and a receiver of its own. Nothing leaves the machine.

mod files;
mod receiver;

use super::door::Door;
use super::exit::{Failure, UNDELIVERED};
use super::load;
use super::run::run_here;
use super::show::{self, Format, count, say, say_json, table};
use super::view::RunView;
use crate::campaign::Campaign;
use crate::daemon::Wish;
use crate::daemon::World;
use crate::daemon::folder::Folder;
use crate::delivery::SigningKey;
use crate::run::{Clock as _, RunRecord, SystemClock};
use crate::schedule::Terms;
use crate::warehouse::sample;
use anyhow::Context as _;
use receiver::{DemoReceiver, ReceiverCounts};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// People in the sample; small enough that the demo ends in seconds.
const CUSTOMERS: u32 = 10_000;

/// Makes the same people each time.
const SEED: u64 = 2026;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leaves the demo's files in this folder, to look at afterwards.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// A campaign's run, as the report shows it.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    run: RunView,
    batches: u64,
    requests: u64,
    members_per_second: u64,
}

pub(super) async fn run(args: Args, format: Format) -> Result<(), Failure> {
    let temporary;
    let dir: &Path = match &args.keep {
        Some(dir) => dir,
        None => {
            temporary = tempfile::tempdir().context("no temporary folder")?;
            temporary.path()
        }
    };
    let key = SigningKey::parse(files::SIGNING_SECRET).map_err(anyhow::Error::from)?;
    let receiver = DemoReceiver::start(key)
        .await
        .context("the local receiver does not start")?;
    let config = files::write(dir, &receiver.url())?;
    sample::fill(
        &dir.join(files::SANDBOX),
        CUSTOMERS,
        SEED,
        SystemClock.now(),
    )
    .await
    .map_err(Failure::unreachable)?;
    let settings = load::settings(&config)?;
    let folder = load::campaigns(&settings);
    let world = load::world(&settings).await?;
    let lines = run_all(&world, &folder, &receiver).await;
    world.close().await;
    let counts = receiver.counts();
    receiver.stop().await;
    let lines = lines?;
    match format {
        Format::Json => say_json(&lines),
        Format::Text => say(report(&lines, counts, args.keep.as_deref())),
    }
    if lines
        .iter()
        .all(|line| line.run.delivered == line.run.planned)
    {
        Ok(())
    } else {
        let message = anyhow::Error::msg("some members were not delivered");
        Err(Failure::new(UNDELIVERED, message))
    }
}

async fn run_all(
    world: &World,
    folder: &Folder,
    receiver: &DemoReceiver,
) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for loaded in folder.campaigns.values() {
        let before = receiver.counts().requests;
        let campaign = at_any_hour(&loaded.campaign);
        let record = run_here(world, &Door::of(world), &campaign, Wish::default()).await?;
        let requests = receiver.counts().requests - before;
        let batch_size = u64::from(loaded.campaign.activation.batch_size.get());
        lines.push(line(&record, batch_size, requests));
    }
    Ok(lines)
}

/// The campaign without its send window: a demo at night does not wait for the
/// morning.
fn at_any_hour(campaign: &Campaign) -> Campaign {
    let terms = Terms {
        send_window: None,
        ..campaign.schedule.terms().clone()
    };
    Campaign {
        schedule: campaign.schedule.clone().under(terms),
        ..campaign.clone()
    }
}

fn line(record: &RunRecord, batch_size: u64, requests: u64) -> Line {
    let run = RunView::of(record);
    let took_ms = match (record.started_at, record.finished_at) {
        (Some(start), Some(end)) => end.duration_since(start).as_millis().unsigned_abs(),
        _ => 0,
    };
    let per_second = u128::from(run.delivered) * 1_000 / took_ms.max(1);
    Line {
        batches: run.planned.div_ceil(batch_size),
        requests,
        members_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
        run,
    }
}

fn report(lines: &[Line], counts: ReceiverCounts, kept: Option<&Path>) -> String {
    let header = [
        "campaign",
        "audience#",
        "withheld",
        "batches#",
        "delivered#",
        "members/s#",
    ];
    let mut rows = table(&header);
    for line in lines {
        rows.add_row([
            line.run.campaign.clone(),
            count(line.run.audience),
            line.run.withheld(),
            count(line.batches),
            count(line.run.delivered),
            count(line.members_per_second),
        ]);
    }
    let mut text = format!(
        "{}\n\nThe receiver verified {} requests, said 503 to {} of them, and has {} members in {} batches.\n",
        show::lines(&rows),
        count(counts.requests),
        count(counts.busy),
        count(counts.members),
        count(counts.batches),
    );
    match kept {
        Some(dir) => text.push_str(&next_steps(dir, lines)),
        None => text.push_str(
            "Nothing is left behind. To look at the files, the tables and the runs:\n  campaignd demo --keep ./demo\n",
        ),
    }
    text
}

fn next_steps(dir: &Path, lines: &[Line]) -> String {
    let config = dir.join(files::CONFIG);
    let config = config.display();
    let run = lines.first().map_or("RUN", |line| line.run.run_id.as_str());
    format!(
        "Look at next:\n  {}   one campaign a file\n  campaignd check --config {config}\n  campaignd status --config {config}\n  campaignd runs show {run} --config {config}\n  contact_history, deliveries and runs in {}\n",
        dir.join("campaigns").display(),
        dir.join(files::SANDBOX).display(),
    )
}
