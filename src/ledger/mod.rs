//! The ledger in a database: what was intended and what came of it. Never a
//! member.

mod begin;
mod command;
mod connectors;
mod lock;
mod rows;
mod sqlite;
mod trouble;
mod write_adopted;
mod write_batch;
mod write_run;
mod writer;

pub use sqlite::SqliteLedger;
