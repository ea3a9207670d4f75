//! What several behaviour tests need.

#[expect(
    clippy::allow_attributes,
    reason = "which parts are unused differs from test to test"
)]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses the part it needs"
)]
pub mod receiver;
