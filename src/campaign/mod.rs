//! What a campaign file may say: from YAML to a [`Campaign`], or to everything
//! that is wrong with it; and the specification a run is frozen to.

mod activation;
mod compile;
mod expect;
mod file;
mod finding;
mod fresh;
mod policy;
mod run_spec;
mod schedule;
mod sql_template;
mod template_parts;
pub mod yaml;

pub use compile::{compile, duplicate_name, is_relation};
pub use file::{Activation, Campaign, Known};
pub use finding::problem_at;
pub use run_spec::{DestinationTerms, RunSpec};
pub use schedule::schedule_notes;
pub use sql_template::UnfitSql;
pub use yaml::{Problem, Severity, Source};
