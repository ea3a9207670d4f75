//! What a run would do, asked by one `select` that writes nothing.

use super::caps::OpenMembers;
use super::columns::Column;
use super::limit::BadPolicy;
use super::stage::{RunTables, listed};
use super::suppress::key_text;
use super::{Dialect, Statement};
use crate::id::CampaignName;

/// What is asked of the members a run would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// How many fall out where: a status and its count a row.
    Funnel,
    /// How the warehouse would find that out: a line a row, the text last.
    Explained,
    /// The first so many members, in the order they would be sent.
    Members(u32),
}

/// What a run would be made of, as the warehouse has it now.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The columns of the campaign's query.
    pub columns: &'a [Column],
    /// That of the key.
    pub key: &'a Column,
    /// Members in a batch.
    pub batch_size: u32,
    /// The campaign.
    pub campaign: &'a CampaignName,
    /// The runs under way, whose members count as contacted.
    pub open: &'a [OpenMembers],
}

impl RunTables<'_> {
    /// Asks what freezing and admitting would come to. The rows are those of
    /// [`RunTables::freeze`] and [`RunTables::admit`], under names that last as
    /// long as the statement.
    pub fn preview(&self, look: &Look, shown: Shown) -> Result<Statement, BadPolicy> {
        let (frozen, after) = self.frozen_rows(look.columns, look.key, look.batch_size.into())?;
        let admitted = self.admitted_rows(look.campaign, look.open, "cd_stage")?;
        let asked = match shown {
            Shown::Funnel | Shown::Explained => {
                "select f.cd_status, count(*) from (select s.cd_status from cd_stage s \
                 where s.cd_status <> 'ok' union all select a.cd_status from cd_admit a) as f \
                 group by f.cd_status"
                    .to_owned()
            }
            Shown::Members(first) => format!(
                "select {} from cd_stage s join cd_admit a on a.cd_key = s.cd_key \
                 where s.cd_status = 'ok' and a.cd_status = 'planned' and a.cd_seq <= {first} \
                 order by a.cd_seq",
                listed(look.columns, "s."),
            ),
        };
        let explain = match (shown, self.schema.dialect) {
            (Shown::Explained, Dialect::Sqlite) => "explain query plan ",
            (Shown::Explained, Dialect::Postgres | Dialect::Redshift) => "explain ",
            _ => "",
        };
        Ok(self.around(
            "plan",
            &format!("{explain}with cd_stage as ({frozen}"),
            &format!("{after}), cd_admit as ({admitted}) {asked}"),
        ))
    }

    /// Counts the rows that the campaign's query returns.
    pub fn count_audience(&self) -> Statement {
        self.around("count", "select count(*) from (", ") as q")
    }

    /// One row without a value, which has the columns of the campaign's query:
    /// no row of it is read, and nothing is made.
    pub fn empty_row(&self) -> Statement {
        self.around(
            "look",
            "select q.* from (select 1 as cd_one) as o left join (select r.* from (",
            ") as r where 1 = 0) as q on 1 = 1",
        )
    }

    /// Asks the suppressed members of `relation` for their key and gets none:
    /// an error where the relation or its column is not there.
    pub fn try_suppression(&self, relation: &str, key: &Column) -> Statement {
        let value = format!("q.{}", super::identifier(&key.name));
        let sql = format!(
            "select {} from {relation} q where 1 = 0",
            key_text(self.schema.dialect, &value)
        );
        self.statement("look", &sql)
    }
}
