//! Forgets what ended long ago, a bounded number of rows at a time.

use super::command::Failure;
use super::rows::micros;
use crate::run::Forget;
use sqlx::{Row as _, SqliteConnection};

/// The most runs, and the most actions, that one step forgets.
pub(super) const RUNS: i64 = 100;

/// The most batches that one step forgets: some tens of milliseconds in which
/// nothing else is written.
pub(super) const BATCHES: i64 = 2_000;

// The newest of each kind stays: a connector's newest tells whether its
// warehouse was put back, a campaign's newest is what it is judged by.
const RUNS_TO_FORGET: &str = "/* forget runs */ \
    delete from runs where seq in (select r.seq from runs r \
    where r.claimed_at < ?1 and coalesce(r.finished_at, r.claimed_at) < ?1 \
    and r.is_open = 0 and r.state <> 'held' \
    and exists (select 1 from runs n where n.campaign = r.campaign and n.seq > r.seq \
    and n.connector = r.connector and n.\"trigger\" = r.\"trigger\" and n.state = r.state) \
    and not exists (select 1 from batches b where b.run_id = r.run_id \
    and b.settled = 0 and b.ended_at is not null) \
    order by r.claimed_at limit ?2) \
    returning run_id, campaign_version";

const REMEMBER: &str = "/* forgotten */ insert into forgotten (run_id) values (?1) \
    on conflict do nothing";

const SPEC: &str = "/* forget spec */ delete from run_specs where campaign_version = ?1 \
    and not exists (select 1 from runs r where r.campaign_version = ?1)";

const NEXT: &str = "/* next forgotten */ select run_id from forgotten limit 1";

const FORGET_BATCHES: &str = "/* forget batches */ delete from batches \
    where (run_id, batch, part) in \
    (select run_id, batch, part from batches where run_id = ?1 limit ?2)";

const ACTIONS: &str = "/* forget actions */ delete from actions where rowid in \
    (select rowid from actions where at < ?1 limit ?2)";

/// What else there is of a run, by its id.
const OF_A_RUN: [&str; 3] = [
    "/* forget cancel */ delete from cancels where run_id = ?1",
    "/* forget reopening */ delete from reopenings where run_id = ?1",
    "/* forgotten whole */ delete from forgotten where run_id = ?1",
];

/// Takes one step, and returns how many rows it has removed: none when there
/// is nothing left to do.
pub(super) async fn forget(db: &mut SqliteConnection, forget: &Forget) -> Result<u64, Failure> {
    let mut removed = batches(db).await?;
    if removed > 0 {
        return Ok(removed);
    }
    let runs = sqlx::query(RUNS_TO_FORGET)
        .bind(micros(forget.runs_before))
        .bind(RUNS)
        .fetch_all(&mut *db)
        .await?;
    for row in &runs {
        let (run, version): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        sqlx::query(REMEMBER).bind(&run).execute(&mut *db).await?;
        sqlx::query(SPEC).bind(&version).execute(&mut *db).await?;
    }
    removed += runs.len() as u64;
    let actions = sqlx::query(ACTIONS)
        .bind(micros(forget.actions_before))
        .bind(RUNS)
        .execute(&mut *db)
        .await?;
    Ok(removed + actions.rows_affected())
}

/// Some batches of runs that are forgotten already.
async fn batches(db: &mut SqliteConnection) -> Result<u64, Failure> {
    let mut removed = 0;
    while removed < BATCHES as u64 {
        let run: Option<String> = sqlx::query_scalar(NEXT).fetch_optional(&mut *db).await?;
        let Some(run) = run else {
            break;
        };
        let some = sqlx::query(FORGET_BATCHES)
            .bind(&run)
            .bind(BATCHES)
            .execute(&mut *db)
            .await?
            .rows_affected();
        removed += some;
        if some < BATCHES as u64 {
            for statement in OF_A_RUN {
                sqlx::query(statement).bind(&run).execute(&mut *db).await?;
            }
            removed += 1;
        }
    }
    Ok(removed)
}
