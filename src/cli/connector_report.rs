//! `campaignd connector list` and `connector test`.

use super::exit::{Failure, PROBLEMS, UNREACHABLE};
use super::load;
use super::show::{Format, lines, say, say_json, table};
use crate::audience::Dialect;
use crate::daemon::settings::{Connector, Secrets, Settings};
use crate::id::ConnectorName;
use crate::warehouse::{ConnectorReport, KeySample, MAX_RELATIONS, MAX_SAMPLED, Relation, report};
use serde::Serialize;
use std::collections::BTreeSet;

/// A connector, as the operator's file has it.
#[derive(Debug, Serialize)]
struct View {
    connector: String,
    kind: &'static str,
    /// Host and port, or the file.
    address: String,
    database: Option<String>,
    /// The user, and where its password comes from.
    login: Option<String>,
    tls: Option<&'static str>,
    schema: Option<String>,
    max_queries: u32,
    /// The connector that history is written through; none: this one.
    history: Option<String>,
}

fn view(name: &ConnectorName, connector: &Connector) -> View {
    let connector_name = name.to_string();
    match connector {
        Connector::Sqlite(sqlite) => View {
            connector: connector_name,
            kind: "sqlite",
            address: sqlite.path.display().to_string(),
            database: None,
            login: None,
            tls: None,
            schema: None,
            max_queries: sqlite.max_queries.get(),
            history: None,
        },
        Connector::Server(server) => View {
            connector: connector_name,
            kind: match server.dialect {
                Dialect::Redshift => "redshift",
                Dialect::Postgres | Dialect::Sqlite => "postgres",
            },
            address: format!("{}:{}", server.host, server.port),
            database: Some(server.database.clone()),
            login: Some(server.login_words()),
            tls: Some(server.tls.word()),
            schema: Some(server.schema.clone()),
            max_queries: server.max_queries.get(),
            history: server
                .history
                .as_ref()
                .map(|elsewhere| elsewhere.connector.to_string()),
        },
    }
}

/// The connectors of the operator's file; none is connected to.
pub(super) fn list(settings: &Settings, format: Format) {
    let connectors = settings.connectors.iter();
    let views: Vec<View> = connectors.map(|(name, one)| view(name, one)).collect();
    if format == Format::Json {
        return say_json(&views);
    }
    let mut shown = table(&[
        "connector",
        "kind",
        "address",
        "database",
        "login",
        "tls",
        "schema",
        "queries#",
    ]);
    for view in views {
        shown.add_row([
            view.connector,
            view.kind.to_owned(),
            view.address,
            view.database.unwrap_or_default(),
            view.login.unwrap_or_default(),
            view.tls.unwrap_or_default().to_owned(),
            view.schema.unwrap_or_default(),
            view.max_queries.to_string(),
        ]);
    }
    say(lines(&shown));
}

/// What `connector test` found, as `--format json` shows it.
#[derive(Debug, Serialize)]
struct Tested {
    #[serde(flatten)]
    view: View,
    reachable: bool,
    /// Why it is not, and the one thing to do.
    error: Option<String>,
    report: Option<ConnectorReport>,
}

/// Connects, looks around and reports. A connector that cannot be reached is
/// reported too, and ends with that exit code.
pub(super) async fn test(
    settings: &Settings,
    (name, connector): (&ConnectorName, &Connector),
    format: Format,
) -> Result<(), Failure> {
    let options = settings
        .connector_options(name, connector, &Secrets::from_process())
        .map_err(|error| Failure::new(PROBLEMS, error))?;
    let folder = load::campaigns(settings);
    let campaigns = folder.campaigns.values().map(|loaded| &loaded.campaign);
    let of_this = campaigns.filter(|campaign| campaign.connector == *name);
    let keys: BTreeSet<String> = of_this
        .map(|campaign| campaign.audience.key.clone())
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    let found = report(options, &keys).await;
    let (report, error) = match found {
        Ok(report) => (Some(report), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let tested = Tested {
        view: view(name, connector),
        reachable: report.is_some(),
        error,
        report,
    };
    match format {
        Format::Json => say_json(&tested),
        Format::Text => say(text(&tested)),
    }
    match tested.reachable {
        true => Ok(()),
        false => Err(Failure::silent(UNREACHABLE)),
    }
}

fn text(tested: &Tested) -> String {
    let view = &tested.view;
    let mut shown = vec![
        format!("{} ({})", view.connector, view.kind),
        format!("  address     {}", view.address),
    ];
    if let Some(login) = &view.login {
        shown.push(format!("  configured  {login}"));
    }
    let Some(report) = &tested.report else {
        let why = tested.error.as_deref().unwrap_or_default();
        shown.push(format!("  not reached: {why}"));
        return shown.join("\n");
    };
    shown.push(format!("  logged in   {}", report.login));
    shown.push(format!("  server      {}", report.version));
    shown.push(format!("  encryption  {}", report.encryption));
    if let Some(tls) = &report.tls {
        shown.push(format!(
            "  TLS         {}, {}, issued by {}, until {}",
            tls.version, tls.subject, tls.issuer, tls.expires
        ));
    }
    if let Some(why) = &report.tls_error {
        shown.push(format!("  TLS         could not be looked at: {why}"));
    }
    let isolation = report.isolation.as_deref();
    let hidden = "only a superuser may see it";
    shown.push(format!("  isolation   {}", isolation.unwrap_or(hidden)));
    shown.push(format!(
        "  took        {} ms to connect, {} ms there and back",
        report.connect_ms, report.round_trip_ms
    ));
    let present = report.tables.iter().filter(|table| table.present).count();
    shown.push(match &view.history {
        None => format!("  our tables  {present} of {}", report.tables.len()),
        Some(history) => format!("  history     through `{history}`; test that connector too"),
    });
    shown.push(match report.relations.len() {
        0 => "  campaigns can read nothing here".to_owned(),
        _ => "  campaigns can read:".to_owned(),
    });
    for one in &report.relations {
        shown.push(relation(one));
        shown.extend(one.keys.iter().map(key));
    }
    if report.relations_left_out {
        shown.push(format!("    and more than these {MAX_RELATIONS}"));
    }
    if report.findings.is_empty() {
        shown.push("  nothing to put right".to_owned());
    } else {
        shown.push("  to put right:".to_owned());
        let findings = report.findings.iter();
        shown.extend(findings.map(|finding| format!("    - {finding}")));
    }
    shown.join("\n")
}

fn key(sample: &KeySample) -> String {
    let KeySample {
        column,
        rows,
        nulls,
        duplicates,
    } = sample;
    let seen = match *rows < u64::from(MAX_SAMPLED) {
        true => format!("{rows} rows"),
        false => format!("the first {rows} rows"),
    };
    format!("      key {column}: {seen} looked at, {nulls} without, {duplicates} repeated")
}

fn relation(relation: &Relation) -> String {
    let columns = relation.columns.iter();
    let columns: Vec<String> = columns
        .map(|column| format!("{} {}", column.name, column.data_type))
        .collect();
    let Relation { name, kind, .. } = relation;
    format!("    {name} ({kind}): {}", columns.join(", "))
}
