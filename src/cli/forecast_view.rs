//! How a forecast is shown: as JSON, as text with bars, as a drawing.

use super::show::{count, counted, lines, table};
use crate::schedule::forecast::{Advice, Bucket, Waiting};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::time::Duration;

/// The longest bar, in characters.
const BAR: u32 = 40;

/// A forecast, as `--format json` shows it.
#[derive(Debug, Serialize)]
pub(super) struct ForecastView {
    pub(super) from: Timestamp,
    pub(super) days: u32,
    pub(super) target_seconds: u64,
    pub(super) campaigns: usize,
    pub(super) campaigns_without_past: usize,
    pub(super) runs: usize,
    /// Whether there are more runs than are simulated.
    pub(super) is_cut: bool,
    pub(super) max_runs: u32,
    pub(super) peak_running: u32,
    pub(super) connectors: Vec<ConnectorView>,
    pub(super) destinations: Vec<DestinationView>,
    pub(super) spans: Vec<Span>,
}

/// How the runs of one connector wait.
#[derive(Debug, Serialize)]
pub(super) struct ConnectorView {
    connector: String,
    runs: usize,
    max_queries: u32,
    #[serde(serialize_with = "seconds")]
    waiting_p50_seconds: Duration,
    #[serde(serialize_with = "seconds")]
    waiting_p95_seconds: Duration,
    #[serde(serialize_with = "seconds")]
    waiting_max_seconds: Duration,
    /// Whether the target is missed.
    is_late: bool,
    /// The fewest statements at a time that would keep the target.
    advised_max_queries: Option<u32>,
    /// The spread that would do it instead.
    advised_spread_seconds: Option<u64>,
}

/// What one destination is sent in its busiest hour.
#[derive(Debug, Serialize)]
pub(super) struct DestinationView {
    pub(super) destination: String,
    pub(super) members_per_hour: u64,
    pub(super) requests_per_hour: u64,
    pub(super) rate_limit_per_hour: Option<u64>,
}

/// A span of time.
#[derive(Debug, Serialize)]
pub(super) struct Span {
    begins: Timestamp,
    due: u32,
    running: u32,
}

impl From<Bucket> for Span {
    fn from(bucket: Bucket) -> Self {
        Self {
            begins: bucket.begins,
            due: bucket.due,
            running: bucket.running,
        }
    }
}

impl ConnectorView {
    pub(super) fn new(
        connector: String,
        runs: usize,
        max_queries: u32,
        waits: Waiting,
        advice: Option<Advice>,
    ) -> Self {
        Self {
            connector,
            runs,
            max_queries,
            waiting_p50_seconds: waits.p50,
            waiting_p95_seconds: waits.p95,
            waiting_max_seconds: waits.max,
            is_late: advice.is_some(),
            advised_max_queries: advice.and_then(|advice| advice.max_queries),
            advised_spread_seconds: advice.and_then(|a| a.spread).map(|spread| spread.as_secs()),
        }
    }

    fn advice(&self) -> Option<String> {
        let spread = self.advised_spread_seconds.map(span);
        Some(match (self.advised_max_queries, spread) {
            _ if !self.is_late => return None,
            (Some(queries), Some(spread)) => {
                format!("`max_queries: {queries}`, or a spread of {spread}")
            }
            (Some(queries), None) => format!("`max_queries: {queries}`"),
            (None, Some(spread)) => format!(
                "a spread of {spread}; more statements at a time do not, since runs wait for a place: raise `max_runs`"
            ),
            (None, None) => "neither more statements at a time nor a spread: raise `max_runs`, \
                             or move campaigns to other times"
                .to_owned(),
        })
    }
}

/// Seconds, to the millisecond.
fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((time.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// The forecast for a terminal.
pub(super) fn text(view: &ForecastView) -> String {
    let runs = counted(view.runs, "run");
    let mut text = format!(
        "{runs} of {} in {}; at most {} of {} at a time\n",
        counted(view.campaigns, "campaign"),
        counted(view.days as usize, "day"),
        view.peak_running,
        view.max_runs,
    );
    if view.is_cut {
        text.push_str("There are more than are looked at: choose fewer --days.\n");
    }
    if view.campaigns_without_past > 0 {
        let guessed = counted(view.campaigns_without_past, "campaign");
        let taken = match view.campaigns_without_past == view.campaigns {
            true => "taken to ask for a minute and to send for one, to nobody",
            false => "taken for the median of the others",
        };
        _ = writeln!(text, "{guessed} without a past run: {taken}.");
    }
    let mut rows = table(&[
        "connector",
        "runs#",
        "max_queries#",
        "waiting p50#",
        "p95#",
        "max#",
    ]);
    for connector in &view.connectors {
        rows.add_row([
            connector.connector.clone(),
            count(connector.runs as u64),
            connector.max_queries.to_string(),
            span(connector.waiting_p50_seconds.as_secs()),
            span(connector.waiting_p95_seconds.as_secs()),
            span(connector.waiting_max_seconds.as_secs()),
        ]);
    }
    _ = writeln!(text, "\n{}", lines(&rows));
    for connector in &view.connectors {
        if let Some(advice) = connector.advice() {
            let (name, target) = (&connector.connector, span(view.target_seconds));
            _ = writeln!(text, "{name}: to keep p95 under {target}: {advice}");
        }
    }
    let mut rows = table(&[
        "destination",
        "members in an hour#",
        "requests#",
        "rate_limit#",
    ]);
    for to in &view.destinations {
        rows.add_row([
            to.destination.clone(),
            count(to.members_per_hour),
            count(to.requests_per_hour),
            to.rate_limit_per_hour
                .map_or_else(|| "none".to_owned(), count),
        ]);
    }
    _ = writeln!(text, "\n{}\n", lines(&rows));
    text.push_str(&chart(view));
    text
}

/// A line for each span in which something is due or running.
fn chart(view: &ForecastView) -> String {
    let most = view
        .spans
        .iter()
        .map(|span| span.running)
        .max()
        .unwrap_or(0);
    let mut rows = table(&["from", "due#", "running#", ""]);
    let busy = |span: &&Span| span.due + span.running > 0;
    for span in view.spans.iter().filter(busy) {
        let long = u64::from(span.running) * u64::from(BAR);
        let long = long.div_ceil(u64::from(most.max(1)));
        rows.add_row([
            span.begins.strftime("%a %m-%d %H:%MZ").to_string(),
            span.due.to_string(),
            span.running.to_string(),
            "█".repeat(usize::try_from(long).unwrap_or(0)),
        ]);
    }
    lines(&rows)
}

/// The forecast as a drawing: a bar for each span, as high as the runs at a
/// time in it, and a line at `max_runs` where it is within reach.
pub(super) fn svg(view: &ForecastView) -> String {
    const HEIGHT: f64 = 240.0;
    const STEP: f64 = 12.0;
    let most = view
        .spans
        .iter()
        .map(|span| span.running)
        .max()
        .unwrap_or(0)
        .max(1);
    let top = f64::from(most) * 1.1;
    let width = view.spans.len() as f64 * STEP + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>Runs at a time, from {}</title>\n\
         <text x=\"4\" y=\"14\">runs at a time, at most {most}; max_runs {}</text>\n",
        HEIGHT + 50.0,
        view.from,
        view.max_runs,
    );
    for (place, span) in view.spans.iter().enumerate() {
        let x = 40.0 + place as f64 * STEP;
        let high = f64::from(span.running) / top * HEIGHT;
        _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"{}\" height=\"{high:.1}\" fill=\"#3572b0\"><title>{}: {} due, {} running</title></rect>",
            HEIGHT + 20.0 - high,
            STEP - 2.0,
            span.begins,
            span.due,
            span.running,
        );
        if place % 8 == 0 {
            let day = span.begins.strftime("%m-%d");
            _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\">{day}</text>", HEIGHT + 36.0);
        }
    }
    if f64::from(view.max_runs) <= top {
        let y = HEIGHT + 20.0 - f64::from(view.max_runs) / top * HEIGHT;
        _ = writeln!(
            svg,
            "<line x1=\"40\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#b03535\"/>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}
