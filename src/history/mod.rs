//! What the daemon writes into the warehouse for good: the statements that
//! register, settle and close a run, the tables they write, and the SQL an
//! administrator runs once.

mod facts;

pub use facts::{
    BatchOutcome, BatchStatus, Closing, RunFacts, RunStatus, Settlement, Tally, UnstartedRun,
};
