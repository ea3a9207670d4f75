//! The rows of members that a cancelled run did not get to.

use super::cells::Cells;
use super::tables::table;
use super::{RunFacts, Unwritable};
use crate::audience::{Schema, Statement};

/// Delivery rows, then history rows, for every one of `members`, the run's
/// table or what stands for it, who has no history: none of them was sent anything, be they a whole batch or
/// what is left of one that was cut. In this order: the other way round would
/// write no deliveries. A second time is a no-op.
pub fn cancelled(
    schema: &Schema,
    facts: &RunFacts,
    members: &str,
    reason: &str,
) -> Result<[Statement; 2], Unwritable> {
    let run = schema.dialect.literal(facts.run.as_str())?;
    let why = schema.dialect.literal(reason)?;
    let destination = schema.dialect.literal(facts.destination.as_str())?;
    let now = schema.dialect.now_in_each();
    let rest = format!(
        "{members} r left join (select distinct profile_id from {history} where run_id = {run}) h \
         on h.profile_id = r.cd_key where h.profile_id is null and r.cd_seq is not null \
         and r.cd_status <> 'suppressed'",
        history = schema.table("contact_history"),
    );
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
        .text(reason)
        .maybe_text(facts.attributes.as_deref())
        .text(&facts.campaign_version)
        .row()?;
    let history = format!(
        "insert into {history} ({columns}) select {before}, r.cd_key, {place}, 'cancelled', {no}, \
         {no}, r.cd_batch, '', null, {about}, null, {now} from {rest}",
        history = schema.table("contact_history"),
        columns = table("contact_history").column_list(),
        no = schema.dialect.boolean(false),
    );
    let deliveries = format!(
        "insert into {deliveries} ({columns}) select {run}, r.cd_batch, '', null, {destination}, \
         'cancelled', count(*), 0, 0, null, null, {now}, {why} from {rest} group by r.cd_batch",
        deliveries = schema.table("deliveries"),
        columns = table("deliveries").column_list(),
    );
    let statement = |sql: &str| Statement::new("cancel", facts.run.as_str(), sql);
    Ok([statement(&deliveries), statement(&history)])
}
