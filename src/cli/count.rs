//! `campaignd count`: the audience, now.

use super::exit::Failure;
use super::load;
use super::plan::{Asked, failure};
use super::show::{Format, count, say, say_json};
use crate::run::{Clock as _, SystemClock};
use crate::warehouse::audience_count;
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The campaign.
    campaign: String,
}

#[derive(Debug, Serialize)]
struct View {
    campaign: String,
    counted_at: Timestamp,
    /// Rows the campaign's query returns.
    audience: u64,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let folder = load::campaigns(&settings);
    let campaign = load::campaign(&folder, &args.campaign)?;
    let now = SystemClock.now();
    let asked = Asked::of(&settings, campaign, now)?;
    let audience = audience_count(asked.options, &asked.facts)
        .await
        .map_err(|error| failure(campaign, &error))?;
    match format {
        Format::Json => say_json(&View {
            campaign: campaign.name.to_string(),
            counted_at: now,
            audience,
        }),
        Format::Text => say(count(audience)),
    }
    Ok(())
}
