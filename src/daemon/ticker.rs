//! Finds what is due and has the ledger take it, each fire time once.

use super::ahead::{AHEAD, Ahead, TOO_LATE};
use super::folder::{Folder, Loaded};
use super::runs::{Runs, Unstarted};
use super::world::World;
use crate::campaign::Campaign;
use crate::id::{CampaignName, RunId, Trigger};
use crate::run::{Claim, Cursor, LedgerError, NewRun, RunState};
use crate::schedule::{
    Ceased, Due, Earlier, Look, Schedule, Seen, Start, due, in_force_from, left_behind,
    passed_over, start,
};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Campaigns whose fire times are taken together: their claims share a
/// transaction of the ledger, and none of their runs begins before all are taken.
const AT_A_TIME: usize = 1_024;

/// Fire times after which no further campaign is taken together with others:
/// after a long time in which nothing was running each may bring thousands.
const FIRE_TIMES_AT_A_TIME: usize = 10_000;

/// Reads of the ledger at a time.
const READS: usize = 8;

/// What is known of one campaign's schedule after a look.
struct Watch {
    /// What was looked at.
    campaign: Arc<Campaign>,
    /// As the ledger has it.
    cursor: Option<Cursor>,
    /// The fire time it waits for; none where no more will come.
    next: Option<Timestamp>,
    /// Whether the campaign was disabled, or its file gone, at the last look:
    /// time spent so is not missed.
    was_disabled: bool,
}

impl Watch {
    /// Whether a look at `campaign` would find nothing.
    fn is_quiet(&self, campaign: &Arc<Campaign>, now: Timestamp) -> bool {
        Arc::ptr_eq(&self.campaign, campaign)
            && self.was_disabled != campaign.enabled
            && self.next.is_none_or(|next| next > now)
    }
}

/// Nothing comes due before its end.
struct Quiet {
    /// The next fire time of all that will be run; none if there is none.
    next: Option<Timestamp>,
    /// The next one of the disabled campaigns too; none if there is none.
    until: Option<Timestamp>,
}

/// What a look at one campaign found, before the ledger knows it.
struct Found {
    claim: Option<Claim>,
    watch: Watch,
}

/// The runs that stand in the way of every campaign that has some.
type InTheWay = HashMap<CampaignName, Vec<Earlier>>;

/// Looks at every schedule, and begins what is due.
pub(super) struct Ticker {
    world: Arc<World>,
    runs: Runs,
    folder: Folder,
    watches: HashMap<CampaignName, Watch>,
    /// When all schedules were looked at last; none before the first look.
    looked_at: Option<Timestamp>,
    /// What the last look left; none where the next must look at all.
    quiet: Option<Quiet>,
    /// What the next runs are written down with.
    ahead: Ahead,
    /// Whether a look has failed since the ledger was last asked for its open
    /// runs: it may have claimed some that nobody carries.
    has_lost_track: bool,
}

impl Ticker {
    /// Watches the campaigns of `folder`.
    pub(super) fn new(world: Arc<World>, runs: Runs, folder: Folder) -> Self {
        Self {
            world,
            runs,
            folder,
            watches: HashMap::new(),
            looked_at: None,
            quiet: None,
            ahead: Ahead::default(),
            has_lost_track: false,
        }
    }

    /// Watches what `reread` makes of the folder from now on. Returns how many
    /// campaigns are in force.
    pub(super) fn reload(&mut self, reread: impl FnOnce(Folder) -> Folder) -> usize {
        self.folder = reread(std::mem::take(&mut self.folder));
        self.world = self.runs.world();
        self.quiet = None;
        self.ahead.clear();
        for (name, watch) in &mut self.watches {
            watch.was_disabled |= !self.folder.campaigns.contains_key(name);
        }
        self.folder.campaigns.len()
    }

    /// The campaigns in force.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Takes every fire time that has come. Returns the next one of all.
    pub(super) async fn look(&mut self) -> Result<Option<Timestamp>, LedgerError> {
        if self.has_lost_track {
            self.runs.take_up().await?;
            self.has_lost_track = false;
        }
        let now = self.world.clock.now();
        if let Some(quiet) = &self.quiet
            && quiet.until.is_none_or(|until| until > now)
        {
            self.looked_at = Some(now);
            let next = quiet.next;
            self.make_ahead(next, now);
            return Ok(next);
        }
        self.quiet = None;
        let campaigns = self.folder.campaigns.values();
        let loud: Vec<Loaded> = campaigns
            .filter(|Loaded { campaign, .. }| {
                let watch = self.watches.get(&campaign.name);
                !watch.is_some_and(|watch| watch.is_quiet(campaign, now))
            })
            .cloned()
            .collect();
        let mut left = loud.as_slice();
        while !left.is_empty() {
            let some = &left[..left.len().min(AT_A_TIME)];
            let looked = self.look_at(some, now).await;
            self.has_lost_track |= looked.is_err();
            left = &left[looked?..];
        }
        let quiet = self.quiet_from_here();
        let next = quiet.next;
        self.quiet = Some(quiet);
        self.looked_at = Some(now);
        Ok(next)
    }

    /// Makes the specifications of what comes due from `next` on, if that is
    /// soon and not at once.
    fn make_ahead(&mut self, next: Option<Timestamp>, now: Timestamp) {
        let is_after = |span: Duration| next.is_some_and(|next| next > now + span);
        if next.is_none() || is_after(AHEAD) {
            self.ahead.clear();
        } else if is_after(TOO_LATE) {
            let watches = self.watches.values();
            let soon = watches.filter(|watch| watch.next.is_some_and(|at| at <= now + AHEAD));
            let soon = soon.filter(|watch| watch.campaign.enabled);
            self.ahead
                .make(soon.map(|watch| &watch.campaign), &self.world);
        }
    }

    fn quiet_from_here(&self) -> Quiet {
        let next_of = |Loaded { campaign, .. }: &Loaded| self.watches.get(&campaign.name)?.next;
        let campaigns = || self.folder.campaigns.values();
        Quiet {
            next: campaigns()
                .filter(|loaded| loaded.campaign.enabled)
                .filter_map(next_of)
                .min(),
            until: campaigns().filter_map(next_of).min(),
        }
    }

    /// Takes what is due of the first of `campaigns`, all of it before any of
    /// it begins, and returns of how many: of all, unless they are so far
    /// behind that memory bounds it. Where one fails its watch is gone, and the
    /// next look asks the ledger again; the others are taken all the same.
    async fn look_at(
        &mut self,
        campaigns: &[Loaded],
        now: Timestamp,
    ) -> Result<usize, LedgerError> {
        let in_the_way = self.in_the_way().await?;
        let this = &*self;
        let known = campaigns.iter().map(|loaded| async move {
            let name = &loaded.campaign.name;
            let (cursor, was_disabled) = match this.watches.get(name) {
                Some(watch) => (watch.cursor.clone(), watch.was_disabled),
                None => (this.world.ledger.cursor(name).await?, false),
            };
            Ok((loaded, cursor, was_disabled))
        });
        let known: Vec<_> = stream::iter(known).buffered(READS).try_collect().await?;
        let taken = this.take(known, &in_the_way, now).await;
        let count = taken.len();
        let mut failed = None;
        let mut claimed = Vec::new();
        for (Loaded { campaign, .. }, taken) in campaigns.iter().zip(taken) {
            match taken {
                Ok((watch, runs)) => {
                    claimed.extend(runs);
                    self.watches.insert(campaign.name.clone(), watch);
                }
                Err(error) => {
                    self.watches.remove(&campaign.name);
                    failed = Some(error);
                }
            }
        }
        self.begin(claimed).await?;
        failed.map_or(Ok(count), Err)
    }

    /// Has the ledger take what is due of campaigns, together, until it is as
    /// much as may be at a time. Returns for each that was looked at what is
    /// known of it now, and the runs that were written.
    async fn take(
        &self,
        known: Vec<(&Loaded, Option<Cursor>, bool)>,
        in_the_way: &InTheWay,
        now: Timestamp,
    ) -> Vec<Result<(Watch, Vec<RunId>), LedgerError>> {
        let mut claims = Vec::new();
        let mut looked = Vec::with_capacity(known.len());
        let mut fire_times = 0;
        for (loaded, cursor, was_disabled) in known {
            if fire_times >= FIRE_TIMES_AT_A_TIME {
                break;
            }
            let earlier = in_the_way.get(&loaded.campaign.name);
            let earlier = earlier.map_or(&[][..], Vec::as_slice);
            let found = self.find(loaded, cursor, was_disabled, earlier, now);
            fire_times += found.claim.as_ref().map_or(0, |claim| claim.runs.len());
            looked.push((loaded, was_disabled, found.watch, found.claim.is_some()));
            claims.extend(found.claim);
        }
        let answers = match claims.is_empty() {
            true => Vec::new(),
            false => self.world.ledger.claim_all(claims).await,
        };
        let mut answers = answers.into_iter();
        let mut taken = Vec::with_capacity(looked.len());
        for (loaded, was_disabled, watch, is_claimed) in looked {
            let answer = is_claimed.then(|| answers.next()).flatten();
            taken.push(match answer.unwrap_or_else(|| Ok(Vec::new())) {
                Err(LedgerError::Conflict { .. }) => {
                    self.take_again(loaded, was_disabled, now).await
                }
                answer => answer.map(|runs| (watch, runs)),
            });
        }
        taken
    }

    /// Takes what is due of one campaign where another host was first: what it
    /// left is looked at anew. Returns what is known of it now, and the runs
    /// that were written.
    async fn take_again(
        &self,
        loaded: &Loaded,
        was_disabled: bool,
        now: Timestamp,
    ) -> Result<(Watch, Vec<RunId>), LedgerError> {
        let name = &loaded.campaign.name;
        let cursor = self.world.ledger.cursor(name).await?;
        let earlier = self.in_the_way().await?.remove(name).unwrap_or_default();
        let found = self.find(loaded, cursor, was_disabled, &earlier, now);
        let runs = match found.claim {
            Some(claim) => self.world.ledger.claim(claim).await?,
            None => Vec::new(),
        };
        Ok((found.watch, runs))
    }

    /// What is due of one campaign. What comes due while it is disabled is
    /// passed over, and not found again after a restart.
    fn find(
        &self,
        loaded: &Loaded,
        before: Option<Cursor>,
        was_disabled: bool,
        earlier: &[Earlier],
        now: Timestamp,
    ) -> Found {
        let campaign = &loaded.campaign;
        let changed_at = loaded
            .changed_at
            .unwrap_or(now)
            .max(self.looked_at.unwrap_or(Timestamp::MIN));
        let was_disabled = was_disabled || before.as_ref().is_some_and(|before| before.is_disabled);
        let look = look_from(
            campaign,
            before.as_ref(),
            was_disabled,
            changed_at,
            !earlier.is_empty(),
            now,
        );
        let hash = campaign.schedule.hash();
        let is_known = before.as_ref().is_some_and(|before| {
            let has_passed = || {
                let next = campaign.schedule.next_after(before.seen_until);
                next.is_some_and(|next| next <= look.seen_until)
            };
            before.schedule_hash == hash
                && before.is_disabled != campaign.enabled
                && !(was_disabled && has_passed())
        });
        let next = campaign.schedule.next_after(look.seen_until);
        let mut watch = Watch {
            campaign: Arc::clone(campaign),
            cursor: before.clone(),
            next: next.map(|next| campaign.schedule.due_at(next)),
            was_disabled: !campaign.enabled,
        };
        let claim = (!is_known || !look.due.is_empty()).then(|| {
            let after = Cursor {
                schedule_hash: hash,
                seen_until: look.seen_until,
                schedule: Some(campaign.schedule.to_text()),
                is_disabled: !campaign.enabled,
            };
            watch.cursor = Some(after.clone());
            Claim {
                campaign: campaign.name.clone(),
                before,
                after,
                runs: self.new_runs(campaign, look.due, earlier.to_vec()),
                at: self.world.clock.now(),
            }
        });
        Found { claim, watch }
    }

    /// Begins runs that were claimed, in their order.
    async fn begin(&self, claimed: Vec<RunId>) -> Result<(), LedgerError> {
        let mut unstarted = Unstarted::default();
        let records = claimed.iter().map(|run| self.world.ledger.run(run));
        let mut records = stream::iter(records).buffered(READS);
        while let Some(record) = records.try_next().await? {
            match record {
                Some(record) if record.state.is_open() => self.runs.begin(record),
                Some(record) => unstarted.add(&record),
                None => {}
            }
        }
        self.runs.record_unstarted(unstarted);
        Ok(())
    }

    /// The runs that are open, on whichever host, or held with something sent:
    /// each campaign's in the order in which they end, held ones first, since
    /// what is queued waits for them.
    async fn in_the_way(&self) -> Result<InTheWay, LedgerError> {
        let ledger = &self.world.ledger;
        let mut all = InTheWay::new();
        for held in ledger.held_runs().await? {
            if held.has_sent {
                all.entry(held.record.campaign).or_default().push(Earlier {
                    run: held.record.run,
                    is_held: true,
                });
            }
        }
        let mut open: HashMap<CampaignName, Vec<RunId>> = HashMap::new();
        if self.world.rescan_every().is_some() {
            for run in ledger.open_runs().await? {
                open.entry(run.campaign).or_default().push(run.run);
            }
        }
        // One that has just ended, or is held, may be carried still.
        for (campaign, runs) in self.runs.all_open() {
            open.entry(campaign).or_insert(runs);
        }
        for (campaign, runs) in open {
            let earlier = all.entry(campaign).or_default();
            for run in runs {
                if earlier.iter().all(|held| held.run != run) {
                    let is_held = false;
                    earlier.push(Earlier { run, is_held });
                }
            }
        }
        Ok(all)
    }

    /// What the campaign's last good version names and the operator has taken
    /// away since.
    fn gone(&self, campaign: &Campaign) -> Option<String> {
        let destination = &campaign.activation.destination;
        let what = if self.world.warehouse(&campaign.connector).is_none() {
            format!("connector `{}`", campaign.connector)
        } else if self.world.terms(destination).is_none() {
            format!("destination `{destination}`")
        } else {
            return None;
        };
        Some(format!("{what} is not in campaignd.yaml"))
    }

    fn new_runs(
        &self,
        campaign: &Arc<Campaign>,
        dues: Vec<Due>,
        mut earlier: Vec<Earlier>,
    ) -> Vec<NewRun> {
        if dues.is_empty() {
            return Vec::new();
        }
        let gone = self.gone(campaign);
        let made = self.ahead.get(campaign, &self.world);
        dues.into_iter()
            .map(|due| {
                let fire_time = due.fire_time();
                let run = RunId::scheduled(&campaign.name, fire_time);
                let overlap = campaign.schedule.terms().overlap;
                let (state, error) = match (due, start(overlap, &earlier)) {
                    (Due::Run(_), _) if gone.is_some() => (RunState::Missed, gone.clone()),
                    (Due::Missed { reason, .. }, _) => (RunState::Missed, Some(reason)),
                    (Due::Skipped { reason, .. }, _) | (Due::Run(_), Start::Skip { reason }) => {
                        (RunState::Skipped, Some(reason))
                    }
                    (Due::Run(_), Start::Go) => {
                        earlier.push(Earlier {
                            run: run.clone(),
                            is_held: false,
                        });
                        (RunState::Queued, None)
                    }
                };
                NewRun {
                    run,
                    campaign: campaign.name.clone(),
                    connector: campaign.connector.clone(),
                    fire_time,
                    trigger: Trigger::Scheduled,
                    campaign_version: made.version.clone(),
                    spec: made.spec.clone(),
                    state,
                    error,
                }
            })
            .collect()
    }
}

/// Looks at the schedule from where it was left. What its file has said since
/// `changed_at` counts from then: a schedule that was edited or is disabled
/// since leaves what it had not taken as missed, and one that was disabled
/// makes up for nothing of that time.
fn look_from(
    campaign: &Campaign,
    before: Option<&Cursor>,
    was_disabled: bool,
    changed_at: Timestamp,
    is_open: bool,
    now: Timestamp,
) -> Look {
    let schedule = &campaign.schedule;
    let hash = schedule.hash();
    let is_edited = before.is_some_and(|before| before.schedule_hash != hash);
    let is_switched = campaign.enabled == was_disabled;
    let seen_until = before.map(|before| match is_edited || is_switched {
        true => in_force_from(changed_at, before.seen_until, now),
        false => before.seen_until,
    });
    let seen = seen_until.map(|seen_until| Seen {
        schedule_hash: &hash,
        seen_until,
    });
    let mut look = match campaign.enabled {
        true => due(schedule, seen, now, is_open),
        false => passed_over(schedule, seen, now),
    };
    let has_ceased = !was_disabled && (is_edited || !campaign.enabled);
    if let (Some(before), Some(until)) = (before.filter(|_| has_ceased), seen_until) {
        let replaced = match is_edited {
            true => before.schedule.as_deref().and_then(Schedule::from_text),
            false => Some(schedule.clone()),
        };
        let replaced = replaced.map(|replaced| replaced.under(schedule.terms().clone()));
        let ceased = match campaign.enabled {
            true => Ceased::Edited,
            false => Ceased::Disabled,
        };
        let mut left = replaced.map_or_else(Vec::new, |old| {
            left_behind(&old, before.seen_until, until, ceased)
        });
        left.append(&mut look.due);
        look.due = left;
    }
    look
}
