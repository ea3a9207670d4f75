//! What the daemon writes into the warehouse for good: the statements that
//! register, settle and close a run, the tables they write, and the SQL an
//! administrator runs once.

pub mod adoption;
mod bootstrap;
mod cancelled;
pub mod carried;
mod cells;
pub mod erase;
mod facts;
pub mod register;
pub mod reopen;
pub mod settle;
mod tables;
pub mod tidy;
mod unwritable;
pub mod views;
mod withheld;

pub use adoption::{Remains, SilentRun};
pub use bootstrap::{BootstrapOptions, bootstrap, bootstrap_for_stages};
pub use cancelled::cancelled;
pub use erase::{BadKeys, ErasedKeys};
pub use facts::{
    BatchOutcome, BatchStatus, Closing, RefusedMember, RunFacts, RunStatus, Settlement, Tally,
    UnstartedRun,
};
pub use tables::{TABLES, Table};
pub use tidy::{Retention, Tidied};
pub use unwritable::Unwritable;
pub use withheld::{Withheld, withheld_history};
