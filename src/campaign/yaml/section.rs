//! A section of a file, read key by key.

use super::field::Field;
use super::suggestion;
use super::tree::{Data, Entry, Node};
use std::collections::BTreeSet;

/// How many keys are listed where none is like the one that is written.
const MAX_LISTED: usize = 12;

/// A section being read: what was asked for is known, the rest is a problem.
#[derive(Debug)]
pub struct Section<'r> {
    pub(super) field: Field<'r>,
    pub(super) entries: &'r [Entry<Node>],
    pub(super) known: Vec<&'static str>,
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
                    self.field
                        .report(at, format!("`{path}` has no value; give it one"));
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
        let mut names = BTreeSet::new();
        let mut named = Vec::new();
        for entry in self.entries {
            if names.insert(entry.key.as_str()) {
                named.push((entry.key.as_str(), self.field.inner(entry)));
            } else {
                self.repeated(entry);
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
        let mut names = BTreeSet::new();
        for entry in self.entries {
            if self.field.reader.is_full() {
                return;
            }
            let is_first = names.insert(entry.key.as_str());
            if !self.known.contains(&entry.key.as_str()) {
                let path = self.field.path_of(&entry.key);
                let right = self.right_key(&entry.key);
                let message = format!("unknown key `{path}`{right}");
                self.field.report(entry.key_at.clone(), message);
            } else if !is_first {
                self.repeated(entry);
            }
        }
    }

    /// The key that was probably meant instead of `key`, else those there are,
    /// where they are few enough to be read.
    fn right_key(&self, key: &str) -> String {
        if key == "<<" {
            return "; write out what is meant, keys are not merged".to_owned();
        }
        let meant = suggestion(key, self.known.iter().copied());
        let known: BTreeSet<&str> = self.known.iter().copied().collect();
        if !meant.is_empty() || known.is_empty() || known.len() > MAX_LISTED {
            return meant;
        }
        let all: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        match all.as_slice() {
            [only] => format!("; there is {only}"),
            all => format!("; there are {}", all.join(", ")),
        }
    }

    fn repeated(&self, entry: &Entry<Node>) {
        let path = self.field.path_of(&entry.key);
        let message = format!("`{path}` is given twice; remove one of the two");
        self.field.report(entry.key_at.clone(), message);
    }
}
