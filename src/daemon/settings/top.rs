//! From the operator's file to settings, or all its problems.

use super::connector::Connector;
use super::destination::DestinationSettings;
use super::file::{Limits, LogFormat, LogLevel, LogSettings, Settings, SettingsFile};
use super::history::check_histories;
use super::keep::Keep;
use super::state::{self, StateStore};
use crate::campaign::yaml::{self, Document, Field, Reader, Section};
use crate::campaign::{Problem, Source};
use crate::id::DestinationName;
use crate::run::DEFAULT_LEASE;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The longest shutdown: service managers give up soon after.
const MAX_SHUTDOWN_GRACE: Duration = Duration::from_secs(3600);

/// The range of `adopt_after`.
const ADOPT_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(7 * 24 * 3600);

/// The range of `recheck_after`.
const RECHECK_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// Both, unless something else is said.
const USUAL_WAIT: Duration = Duration::from_mins(15);

/// Keys of later versions.
const NOT_YET: &[&str] = &["admin", "notify"];

/// Compiles the operator's file. Nothing is opened and no secret is read; all
/// that is wrong is listed in the order of the file.
pub fn compile(source: &Source) -> Result<SettingsFile, Vec<Problem>> {
    let document = Document::read(source).map_err(|problem| vec![problem])?;
    let reader = Reader::new(source);
    let settings = reader.top(&document).and_then(read);
    match settings {
        Some(settings) if !reader.has_errors() => Ok(SettingsFile { settings }),
        _ => Err(reader.into_problems()),
    }
}

/// The text of the operator's file as it may be shown beside its problems,
/// byte for byte as long, secrets painted over.
pub fn masked(source: &Source) -> String {
    /// Everything under these is taken for a secret, also under a misspelt key
    /// below.
    const SECRET_KEYS: &[&str] = &[
        "admin",
        "auth",
        "bearer",
        "client_secret",
        "headers",
        "oauth2",
        "password",
        "signing_secrets",
        "token",
        "token_url",
        "url",
    ];
    yaml::masked(source, SECRET_KEYS)
}

/// The campaigns folder unless something else is said.
const CAMPAIGNS: &str = "./campaigns";

/// The state store unless something else is said.
const STATE: &str = "./state.db";

/// The control socket beside the state store.
const CONTROL: &str = "control.sock";

fn read(mut top: Section) -> Option<Settings> {
    let campaigns = top.optional("campaigns");
    let campaigns = campaigns.map_or(Some(CAMPAIGNS), |f| f.filled_text());
    let state = match top.optional("state") {
        Some(field) => field.section().and_then(state::read),
        None => Some((StateStore::Sqlite(PathBuf::from(STATE)), DEFAULT_LEASE)),
    };
    let connectors = top.optional("connectors");
    let connectors = connectors.map_or(Some(BTreeMap::new()), |f| {
        let connectors = named(&f, Connector::read)?;
        check_histories(&f, &connectors)?;
        Some(connectors)
    });
    let destinations = top.optional("destinations");
    let destinations = destinations.map_or(Some(BTreeMap::new()), |f| {
        named(&f, DestinationSettings::read)
    });
    let limits = top.optional("limits");
    let limits = limits.map_or(Some(Limits::default()), |f| limits_of(f.section()?));
    let grace = top.optional("shutdown_grace");
    let grace = grace.map_or(Some(Duration::from_secs(30)), |f| {
        f.duration(Duration::ZERO..=MAX_SHUTDOWN_GRACE)
    });
    let adopt_after = adopt_after(&mut top, destinations.as_ref());
    let recheck_after = top.optional("recheck_after");
    let recheck_after = recheck_after.map_or(Some(USUAL_WAIT), |f| f.duration(RECHECK_AFTER));
    let keep = top.optional("keep");
    let keep = keep.map_or(Some(Keep::default()), |f| Keep::read(f.section()?));
    let log = top.optional("log");
    let log = log.map_or(Some(LogSettings::default()), |f| log_of(f.section()?));
    let control = top.optional("control").map(|f| f.filled_text());
    top.not_yet(NOT_YET);
    top.finish();
    let (state, lease) = state?;
    let control = match control {
        Some(written) => PathBuf::from(written?),
        None => state.path().with_file_name(CONTROL),
    };
    Some(Settings {
        campaigns: PathBuf::from(campaigns?),
        control,
        state,
        lease,
        connectors: connectors?,
        destinations: destinations?,
        limits: limits?,
        adopt_after: adopt_after?,
        recheck_after: recheck_after?,
        keep: keep?,
        shutdown_grace: grace?,
        log: log?,
    })
}

/// A daemon that is silent begins no request that could still be under way
/// when its runs are taken over, so requests must be shorter than that.
fn adopt_after(
    top: &mut Section,
    destinations: Option<&BTreeMap<DestinationName, DestinationSettings>>,
) -> Option<Duration> {
    let field = top.optional("adopt_after");
    let asked = match &field {
        Some(field) => field.duration(ADOPT_AFTER)?,
        None => USUAL_WAIT,
    };
    let timeouts = destinations.into_iter().flat_map(BTreeMap::values);
    let longest = timeouts.map(|to| to.rules().timeout).max();
    let least = longest.unwrap_or_default() * 2;
    match field {
        Some(field) if asked < least => {
            let least = humantime::format_duration(least);
            field.error(format!(
                "`adopt_after` must be at least {least}, twice the longest `timeout` of a destination"
            ));
            None
        }
        _ => Some(asked.max(least)),
    }
}

/// Reads a section whose keys are names the operator has chosen.
fn named<'r, K, V>(
    field: &Field<'r>,
    read: impl Fn(&str, Section<'r>) -> Option<V>,
) -> Option<BTreeMap<K, V>>
where
    K: FromStr<Err: Display> + Ord,
{
    let mut all = Some(BTreeMap::new());
    for (name, field) in field.section()?.named() {
        let key = match name.parse::<K>() {
            Ok(key) => Some(key),
            Err(error) => {
                field.error_at_key(error.to_string());
                None
            }
        };
        let value = field.section().and_then(|section| read(name, section));
        match (key, value, &mut all) {
            (Some(key), Some(value), Some(map)) => {
                map.insert(key, value);
            }
            _ => all = None,
        }
    }
    all
}

fn limits_of(mut section: Section) -> Option<Limits> {
    let usual = Limits::default();
    let max_runs = section.optional("max_runs");
    let max_runs = max_runs.map_or(Some(usual.max_runs), |f| f.number(1..=10_000));
    let in_flight = section.optional("max_in_flight");
    let in_flight = in_flight.map_or(Some(usual.max_in_flight), |f| f.number(1..=10_000));
    let memory = section.optional("memory");
    let memory = memory.map_or(Some(usual.memory), |f| f.size(1 << 20..=1 << 40));
    section.finish();
    Some(Limits {
        max_runs: max_runs?,
        max_in_flight: in_flight?,
        memory: memory?,
    })
}

fn log_of(mut section: Section) -> Option<LogSettings> {
    let format = section.optional("format");
    let format = format.map_or(Some(LogFormat::default()), |f| {
        f.choice(&[("json", LogFormat::Json), ("text", LogFormat::Text)])
    });
    let level = section.optional("level");
    let level = level.map_or(Some(LogLevel::default()), |f| {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        let levels = [Error, Warn, Info, Debug, Trace].map(|level| (level.as_str(), level));
        f.choice(&levels)
    });
    section.finish();
    Some(LogSettings {
        format: format?,
        level: level?,
    })
}
