//! How this process runs: the operator's file, compiled; secrets stay
//! references until they are used.

mod address;
mod connector;
mod destination;
mod destination_file;
mod destination_tls;
mod file;
mod history;
mod keep;
mod login;
mod oauth;
mod secret;
mod state;
mod top;

pub use connector::{Connector, ServerConnector, SqliteConnector};
pub use destination::{DestinationAuth, DestinationSettings};
pub use file::{Limits, LogFormat, LogLevel, LogSettings, Settings, SettingsFile};
pub use history::HistoryElsewhere;
pub use keep::Keep;
pub use secret::{Secret, Secrets, SettingsError};
pub use state::{PostgresStore, StateStore};
pub use top::{compile, masked};

#[cfg(test)]
mod tests;
