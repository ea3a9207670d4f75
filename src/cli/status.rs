//! `campaignd status`.

use super::exit::Failure;
use super::files_line::files_line;
use super::load;
use super::show::{Format, coloured_lines, count, instant, say, say_json, table};
use super::view::RunView;
use crate::admin::{Reply, Request, ask};
use crate::daemon::folder::Folder;
use crate::daemon::{FilesView, InForce, invalid};
use crate::id::CampaignName;
use crate::run::{Clock as _, HeldRun, PauseScope, Paused, SystemClock};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One campaign; all if none is named.
    campaign: Option<String>,
}

/// One campaign, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct CampaignView {
    #[serde(flatten)]
    campaign: InForce,
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
    let told = told_of_files(&settings.control).await;
    let kept = told.as_ref().map_or(&[][..], |told| &told.kept);
    let campaigns = asked(&folder, kept, args.campaign.as_deref(), now)?;
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
                .runs(Some(&campaign.campaign), 1)
                .await
                .map_err(Failure::unreachable)?
                .pop(),
            None => None,
        };
        let alarm = alarms.iter().find(|(name, _)| *name == campaign.connector);
        views.push(CampaignView {
            last_run: last.as_ref().map(RunView::of),
            connector_alarm: alarm.map(|(_, alarm)| alarm.clone()),
            paused: paused
                .iter()
                .filter(|pause| covers(pause, &campaign))
                .map(PauseView::of)
                .collect(),
            held: held
                .iter()
                .filter(|held| held.record.campaign == campaign.campaign)
                .map(HeldView::of)
                .collect(),
            campaign,
        });
    }
    match format {
        Format::Json => say_json(&views),
        Format::Text => {
            // Also what holds up none of the campaigns that were asked for.
            let pauses: String = paused.iter().map(|pause| pause_line(pause, now)).collect();
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

/// The campaigns that are asked for, by name: those of the files, and those
/// that the daemon has `kept` of a file that is not valid any more.
fn asked(
    folder: &Folder,
    kept: &[InForce],
    name: Option<&str>,
    now: Timestamp,
) -> Result<Vec<InForce>, Failure> {
    if let Some(name) = name {
        let kept = kept.iter().find(|kept| kept.campaign.as_str() == name);
        return match (load::campaign(folder, name), kept) {
            (Ok(campaign), _) => Ok(vec![InForce::of(campaign, now)]),
            (Err(_), Some(kept)) => Ok(vec![kept.clone()]),
            (Err(unknown), None) => Err(unknown),
        };
    }
    let kept = kept
        .iter()
        .map(|kept| (kept.campaign.clone(), kept.clone()));
    let mut all: BTreeMap<CampaignName, InForce> = kept.collect();
    for loaded in folder.campaigns.values() {
        let campaign = InForce::of(&loaded.campaign, now);
        all.insert(campaign.campaign.clone(), campaign);
    }
    Ok(all.into_values().collect())
}

fn covers(pause: &Paused, campaign: &InForce) -> bool {
    pause
        .scope
        .covers(&campaign.campaign, &campaign.destination)
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

/// How long the daemon is waited for: what it says is at hand.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the daemon says of the files; nothing where none is running, or it
/// cannot be asked: reading goes on without it.
async fn told_of_files(control: &Path) -> Option<FilesView> {
    let told = tokio::time::timeout(PATIENCE, ask(control, &Request::Files));
    match told.await.ok()? {
        Ok(Reply::Told(told)) => serde_json::from_value(told).ok(),
        _ => None,
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
        let campaign = &view.campaign;
        let next = match (campaign.enabled, campaign.next_fire_time) {
            (false, _) => "disabled".to_owned(),
            (true, Some(at)) => instant(at, now),
            (true, None) => "never again".to_owned(),
        };
        let row = match &view.last_run {
            Some(last) => [
                campaign.campaign.to_string(),
                next,
                instant(last.fire_time, now),
                last.state.to_owned(),
                count(last.planned),
                count(last.delivered),
            ],
            None => [
                campaign.campaign.to_string(),
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
