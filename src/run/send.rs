//! Sends a run's batches: pages in, deliveries side by side, outcomes settled
//! every minute meanwhile, or sooner where they are many.

use super::behind::Backlog;
use super::carrier::{Carrier, RunError, Step};
use super::consent::Consent;
use super::deliver::{Budget, Courier, Refusal};
use super::known::Known;
use super::lanes::Lanes;
use super::memory::{Room, Share};
use super::pages::{PagePlan, PageRange};
use super::parcel::{Delivery, Stands};
use super::place::Place;
use super::ports::{WarehouseError, WarehouseErrorClass};
use super::records::BatchRecord;
use super::state::RunEvent;
use super::strain::Timed;
use crate::delivery::{Envelope, Page, Renderer, rows_of_part};
use crate::history::{BatchOutcome, RunStatus, Settlement, Tally};
use crate::id::BatchPath;
use std::ops::Range;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Batches of one run settled in one transaction: commits are dear, and each
/// asks what the run has in history so far; this many are held in memory as
/// records, as outcomes and as rows of a statement.
const SETTLE_AT_ONCE: u32 = 10_000;

/// How sending came to its end.
enum Sent {
    Whole,
    Halted(Refusal),
    Interrupted,
}

/// What a run sends with, and how far it is.
struct Road {
    courier: Arc<Courier>,
    renderer: Arc<Renderer>,
    /// What its bodies hold.
    bodies: Share,
    consent: Consent,
    known: Known,
    plan: PagePlan,
    lanes: Lanes,
    backlog: Backlog,
    begun_until: u32,
}

impl Road {
    /// Waits until there is room for a body. How long it will be is learnt
    /// from the first, which is rendered once more for it.
    async fn room_of_body(&mut self, page: &Page, path: &BatchPath, rows: Range<usize>) -> Room {
        if self.bodies.knows_nothing()
            && let Ok(body) = self.renderer.render(path, page, rows.clone())
        {
            self.bodies.learn(rows.len(), body.len());
        }
        let bytes = self.bodies.of_body(rows.len(), page.bytes_of(rows));
        self.lanes.room_for(&self.bodies, bytes).await
    }
}

/// What is read next.
struct Work {
    range: PageRange,
    /// What of the one batch of the range is to be sent; all that is open of
    /// each batch where none.
    only: Option<Vec<(BatchPath, Stands)>>,
    /// Whether consent is asked for before it in any case.
    is_stale: bool,
}

impl Work {
    fn of(range: PageRange) -> Self {
        Self {
            range,
            only: None,
            is_stale: false,
        }
    }
}

impl Road {
    /// Waits until something is to be read: while something is under way it
    /// may be cut, and what waits comes to its time. False once nothing is left.
    async fn has_work(&mut self, halt: &CancellationToken) -> bool {
        loop {
            let has_more = self.lanes.take_new() && self.plan.has_next(&self.known);
            if has_more || self.lanes.has_returned() {
                return true;
            }
            if !self.lanes.wait_for_more(halt).await {
                return false;
            }
        }
    }

    /// What is to be sent next: first what was cut, then what has waited, then
    /// what was read too long ago, then the next page.
    fn next_work(&mut self) -> Option<Work> {
        let plan = &mut self.plan;
        if let Some((batch, parts)) = self.lanes.next_cut() {
            let parts = parts.into_iter().map(|part| (part, Stands::New));
            return Some(Work {
                only: Some(parts.collect()),
                ..Work::of(plan.only(batch))
            });
        }
        if let Some(batch) = self.lanes.next_due() {
            let range = plan.only(batch.path.batch);
            return Some(Work {
                only: Some(vec![(batch.path.clone(), Stands::Waited(batch))]),
                ..Work::of(range)
            });
        }
        if !self.lanes.take_new() {
            return None;
        }
        if let Some((batch, asked)) = self.lanes.next_stale() {
            return Some(Work {
                is_stale: !asked,
                ..Work::of(plan.only(batch))
            });
        }
        plan.next(&self.known).map(Work::of)
    }
}

impl Carrier {
    /// Sends what is not yet ended.
    pub(super) async fn send(&self) -> Result<Step, RunError> {
        if self.cancel.is_cancelled() {
            return self.cancel_rest().await;
        }
        if self.has_expired() {
            return self.expire_rest().await;
        }
        // Cancelled by us when nothing more may be begun, and with `stop`.
        let halt = self.stop.child_token();
        let over = CancellationToken::new();
        let sending = async {
            let sent = self.send_batches(&halt).await;
            over.cancel();
            sent
        };
        let cancelling = async {
            tokio::select! {
                () = over.cancelled() => {}
                () = self.cancel.cancelled() => halt.cancel(),
            }
        };
        let settling = self.settle_meanwhile(&over, &halt);
        let expiring = self.expire(&over, &halt);
        let (sent, settled, (), ()) = tokio::join!(sending, settling, cancelling, expiring);
        settled?;
        match sent? {
            Sent::Whole => Ok(Step {
                funnel: Some(self.funnel()),
                // What it was held for before is over.
                error: Some(String::new()),
                ..RunEvent::LastBatchEnded.into()
            }),
            Sent::Halted(_) if self.cancel.is_cancelled() => self.cancel_rest().await,
            Sent::Halted(Refusal {
                reason,
                pauses_destination,
            }) => {
                if pauses_destination {
                    self.pause_destination(&reason).await?;
                }
                self.hold(reason).await
            }
            Sent::Interrupted if self.cancel.is_cancelled() => self.cancel_rest().await,
            Sent::Interrupted if self.has_expired() && !self.stop.is_cancelled() => {
                self.expire_rest().await
            }
            Sent::Interrupted => Err(RunError::Interrupted),
        }
    }

    /// Stops here, for a person to look. Of a run of which nothing was sent
    /// nothing stays but its row.
    async fn hold(&self, reason: String) -> Result<Step, RunError> {
        let batches = self.kit.ledger.batches(&self.facts.run).await?;
        if batches.is_empty() {
            return self.hold_unsent(reason, RunEvent::Stopped).await;
        }
        let tally = self
            .settle_ended(RunStatus::Held, Some(reason.clone()))
            .await?;
        Ok(Step {
            funnel: Some(self.funnel()),
            tally: Some(tally),
            error: Some(reason),
            ..RunEvent::Stopped.into()
        })
    }

    async fn send_batches(&self, halt: &CancellationToken) -> Result<Sent, RunError> {
        let consent = self.consent().await?;
        let known = self.known_batches().await?;
        let newest = known.records().map(BatchRecord::newest).max();
        let courier = Arc::new(self.courier(newest, halt));
        let places = consent.withheld.places.max(self.funnel().planned);
        let memory = &self.kit.memory;
        let pages = memory.half();
        let mut plan = PagePlan::new(places, self.facts.cut(), memory.page_bytes());
        let asks = self.stop_for_canary(&mut plan, &known).await?;
        let envelope = self.envelope(plan.batches());
        let begun = known.records().count();
        let renderer = Arc::new(Renderer::of(&envelope, self.spec.shape()));
        let lanes = self.lanes(courier.budget.clone(), halt).after(begun);
        let mut road = Road {
            courier,
            renderer,
            bodies: memory.half(),
            consent,
            known,
            plan,
            lanes,
            backlog: Backlog::default(),
            begun_until: 0,
        };
        while !halt.is_cancelled() {
            // Room first: what is read is sent at once, and not much later.
            self.wait_for_room(&mut road.lanes, halt).await;
            if !road.has_work(halt).await {
                break;
            }
            if road.courier.is_resting() {
                // It was waited for, and something has been paused meanwhile.
                continue;
            }
            // And room for the page: once it is known what is read, nothing is
            // waited for that may end as stale, or it would pass for asked.
            let room = road.plan.room(road.lanes.has_returned());
            let mut page_room = road.lanes.room_for(&pages, room).await;
            let Some(work) = road.next_work() else {
                continue;
            };
            let most = road.plan.most_bytes(work.range);
            page_room.becomes(most);
            let page = tokio::select! {
                biased;
                () = halt.cancelled() => break,
                page = self.page_of(&work, &mut road, most) => page,
            };
            match page {
                Ok(page) => {
                    page_room.becomes(page.bytes());
                    let page = (Arc::new(page), Arc::new(page_room));
                    self.begin_batches(&mut road, work, page, halt).await;
                }
                Err(error) => road.lanes.fail(error),
            }
        }
        Ok(match road.lanes.finish().await? {
            Some(refusal) => Sent::Halted(refusal),
            None if halt.is_cancelled() => Sent::Interrupted,
            None if asks => Sent::Halted(self.canary_sent()),
            None => Sent::Whole,
        })
    }

    /// Begins what `work` asks for of its page.
    async fn begin_batches(
        &self,
        road: &mut Road,
        work: Work,
        (page, page_room): (Arc<Page>, Arc<Room>),
        halt: &CancellationToken,
    ) {
        let Work {
            range, mut only, ..
        } = work;
        road.lanes.learn(road.plan.learn(&page));
        let fresh_until = self.fresh_until(&road.consent);
        for batch in range.batches() {
            road.lanes.wait_for_room().await;
            // The first goes in any case, so that a slow page is no loop.
            let is_to_wait = road.courier.is_resting() || !road.lanes.take_new();
            let is_late = is_to_wait || self.is_stale(&road.consent);
            if batch > range.first_batch() && is_late {
                // The page has waited for long, or would: it is read again.
                road.plan.back_to(batch);
                break;
            }
            let whole = road.consent.rows(range.members().0, range.places_of(batch));
            if whole.end > page.len() {
                self.read_less(road, range, batch);
                break;
            }
            let open = only.take().unwrap_or_else(|| road.known.open(batch));
            for (path, stands) in open {
                road.lanes.wait_for_room().await;
                if let Err(error) = self.caught_up(&mut road.backlog, halt).await {
                    road.lanes.fail(error);
                }
                let is_new = path.part.is_empty() && matches!(stands, Stands::New);
                let part = rows_of_part(whole.len(), &path.part);
                if halt.is_cancelled() || part.is_empty() {
                    break;
                }
                let rows = whole.start + part.start..whole.start + part.end;
                let room = road.room_of_body(&page, &path, rows.clone()).await;
                let delivery = Delivery {
                    path,
                    page: Arc::clone(&page),
                    rows,
                    page_room: Arc::clone(&page_room),
                    room,
                    places: road.consent.places(range.places_of(batch), part),
                    renderer: Arc::clone(&road.renderer),
                    stands,
                    fresh_until: fresh_until.filter(|_| is_new),
                    halt: halt.clone(),
                };
                road.begun_until = road.begun_until.max(batch);
                road.lanes
                    .begin(Arc::clone(&road.courier).deliver(delivery));
            }
        }
    }

    /// Reads the page of `work`, with consent asked for again before it where
    /// that is due: for all that is not under way beside it, since that may
    /// have been sent.
    async fn page_of(&self, work: &Work, road: &mut Road, most: usize) -> Result<Page, RunError> {
        let (consent, lanes, begun_until) = (&mut road.consent, &mut road.lanes, road.begun_until);
        if work.is_stale || work.only.is_none() && self.is_stale(consent) {
            let from = work.range.first_batch();
            let under_way = (from + 1..=begun_until).filter(|batch| !lanes.is_stale(*batch));
            self.ask_again(consent, from, &road.known, under_way)
                .await?;
            lanes.asked();
        }
        self.read(work.range, consent, most).await
    }

    fn lanes(&self, budget: Budget, halt: &CancellationToken) -> Lanes {
        let (kit, size) = (&self.kit, self.facts.batch_size);
        let (throttle, clock) = (kit.throttle.clone(), Arc::clone(&kit.clock));
        Lanes::new(
            (throttle, clock),
            (size, budget),
            halt.clone(),
            self.place.clone(),
        )
    }

    /// A batch did not fit into what is read at a time: it is read by itself,
    /// or, where it was, the run is held.
    fn read_less(&self, road: &mut Road, range: PageRange, batch: u32) {
        let plan = &mut road.plan;
        if !range.is_roomy() {
            plan.back_to(batch);
            if batch == range.first_batch() {
                plan.shrink();
            }
            return;
        }
        let most = plan.most_bytes(range) >> 10;
        road.lanes.refuse(Refusal {
            reason: format!(
                "batch {batch}: its members take over {most} KiB, which is half of the run's share of \
                 `limits.memory` (`memory` ÷ `max_runs`); raise `memory` and resume the run, or cancel \
                 it and give the campaign a smaller `batch_size`"
            ),
            pauses_destination: false,
        });
    }

    async fn read(
        &self,
        range: PageRange,
        consent: &Consent,
        most: usize,
    ) -> Result<Page, RunError> {
        let (first, last) = range.members();
        let page = self
            .ask_timed(Timed::page(last + 1 - first), |warehouse| async move {
                warehouse.page(&self.facts, (first, last), most).await
            })
            .await?;
        let expected = last + 1 - first - consent.withheld.among(first..last + 1);
        if page.len() as u64 == expected || page.is_cut() {
            return Ok(page);
        }
        // A batch is a range of places: with one missing, those behind it
        // would go out in another batch than history has them in.
        Err(RunError::Warehouse(WarehouseError {
            class: WarehouseErrorClass::Statement,
            code: None,
            message: format!(
                "the run's frozen members {first} to {last} are {} and not {expected}: \
                 its table has been changed from outside, and nothing is sent from it",
                page.len(),
            ),
            place: None,
        }))
    }

    /// What the ledger knows of earlier attempts, and the tally so far. What
    /// an earlier process left unsettled is settled first: it may be old
    /// already.
    async fn known_batches(&self) -> Result<Known, RunError> {
        let (unsettled, _) = self.kit.ledger.unsettled_backlog(&self.facts.run).await?;
        if unsettled > 0 {
            self.settle_ended(RunStatus::Open, None).await?;
        }
        let records = self.kit.ledger.batches(&self.facts.run).await?;
        let mut tally = Tally::default();
        for record in &records {
            record.count(&mut tally);
        }
        self.reporter.admitted(self.funnel(), tally);
        Ok(Known::new(records))
    }

    fn envelope(&self, batches: u32) -> Envelope {
        Envelope {
            campaign: self.facts.campaign.clone(),
            run: self.facts.run.clone(),
            fire_time: self.facts.fire_time,
            channel: self.facts.channel.clone(),
            batches,
            attributes: self.spec.attributes.clone(),
        }
    }

    /// Settles every minute, and after many members, until sending is `over`. An
    /// error that no retry mends halts sending: outcomes must not pile up unseen.
    async fn settle_meanwhile(
        &self,
        over: &CancellationToken,
        halt: &CancellationToken,
    ) -> Result<(), RunError> {
        loop {
            tokio::select! {
                biased;
                () = over.cancelled() => return Ok(()),
                () = self.kit.clock.sleep(self.kit.guards.settle_every) => {}
                () = self.reporter.many() => {}
            }
            let _busy = self.place.as_ref().map(Place::begin);
            if let Err(error) = self.settle_what_ended(RunStatus::Open, None, false).await {
                halt.cancel();
                return Err(error);
            }
        }
    }

    /// The outcome with what its receiver has said of members.
    fn with_words(&self, mut outcome: BatchOutcome) -> BatchOutcome {
        for member in &mut outcome.refused {
            member.reason = self.words.take(member.place);
        }
        outcome
    }

    /// Brings every ended batch into history, and returns the tally, counted
    /// anew.
    pub(super) async fn settle_ended(
        &self,
        status: RunStatus,
        error: Option<String>,
    ) -> Result<Tally, RunError> {
        self.settle_what_ended(status, error, true).await
    }

    async fn settle_what_ended(
        &self,
        status: RunStatus,
        error: Option<String>,
        counts_anew: bool,
    ) -> Result<Tally, RunError> {
        loop {
            let ended = self
                .kit
                .ledger
                .unsettled(&self.facts.run, SETTLE_AT_ONCE)
                .await?;
            let last = ended.len() < SETTLE_AT_ONCE as usize;
            let settlement = Settlement {
                facts: Arc::clone(&self.facts),
                funnel: self.funnel(),
                status,
                error: error.clone(),
                // The records go as they are read: they are as large again.
                outcomes: ended
                    .into_iter()
                    .filter_map(|batch| batch.outcome(&self.facts.run))
                    .map(|outcome| self.with_words(outcome))
                    .collect(),
                fills_gaps: false,
                counts_anew: counts_anew && last,
            };
            let tally = self
                .patiently(|| self.kit.settler.settle(settlement.clone()))
                .await?;
            let outcomes = settlement.outcomes.iter();
            let settled = outcomes.map(|batch| (batch.path.clone(), batch.status));
            let (run, term) = (&self.facts.run, self.facts.term);
            let settled = settled.collect();
            self.kit.ledger.mark_settled(run, term, settled).await?;
            if last {
                return Ok(tally);
            }
        }
    }
}
