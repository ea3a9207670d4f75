//! What a run would be, read from the warehouse while nothing is written.

use super::freshness::{Freshness, freshness};
use crate::admin::{PlanWish, Reply};
use crate::audience::Funnel;
use crate::campaign::{Campaign, DestinationTerms, RunSpec};
use crate::delivery::{Envelope, Kind, Misfit, Page, Renderer, misfits};
use crate::history::RunFacts;
use crate::id::{BatchPath, RunId, Trigger};
use crate::run::{WarehouseError, WarehouseErrorClass};
use crate::schedule::clock_note;
use crate::warehouse::{
    ConnectorOptions, Looked, Preview, Wanted, audience_count, look_at_campaign, preview,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::future::Future;
use uuid::Uuid;

/// How many members the first payload is shown with: enough to see its shape.
const MEMBERS_SHOWN: u32 = 2;

/// How many fire times at which something runs are shown.
const FIRE_TIMES: usize = 5;

/// How many are looked at for that, where a blackout takes most of them: some
/// milliseconds' worth.
const FIRE_TIMES_LOOKED_AT: usize = 1_000;

/// A plan, as `--format json` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanView {
    /// The campaign.
    pub campaign: String,
    /// The hash of its run specification.
    pub campaign_version: String,
    /// Its connector.
    pub connector: String,
    /// Its destination.
    pub destination: String,
    /// The time its templates saw.
    pub planned_at: Timestamp,
    /// Who falls out where.
    pub funnel: Funnel,
    /// Members in a batch, at most.
    pub batch_size: u32,
    /// How many batches they are.
    pub batches: u64,
    /// Why a run would be held before anything is sent; none if it would not.
    pub would_be_held: Option<String>,
    /// How recent its data is; none where the campaign does not ask.
    #[serde(default)]
    pub freshness: Option<Freshness>,
    /// The next fire times, those that are skipped among them.
    pub fire_times: Vec<FireTime>,
    /// The first request's body with its first members; none where nobody is
    /// planned.
    pub first_payload: Option<Value>,
    /// Whether the payload says nothing of members.
    pub values_masked: bool,
    /// The statement, if it was asked for.
    pub sql: Option<String>,
    /// How the warehouse goes about it, if that was asked for.
    pub explain: Option<Vec<String>>,
}

/// A fire time to come.
#[derive(Debug, Serialize, Deserialize)]
pub struct FireTime {
    /// The instant.
    pub at: Timestamp,
    /// The same in its zone.
    pub local: String,
    /// What the clocks do in between.
    pub note: Option<String>,
    /// Why nothing runs at it, if it is skipped.
    #[serde(default)]
    pub skipped: Option<String>,
    /// How many after it are skipped for the same reason, and not shown.
    #[serde(default)]
    pub likewise: u32,
}

/// A count, as `--format json` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct CountView {
    /// The campaign.
    pub campaign: String,
    /// When it was counted.
    pub counted_at: Timestamp,
    /// Rows the campaign's query returns.
    pub audience: u64,
}

/// What a run of a campaign begun now would be, and whom to ask about it.
pub struct Asked {
    /// The warehouse.
    pub options: ConnectorOptions,
    /// The run that is not begun.
    pub facts: RunFacts,
    spec: RunSpec,
}

impl Asked {
    /// What a run with these terms would be. An error is told as
    /// [`Reply::Problems`].
    pub fn new(
        campaign: &Campaign,
        (options, terms): (ConnectorOptions, &DestinationTerms),
        now: Timestamp,
    ) -> Result<Self, Reply> {
        let spec = RunSpec::of(campaign, terms);
        let fire_time = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let run = RunId::manual(&campaign.name, fire_time, 1);
        let audience = spec
            .audience_of(&run, fire_time, options.dialect())
            .map_err(|error| Reply::Problems(error.to_string()))?;
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

    /// What it would come to. Holds no unmasked value unless `wish` says so.
    /// What the warehouse has against it is told as [`Reply`].
    pub async fn plan(
        self,
        campaign: &Campaign,
        wish: PlanWish,
        last: impl Future<Output = Result<Option<Funnel>, Reply>>,
    ) -> Result<PlanView, Reply> {
        let wanted = Wanted {
            members: self.spec.batch_size.get().min(MEMBERS_SHOWN),
            explained: wish.explain,
        };
        let found = preview(self.options.clone(), &self.facts, wanted)
            .await
            .map_err(|error| refused(campaign, &error))?;
        let expect = &campaign.expect;
        let last = match expect.max_change_basis_points {
            Some(_) => last.await?,
            None => None,
        };
        let would_be_held = expect.refuses(found.funnel.audience, last.map(|last| last.audience));
        let freshness = freshness(campaign, &self.spec, (self.options, &self.facts)).await?;
        Ok(PlanView {
            would_be_held,
            freshness,
            ..view(campaign, (&self.spec, &self.facts), found, wish)
        })
    }

    /// What the warehouse has against the campaign, and which types its columns
    /// have.
    pub async fn look(&self) -> Result<Looked, WarehouseError> {
        let (run, at) = (&self.facts.run, self.facts.fire_time);
        let fresh_when = self.spec.fresh_when_of(run, at, self.options.dialect());
        // One that cannot be rendered is for `check` without a warehouse.
        let fresh_when = fresh_when.ok().flatten();
        look_at_campaign(self.options.clone(), &self.facts, fresh_when.as_ref()).await
    }

    /// Templates of the payload that do not fit `columns`.
    pub fn misfits(&self, columns: &[(String, Kind)]) -> Vec<Misfit> {
        let values = self.spec.values_of(&self.facts.run, self.facts.fire_time);
        misfits(&self.spec.payload, &values, columns)
    }

    /// How many rows the campaign's query returns now.
    pub async fn count(self, campaign: &Campaign) -> Result<u64, Reply> {
        let counted = audience_count(self.options, &self.facts).await;
        counted.map_err(|error| refused(campaign, &error))
    }
}

/// What the warehouse said, with the place in the campaign's SQL: a problem
/// where the SQL is at fault.
pub fn refused(campaign: &Campaign, error: &WarehouseError) -> Reply {
    let name = &campaign.name;
    let text = match error.place {
        Some((line, column)) => {
            format!("{name}: audience.sql, line {line}, column {column}: {error}")
        }
        None => format!("{name}: connector `{}`: {error}", campaign.connector),
    };
    match error.class {
        WarehouseErrorClass::Statement => Reply::Problems(text),
        _ => Reply::Failed(text),
    }
}

fn view(
    campaign: &Campaign,
    (spec, facts): (&RunSpec, &RunFacts),
    found: Preview,
    wish: PlanWish,
) -> PlanView {
    let batches = found.funnel.planned.div_ceil(u64::from(facts.batch_size));
    let page = &found.first;
    let payload =
        (!page.is_empty()).then(|| payload((spec, facts), batches, page, wish.show_values));
    PlanView {
        campaign: campaign.name.to_string(),
        campaign_version: facts.campaign_version.clone(),
        connector: spec.connector.to_string(),
        destination: spec.destination.to_string(),
        planned_at: facts.fire_time,
        funnel: found.funnel,
        batch_size: facts.batch_size,
        batches,
        would_be_held: None,
        freshness: None,
        fire_times: fire_times(campaign, facts.started_at),
        first_payload: payload,
        values_masked: !wish.show_values,
        sql: wish.sql.then_some(found.sql),
        explain: found.explained,
    }
}

/// The next fire times at which something runs, and those that are skipped
/// before them, by the schedule alone; none of a campaign that is disabled.
fn fire_times(campaign: &Campaign, now: Timestamp) -> Vec<FireTime> {
    let mut shown: Vec<FireTime> = Vec::new();
    if !campaign.enabled {
        return shown;
    }
    let schedule = &campaign.schedule;
    let zone = schedule.zone();
    let (mut before, mut run) = (now, 0);
    for at in schedule.fire_times(now, Timestamp::MAX, FIRE_TIMES_LOOKED_AT) {
        let skipped = schedule
            .blackout(at)
            .map(|dates| format!("lies in {dates}"));
        let same = |last: &&mut FireTime| skipped.is_some() && last.skipped == skipped;
        if let Some(last) = shown.last_mut().filter(same) {
            last.likewise += 1;
            continue;
        }
        run += usize::from(skipped.is_none());
        shown.push(FireTime {
            at,
            local: at
                .to_zoned(zone.clone())
                .strftime("%a %Y-%m-%d %H:%M:%S %Z")
                .to_string(),
            note: clock_note(zone, before, at),
            skipped,
            likewise: 0,
        });
        before = at;
        if run == FIRE_TIMES {
            break;
        }
    }
    shown
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
