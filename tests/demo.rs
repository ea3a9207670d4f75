//! The demo, with the built program: every sample campaign runs in it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

fn campaignd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(args)
        .output()
        .unwrap()
}

/// The campaigns in `folder`, by the names of their files.
fn campaigns(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_sample_campaign_runs_in_the_demo_and_delivers_all_it_planned() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().to_str().unwrap();
    let output = campaignd(&["demo", "--keep", kept, "--format", "json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");

    let samples = campaigns(&Path::new(env!("CARGO_MANIFEST_DIR")).join("campaigns"));
    assert!(samples.len() >= 6, "{samples:?}");
    assert_eq!(campaigns(&dir.path().join("campaigns")), samples);
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let run: BTreeSet<String> = lines
        .iter()
        .map(|line| line["campaign"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(run, samples);
    for line in &lines {
        let delivered = line["delivered"].as_u64().unwrap();
        assert!(delivered > 0, "{line}");
        assert_eq!(line["planned"].as_u64().unwrap(), delivered, "{line}");
        assert_eq!(line["state"], "finished", "{line}");
    }

    let config = dir.path().join("campaignd.yaml");
    let check = campaignd(&["check", "--config", config.to_str().unwrap()]);
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
}

#[test]
fn the_readme_says_of_every_sample_what_it_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for sample in campaigns(&root.join("campaigns")) {
        assert!(readme.contains(&format!("\n| `{sample}` | ")), "{sample}");
    }
}
