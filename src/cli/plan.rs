//! `campaignd plan` and what it shows: a run that is not begun.

use super::exit::{Failure, PROBLEMS};
use super::load;
use super::run::refusal;
use super::show::{Format, count, counted, instant, lines, say, say_json, table};
use crate::admin::{ControlError, PlanWish, Reply, Request, ask};
use crate::audience::Funnel;
use crate::campaign::Campaign;
use crate::daemon::settings::{Secrets, Settings};
use crate::daemon::{Asked, FireTime, Freshness, PlanView, Verdict};
use crate::history::RunFacts;
use crate::run::{Clock as _, SystemClock};
use jiff::Timestamp;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The campaign.
    campaign: String,
    /// The first payload as it would be sent, its values not masked.
    #[arg(long)]
    show_values: bool,
    /// The statement that the warehouse was asked.
    #[arg(long)]
    sql: bool,
    /// How the warehouse goes about that statement.
    #[arg(long)]
    explain: bool,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let now = SystemClock.now();
    let wish = PlanWish {
        show_values: args.show_values,
        sql: args.sql,
        explain: args.explain,
    };
    let request = Request::Plan {
        campaign: args.campaign.clone(),
        wish,
    };
    let view = match ask(&settings.control, &request).await {
        Ok(Reply::Told(told)) => serde_json::from_value(told).map_err(anyhow::Error::from)?,
        Ok(reply) => return Err(refusal(reply)),
        Err(ControlError::NobodyThere { .. }) => {
            let folder = load::campaigns(&settings);
            let campaign = load::campaign(&folder, &args.campaign)?;
            let asked = asked(&settings, campaign, now)?;
            let last = last_funnel(&settings, &asked.facts);
            let planned = asked.plan(campaign, wish, last).await;
            planned.map_err(refusal)?
        }
        Err(error) => return Err(Failure::unreachable(error)),
    };
    match format {
        Format::Json => say_json(&view),
        Format::Text => say(text(&view, now)),
    }
    Ok(())
}

/// The audience of the campaign's last scheduled run, by a ledger that is only
/// read.
fn last_funnel(
    settings: &Settings,
    facts: &RunFacts,
) -> impl Future<Output = Result<Option<Funnel>, Reply>> + use<> {
    let (settings, facts) = (settings.clone(), facts.clone());
    async move {
        let failed = |why: String| Reply::Failed(why);
        let ledger = load::ledger_to_read(&settings).await;
        let Some(ledger) = ledger.map_err(|error| failed(error.report().unwrap_or_default()))?
        else {
            return Ok(None);
        };
        let last = ledger.last_scheduled(&facts.campaign, &facts.run).await;
        let last = last.map_err(|error| failed(error.to_string()))?;
        Ok(last.and_then(|last| last.funnel))
    }
}

/// What a run would be: only the connector's secrets are needed, and no ledger.
pub(super) fn asked(
    settings: &Settings,
    campaign: &Campaign,
    now: Timestamp,
) -> Result<Asked, Failure> {
    let undefined = || Failure::usage("its connector or destination is gone");
    let connector = settings.connectors.get(&campaign.connector);
    let options = settings
        .connector_options(
            &campaign.connector,
            connector.ok_or_else(undefined)?,
            &Secrets::from_process(),
        )
        .map_err(|error| Failure::new(PROBLEMS, error))?;
    let destination = settings.destinations.get(&campaign.activation.destination);
    let terms = destination.ok_or_else(undefined)?.terms();
    Asked::new(campaign, (options, &terms), now).map_err(refusal)
}

fn text(view: &PlanView, now: Timestamp) -> String {
    let mut text = format!(
        "{} would now plan {} in {} of up to {} to {}; nothing was sent or written\n\n",
        view.campaign,
        counted(
            usize::try_from(view.funnel.planned).unwrap_or(usize::MAX),
            "member"
        ),
        match view.batches {
            1 => "1 batch".to_owned(),
            batches => format!("{} batches", count(batches)),
        },
        view.batch_size,
        view.destination,
    );
    if let Some(why) = &view.would_be_held {
        text.push_str(&format!(
            "it would be held before anything is sent: {why}\n\n"
        ));
    }
    if let Some(freshness) = &view.freshness {
        text.push_str(&fresh(freshness, now));
        text.push_str("\n\n");
    }
    text.push_str(&lines(&funnel(&view.funnel)));
    text.push_str("\n\n");
    text.push_str(&times(view, now));
    if let Some(payload) = &view.first_payload {
        let masked = match view.values_masked {
            true => ", values masked (--show-values shows them)",
            false => "",
        };
        let json = serde_json::to_string_pretty(payload).expect("it was JSON");
        text.push_str(&format!(
            "\n\nfirst payload, its first members{masked}\n{json}"
        ));
    }
    if let Some(sql) = &view.sql {
        text.push_str(&format!("\n\nSQL\n{sql}"));
    }
    if let Some(explain) = &view.explain {
        text.push_str(&format!("\n\nEXPLAIN\n{}", explain.join("\n")));
    }
    text
}

fn funnel(funnel: &Funnel) -> comfy_table::Table {
    let mut rows = table(&["members", "count#"]);
    for (name, members) in [
        ("audience", funnel.audience),
        ("- no key", funnel.no_key),
        ("- bad key", funnel.bad_key),
        ("- duplicate", funnel.duplicate),
        ("- suppressed", funnel.suppressed),
        ("- held out", funnel.held_out),
        ("- capped", funnel.capped),
        ("- cooling down", funnel.cooling_down),
        ("- over limit", funnel.over_limit),
        ("planned", funnel.planned),
    ] {
        rows.add_row([name.to_owned(), count(members)]);
    }
    rows
}

/// What a run would make of how recent its data is.
fn fresh(found: &Freshness, now: Timestamp) -> String {
    let for_secs = |secs: u64| humantime::format_duration(Duration::from_secs(secs));
    let max_age = for_secs(found.max_age_secs);
    let newest = match found.newest {
        Some(newest) => format!("the newest is from {}", instant(newest, now)),
        None => "there is none".to_owned(),
    };
    match (found.verdict, &found.error) {
        (Verdict::Fresh, _) => format!("its data is fresh: {newest}, at most {max_age} is allowed"),
        (Verdict::Stale, _) => {
            let then = match found.wait_secs {
                0 => "fail".to_owned(),
                secs => format!("wait up to {} for newer, then fail", for_secs(secs)),
            };
            format!("its data is stale: {newest}, at most {max_age} is allowed; a run would {then}")
        }
        (Verdict::Error, why) => format!(
            "how recent its data is cannot be asked, so a run would fail: {}",
            why.as_deref().unwrap_or_default()
        ),
    }
}

fn times(view: &PlanView, now: Timestamp) -> String {
    if view.fire_times.is_empty() {
        return "no fire time to come".to_owned();
    }
    let mut rows = table(&["next fire times", "in its zone", "note"]);
    for time in &view.fire_times {
        rows.add_row([instant(time.at, now), time.local.clone(), remark(time)]);
    }
    lines(&rows)
}

/// What is to be known of a fire time.
fn remark(time: &FireTime) -> String {
    let skipped = time.skipped.as_ref().map(|why| match time.likewise {
        0 => format!("skipped: {why}"),
        more => format!("skipped, and {} after it: {why}", count(u64::from(more))),
    });
    let notes = [skipped, time.note.clone()];
    notes.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
