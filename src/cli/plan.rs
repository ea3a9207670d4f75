//! `campaignd plan` and what it shows: a run that is not begun.

use super::exit::{Failure, PROBLEMS};
use super::load;
use super::show::{Format, count, counted, instant, lines, say, say_json, table};
use crate::audience::Funnel;
use crate::campaign::{Campaign, RunSpec};
use crate::daemon::settings::{Secrets, Settings};
use crate::delivery::{Envelope, Page, Renderer};
use crate::history::RunFacts;
use crate::id::{BatchPath, RunId, Trigger};
use crate::run::{Clock as _, SystemClock, WarehouseError, WarehouseErrorClass};
use crate::schedule::clock_note;
use crate::warehouse::{ConnectorOptions, Preview, Wanted, preview};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use uuid::Uuid;

/// How many members the first payload is shown with: enough to see its shape.
const MEMBERS_SHOWN: u32 = 2;

/// How many fire times are shown.
const FIRE_TIMES: usize = 5;

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

/// A plan, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct View {
    campaign: String,
    campaign_version: String,
    connector: String,
    destination: String,
    planned_at: Timestamp,
    funnel: Funnel,
    batch_size: u32,
    batches: u64,
    /// Why a run would be held before anything is sent; none if it would not.
    would_be_held: Option<String>,
    fire_times: Vec<FireTime>,
    /// The first request's body with its first members; none where nobody is
    /// planned.
    first_payload: Option<Value>,
    values_masked: bool,
    sql: Option<String>,
    explain: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct FireTime {
    at: Timestamp,
    local: String,
    note: Option<String>,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let folder = load::campaigns(&settings);
    let campaign = load::campaign(&folder, &args.campaign)?;
    let now = SystemClock.now();
    let asked = Asked::of(&settings, campaign, now)?;
    let wanted = Wanted {
        members: asked.spec.batch_size.get().min(MEMBERS_SHOWN),
        explained: args.explain,
    };
    let found = preview(asked.options, &asked.facts, wanted)
        .await
        .map_err(|error| failure(campaign, &error))?;
    let would_be_held = unexpected(&settings, &asked.facts, campaign, &found.funnel).await?;
    let view = View {
        would_be_held,
        ..view(campaign, (&asked.spec, &asked.facts), found, args)
    };
    match format {
        Format::Json => say_json(&view),
        Format::Text => say(text(&view, now)),
    }
    Ok(())
}

/// Why a run would be held before anything is sent, as `audience.expect` has
/// it. The state store is read only where the last run matters.
async fn unexpected(
    settings: &Settings,
    facts: &RunFacts,
    campaign: &Campaign,
    funnel: &Funnel,
) -> Result<Option<String>, Failure> {
    let expect = &campaign.expect;
    let mut last = None;
    if expect.max_change_basis_points.is_some()
        && let Some(ledger) = load::ledger_to_read(settings).await?
    {
        let record = ledger.last_scheduled(&campaign.name, &facts.run).await;
        let record = record.map_err(Failure::unreachable)?;
        last = record.and_then(|record| record.funnel);
    }
    Ok(expect.refuses(funnel.audience, last.map(|last| last.audience)))
}

/// What a run of a campaign begun now would be, and whom to ask about it.
pub(super) struct Asked {
    pub(super) options: ConnectorOptions,
    pub(super) facts: RunFacts,
    spec: RunSpec,
}

impl Asked {
    /// Only the connector's secrets are needed, and no ledger.
    pub(super) fn of(
        settings: &Settings,
        campaign: &Campaign,
        now: Timestamp,
    ) -> Result<Self, Failure> {
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
        let spec = RunSpec::of(campaign, &destination.ok_or_else(undefined)?.terms());
        let fire_time = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let run = RunId::manual(&campaign.name, fire_time, 1);
        let audience = spec
            .audience_of(&run, fire_time, options.dialect())
            .map_err(|error| Failure::new(PROBLEMS, error))?;
        let facts = RunFacts {
            run,
            campaign: campaign.name.clone(),
            campaign_version: spec.version(),
            fire_time,
            trigger: Trigger::Manual,
            started_at: now,
            audience,
            batch_size: spec.batch_size.get(),
            destination: spec.destination.clone(),
            channel: spec.channel.clone(),
            attributes: spec.attributes_text(),
            owner: Uuid::nil(),
            term: 0,
            suppress: spec.suppress.clone(),
            policy: spec.policy.clone(),
            canary: 0,
        };
        Ok(Self {
            options,
            facts,
            spec,
        })
    }
}

/// What the warehouse said, with the place in the campaign's SQL: exit code 3
/// where the SQL is at fault, else 5.
pub(super) fn failure(campaign: &Campaign, error: &WarehouseError) -> Failure {
    let name = &campaign.name;
    let text = match error.place {
        Some((line, column)) => {
            format!("{name}: audience.sql, line {line}, column {column}: {error}")
        }
        None => format!("{name}: connector `{}`: {error}", campaign.connector),
    };
    let error_of = anyhow::Error::msg(text);
    match error.class {
        WarehouseErrorClass::Statement => Failure::new(PROBLEMS, error_of),
        _ => Failure::unreachable(error_of),
    }
}

fn view(
    campaign: &Campaign,
    (spec, facts): (&RunSpec, &RunFacts),
    found: Preview,
    args: &Args,
) -> View {
    let batches = found.funnel.planned.div_ceil(u64::from(facts.batch_size));
    let page = &found.first;
    let payload =
        (!page.is_empty()).then(|| payload((spec, facts), batches, page, args.show_values));
    View {
        campaign: campaign.name.to_string(),
        campaign_version: facts.campaign_version.clone(),
        connector: spec.connector.to_string(),
        destination: spec.destination.to_string(),
        planned_at: facts.fire_time,
        funnel: found.funnel,
        batch_size: facts.batch_size,
        batches,
        would_be_held: None,
        fire_times: fire_times(campaign, facts.started_at),
        first_payload: payload,
        values_masked: !args.show_values,
        sql: args.sql.then_some(found.sql),
        explain: found.explained,
    }
}

/// The next fire times, by the schedule alone; none of a campaign that is
/// disabled.
fn fire_times(campaign: &Campaign, now: Timestamp) -> Vec<FireTime> {
    if !campaign.enabled {
        return Vec::new();
    }
    let schedule = &campaign.schedule;
    let zone = schedule.zone();
    let mut before = now;
    let fire_time = |at: Timestamp| {
        let note = clock_note(zone, before, at);
        before = at;
        FireTime {
            at,
            local: at
                .to_zoned(zone.clone())
                .strftime("%a %Y-%m-%d %H:%M:%S %Z")
                .to_string(),
            note,
        }
    };
    schedule
        .fire_times(now, Timestamp::MAX, FIRE_TIMES)
        .into_iter()
        .map(fire_time)
        .collect()
}

fn payload(
    (spec, facts): (&RunSpec, &RunFacts),
    batches: u64,
    page: &Page,
    show_values: bool,
) -> Value {
    let envelope = Envelope {
        campaign: facts.campaign.clone(),
        run: facts.run.clone(),
        fire_time: facts.fire_time,
        channel: facts.channel.clone(),
        batches: u32::try_from(batches).unwrap_or(u32::MAX),
        attributes: spec.attributes.clone(),
    };
    let first = BatchPath {
        batch: 1,
        part: String::new(),
    };
    let renderer = Renderer::of(&envelope, spec.shape());
    let body = match show_values {
        true => renderer.render(&first, page, 0..page.len()),
        false => renderer.render_masked(&first, page, 0..page.len()),
    };
    match body {
        // Lines and forms are shown as the text they are.
        Ok(body) => serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body))),
        Err(error) => Value::from(format!("cannot be rendered: {error}")),
    }
}

fn text(view: &View, now: Timestamp) -> String {
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

fn times(view: &View, now: Timestamp) -> String {
    if view.fire_times.is_empty() {
        return "no fire time to come".to_owned();
    }
    let mut rows = table(&["next fire times", "in its zone", "note"]);
    for time in &view.fire_times {
        rows.add_row([
            instant(time.at, now),
            time.local.clone(),
            time.note.clone().unwrap_or_default(),
        ]);
    }
    lines(&rows)
}
