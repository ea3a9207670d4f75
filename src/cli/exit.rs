//! Exit codes, and the failures that carry them.

use std::process::ExitCode;

/// A bug in campaignd.
pub(super) const BUG: u8 = 1;
/// The command line is wrong, or names something that is not there.
pub(super) const USAGE: u8 = 2;
/// A file has problems.
pub(super) const PROBLEMS: u8 = 3;
/// A run ended with undelivered members, or was held.
pub(super) const UNDELIVERED: u8 = 4;
/// The warehouse, the state store or a destination cannot be reached.
pub(super) const UNREACHABLE: u8 = 5;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    pub(super) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, anyhow::Error::msg(message.into()))
    }

    /// A failure that the command has told of already.
    pub(super) fn silent(code: u8) -> Self {
        Self::new(code, anyhow::Error::msg(""))
    }

    pub(super) fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self::new(UNREACHABLE, error)
    }

    /// What the person at the terminal is told; nothing where the command has
    /// said it all.
    pub fn report(&self) -> Option<String> {
        let text = format!("{:#}", self.error);
        (!text.is_empty()).then(|| format!("campaignd: {text}"))
    }

    /// One of the codes of the README's table.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// Anything else that goes wrong in a command is a bug.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(BUG, error)
    }
}
