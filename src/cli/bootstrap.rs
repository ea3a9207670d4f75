//! `campaignd bootstrap`: the SQL an administrator runs once.

use super::exit::Failure;
use super::load;
use super::show::{Format, counted, say, say_json, those_there_are};
use crate::daemon::settings::{Connector, Secrets, Settings};
use crate::history::views::Conversions;
use crate::history::{BootstrapOptions, bootstrap, bootstrap_for_stages};
use crate::id::ConnectorName;
use crate::warehouse::{Applied, Change, Login, apply_bootstrap, apply_lift};
use serde::Serialize;
use std::path::Path;
use std::str::FromStr;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The connector.
    name: String,
    /// Runs the part that the connector's own login may run: the schema and
    /// the tables, and columns that are missing in them.
    #[arg(long)]
    apply: bool,
    /// A table or view with the columns `profile_id` and `converted_at`: adds
    /// the view `holdout_lift`, which compares contacted with held out by it.
    #[arg(long, value_name = "RELATION")]
    conversions: Option<Conversions>,
    /// A view that campaigns may read, as schema.view: prints the grant for it;
    /// may be repeated.
    #[arg(long, value_name = "RELATION", conflicts_with = "apply")]
    share: Vec<Shared>,
}

/// A relation in a schema.
#[derive(Debug, Clone)]
struct Shared(String);

impl FromStr for Shared {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_named = text.split('.').all(|name| !name.is_empty());
        match text.split('.').count() == 2 && is_named {
            true => Ok(Self(text.to_owned())),
            false => Err("write it as schema.view, as in `shared.lapsed_buyers`".to_owned()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Printed {
    sql: String,
}

#[derive(Debug, Serialize)]
struct Line {
    what: String,
    change: String,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let settings = load::settings(config)?;
    let (name, connector) = find(&settings, &args.name)?;
    if let (Some(history), Some(_)) = (connector.history(), &args.conversions) {
        return Err(Failure::usage(format!(
            "the views are where the history is; give --conversions to `{}`",
            history.connector
        )));
    }
    if args.apply {
        return apply(
            &settings,
            (name, connector),
            args.conversions.as_ref(),
            format,
        )
        .await;
    }
    let options = BootstrapOptions {
        conversions: args.conversions.clone(),
        shared: args.share.iter().map(|Shared(name)| name.clone()).collect(),
        ..options(connector)
    };
    let sql = match connector.history() {
        None => bootstrap(connector.dialect(), &options),
        Some(_) => bootstrap_for_stages(connector.dialect(), &options),
    };
    let sql = sql.map_err(anyhow::Error::from)?;
    match format {
        Format::Json => say_json(&Printed { sql }),
        Format::Text => say(sql),
    }
    Ok(())
}

fn find<'a>(
    settings: &'a Settings,
    name: &str,
) -> Result<(&'a ConnectorName, &'a Connector), Failure> {
    let found = name
        .parse::<ConnectorName>()
        .ok()
        .and_then(|name| settings.connectors.get_key_value(&name));
    found.ok_or_else(|| {
        let names = settings.connectors.keys().map(ConnectorName::as_str);
        Failure::usage(format!(
            "there is no connector `{name}`; {}",
            those_there_are(names)
        ))
    })
}

fn options(connector: &Connector) -> BootstrapOptions {
    match connector {
        Connector::Sqlite(sqlite) => BootstrapOptions {
            schema: String::new(),
            user: String::new(),
            by_iam: false,
            shared: Vec::new(),
            max_queries: sqlite.max_queries.get(),
            conversions: None,
        },
        Connector::Server(server) => BootstrapOptions {
            schema: server.schema.clone(),
            user: server.user.clone(),
            by_iam: matches!(server.login, Login::Iam(_)),
            shared: Vec::new(),
            max_queries: server.max_queries.get(),
            conversions: None,
        },
    }
}

async fn apply(
    settings: &Settings,
    (name, connector): (&ConnectorName, &Connector),
    conversions: Option<&Conversions>,
    format: Format,
) -> Result<(), Failure> {
    let options = settings
        .connector_options(name, connector, &Secrets::from_process())
        .map_err(Failure::unreachable)?;
    let mut applied = apply_bootstrap(options.clone())
        .await
        .map_err(Failure::unreachable)?;
    if let Some(conversions) = conversions {
        let lift = apply_lift(options, conversions).await;
        applied.push(lift.map_err(Failure::unreachable)?);
    }
    let lines: Vec<Line> = applied.iter().map(line).collect();
    match format {
        Format::Json => say_json(&lines),
        Format::Text => lines
            .iter()
            .for_each(|line| say(format!("{}: {}", line.what, line.change))),
    }
    Ok(())
}

fn line(applied: &Applied) -> Line {
    let change = match applied.change {
        Change::None => "there already".to_owned(),
        Change::Created => "made".to_owned(),
        Change::ColumnsAdded(count) => format!("{} added", counted(count, "column")),
    };
    Line {
        what: applied.what.clone(),
        change,
    }
}
