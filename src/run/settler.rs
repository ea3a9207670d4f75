//! Brings the outcomes of all ready runs of a connector into its history in
//! one transaction: commits are the dearest thing a warehouse sells.

use super::ports::{Warehouse, WarehouseError, WarehouseErrorClass};
use crate::history::{Settlement, Tally};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// How many runs wait to be settled before the next has to wait to ask: as
/// many as may be under way by default.
const QUEUE: usize = 32;

/// Outcomes in one transaction, unless a single run brings more: they are held
/// as rows of its statements.
const OUTCOMES_AT_ONCE: usize = 20_000;

struct Job {
    settlement: Settlement,
    answer: oneshot::Sender<Result<Tally, WarehouseError>>,
}

/// The door to a connector's settling task. The task ends when the last clone
/// is dropped.
#[derive(Debug, Clone)]
pub struct Settler {
    jobs: mpsc::Sender<Job>,
}

impl Settler {
    /// Starts the task among its owner's `tasks`.
    pub fn start(warehouse: Arc<dyn Warehouse>, tasks: &TaskTracker) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        tasks.spawn(work(warehouse, queue));
        Self { jobs }
    }

    /// Settles one run, together with the others that wait. Returns its tally.
    pub async fn settle(&self, settlement: Settlement) -> Result<Tally, WarehouseError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { settlement, answer };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// The task was ended in the middle: what it did is not known, so as a lost
/// connection.
fn gone() -> WarehouseError {
    WarehouseError {
        class: WarehouseErrorClass::Lost,
        code: None,
        message: "settling was stopped".to_owned(),
        place: None,
    }
}

async fn work(warehouse: Arc<dyn Warehouse>, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while !jobs.is_empty() || queue.recv_many(&mut jobs, QUEUE).await > 0 {
        let outcomes = jobs.iter().map(|job: &Job| job.settlement.outcomes.len());
        let (settlements, answers): (Vec<_>, Vec<_>) = jobs
            .drain(..how_many_fit(outcomes))
            .map(|job| (job.settlement, job.answer))
            .unzip();
        let results = settle_together(warehouse.as_ref(), &settlements).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever asked may have been stopped meanwhile; the rows are
            // written all the same, and found when the run is resumed.
            drop(answer.send(result));
        }
    }
}

/// How many of those who wait go in one transaction, each with so many
/// outcomes: in their order, and at least one.
fn how_many_fit(outcomes: impl Iterator<Item = usize>) -> usize {
    let sums = outcomes.scan(0, |sum, more| {
        *sum += more;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= OUTCOMES_AT_ONCE)
        .count()
        .max(1)
}

/// All in one transaction; where that fails, each alone, so that one run's bad
/// outcome does not hold up the others. A warehouse that is away is away for
/// all.
async fn settle_together(
    warehouse: &dyn Warehouse,
    settlements: &[Settlement],
) -> Vec<Result<Tally, WarehouseError>> {
    match warehouse.settle(settlements).await {
        Ok(tallies) => tallies.into_iter().map(Ok).collect(),
        Err(error) if settlements.len() == 1 || error.class == WarehouseErrorClass::Lost => {
            vec![Err(error); settlements.len()]
        }
        Err(_) => {
            let mut results = Vec::with_capacity(settlements.len());
            for settlement in settlements {
                let alone = warehouse.settle(std::slice::from_ref(settlement)).await;
                results.push(alone.map(|tallies| tallies.into_iter().next().unwrap_or_default()));
            }
            results
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_takes_what_fits_and_at_least_one_run() {
        for (outcomes, expect) in [
            (vec![0], 1),
            (vec![OUTCOMES_AT_ONCE + 1, 1], 1),
            (vec![OUTCOMES_AT_ONCE - 1, 1, 0, 1], 3),
            (vec![10; 32], 32),
        ] {
            assert_eq!(how_many_fit(outcomes.into_iter()), expect);
        }
    }
}
