//! A document: values and their places, put together.

use super::MAX_FILE_BYTES;
use super::place::{Problem, Severity, Source};
use super::raw::{self, Raw};
use super::spans::{self, Spans, not_yaml};
use serde_json::Number;
use std::ops::Range;

/// The byte order mark some editors write.
const BOM: &str = "\u{feff}";

/// A file's one document.
#[derive(Debug)]
pub struct Document {
    root: Node,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// In bytes; empty for a section or list in block style.
    pub(super) at: Range<usize>,
    /// Whether it is a `|` text, whose lines are the file's lines.
    pub(super) literal: bool,
    pub(super) data: Data<Node>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Data<N> {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number JSON can hold.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<N>),
    /// A section: its keys in the order of the file, repeated ones included.
    Section(Vec<Entry<N>>),
    /// Something our files have no use for; what it is.
    Strange(&'static str),
}

/// A key of a section, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry<N> {
    /// The key.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) key_at: Range<usize>,
    /// Its value.
    pub(super) value: N,
}

impl Document {
    /// Reads the one document of `source`, or says why there is none.
    pub fn read(source: &Source) -> Result<Self, Problem> {
        let problem =
            |at: usize, message: String| Problem::at(source, at..at + 1, Severity::Error, message);
        if source.text.len() > MAX_FILE_BYTES {
            return Err(problem(
                0,
                "the file is larger than 1 MiB; divide it, or move data into the warehouse"
                    .to_owned(),
            ));
        }
        if let Some(at) = source.text.find('\0') {
            return Err(problem(
                at,
                "a NUL character stands here; remove it, or save the file as UTF-8".to_owned(),
            ));
        }
        let text = source.text.strip_prefix(BOM).unwrap_or(source.text);
        let skipped = source.text.len() - text.len();
        let places = spans::read(text)
            .map_err(|(at, message)| problem(at + skipped, message))?
            .ok_or_else(|| problem(0, "the file is empty; fill it in, or remove it".to_owned()))?;
        let raw = raw::read(text).map_err(|error| {
            let at = error.location().map_or(0, |place| place.index());
            problem(at + skipped, refusal(&error))
        })?;
        let root = place(raw, &places, skipped).map_err(|at| {
            problem(
                at + skipped,
                "a key must be a text, as in `name:`".to_owned(),
            )
        })?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }
}

/// What the YAML reader minds, without its own idea of the place.
fn refusal(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    if text.contains(raw::TOO_MUCH) || text.contains("repetition limit exceeded") {
        return raw::TOO_MUCH.to_owned();
    }
    let message = text.split(" at line ").next().unwrap_or(&text);
    not_yaml(message)
}

/// Puts a value and its places together. What an alias stands for is placed at
/// the alias. Gives back the place of a key that is not a text.
fn place(raw: Raw, spans: &Spans, skipped: usize) -> Result<Node, usize> {
    let alias = Spans::leaf(spans.at.clone(), false);
    let inner = |index: usize| spans.inner.get(index).unwrap_or(&alias);
    let data = match raw {
        Raw::Null => Data::Null,
        Raw::Bool(value) => Data::Bool(value),
        Raw::Number(value) => Data::Number(value),
        Raw::Text(text) => Data::Text(text),
        Raw::Strange(what) => Data::Strange(what),
        Raw::List(items) => {
            let items = items.into_iter().enumerate();
            let items = items.map(|(index, item)| place(item, inner(index), skipped));
            Data::List(items.collect::<Result<_, _>>()?)
        }
        Raw::Section(entries) => {
            let entries = entries.into_iter().enumerate();
            let entries = entries.map(|(index, (key, value))| {
                let key_at = inner(2 * index).at.clone();
                let Some(key) = key_text(key) else {
                    return Err(key_at.start);
                };
                Ok(Entry {
                    key,
                    key_at: shift(&key_at, skipped),
                    value: place(value, inner(2 * index + 1), skipped)?,
                })
            });
            Data::Section(entries.collect::<Result<_, _>>()?)
        }
    };
    Ok(Node {
        at: shift(&spans.at, skipped),
        literal: spans.literal,
        data,
    })
}

fn shift(at: &Range<usize>, by: usize) -> Range<usize> {
    at.start + by..at.end + by
}

/// A key as text; numbers and the like are taken as they are written.
fn key_text(key: Raw) -> Option<String> {
    match key {
        Raw::Text(text) => Some(text),
        Raw::Number(number) => Some(number.to_string()),
        Raw::Bool(value) => Some(value.to_string()),
        Raw::Null | Raw::List(_) | Raw::Section(_) | Raw::Strange(_) => None,
    }
}
