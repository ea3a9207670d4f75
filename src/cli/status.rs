//! `campaignd status`.

use super::exit::Failure;
use super::load;
use super::show::{Format, count, counted, instant, lines, say, say_json, table};
use super::view::RunView;
use crate::campaign::{Campaign, Severity};
use crate::daemon::folder::Folder;
use crate::run::{Clock as _, SystemClock};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One campaign; all if none is named.
    campaign: Option<String>,
}

/// One campaign, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct CampaignView {
    campaign: String,
    description: Option<String>,
    owner: Option<String>,
    enabled: bool,
    connector: String,
    destination: String,
    priority: u8,
    next_fire_time: Option<Timestamp>,
    last_run: Option<RunView>,
    /// Why nothing is sent on its connector, where that is so.
    connector_alarm: Option<String>,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let folder = load::campaigns(&settings);
    let now = SystemClock.now();
    let campaigns = match &args.campaign {
        Some(name) => vec![load::campaign(&folder, name)?],
        None => folder.campaigns.values().map(|l| &l.campaign).collect(),
    };
    let ledger = load::ledger_to_read(&settings).await?;
    let alarms = match &ledger {
        Some(ledger) => ledger
            .connector_alarms()
            .await
            .map_err(Failure::unreachable)?,
        None => Vec::new(),
    };
    let mut views = Vec::with_capacity(campaigns.len());
    for campaign in campaigns {
        let last = match &ledger {
            Some(ledger) => ledger
                .runs(Some(&campaign.name), 1)
                .await
                .map_err(Failure::unreachable)?
                .pop(),
            None => None,
        };
        let alarm = alarms.iter().find(|(name, _)| *name == campaign.connector);
        views.push(CampaignView {
            connector_alarm: alarm.map(|(_, alarm)| alarm.clone()),
            ..view(campaign, last.as_ref().map(RunView::of), now)
        });
    }
    match format {
        Format::Json => say_json(&views),
        Format::Text => say(text(&views, errors(&folder), now)),
    }
    Ok(())
}

fn errors(folder: &Folder) -> usize {
    let problems = folder.problems.iter();
    problems.filter(|p| p.severity == Severity::Error).count()
}

fn view(campaign: &Campaign, last_run: Option<RunView>, now: Timestamp) -> CampaignView {
    CampaignView {
        campaign: campaign.name.to_string(),
        description: campaign.description.clone(),
        owner: campaign.owner.clone(),
        enabled: campaign.enabled,
        connector: campaign.connector.to_string(),
        destination: campaign.activation.destination.to_string(),
        priority: campaign.priority,
        next_fire_time: campaign
            .enabled
            .then(|| campaign.schedule.next_after(now))
            .flatten(),
        last_run,
        connector_alarm: None,
    }
}

fn text(views: &[CampaignView], problems: usize, now: Timestamp) -> String {
    let mut rows = table(&[
        "campaign",
        "next fire time",
        "last run",
        "status",
        "planned#",
        "delivered#",
    ]);
    for view in views {
        let next = match (view.enabled, view.next_fire_time) {
            (false, _) => "disabled".to_owned(),
            (true, Some(at)) => instant(at, now),
            (true, None) => "never again".to_owned(),
        };
        let row = match &view.last_run {
            Some(last) => [
                view.campaign.clone(),
                next,
                instant(last.fire_time, now),
                last.state.to_owned(),
                count(last.planned),
                count(last.delivered),
            ],
            None => [
                view.campaign.clone(),
                next,
                "none".to_owned(),
                String::new(),
                String::new(),
                String::new(),
            ],
        };
        rows.add_row(row);
    }
    let mut text = if views.is_empty() {
        "no campaigns".to_owned()
    } else {
        lines(&rows)
    };
    let alarms: BTreeSet<&str> = views
        .iter()
        .filter_map(|view| view.connector_alarm.as_deref())
        .collect();
    for alarm in alarms {
        text.push_str(&format!("\n\n{alarm}"));
    }
    if problems > 0 {
        text.push_str(&format!(
            "\n\n{} in campaign files; see `campaignd check`",
            counted(problems, "problem")
        ));
    }
    text
}
