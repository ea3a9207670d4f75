//! Runs that people begin.

use super::desk::failed;
use super::files::{FilesView, InForce, kept};
use super::folder::{self, Folder};
use super::world::World;
use crate::admin::Reply;
use crate::campaign::{Campaign, RunSpec};
use crate::id::{BadName, CampaignName, RunId, Trigger};
use crate::run::{NewRun, PauseScope, RunRecord, RunState};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How long a person waits to hear whether the warehouse is there: one that
/// sleeps takes half a minute to wake.
const PATIENCE: Duration = Duration::from_mins(1);

/// The campaigns that a running daemon has in force.
pub(super) struct Directory {
    campaigns: BTreeMap<CampaignName, Arc<Campaign>>,
    has_problems: bool,
    /// How the files were read.
    files: FilesView,
    kept: Vec<Arc<Campaign>>,
}

impl Directory {
    /// The campaigns of `folder`, read at `now`; `files` was said before, and
    /// is what is to be said now.
    pub(super) fn of(folder: &Folder, files: &mut FilesView, now: Timestamp) -> Self {
        *files = FilesView::after(files, folder, now);
        let all = folder.campaigns.iter();
        Self {
            campaigns: all
                .map(|(name, loaded)| (name.clone(), Arc::clone(&loaded.campaign)))
                .collect(),
            has_problems: folder.refused > 0,
            files: files.clone(),
            kept: kept(folder),
        }
    }

    /// How the files were read, and what of them is kept, as it is `now`.
    pub(super) fn files(&self, now: Timestamp) -> FilesView {
        let kept = self.kept.iter().map(|campaign| InForce::of(campaign, now));
        FilesView {
            kept: kept.collect(),
            ..self.files.clone()
        }
    }

    /// The campaign in force under `name`, or what is to be told.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Campaign>, Reply> {
        let parsed = name.parse::<CampaignName>().ok();
        let found = parsed.and_then(|name| self.campaigns.get(&name));
        found.cloned().ok_or_else(|| {
            let unknown = folder::unknown(name, self.campaigns.keys());
            match self.has_problems {
                true => Reply::Problems(format!(
                    "{unknown}; some files have problems, see `campaignd check`"
                )),
                false => Reply::Refused(unknown),
            }
        })
    }
}

/// What a person wants of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// The time its id names and its templates see; now if none.
    pub fire_time: Option<Timestamp>,
    /// How many members are sent first, before it is asked whether to go on.
    pub canary: Option<NonZeroU32>,
}

/// What becomes of the campaign's open run when another is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRun {
    /// It is taken up instead: nobody carries it.
    IsTakenUp,
    /// It stands in the way: it is being carried.
    Refuses,
}

impl World {
    /// Begins a manual run of `campaign` for the user `by`, once warehouse and
    /// destination can be reached. Returns it, to be carried.
    pub async fn begin_manual(
        &self,
        campaign: &Campaign,
        wish: Wish,
        open: OpenRun,
        by: &str,
    ) -> Result<RunRecord, Reply> {
        let action = self.desk.action(by, "run", campaign.name.as_str());
        let begun = async {
            // Asked before anything is written, so that nothing is left behind.
            self.reach_warehouse(campaign).await?;
            self.reach_destination(campaign).await?;
            self.refuse_if_refusing(campaign).await?;
            let there = self.ledger.open_runs().await.map_err(failed)?;
            let left = there.into_iter().find(|run| run.campaign == campaign.name);
            if left.is_none() {
                self.desk.refuse_beside_held(&campaign.name).await?;
            }
            match (left, open) {
                (None, _) => self.claim_manual(campaign, wish).await,
                (Some(left), OpenRun::IsTakenUp) if wish.canary.is_some() => {
                    let run = &left.run;
                    Err(Reply::Refused(format!(
                        "{run} was interrupted and is open: carry it on first, with \
                         `campaignd run {}` and no --canary, or `campaignd cancel {run}`",
                        left.campaign
                    )))
                }
                (Some(left), OpenRun::IsTakenUp) => {
                    let run = &left.run;
                    tracing::warn!(run.id = %run, "carrying on {run}, which was interrupted");
                    Ok(left)
                }
                (Some(left), OpenRun::Refuses) => Err(Reply::Refused(format!(
                    "{} is open, and one run of a campaign is at a time: wait for its end \
                     (`campaignd runs show {}`), or `campaignd cancel` it",
                    left.run, left.run
                ))),
            }
        };
        self.desk.noted(action, begun).await
    }

    /// Begins the run of a fire time that was missed or skipped, for the user
    /// `by`: under its own id, as its campaign was when that was written down.
    pub async fn begin_missed(
        &self,
        name: &str,
        fire_time: Timestamp,
        by: &str,
    ) -> Result<RunRecord, Reply> {
        let name: CampaignName = name
            .parse()
            .map_err(|error: BadName| Reply::Refused(error.to_string()))?;
        let run = RunId::scheduled(&name, whole_second(fire_time));
        self.desk.begin_missed(&run, by).await
    }

    async fn reach_warehouse(&self, campaign: &Campaign) -> Result<(), Reply> {
        let name = &campaign.connector;
        let warehouse = self
            .warehouse(name)
            .ok_or_else(|| Reply::Refused(format!("connector `{name}` is gone")))?;
        let why = match tokio::time::timeout(PATIENCE, warehouse.ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        Err(Reply::Failed(format!(
            "connector `{name}`: {why}; nothing was begun"
        )))
    }

    /// A run whose destination is away would wait for hours, a person does
    /// not.
    async fn reach_destination(&self, campaign: &Campaign) -> Result<(), Reply> {
        let name = &campaign.activation.destination;
        let destination = self
            .destination(name)
            .ok_or_else(|| Reply::Refused(format!("destination `{name}` is gone")))?;
        destination.reach().await.map_err(|why| {
            Reply::Failed(format!(
                "destination `{name}` cannot be reached: {why}; nothing was begun. See that its `url` in campaignd.yaml is right and that it is up, then run again"
            ))
        })
    }

    /// A destination that has refused what it was sent is for a person to mend.
    async fn refuse_if_refusing(&self, campaign: &Campaign) -> Result<(), Reply> {
        let name = &campaign.activation.destination;
        let paused = self.ledger.pauses().await.map_err(failed)?;
        if !paused.contains(&PauseScope::Refusing(name.clone())) {
            return Ok(());
        }
        Err(Reply::Undelivered(format!(
            "destination `{name}` is paused since it refused what it was sent; nothing was begun. \
             When that is mended: campaignd destination resume {name}"
        )))
    }

    async fn claim_manual(&self, campaign: &Campaign, wish: Wish) -> Result<RunRecord, Reply> {
        let name = &campaign.activation.destination;
        let terms = self
            .terms(name)
            .ok_or_else(|| Reply::Refused(format!("destination `{name}` is gone")))?;
        let now = self.clock.now();
        let fire_time = whole_second(wish.fire_time.unwrap_or(now));
        let spec = RunSpec {
            canary: wish.canary,
            ..RunSpec::of(campaign, terms)
        };
        let new = NewRun {
            run: RunId::manual(&campaign.name, fire_time, 1),
            campaign: campaign.name.clone(),
            connector: campaign.connector.clone(),
            fire_time,
            trigger: Trigger::Manual,
            campaign_version: spec.version(),
            spec: spec.to_json().into(),
            state: RunState::Queued,
            error: None,
        };
        let run = self.ledger.claim_manual(new, now).await.map_err(failed)?;
        self.desk.find(&run).await
    }
}

/// Run ids name seconds, so a fire time is one.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
