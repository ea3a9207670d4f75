//! How often somebody has been contacted, by whomever: frequency caps and
//! cooldown.

use super::policy::Policy;
use super::{BadText, Dialect, Schema};
use crate::id::{CampaignName, RunId};
use serde::{Deserialize, Serialize};

/// How long after a contact its row can have been recorded by a clock that
/// goes behind, in seconds. Older rows are not looked at: Redshift finds rows
/// by when they were recorded.
const CLOCKS_APART: u64 = 86_400;

/// At most so many contacts within so long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrequencyCap {
    /// At least 1.
    pub contacts: u32,
    /// In seconds, by when a contact was attempted.
    pub within_secs: u64,
    /// The contacts that count; none for those of all channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// Where the planned members of a run under way are: each counts as contacted
/// now, since it is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenMembers {
    /// The table that has them.
    pub table: String,
    /// Its run's campaign.
    pub campaign: String,
    /// How they are reached.
    pub channel: String,
}

/// Contacts that are counted in a relation which shows another warehouse's
/// history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownContacts {
    /// The relation, with the columns of `contact_history`.
    pub relation: String,
    /// The runs whose rows are left out, since their planned members count.
    pub under_way: Vec<RunId>,
}

/// One number counted for each member, and from which on it withholds.
struct Count {
    column: String,
    status: &'static str,
    least: u32,
    within_secs: u64,
    /// The column of history, and of [`OpenMembers`], that a contact has to
    /// agree in, and with what.
    only: Option<(&'static str, String)>,
}

impl Count {
    fn takes(&self, open: &OpenMembers) -> bool {
        match &self.only {
            None => true,
            Some(("campaign", campaign)) => open.campaign == *campaign,
            Some((_, channel)) => open.channel == *channel,
        }
    }
}

/// What the caps of a policy add to the statement that admits.
pub(super) struct Counted {
    /// The join that brings the counts, as `k`, to the members `s`.
    pub(super) join: String,
    /// The arms of a `case` that name the reason.
    pub(super) arms: String,
}

impl Policy {
    fn counts(&self, campaign: &CampaignName) -> Vec<Count> {
        let caps = self.frequency_cap.iter().enumerate();
        let caps = caps.map(|(index, cap)| Count {
            column: format!("cd_cap_{}", index + 1),
            status: "capped",
            least: cap.contacts,
            within_secs: cap.within_secs,
            only: cap.channel.clone().map(|channel| ("channel", channel)),
        });
        let cooldown = self.cooldown_secs.map(|within_secs| Count {
            column: "cd_cooldown".to_owned(),
            status: "cooling_down",
            least: 1,
            within_secs,
            only: Some(("campaign", campaign.to_string())),
        });
        caps.chain(cooldown).collect()
    }

    /// Counts the contacts in the history of runs that have ended and the
    /// planned members of the others, `open`. What history has of an open run
    /// is among the latter.
    pub(super) fn counted(
        &self,
        schema: &Schema,
        campaign: &CampaignName,
        open: &[OpenMembers],
        shown: Option<&ShownContacts>,
    ) -> Result<Counted, BadText> {
        let counts = self.counts(campaign);
        let Some(longest) = counts.iter().map(|count| count.within_secs).max() else {
            let (join, arms) = (String::new(), String::new());
            return Ok(Counted { join, arms });
        };
        let mut parts = vec![history(schema, &counts, longest, shown)?];
        parts.extend(open.iter().filter_map(|run| planned(schema, &counts, run)));
        let sums = listed(&counts, |c| format!("sum(e.{0}) as {0}", c.column));
        let join = format!(
            " left join (select e.cd_key, {sums} from ({}) as e group by e.cd_key) as k \
             on k.cd_key = s.cd_key",
            parts.join(" union all "),
        );
        let arm = |c: &Count| format!("when k.{} >= {} then '{}' ", c.column, c.least, c.status);
        let arms = counts.iter().map(arm).collect();
        Ok(Counted { join, arms })
    }
}

fn history(
    schema: &Schema,
    counts: &[Count],
    longest: u64,
    shown: Option<&ShownContacts>,
) -> Result<String, BadText> {
    let dialect = schema.dialect;
    // An attempt whose time was lost counts from when it was recorded.
    let contacted = "coalesce(h.contacted_at, h.recorded_at)";
    let mut columns = Vec::with_capacity(counts.len());
    for count in counts {
        let only = match &count.only {
            None => String::new(),
            Some((column, value)) => format!(" and h.{column} = {}", dialect.literal(value)?),
        };
        columns.push(format!(
            "case when {contacted} > {}{only} then 1 else 0 end as {}",
            dialect.ago(count.within_secs),
            count.column
        ));
    }
    let (from, of_ended_runs) = match shown {
        None => (
            format!(
                "{} h left join {} o on o.run_id = h.run_id",
                schema.table("contact_history"),
                schema.table("open_runs")
            ),
            "o.run_id is null and ".to_owned(),
        ),
        Some(shown) => (format!("{} h", shown.relation), shown.ended_runs(dialect)?),
    };
    Ok(format!(
        "select h.profile_id as cd_key, {} from {from} \
         where {of_ended_runs}h.counts_as_contact = {} and h.recorded_at > {}",
        columns.join(", "),
        dialect.boolean(true),
        dialect.ago(longest + CLOCKS_APART),
    ))
}

impl ShownContacts {
    /// The condition that leaves out the runs under way.
    fn ended_runs(&self, dialect: Dialect) -> Result<String, BadText> {
        let runs = self.under_way.iter();
        let runs = runs.map(|run| dialect.literal(run.as_str()));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        Ok(match runs.is_empty() {
            true => String::new(),
            false => format!("h.run_id not in ({}) and ", runs.join(", ")),
        })
    }
}

/// Nothing where no count takes the run.
fn planned(schema: &Schema, counts: &[Count], open: &OpenMembers) -> Option<String> {
    if !counts.iter().any(|count| count.takes(open)) {
        return None;
    }
    let ones = listed(counts, |count| {
        format!("{} as {}", u8::from(count.takes(open)), count.column)
    });
    Some(format!(
        "select r.cd_key, {ones} from {} r where r.cd_status in ('planned', 'ok')",
        schema.table(&open.table)
    ))
}

fn listed(counts: &[Count], one: impl Fn(&Count) -> String) -> String {
    counts.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Dialect {
    /// The warehouse's own clock `secs` seconds ago, UTC, as a value of a
    /// `timestamp` column.
    fn ago(self, secs: u64) -> String {
        match self {
            Self::Sqlite => {
                format!("(strftime('%Y-%m-%d %H:%M:%f', 'now', '-{secs} seconds') || '000')")
            }
            Self::Postgres => format!("({} - interval '{secs} seconds')", self.now()),
            Self::Redshift => format!("dateadd(second, -{secs}, {})", self.now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::{AudienceSpec, Column, Holdout, OrderBy, RunTables};
    use crate::id::RunId;

    fn policy() -> Policy {
        Policy {
            frequency_cap: vec![FrequencyCap {
                contacts: 2,
                within_secs: 7 * 86_400,
                channel: Some("e'mail".to_owned()),
            }],
            cooldown_secs: Some(86_400),
            holdout: Some(Holdout {
                basis_points: 1_000,
                salt: "spring".to_owned(),
            }),
            limit: Some(10),
            order_by: vec![OrderBy {
                column: "spent".to_owned(),
                descending: true,
            }],
        }
    }

    fn open(campaign: &str, channel: &str) -> OpenMembers {
        OpenMembers {
            table: format!("run_{campaign}"),
            campaign: campaign.to_owned(),
            channel: channel.to_owned(),
        }
    }

    /// The statements that freeze and admit under [`policy`].
    fn statements(dialect: Dialect) -> Vec<String> {
        let schema = Schema {
            dialect,
            name: "campaignd".to_owned(),
        };
        let run: RunId = "winback@20261122T140000Z".parse().unwrap();
        let audience = AudienceSpec {
            key: "id".to_owned(),
            sql: "select id, spent from people".to_owned(),
        };
        let policy = policy();
        let tables = RunTables::new(&schema, &run, &audience).under(&policy);
        let columns = ["id", "spent"].map(|name| Column {
            name: name.to_owned(),
            type_name: "1043".to_owned(),
        });
        let mut script = tables.freeze(&columns, &columns[0], 500).unwrap();
        let others = [open("winback", "sms"), open("digest", "e'mail")];
        let none = [open("other", "push")];
        let campaign = "winback".parse().unwrap();
        let others = [&others[..], &none[..]].concat();
        script.push(tables.admit(&campaign, &others).unwrap());
        script.into_iter().map(|statement| statement.sql).collect()
    }

    #[test]
    fn redshift_is_asked_nothing_that_it_refuses() {
        for sql in statements(Dialect::Redshift) {
            let (_, sql) = sql.split_once("*/").unwrap();
            let read = sqlparser::parser::Parser::parse_sql(
                &sqlparser::dialect::RedshiftSqlDialect {},
                &sql.replace("diststyle even compound sortkey (cd_seq)", ""),
            );
            assert!(read.is_ok(), "{read:?}: {sql}");
            for refused in [
                "nulls last",
                "distinct from",
                "array",
                "::",
                "interval",
                "exists",
            ] {
                assert!(!sql.to_lowercase().contains(refused), "{refused}: {sql}");
            }
        }
    }

    #[test]
    fn contacts_that_a_relation_shows_are_counted_without_those_of_runs_under_way() {
        let schema = Schema {
            dialect: Dialect::Redshift,
            name: "campaignd".to_owned(),
        };
        let shown = ShownContacts {
            relation: "share.contact_history".to_owned(),
            under_way: vec!["other@20261122T140000Z".parse().unwrap()],
        };
        let campaign = "winback".parse().unwrap();
        let counted = policy().counted(&schema, &campaign, &[], Some(&shown));
        let join = counted.unwrap().join;
        assert!(join.contains(
            "from share.contact_history h where h.run_id not in ('other@20261122T140000Z') and"
        ));
        assert!(!join.contains("open_runs"));
    }

    #[test]
    fn members_of_an_open_run_count_where_channel_or_campaign_agree() {
        let admit = statements(Dialect::Postgres).pop().unwrap();
        let of = |table: &str| admit.split(" union all ").find(|part| part.contains(table));
        assert!(
            of("run_winback")
                .unwrap()
                .contains("0 as cd_cap_1, 1 as cd_cooldown")
        );
        assert!(
            of("run_digest")
                .unwrap()
                .contains("1 as cd_cap_1, 0 as cd_cooldown")
        );
        assert_eq!(of("run_other"), None);
        assert!(admit.contains("h.channel = 'e''mail'"));
    }
}
