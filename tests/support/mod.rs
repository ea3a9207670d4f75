//! What behaviour tests stand on.

#[expect(
    clippy::allow_attributes,
    reason = "each test file uses another part, so `expect` would fail in some"
)]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses another part of it"
)]
pub mod place;

#[expect(
    clippy::allow_attributes,
    reason = "each test file uses another part, so `expect` would fail in some"
)]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses another part of it"
)]
pub mod postgres;
