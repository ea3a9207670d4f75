//! Campaign files that attack their reader.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support::site::Site;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

/// What the command may have in memory, in KiB, with all that its allocator
/// keeps at hand: less than the largest of the files, and than what the aliases
/// of the others stand for.
const MEMORY_KIB: u32 = 192 * 1024;

/// Bytes of the largest file: some text, and nothing behind it.
const HUGE: u64 = 256 * 1024 * 1024;

fn campaign(name: &str, sql: &str) -> String {
    format!(
        "name: {name}
connector: warehouse
schedule: {{ every: 1d }}
audience: {{ key: profile_id, sql: \"{sql}\" }}
activation: {{ destination: sink }}
"
    )
}

/// Files that are refused, and what of each is said.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let bomb = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/bad/alias-bomb.yaml"
    ));
    let long = "x".repeat(500_000);
    let aliases = "*a, ".repeat(100_000);
    let deep = |open: &str| format!("{}x", open.repeat(10_000)).into_bytes();
    let mut latin = campaign("latin", "select profile_id from t").into_bytes();
    latin.extend(b"# caf\xe9\n");
    vec![
        ("alias-bomb", bomb.unwrap(), "aliases"),
        (
            "alias-texts",
            format!("a: &a {long}\nb: [{aliases}]\n").into_bytes(),
            "aliases",
        ),
        ("deep-blocks", deep("- "), "levels"),
        ("deep-lists", deep("["), "levels"),
        ("deep-sections", deep("{a: "), "levels"),
        ("latin", latin, "UTF-8"),
        ("nul", b"name: nul\0\n".to_vec(), "NUL"),
    ]
}

/// Files that are taken.
fn taken() -> Vec<(&'static str, String)> {
    let base = "select profile_id from shoppers where";
    let terms = format!("{base} n = 1{}", " or n = 1".repeat(30_000));
    let deep = format!("{base} {}n = 1{}", "(".repeat(10_000), ")".repeat(10_000));
    let bom = format!("\u{feff}{}", campaign("bom", &format!("{base} n = 1")));
    vec![
        ("bom", bom),
        ("terms", campaign("terms", &terms)),
        ("parentheses", campaign("parentheses", &deep)),
    ]
}

#[tokio::test]
async fn files_that_attack_their_reader_are_refused_in_little_memory() {
    let site = Site::sqlite().await;
    let folder = site.path().join("campaigns");
    let mut expect = BTreeSet::new();
    for (name, text, said) in refused() {
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
        expect.insert((name.to_owned(), said));
    }
    for (name, text) in taken() {
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
    let mut huge = File::create(folder.join("huge.yaml")).unwrap();
    huge.write_all(campaign("huge", "select profile_id from t").as_bytes())
        .unwrap();
    huge.set_len(HUGE).unwrap();
    expect.insert(("huge".to_owned(), "larger than 1 MiB"));

    let output = Command::new("sh")
        .args(["-c", "ulimit -d \"$0\" && exec \"$@\""])
        .arg(MEMORY_KIB.to_string())
        .arg(env!("CARGO_BIN_EXE_campaignd"))
        .args(["check", "--format", "json"])
        .current_dir(site.path())
        // Each thread has a stack, and machines differ in how many they have.
        .env("TOKIO_WORKER_THREADS", "2")
        .env("CAMPAIGND_CONFIG", site.path().join("campaignd.yaml"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["campaigns"], 11);
    let mut found = BTreeSet::new();
    for problem in report["problems"].as_array().unwrap() {
        let file = problem["file"].as_str().unwrap();
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".yaml");
        let message = problem["message"].as_str().unwrap();
        if problem["severity"] == "note" {
            assert!(["terms", "parentheses"].contains(&name), "{problem}");
            assert!(message.contains("was not checked further"), "{problem}");
            continue;
        }
        let said = expect.iter().find(|(refused, _)| refused == name);
        let (_, said) = said.unwrap_or_else(|| panic!("{problem}"));
        assert!(message.contains(said), "{problem}");
        found.insert((name.to_owned(), *said));
    }
    assert_eq!(found, expect);
}
