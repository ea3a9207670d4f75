//! A section of a file, read key by key.

use super::field::Field;
use super::suggestion;
use super::tree::{Data, Entry, Node};
use std::collections::BTreeSet;

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
                let right = suggestion(&entry.key, self.known.iter().copied());
                let message = format!("unknown key `{path}`{right}");
                self.field.report(entry.key_at.clone(), message);
            } else if !is_first {
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
