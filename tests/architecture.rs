//! The table of rooms, compared with what the source says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Whether a room may touch the world.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pure,
    Edge,
}

/// Each room, whether it is pure, and the other rooms it may name.
const ROOMS: &[(&str, Kind, &str)] = &[
    ("id", Kind::Pure, ""),
    ("schedule", Kind::Pure, "id"),
    ("audience", Kind::Pure, "id"),
    ("delivery", Kind::Pure, "id"),
    ("history", Kind::Pure, "id audience"),
    ("campaign", Kind::Pure, "id schedule audience delivery"),
    (
        "run",
        Kind::Edge,
        "id schedule audience delivery history campaign",
    ),
    ("tls", Kind::Edge, ""),
    ("warehouse", Kind::Edge, "id audience history run tls"),
    ("webhook", Kind::Edge, "id delivery run tls"),
    ("ledger", Kind::Edge, "id run"),
    ("admin", Kind::Edge, "id run"),
    (
        "daemon",
        Kind::Edge,
        "id schedule audience delivery history campaign run tls warehouse webhook ledger admin",
    ),
    (
        "cli",
        Kind::Edge,
        "id schedule audience delivery history campaign run tls warehouse webhook ledger admin daemon",
    ),
];

/// What a pure room never says.
const EDGE_WORDS: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "tokio::",
    "std::fs",
    "std::env",
    "std::net",
    "tracing::",
    "Timestamp::now",
    "Zoned::now",
];

/// Ways of naming rooms that these tests could not follow.
const HIDING_WORDS: &[&str] = &["crate::{", "super::super", "crate as"];

/// The longest file a reader can hold.
const MAX_LINES: usize = 600;

#[test]
fn every_room_has_its_row() {
    let lib = code(&source("lib.rs"));
    let rooms: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(!rooms.is_empty(), "lib.rs lists the rooms");
    for room in &rooms {
        assert!(ROOMS.iter().any(|(name, ..)| name == room), "{room}");
    }
    for entry in fs::read_dir(src()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        let is_room = rooms.contains(&room) || ["lib", "main"].contains(&room);
        assert!(is_room, "src/{name} is not in lib.rs");
    }
}

#[test]
fn a_room_names_only_the_rooms_its_row_allows() {
    let mut found = Vec::new();
    for (room, _, allowed) in ROOMS {
        for file in files_of(room) {
            let text = code(&file);
            let named = text.split("crate::").skip(1).map(first_word);
            let strange = named.filter(|&name| {
                let is_room = ROOMS.iter().any(|(other, ..)| *other == name);
                is_room && name != *room && !allowed.split(' ').any(|other| other == name)
            });
            found.extend(strange.map(|name| format!("{} names {name}", file.display())));
            let hidden = HIDING_WORDS.iter().filter(|word| text.contains(**word));
            found.extend(hidden.map(|word| format!("{} says `{word}`", file.display())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_pure_room_does_no_io() {
    let mut found = Vec::new();
    let pure = ROOMS.iter().filter(|(_, kind, _)| *kind == Kind::Pure);
    for file in pure.flat_map(|(room, ..)| files_of(room)) {
        let text = code(&file);
        let said = EDGE_WORDS.iter().filter(|word| text.contains(**word));
        found.extend(said.map(|word| format!("{} says `{word}`", file.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src", "tests", "benches"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
    {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_file_of_tests_is_built() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let all = fs::read_to_string(folder.join("all.rs")).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "all") else {
            continue;
        };
        let line = format!("mod {name};");
        assert!(all.lines().any(|l| l == line), "all.rs has no `{line}`");
    }
}

#[test]
fn comments_strings_and_test_modules_are_not_code() {
    let text = r##"
        use crate::a; // crate::b
        /* crate::c /* crate::d */ */ let s = "crate::e \" {"; let c = '{'; let l: &'a str = r#"crate::f""#;
        #[cfg(test)]
        mod tests { use crate::g; }
        use crate::h;
    "##;
    let bare = without_tests(&without_comments(text));
    let names: Vec<&str> = bare.split("crate::").skip(1).map(first_word).collect();
    assert_eq!(names, ["a", "h"]);
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn source(name: &str) -> PathBuf {
    src().join(name)
}

/// The files of a room; none where it is not built yet.
fn files_of(room: &str) -> Vec<PathBuf> {
    let single = source(&format!("{room}.rs"));
    if single.exists() {
        return vec![single];
    }
    let mut files = rust_files(&source(room));
    // `#[cfg(test)] mod tests;`
    files.retain(|file| file.file_name().is_some_and(|name| name != "tests.rs"));
    files
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .collect()
}

/// What a file says, without comments, string contents and test modules.
fn code(file: &Path) -> String {
    without_tests(&without_comments(&fs::read_to_string(file).unwrap()))
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = comment_or_literal(rest, code.ends_with(|c: char| c.is_alphanumeric()));
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    code
}

/// The length of the comment or literal that `text` begins with, else 0.
fn comment_or_literal(text: &str, inside_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('"') {
        return quoted(text);
    }
    if let Some(inner) = text.strip_prefix('\'') {
        // A character; else it is a lifetime.
        let close = match inner.strip_prefix('\\') {
            Some(escaped) => escaped.chars().next().map_or(0, char::len_utf8) + 1,
            None => inner.chars().next().map_or(0, char::len_utf8),
        };
        let end = inner[close..].find('\'');
        let is_char = end == Some(0) || (inner.starts_with("\\u") && end.is_some());
        return if is_char {
            close + end.unwrap_or(0) + 2
        } else {
            0
        };
    }
    let raw = text.strip_prefix('r').filter(|_| !inside_word);
    let Some(fence) = raw.map(|raw| raw.len() - raw.trim_start_matches('#').len()) else {
        return 0;
    };
    if !text[1 + fence..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(fence));
    let body = 2 + fence;
    text[body..]
        .find(&close)
        .map_or(text.len(), |end| body + end + close.len())
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Drops what follows each `#[cfg(test)]`, to its `;` or closing brace.
fn without_tests(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut depth = 0;
        let end = part.find(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(c, '}' | ';')
        });
        kept.push_str(&part[end.map_or(part.len(), |end| end + 1)..]);
    }
    kept
}
