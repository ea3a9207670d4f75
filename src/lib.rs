//! Runs audience queries inside the warehouse on schedule, activates their
//! members through signed webhooks, and writes contact history back.
//!
//! The rooms, in the order the data passes them:

pub mod audience;
pub mod campaign;
pub mod cli;
pub mod daemon;
pub mod delivery;
pub mod history;
pub mod id;
pub mod run;
pub mod schedule;
pub mod warehouse;
pub mod webhook;
