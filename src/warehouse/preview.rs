//! What a run would do, read from the warehouse and nothing written to it:
//! neither a table nor a row, not even a temporary one.

use super::ConnectorOptions;
use super::adapter::SqlWarehouse;
use super::cells::{Layout, kind, read_page};
use super::column_types::{unfit_freshness, unfit_key};
use super::errors::{error, unwritable};
use super::pool::Session;
use super::staging::{columns, count_rows, refuse_unsound_sql};
use crate::audience::{
    BadColumns, Column, Dialect, FreshWhen, Funnel, Look, OpenMembers, RunTables, Shown, Statement,
    check_columns,
};
use crate::history::RunFacts;
use crate::run::{Kind, Page, WarehouseError, WarehouseErrorClass};
use std::path::Path;

/// What a preview brings besides the funnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How many of the first members.
    pub members: u32,
    /// Whether the warehouse says how it would go about it.
    pub explained: bool,
}

/// What a run begun now would come to. Holds members: never to be logged.
pub struct Preview {
    /// How many fall out where.
    pub funnel: Funnel,
    /// The first members, in the order they would be sent.
    pub first: Page,
    /// The statement that counted.
    pub sql: String,
    /// The warehouse's plan for it, line by line; none where nobody asked.
    pub explained: Option<Vec<String>>,
}

/// What a run with these facts would come to. One transaction that only reads:
/// the counts and the members are of one moment.
pub async fn preview(
    options: ConnectorOptions,
    run: &RunFacts,
    wanted: Wanted,
) -> Result<Preview, WarehouseError> {
    let reader = Reader::open(options)?;
    let mut session = reader.begin(run).await?;
    let preview = reader.preview(&mut session, run, wanted).await;
    session.close().await;
    preview
}

/// How many rows the campaign's query returns now.
pub async fn audience_count(
    options: ConnectorOptions,
    run: &RunFacts,
) -> Result<u64, WarehouseError> {
    let reader = Reader::open(options)?;
    let mut session = reader.begin(run).await?;
    let statement = reader.warehouse.tables(run).count_audience();
    let rows = session.rows(&statement).await;
    session.close().await;
    let cell = rows?
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().next());
    let count = cell.flatten().and_then(|count| count.parse().ok());
    count.ok_or_else(|| error(WarehouseErrorClass::Statement, "the count is no number"))
}

/// The part of a campaign file that a warehouse has something against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// `audience.sql`.
    Query,
    /// `audience.key`.
    Key,
    /// `policy.suppress`.
    Suppress,
    /// `policy.order_by`.
    Order,
    /// `fresh_when.sql`.
    Fresh,
    /// The rest of `policy`.
    Policy,
}

/// What the warehouse has against a campaign.
#[derive(Debug, Default)]
pub struct Looked {
    /// Why a run of it would not be sent.
    pub problems: Vec<(Blamed, WarehouseError)>,
    /// What is dear about its query, by the warehouse's plan.
    pub notes: Vec<&'static str>,
    /// The columns of its query, and what their cells are; none where the query
    /// does not run.
    pub columns: Vec<(String, Kind)>,
}

impl Looked {
    fn refused(blamed: Blamed, problem: WarehouseError) -> Self {
        Self {
            problems: vec![(blamed, problem)],
            ..Self::default()
        }
    }
}

/// What makes a query dear on Redshift, by the words of its plan
/// ([evaluating the query plan](https://docs.aws.amazon.com/redshift/latest/dg/c_data_redistribution.html)).
/// A nested loop is nothing unusual on PostgreSQL.
const DEAR: [(&str, &str); 3] = [
    (
        "Nested Loop",
        "the warehouse would compare each row of one side with each of the other (a nested loop); \
         join on equality",
    ),
    (
        "DS_BCAST_INNER",
        "the warehouse would send a copy of one side of a join to every node (a broadcast); join on \
         the distribution keys, or give the smaller table `diststyle all`",
    ),
    (
        "DS_DIST_BOTH",
        "the warehouse would redistribute both sides of a join; join on the distribution keys",
    ),
];

fn dear(plan: &[String]) -> Vec<&'static str> {
    let has = |word: &str| plan.iter().any(|line| line.contains(word));
    let dear = DEAR.iter().filter(|(word, _)| has(word));
    dear.map(|(_, note)| *note).collect()
}

/// Everything that the warehouse has against a campaign before a run of it is
/// begun: its query does not run or has no key, a suppression list is not there
/// or has no key either, its order names what there is not, a type does not
/// fit; what says how recent its data is does not run, or is no timestamp. An
/// error that is no fault of the campaign's is the error.
pub async fn look_at_campaign(
    options: ConnectorOptions,
    run: &RunFacts,
    fresh_when: Option<&FreshWhen>,
) -> Result<Looked, WarehouseError> {
    let reader = Reader::open(options)?;
    let mut session = reader.begin(run).await?;
    let looked = async {
        let mut looked = reader.look_at(&mut session, run).await?;
        if let Some(fresh_when) = fresh_when {
            reader.begin_anew(&mut session, run).await?;
            let problem = reader.look_at_freshness(&mut session, run, fresh_when);
            let problem = problem.await?.map(|problem| (Blamed::Fresh, problem));
            looked.problems.extend(problem);
        }
        Ok(looked)
    };
    let looked = looked.await;
    session.close().await;
    looked
}

impl Reader {
    async fn look_at(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Looked, WarehouseError> {
        let columns = match self.columns(session, run).await {
            Ok(columns) => columns,
            Err(problem) => return Ok(Looked::refused(Blamed::Query, of_campaign(problem)?)),
        };
        let key = match check_columns(&columns, &run.audience.key) {
            Ok(key) => key.clone(),
            Err(bad) => {
                let blamed = match bad {
                    BadColumns::NoKey { .. } => Blamed::Key,
                    _ => Blamed::Query,
                };
                return Ok(Looked::refused(blamed, bad_columns(&bad)));
            }
        };
        let dialect = self.warehouse.schema.dialect;
        let of_kind = |column: &Column| (column.name.clone(), kind(dialect, column));
        let mut looked = Looked {
            columns: columns.iter().map(of_kind).collect(),
            ..Looked::default()
        };
        if let Some(unfit) = unfit_key(dialect, &key) {
            let problem = error(WarehouseErrorClass::Statement, unfit);
            looked.problems.push((Blamed::Key, problem));
        }
        let tables = self.warehouse.tables(run);
        for relation in &run.suppress {
            // A statement that fails ends its transaction.
            self.begin_anew(session, run).await?;
            let tried = session.run(&tables.try_suppression(relation, &key)).await;
            if let Err(problem) = tried {
                let problem = of_campaign(problem)?;
                let problem = WarehouseError {
                    message: format!("`policy.suppress` names {relation}: {}", problem.message),
                    ..problem
                };
                looked.problems.push((Blamed::Suppress, problem));
            }
        }
        self.begin_anew(session, run).await?;
        let run = self.as_counted(session, run).await?;
        let look = self.look(&run, &columns, &key, &[]);
        let plan = match self.warehouse.tables(&run).preview(&look, Shown::Explained) {
            Err(bad_policy) => Err((Blamed::Order, bad(bad_policy))),
            // It would be refused for the same reasons once more.
            Ok(_) if !looked.problems.is_empty() => return Ok(looked),
            Ok(statement) => match lines(session, &statement).await {
                Ok(plan) => Ok(plan),
                Err(problem) => Err((Blamed::Policy, of_campaign(problem)?)),
            },
        };
        match plan {
            Ok(plan) if dialect == Dialect::Redshift => looked.notes = dear(&plan),
            Ok(_) => {}
            Err(problem) => looked.problems.push(problem),
        }
        Ok(looked)
    }

    /// What is wrong with the query that says how recent the data is.
    async fn look_at_freshness(
        &self,
        session: &mut Session,
        run: &RunFacts,
        fresh_when: &FreshWhen,
    ) -> Result<Option<WarehouseError>, WarehouseError> {
        let dialect = self.warehouse.schema.dialect;
        let asked = session
            .header(&fresh_when.empty_row(&run.run, dialect))
            .await;
        match asked {
            Err(problem) => of_campaign(problem).map(Some),
            Ok(columns) => {
                let unfit = unfit_freshness(dialect, &columns);
                Ok(unfit.map(|unfit| error(WarehouseErrorClass::Statement, unfit)))
            }
        }
    }

    /// A statement that fails ends its transaction, and the next is another's.
    async fn begin_anew(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<(), WarehouseError> {
        let next = self.begin(run).await?;
        std::mem::replace(session, next).close().await;
        Ok(())
    }
}

/// Only what a person mends in the campaign file, or by a grant, is a problem
/// of the campaign.
fn of_campaign(problem: WarehouseError) -> Result<WarehouseError, WarehouseError> {
    match problem.class {
        WarehouseErrorClass::Statement | WarehouseErrorClass::Configuration => Ok(problem),
        _ => Err(problem),
    }
}

struct Reader {
    warehouse: SqlWarehouse,
}

impl Reader {
    /// SQLite would make a file that is not there.
    fn open(options: ConnectorOptions) -> Result<Self, WarehouseError> {
        if let ConnectorOptions::Sqlite { path, .. } = &options
            && !Path::new(path).exists()
        {
            let message = format!(
                "the warehouse {} is not there; see the connector's `path` in campaignd.yaml",
                path.display()
            );
            return Err(error(WarehouseErrorClass::Configuration, message));
        }
        Ok(Self {
            warehouse: SqlWarehouse::new(options.reading()),
        })
    }

    /// A transaction that cannot write and sees one moment. It is never handed
    /// back: the connection ends with it.
    async fn begin(&self, run: &RunFacts) -> Result<Session, WarehouseError> {
        refuse_unsound_sql(run, self.warehouse.schema.dialect)?;
        let mut session = self.warehouse.pool.session().await?;
        let begin = match self.warehouse.schema.dialect {
            Dialect::Sqlite => "begin",
            Dialect::Postgres => "begin transaction isolation level repeatable read, read only",
            Dialect::Redshift => "begin read only",
        };
        let begin = Statement::new("plan", run.run.as_str(), begin);
        session.run(&begin).await?;
        Ok(session)
    }

    async fn preview(
        &self,
        session: &mut Session,
        run: &RunFacts,
        wanted: Wanted,
    ) -> Result<Preview, WarehouseError> {
        let columns = self.columns(session, run).await?;
        let key = check_columns(&columns, &run.audience.key);
        let key = key.map_err(|bad| bad_columns(&bad))?.clone();
        let run = self.as_counted(session, run).await?;
        let open = match run.policy.counts_contacts() {
            true => self.warehouse.open_members(session, &run).await?,
            false => Vec::new(),
        };
        let look = self.look(&run, &columns, &key, &open);
        let tables = self.warehouse.tables(&run);
        let counting = tables.preview(&look, Shown::Funnel).map_err(bad)?;
        let funnel = count_rows(session, &counting, Funnel::default()).await?;
        let members = Shown::Members(wanted.members);
        let members = tables.preview(&look, members).map_err(bad)?;
        let layout = Layout::new(self.warehouse.schema.dialect, columns.clone());
        let first = read_page(session, &members, &layout, usize::MAX).await?;
        let explained = match wanted.explained {
            true => Some(explain(session, &tables, &look).await?),
            false => None,
        };
        Ok(Preview {
            funnel,
            first,
            sql: counting.sql,
            explained,
        })
    }

    fn look<'a>(
        &self,
        run: &'a RunFacts,
        columns: &'a [Column],
        key: &'a Column,
        open: &'a [OpenMembers],
    ) -> Look<'a> {
        Look {
            columns,
            key,
            batch_size: run.batch_size,
            campaign: &run.campaign,
            open,
        }
    }

    /// The columns of the campaign's query.
    async fn columns(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<Vec<Column>, WarehouseError> {
        let tables = self.warehouse.tables(run);
        let columns = match self.warehouse.schema.dialect {
            // A view in the connection's own memory knows the declared types.
            Dialect::Sqlite => {
                session.run_all(&tables.probe()).await?;
                let columns = columns(session, &tables.probed_columns()).await?;
                session.run(&tables.drop_probe()).await?;
                columns
            }
            Dialect::Postgres | Dialect::Redshift => session.header(&tables.empty_row()).await?,
        };
        Ok(columns)
    }

    /// The run without what counts contacts, where SQLite's tables have not
    /// been made yet: nobody has been contacted. A server's must be there; if
    /// they are not, the statement that needs them says so.
    async fn as_counted(
        &self,
        session: &mut Session,
        run: &RunFacts,
    ) -> Result<RunFacts, WarehouseError> {
        let mut run = run.clone();
        let needed = ["contact_history", "open_runs"];
        if self.warehouse.schema.dialect == Dialect::Sqlite {
            let what = run.run.as_str();
            let there = self.warehouse.existing(session, what, &needed).await?;
            if there.len() < needed.len() {
                run.policy.frequency_cap.clear();
                run.policy.cooldown_secs = None;
            }
        }
        Ok(run)
    }
}

async fn explain(
    session: &mut Session,
    tables: &RunTables<'_>,
    look: &Look<'_>,
) -> Result<Vec<String>, WarehouseError> {
    let statement = tables.preview(look, Shown::Explained).map_err(bad)?;
    lines(session, &statement).await
}

async fn lines(
    session: &mut Session,
    statement: &Statement,
) -> Result<Vec<String>, WarehouseError> {
    let rows = session.rows(statement).await?;
    let line = |row: Vec<Option<String>>| row.into_iter().next_back().flatten();
    Ok(rows.into_iter().filter_map(line).collect())
}

fn bad_columns(bad: &BadColumns) -> WarehouseError {
    error(WarehouseErrorClass::Statement, bad.to_string())
}

fn bad(bad: crate::audience::BadPolicy) -> WarehouseError {
    match bad {
        crate::audience::BadPolicy::Text(text) => unwritable(text),
        other => error(WarehouseErrorClass::Statement, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_dear_by_its_words_once_each() {
        let plan = |lines: &[&str]| {
            lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>()
        };
        let cheap = plan(&[
            "XN Hash Join DS_DIST_NONE  (cost=1..2)",
            "  ->  XN Seq Scan on a",
        ]);
        assert_eq!(dear(&cheap), [""; 0]);
        let all = plan(&[
            "XN Nested Loop DS_BCAST_INNER  (cost=1..2)",
            "  ->  XN Nested Loop DS_BCAST_INNER  (cost=1..2)",
            "  ->  XN Hash Join DS_DIST_BOTH  (cost=1..2)",
        ]);
        assert_eq!(dear(&all).len(), 3);
    }
}
