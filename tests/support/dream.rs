//! A world in memory for the engine: a clock that is moved, a ledger, a
//! warehouse and a receiver that fail, and a process that dies, all as a seed
//! says. Rules of its own; it shares none with the adapters.

use async_trait::async_trait;
use campaignd::audience::Dialect;
use campaignd::delivery::{Outcome, Page, Rejections};
use campaignd::history::{
    BatchStatus, Closing, RunFacts, RunStatus, Settlement, Tally, UnstartedRun,
};
use campaignd::id::{BatchPath, MessageId};
use campaignd::run::{
    AttemptBegun, BatchChange, BatchRecord, BatchState, Clock, Destination, Funnel, Installation,
    Kind, LedgerError, Registration, Request, RunRecord, Warehouse, WarehouseError,
    WarehouseErrorClass,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// SplitMix64: small, and the same everywhere.
pub fn draw(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A clock that stands until it is moved.
pub struct ManualClock {
    now: Mutex<Timestamp>,
    sleepers: Mutex<BTreeSet<Timestamp>>,
    moved: Notify,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now: Mutex::new(now),
            sleepers: Mutex::default(),
            moved: Notify::new(),
        }
    }

    /// Moves it to where the next sleeper wakes.
    pub fn wake_next(&self) {
        if let Some(next) = self.sleepers.lock().unwrap().pop_first() {
            let mut now = self.now.lock().unwrap();
            *now = next.max(*now);
        }
        self.moved.notify_waiters();
    }

    /// Time in which no process runs.
    pub fn pass(&self, time: Duration) {
        self.sleepers.lock().unwrap().clear();
        let mut now = self.now.lock().unwrap();
        *now += SignedDuration::try_from(time).unwrap();
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    async fn sleep(&self, delay: Duration) {
        let until = self.now() + SignedDuration::try_from(delay).unwrap();
        loop {
            let moved = self.moved.notified();
            if self.now() >= until {
                return;
            }
            self.sleepers.lock().unwrap().insert(until);
            moved.await;
        }
    }
}

/// What the receiver has had.
#[derive(Debug, Clone)]
pub struct Had {
    pub at: Timestamp,
    pub id: String,
    pub body: Vec<u8>,
    pub has_effect: bool,
    pub was_accepted: bool,
}

/// A row of history.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    pub key: u64,
    pub status: BatchStatus,
    pub message: String,
}

/// All that outlives a process.
#[derive(Default)]
pub struct Kept {
    pub run: Option<RunRecord>,
    pub batches: BTreeMap<BatchPath, BatchRecord>,
    pub source: Vec<u64>,
    pub registered: bool,
    pub stage: Option<Vec<u64>>,
    pub admitted: Option<Funnel>,
    pub members: Option<Vec<u64>>,
    pub history: Vec<HistoryRow>,
    pub deliveries: BTreeMap<BatchPath, (BatchStatus, u32)>,
    pub row: Option<(RunStatus, Tally)>,
    pub had: Vec<Had>,
}

/// The world; what fails in it, and when, is drawn from the seed.
pub struct Dream {
    pub seed: u64,
    pub clock: Arc<ManualClock>,
    pub kept: Mutex<Kept>,
    pub crashed: Notify,
    is_dead: AtomicBool,
    steps: AtomicU64,
    dies_at: AtomicU64,
    pub installation: Installation,
}

impl Dream {
    /// A world with `people` in it.
    pub fn new(seed: u64, people: u64) -> Self {
        let now = "2026-11-22T14:00:00Z".parse().unwrap();
        let kept = Kept {
            source: (1..=people).collect(),
            ..Kept::default()
        };
        Self {
            seed,
            clock: Arc::new(ManualClock::at(now)),
            kept: Mutex::new(kept),
            crashed: Notify::new(),
            is_dead: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            dies_at: AtomicU64::new(u64::MAX),
            installation: Installation {
                id: Uuid::from_u128(7),
                body_key: [7; 32],
            },
        }
    }

    /// A process begins; it dies after so many steps.
    pub fn begin_process(&self, dies_after: Option<u64>) {
        let now = self.steps.load(SeqCst);
        let at = dies_after.map_or(u64::MAX, |after| now + after);
        self.dies_at.store(at, SeqCst);
        self.is_dead.store(false, SeqCst);
    }

    /// A place where the process may die. Returns a number that is drawn anew
    /// at each.
    async fn step(&self) -> u64 {
        let step = self.steps.fetch_add(1, SeqCst) + 1;
        if step >= self.dies_at.load(SeqCst) {
            self.is_dead.store(true, SeqCst);
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        if self.is_dead.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        draw(self.seed ^ step << 16)
    }

    /// A question to the warehouse: lost before it came there, lost on the way
    /// back, refused, or answered.
    async fn ask<T>(
        &self,
        work: impl FnOnce(&mut Kept) -> Result<T, WarehouseError>,
    ) -> Result<T, WarehouseError> {
        use WarehouseErrorClass as C;
        let classes = [C::Lost, C::Conflict, C::Busy, C::Cancelled];
        match self.step().await % 100 {
            luck @ 0..8 => return Err(trouble(classes[usize::try_from(luck % 4).unwrap()])),
            8..12 => {
                work(&mut self.kept.lock().unwrap())?;
                self.step().await;
                return Err(trouble(C::Lost));
            }
            _ => {}
        }
        let done = work(&mut self.kept.lock().unwrap());
        self.step().await;
        done
    }

    /// A write into the ledger, which may be made although it fails.
    pub async fn write<T>(
        &self,
        work: impl FnOnce(&mut Kept) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let message = "told to fail".to_owned();
        match self.step().await % 400 {
            0 => return Err(LedgerError::Unusable { message }),
            1 => {
                work(&mut self.kept.lock().unwrap())?;
                return Err(LedgerError::Unusable { message });
            }
            _ => {}
        }
        let done = work(&mut self.kept.lock().unwrap());
        self.step().await;
        done
    }
}

fn trouble(class: WarehouseErrorClass) -> WarehouseError {
    WarehouseError {
        class,
        code: None,
        message: "told to fail".to_owned(),
        place: None,
    }
}

fn wrong(message: &str) -> WarehouseError {
    WarehouseError {
        message: message.to_owned(),
        ..trouble(WarehouseErrorClass::Statement)
    }
}

#[async_trait]
impl Warehouse for Dream {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    async fn ping(&self) -> Result<(), WarehouseError> {
        self.ask(|_| Ok(())).await
    }

    async fn register(&self, _: &RunFacts) -> Result<Registration, WarehouseError> {
        self.ask(|kept| {
            if let Some((status, _)) = kept.row.filter(|_| !kept.registered) {
                let by = format!("an earlier run that is {status:?}");
                return Ok(Registration::Taken { by });
            }
            kept.registered = true;
            Ok(Registration::Ours)
        })
        .await
    }

    async fn freeze(&self, _: &RunFacts) -> Result<(), WarehouseError> {
        self.ask(|kept| {
            assert!(kept.registered, "nothing is staged that is not registered");
            if kept.stage.is_none() && kept.members.is_none() {
                kept.stage = Some(kept.source.clone());
            }
            Ok(())
        })
        .await
    }

    async fn admit(&self, _: &RunFacts) -> Result<Funnel, WarehouseError> {
        self.ask(|kept| {
            if !kept.registered {
                return Err(wrong("not registered"));
            }
            if let Some(funnel) = kept.admitted {
                return Ok(funnel);
            }
            let stage = kept.stage.as_ref().ok_or_else(|| wrong("no stage"))?;
            let count = stage.len() as u64;
            let funnel = Funnel {
                audience: count,
                planned: count,
                ..Funnel::default()
            };
            kept.admitted = Some(funnel);
            Ok(funnel)
        })
        .await
    }

    async fn lay_out(&self, _: &RunFacts) -> Result<(), WarehouseError> {
        self.ask(|kept| {
            if kept.members.is_none() {
                kept.members = kept.stage.take();
            }
            Ok(())
        })
        .await
    }

    async fn page(
        &self,
        _: &RunFacts,
        (first, last): (u64, u64),
        _: usize,
    ) -> Result<Page, WarehouseError> {
        self.ask(|kept| {
            let members = kept.members.as_ref().ok_or_else(|| wrong("no table"))?;
            let mut page = Page::new(["profile_id".to_owned()].into());
            for (seq, member) in (1..).zip(members) {
                if (first..=last).contains(&seq) {
                    page.push(Kind::Text, &format!("p-{member}"));
                }
            }
            Ok(page)
        })
        .await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Tally>, WarehouseError> {
        self.ask(|kept| {
            let settled = settlements.iter().map(|one| settle(kept, one));
            settled.collect()
        })
        .await
    }

    async fn close(&self, closing: &Closing) -> Result<Tally, WarehouseError> {
        self.ask(|kept| {
            let tally = tally(kept, closing.funnel.planned);
            if kept.registered || kept.row.is_none() {
                kept.row = Some((closing.status, tally));
                kept.registered = false;
            }
            Ok(tally)
        })
        .await
    }

    async fn record_unstarted(&self, _: &[UnstartedRun]) -> Result<(), WarehouseError> {
        Ok(())
    }
}

fn settle(kept: &mut Kept, settlement: &Settlement) -> Result<Tally, WarehouseError> {
    if !kept.registered {
        return Err(wrong("not registered"));
    }
    let size = settlement.facts.batch_size as usize;
    let members = kept.members.clone().unwrap_or_default();
    for outcome in &*settlement.outcomes {
        if kept.deliveries.contains_key(&outcome.path) {
            continue;
        }
        let batch = members.chunks(size).nth(outcome.path.batch as usize - 1);
        let first = (outcome.path.batch as usize - 1) * size;
        let places = outcome.places.unwrap_or((0, u64::MAX));
        for (n, key) in batch
            .ok_or_else(|| wrong("no such batch"))?
            .iter()
            .enumerate()
        {
            let place = (first + n + 1) as u64;
            if place < places.0 || place > places.1 {
                continue;
            }
            kept.history.push(HistoryRow {
                key: *key,
                status: outcome.status,
                message: outcome.message_id.to_string(),
            });
        }
        let row = (outcome.status, outcome.members);
        kept.deliveries.insert(outcome.path.clone(), row);
    }
    let tally = tally(kept, settlement.funnel.planned);
    kept.row = Some((settlement.status, tally));
    Ok(tally)
}

fn tally(kept: &Kept, planned: u64) -> Tally {
    let mut tally = Tally::default();
    for (status, members) in kept.deliveries.values() {
        tally.add(*status, u64::from(*members));
    }
    tally.still_open = planned - tally.total();
    tally
}

pub fn conflict() -> LedgerError {
    let what = "it".to_owned();
    LedgerError::Conflict { what }
}

pub fn begin(kept: &mut Kept, new: AttemptBegun) -> Result<(), LedgerError> {
    let Some(batch) = kept.batches.get_mut(&new.path) else {
        if new.attempt != 1 {
            return Err(conflict());
        }
        let batch = BatchRecord {
            path: new.path.clone(),
            generation: new.generation,
            state: BatchState::Sending,
            status: None,
            attempts: 1,
            members: new.members,
            body_hash: new.body_hash,
            first_sending_at: new.at,
            next_at: None,
            ended_at: None,
            excused: Duration::ZERO,
            was_ambiguous: false,
            http_status: None,
            error: None,
            settled: false,
            places: new.places,
            refused: Vec::new(),
        };
        kept.batches.insert(new.path, batch);
        return Ok(());
    };
    let stands_ready = matches!(batch.state, BatchState::Waiting | BatchState::Ambiguous);
    if batch.attempts + 1 != new.attempt || !stands_ready {
        return Err(conflict());
    }
    if batch.body_hash != new.body_hash {
        let (run, path) = (new.run, new.path);
        return Err(LedgerError::BodyChanged { run, path });
    }
    batch.state = BatchState::Sending;
    batch.attempts = new.attempt;
    batch.next_at = None;
    Ok(())
}

pub fn change(kept: &mut Kept, change: BatchChange) -> Result<(), LedgerError> {
    let batch = kept.batches.get_mut(&change.path).ok_or_else(conflict)?;
    if batch.state != change.from || batch.attempts != change.attempt {
        return Err(conflict());
    }
    batch.state = change.to;
    batch.status = change.status;
    batch.http_status = change.http_status.or(batch.http_status);
    batch.next_at = change.next_at;
    batch.ended_at = change.to.has_ended().then_some(change.at);
    batch.was_ambiguous |= change.to == BatchState::Ambiguous;
    batch.settled = false;
    Ok(())
}

/// What the receiver does with a request: whether it takes effect, and what is
/// heard of it.
fn fate(luck: u64) -> (bool, Outcome) {
    let answered = |status| Outcome::Answered {
        status,
        retry_after: None,
        rejections: Rejections::None,
    };
    let reason = || "told to fail".to_owned();
    match luck % 200 {
        0..10 => (luck & 1024 == 0, answered(503)),
        10..30 => (luck & 1024 == 0, Outcome::Ambiguous { reason: reason() }),
        30..50 => (false, answered(429)),
        50..66 => (false, Outcome::NotSent { reason: reason() }),
        66..72 => (false, answered(422)),
        72 => (false, answered(401)),
        _ => (true, answered(200)),
    }
}

#[async_trait]
impl Destination for Dream {
    async fn attempt(&self, request: Request) -> Outcome {
        let luck = self.step().await;
        let (has_effect, outcome) = fate(luck);
        let is_intended = |kept: &Kept| {
            let run = &kept.run.as_ref().unwrap().run;
            kept.batches.values().any(|batch| {
                let id = MessageId::of(run, &batch.path, batch.generation);
                batch.state == BatchState::Sending && id == request.id
            })
        };
        {
            let mut kept = self.kept.lock().unwrap();
            assert!(
                is_intended(&kept),
                "SEED={}: sent and not intended",
                self.seed
            );
            if !matches!(outcome, Outcome::NotSent { .. }) {
                kept.had.push(Had {
                    at: self.clock.now(),
                    id: request.id.to_string(),
                    body: request.body.to_vec(),
                    has_effect,
                    was_accepted: matches!(outcome, Outcome::Answered { status: 200, .. }),
                });
            }
        }
        self.clock.sleep(Duration::from_millis(luck % 900)).await;
        self.step().await;
        outcome
    }

    async fn reach(&self) -> Result<(), String> {
        Ok(())
    }
}
