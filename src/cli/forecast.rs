//! `campaignd forecast`.

use super::exit::Failure;
use super::forecast_view::{ConnectorView, DestinationView, ForecastView, Span, svg, text};
use super::load;
use super::show::{Format, say, say_json};
use crate::campaign::Campaign;
use crate::daemon::settings::{Connector, Settings};
use crate::run::{Clock as _, Ledger, RunRecord, RunState, SystemClock};
use crate::schedule::forecast::{
    Course, Job, Limits, advise, buckets, busiest_hour, peak, simulate, waiting,
};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most runs that are simulated: more are a mistake in a schedule.
const MOST_RUNS: usize = 100_000;

/// How many past runs a campaign is judged by.
const PAST_RUNS: u32 = 10;

/// The most batches that are looked at to see when a run began to send.
const MOST_BATCHES: u64 = 20_000;

/// Spans a day in the chart.
const SPANS_A_DAY: u32 = 8;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How far to look ahead, in days.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=31))]
    days: u32,
    /// What 95 of 100 runs may wait at most.
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    target: Duration,
    /// Draws it into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// What a run of a campaign is like.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    asking: Duration,
    sending: Duration,
    members: u64,
}

/// What is taken for a run where none has been yet: of whom it tells nothing,
/// but how many come together shows.
const UNKNOWN: Past = Past {
    asking: Duration::from_mins(1),
    sending: Duration::from_mins(1),
    members: 0,
};

/// The campaigns, what their runs are like, and the runs to come.
struct Outlook<'a> {
    campaigns: Vec<&'a Campaign>,
    pasts: Vec<Past>,
    guessed: usize,
    jobs: Vec<Job>,
    /// The campaign of each job.
    owners: Vec<usize>,
    is_cut: bool,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let folder = load::campaigns(&settings);
    let ledger = load::ledger_to_read(&settings).await?;
    let loaded = folder.campaigns.values().map(|l| l.campaign.as_ref());
    let campaigns: Vec<&Campaign> = loaded.filter(|campaign| campaign.enabled).collect();
    let mut pasts = Vec::with_capacity(campaigns.len());
    for campaign in &campaigns {
        pasts.push(match &ledger {
            Some(ledger) => past(ledger.as_ref(), campaign).await?,
            None => None,
        });
    }
    let now = SystemClock.now();
    let outlook = Outlook::new(&settings, campaigns, &pasts, now, args.days);
    let view = view(&settings, &outlook, now, args);
    if let Some(file) = &args.plot {
        std::fs::write(file, svg(&view)).map_err(|error| {
            let file = file.display();
            Failure::usage(format!("the plot could not be written to {file}: {error}"))
        })?;
    }
    match format {
        Format::Json => say_json(&view),
        Format::Text => say(text(&view)),
    }
    Ok(())
}

/// The median of the campaign's last whole runs; none where there is none.
async fn past(ledger: &dyn Ledger, campaign: &Campaign) -> Result<Option<Past>, Failure> {
    let records = ledger.runs(Some(&campaign.name), PAST_RUNS).await;
    let mut records = records.map_err(Failure::unreachable)?;
    records.retain(|run| matches!(run.state, RunState::Finished | RunState::Incomplete));
    let Some(newest) = records.first() else {
        return Ok(None);
    };
    let whole = median(records.iter().map(duration).collect());
    let members = median(records.iter().map(planned).collect());
    let before = before_sending(ledger, campaign, newest).await?;
    let before = before.unwrap_or(whole).min(whole);
    // What it has waited for turns at the warehouse is waited for anew.
    let asked: Vec<Duration> = records.iter().filter_map(|run| run.asked).collect();
    let asking = match asked.is_empty() {
        true => before,
        false => median(asked).min(before),
    };
    Ok(Some(Past {
        asking,
        sending: whole.saturating_sub(before),
        members,
    }))
}

/// How long `run` was under way before it began to send; none where its
/// batches do not say.
async fn before_sending(
    ledger: &dyn Ledger,
    campaign: &Campaign,
    run: &RunRecord,
) -> Result<Option<Duration>, Failure> {
    let most = MOST_BATCHES * u64::from(campaign.activation.batch_size.get());
    if !(1..=most).contains(&planned(run)) {
        return Ok(None);
    }
    let batches = ledger.batches(&run.run).await;
    let batches = batches.map_err(Failure::unreachable)?;
    let first = batches.iter().map(|batch| batch.first_sending_at).min();
    let span = first.zip(run.started_at);
    Ok(span.map(|(first, began)| between(began, first)))
}

fn planned(run: &RunRecord) -> u64 {
    run.funnel.unwrap_or_default().planned
}

fn duration(run: &RunRecord) -> Duration {
    let span = run.started_at.zip(run.finished_at);
    span.map_or(Duration::ZERO, |(from, to)| between(from, to))
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn median<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl<'a> Outlook<'a> {
    fn new(
        settings: &Settings,
        campaigns: Vec<&'a Campaign>,
        known: &[Option<Past>],
        now: Timestamp,
        days: u32,
    ) -> Self {
        let of_all = known.iter().flatten();
        let usual = match of_all.clone().next() {
            None => UNKNOWN,
            Some(_) => Past {
                asking: median(of_all.clone().map(|past| past.asking).collect()),
                sending: median(of_all.clone().map(|past| past.sending).collect()),
                members: median(of_all.map(|past| past.members).collect()),
            },
        };
        let pasts: Vec<Past> = known.iter().map(|past| past.unwrap_or(usual)).collect();
        let until = now.saturating_add(Duration::from_hours(24) * days);
        let until = until.unwrap_or(Timestamp::MAX);
        let mut jobs = Vec::new();
        let mut owners = Vec::new();
        let mut is_cut = false;
        for (owner, campaign) in campaigns.iter().enumerate() {
            let left = MOST_RUNS - jobs.len();
            let fire_times = campaign.schedule.fire_times(now, until, left + 1);
            is_cut |= fire_times.len() > left;
            let connector = settings.connectors.keys();
            let connector = connector.take_while(|name| **name != campaign.connector);
            let connector = connector.count();
            let schedule = &campaign.schedule;
            let run = fire_times.into_iter().take(left);
            for fire_time in run.filter(|at| schedule.blackout(*at).is_none()) {
                owners.push(owner);
                jobs.push(Job {
                    fire_time: schedule.due_at(fire_time),
                    priority: campaign.priority,
                    connector,
                    asking: pasts[owner].asking,
                    sending: pasts[owner].sending,
                    share: u16::try_from(owner * 1_000 / campaigns.len()).unwrap_or(1_000),
                });
            }
        }
        Self {
            guessed: known.iter().filter(|past| past.is_none()).count(),
            campaigns,
            pasts,
            jobs,
            owners,
            is_cut,
        }
    }

    /// What of the runs is sent to each destination, at most in an hour.
    fn destinations(&self, settings: &Settings, courses: &[Course]) -> Vec<DestinationView> {
        let of = |name| {
            let sent = self.owners.iter().zip(courses);
            sent.filter(move |(owner, _)| self.campaigns[**owner].activation.destination == name)
        };
        let views = settings.destinations.iter().map(|(name, destination)| {
            let members =
                of(name.clone()).map(|(owner, course)| (*course, self.pasts[*owner].members));
            let requests = of(name.clone()).map(|(owner, course)| {
                let batch = u64::from(self.campaigns[*owner].activation.batch_size.get());
                (*course, self.pasts[*owner].members.div_ceil(batch))
            });
            DestinationView {
                destination: name.to_string(),
                members_per_hour: busiest_hour(members),
                requests_per_hour: busiest_hour(requests),
                rate_limit_per_hour: destination.rate_limit.map(|rate| {
                    let hour =
                        Duration::from_hours(1).as_nanos() / rate.interval().as_nanos().max(1);
                    u64::try_from(hour).unwrap_or(u64::MAX)
                }),
            }
        });
        views.collect()
    }
}

fn view(settings: &Settings, outlook: &Outlook<'_>, now: Timestamp, args: &Args) -> ForecastView {
    let limits = Limits {
        max_runs: settings.limits.max_runs,
        max_queries: settings.connectors.values().map(max_queries).collect(),
    };
    let jobs = &outlook.jobs;
    let courses = simulate(jobs, &limits, Duration::ZERO);
    let connectors = settings.connectors.keys().enumerate().map(|(index, name)| {
        let of_it = jobs.iter().zip(&courses);
        let of_it = of_it.filter(|(job, _)| job.connector == index);
        let of_it: Vec<Course> = of_it.map(|(_, course)| *course).collect();
        let waits = waiting(&of_it);
        // What is short enough needs no advice.
        let advice = (waits.p95 > args.target).then(|| advise(jobs, &limits, index, args.target));
        ConnectorView::new(
            name.to_string(),
            of_it.len(),
            limits.max_queries[index],
            waits,
            advice,
        )
    });
    let width = Duration::from_hours(24) / SPANS_A_DAY;
    let spans = buckets(&courses, now, width, args.days * SPANS_A_DAY);
    ForecastView {
        from: now,
        days: args.days,
        target_seconds: args.target.as_secs(),
        campaigns: outlook.campaigns.len(),
        campaigns_without_past: outlook.guessed,
        runs: jobs.len(),
        is_cut: outlook.is_cut,
        max_runs: limits.max_runs,
        peak_running: peak(&courses),
        connectors: connectors.collect(),
        destinations: outlook.destinations(settings, &courses),
        spans: spans.into_iter().map(Span::from).collect(),
    }
}

fn max_queries(connector: &Connector) -> u32 {
    match connector {
        Connector::Sqlite(sqlite) => sqlite.max_queries.get(),
        Connector::Server(server) => server.max_queries.get(),
    }
}
