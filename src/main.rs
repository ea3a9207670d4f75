//! Reads the command line, runs the command, turns its failure into an exit code.

use campaignd::cli;
use std::process::ExitCode;

/// Measured with batches of one, it lets half as many requests again go out in
/// a second as the C library's, which merges and splits what large futures
/// leave behind. mimalloc is as quick, and takes twice the memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
