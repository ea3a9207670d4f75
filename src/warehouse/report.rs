//! What a connector leads to, as somebody who has to answer for it wants to
//! know: reached how, as whom, allowed what, and what is there. Catalogs are
//! read, and of the columns that campaigns name as keys some rows are counted.

use super::adapter::SqlWarehouse;
use super::connect::Rows;
use super::pool::Session;
use super::report_keys::{self, KeySample};
use super::report_sql as ask;
use super::report_tls;
use super::{ApartOptions, ConnectorOptions};
use crate::audience::{Dialect, Statement};
use crate::history::TABLES;
use crate::run::WarehouseError;
use crate::tls::TlsReport;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// The most shared relations that are listed.
pub const MAX_RELATIONS: usize = 200;

/// How often the way there and back is measured; the shortest counts.
const ROUND_TRIPS: u32 = 3;

/// What was found at a connector.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectorReport {
    /// What the server says it is.
    pub version: String,
    /// Who we are there, and in which database.
    pub login: String,
    /// The encryption of this connection where the server shows it
    /// (PostgreSQL), else what the connector asks for.
    pub encryption: String,
    /// What the server shows of itself in TLS, over a connection of its own;
    /// none where the connector asks for no TLS.
    pub tls: Option<TlsReport>,
    /// Why that could not be seen.
    pub tls_error: Option<String>,
    /// The isolation of transactions; none where only a superuser may see it
    /// (Redshift).
    pub isolation: Option<String>,
    /// From the first packet to a session, in milliseconds.
    pub connect_ms: u64,
    /// There and back, the shortest of three, in milliseconds.
    pub round_trip_ms: f64,
    /// Whether the login may do anything at all.
    pub is_superuser: bool,
    /// What should be otherwise; empty is good.
    pub findings: Vec<String>,
    /// The daemon's own tables.
    pub tables: Vec<OwnTable>,
    /// What campaigns can read, at most [`MAX_RELATIONS`].
    pub relations: Vec<Relation>,
    /// Whether there is more of it.
    pub relations_left_out: bool,
}

/// One of the daemon's own tables.
#[derive(Debug, Clone, Serialize)]
pub struct OwnTable {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// Columns that a newer daemon needs.
    pub missing_columns: Vec<String>,
}

/// Something campaigns can read.
#[derive(Debug, Clone, Serialize)]
pub struct Relation {
    /// With its schema.
    pub name: String,
    /// `view`, `table` and the like.
    pub kind: &'static str,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// What some of its rows say of the columns that campaigns of the
    /// connector name as keys.
    pub keys: Vec<KeySample>,
}

/// A column of a relation.
#[derive(Debug, Clone, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, in the database's words.
    #[serde(rename = "type")]
    pub data_type: String,
}

/// Connects, looks around, and reports. `keys` are the columns that campaigns
/// name as keys. Writes nothing; a SQLite file that is not there is not made.
pub async fn report(
    options: ConnectorOptions,
    keys: &[String],
) -> Result<ConnectorReport, WarehouseError> {
    if let ConnectorOptions::Sqlite { path, .. } = &options
        && !path.exists()
    {
        return Ok(not_made_yet(path));
    }
    let warehouse = SqlWarehouse::new(options.clone().reading());
    let began = Instant::now();
    let mut session = warehouse.pool.session().await?;
    let connect_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut shortest = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        session.run(&statement("select 1")).await?;
        shortest = shortest.min(began.elapsed());
    }
    let (tls, tls_error) = match report_tls::shown(&options).await {
        None => (None, None),
        Some(Ok(shown)) => (Some(shown), None),
        Some(Err(why)) => (None, Some(why)),
    };
    let dialect = options.dialect();
    let mut found = ConnectorReport {
        version: text(&mut session, ask::version(dialect)).await?,
        login: login(&mut session, dialect).await?,
        encryption: encryption(&mut session, &options).await?,
        tls,
        tls_error,
        isolation: isolation(&mut session, dialect).await?,
        connect_ms,
        round_trip_ms: (shortest.as_secs_f64() * 100_000.0).round() / 100.0,
        is_superuser: false,
        findings: Vec::new(),
        tables: Vec::new(),
        relations: Vec::new(),
        relations_left_out: false,
    };
    found.privileges(&warehouse, &mut session).await?;
    match options.apart() {
        None => found.own_tables(&warehouse, &mut session).await?,
        Some(apart) => found.shown_contacts(apart, &mut session).await,
    }
    found.shared(&warehouse, &mut session, keys).await?;
    session.close().await;
    Ok(found)
}

fn not_made_yet(path: &Path) -> ConnectorReport {
    ConnectorReport {
        version: "SQLite".to_owned(),
        login: "whoever may write the file".to_owned(),
        encryption: "none; it is a file".to_owned(),
        tls: None,
        tls_error: None,
        isolation: None,
        connect_ms: 0,
        round_trip_ms: 0.0,
        is_superuser: false,
        findings: vec![format!(
            "{} is not there; it is made at the first run",
            path.display()
        )],
        tables: Vec::new(),
        relations: Vec::new(),
        relations_left_out: false,
    }
}

impl ConnectorReport {
    /// More than the daemon needs is a finding, and so is less.
    async fn privileges(
        &mut self,
        warehouse: &SqlWarehouse,
        session: &mut Session,
    ) -> Result<(), WarehouseError> {
        if warehouse.schema.dialect == Dialect::Sqlite {
            return Ok(());
        }
        let superuser = text(session, ask::SUPERUSER).await?;
        self.is_superuser = !superuser.is_empty();
        let mut excesses = ask::excesses(warehouse.schema.dialect);
        if self.is_superuser {
            self.findings.push(format!(
                "the login `{superuser}` is a superuser, who may do anything; give the daemon a login of its own, as `campaignd bootstrap NAME` prints it"
            ));
            excesses.clear();
        }
        for (sql, finding) in excesses {
            for row in rows(session, sql).await? {
                let name = row.into_iter().next().flatten().unwrap_or_default();
                self.findings.push(finding.replace("{}", &name));
            }
        }
        let name = &warehouse.schema.name;
        let literal = warehouse.schema.name_literal();
        let held = rows(session, &ask::own_schema(&literal)).await?;
        let may = |column: usize| held.first().and_then(|row| row[column].as_deref()) == Some("t");
        if held.is_empty() {
            self.findings.push(format!(
                "the schema `{name}` is not there; run `campaignd bootstrap NAME --apply`"
            ));
        } else if !(may(0) && may(1)) {
            self.findings.push(format!(
                "the login may not use and create in the schema `{name}`; an administrator must run what `campaignd bootstrap NAME` prints"
            ));
        }
        Ok(())
    }

    async fn own_tables(
        &mut self,
        warehouse: &SqlWarehouse,
        session: &mut Session,
    ) -> Result<(), WarehouseError> {
        for table in TABLES {
            let look = warehouse.schema.columns_of("tables", table.name);
            let there = session.rows(&look).await?;
            let there: Vec<String> = there.into_iter().filter_map(first).collect();
            let needed = table.columns.iter().map(|(name, _)| (*name).to_owned());
            let missing: Vec<String> = match there.is_empty() {
                true => Vec::new(),
                false => needed.filter(|name| !there.contains(name)).collect(),
            };
            if there.is_empty() || !missing.is_empty() {
                let what = if there.is_empty() {
                    "is not there"
                } else {
                    "lacks columns"
                };
                self.findings.push(format!(
                    "the daemon's table `{}` {what}; run `campaignd bootstrap NAME --apply`",
                    table.name
                ));
            }
            self.tables.push(OwnTable {
                name: table.name.to_owned(),
                present: !there.is_empty(),
                missing_columns: missing,
            });
        }
        Ok(())
    }

    /// The relation that shows contacts must have what caps are counted by.
    async fn shown_contacts(&mut self, apart: &ApartOptions, session: &mut Session) {
        let Some(relation) = &apart.relation else {
            return;
        };
        let look = format!(
            "select run_id, campaign, profile_id, channel, counts_as_contact, contacted_at, \
             recorded_at from {relation} where 1 = 0"
        );
        if let Err(failed) = rows(session, &look).await {
            self.findings.push(format!(
                "the `history_relation` {relation} cannot be read ({}); it must have the columns \
                 of `contact_history`, and the login must be granted select on it",
                failed.message
            ));
        }
    }

    async fn shared(
        &mut self,
        warehouse: &SqlWarehouse,
        session: &mut Session,
        keys: &[String],
    ) -> Result<(), WarehouseError> {
        let schema = &warehouse.schema;
        let literal = schema.name_literal();
        let relations = ask::relations(schema.dialect, &literal, MAX_RELATIONS + 1);
        let relations = rows(session, &relations).await?;
        self.relations_left_out = relations.len() > MAX_RELATIONS;
        for row in relations.into_iter().take(MAX_RELATIONS) {
            let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            let is_true = |at: usize| matches!(cell(at).as_str(), "t" | "1");
            let (space, table) = (cell(0), cell(1));
            let name = match space.is_empty() {
                true => table.clone(),
                false => format!("{space}.{table}"),
            };
            let kind = kind(&cell(2));
            if kind.ends_with("table") && schema.dialect != Dialect::Sqlite {
                self.findings.push(format!(
                    "`{name}` is a {kind}; share a view with the columns campaigns need"
                ));
            }
            if is_true(3) && !self.is_superuser {
                self.findings.push(format!(
                    "the login may change `{name}`; an administrator must revoke all but select on it"
                ));
            }
            if is_true(4) {
                self.findings.push(format!(
                    "the view `{name}` shares every column there will be (`select *`); name its columns"
                ));
            }
            let columns = ask::columns(schema.dialect, &space, &table);
            let columns = rows(session, &columns).await?;
            let mut relation = Relation {
                name,
                kind,
                columns: columns.into_iter().filter_map(column).collect(),
                keys: Vec::new(),
            };
            for key in report_keys::keys_of(&relation, keys) {
                let question = report_keys::question(&space, &table, &key);
                match rows_read_only(session, schema.dialect, &question).await? {
                    Ok(answer) => {
                        let sample = answer.iter().find_map(|row| report_keys::answer(&key, row));
                        relation.keys.extend(sample);
                    }
                    Err(failed) => self.findings.push(format!(
                        "`{}` cannot be read ({}); its owner must mend it",
                        relation.name, failed.message
                    )),
                }
            }
            self.relations.push(relation);
        }
        Ok(())
    }
}

fn column(row: Vec<Option<String>>) -> Option<Column> {
    let mut cells = row.into_iter();
    Some(Column {
        name: cells.next()??,
        data_type: cells.next()?.unwrap_or_default(),
    })
}

/// PostgreSQL's letters, and SQLite's words.
fn kind(letter: &str) -> &'static str {
    match letter {
        "v" | "view" => "view",
        "m" => "materialized view",
        "f" => "foreign table",
        "p" => "partitioned table",
        "l" => "late-binding view",
        _ => "table",
    }
}

async fn login(session: &mut Session, dialect: Dialect) -> Result<String, WarehouseError> {
    match dialect {
        Dialect::Sqlite => Ok("whoever may write the file".to_owned()),
        Dialect::Postgres | Dialect::Redshift => text(session, ask::LOGIN).await,
    }
}

async fn encryption(
    session: &mut Session,
    options: &ConnectorOptions,
) -> Result<String, WarehouseError> {
    let ConnectorOptions::Server(server) = options else {
        return Ok("none; it is a file".to_owned());
    };
    let asked = server.tls.word();
    if server.dialect == Dialect::Redshift {
        return Ok(asked.to_owned());
    }
    let seen = text(session, ask::ENCRYPTION).await?;
    let seen = if seen.is_empty() { "none" } else { &seen };
    Ok(format!("{seen} (tls: {asked})"))
}

async fn isolation(
    session: &mut Session,
    dialect: Dialect,
) -> Result<Option<String>, WarehouseError> {
    match dialect {
        Dialect::Postgres => text(session, "show transaction_isolation").await.map(Some),
        Dialect::Sqlite => Ok(Some("serializable".to_owned())),
        Dialect::Redshift => Ok(None),
    }
}

fn statement(sql: &str) -> Statement {
    Statement::new("inspect", "connector", sql)
}

/// The rows of a question to what campaigns read, where nothing is written
/// whatever a view calls; or what the warehouse has against it.
async fn rows_read_only(
    session: &mut Session,
    dialect: Dialect,
    sql: &str,
) -> Result<Result<Rows, WarehouseError>, WarehouseError> {
    if dialect == Dialect::Sqlite {
        return Ok(rows(session, sql).await);
    }
    session.run(&statement("begin read only")).await?;
    let answer = rows(session, sql).await;
    session.run(&statement("rollback")).await?;
    Ok(answer)
}

async fn rows(session: &mut Session, sql: &str) -> Result<Rows, WarehouseError> {
    session.rows(&statement(sql)).await
}

fn first(row: Vec<Option<String>>) -> Option<String> {
    row.into_iter().next().flatten()
}

/// The first cell of the answer; empty where there is none.
async fn text(session: &mut Session, sql: &str) -> Result<String, WarehouseError> {
    let answer = rows(session, sql).await?;
    Ok(answer.into_iter().find_map(first).unwrap_or_default())
}
