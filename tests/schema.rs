//! The schemas say what the reader reads and what the commands print.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use boon::{Compiler, Schemas};
use campaignd::campaign::{Known, Source, compile};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::site::Site;

fn printed(what: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(["schema", what])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn schema(what: &str) -> Value {
    serde_json::from_str(&printed(what)).unwrap()
}

/// What `schema` has against `value`.
fn refusal(schema: &Value, value: &Value) -> Option<String> {
    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    compiler
        .add_resource("schema.json", schema.clone())
        .unwrap();
    let index = compiler.compile("schema.json", &mut schemas).unwrap();
    let checked = schemas.validate(value, index);
    checked.err().map(|error| error.to_string())
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file as a program that knows YAML reads it; none where it cannot be read.
fn yaml(text: &str) -> Option<Value> {
    serde_yaml::from_str(text).ok()
}

fn campaigns() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root("campaigns")).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.display().to_string(),
                std::fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

/// The fenced YAML blocks of the README.
fn readme() -> Vec<String> {
    let text = std::fs::read_to_string(root("README.md")).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .map(|rest| rest.split("\n```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_committed_campaign_schema_is_what_the_command_prints() {
    let committed = std::fs::read_to_string(root("campaign.schema.json")).unwrap();
    assert_eq!(printed("campaign").trim_end(), committed.trim_end());
}

#[test]
fn it_accepts_every_sample_campaign_and_each_of_them_names_it() {
    let schema = schema("campaign");
    for (name, text) in campaigns() {
        assert_eq!(refusal(&schema, &yaml(&text).unwrap()), None, "{name}");
        let comment = "# yaml-language-server: $schema=../campaign.schema.json\n";
        assert!(text.starts_with(comment), "{name}");
    }
}

#[test]
fn the_schemas_know_every_key_the_readme_shows() {
    let (campaign, config) = (schema("campaign"), schema("config"));
    for block in readme() {
        let schema = if block.contains("\nconnectors:") {
            &config
        } else {
            &campaign
        };
        assert_eq!(refusal(schema, &yaml(&block).unwrap()), None, "{block}");
    }
}

/// The bad files whose mistakes only the reader sees.
const ONLY_THE_READER_SEES: &[&str] = &[
    // No YAML reader takes it, or ours takes what it says in another way.
    "alias-bomb",
    "bom-crlf",
    "complex-key",
    "deep-blocks",
    "deep-nesting",
    "duplicate-key",
    "not-utf8",
    "nul",
    "strange-numbers",
    "tab-indentation",
    "tag",
    "two-documents",
    "unclosed",
    "unknown-alias",
    // What the operator has defined.
    "form-of-many",
    "lines-with-body",
    "stranger-name",
    "unknown-names",
    // How long something is, or comes before something.
    "long-attributes",
    "schedule-at-in-blackout",
    "schedule-at-outside",
    "schedule-bounds",
    "schedule-empty-window",
    "schedule-never",
    "schedule-too-often",
    "unknown-zone",
    // SQL.
    "sql-backslash-on-redshift",
    "sql-key-behind-star",
    "sql-many-templates",
    "sql-reserved-column",
    "sql-two-columns-of-one-name",
    "sql-key-not-selected",
    "sql-open-literal",
    "sql-select-into",
    "sql-star",
    "sql-two-statements",
    "sql-update",
    "sql-writes-inside",
    "star-inside",
    // Templates.
    "fresh-template-value",
    "fresh-templates",
    "sql-template-open",
    "sql-templates",
    "templates-of-any-column",
    "templates-several-wrong",
    "templates-without-bound",
];

#[test]
fn it_refuses_every_bad_file_but_those_with_mistakes_that_only_the_reader_sees() {
    let schema = schema("campaign");
    let entries = std::fs::read_dir(root("tests/bad")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut accepted = BTreeSet::new();
    let mut files = 0;
    for path in paths.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")) {
        files += 1;
        let text = std::fs::read(&path).unwrap();
        let value = std::str::from_utf8(&text).ok().and_then(yaml);
        if value.is_none_or(|value| refusal(&schema, &value).is_none()) {
            accepted.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert!(files >= 40, "{files}");
    let expect = ONLY_THE_READER_SEES.iter().map(ToString::to_string);
    assert_eq!(accepted, expect.collect::<BTreeSet<_>>());
}

/// Each path of keys below `schema`'s sections, lists passed through.
fn paths(schema: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path: Vec<String> = path.iter().chain([key]).cloned().collect();
        paths(value, &path, found);
        found.push(path);
    }
}

/// A file in which nothing but that path stands.
fn file_with(path: &[String]) -> String {
    let value = path.iter().rev().fold(json!("x"), |value, key| {
        Value::Object(Map::from_iter([(key.clone(), value)]))
    });
    serde_json::to_string(&value).unwrap()
}

#[test]
fn the_reader_knows_every_key_that_the_campaign_schema_has() {
    let mut found = Vec::new();
    paths(&schema("campaign"), &[], &mut found);
    assert!(found.len() > 40, "{found:?}");
    for path in found {
        let text = file_with(&path);
        let source = Source {
            name: "f",
            text: &text,
        };
        let problems = compile(&source, &Known::default()).unwrap_err();
        let unknown = format!("unknown key `{}`", path.join("."));
        let is_unknown = problems.iter().any(|p| p.message.starts_with(&unknown));
        assert!(!is_unknown, "{unknown}");
    }
}

/// The same schema, admitting no key that it does not name.
fn closed(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut map: Map<String, Value> = map
                .iter()
                .map(|(key, value)| (key.clone(), closed(value)))
                .collect();
            if map.get("properties").is_some_and(|p| p.is_object()) && map.contains_key("required")
            {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            Value::Object(map)
        }
        Value::Array(items) => items.iter().map(closed).collect(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_commands_print_is_what_the_schemas_say_key_for_key() {
    let site = Site::sqlite().await;
    site.sql("create table shoppers (profile_id text, email text)")
        .await;
    site.sql("insert into shoppers values ('p-1', 'a@example.com'), ('p-2', null)")
        .await;
    site.write(
        "campaigns/good.yaml",
        "name: good
connector: warehouse
schedule: { cron: '0 0 1 1 *', timezone: UTC }
audience:
  key: profile_id
  sql: select profile_id, email from shoppers
activation: { destination: sink }
",
    );
    let plan = site.json(&["plan", "good", "--sql", "--explain"]).await;
    assert_eq!(refusal(&closed(&schema("plan")), &plan), None, "{plan:#}");
    let status = site.json(&["status"]).await;
    assert_eq!(
        refusal(&closed(&schema("status")), &status),
        None,
        "{status:#}"
    );
    let run = site.json(&["run", "good"]).await;
    let id = run["run_id"].as_str().unwrap();
    for (what, args) in [
        ("status", &["status"][..]),
        ("runs", &["runs"]),
        ("runs", &["runs", "show", id]),
        ("forecast", &["forecast", "--days", "1"]),
    ] {
        let shown = site.json(args).await;
        assert_eq!(refusal(&closed(&schema(what)), &shown), None, "{shown:#}");
    }
}
