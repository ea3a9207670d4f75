//! What the README shows is true: its files compile, its commands are there.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files has failed"
)]

use campaignd::campaign::{Source, compile};
use campaignd::daemon::settings;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).unwrap()
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let readme = readme();
    let mut blocks: Vec<String> = readme
        .split(&opening)
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n")
        .collect();
    blocks.retain(|block| !block.trim().is_empty());
    assert!(!blocks.is_empty(), "the README has no {language}");
    blocks
}

fn source(text: &str) -> Source<'_> {
    Source {
        name: "README.md",
        text,
    }
}

#[test]
fn every_yaml_block_is_an_operators_file_or_a_campaign_that_it_knows() {
    let (operators, campaigns): (Vec<_>, Vec<_>) = blocks("yaml")
        .into_iter()
        .partition(|block| block.contains("\nconnectors:"));
    let operators = operators
        .iter()
        .map(|text| settings::compile(&source(text)).unwrap());
    let operators: Vec<_> = operators.collect();
    // The campaigns are checked against the whole file, which comes first.
    let settings = operators
        .first()
        .expect("the README shows the operator's file");
    assert!(!campaigns.is_empty());
    for campaign in campaigns {
        let (_, notes) = compile(&source(&campaign), &settings.known()).unwrap();
        assert_eq!(notes, []);
    }
}

#[test]
fn every_json_block_is_json() {
    for block in blocks("json") {
        let _: serde_json::Value = serde_json::from_str(&block).unwrap();
    }
}

/// Each `campaignd WORD` that stands in code, and `show` of `runs show`.
fn commands() -> BTreeSet<Vec<String>> {
    let readme = readme();
    let mut commands = BTreeSet::new();
    for rest in readme.split("`campaignd ").skip(1) {
        let code = rest.split('`').next().unwrap();
        let is_a_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
        let words = code.split(' ').take(2).take_while(is_a_word);
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        // The second word is a command only after `runs`; elsewhere a name.
        if words.first().is_some_and(|word| word != "runs") {
            words.truncate(1);
        }
        commands.insert(words);
    }
    commands
}

fn help(command: &[String]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(command)
        .arg("--help")
        .output()
        .unwrap()
}

#[test]
fn every_command_the_readme_names_is_there() {
    for command in commands() {
        let output = help(&command);
        assert!(output.status.success(), "campaignd {}", command.join(" "));
    }
}

#[test]
fn every_command_that_is_there_is_named_in_the_readme() {
    let output = String::from_utf8(help(&[]).stdout).unwrap();
    let list = output.split("Commands:\n").nth(1).unwrap();
    let list = list.split("\n\n").next().unwrap();
    let named = commands();
    // What is indented further goes on with the line before.
    for line in list.lines().filter(|line| !line.starts_with("   ")) {
        let command = line.split_whitespace().next().unwrap();
        let is_named = named.contains(&vec![command.to_owned()]);
        assert!(is_named || command == "help", "campaignd {command}");
    }
}
