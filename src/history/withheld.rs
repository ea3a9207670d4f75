//! Members of a run who are not contacted after all, and the rows that say so.

use super::cells::Cells;
use super::tables::table;
use super::{RunFacts, Unwritable};
use crate::audience::{Schema, Statement, TableNames};
use std::ops::Range;

/// The statuses of withheld members, and what history says of each.
const WITHHELD: [(&str, &str); 5] = [
    ("suppressed", "on a suppression list"),
    ("held_out", "held out to measure the effect"),
    ("capped", "contacted as often as a frequency cap allows"),
    (
        "cooling_down",
        "contacted by this campaign within its cooldown",
    ),
    ("over_limit", "beyond the limit of members a run"),
];

/// The members of a run who were numbered and then withheld.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Withheld {
    /// How many members were numbered.
    pub places: u64,
    /// The places of those withheld since, in order.
    pub members: Vec<u64>,
}

impl Withheld {
    /// How many are withheld among the places of `range`.
    pub fn among(&self, range: Range<u64>) -> u64 {
        let before = |place: u64| self.members.partition_point(|&member| member < place);
        (before(range.end) - before(range.start).min(before(range.end))) as u64
    }
}

/// One history row for each withheld member of the run's table who has none.
pub fn withheld_history(schema: &Schema, facts: &RunFacts) -> Result<Statement, Unwritable> {
    let run = schema.dialect.literal(facts.run.as_str())?;
    let before = Cells::new(schema.dialect)
        .text(facts.run.as_str())
        .text(facts.campaign.as_str())
        .instant(facts.fire_time)
        .row()?;
    let place = Cells::new(schema.dialect)
        .text(facts.destination.as_str())
        .text(&facts.channel)
        .row()?;
    let about = Cells::new(schema.dialect)
        .maybe_text(facts.attributes.as_deref())
        .text(&facts.campaign_version)
        .row()?;
    let reasons = WITHHELD.map(|(status, reason)| format!("when '{status}' then '{reason}'"));
    let statuses = WITHHELD.map(|(status, _)| format!("'{status}'"));
    let sql = format!(
        "insert into {history} ({columns}) \
         select {before}, r.cd_key, {place}, r.cd_status, {no}, {no}, null, null, null, \
         case r.cd_status {reasons} end, {about}, null, {now} from {members} r left join \
         (select distinct profile_id from {history} where run_id = {run}) h \
         on h.profile_id = r.cd_key where r.cd_status in ({statuses}) and h.profile_id is null",
        reasons = reasons.join(" "),
        statuses = statuses.join(", "),
        history = schema.table("contact_history"),
        columns = table("contact_history").column_list(),
        no = schema.dialect.boolean(false),
        now = schema.dialect.now_in_each(),
        members = schema.table(&TableNames::of(&facts.run).run),
    );
    Ok(Statement::new("close", facts.run.as_str(), &sql))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn withheld_members_are_counted_by_their_places() {
        let withheld = Withheld {
            places: 10,
            members: vec![2, 3, 9],
        };
        assert_eq!(withheld.among(1..11), 3);
        assert_eq!(withheld.among(3..9), 1);
        assert_eq!(withheld.among(4..9), 0);
        assert_eq!(withheld.among(5..5), 0);
    }
}
