//! Members whose run's table is in another warehouse than history: their keys
//! are carried there, a temporary row each, and history is joined from these.

use super::cells::Cells;
use super::{BatchOutcome, RunFacts, Unwritable};
use crate::audience::{Schema, Statement, TableNames};
use crate::id::{ConnectorName, RunId};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const STEP: &str = "carry";

/// Keys that are read at a time, and that one `insert` carries: 5,000 rows of
/// at most 256 bytes, each byte escaped, stay below the 16 MB of a Redshift
/// statement, which is fastest with 1,000 to 5,000 rows.
pub const MEMBERS_AT_ONCE: u64 = 5_000;

/// One member on the way.
#[derive(Clone, PartialEq, Eq)]
pub struct CarriedMember {
    /// Who; never to be logged.
    pub key: String,
    /// The place in the run's table.
    pub place: u64,
    /// The batch.
    pub batch: u64,
}

/// What follows the name of a run's table in `open_runs` where the table is
/// not beside it but where the connector `name` reads: only a daemon with that
/// connector can see to the run.
pub fn mark(name: &ConnectorName) -> String {
    let digest = Sha256::digest(name.as_str().as_bytes());
    let mut mark = "@".to_owned();
    for byte in &digest[..8] {
        write!(mark, "{byte:02x}").expect("writing to a string cannot fail");
    }
    mark
}

/// The first and last places, both inclusive, of the members of `outcomes`, in
/// pieces of at most [`MEMBERS_AT_ONCE`] places, in order and apart.
pub fn places(facts: &RunFacts, outcomes: &[BatchOutcome]) -> Vec<(u64, u64)> {
    let of = |outcome: &BatchOutcome| {
        let whole = places_of_batch(facts, outcome.path.batch);
        outcome.places.unwrap_or(whole)
    };
    in_pieces(outcomes.iter().map(of).collect())
}

/// The same for whole batches.
pub fn places_of_batches(facts: &RunFacts, batches: &[u32]) -> Vec<(u64, u64)> {
    let of = |batch: &u32| places_of_batch(facts, *batch);
    in_pieces(batches.iter().map(of).collect())
}

fn places_of_batch(facts: &RunFacts, batch: u32) -> (u64, u64) {
    facts.cut().places_of(u64::from(batch))
}

fn in_pieces(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    let step = usize::try_from(MEMBERS_AT_ONCE).unwrap_or(usize::MAX);
    let pieces = joined.into_iter().flat_map(|(first, last)| {
        let starts = (first..=last).step_by(step);
        starts.map(move |start| (start, last.min(start + MEMBERS_AT_ONCE - 1)))
    });
    pieces.collect()
}

/// The pieces that are read together: neighbours that span no more places than
/// are read at a time.
pub fn together(pieces: &[(u64, u64)]) -> Vec<&[(u64, u64)]> {
    let mut groups = Vec::new();
    let mut rest = pieces;
    while let Some((first, _)) = rest.first() {
        let within = |(_, last): &(u64, u64)| last - first < MEMBERS_AT_ONCE;
        let (group, others) = rest.split_at(rest.iter().take_while(|p| within(p)).count().max(1));
        groups.push(group);
        rest = others;
    }
    groups
}

/// The keys of the members from `first` to `last`, who are not withheld: key,
/// place and batch a row, out of the run's table.
pub fn keys(schema: &Schema, run: &RunId, first: u64, last: u64) -> Statement {
    let sql = format!(
        "select r.cd_key, r.cd_seq, r.cd_batch from {} r \
         where r.cd_seq between {first} and {last} and r.cd_status <> 'suppressed'",
        schema.table(&TableNames::of(run).run)
    );
    Statement::new(STEP, run.as_str(), &sql)
}

/// Makes the temporary table that members are carried into.
pub fn create() -> Statement {
    let create = "create temp table cd_members (run_id varchar(200), cd_key varchar(256), \
                  cd_status varchar(16), cd_seq bigint, cd_batch int)";
    Statement::new(STEP, "members", create)
}

/// Puts `members` of `run`, at least one, into the temporary table.
pub fn insert(
    schema: &Schema,
    run: &RunId,
    members: &[CarriedMember],
) -> Result<Statement, Unwritable> {
    let row = |member: &CarriedMember| {
        Cells::new(schema.dialect)
            .text(run.as_str())
            .text(&member.key)
            .text("planned")
            .number(member.place)
            .number(member.batch)
            .row()
    };
    let rows = members.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let sql = format!("insert into cd_members values ({})", rows.join("), ("));
    Ok(Statement::new(STEP, run.as_str(), &sql))
}

/// What stands for the table of `run` where its members were carried.
pub fn carried(schema: &Schema, run: &RunId) -> Result<String, Unwritable> {
    Ok(format!(
        "(select m.cd_key, m.cd_status, m.cd_seq, m.cd_batch from cd_members m where m.run_id = {})",
        schema.dialect.literal(run.as_str())?
    ))
}

/// Drops the temporary table.
pub fn drop_carried() -> Statement {
    Statement::new(STEP, "members", "drop table cd_members")
}

/// The other runs whose members are numbered: run id, campaign, channel and
/// the marked name of the run's table a row.
pub fn admitted_runs(schema: &Schema, run: &RunFacts) -> Result<Statement, Unwritable> {
    let sql = format!(
        "select run_id, campaign, channel, run_table from {} where state = '{}' and run_id <> {}",
        schema.table("open_runs"),
        super::register::ADMITTED,
        schema.dialect.literal(run.run.as_str())?
    );
    Ok(Statement::new("look", run.run.as_str(), &sql))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mark_fits_behind_the_name_of_a_table() {
        let mark = mark(&"consumer".parse().unwrap());
        assert_eq!(mark.len(), 17);
        let run: RunId = "a@20261122T140000Z".parse().unwrap();
        assert!(TableNames::of(&run).run.len() + mark.len() <= 64);
    }

    proptest! {
        #[test]
        fn pieces_are_small_and_hold_each_place_once(
            ranges in prop::collection::vec((1u64..30_000, 0u64..12_000), 0..12)
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(a, n)| (a, a + n)).collect();
            let pieces = in_pieces(ranges.clone());
            for (first, last) in &pieces {
                prop_assert!(first <= last && last - first < MEMBERS_AT_ONCE);
            }
            for pair in pieces.windows(2) {
                prop_assert!(pair[0].1 < pair[1].0);
            }
            let groups = together(&pieces);
            prop_assert_eq!(groups.concat(), pieces.clone());
            for group in groups {
                let (first, last) = (group[0].0, group[group.len() - 1].1);
                prop_assert!(last - first < MEMBERS_AT_ONCE);
            }
            for place in (1..45_000).step_by(7) {
                let within = |all: &[(u64, u64)]| all.iter().any(|(a, b)| (*a..=*b).contains(&place));
                prop_assert_eq!(within(&ranges), within(&pieces));
            }
        }
    }
}
