#![doc = include_str!("../ARCHITECTURE.md")]

pub mod admin;
pub mod audience;
pub mod campaign;
pub mod cli;
pub mod daemon;
pub mod delivery;
pub mod history;
pub mod id;
pub mod ledger;
pub mod run;
pub mod schedule;
pub mod tls;
pub mod warehouse;
pub mod webhook;
