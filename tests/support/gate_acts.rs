//! What the gate can do with a statement.

use super::gate_wire::Refusal;
use std::time::Duration;

/// A statement that is about to be forwarded.
#[derive(Debug, Clone, Default)]
pub struct Passing {
    /// The first word behind `campaignd` in its leading comment, `settle`,
    /// `commit`; empty where it has none.
    pub step: String,
    /// Which of its step it is, from 1, over all connections.
    pub number: usize,
    /// The steps before it in the same transaction.
    pub transaction: Vec<String>,
}

impl Passing {
    /// Whether it commits a transaction that has done `step`.
    pub fn commits(&self, step: &str) -> bool {
        self.step == "commit" && self.transaction.iter().any(|done| done == step)
    }
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// By RST: what is under way is lost.
    Reset,
    /// By FIN: an end in good order, in the wrong place.
    Close,
}

/// What the gate does with a statement.
#[derive(Debug, Clone)]
pub enum Act {
    /// Forwards it.
    Pass,
    /// Forwards it so much later, whether the client is still there or not.
    Delay(Duration),
    /// Never forwards it, and cuts the connection.
    CutBefore(Cut),
    /// Forwards it, waits until the server has done it, and cuts the
    /// connection without a word of that.
    CutAfter(Cut),
    /// Passes on so many rows of the answer, and cuts the connection.
    CutAfterRows(usize, Cut),
    /// Passes on so many bytes of the answer, be it in the middle of a
    /// message, and cuts the connection.
    CutAfterBytes(usize, Cut),
    /// Refuses it with this error.
    Refuse(Refusal),
    /// Never forwards it; from here on every packet of the client's vanishes,
    /// and none comes.
    Vanish,
    /// Forwards it and sees to it that the server does it; every packet
    /// vanishes meanwhile and from then on.
    VanishDone,
}

impl Act {
    /// Redshift: two transactions cannot be put in an order.
    pub fn error_1023() -> Self {
        let detail = "Serializable isolation violation on table in the cluster";
        Self::refuse("XX000", "1023", detail, false)
    }

    /// Redshift: two transactions met.
    pub fn conflict() -> Self {
        let message = "could not complete because of conflict with concurrent transaction";
        Self::refuse("XX000", message, "", false)
    }

    /// Cancelled by an administrator or a time limit.
    pub fn cancelled() -> Self {
        let message = "canceling statement due to statement timeout";
        Self::refuse("57014", message, "", false)
    }

    /// The administrator ends the session.
    pub fn shut_down() -> Self {
        let message = "terminating connection due to administrator command";
        Self::refuse("57P01", message, "", true)
    }

    fn refuse(
        code: &'static str,
        message: &'static str,
        detail: &'static str,
        is_fatal: bool,
    ) -> Self {
        Self::Refuse(Refusal {
            code,
            message: message.to_owned(),
            detail: detail.to_owned(),
            is_fatal,
        })
    }
}
