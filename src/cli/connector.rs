//! `campaignd connector`.

use super::connector_report;
use super::exit::Failure;
use super::load;
use super::run::refusal;
use super::show::{Format, say, say_json, those_there_are};
use crate::admin::{ControlError, Reply, Request, ask, own_name};
use crate::daemon::Desk;
use crate::daemon::settings::{Connector, Settings};
use crate::id::ConnectorName;
use crate::run::SystemClock;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The connectors and how they are reached; connects to none.
    #[command(after_help = "Example: campaignd connector list --format json")]
    List,
    /// Connects to one and reports: reachability, encryption, login,
    /// privileges, our tables, what campaigns can read, round trip.
    #[command(after_help = "Example: campaignd connector test warehouse")]
    Test {
        /// The connector.
        name: String,
    },
    /// Sends again on a connector whose warehouse was restored to an older
    /// state.
    #[command(after_help = "Example: campaignd connector accept warehouse")]
    Accept {
        /// The connector.
        name: String,
    },
}

/// What was done, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct Accepted {
    connector: String,
    accepted: bool,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    match &args.what {
        What::List => {
            connector_report::list(&settings, format);
            Ok(())
        }
        What::Test { name } => {
            connector_report::test(&settings, find(&settings, name)?, format).await
        }
        What::Accept { name } => accept(&settings, find(&settings, name)?.0, format).await,
    }
}

fn find<'s>(
    settings: &'s Settings,
    name: &str,
) -> Result<(&'s ConnectorName, &'s Connector), Failure> {
    let known = name.parse::<ConnectorName>().ok();
    let known = known.and_then(|name| settings.connectors.get_key_value(&name));
    known.ok_or_else(|| {
        let names = settings.connectors.keys().map(ConnectorName::as_str);
        let there_are = those_there_are(names);
        Failure::usage(format!("there is no connector `{name}`; {there_are}"))
    })
}

async fn accept(
    settings: &Settings,
    connector: &ConnectorName,
    format: Format,
) -> Result<(), Failure> {
    let request = Request::AcceptConnector {
        connector: connector.clone(),
    };
    match ask(&settings.control, &request).await {
        Ok(Reply::Done(_)) => {}
        Ok(reply) => return Err(refusal(reply)),
        Err(ControlError::NobodyThere { .. }) => {
            let ledger = load::ledger(settings).await?;
            let desk = Desk::new(Arc::clone(&ledger), Arc::new(SystemClock));
            let reply = desk.accept(connector, &own_name()).await;
            ledger.close().await;
            if let Reply::Refused(why) | Reply::Failed(why) = reply {
                return Err(Failure::unreachable(anyhow::Error::msg(why)));
            }
        }
        Err(error) => return Err(Failure::unreachable(error)),
    }
    match format {
        Format::Json => say_json(&Accepted {
            connector: connector.to_string(),
            accepted: true,
        }),
        Format::Text => say(format!(
            "`{connector}` is accepted as it is; its runs go on within a minute, or at the next start of the daemon"
        )),
    }
    Ok(())
}
