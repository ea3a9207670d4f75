//! Reads the command line, runs the command, turns its failure into an exit code.

fn main() {}
