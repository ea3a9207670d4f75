//! What a connector leads to, as somebody who has to answer for it wants to
//! know: reached how, as whom, allowed what, and what is there. Catalogs are
//! read, and of the columns that campaigns name as keys some rows are counted.

use super::adapter::SqlWarehouse;
use super::connect::Rows;
use super::pool::Session;
use super::report_ask::{
    cell, first, held, is_true, rows, rows_read_only, statement, text, visible_rows,
};
use super::report_campaigns::{self, UsedBy};
use super::report_keys::{self, KeySample};
use super::report_privileges::Privileges;
use super::report_shares::DataShares;
use super::report_sql as ask;
use super::report_tls;
use super::{ApartOptions, ConnectorOptions};
use crate::audience::Dialect;
use crate::history::{RunFacts, TABLES};
use crate::run::WarehouseError;
use crate::tls::TlsReport;
use serde::Serialize;
use std::collections::BTreeSet;
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
    /// The isolation of transactions; none where this login may not see it
    /// (Redshift).
    pub isolation: Option<String>,
    /// From the first packet to a session, in milliseconds.
    pub connect_ms: u64,
    /// There and back, the shortest of three, in milliseconds.
    pub round_trip_ms: f64,
    /// Whether the login may do anything at all.
    pub is_superuser: bool,
    /// What it may do, relations aside; none of a file.
    pub privileges: Option<Privileges>,
    /// What should be otherwise; empty is good.
    pub findings: Vec<String>,
    /// The daemon's own tables.
    pub tables: Vec<OwnTable>,
    /// What campaigns can read, at most [`MAX_RELATIONS`].
    pub relations: Vec<Relation>,
    /// Whether there is more of it.
    pub relations_left_out: bool,
    /// What data shares bring in, as far as this login may see it (Redshift).
    pub data_shares: DataShares,
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
    /// What the login holds on it; of a file, nothing is said.
    pub privileges: Vec<String>,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// What some of its rows say of the columns that campaigns of the
    /// connector name as keys.
    pub keys: Vec<KeySample>,
    /// The campaigns that read it.
    pub used_by: Vec<UsedBy>,
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

/// Connects, looks around, and reports; also what is missing for `campaigns`,
/// as runs of them would be. Writes nothing; a SQLite file that is not there is
/// not made.
pub async fn report(
    options: ConnectorOptions,
    campaigns: &[RunFacts],
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
        privileges: None,
        findings: Vec::new(),
        tables: Vec::new(),
        relations: Vec::new(),
        relations_left_out: false,
        data_shares: DataShares::default(),
    };
    found.privileges(&warehouse, &mut session).await?;
    match options.apart() {
        None => found.own_tables(&warehouse, &mut session).await?,
        Some(apart) => found.shown_contacts(apart, &mut session).await,
    }
    found.shared(&warehouse, &mut session, campaigns).await?;
    if dialect == Dialect::Redshift {
        found.data_shares = DataShares::of(&mut session).await?;
    }
    session.close().await;
    let missing = report_campaigns::missing(&options, campaigns).await;
    found.findings.extend(missing);
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
        privileges: None,
        findings: vec![format!(
            "{} is not there; it is made at the first run",
            path.display()
        )],
        tables: Vec::new(),
        relations: Vec::new(),
        relations_left_out: false,
        data_shares: DataShares::default(),
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
        let (held, of_roles) = Privileges::of(session, warehouse.schema.dialect).await?;
        self.is_superuser = held.is_superuser();
        let login = text(session, "select current_user").await?;
        if self.is_superuser {
            self.findings.push(format!(
                "the login `{login}` is a superuser, who may do anything; give the daemon a login of its own, as `campaignd bootstrap NAME` prints it"
            ));
        } else {
            let excesses = held.excesses(&warehouse.schema, &login);
            self.findings.extend(excesses);
            self.findings.extend(of_roles);
        }
        self.privileges = Some(held);
        let name = &warehouse.schema.name;
        let literal = warehouse.schema.name_literal();
        let held = rows(session, &ask::own_schema(&literal)).await?;
        let may = |column: usize| held.first().is_some_and(|row| is_true(row, column));
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
        campaigns: &[RunFacts],
    ) -> Result<(), WarehouseError> {
        let schema = &warehouse.schema;
        let literal = schema.name_literal();
        let question = ask::relations(schema.dialect, &literal, MAX_RELATIONS + 1);
        let found = rows(session, &question).await?;
        self.relations_left_out = found.len() > MAX_RELATIONS;
        let further = match schema.dialect {
            Dialect::Redshift => visible_rows(session, ask::FURTHER_PRIVILEGES).await?,
            Dialect::Postgres | Dialect::Sqlite => None,
        };
        let further = self.of_this_login(further.unwrap_or_default());
        let uses = report_campaigns::uses(campaigns, schema.dialect);
        for row in found.into_iter().take(MAX_RELATIONS) {
            let (space, table) = (cell(&row, 0), cell(&row, 1));
            let mut privileges = held(&row, 4, ask::on_relations(schema.dialect));
            let of_it = further
                .iter()
                .filter(|(of, name, _)| (of, name) == (&space, &table));
            privileges.extend(of_it.map(|(_, _, privilege)| privilege.clone()));
            let columns = ask::columns(schema.dialect, &space, &table);
            let columns = rows(session, &columns).await?;
            let mut relation = Relation {
                name: match space.is_empty() {
                    true => table.clone(),
                    false => format!("{space}.{table}"),
                },
                kind: kind(&cell(&row, 2)),
                privileges,
                columns: columns.into_iter().filter_map(column).collect(),
                keys: Vec::new(),
                used_by: Vec::new(),
            };
            relation.used_by = report_campaigns::used_by(&relation, (&space, &table), &uses);
            self.judge(&relation, schema.dialect, is_true(&row, 3));
            if relation.is_readable(schema.dialect) {
                let keys = report_keys::keys_of(&relation, campaigns);
                for key in keys {
                    let question = report_keys::question(&space, &table, &key);
                    match rows_read_only(session, schema.dialect, &question).await? {
                        Ok(answer) => {
                            let sample =
                                answer.iter().find_map(|row| report_keys::answer(&key, row));
                            relation.keys.extend(sample);
                        }
                        Err(failed) => self.findings.push(format!(
                            "`{}` cannot be read ({}); its owner must mend it",
                            relation.name, failed.message
                        )),
                    }
                }
            }
            self.relations.push(relation);
        }
        Ok(())
    }

    /// Those of the privileges on relations that are granted to this login, to
    /// a role of it or to everybody: schema, relation, privilege.
    fn of_this_login(&self, rows: Rows) -> BTreeSet<(String, String, String)> {
        let login = self.login.split_once(" in ").map_or("", |(login, _)| login);
        let roles = self.privileges.iter().flat_map(|held| &held.roles);
        let whose: Vec<&str> = roles.map(String::as_str).chain([login, "public"]).collect();
        let is_ours = |row: &Vec<Option<String>>| {
            let name = cell(row, 3);
            whose.iter().any(|one| name.eq_ignore_ascii_case(one))
        };
        let ours = rows.into_iter().filter(is_ours);
        ours.map(|row| (cell(&row, 0), cell(&row, 1), cell(&row, 2)))
            .collect()
    }

    /// What should be otherwise about a relation.
    fn judge(&mut self, relation: &Relation, dialect: Dialect, has_star: bool) {
        let Relation { name, kind, .. } = relation;
        let is_shared = dialect != Dialect::Sqlite && relation.is_readable(dialect);
        if kind.ends_with("table") && is_shared {
            self.findings.push(format!(
                "`{name}` is a {kind}; share a view with the columns campaigns need"
            ));
        }
        let more = relation.privileges.iter().map(String::as_str);
        let more: Vec<&str> = more.filter(|held| *held != "select").collect();
        if !more.is_empty() && !self.is_superuser {
            self.findings.push(format!(
                "the login holds {} on `{name}`; an administrator must revoke all but select on it",
                more.join(", ")
            ));
        }
        if has_star {
            self.findings.push(format!(
                "the view `{name}` shares every column there will be (`select *`); name its columns"
            ));
        }
    }
}

impl Relation {
    fn is_readable(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Sqlite || self.privileges.iter().any(|held| held == "select")
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
        Dialect::Redshift => {
            let seen = visible_rows(session, ask::ISOLATION).await?;
            let seen = seen.unwrap_or_default().into_iter().find_map(first);
            Ok(seen.map(|level| level.trim().to_lowercase()))
        }
    }
}
