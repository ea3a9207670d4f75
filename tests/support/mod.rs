//! What behaviour tests stand on.
#![expect(
    clippy::allow_attributes,
    reason = "each test file uses another part, so `expect` would fail in some"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses another part"
)]

pub mod oracle;
pub mod postgres;
pub mod receiver;
pub mod site;
