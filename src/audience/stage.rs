//! The statements of a run's own tables: freeze, admit, lay out, page.

use super::caps::{OpenMembers, ShownContacts};
use super::columns::Column;
use super::cut::Cut;
use super::limit::BadPolicy;
use super::policy::{NONE, Policy};
use super::quote::identifier;
use super::suppress::{key_text, untrimmed};
use super::{AudienceSpec, BadText, Dialect, Schema, Statement, TableNames};
use crate::id::{CampaignName, RunId};

/// The longest member key, in bytes: the width of `profile_id`.
const MAX_KEY_BYTES: u32 = 256;

/// The locks that PostgreSQL takes on what is written or changed, as it calls
/// them; reading takes others.
const WRITES: &str = "'RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', \
    'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'";

/// The number of the first relation that is not PostgreSQL's own.
const FIRST_OF_USERS: u32 = 16_384;

/// The statements about one run's tables.
#[derive(Debug, Clone, Copy)]
pub struct RunTables<'a> {
    pub(super) schema: &'a Schema,
    run: &'a RunId,
    audience: &'a AudienceSpec,
    pub(super) suppress: &'a [String],
    policy: &'a Policy,
    shown: Option<&'a ShownContacts>,
}

impl<'a> RunTables<'a> {
    /// Of `run`, whose audience is `audience`.
    pub fn new(schema: &'a Schema, run: &'a RunId, audience: &'a AudienceSpec) -> Self {
        Self {
            schema,
            run,
            audience,
            suppress: &[],
            policy: &NONE,
            shown: None,
        }
    }

    /// The same without the members of the relations `suppress`.
    #[must_use]
    pub fn without(self, suppress: &'a [String]) -> Self {
        Self { suppress, ..self }
    }

    /// The same under `policy`.
    #[must_use]
    pub fn under(self, policy: &'a Policy) -> Self {
        Self { policy, ..self }
    }

    /// The same with contacts counted where `shown`, if that is elsewhere.
    #[must_use]
    pub fn counting(self, shown: Option<&'a ShownContacts>) -> Self {
        Self { shown, ..self }
    }

    pub(super) fn names(&self) -> TableNames {
        TableNames::of(self.run)
    }

    pub(super) fn statement(&self, step: &str, sql: &str) -> Statement {
        Statement::new(step, self.run.as_str(), sql)
    }

    pub(super) fn around(&self, step: &str, before: &str, after: &str) -> Statement {
        let sql = super::reading::without_semicolon(&self.audience.sql, self.schema.dialect);
        Statement::around(step, self.run.as_str(), [before, &sql, after])
    }

    /// Makes the probe, which costs next to nothing: no row is read. SQLite
    /// looks into a view only later, so the query is tried by itself first.
    pub fn probe(&self) -> Vec<Statement> {
        match self.schema.dialect {
            Dialect::Sqlite => vec![
                self.around("probe", "select 1 from (", ") as q where 0"),
                self.around("probe", "create temp view cd_probe as", ""),
            ],
            Dialect::Postgres | Dialect::Redshift => vec![self.around(
                "probe",
                "create temp table cd_probe as select q.* from (",
                ") as q where 1 = 0",
            )],
        }
    }

    /// The probe's columns, as [`Schema::columns_of`] gives them.
    pub fn probed_columns(&self) -> Statement {
        let sql = match self.schema.dialect {
            Dialect::Sqlite => "select name, type from pragma_table_info('cd_probe')",
            Dialect::Postgres | Dialect::Redshift => {
                "select a.attname, a.atttypid from pg_attribute a join pg_class c \
                 on c.oid = a.attrelid where c.relname = 'cd_probe' \
                 and pg_table_is_visible(c.oid) \
                 and a.attnum > 0 and not a.attisdropped order by a.attnum"
            }
        };
        self.statement("probe", sql)
    }

    /// Drops the probe.
    pub fn drop_probe(&self) -> Statement {
        let sql = match self.schema.dialect {
            Dialect::Sqlite => "drop view temp.cd_probe",
            Dialect::Postgres | Dialect::Redshift => "drop table cd_probe",
        };
        self.statement("probe", sql)
    }

    /// Freezes the audience: every row with its key, its status and its place
    /// in the order of the keys, in which it is written. Where every row is
    /// `ok` the places are those of the members to be sent. One statement
    /// where one can carry the types, else one transaction: the stage table is
    /// there complete or not at all.
    ///
    /// A status is given its width: Redshift makes a column that comes from
    /// literals as wide as the longest of them, and refuses a longer one later.
    pub fn freeze(
        &self,
        columns: &[Column],
        key: &Column,
        batches: impl Into<Cut>,
    ) -> Result<Vec<Statement>, BadPolicy> {
        let stage = self.schema.table(&self.names().stage);
        let order_type = match self.policy.keeps_order() {
            true => ", cd_order integer",
            false => "",
        };
        let (select, after) = self.frozen_rows(columns, key, batches.into())?;
        Ok(match self.schema.dialect {
            Dialect::Sqlite => {
                let create = format!(
                    "create table {stage} ({}, cd_key text, cd_status text, cd_seq integer, cd_batch integer{order_type})",
                    declared(columns),
                );
                let insert = format!("insert into {stage} {select}");
                let mut script = self.schema.begin(self.run.as_str(), None);
                script.push(self.statement("freeze", &create));
                script.push(self.around("freeze", &insert, &after));
                script.push(self.schema.commit(self.run.as_str()));
                script
            }
            Dialect::Postgres | Dialect::Redshift => {
                let create = format!("create table {stage}{} as {select}", self.sorted());
                vec![self.around("freeze", &create, &after)]
            }
        })
    }

    /// The two sides of the campaign's SQL that make it the rows of the stage.
    pub(super) fn frozen_rows(
        &self,
        columns: &[Column],
        key: &Column,
        batches: Cut,
    ) -> Result<(String, String), BadPolicy> {
        let (join, arm) = self.suppression(key);
        let held_out = match &self.policy.holdout {
            None => String::new(),
            Some(holdout) => {
                let condition = holdout.condition(self.schema.dialect, "x.cd_key")?;
                format!("when {condition} then 'held_out' ")
            }
        };
        let order = match self.policy.keeps_order() {
            true => ", x.cd_order",
            false => "",
        };
        let (before, after) = self.placed_rows(columns, key, &join)?;
        let select = format!(
            "select {}, x.cd_key, cast(case when x.{} is null then 'no_key' \
             when x.cd_key is null then 'bad_key' when x.cd_key = x.cd_before then 'duplicate' \
             {arm}{held_out}else 'ok' end as varchar(16)) as cd_status, x.cd_seq, {} as cd_batch{order} from (",
            listed(columns, "x."),
            identifier(&key.name),
            self.batch_of("x.cd_seq", batches),
        );
        Ok((format!("{select}{before}"), after))
    }

    /// The two sides of the campaign's SQL that give each row its key, the key
    /// of the row before it and its place. A key that is too long is none: its
    /// column tells it from one that was not there; most are short enough
    /// before they are trimmed, and are then trimmed once. Both windows are the same,
    /// so that the rows are sorted once. A limit that is taken in another order
    /// has that order's places, as `cd_order`: sorted here, outside the lock.
    fn placed_rows(
        &self,
        columns: &[Column],
        key: &Column,
        join: &str,
    ) -> Result<(String, String), BadPolicy> {
        let key = format!("q.{}", identifier(&key.name));
        let dialect = self.schema.dialect;
        let text = key_text(dialect, &key);
        let fits = |text: &str| match dialect {
            Dialect::Sqlite => format!("length(cast({text} as blob)) <= {MAX_KEY_BYTES}"),
            Dialect::Postgres | Dialect::Redshift => {
                format!("octet_length({text}) <= {MAX_KEY_BYTES}")
            }
        };
        let fits = format!("{} or {}", fits(&untrimmed(dialect, &key)), fits(&text));
        let chosen = self.policy.order_terms(dialect, columns, "k")?;
        let first = match self.policy.keeps_order() {
            true => format!(
                ", row_number() over (order by {}, k.cd_key) as cd_order",
                chosen.join(", ")
            ),
            false => String::new(),
        };
        let all = columns
            .iter()
            .filter_map(|column| column.order_term(dialect, "k"));
        let order = chosen
            .into_iter()
            .chain(all)
            .fold("order by k.cd_key".to_owned(), |order, term| {
                format!("{order}, {term}")
            });
        let before = format!(
            "select k.*, lag(k.cd_key) over ({order}) as cd_before, \
             row_number() over ({order}) as cd_seq{first} from (\
             select {columns}, case when {fits} then {text} end as cd_key from (",
            columns = listed(columns, "q."),
        );
        // By the key, not by the place: the planner knows that the rows are in
        // this order already, and does not sort them again.
        Ok((
            before,
            format!(") as q) as k) as x{join} order by x.cd_key"),
        ))
    }

    fn batch_of(&self, place: &str, batches: Cut) -> String {
        let integer = match self.schema.dialect {
            Dialect::Sqlite => "integer",
            Dialect::Postgres | Dialect::Redshift => "int",
        };
        batches.sql(place, integer)
    }

    /// How Redshift keeps members in the order they are sent.
    fn sorted(&self) -> &'static str {
        match self.schema.dialect {
            Dialect::Redshift => " diststyle even compound sortkey (cd_seq)",
            Dialect::Sqlite | Dialect::Postgres => "",
        }
    }

    /// What the transaction that has just made the stage holds a lock on as who
    /// writes, beside the stage: the name of one such relation, if there is
    /// one. A function that a query calls may write on PostgreSQL, and then
    /// holds the lock to the end; on Redshift and SQLite none can.
    pub fn written_beside(&self) -> Option<Statement> {
        if self.schema.dialect != Dialect::Postgres {
            return None;
        }
        let sql = format!(
            "select coalesce(n.nspname || '.' || c.relname, 'a relation that is gone') \
             from pg_locks l left join pg_class c on c.oid = l.relation \
             left join pg_namespace n on n.oid = c.relnamespace \
             where l.locktype = 'relation' and l.pid = pg_backend_pid() \
             and l.mode in ({WRITES}) \
             and l.relation >= {FIRST_OF_USERS} and coalesce(n.nspname, '') <> 'pg_toast' \
             and (n.nspname is null or n.nspname <> {} or c.relname <> '{}') order by 1 limit 1",
            self.schema.name_literal(),
            self.names().stage,
        );
        Some(self.statement("look", &sql))
    }

    /// Counts the frozen rows: a status and its count a row.
    pub fn count_stage(&self) -> Statement {
        let stage = self.schema.table(&self.names().stage);
        let sql = format!("select cd_status, count(*) from {stage} group by cd_status");
        self.statement("count", &sql)
    }

    /// Decides who of the frozen members `campaign` contacts, and numbers them
    /// from 1 without a gap; the others keep the reason. `open` are the runs
    /// under way whose members count as contacted.
    pub fn admit(
        &self,
        campaign: &CampaignName,
        open: &[OpenMembers],
    ) -> Result<Statement, BadText> {
        let names = self.names();
        let rows = self.admitted_rows(campaign, open, &self.schema.table(&names.stage))?;
        let sql = format!("create table {} as {rows}", self.schema.table(&names.admit));
        Ok(self.statement("admit", &sql))
    }

    /// What becomes of the members of `stage`: key, status and place.
    pub(super) fn admitted_rows(
        &self,
        campaign: &CampaignName,
        open: &[OpenMembers],
        stage: &str,
    ) -> Result<String, BadText> {
        let counted = self
            .policy
            .counted(self.schema, campaign, open, self.shown)?;
        let verdict = match counted.arms.as_str() {
            "" => "'planned'".to_owned(),
            arms => format!("case {arms}else 'planned' end"),
        };
        let (over, within) = match self.policy.limit {
            None => (String::new(), String::new()),
            Some(limit) => (
                format!("when c.cd_rank > {limit} then 'over_limit' "),
                format!(" and c.cd_rank <= {limit}"),
            ),
        };
        let place = match self.policy.keeps_order() {
            true => "s.cd_order",
            false => "s.cd_seq",
        };
        Ok(format!(
            "select c.cd_key, cast(case when c.cd_verdict <> 'planned' \
             then c.cd_verdict {over}else 'planned' end as varchar(16)) as cd_status, \
             case when c.cd_verdict = 'planned'{within} then c.cd_rank end as cd_seq from (\
             select v.cd_key, v.cd_verdict, row_number() over \
             (partition by v.cd_verdict order by v.cd_place) as cd_rank from (\
             select s.cd_key, {place} as cd_place, {verdict} as cd_verdict \
             from {stage} s{} where s.cd_status = 'ok') as v) as c",
            counted.join,
        ))
    }

    /// Counts the admitted rows: a status and its count a row.
    pub fn count_admitted(&self) -> Statement {
        let admit = self.schema.table(&self.names().admit);
        let sql = format!("select cd_status, count(*) from {admit} group by cd_status");
        self.statement("count", &sql)
    }

    /// The run table where every row of the stage is planned: the stage under
    /// its new name, since it is written in the order of its places. One
    /// transaction, as [`RunTables::lay_out_admitted`].
    pub fn lay_out_all(&self) -> Vec<Statement> {
        let names = self.names();
        let rename = format!(
            "alter table {} rename to {}",
            self.schema.table(&names.stage),
            identifier(&names.run),
        );
        self.laid_out(vec![rename])
    }

    /// The run table where somebody is left out: the admitted rows, written in
    /// the order they are sent; the tables it comes from are dropped. One
    /// transaction: where the run table is, it is complete, and the others are
    /// not needed any more.
    pub fn lay_out_admitted(&self, columns: &[Column], batches: impl Into<Cut>) -> Vec<Statement> {
        let names = self.names();
        let run = self.schema.table(&names.run);
        let select = format!(
            "select {}, a.cd_key, a.cd_status, a.cd_seq, {} as cd_batch from {} s join {} a \
             on a.cd_key = s.cd_key where s.cd_status = 'ok' and a.cd_status = 'planned' order by a.cd_seq",
            listed(columns, "s."),
            self.batch_of("a.cd_seq", batches.into()),
            self.schema.table(&names.stage),
            self.schema.table(&names.admit),
        );
        let mut lines = match self.schema.dialect {
            Dialect::Sqlite => vec![
                format!(
                    "create table {run} ({}, cd_key text, cd_status text, cd_seq integer, cd_batch integer)",
                    declared(columns),
                ),
                format!("insert into {run} {select}"),
            ],
            Dialect::Postgres | Dialect::Redshift => {
                vec![format!("create table {run}{} as {select}", self.sorted())]
            }
        };
        // Who is left out for a reason keeps key and reason, without a place.
        let left_out = [
            (&names.stage, "in ('suppressed', 'held_out')"),
            (&names.admit, "<> 'planned'"),
        ];
        lines.extend(left_out.map(|(table, reasons)| {
            format!(
                "insert into {run} (cd_key, cd_status) select s.cd_key, s.cd_status from {} s \
                 where s.cd_status {reasons}",
                self.schema.table(table),
            )
        }));
        let sources = [&names.stage, &names.admit];
        lines.extend(sources.map(|table| format!("drop table {}", self.schema.table(table))));
        self.laid_out(lines)
    }

    /// `lines` and what finds a member by its place, in one transaction.
    fn laid_out(&self, mut lines: Vec<String>) -> Vec<Statement> {
        let names = self.names();
        let run = self.schema.table(&names.run);
        match self.schema.dialect {
            Dialect::Sqlite => lines.push(format!(
                "create index {} on {run} (cd_seq)",
                identifier(&format!("{}_by_cd_seq", names.run)),
            )),
            Dialect::Postgres => lines.extend([
                format!("create index on {run} using brin (cd_seq) with (pages_per_range = 32)"),
                // What is sampled lies in order and is spread evenly: few rows
                // tell as much as the usual hundred times as many.
                "set local default_statistics_target = 10".to_owned(),
                format!("analyze {run} (cd_seq, cd_batch)"),
            ]),
            Dialect::Redshift => {}
        }
        let mut script = self.schema.begin(self.run.as_str(), None);
        script.extend(lines.iter().map(|sql| self.statement("lay out", sql)));
        script.push(self.schema.commit(self.run.as_str()));
        script
    }

    /// The planned members from `first` to `last`, both inclusive, in order.
    pub fn page(&self, columns: &[Column], first: u64, last: u64) -> Statement {
        let select = self.members(&listed(columns, "r."), first, last);
        self.statement("page", &format!("{select} order by r.cd_seq"))
    }

    /// The same as they lie, each with its place as the last column; none
    /// where nothing is won by it. PostgreSQL keeps the order in which they
    /// were written, and to sort them again is a third of the statement; but
    /// it promises none, so the places are to be looked at.
    pub fn page_as_it_lies(&self, columns: &[Column], first: u64, last: u64) -> Option<Statement> {
        let listed = format!("{}, r.cd_seq", listed(columns, "r."));
        let select = || self.statement("page", &self.members(&listed, first, last));
        (self.schema.dialect == Dialect::Postgres).then(select)
    }

    fn members(&self, listed: &str, first: u64, last: u64) -> String {
        format!(
            "select {listed} from {} r where r.cd_seq between {first} and {last}{}",
            self.schema.table(&self.names().run),
            match self.suppress {
                [] => "",
                _ => " and r.cd_status <> 'suppressed'",
            },
        )
    }
}

/// The columns as SQLite declares them.
fn declared(columns: &[Column]) -> String {
    let declared: Vec<String> = columns.iter().map(Column::declaration).collect();
    declared.join(", ")
}

/// The columns behind `row`, in order.
pub(super) fn listed(columns: &[Column], row: &str) -> String {
    let names = columns
        .iter()
        .map(|c| format!("{row}{}", identifier(&c.name)));
    names.collect::<Vec<_>>().join(", ")
}
