//! `campaignd count`: the audience, now.

use super::exit::Failure;
use super::load;
use super::plan::asked;
use super::run::refusal;
use super::show::{Format, count, say, say_json};
use crate::admin::{ControlError, Reply, Request, ask};
use crate::daemon::CountView;
use crate::run::{Clock as _, SystemClock};
use std::path::Path;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The campaign.
    campaign: String,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let request = Request::Count {
        campaign: args.campaign.clone(),
    };
    let view: CountView = match ask(&settings.control, &request).await {
        Ok(Reply::Told(told)) => serde_json::from_value(told).map_err(anyhow::Error::from)?,
        Ok(reply) => return Err(refusal(reply)),
        Err(ControlError::NobodyThere { .. }) => {
            let folder = load::campaigns(&settings);
            let campaign = load::campaign(&folder, &args.campaign)?;
            let now = SystemClock.now();
            let asked = asked(&settings, campaign, now)?;
            CountView {
                campaign: campaign.name.to_string(),
                counted_at: now,
                audience: asked.count(campaign).await.map_err(refusal)?,
            }
        }
        Err(error) => return Err(Failure::unreachable(error)),
    };
    match format {
        Format::Json => say_json(&view),
        Format::Text => say(count(view.audience)),
    }
    Ok(())
}
