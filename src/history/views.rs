//! The views for BI over what the daemon writes.

use super::tables::day_of;
use crate::audience::{Dialect, Schema, Statement};
use std::fmt::Display;
use std::str::FromStr;

/// What became of members, by campaign, channel and day.
pub const CONTACT_PERFORMANCE: &str = "contact_performance";

/// Outcome rates of the contacted against the held out.
pub const HOLDOUT_LIFT: &str = "holdout_lift";

/// For how long after a fire time a conversion counts, in days.
const LIFT_DAYS: u32 = 30;

/// The statuses that [`CONTACT_PERFORMANCE`] counts, each a column.
const STATUSES: [&str; 10] = [
    "delivered",
    "rejected",
    "failed",
    "unknown",
    "cancelled",
    "suppressed",
    "held_out",
    "capped",
    "cooling_down",
    "over_limit",
];

/// The relation that says who did what campaigns are for: a row a conversion,
/// with the columns `profile_id` and `converted_at` (a timestamp, UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversions(String);

/// A text that names no relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the conversions must be a table or view by its plain name, as in `shared.conversions`")]
pub struct BadRelation;

impl FromStr for Conversions {
    type Err = BadRelation;

    fn from_str(text: &str) -> Result<Self, BadRelation> {
        let is_name = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            (1..=127).contains(&name.len())
                && name.chars().all(plain)
                && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        match text.split('.').count() <= 3 && text.split('.').all(is_name) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadRelation),
        }
    }
}

/// Whether there is a view of this name: its name, if there is.
pub fn existing_view(schema: &Schema, name: &str) -> Statement {
    let sql = match schema.dialect {
        Dialect::Sqlite => {
            format!("select name from sqlite_master where type = 'view' and name = '{name}'")
        }
        Dialect::Postgres | Dialect::Redshift => format!(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = {} and c.relkind = 'v' and c.relname = '{name}'",
            schema.name_literal()
        ),
    };
    Statement::new("bootstrap", name, &sql)
}

fn create(schema: &Schema, name: &str, select: impl Display) -> Statement {
    let create = match schema.dialect {
        Dialect::Sqlite => "create view if not exists",
        Dialect::Postgres | Dialect::Redshift => "create or replace view",
    };
    let sql = format!("{create} {} as {select}", schema.table(name));
    Statement::new("bootstrap", name, &sql)
}

/// Makes [`CONTACT_PERFORMANCE`]. Days are those of the fire times, UTC.
pub fn contact_performance(schema: &Schema) -> Statement {
    let counts = STATUSES.map(|status| {
        format!("sum(case when h.status = '{status}' then 1 else 0 end) as {status}")
    });
    let day = day_of(schema.dialect, "h.fire_time");
    let select = format!(
        "select h.campaign, h.channel, {day} as day, count(*) as members, \
         sum(case when h.counts_as_contact = {yes} then 1 else 0 end) as contacts, {counts} \
         from {history} h where h.is_test = {no} group by h.campaign, h.channel, {day}",
        yes = schema.dialect.boolean(true),
        no = schema.dialect.boolean(false),
        counts = counts.join(", "),
        history = schema.table("contact_history"),
    );
    create(schema, CONTACT_PERFORMANCE, select)
}

/// Makes [`HOLDOUT_LIFT`]: of each campaign, channel and day with somebody
/// held out, how many of either side converted within 30 days of the fire
/// time, and the difference of the rates.
pub fn holdout_lift(schema: &Schema, conversions: &Conversions) -> Statement {
    let dialect = schema.dialect;
    let (after, before) = match dialect {
        Dialect::Sqlite => (
            "julianday(c.converted_at) >= julianday(h.fire_time)".to_owned(),
            format!("julianday(c.converted_at) < julianday(h.fire_time) + {LIFT_DAYS}"),
        ),
        Dialect::Postgres => (
            "c.converted_at >= h.fire_time".to_owned(),
            format!("c.converted_at < h.fire_time + interval '{LIFT_DAYS} days'"),
        ),
        Dialect::Redshift => (
            "c.converted_at >= h.fire_time".to_owned(),
            format!("c.converted_at < dateadd(day, {LIFT_DAYS}, h.fire_time)"),
        ),
    };
    let sides = format!(
        "select h.campaign, h.channel, {day} as day, h.run_id, h.profile_id, \
         case when h.status = 'held_out' then 1 else 0 end as is_held_out, \
         max(case when c.profile_id is null then 0 else 1 end) as converted \
         from {history} h left join {conversions} c \
         on cast(c.profile_id as varchar(256)) = h.profile_id and {after} and {before} \
         where h.is_test = {no} and (h.status = 'held_out' or h.counts_as_contact = {yes}) \
         group by h.campaign, h.channel, {day}, h.run_id, h.profile_id, h.status",
        day = day_of(dialect, "h.fire_time"),
        history = schema.table("contact_history"),
        conversions = conversions.0,
        yes = dialect.boolean(true),
        no = dialect.boolean(false),
    );
    let rate = |part: &str, of: &str| format!("cast({part} as double precision) / nullif({of}, 0)");
    let contacted = rate("t.contacted_converted", "t.contacted");
    let held_out = rate("t.held_out_converted", "t.held_out");
    let select = format!(
        "select t.campaign, t.channel, t.day, t.contacted, t.contacted_converted, t.held_out, \
         t.held_out_converted, {contacted} as contacted_rate, {held_out} as held_out_rate, \
         {contacted} - {held_out} as lift from (\
         select m.campaign, m.channel, m.day, \
         sum(1 - m.is_held_out) as contacted, \
         sum((1 - m.is_held_out) * m.converted) as contacted_converted, \
         sum(m.is_held_out) as held_out, \
         sum(m.is_held_out * m.converted) as held_out_converted \
         from ({sides}) m group by m.campaign, m.channel, m.day) t where t.held_out > 0"
    );
    create(schema, HOLDOUT_LIFT, select)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_named_plainly() {
        for good in ["conversions", "shared.conversions", "db.shared._c1"] {
            assert!(good.parse::<Conversions>().is_ok(), "{good}");
        }
        for bad in ["", "a.", "a.b.c.d", "a b", "1a", "x;y", "\"a\""] {
            assert_eq!(bad.parse::<Conversions>(), Err(BadRelation), "{bad}");
        }
    }
}
