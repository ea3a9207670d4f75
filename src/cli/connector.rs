//! `campaignd connector`.

use super::exit::Failure;
use super::load;
use super::run::refusal;
use super::show::{Format, say, say_json, those_there_are};
use crate::admin::{ControlError, Reply, Request, ask, own_name};
use crate::daemon::Desk;
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
    let What::Accept { name } = &args.what;
    let known = name
        .parse::<ConnectorName>()
        .ok()
        .filter(|name| settings.connectors.contains_key(name));
    let Some(connector) = known else {
        let names = settings.connectors.keys().map(ConnectorName::as_str);
        return Err(Failure::usage(format!(
            "there is no connector `{name}`; {}",
            those_there_are(names)
        )));
    };
    let request = Request::AcceptConnector {
        connector: connector.clone(),
    };
    match ask(&settings.control, &request).await {
        Ok(Reply::Done(_)) => {}
        Ok(reply) => return Err(refusal(reply)),
        Err(ControlError::NobodyThere { .. }) => {
            let ledger = load::ledger(&settings).await?;
            let desk = Desk::new(Arc::clone(&ledger), Arc::new(SystemClock));
            let reply = desk.accept(&connector, &own_name()).await;
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
