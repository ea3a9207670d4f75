//! Instructions of the pure hot paths, counted by valgrind: `make bench-check`
//! fails when one has grown by more than a tenth over `counts.txt` beside this
//! file, `cargo bench --bench counts -- accept` writes that file anew.
//!
//! Each path is run `FEW` and `MANY` times in a process of its own. What the
//! second needs more, divided by the runs more, is the path's own count: what
//! the process does before and after is in both.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod paths;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const FEW: u32 = 5;

const MANY: u32 = 25;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        // `cargo test --benches` and `cargo nextest` call benches with these.
        _ if args.contains(&"--test") || args.contains(&"--list") => ExitCode::SUCCESS,
        ["run", path, times] => {
            paths::run(path, times.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        _ => match check(args.contains(&"accept")) {
            Ok(code) => code,
            Err(why) => {
                println!("nothing was counted: {why}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Counts every path. Fails where one has grown, unless what is counted is
/// accepted.
fn check(accepts: bool) -> Result<ExitCode, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts/counts.txt");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let mut counts = String::new();
    let mut grown = Vec::new();
    println!(
        "{:<12} {:>12} {:>12} {:>8}",
        "path", "kept", "now", "change"
    );
    for path in paths::ALL {
        let now = count(path)?;
        counts.push_str(&format!("{path} {now}\n"));
        let Some(kept) = kept(&text, path) else {
            println!("{path:<12} {:>12} {now:>12}", "none");
            grown.push(path);
            continue;
        };
        let change = (now as f64 / kept as f64 - 1.0) * 100.0;
        println!("{path:<12} {kept:>12} {now:>12} {change:>+7.1}%");
        if now * 10 > kept * 11 {
            grown.push(path);
        }
    }
    if accepts {
        let written = std::fs::write(&file, counts);
        written.map_err(|error| format!("{}: {error}", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if grown.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "grown by more than a tenth, or not kept yet: {}; make it cheaper, or take it as it is \
         with `cargo bench --bench counts -- accept`",
        grown.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

fn kept(text: &str, path: &str) -> Option<u64> {
    let counts = text.lines().filter_map(|line| line.split_once(' '));
    let mut of_path = counts.filter(|(name, _)| *name == path);
    of_path.next()?.1.trim().parse().ok()
}

/// Instructions of one run of `path`.
fn count(path: &str) -> Result<u64, String> {
    let (few, many) = (instructions(path, FEW)?, instructions(path, MANY)?);
    Ok(many.saturating_sub(few) / u64::from(MANY - FEW))
}

/// Instructions of a process that runs `path` so many times.
fn instructions(path: &str, times: u32) -> Result<u64, String> {
    let this: PathBuf = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["run", path, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind is needed (apt install valgrind): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match counted {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("{path} under valgrind ended so:\n{said}")),
    }
}
