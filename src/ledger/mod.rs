//! The ledger in a database: what was intended and what came of it. Never a
//! member.

mod begin;
mod bundle;
mod claims;
mod command;
mod connectors;
mod journal;
mod lock;
mod postgres;
mod postgres_adopted;
mod postgres_batches;
mod postgres_connectors;
mod postgres_forget;
mod postgres_options;
mod postgres_pauses;
mod postgres_reopen;
mod postgres_rows;
mod postgres_runs;
mod postgres_store;
mod postgres_trouble;
mod rows;
mod sqlite;
mod trouble;
mod write_adopted;
mod write_batch;
mod write_forget;
mod write_pause;
mod write_reopen;
mod write_run;
mod writer;

pub use postgres::PostgresLedger;
pub use postgres_options::{Encryption, PostgresOptions};
pub use sqlite::SqliteLedger;
