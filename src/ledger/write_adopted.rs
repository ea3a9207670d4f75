//! Writes a run that was taken over from a lost daemon.

use super::command::Failure;
use super::rows::{self, micros};
use super::trouble::conflict;
use crate::run::Adopted;
use sqlx::SqliteConnection;

const INSERT_RUN: &str = "/* insert adopted run */ \
    insert into runs (run_id, campaign, connector, fire_time, \"trigger\", campaign_version, \
    state, is_open, claimed_at) values (?1, ?2, ?3, ?4, ?5, ?6, 'skipped', 0, ?7) \
    on conflict do nothing";

const INSERT_SPEC: &str = "/* insert adopted spec */ \
    insert into run_specs (campaign_version, spec) values (?1, ?2) on conflict do nothing";

// A run that this ledger passed over, because another daemon carried it, is
// now one that has gaps. Its specification is of no use here, and stays.
const END_RUN: &str = "/* end adopted run */ \
    update runs set state = ?2, started_at = coalesce(started_at, ?3), finished_at = ?4, \
    funnel = ?5, tally = ?6, error = ?7 where run_id = ?1 and is_open = 0";

// The hash of a body that nobody has: none will ever match it.
const PARK_BATCH: &str = "/* park adopted batch */ \
    insert into batches (run_id, batch, part, generation, state, status, attempts, members, \
    body_hash, first_sending_at, ended_at, was_ambiguous, error) \
    values (?1, ?2, ?3, 0, 'parked', ?4, ?5, ?6, zeroblob(32), ?7, ?7, 1, ?8) \
    on conflict do nothing";

/// Writes the run as ended and its batches as parked.
pub(super) async fn adopt(db: &mut SqliteConnection, adopted: &Adopted) -> Result<(), Failure> {
    let run = &adopted.run;
    sqlx::query(INSERT_RUN)
        .bind(run.run.as_str())
        .bind(run.campaign.as_str())
        .bind(run.connector.as_str())
        .bind(micros(run.fire_time))
        .bind(run.trigger.as_str())
        .bind(&run.campaign_version)
        .bind(micros(adopted.at))
        .execute(&mut *db)
        .await?;
    let ended = sqlx::query(END_RUN)
        .bind(run.run.as_str())
        .bind(run.state.as_str())
        .bind(micros(adopted.started_at))
        .bind(micros(adopted.at))
        .bind(rows::to_json(&adopted.funnel))
        .bind(rows::to_json(&adopted.tally))
        .bind(&run.error)
        .execute(&mut *db)
        .await?;
    if ended.rows_affected() == 0 {
        return Err(conflict(format!("run {} as ended", run.run)).into());
    }
    sqlx::query(INSERT_SPEC)
        .bind(&run.campaign_version)
        .bind(&*run.spec)
        .execute(&mut *db)
        .await?;
    for batch in &adopted.parked {
        sqlx::query(PARK_BATCH)
            .bind(run.run.as_str())
            .bind(batch.path.batch)
            .bind(&batch.path.part)
            .bind(batch.status.as_str())
            .bind(batch.attempts)
            .bind(batch.members)
            .bind(micros(adopted.at))
            .bind(&batch.error)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
