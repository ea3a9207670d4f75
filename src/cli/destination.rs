//! `campaignd destination`.

use super::exit::{Failure, UNREACHABLE};
use super::load;
use super::pause;
use super::show::{Format, lines, say, say_json, table, those_there_are};
use crate::daemon::settings::{DestinationSettings, Secrets, Settings};
use crate::delivery::{OnAmbiguous, Outcome, Rate, Verdict, trial, verdict};
use crate::id::{BatchPath, DestinationName, MessageId, RunId};
use crate::run::{Clock as _, Destination as _, PauseScope, Request, SystemClock};
use crate::tls::TlsReport;
use crate::webhook::{HttpDestination, JudgedAddress};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The destinations, where they lead, and whether they are paused.
    #[command(after_help = "Example: campaignd destination list --format json")]
    List,
    /// Sends one signed test message, about nobody, and says what came back.
    #[command(after_help = "Example: campaignd destination test email-esp")]
    Test {
        /// The destination.
        name: String,
    },
    /// Lets a paused one go on, whoever has paused it.
    #[command(after_help = "Example: campaignd destination resume email-esp")]
    Resume {
        /// The destination.
        name: DestinationName,
    },
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    match &args.what {
        What::List => list(&settings, format).await,
        What::Test { name } => test(&settings, name, format).await,
        What::Resume { name } => pause::unpause(&settings, name.clone(), format).await,
    }
}

/// One destination, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct View {
    destination: String,
    /// Scheme, host and port; path and query may hold a secret.
    host: String,
    channel: String,
    max_in_flight: u32,
    /// As in the operator's file, `50/s`; none where there is none.
    rate_limit: Option<String>,
    max_body: u64,
    timeout_seconds: f64,
    dedupe_window_seconds: Option<u64>,
    on_ambiguous: OnAmbiguous,
    /// `ready` or `paused`; `unknown` where the state store cannot be read.
    state: &'static str,
}

async fn list(settings: &Settings, format: Format) -> Result<(), Failure> {
    let paused = paused(settings).await;
    let destinations = settings.destinations.iter();
    let views: Vec<View> = destinations
        .map(|(name, destination)| view(name, destination, paused.as_ref()))
        .collect();
    match format {
        Format::Json => say_json(&views),
        Format::Text => say(text(&views)),
    }
    Ok(())
}

/// What is paused, if the state store can be read: nothing, where there is
/// none yet.
async fn paused(settings: &Settings) -> Option<BTreeSet<PauseScope>> {
    match load::ledger_to_read(settings).await {
        Ok(Some(ledger)) => {
            let paused = ledger.pauses().await.ok();
            ledger.close().await;
            paused
        }
        Ok(None) => Some(BTreeSet::new()),
        Err(_) => None,
    }
}

fn view(
    name: &DestinationName,
    destination: &DestinationSettings,
    paused: Option<&BTreeSet<PauseScope>>,
) -> View {
    let pauses = [
        PauseScope::All,
        PauseScope::Destination(name.clone()),
        PauseScope::Refusing(name.clone()),
    ];
    let state = match paused {
        None => "unknown",
        Some(paused) if pauses.iter().any(|pause| paused.contains(pause)) => "paused",
        Some(_) => "ready",
    };
    View {
        destination: name.to_string(),
        host: destination.origin(),
        channel: destination.channel.clone(),
        max_in_flight: destination.max_in_flight,
        rate_limit: destination.rate_limit.as_ref().map(Rate::to_string),
        max_body: destination.max_body,
        timeout_seconds: destination.rules.timeout.as_secs_f64(),
        dedupe_window_seconds: destination.rules.dedupe_window.map(|d| d.as_secs()),
        on_ambiguous: destination.rules.on_ambiguous,
        state,
    }
}

fn text(views: &[View]) -> String {
    if views.is_empty() {
        return "there are no destinations".to_owned();
    }
    let mut table = table(&[
        "destination",
        "host",
        "channel",
        "in flight#",
        "rate",
        "body KiB#",
        "timeout#",
        "remembers",
        "if ambiguous",
        "state",
    ]);
    for view in views {
        let spelt = |time| humantime::format_duration(time).to_string();
        let window = view.dedupe_window_seconds.map(Duration::from_secs);
        let on_ambiguous = match view.on_ambiguous {
            OnAmbiguous::Resend => "resend",
            OnAmbiguous::Park => "park",
        };
        table.add_row([
            view.destination.clone(),
            view.host.clone(),
            view.channel.clone(),
            view.max_in_flight.to_string(),
            view.rate_limit.clone().unwrap_or_else(|| "-".to_owned()),
            (view.max_body / 1024).to_string(),
            spelt(Duration::from_secs_f64(view.timeout_seconds)),
            window.map_or("no promise".to_owned(), spelt),
            on_ambiguous.to_owned(),
            view.state.to_owned(),
        ]);
    }
    lines(&table)
}

/// What came of a test message, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct Report {
    destination: String,
    /// Scheme, host and port.
    host: String,
    webhook_id: String,
    addresses: Vec<Address>,
    /// Why the host has no addresses, where that is so.
    lookup_error: Option<String>,
    /// None where it is `http://`, or could not be found out.
    /// What it shows of itself, trusted or not.
    tls: Option<TlsReport>,
    /// Why it could not.
    tls_error: Option<String>,
    status: Option<u16>,
    milliseconds: u64,
    accepted: bool,
    /// What it means for a batch, and the one thing to do.
    verdict: String,
}

#[derive(Debug, Serialize)]
struct Address {
    address: String,
    /// Why it is not dialled, where that is so.
    refused: Option<String>,
}

impl From<JudgedAddress> for Address {
    fn from(judged: JudgedAddress) -> Self {
        Self {
            address: judged.address.to_string(),
            refused: judged.refused.map(|refused| refused.to_string()),
        }
    }
}

async fn test(settings: &Settings, name: &str, format: Format) -> Result<(), Failure> {
    let known = name
        .parse::<DestinationName>()
        .ok()
        .and_then(|name| settings.destinations.get_key_value(&name));
    let Some((name, destination)) = known else {
        let names = settings.destinations.keys().map(DestinationName::as_str);
        return Err(Failure::usage(format!(
            "there is no destination `{name}`; {}",
            those_there_are(names)
        )));
    };
    let unusable = |error: anyhow::Error| {
        Failure::unreachable(error.context(format!("destination `{name}` cannot be used")))
    };
    let options = destination.options(&Secrets::from_process());
    let options = options.map_err(|error| unusable(error.into()))?;
    let adapter = HttpDestination::new(options).map_err(|error| unusable(error.into()))?;
    let report = tried(name, destination, &adapter).await?;
    match format {
        Format::Json => say_json(&report),
        Format::Text => say(told(&report)),
    }
    if report.accepted {
        Ok(())
    } else {
        Err(Failure::silent(UNREACHABLE))
    }
}

async fn tried(
    name: &DestinationName,
    destination: &DestinationSettings,
    adapter: &HttpDestination,
) -> Result<Report, Failure> {
    let (addresses, lookup_error) = match adapter.addresses().await {
        Ok(addresses) => (addresses.into_iter().map(Address::from).collect(), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let now = SystemClock.now();
    let campaign = "destination-test".parse().expect("a sound name");
    // Each test is a message of its own, also twice in a second.
    let n = u32::try_from(now.subsec_microsecond()).unwrap_or_default();
    let run = RunId::manual(&campaign, now, n + 1);
    let id = MessageId::of(&run, &BatchPath::whole(1), 0);
    let message = trial(
        &campaign,
        &run,
        now,
        &destination.channel,
        destination.format,
    );
    let message = message.map_err(|error| Failure::usage(error.to_string()))?;
    let request = Request {
        id,
        at: now,
        body: message.body,
        rejected_at: None,
        content_type: message.content_type,
        headers: message.headers.into(),
    };
    let begun = Instant::now();
    let outcome = adapter.attempt(request).await;
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let follows = verdict(&outcome, &destination.rules);
    let (tls, tls_error) = match adapter.tls().await {
        Some(Ok(shown)) => (Some(shown), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    Ok(Report {
        destination: name.to_string(),
        host: destination.origin(),
        webhook_id: id.to_string(),
        addresses,
        lookup_error,
        tls,
        tls_error,
        status: match &outcome {
            Outcome::Answered { status, .. } => Some(*status),
            Outcome::NotSent { .. } | Outcome::Ambiguous { .. } => None,
        },
        milliseconds,
        accepted: follows == Verdict::Accept,
        verdict: in_words(&outcome, &follows),
    })
}

fn in_words(outcome: &Outcome, follows: &Verdict) -> String {
    let what = match outcome {
        Outcome::Answered { status, .. } => format!("it answered {status}"),
        Outcome::NotSent { reason } => return format!("not sent: {reason}"),
        Outcome::Ambiguous { reason } => {
            return format!("it may have arrived, or not: {reason}");
        }
    };
    match follows {
        Verdict::Accept => "accepted".to_owned(),
        Verdict::Refuse => format!(
            "refused: {what}; a batch would be recorded as rejected: ask its owner whether it knows the test message"
        ),
        Verdict::RetryLater { .. } => {
            format!("not now: {what}; a batch would be sent again later")
        }
        Verdict::MayHaveArrived { .. } => {
            format!("unclear: {what}; a batch may have arrived all the same")
        }
        Verdict::Stop { reason } => format!("stopped: {reason}"),
    }
}

fn told(report: &Report) -> String {
    let mut text = format!("{} at {}\n", report.destination, report.host);
    let mut line = |head: &str, tail: &str| text += &format!("  {head:<12}{tail}\n");
    for Address { address, refused } in &report.addresses {
        let judged = refused.as_ref().map_or("may be dialled", String::as_str);
        line("address", &format!("{address}: {judged}"));
    }
    if let Some(why) = &report.lookup_error {
        line("address", why);
    }
    if let Some(tls) = &report.tls {
        line("TLS", tls.version);
        line(
            "certificate",
            &format!("{}, issued by {}", tls.subject, tls.issuer),
        );
        line("", &format!("until {}", tls.expires));
    }
    if let Some(why) = &report.tls_error {
        line("TLS", why);
    }
    if report.status.is_some() && report.host.starts_with("https://") {
        line("", "the certificate is sound and trusted");
    }
    line("message", &report.webhook_id);
    if let Some(status) = report.status {
        line("status", &status.to_string());
    }
    line("time", &format!("{} ms", report.milliseconds));
    line("verdict", &report.verdict);
    text
}
