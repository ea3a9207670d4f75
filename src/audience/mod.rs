//! Whom a campaign asks for: lint of its SQL, the statements that freeze and
//! admit its audience inside the warehouse, and the funnel they count.

mod dialect;
mod funnel;
mod lint;
mod spec;

pub use dialect::{Dialect, TableNames};
pub use funnel::Funnel;
pub use lint::{SqlProblem, lint};
pub use spec::AudienceSpec;
