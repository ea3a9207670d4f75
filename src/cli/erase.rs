//! `campaignd erase`: members removed from what is kept of them.

use super::exit::Failure;
use super::load;
use super::run::refusal;
use super::show::{Format, count, counted, say, say_json, those_there_are};
use crate::admin::{ControlError, Erasing, Reply, Request, ask, own_name};
use crate::daemon::Desk;
use crate::daemon::settings::{Secrets, Settings};
use crate::history::ErasedKeys;
use crate::history::erase::MAX_LIST;
use crate::id::ConnectorName;
use crate::run::{Clock as _, SystemClock};
use crate::warehouse::{ConnectorOptions, Erased, Erasure, erase};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs that a message names.
const NAMED: usize = 5;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The connector.
    name: String,
    /// The keys of the members, one a line; `-` reads them from standard
    /// input.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
}

/// What was removed, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct Printed {
    connector: String,
    keys: u64,
    tables: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    table: String,
    rows: u64,
    dropped: bool,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let name = args.name.parse::<ConnectorName>().ok();
    let found = name.and_then(|name| settings.connectors.get_key_value(&name));
    let Some((name, connector)) = found else {
        let names = settings.connectors.keys().map(ConnectorName::as_str);
        let message = format!(
            "there is no connector `{}`; {}",
            args.name,
            those_there_are(names)
        );
        return Err(Failure::usage(message));
    };
    let keys = read(&args.keys)?;
    let options = settings
        .connector_options(name, connector, &Secrets::from_process())
        .map_err(Failure::unreachable)?;
    let erasing = Erasing {
        connector: name.clone(),
        keys: keys.count(),
        at: SystemClock.now(),
    };
    note(&settings, &erasing, None).await?;
    let done = act(options, name, &keys).await;
    let outcome = match &done {
        Err(Reply::Refused(why)) => format!("refused: {why}"),
        Err(Reply::Failed(why)) => format!("failed: {why}"),
        _ => "done".to_owned(),
    };
    let noted = note(&settings, &erasing, Some(outcome)).await;
    let tables = done.map_err(refusal)?;
    noted?;
    show(name, &keys, &tables, format);
    Ok(())
}

async fn act(
    options: ConnectorOptions,
    name: &ConnectorName,
    keys: &ErasedKeys,
) -> Result<Vec<Erased>, Reply> {
    let done = erase(options, keys).await;
    match done.map_err(|error| Reply::Failed(error.to_string()))? {
        Erasure::Done(tables) => Ok(tables),
        Erasure::RunsOpen(open) => {
            let more = match open.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let first: Vec<&str> = open.iter().take(NAMED).map(String::as_str).collect();
            Err(Reply::Refused(format!(
                "nothing was erased from `{name}`: its members may still be sent and recorded by \
                 {}{more}; let these runs end, or `campaignd cancel` them, and erase again",
                first.join(", ")
            )))
        }
    }
}

fn read(path: &Path) -> Result<ErasedKeys, Failure> {
    let shown = path.display();
    let mut list = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_LIST).read_to_end(&mut list),
        false => std::fs::File::open(path).and_then(|f| f.take(MAX_LIST).read_to_end(&mut list)),
    };
    read.map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}")))?;
    ErasedKeys::parse(&list).map_err(|bad| Failure::usage(format!("{shown}: {bad}")))
}

fn show(name: &ConnectorName, keys: &ErasedKeys, tables: &[Erased], format: Format) {
    match format {
        Format::Json => say_json(&Printed {
            connector: name.to_string(),
            keys: keys.count(),
            tables: tables.iter().map(line).collect(),
        }),
        Format::Text => {
            say(format!(
                "erased from `{name}`: {} keys",
                count(keys.count())
            ));
            for erased in tables {
                let rows = usize::try_from(erased.rows).unwrap_or(usize::MAX);
                let dropped = match erased.dropped {
                    true => "; dropped whole, its run is not resumed or resolved any more",
                    false => "",
                };
                say(format!(
                    "{}: {}{dropped}",
                    erased.table,
                    counted(rows, "row")
                ));
            }
        }
    }
}

fn line(erased: &Erased) -> Line {
    Line {
        table: erased.table.clone(),
        rows: erased.rows,
        dropped: erased.dropped,
    }
}

/// Notes that somebody erases, or what came of it: by the daemon, or, where
/// none runs, in the state store itself.
async fn note(
    settings: &Settings,
    erasing: &Erasing,
    outcome: Option<String>,
) -> Result<(), Failure> {
    let request = Request::NoteErasure {
        erasing: erasing.clone(),
        outcome: outcome.clone(),
    };
    let reply = match ask(&settings.control, &request).await {
        Ok(reply) => reply,
        Err(ControlError::NobodyThere { .. }) => {
            let ledger = load::ledger(settings).await?;
            let desk = Desk::new(Arc::clone(&ledger), Arc::new(SystemClock));
            let reply = desk.note_erasure(erasing, outcome, &own_name()).await;
            ledger.close().await;
            reply
        }
        Err(error) => return Err(Failure::unreachable(error)),
    };
    match reply {
        Reply::Done(_) => Ok(()),
        reply => Err(refusal(reply)),
    }
}
