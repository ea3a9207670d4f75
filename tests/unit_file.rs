//! The systemd unit that is shipped.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files has failed"
)]

use std::path::Path;
use std::process::Command;

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/campaignd.service");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let installed = "/usr/bin/campaignd ";
    let unit = unit();
    assert!(unit.contains(installed));
    let built = concat!(env!("CARGO_BIN_EXE_campaignd"), " ");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("campaignd.service");
    std::fs::write(&path, unit.replace(installed, built)).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .expect("systemd-analyze is there; if not: apt-get install systemd");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // It only warns of an unknown key, and passes.
    assert!(!said.contains("campaignd.service"), "{said}");
}

#[test]
fn the_unit_gives_a_drain_longer_than_it_takes_by_default() {
    let unit = unit();
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let stop: u32 = stop.unwrap().trim_end_matches('s').parse().unwrap();
    assert!(stop > 30, "shutdown_grace is 30 s by default");
}
