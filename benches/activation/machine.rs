//! What the figures were measured on.

use std::num::NonZeroUsize;

/// Cores, memory, kernel and the server's version, in a line.
pub(crate) fn facts(postgres: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, NonZeroUsize::get);
    let model = fact("/proc/cpuinfo", "model name");
    let memory = fact("/proc/meminfo", "MemTotal");
    let memory = memory.trim_end_matches(" kB").parse::<f64>();
    let memory = memory.unwrap_or_default() / 1_048_576.0;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    format!("{cores} cores ({model}), {memory:.0} GiB, Linux {kernel}, PostgreSQL {postgres}")
}

/// What the first line that begins with `key` says; nothing if there is none.
fn fact(file: &str, key: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or(String::new(), |(_, value)| value.trim().to_owned())
}
