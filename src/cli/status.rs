//! `campaignd status`.

use super::exit::Failure;
use super::files_line::files_line;
use super::load;
use super::show::{Format, coloured_lines, count, instant, say, say_json, table};
use super::view::RunView;
use crate::admin::{Reply, Request, ask};
use crate::campaign::Campaign;
use crate::daemon::{FilesView, invalid};
use crate::id::CampaignName;
use crate::run::{Clock as _, HeldRun, PauseScope, Paused, SystemClock};
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
    /// What keeps it from sending.
    paused: Vec<PauseView>,
    /// Its runs that wait for a person.
    held: Vec<HeldView>,
}

/// A held run, as `--format json` shows it.
#[derive(Debug, Clone, Serialize)]
struct HeldView {
    run_id: String,
    since: Option<Timestamp>,
    /// Whether something of it was sent: then its campaign begins no other.
    has_sent: bool,
}

impl HeldView {
    fn of(held: &HeldRun) -> Self {
        Self {
            run_id: held.record.run.to_string(),
            since: held.record.finished_at,
            has_sent: held.has_sent,
        }
    }
}

/// A pause, as `--format json` shows it.
#[derive(Debug, Clone, Serialize)]
struct PauseView {
    /// `all`, `campaign:<name>`, `destination:<name>`, or `refusing:<name>`: a
    /// destination that refuses whatever it is sent.
    scope: String,
    by: Option<String>,
    since: Option<Timestamp>,
}

impl PauseView {
    fn of(paused: &Paused) -> Self {
        Self {
            scope: paused.scope.to_string(),
            by: paused.by.clone(),
            since: paused.since,
        }
    }
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
    let paused = match &ledger {
        Some(ledger) => ledger.paused().await.map_err(Failure::unreachable)?,
        None => Vec::new(),
    };
    let held = match &ledger {
        Some(ledger) => ledger.held_runs().await.map_err(Failure::unreachable)?,
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
            paused: paused
                .iter()
                .filter(|pause| covers(pause, campaign))
                .map(PauseView::of)
                .collect(),
            held: held
                .iter()
                .filter(|held| held.record.campaign == campaign.name)
                .map(HeldView::of)
                .collect(),
            ..view(campaign, last.as_ref().map(RunView::of), now)
        });
    }
    match format {
        Format::Json => say_json(&views),
        Format::Text => {
            // Also what holds up none of the campaigns that were asked for.
            let pauses: String = paused.iter().map(|pause| pause_line(pause, now)).collect();
            let told = told_of_files(&settings.control).await;
            let files = files_line(told.as_ref(), &invalid(&folder), now);
            // Those of retired campaigns too, where all are asked for.
            let held: String = held
                .iter()
                .filter(|held| {
                    let name = args.campaign.as_deref();
                    name.is_none_or(|name| held.record.campaign.as_str() == name)
                })
                .map(|held| held_line(&held.record.campaign, &HeldView::of(held), now))
                .collect();
            say(text(&views, now) + &held + &files + &pauses);
        }
    }
    Ok(())
}

fn covers(pause: &Paused, campaign: &Campaign) -> bool {
    let destination = &campaign.activation.destination;
    pause.scope.covers(&campaign.name, destination)
}

/// Which run is held, since when, and what follows from it.
fn held_line(campaign: &CampaignName, held: &HeldView, now: Timestamp) -> String {
    let run = &held.run_id;
    let since = held
        .since
        .map_or(String::new(), |at| format!(" since {}", instant(at, now)));
    match held.has_sent {
        true => format!(
            "\n\n{run} is held{since} with a part of it sent, and {campaign} begins no other run: \
             `campaignd resume {run}` sends the others, `campaignd cancel {run}` does not"
        ),
        false => format!(
            "\n\n{run} is held{since}, nothing of it was sent: `campaignd runs show {run}` says why"
        ),
    }
}

/// What is paused, who said so and when, and how it is lifted.
fn pause_line(pause: &Paused, now: Timestamp) -> String {
    let (what, lift) = match &pause.scope {
        PauseScope::All => ("everything".to_owned(), "--all".to_owned()),
        PauseScope::Campaign(name) => (format!("campaign {name}"), name.to_string()),
        PauseScope::Destination(name) => (
            format!("destination {name}"),
            format!("--destination {name}"),
        ),
        PauseScope::Refusing(name) => (
            format!("destination {name}, which refuses what it is sent,"),
            format!("--destination {name}"),
        ),
    };
    let by = pause
        .by
        .as_ref()
        .map_or(String::new(), |by| format!(" by {by}"));
    let since = pause
        .since
        .map_or(String::new(), |at| format!(" since {}", instant(at, now)));
    format!("\n\n{what} is paused{by}{since}; `campaignd unpause {lift}` lifts it")
}

/// What the daemon says of the files; nothing where none is running, or it
/// cannot be asked: reading goes on without it.
async fn told_of_files(control: &Path) -> Option<FilesView> {
    match ask(control, &Request::Files).await {
        Ok(Reply::Told(told)) => serde_json::from_value(told).ok(),
        _ => None,
    }
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
            .then(|| campaign.schedule.next_outside_blackouts(now))
            .flatten(),
        last_run,
        connector_alarm: None,
        paused: Vec::new(),
        held: Vec::new(),
    }
}

fn text(views: &[CampaignView], now: Timestamp) -> String {
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
        coloured_lines(&rows, "status")
    };
    let alarms: BTreeSet<&str> = views
        .iter()
        .filter_map(|view| view.connector_alarm.as_deref())
        .collect();
    for alarm in alarms {
        text.push_str(&format!("\n\n{alarm}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_says_what_by_whom_since_when_and_how_it_is_lifted() {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let line = |scope: &str, by: Option<&str>| {
            let paused = Paused {
                scope: scope.parse().unwrap(),
                by: by.map(str::to_owned),
                since: by.map(|_| "2026-11-22T13:57:00Z".parse().unwrap()),
            };
            pause_line(&paused, now).trim().to_owned()
        };
        assert_eq!(
            line("all", Some("ada")),
            "everything is paused by ada since 2026-11-22 13:57:00Z (3m ago); \
             `campaignd unpause --all` lifts it"
        );
        assert_eq!(
            line("destination:esp", None),
            "destination esp is paused; `campaignd unpause --destination esp` lifts it"
        );
    }
}
