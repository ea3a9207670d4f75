//! Reads the command line, runs the command, turns its failure into an exit code.

use campaignd::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(report) = failure.report() {
                eprintln!("{report}");
            }
            failure.exit_code()
        }
    }
}
