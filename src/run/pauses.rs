//! The emergency stop: what nothing is to be sent for, until a person says so.

use crate::id::{BadName, CampaignName, DestinationName};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use tokio::sync::watch;

/// What is paused. Stored and spoken of as `all`, `campaign:<name>`,
/// `destination:<name>` or `refusing:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseScope {
    /// Everything.
    All,
    /// The runs of one campaign.
    Campaign(CampaignName),
    /// What goes to one destination.
    Destination(DestinationName),
    /// The same, because it refuses whatever it is sent: found by who carries
    /// a run, and lifted by a person who has mended it.
    Refusing(DestinationName),
}

impl PauseScope {
    /// Whether it keeps runs of `campaign` from sending to `destination`.
    pub fn covers(&self, campaign: &CampaignName, destination: &DestinationName) -> bool {
        match self {
            Self::All => true,
            Self::Campaign(name) => name == campaign,
            Self::Destination(name) | Self::Refusing(name) => name == destination,
        }
    }
}

impl fmt::Display for PauseScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Campaign(name) => write!(f, "campaign:{name}"),
            Self::Destination(name) => write!(f, "destination:{name}"),
            Self::Refusing(name) => write!(f, "refusing:{name}"),
        }
    }
}

impl FromStr for PauseScope {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.split_once(':') {
            Some(("campaign", name)) => Ok(Self::Campaign(name.parse()?)),
            Some(("destination", name)) => Ok(Self::Destination(name.parse()?)),
            Some(("refusing", name)) => Ok(Self::Refusing(name.parse()?)),
            _ if text == "all" => Ok(Self::All),
            // A bare name is a campaign's, as on the command line.
            _ => Ok(Self::Campaign(text.parse()?)),
        }
    }
}

/// A pause begun or lifted, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseChange {
    /// What.
    pub scope: PauseScope,
    /// Whether it is paused from now on.
    pub paused: bool,
    /// The operating system's user who said so.
    pub by: String,
    /// The wall clock.
    pub at: Timestamp,
}

/// A pause in force, and what the ledger knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// What.
    pub scope: PauseScope,
    /// Who said so first.
    pub by: Option<String>,
    /// Since when, by the wall clock.
    pub since: Option<Timestamp>,
}

/// What is paused now; clones see the same.
#[derive(Debug, Clone)]
pub struct Pauses {
    now: watch::Receiver<BTreeSet<PauseScope>>,
    tell: watch::Sender<BTreeSet<PauseScope>>,
}

impl Default for Pauses {
    /// Nothing is paused but by who carries a run.
    fn default() -> Self {
        Self::new(watch::channel(BTreeSet::new()).0)
    }
}

impl Pauses {
    /// What the sender says, and says later.
    pub fn new(tell: watch::Sender<BTreeSet<PauseScope>>) -> Self {
        Self {
            now: tell.subscribe(),
            tell,
        }
    }

    /// Tells all who hold a clone of a pause that the ledger has.
    pub(super) fn begin(&self, scope: PauseScope) {
        self.tell.send_if_modified(|paused| paused.insert(scope));
    }

    /// Whether nothing may be begun for `campaign` at `destination`.
    pub fn cover(&self, campaign: &CampaignName, destination: &DestinationName) -> bool {
        is_covered(&self.now.borrow(), campaign, destination)
    }

    /// Returns when something may be begun again; at once if nothing is
    /// paused.
    pub async fn lifted(&mut self, campaign: &CampaignName, destination: &DestinationName) {
        let is_free = |paused: &BTreeSet<PauseScope>| !is_covered(paused, campaign, destination);
        if self.now.wait_for(is_free).await.is_err() {
            // Who could lift it is gone; whoever waits here is stopped.
            std::future::pending::<()>().await;
        }
    }
}

fn is_covered(
    paused: &BTreeSet<PauseScope>,
    campaign: &CampaignName,
    destination: &DestinationName,
) -> bool {
    paused
        .iter()
        .any(|scope| scope.covers(campaign, destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_covers_what_it_names_and_nothing_else() {
        let (campaign, destination) = ("winback".parse().unwrap(), "esp".parse().unwrap());
        for (scope, covers) in [
            ("all", true),
            ("campaign:winback", true),
            ("winback", true),
            ("destination:esp", true),
            ("refusing:esp", true),
            ("campaign:esp", false),
            ("destination:winback", false),
        ] {
            let scope: PauseScope = scope.parse().unwrap();
            assert_eq!(scope.to_string().parse::<PauseScope>().unwrap(), scope);
            let (sender, _) = watch::channel(BTreeSet::from([scope.clone()]));
            assert_eq!(
                Pauses::new(sender).cover(&campaign, &destination),
                covers,
                "{scope}"
            );
        }
    }
}
