//! The command line: one file per command, prints, exit codes.

pub mod problems;
