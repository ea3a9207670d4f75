//! `campaignd runs` and `campaignd runs show`.

use super::exit::Failure;
use super::load;
use super::show::{Format, coloured_lines, count, instant, lines, say, say_json, table};
use super::view::{BatchView, RunView};
use crate::daemon::settings::Settings;
use crate::id::{CampaignName, RunId};
use crate::run::{Clock as _, Ledger, SystemClock};
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// One campaign; all if none is named.
    campaign: Option<String>,
    /// How many, the newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// One run with its batches and errors.
    #[command(after_help = "Example: campaignd runs show winback-lapsed-buyers@20261122T140000Z")]
    Show {
        /// The run id, as `campaignd runs` prints it.
        run: String,
    },
}

#[derive(Debug, Serialize)]
struct RunWithBatches {
    #[serde(flatten)]
    run: RunView,
    batches: Vec<BatchView>,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let ledger = load::ledger_to_read(&settings).await?;
    match &args.what {
        Some(What::Show { run }) => show(ledger.as_deref(), run, format).await,
        None => list(&settings, ledger.as_deref(), args, format).await,
    }
}

async fn list(
    settings: &Settings,
    ledger: Option<&dyn Ledger>,
    args: &Args,
    format: Format,
) -> Result<(), Failure> {
    let campaign = args
        .campaign
        .as_deref()
        .map(str::parse::<CampaignName>)
        .transpose()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let records = match ledger {
        Some(ledger) => ledger.runs(campaign.as_ref(), args.limit).await,
        None => Ok(Vec::new()),
    };
    let records = records.map_err(Failure::unreachable)?;
    if let Some(name) = &campaign
        && records.is_empty()
    {
        // One that is neither in the files nor in the book is a slip.
        let folder = load::campaigns(settings);
        if folder.problems.is_empty() {
            load::campaign(&folder, name.as_str())?;
        }
    }
    let views: Vec<RunView> = records.iter().map(RunView::of).collect();
    match format {
        Format::Json => say_json(&views),
        Format::Text => say(list_text(&views, SystemClock.now())),
    }
    Ok(())
}

fn list_text(views: &[RunView], now: Timestamp) -> String {
    if views.is_empty() {
        return "no runs yet".to_owned();
    }
    let mut rows = table(&[
        "run",
        "status",
        "fire time",
        "audience#",
        "planned#",
        "delivered#",
        "error",
    ]);
    for view in views {
        rows.add_row([
            view.run_id.clone(),
            view.state.to_owned(),
            instant(view.fire_time, now),
            count(view.audience),
            count(view.planned),
            count(view.delivered),
            view.error.clone().unwrap_or_default(),
        ]);
    }
    coloured_lines(&rows, "status")
}

async fn show(ledger: Option<&dyn Ledger>, run: &str, format: Format) -> Result<(), Failure> {
    let id: RunId = run
        .parse()
        .map_err(|error: crate::id::BadId| Failure::usage(error.to_string()))?;
    let unknown = || Failure::usage(format!("there is no run `{id}`; see `campaignd runs`"));
    let ledger = ledger.ok_or_else(unknown)?;
    let record = ledger
        .run(&id)
        .await
        .map_err(Failure::unreachable)?
        .ok_or_else(unknown)?;
    let batches = ledger.batches(&id).await.map_err(Failure::unreachable)?;
    let view = RunWithBatches {
        run: RunView::of(&record),
        batches: batches
            .iter()
            .map(|batch| BatchView::of(&record, batch))
            .collect(),
    };
    match format {
        Format::Json => say_json(&view),
        Format::Text => say(show_text(&view, SystemClock.now())),
    }
    Ok(())
}

fn show_text(view: &RunWithBatches, now: Timestamp) -> String {
    let run = &view.run;
    let mut text = summary(run, now);
    if !view.batches.is_empty() {
        let mut rows = table(&[
            "batch",
            "state",
            "members#",
            "attempts#",
            "status code",
            "error",
        ]);
        for batch in &view.batches {
            let path = if batch.part.is_empty() {
                batch.batch.to_string()
            } else {
                format!("{}.{}", batch.batch, batch.part)
            };
            rows.add_row([
                path,
                batch.state.to_owned(),
                count(u64::from(batch.members)),
                batch.attempts.to_string(),
                batch
                    .http_status
                    .map_or(String::new(), |code| code.to_string()),
                batch.error.clone().unwrap_or_default(),
            ]);
        }
        text.push_str(&format!("\n{}", lines(&rows)));
    }
    text
}

/// A run in a few lines.
pub(super) fn summary(run: &RunView, now: Timestamp) -> String {
    let mut text = format!(
        "{}  {}\n  fire time   {}\n  audience    {} (withheld: {})\n  planned     {}\n  delivered   {}\n",
        run.run_id,
        run.state,
        instant(run.fire_time, now),
        count(run.audience),
        run.withheld(),
        count(run.planned),
        count(run.delivered),
    );
    let gaps = [
        ("rejected", run.rejected),
        ("failed", run.failed),
        ("unknown", run.unknown),
        ("cancelled", run.cancelled),
        ("still open", run.still_open),
    ];
    for (name, members) in gaps.into_iter().filter(|(_, members)| *members > 0) {
        text.push_str(&format!("  {name:<11} {}\n", count(members)));
    }
    if let Some(error) = &run.error {
        text.push_str(&format!("  error       {error}\n"));
    }
    text
}
