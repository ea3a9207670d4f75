//! What people have asked for, as the ledger keeps it.

use jiff::Timestamp;

/// What is old enough to be removed from the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget {
    /// Runs that ended before this, with their batches, and specifications
    /// that no run names any more.
    pub runs_before: Timestamp,
    /// Commands of people before this.
    pub actions_before: Timestamp,
}

/// One command of one person, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The operating system's user.
    pub by: String,
    /// What was asked, such as `resume`.
    pub verb: String,
    /// Of what.
    pub target: String,
    /// `done`, `refused: …` or `failed: …`; none while it is not known.
    pub outcome: Option<String>,
    /// When it was asked, by the wall clock.
    pub at: Timestamp,
}
