//! What freezing an audience needs to know.

use serde::{Deserialize, Serialize};

/// The part of a campaign that decides who is in its audience, frozen in the
/// run specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceSpec {
    /// The selected column that identifies a person across runs.
    pub key: String,
    /// The campaign's own read-only query, as it wrote it.
    pub sql: String,
}
