//! Every file in `campaigns/` is valid; every file in `tests/bad/` gives its
//! recorded problems.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files has failed"
)]

use campaignd::audience::Dialect;
use campaignd::campaign::yaml::decode;
use campaignd::campaign::{Known, Problem, Source, compile};
use campaignd::daemon::settings;
use campaignd::delivery::Format;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What the operator of these tests has defined.
fn known() -> Known {
    Known {
        dialects: [
            ("sandbox".parse().unwrap(), Dialect::Sqlite),
            ("warehouse".parse().unwrap(), Dialect::Redshift),
        ]
        .into(),
        histories: [].into(),
        connectors: ["sandbox", "warehouse"].map(|n| n.parse().unwrap()).into(),
        destinations: ["email-esp", "form-taker", "line-taker", "sms-gateway"]
            .map(|n| n.parse().unwrap())
            .into(),
        formats: [
            ("form-taker".parse().unwrap(), Format::Form),
            ("line-taker".parse().unwrap(), Format::Ndjson),
        ]
        .into(),
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// The problems of every file of `folder`, in the words a user would see.
fn recorded(folder: &str, compile: impl Fn(&Source) -> Vec<Problem>) -> String {
    let mut text = String::new();
    for path in files(folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let problems = match decode(name, std::fs::read(&path).unwrap()) {
            Ok(text) => compile(&Source { name, text: &text }),
            Err(problem) => vec![problem],
        };
        assert!(!problems.is_empty(), "{name} is not bad");
        for problem in problems {
            writeln!(text, "{problem}").unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn every_sample_campaign_is_valid_and_goes_by_its_file_name() {
    for path in files("campaigns") {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let source = Source {
            name: &name,
            text: &text,
        };
        let (campaign, notes) = compile(&source, &known()).unwrap();
        assert_eq!(notes, []);
        assert_eq!(path.file_stem().unwrap(), campaign.name.as_str());
    }
}

#[test]
fn every_bad_campaign_file_gives_its_recorded_problems() {
    let problems = recorded("tests/bad", |source| {
        compile(source, &known()).expect_err(source.name)
    });
    // One mistake each, and a few with many.
    let of_files = problems.split_terminator("\n\n");
    let (single, many): (Vec<_>, Vec<_>) = of_files.partition(|said| !said.contains('\n'));
    assert!(
        single.len() >= 40 && many.len() >= 10,
        "{} and {}",
        single.len(),
        many.len()
    );
    insta::assert_snapshot!(problems);
}

#[test]
fn every_bad_settings_file_gives_its_recorded_problems_and_no_secret() {
    let problems = recorded("tests/bad/settings", |source| {
        settings::compile(source).expect_err(source.name)
    });
    assert!(!problems.contains("hunter-canary"), "{problems}");
    insta::assert_snapshot!(problems);
}
