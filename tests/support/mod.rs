//! What behaviour tests stand on.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test ends at the first surprise, and each file uses another part"
)]

pub mod dream;
pub mod dream_ledger;
pub mod gate;
pub mod ledger;
pub mod night;
pub mod oracle;
pub mod outage;
pub mod place;
pub mod postgres;
pub mod receiver;
pub mod records;
pub mod site;
pub mod tls;
