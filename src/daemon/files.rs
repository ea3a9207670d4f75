//! How the campaign files are, as the running daemon has read them.

use super::folder::Folder;
use crate::campaign::{Campaign, Severity};
use crate::id::{CampaignName, ConnectorName, DestinationName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What the daemon says of the campaign files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesView {
    /// Campaigns in force, last good versions included.
    pub in_force: usize,
    /// The files that are not valid, by name, or the folder where it cannot be
    /// read.
    pub invalid: BTreeSet<String>,
    /// When the folder was last read and had nothing invalid in it; none if
    /// that has not been since the daemon was started.
    pub read_well_at: Option<Timestamp>,
    /// The campaigns whose last good version is in force, since their file is
    /// not valid.
    #[serde(default)]
    pub kept: Vec<InForce>,
}

/// A campaign that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its name.
    pub campaign: CampaignName,
    /// What it says of itself.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Whether it runs by its schedule.
    pub enabled: bool,
    /// Where its audience is.
    pub connector: ConnectorName,
    /// Where it goes.
    pub destination: DestinationName,
    /// Its place in the waiting line.
    pub priority: u8,
    /// When it runs next, if ever again.
    pub next_fire_time: Option<Timestamp>,
}

impl InForce {
    /// `campaign`, as it is `now`.
    pub fn of(campaign: &Campaign, now: Timestamp) -> Self {
        Self {
            campaign: campaign.name.clone(),
            description: campaign.description.clone(),
            owner: campaign.owner.clone(),
            enabled: campaign.enabled,
            connector: campaign.connector.clone(),
            destination: campaign.activation.destination.clone(),
            priority: campaign.priority,
            next_fire_time: campaign
                .enabled
                .then(|| campaign.schedule.next_outside_blackouts(now))
                .flatten(),
        }
    }
}

impl FilesView {
    /// What `folder`, read at `now`, makes of what was said `before`.
    pub fn after(before: &Self, folder: &Folder, now: Timestamp) -> Self {
        let invalid = invalid(folder);
        Self {
            in_force: folder.campaigns.len(),
            read_well_at: match invalid.is_empty() {
                true => Some(now),
                false => before.read_well_at,
            },
            invalid,
            kept: Vec::new(),
        }
    }
}

/// The campaigns of `folder` in force without a valid file: what was read
/// before is kept.
pub(super) fn kept(folder: &Folder) -> Vec<Arc<Campaign>> {
    let invalid = invalid(folder);
    // A folder that cannot be read is named itself.
    let is_kept = |file: &str| invalid.iter().any(|name| Path::new(file).starts_with(name));
    let all = folder.campaigns.values();
    all.filter(|loaded| is_kept(&loaded.file))
        .map(|loaded| Arc::clone(&loaded.campaign))
        .collect()
}

/// The files of `folder` that have an error, by name.
pub fn invalid(folder: &Folder) -> BTreeSet<String> {
    let problems = folder.problems.iter();
    problems
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.file.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::folder;

    #[test]
    fn a_folder_is_read_well_when_no_file_of_it_is_refused() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let load = || folder::load(dir.path(), &Default::default(), Folder::default());
        let well = FilesView::after(&FilesView::default(), &load(), at(1));
        assert_eq!((well.read_well_at, well.invalid.len()), (Some(at(1)), 0));

        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "name: 7\n").unwrap();
        let ill = FilesView::after(&well, &load(), at(2));
        let names = [file.display().to_string()].into();
        assert_eq!((ill.read_well_at, &ill.invalid), (Some(at(1)), &names));

        std::fs::remove_file(&file).unwrap();
        let well = FilesView::after(&ill, &load(), at(3));
        assert_eq!((well.read_well_at, well.invalid.len()), (Some(at(3)), 0));

        drop(std::fs::remove_dir(dir.path()));
        let gone = FilesView::after(&well, &load(), at(4));
        assert_eq!((gone.read_well_at, gone.invalid.len()), (Some(at(3)), 1));
    }
}
