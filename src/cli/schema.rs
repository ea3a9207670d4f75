//! `campaignd schema`: what files may say, and what `--format json` prints.

use super::exit::Failure;
use super::show::say;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of which.
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// A campaign file.
    Campaign,
    /// The operator's file, campaignd.yaml.
    Config,
    /// What `status --format json` prints.
    Status,
    /// What `runs --format json` and `runs show --format json` print.
    Runs,
    /// What `plan --format json` prints.
    Plan,
    /// What `forecast --format json` prints.
    Forecast,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    say(match args.what {
        What::Campaign => include_str!("../../campaign.schema.json"),
        What::Config => include_str!("schema/config.json"),
        What::Status => include_str!("schema/status.json"),
        What::Runs => include_str!("schema/runs.json"),
        What::Plan => include_str!("schema/plan.json"),
        What::Forecast => include_str!("schema/forecast.json"),
    });
    Ok(())
}
