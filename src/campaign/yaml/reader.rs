//! Reading a document by what is expected of it, collecting every problem.

use super::place::{Problem, Severity, Source};
use super::tree::{Data, Document, Entry, Node};
use super::{nearest, parse_duration, parse_size, suggestion};
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

/// How many problems of one file are listed; a reader of more has given up.
const MAX_PROBLEMS: usize = 200;

/// What is read from, and the problems found so far.
#[derive(Debug)]
pub struct Reader<'r> {
    source: &'r Source<'r>,
    problems: RefCell<Vec<Problem>>,
}

impl<'r> Reader<'r> {
    /// A reader of `source` that has found nothing yet.
    pub fn new(source: &'r Source<'r>) -> Self {
        Self {
            source,
            problems: RefCell::new(Vec::new()),
        }
    }

    /// The document's top section.
    pub fn top(&'r self, document: &'r Document) -> Option<Section<'r>> {
        let top = Field {
            reader: self,
            path: String::new(),
            key_at: 0..0,
            node: document.root(),
        };
        if let Data::Section(_) = top.node.data {
            return top.section();
        }
        self.report(
            0..1,
            Severity::Error,
            "the file must be a section of keys and values".into(),
        );
        None
    }

    /// Whether anything found so far refuses the file.
    pub fn has_errors(&self) -> bool {
        let problems = self.problems.borrow();
        problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// Everything found, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.span.start, problem.severity));
        problems
    }

    fn report(&self, at: Range<usize>, severity: Severity, message: String) {
        let mut problems = self.problems.borrow_mut();
        let problem = Problem::at(self.source, at, severity, message);
        if problems.len() < MAX_PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

/// A section being read: what was asked for is known, the rest is a problem.
#[derive(Debug)]
pub struct Section<'r> {
    field: Field<'r>,
    entries: &'r [Entry<Node>],
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// The value under `key`; `null` is as good as none.
    pub fn optional(&mut self, key: &'static str) -> Option<Field<'r>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match entry.value.data {
            Data::Null => None,
            _ => Some(self.field.inner(entry)),
        }
    }

    /// The value under `key`; a problem where there is none.
    pub fn required(&mut self, key: &'static str) -> Option<Field<'r>> {
        let field = self.optional(key);
        if field.is_none() {
            let empty = self.entries.iter().find(|entry| entry.key == key);
            let path = self.field.path_of(key);
            match empty {
                Some(entry) => {
                    let at = entry.key_at.clone();
                    self.field.report(at, format!("`{path}` has no value"));
                }
                None => self.error(&format!("`{path}` is missing")),
            }
        }
        field
    }

    /// Keys that a later version knows: a problem, so that none is silently
    /// without effect.
    pub fn not_yet(&mut self, keys: &[&'static str]) {
        for &key in keys {
            if let Some(field) = self.optional(key) {
                let message = format!("`{}` is not available in this version", field.path);
                self.field.report(field.key_at, message);
            }
        }
    }

    /// Every key that is a name the user has chosen, with its value.
    pub fn named(&mut self) -> Vec<(&'r str, Field<'r>)> {
        let mut named: Vec<(&'r str, Field<'r>)> = Vec::new();
        for entry in self.entries {
            if named.iter().any(|(name, _)| *name == entry.key) {
                self.repeated(entry);
            } else {
                named.push((&entry.key, self.field.inner(entry)));
            }
        }
        named
    }

    /// A problem of the section as a whole, at its key.
    pub fn error(&self, message: &str) {
        let at = if self.field.key_at.is_empty() {
            self.entries
                .first()
                .map_or(0..1, |first| first.key_at.clone())
        } else {
            self.field.key_at.clone()
        };
        self.field.report(at, message.to_owned());
    }

    /// Whether the section has `key` at all.
    pub fn has(&self, key: &str) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| !matches!(entry.value.data, Data::Null))
    }

    /// Reports what nobody asked for, and what is there twice.
    pub fn finish(self) {
        for (index, entry) in self.entries.iter().enumerate() {
            let path = self.field.path_of(&entry.key);
            if !self.known.contains(&entry.key.as_str()) {
                let right = suggestion(&entry.key, self.known.iter().copied());
                let message = format!("unknown key `{path}`{right}");
                self.field.report(entry.key_at.clone(), message);
            } else if self.entries[..index].iter().any(|e| e.key == entry.key) {
                self.repeated(entry);
            }
        }
    }

    fn repeated(&self, entry: &Entry<Node>) {
        let path = self.field.path_of(&entry.key);
        let message = format!("`{path}` is given twice");
        self.field.report(entry.key_at.clone(), message);
    }
}

/// A value, by the path of keys that leads to it.
#[derive(Debug, Clone)]
pub struct Field<'r> {
    reader: &'r Reader<'r>,
    path: String,
    key_at: Range<usize>,
    node: &'r Node,
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
        let at = self
            .place_of_line(line, column)
            .unwrap_or_else(|| self.place());
        self.reader.report(at, severity, message);
    }

    /// A text; numbers and the like must be quoted to be one.
    pub fn text(&self) -> Option<&'r str> {
        match &self.node.data {
            Data::Text(text) if text.contains('\0') => {
                self.error(format!("`{}` holds a NUL character", self.path));
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
            self.error(format!("`{}` is empty", self.path));
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
            let least = humantime::format_duration(*range.start());
            let most = humantime::format_duration(*range.end());
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
                self.error(format!("`{}` is an empty list", self.path));
            }
            return items;
        }
        vec![self.clone()]
    }

    /// A section.
    pub fn section(&self) -> Option<Section<'r>> {
        let Data::Section(entries) = &self.node.data else {
            return self.mismatch("a section");
        };
        Some(Section {
            field: self.clone(),
            entries,
            known: Vec::new(),
        })
    }

    /// The value as JSON; a problem for what JSON has not, or `allow` refuses.
    pub fn json(&self) -> Option<serde_json::Value> {
        match &self.node.data {
            Data::Null => Some(serde_json::Value::Null),
            Data::Bool(value) => Some((*value).into()),
            Data::Number(number) => Some(number.clone().into()),
            Data::Text(_) => self.text().map(Into::into),
            Data::Section(_) => {
                let entries = self.section()?.named().into_iter();
                let map = entries.map(|(key, field)| Some((key.to_owned(), field.json()?)));
                Some(serde_json::Value::Object(map.collect::<Option<_>>()?))
            }
            Data::List(_) | Data::Strange(_) => self.mismatch("a value or a section"),
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

    fn inner(&self, entry: &'r Entry<Node>) -> Self {
        Self {
            reader: self.reader,
            path: self.path_of(&entry.key),
            key_at: entry.key_at.clone(),
            node: &entry.value,
        }
    }

    /// The path of `key` below here; cut, since a key can be any length.
    fn path_of(&self, key: &str) -> String {
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

    /// The place of a line and column of a text: exact where the text stands
    /// in the file as it is.
    fn place_of_line(&self, line: usize, column: usize) -> Option<Range<usize>> {
        let Data::Text(text) = &self.node.data else {
            return None;
        };
        let source = self.reader.source.text;
        let content = text.split('\n').nth(line.checked_sub(1)?)?;
        let into: usize = content
            .chars()
            .take(column.checked_sub(1)?)
            .map(char::len_utf8)
            .sum();
        if !self.node.literal {
            let begin = self.node.at.start + source[self.node.at.clone()].find(content)?;
            return (line == 1).then(|| begin + into..word_end(source, begin + into));
        }
        // The parser places a literal text at its first line that is not blank.
        let blank = text.split('\n').take_while(|line| line.is_empty()).count();
        let below = (line - 1).checked_sub(blank)?;
        let first = source[..self.node.at.start]
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let mut start = first;
        for _ in 0..below {
            start += source[start..].find('\n')? + 1;
        }
        let whole = source[start..].split('\n').next()?.trim_end_matches('\r');
        let begin = start
            + whole
                .len()
                .checked_sub(content.trim_end_matches('\r').len())?;
        Some(begin + into..word_end(source, begin + into))
    }

    fn report(&self, at: Range<usize>, message: String) {
        self.reader.report(at, Severity::Error, message);
    }
}

/// The end of the word that begins at `start`, at least one character on.
fn word_end(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or("");
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let first = rest.chars().next().map_or(0, char::len_utf8);
    start + word.unwrap_or(rest.len()).max(first)
}
