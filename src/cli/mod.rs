//! The command line: reads what was typed, calls the rooms, prints.

mod bootstrap;
mod canary;
mod cancel;
mod check;
mod check_online;
mod connector;
mod connector_report;
mod count;
mod demo;
mod destination;
mod door;
mod erase;
mod exit;
mod files_line;
mod follow;
mod forecast;
mod forecast_view;
mod load;
mod pause;
mod plan;
pub mod problems;
mod resolve;
mod run;
mod runs;
mod schema;
mod serve;
mod show;
mod status;
mod view;

pub use exit::Failure;

use clap::{Parser, Subcommand};
use show::Format;
use std::path::PathBuf;
use tokio::task::JoinSet;

/// Runs audience queries inside the warehouse on schedule, sends the members
/// to signed webhooks, and writes contact history back.
#[derive(Debug, Parser)]
#[command(name = "campaignd", version, after_help = EXIT_CODES)]
struct Cli {
    /// The operator's file.
    #[arg(
        long,
        global = true,
        env = "CAMPAIGND_CONFIG",
        value_name = "FILE",
        default_value = "/etc/campaignd/campaignd.yaml"
    )]
    config: PathBuf,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a bug; 2 usage; 3 a file has problems; 4 a run ended with undelivered
members or was held; 5 the warehouse, the state store or a destination cannot be reached.

Example: campaignd demo";

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon.
    #[command(after_help = "Example: campaignd serve --config /etc/campaignd/campaignd.yaml")]
    Serve,
    /// The main job on embedded SQLite with sample customers and a local receiver.
    #[command(after_help = "Example: campaignd demo --keep ./demo")]
    Demo(demo::Args),
    /// Problems of campaignd.yaml and the campaign files; offline unless told.
    #[command(after_help = "Example: campaignd check campaigns/winback-lapsed-buyers.yaml")]
    Check(check::Args),
    /// What a run would do now; sends and writes nothing.
    #[command(after_help = "Example: campaignd plan winback-lapsed-buyers --sql")]
    Plan(plan::Args),
    /// The audience count, now.
    #[command(after_help = "Example: campaignd count winback-lapsed-buyers")]
    Count(count::Args),
    /// One manual run now, in the foreground, with progress.
    #[command(after_help = "Example: campaignd run winback-lapsed-buyers")]
    Run(run::Args),
    /// Campaigns, next fire time, last runs with counts.
    #[command(after_help = "Example: campaignd status winback-lapsed-buyers --format json")]
    Status(status::Args),
    /// The history of runs; `runs show RUN` for one with its batches and errors.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Example: campaignd runs winback-lapsed-buyers --limit 5"
    )]
    Runs(runs::Args),
    /// What the schedules will ask of the limits: runs, waiting, members per hour.
    #[command(after_help = "Example: campaignd forecast --days 7 --target 5m --plot week.svg")]
    Forecast(forecast::Args),
    /// The connectors, a report on one of them, and what a person decides
    /// about one.
    #[command(after_help = "Example: campaignd connector test warehouse")]
    Connector(connector::Args),
    /// The destinations, and a test message to one of them.
    #[command(after_help = "Example: campaignd destination test email-esp")]
    Destination(destination::Args),
    /// Emergency stop: durable, no new request within a second.
    #[command(after_help = "Example: campaignd pause --all")]
    Pause(pause::Args),
    /// Ends a run early: what is on the wire ends, what was not sent is
    /// recorded as cancelled.
    #[command(after_help = "Example: campaignd cancel winback-lapsed-buyers@20261122T140000Z")]
    Cancel(cancel::Args),
    /// Carries on a held, incomplete, failed or cancelled run from what is
    /// not yet delivered.
    #[command(after_help = "Example: campaignd resume winback-lapsed-buyers@20261122T140000Z")]
    Resume(cancel::Args),
    /// Decides a parked batch: whether its receiver has it.
    #[command(
        after_help = "Example: campaignd resolve winback-lapsed-buyers@20261122T140000Z --batch 3 --delivered"
    )]
    Resolve(resolve::Args),
    /// Lifts a pause.
    #[command(after_help = "Example: campaignd unpause --all")]
    Unpause(pause::Args),
    /// The JSON Schema of a file, or of what a command prints as JSON.
    #[command(after_help = "Example: campaignd schema campaign > campaign.schema.json")]
    Schema(schema::Args),
    /// The SQL an administrator runs once.
    #[command(after_help = "Example: campaignd bootstrap warehouse > bootstrap.sql")]
    Bootstrap(bootstrap::Args),
    /// Removes members from history and from the tables of runs.
    #[command(after_help = "Example: campaignd erase warehouse --keys keys.txt")]
    Erase(erase::Args),
}

/// Runs the command that was typed. A command line that is wrong ends the
/// process here, with the usage and exit code 2.
pub fn run() -> Result<(), Failure> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    let result = runtime.block_on(carry_out(cli));
    // A name that is still being looked up must not keep the process.
    runtime.shutdown_background();
    result.and_then(|()| show::unwritten().map_or(Ok(()), Err))
}

/// Does `work` on a worker of the runtime and not on its first thread: what a
/// run's loop and its deliveries say to each other would otherwise go from
/// thread to thread.
async fn on_worker(
    work: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn carry_out(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve => serve::run(&cli.config).await,
        Command::Demo(args) => on_worker(demo::run(args, cli.format)).await,
        Command::Check(args) => check::run(&cli.config, &args, cli.format).await,
        Command::Plan(args) => plan::run(&cli.config, &args, cli.format).await,
        Command::Count(args) => count::run(&cli.config, &args, cli.format).await,
        Command::Run(args) => {
            on_worker(async move { run::run(&cli.config, &args, cli.format).await }).await
        }
        Command::Status(args) => status::run(&cli.config, &args, cli.format).await,
        Command::Runs(args) => runs::run(&cli.config, &args, cli.format).await,
        Command::Forecast(args) => forecast::run(&cli.config, &args, cli.format).await,
        Command::Connector(args) => connector::run(&cli.config, &args, cli.format).await,
        Command::Destination(args) => destination::run(&cli.config, &args, cli.format).await,
        Command::Cancel(args) => {
            cancel::run(&cli.config, args, cancel::Verb::Cancel, cli.format).await
        }
        Command::Resume(args) => {
            cancel::run(&cli.config, args, cancel::Verb::Resume, cli.format).await
        }
        Command::Resolve(args) => resolve::run(&cli.config, args, cli.format).await,
        Command::Pause(args) => pause::run(&cli.config, args, true, cli.format).await,
        Command::Unpause(args) => pause::run(&cli.config, args, false, cli.format).await,
        Command::Schema(args) => schema::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&cli.config, &args, cli.format).await,
        Command::Erase(args) => erase::run(&cli.config, &args, cli.format).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
