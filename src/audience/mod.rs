//! Whom a campaign asks for: lint of its SQL, the statements that freeze and
//! admit its audience inside the warehouse, and the funnel they count.

mod caps;
mod columns;
mod cut;
mod dialect;
mod expect;
mod fresh;
mod funnel;
mod holdout;
mod limit;
mod lint;
mod policy;
mod preview;
mod quote;
mod reading;
mod selected;
mod sources;
mod spec;
mod stage;
mod statement;
mod suppress;
mod uses;
mod wildcard;

pub use caps::{FrequencyCap, OpenMembers, ShownContacts};
pub use columns::{BadColumns, Column, MAX_COLUMNS, check_columns};
pub use cut::Cut;
pub use dialect::{Dialect, TableNames};
pub use expect::Expect;
pub use fresh::FreshWhen;
pub use funnel::Funnel;
pub use holdout::Holdout;
pub use limit::{BadPolicy, OrderBy};
pub use lint::{SqlProblem, lint};
pub use policy::Policy;
pub use preview::{Look, Shown};
pub use quote::{BadText, identifier};
pub use selected::{Selected, selected_columns};
pub use spec::AudienceSpec;
pub use stage::RunTables;
pub use statement::{Lock, Schema, Statement};
pub use uses::{Uses, is_named};
