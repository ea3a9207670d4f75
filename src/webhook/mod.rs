//! One attempt: a signed request out, an outcome back.

mod options;

pub use options::{Auth, DestinationOptions};
