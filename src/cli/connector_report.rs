//! `campaignd connector list` and `connector test`.

use super::exit::{Failure, PROBLEMS, UNREACHABLE};
use super::load;
use super::plan::asked;
use super::show::{Format, lines, say, say_json, table};
use crate::audience::Dialect;
use crate::daemon::settings::{Connector, Secrets, Settings};
use crate::history::RunFacts;
use crate::id::ConnectorName;
use crate::run::{Clock as _, SystemClock};
use crate::warehouse::{
    ConnectorReport, DataShares, KeySample, MAX_RELATIONS, MAX_SAMPLED, MAX_SHARED, Privileges,
    Relation, SharedRelation, report,
};
use serde::Serialize;

/// The most campaigns of a connector that are looked at: each costs a few
/// logins.
const MAX_CAMPAIGNS: usize = 200;

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
    /// How many campaigns of the connector were looked at, and how many not.
    campaigns: usize,
    campaigns_left_out: usize,
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
    let now = SystemClock.now();
    // One that cannot be rendered is for `check` to tell of.
    let facts = of_this.filter_map(|campaign| asked(settings, campaign, now).ok());
    let mut facts: Vec<RunFacts> = facts.map(|asked| asked.facts).collect();
    let campaigns_left_out = facts.len().saturating_sub(MAX_CAMPAIGNS);
    facts.truncate(MAX_CAMPAIGNS);
    let found = report(options, &facts).await;
    let (report, error) = match found {
        Ok(report) => (Some(report), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let tested = Tested {
        view: view(name, connector),
        reachable: report.is_some(),
        error,
        campaigns: facts.len(),
        campaigns_left_out,
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
    let hidden = "not visible to this login";
    shown.push(format!("  isolation   {}", isolation.unwrap_or(hidden)));
    shown.push(format!(
        "  took        {} ms to connect, {} ms there and back",
        report.connect_ms, report.round_trip_ms
    ));
    if let Some(held) = &report.privileges {
        shown.extend(privileges(held));
    }
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
        shown.extend(used_by(one));
    }
    if report.relations_left_out {
        shown.push(format!("    and more than these {MAX_RELATIONS}"));
    }
    shown.extend(shares(&report.data_shares));
    if tested.campaigns_left_out > 0 {
        shown.push(format!(
            "  {} campaigns looked at, {} not",
            tested.campaigns, tested.campaigns_left_out
        ));
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
    let held = match relation.privileges.is_empty() {
        true => String::new(),
        false => format!("; {}", relation.privileges.join(", ")),
    };
    format!("    {name} ({kind}{held}): {}", columns.join(", "))
}

/// The columns that campaigns use, however many campaigns that are.
fn used_by(relation: &Relation) -> Option<String> {
    let uses = relation.used_by.iter();
    let campaigns: Vec<&str> = uses.map(|used| used.campaign.as_str()).collect();
    let is_used = |name: &&str| {
        let mut uses = relation.used_by.iter();
        uses.any(|used| used.columns.iter().any(|column| column == name))
    };
    let columns = relation.columns.iter().map(|column| column.name.as_str());
    let columns: Vec<&str> = columns.filter(is_used).collect();
    let by = match campaigns.as_slice() {
        [] => return None,
        [one] => (*one).to_owned(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    };
    let columns = match columns.is_empty() {
        true => "none of its columns".to_owned(),
        false => columns.join(", "),
    };
    Some(format!("      used by {by}: {columns}"))
}

fn privileges(held: &Privileges) -> [String; 3] {
    let list = |words: &[String]| match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    };
    let schemas = held.schemas.iter();
    let schemas: Vec<String> = schemas
        .map(|schema| format!("{} ({})", schema.name, schema.privileges.join(", ")))
        .collect();
    let roles = match held.roles_are_visible {
        true => list(&held.roles),
        false => "not visible to this login".to_owned(),
    };
    [
        format!("  roles       {roles}"),
        format!("  database    {}", list(&held.database)),
        format!("  schemas     {}", list(&schemas)),
    ]
}

fn shares(shares: &DataShares) -> Vec<String> {
    let databases = match shares.databases.is_empty() {
        true => None,
        false => Some(format!(
            "  made from data shares: {}",
            shares.databases.join(", ")
        )),
    };
    let heading = (!shares.relations.is_empty()).then(|| "  data shares bring in:".to_owned());
    let relations = shares.relations.iter().map(|relation| {
        let SharedRelation { share, name, kind } = relation;
        format!("    {name} ({kind}) of the share {share}")
    });
    let more = shares
        .relations_left_out
        .then(|| format!("    and more than these {MAX_SHARED}"));
    databases
        .into_iter()
        .chain(heading)
        .chain(relations)
        .chain(more)
        .collect()
}
