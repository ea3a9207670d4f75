//! Sends a run's batches: pages in, deliveries side by side, outcomes settled
//! every minute meanwhile, or sooner where they are many.

use super::behind::Backlog;
use super::carrier::{Carrier, RunError, Step};
use super::consent::Consent;
use super::deliver::{Delivery, Refusal};
use super::known::Known;
use super::lanes::Lanes;
use super::pages::{PagePlan, PageRange};
use super::place::Place;
use super::ports::{WarehouseError, WarehouseErrorClass};
use super::records::BatchRecord;
use super::state::RunEvent;
use super::strain::Timed;
use crate::delivery::{Envelope, Page, Renderer, rows_of_part};
use crate::history::{BatchOutcome, RunStatus, Settlement, Tally};
use crate::id::BatchPath;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Outcomes settled in one transaction: commits are dear, and this many rows
/// held in memory twice are about 20 MB.
const SETTLE_AT_ONCE: u32 = 50_000;

/// How sending came to its end.
enum Sent {
    Whole,
    Halted(Refusal),
    Interrupted,
}

/// What is read next.
struct Work {
    range: PageRange,
    /// The parts of the one batch of the range that was cut; all that is open
    /// of each batch where none.
    parts: Option<Vec<BatchPath>>,
    /// Whether consent is asked for before it in any case.
    is_stale: bool,
}

/// What is to be sent next: first what was cut, then what was read too long
/// ago, then the next page. Waits for
/// what is under way once nothing else is left, since it may be cut.
async fn next_work(lanes: &mut Lanes, plan: &mut PagePlan, known: &Known) -> Option<Work> {
    loop {
        if let Some((batch, parts)) = lanes.next_cut() {
            return Some(Work {
                range: plan.only(batch),
                parts: Some(parts),
                is_stale: false,
            });
        }
        if let Some((batch, asked)) = lanes.next_stale() {
            return Some(Work {
                range: plan.only(batch),
                parts: None,
                is_stale: !asked,
            });
        }
        if let Some(range) = plan.next(known) {
            return Some(Work {
                range,
                parts: None,
                is_stale: false,
            });
        }
        if !lanes.wait_for_one().await {
            return None;
        }
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
        let mut consent = self.consent().await?;
        let known = self.known_batches().await?;
        let courier = Arc::new(self.courier(known.records().map(BatchRecord::newest).max()));
        let places = consent.withheld.places.max(self.funnel().planned);
        let mut plan = PagePlan::new(places, self.facts.cut(), self.kit.page_bytes);
        let asks = self.stop_for_canary(&mut plan, &known).await?;
        let envelope = self.envelope(plan.batches());
        let renderer = Arc::new(Renderer::of(&envelope, self.spec.shape()));
        let mut lanes = self.lanes(halt);
        let mut backlog = Backlog::default();
        let mut begun_until = 0;
        while !halt.is_cancelled() {
            // Room first: what is read is sent at once, and not much later.
            self.wait_for_room(&mut lanes, halt).await;
            let Some(work) = next_work(&mut lanes, &mut plan, &known).await else {
                break;
            };
            let range = work.range;
            let reading = self.page_of(&work, &mut consent, &known, &mut lanes, begun_until);
            let page = tokio::select! {
                biased;
                () = halt.cancelled() => break,
                page = reading => page,
            };
            let page = match page {
                Ok(page) => Arc::new(page),
                Err(error) => {
                    lanes.fail(error);
                    break;
                }
            };
            lanes.learn(plan.learn(&page));
            let fresh_until = self.fresh_until(&consent);
            for batch in range.batches() {
                // The first goes in any case, so that a slow page is no loop.
                if batch > range.first_batch() && self.is_stale(&consent) {
                    // The page has waited for long: it is read again.
                    plan.back_to(batch);
                    break;
                }
                let whole = consent.rows(range.members().0, range.places_of(batch));
                let open = match &work.parts {
                    Some(parts) => parts.iter().map(|part| (part.clone(), None)).collect(),
                    None => known.open(batch),
                };
                for (path, known) in open {
                    lanes.wait_for_room().await;
                    if let Err(error) = self.caught_up(&mut backlog, halt).await {
                        lanes.fail(error);
                    }
                    let is_new = path.part.is_empty() && known.is_none();
                    let part = rows_of_part(whole.len(), &path.part);
                    if halt.is_cancelled() || part.is_empty() {
                        break;
                    }
                    let delivery = Delivery {
                        path,
                        page: Arc::clone(&page),
                        rows: whole.start + part.start..whole.start + part.end,
                        places: consent.places(range.places_of(batch), part),
                        renderer: Arc::clone(&renderer),
                        known,
                        fresh_until: fresh_until.filter(|_| is_new),
                        halt: halt.clone(),
                    };
                    begun_until = begun_until.max(batch);
                    lanes.begin(Arc::clone(&courier).deliver(delivery));
                }
            }
        }
        Ok(match lanes.finish().await? {
            Some(refusal) => Sent::Halted(refusal),
            None if halt.is_cancelled() => Sent::Interrupted,
            None if asks => Sent::Halted(self.canary_sent()),
            None => Sent::Whole,
        })
    }

    /// Reads the page of `work`, with consent asked for again before it where
    /// that is due: for all that is not under way beside it, since that may
    /// have been sent.
    async fn page_of(
        &self,
        work: &Work,
        consent: &mut Consent,
        known: &Known,
        lanes: &mut Lanes,
        begun_until: u32,
    ) -> Result<Page, RunError> {
        if work.is_stale || work.parts.is_none() && self.is_stale(consent) {
            let from = work.range.first_batch();
            let under_way = (from + 1..=begun_until).filter(|batch| !lanes.is_stale(*batch));
            self.ask_again(consent, from, known, under_way).await?;
            lanes.asked();
        }
        self.read(work.range, consent).await
    }

    fn lanes(&self, halt: &CancellationToken) -> Lanes {
        let (throttle, size) = (self.kit.throttle.clone(), self.facts.batch_size);
        Lanes::new(throttle, size, halt.clone(), self.place.clone())
    }

    async fn read(&self, range: PageRange, consent: &Consent) -> Result<Page, RunError> {
        let (first, last) = range.members();
        let page = self
            .ask_timed(Timed::page(last + 1 - first), |warehouse| async move {
                warehouse.page(&self.facts, first, last).await
            })
            .await?;
        let expected = last + 1 - first - consent.withheld.among(first..last + 1);
        if page.len() as u64 == expected {
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

    /// Settles every minute, and after many members, until sending is `over`. An error that no retry
    /// mends halts sending: outcomes must not pile up unseen.
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
            if let Err(error) = self.settle_ended(RunStatus::Open, None).await {
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

    /// Brings every ended batch into history, and returns the tally.
    pub(super) async fn settle_ended(
        &self,
        status: RunStatus,
        error: Option<String>,
    ) -> Result<Tally, RunError> {
        loop {
            let ended = self
                .kit
                .ledger
                .unsettled(&self.facts.run, SETTLE_AT_ONCE)
                .await?;
            let settlement = Settlement {
                facts: Arc::clone(&self.facts),
                funnel: self.funnel(),
                status,
                error: error.clone(),
                outcomes: ended
                    .iter()
                    .filter_map(|batch| batch.outcome(&self.facts.run))
                    .map(|outcome| self.with_words(outcome))
                    .collect(),
                fills_gaps: false,
            };
            let tally = self
                .patiently(|| self.kit.settler.settle(settlement.clone()))
                .await?;
            let last = ended.len() < SETTLE_AT_ONCE as usize;
            let settled = ended
                .into_iter()
                .filter_map(|batch| Some((batch.path, batch.status?)));
            let (run, term) = (&self.facts.run, self.facts.term);
            let settled = settled.collect();
            self.kit.ledger.mark_settled(run, term, settled).await?;
            if last {
                return Ok(tally);
            }
        }
    }
}
