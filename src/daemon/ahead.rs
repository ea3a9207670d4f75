//! Run specifications that are made before they are due, so that a second in
//! which a thousand campaigns fire is spent on their claims.

use super::world::World;
use crate::campaign::{Campaign, DestinationTerms, RunSpec};
use crate::delivery::Format;
use crate::id::CampaignName;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long before they are due specifications are made: longer than any two
/// looks are apart.
pub(super) const AHEAD: Duration = Duration::from_secs(3);

/// What is left alone, so that making them is over when they are due.
pub(super) const TOO_LATE: Duration = Duration::from_millis(250);

/// How many are kept: a few megabytes.
const MOST: usize = 2_048;

/// The specification of a campaign's next run.
#[derive(Clone)]
pub(super) struct Made {
    of: Arc<Campaign>,
    pub(super) spec: Arc<str>,
    pub(super) version: String,
}

impl Made {
    fn of(campaign: &Arc<Campaign>, world: &World) -> Self {
        let destination = &campaign.activation.destination;
        let stand_in = || DestinationTerms {
            channel: destination.to_string(),
            max_body: 0,
            format: Format::default(),
        };
        let terms = world.terms(destination).cloned();
        let spec = RunSpec::of(campaign, &terms.unwrap_or_else(stand_in)).to_json();
        Self {
            of: Arc::clone(campaign),
            version: RunSpec::version_of(&spec),
            spec: spec.into(),
        }
    }
}

/// The specifications that were made ahead, all with the same settings.
#[derive(Default)]
pub(super) struct Ahead(HashMap<CampaignName, Made>);

impl Ahead {
    /// Makes those of `campaigns`, and keeps no other.
    pub(super) fn make<'a>(
        &mut self,
        campaigns: impl Iterator<Item = &'a Arc<Campaign>>,
        world: &World,
    ) {
        let mut made = HashMap::new();
        for campaign in campaigns.take(MOST) {
            let known = self.0.remove(&campaign.name);
            let known = known.filter(|known| Arc::ptr_eq(&known.of, campaign));
            let new = known.unwrap_or_else(|| Made::of(campaign, world));
            made.insert(campaign.name.clone(), new);
        }
        self.0 = made;
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.0 = HashMap::new();
    }

    /// The specification of a run of `campaign` that begins now.
    pub(super) fn get(&self, campaign: &Arc<Campaign>, world: &World) -> Made {
        let known = self.0.get(&campaign.name);
        let known = known.filter(|known| Arc::ptr_eq(&known.of, campaign));
        known.cloned().unwrap_or_else(|| Made::of(campaign, world))
    }
}
