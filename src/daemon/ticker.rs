//! Finds what is due and has the ledger take it, each fire time once.

use super::folder::{Folder, Loaded};
use super::runs::Runs;
use super::world::World;
use crate::campaign::{Campaign, DestinationTerms, RunSpec};
use crate::delivery::Format;
use crate::id::{CampaignName, RunId, Trigger};
use crate::run::{Claim, Cursor, LedgerError, NewRun, RunState};
use crate::schedule::{Due, Seen, Start, due, passed_over, start};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of one campaign's schedule between two looks.
struct Watch {
    /// As the ledger has it.
    cursor: Option<Cursor>,
    /// The fire time it waits for; none before the first look.
    next: Option<Timestamp>,
    /// Whether the campaign was disabled, or its file gone, at the last look:
    /// time spent so is not missed.
    was_disabled: bool,
}

/// Looks at every schedule, and begins what is due.
pub(super) struct Ticker {
    world: Arc<World>,
    runs: Runs,
    folder: Folder,
    watches: HashMap<CampaignName, Watch>,
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
            has_lost_track: false,
        }
    }

    /// Watches what `reread` makes of the folder from now on. Returns how many
    /// campaigns are in force.
    pub(super) fn reload(&mut self, reread: impl FnOnce(Folder) -> Folder) -> usize {
        self.folder = reread(std::mem::take(&mut self.folder));
        self.world = self.runs.world();
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
        let campaigns: Vec<Arc<Campaign>> = self
            .folder
            .campaigns
            .values()
            .map(|Loaded { campaign, .. }| Arc::clone(campaign))
            .collect();
        let mut earliest = None;
        for campaign in campaigns {
            let looked = self.look_at(&campaign, now).await;
            self.has_lost_track |= looked.is_err();
            if let Some(next) = looked? {
                earliest = Some(earliest.map_or(next, |at: Timestamp| at.min(next)));
            }
        }
        Ok(earliest)
    }

    async fn look_at(
        &mut self,
        campaign: &Arc<Campaign>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let mut watch = match self.watches.remove(&campaign.name) {
            Some(watch) => watch,
            None => Watch {
                cursor: self.world.ledger.cursor(&campaign.name).await?,
                next: None,
                was_disabled: false,
            },
        };
        // Where this fails the watch is gone, and the next look asks the
        // ledger again.
        let taken = self.take(campaign, &mut watch, now).await;
        match taken {
            Err(LedgerError::Conflict { .. }) => {
                // Another host was here first: what it left is looked at anew.
                watch.cursor = self.world.ledger.cursor(&campaign.name).await?;
                watch.next = None;
                self.take(campaign, &mut watch, now).await?;
            }
            taken => taken?,
        }
        watch.was_disabled = !campaign.enabled;
        let next = watch.next.filter(|_| campaign.enabled);
        self.watches.insert(campaign.name.clone(), watch);
        Ok(next)
    }

    /// Takes what is due of one campaign, and begins it. What comes due while
    /// it is disabled is passed over, and not found again after a restart.
    async fn take(
        &self,
        campaign: &Campaign,
        watch: &mut Watch,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let hash = campaign.schedule.hash();
        let cursor = watch.cursor.as_ref();
        let current = cursor.filter(|cursor| cursor.schedule_hash == hash);
        let is_back = campaign.enabled && watch.was_disabled;
        let is_early = watch.next.is_some_and(|next| next > now);
        if current.is_some() && is_early && !is_back {
            return Ok(());
        }
        let seen = current.map(|cursor| Seen {
            schedule_hash: &cursor.schedule_hash,
            seen_until: cursor.seen_until,
        });
        let may_run = campaign.enabled && !is_back;
        let open = match may_run {
            true => self.open_runs(&campaign.name).await?,
            false => Vec::new(),
        };
        let look = match may_run {
            true => due(&campaign.schedule, seen, now, !open.is_empty()),
            false => passed_over(&campaign.schedule, seen, now),
        };
        let has_passed = !may_run
            && seen
                .and_then(|seen| campaign.schedule.next_after(seen.seen_until))
                .is_some_and(|next| next <= look.seen_until);
        if current.is_none() || !look.due.is_empty() || has_passed {
            let after = Cursor {
                schedule_hash: hash,
                seen_until: look.seen_until,
            };
            let claim = Claim {
                campaign: campaign.name.clone(),
                before: watch.cursor.clone(),
                after: after.clone(),
                runs: self.new_runs(campaign, look.due, open),
                at: now,
            };
            self.claim(claim).await?;
            watch.cursor = Some(after);
        }
        let next = campaign.schedule.next_after(look.seen_until);
        watch.next = next.map(|next| campaign.schedule.due_at(next));
        Ok(())
    }

    async fn claim(&self, claim: Claim) -> Result<(), LedgerError> {
        let mut unstarted = Vec::new();
        for run in self.world.ledger.claim(claim).await? {
            match self.world.ledger.run(&run).await? {
                Some(record) if record.state.is_open() => self.runs.begin(record),
                Some(record) => unstarted.push(record),
                None => {}
            }
        }
        self.runs.record_unstarted(unstarted);
        Ok(())
    }

    /// The campaign's open runs, on whichever host, in the order of their fire
    /// times.
    async fn open_runs(&self, campaign: &CampaignName) -> Result<Vec<RunId>, LedgerError> {
        let here = self.runs.open_runs(campaign);
        if self.world.rescan_every().is_none() {
            return Ok(here);
        }
        let open = self.world.ledger.open_runs().await?;
        let open = open.into_iter().filter(|run| run.campaign == *campaign);
        let mut runs: Vec<RunId> = open.map(|run| run.run).collect();
        // One that has just ended may be carried still.
        if runs.is_empty() {
            runs = here;
        }
        Ok(runs)
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

    fn new_runs(&self, campaign: &Campaign, dues: Vec<Due>, mut open: Vec<RunId>) -> Vec<NewRun> {
        let gone = self.gone(campaign);
        let destination = &campaign.activation.destination;
        let stand_in = || DestinationTerms {
            channel: destination.to_string(),
            max_body: 0,
            format: Format::default(),
        };
        let terms = self.world.terms(destination).cloned();
        let spec = RunSpec::of(campaign, &terms.unwrap_or_else(stand_in));
        dues.into_iter()
            .map(|due| {
                let fire_time = due.fire_time();
                let run = RunId::scheduled(&campaign.name, fire_time);
                let overlap = campaign.schedule.terms().overlap;
                let (state, error) = match (due, start(overlap, &open)) {
                    (Due::Run(_), _) if gone.is_some() => (RunState::Missed, gone.clone()),
                    (Due::Missed { reason, .. }, _) => (RunState::Missed, Some(reason)),
                    (Due::Skipped { reason, .. }, _) | (Due::Run(_), Start::Skip { reason }) => {
                        (RunState::Skipped, Some(reason))
                    }
                    (Due::Run(_), Start::Go) => {
                        open.push(run.clone());
                        (RunState::Queued, None)
                    }
                };
                NewRun {
                    run,
                    campaign: campaign.name.clone(),
                    connector: campaign.connector.clone(),
                    fire_time,
                    trigger: Trigger::Scheduled,
                    campaign_version: spec.version(),
                    spec: spec.to_json(),
                    state,
                    error,
                }
            })
            .collect()
    }
}
