//! A value of a file, read as what it should be.

use super::lines::place_of_line;
use super::place::Severity;
use super::reader::Reader;
use super::section::Section;
use super::tree::{Data, Entry, Node};
use super::{nearest, parse_duration, parse_size, shown_duration};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

/// A value, by the path of keys that leads to it.
#[derive(Debug, Clone)]
pub struct Field<'r> {
    pub(super) reader: &'r Reader<'r>,
    pub(super) path: String,
    pub(super) key_at: Range<usize>,
    pub(super) node: &'r Node,
}

impl<'r> Field<'r> {
    /// The path, as problems call it: `activation.batch_size`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the value is.
    pub fn is_list(&self) -> bool {
        matches!(self.node.data, Data::List(_))
    }

    /// Whether it is a section.
    pub fn is_section(&self) -> bool {
        matches!(self.node.data, Data::Section(_))
    }

    /// A problem at the value, or at its key where the value has no place of
    /// its own.
    pub fn error(&self, message: impl Into<String>) {
        self.report(self.place(), message.into());
    }

    /// Something worth knowing about the value, which refuses nothing.
    pub fn note(&self, message: String) {
        self.reader.report(self.place(), Severity::Note, message);
    }

    /// A problem of the key rather than its value.
    pub fn error_at_key(&self, message: String) {
        self.report(self.key_at.clone(), message);
    }

    /// A problem at a line and column (from 1) of the value, which is a text.
    pub fn at_line(&self, line: usize, column: usize, is_note: bool, message: String) {
        let severity = if is_note {
            Severity::Note
        } else {
            Severity::Error
        };
        let at = place_of_line(self.reader.source.text, self.node, line, column)
            .unwrap_or_else(|| self.place());
        self.reader.report(at, severity, message);
    }

    /// A text; numbers and the like must be quoted to be one.
    pub fn text(&self) -> Option<&'r str> {
        match &self.node.data {
            Data::Text(text) if text.contains('\0') => {
                self.error(format!("`{}` holds a NUL character; remove it", self.path));
                None
            }
            Data::Text(text) => Some(text),
            Data::Bool(_) | Data::Number(_) => {
                let is = self.what_it_is();
                self.error(format!(
                    "`{}` must be text, not {is}; put it in quotes",
                    self.path
                ));
                None
            }
            _ => self.mismatch("text"),
        }
    }

    /// A text that is not blank.
    pub fn filled_text(&self) -> Option<&'r str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.error(format!("`{}` is empty; fill it in", self.path));
            return None;
        }
        Some(text)
    }

    /// A text that is one of our types; its error is the problem.
    pub fn parse<T: FromStr<Err: Display>>(&self) -> Option<T> {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(error.to_string());
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match &self.node.data {
            Data::Bool(value) => Some(*value),
            Data::Text(text) => {
                let meant = match text.to_lowercase().as_str() {
                    "yes" | "on" | "true" => "; did you mean `true`?",
                    "no" | "off" | "false" => "; did you mean `false`?",
                    _ => "",
                };
                self.error(format!("`{}` must be true or false{meant}", self.path));
                None
            }
            _ => self.mismatch("true or false"),
        }
    }

    /// A whole number within `range`.
    pub fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let (least, most) = (range.start(), range.end());
        let expected = format!("a whole number from {least} to {most}");
        let Data::Number(number) = &self.node.data else {
            return self.mismatch(&expected);
        };
        let value = number.as_u64().and_then(|value| u32::try_from(value).ok());
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None => {
                self.error(format!("`{}` must be {expected}, not {number}", self.path));
                None
            }
        }
    }

    /// A duration with its unit, within `range`.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Data::Text(text) = &self.node.data else {
            return self.mismatch("a duration such as 30s, 5m, 2h or 7d");
        };
        let Some(value) = parse_duration(text) else {
            let path = &self.path;
            self.error(format!(
                "`{path}` must be a duration such as 30s, 5m, 2h or 7d"
            ));
            return None;
        };
        if !range.contains(&value) {
            let least = shown_duration(*range.start());
            let most = shown_duration(*range.end());
            self.error(format!("`{}` must be from {least} to {most}", self.path));
            return None;
        }
        Some(value)
    }

    /// A size with its unit, in bytes, within `range`.
    pub fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let Data::Text(text) = &self.node.data else {
            return self.mismatch("a size such as 64KiB or 1MiB");
        };
        let Some(value) = parse_size(text) else {
            self.error(format!(
                "`{}` must be a size such as 64KiB or 1MiB",
                self.path
            ));
            return None;
        };
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            let path = &self.path;
            self.error(format!("`{path}` must be from {least} to {most} bytes"));
            return None;
        }
        Some(value)
    }

    /// One of a few words, and what it means.
    pub fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let meant = match nearest(text, words.iter().map(|(word, _)| *word)) {
                Some(word) => format!("; did you mean `{word}`?"),
                None => String::new(),
            };
            self.error(format!(
                "`{}` must be {}{meant}",
                self.path,
                all.join(" or ")
            ));
        }
        found.map(|(_, value)| *value)
    }

    /// The items of a list.
    pub fn list(&self) -> Option<Vec<Field<'r>>> {
        let Data::List(items) = &self.node.data else {
            return self.mismatch("a list");
        };
        let items = items.iter().enumerate().map(|(index, node)| Field {
            reader: self.reader,
            path: format!("{}[{index}]", self.path),
            key_at: self.key_at.clone(),
            node,
        });
        Some(items.collect())
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub fn one_or_more(&self) -> Vec<Field<'r>> {
        if self.is_list() {
            let items = self.list().unwrap_or_default();
            if items.is_empty() {
                self.error(format!("`{}` is an empty list; give it an item", self.path));
            }
            return items;
        }
        vec![self.clone()]
    }

    /// A section.
    pub fn section(&self) -> Option<Section<'r>> {
        let Data::Section(entries) = &self.node.data else {
            return self.mismatch("a section of keys and values");
        };
        Some(Section {
            field: self.clone(),
            entries,
            known: Vec::new(),
        })
    }

    /// The value as JSON; a problem for what JSON has not.
    pub fn json(&self) -> Option<serde_json::Value> {
        match &self.node.data {
            Data::Null => Some(serde_json::Value::Null),
            Data::Bool(value) => Some((*value).into()),
            Data::Number(number) => Some(number.clone().into()),
            Data::Text(_) => self.text().map(Into::into),
            Data::Section(_) => {
                // Read all before giving up, so that no problem hides another.
                let entries = self.section()?.named().into_iter();
                let read = entries.map(|(key, field)| Some((key.to_owned(), field.json()?)));
                let read: Vec<_> = read.collect();
                let map = read.into_iter().collect::<Option<_>>()?;
                Some(serde_json::Value::Object(map))
            }
            Data::List(_) => {
                let read: Vec<_> = self.list()?.iter().map(Self::json).collect();
                let items = read.into_iter().collect::<Option<_>>()?;
                Some(serde_json::Value::Array(items))
            }
            Data::Strange(_) => {
                let is = self.what_it_is();
                let path = &self.path;
                self.error(format!(
                    "`{path}` cannot be {is}; put it in quotes to have it as text"
                ));
                None
            }
        }
    }

    fn mismatch<T>(&self, expected: &str) -> Option<T> {
        let is = self.what_it_is();
        self.error(format!("`{}` must be {expected}, not {is}", self.path));
        None
    }

    fn what_it_is(&self) -> &'static str {
        match &self.node.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Section(_) => "a section",
            Data::Strange(what) => what,
        }
    }

    pub(super) fn inner(&self, entry: &'r Entry<Node>) -> Self {
        Self {
            reader: self.reader,
            path: self.path_of(&entry.key),
            key_at: entry.key_at.clone(),
            node: &entry.value,
        }
    }

    /// The path of `key` below here; cut, since a key can be any length.
    pub(super) fn path_of(&self, key: &str) -> String {
        let key: String = key
            .chars()
            .take(80)
            .map(|c| if c.is_control() { '…' } else { c })
            .collect();
        match self.path.as_str() {
            "" => key,
            path => format!("{path}.{key}"),
        }
    }

    fn place(&self) -> Range<usize> {
        if self.node.at.is_empty() {
            self.key_at.clone()
        } else {
            self.node.at.clone()
        }
    }

    pub(super) fn report(&self, at: Range<usize>, message: String) {
        self.reader.report(at, Severity::Error, message);
    }
}
