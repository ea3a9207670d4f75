//! One attempt: a signed request out, an outcome back.

mod answer;
mod body;
mod client;
mod destination;
mod error;
mod failure;
mod guard;
mod headers;
mod oauth;
mod options;
mod reach;
mod resolver;

pub use destination::HttpDestination;
pub use error::WebhookError;
pub use guard::{AddressRefused, never_dialled};
pub use options::{Auth, ClientCertificate, DestinationOptions, OAuth2};
pub use reach::JudgedAddress;
