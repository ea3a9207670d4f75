//! One row of literals, cell by cell, for an `insert`.

use super::Unwritable;
use crate::audience::Dialect;
use jiff::Timestamp;
use std::fmt::Display;

/// The width of the columns that hold a reason, in bytes.
const REASON_BYTES: usize = 512;

/// Literals in the order of the columns they go to.
pub(super) struct Cells {
    dialect: Dialect,
    cells: Vec<String>,
    is_bad: Option<Unwritable>,
}

impl Cells {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            cells: Vec::new(),
            is_bad: None,
        }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        match self.dialect.literal(text) {
            Ok(literal) => self.cells.push(literal),
            Err(bad) => self.is_bad = Some(bad.into()),
        }
        self
    }

    pub(super) fn maybe_text(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// Text for a column of 512 bytes, cut on a character; NUL left out.
    pub(super) fn reason(self, text: Option<&str>) -> Self {
        let text = text.map(|text| cut(&text.replace('\0', ""), REASON_BYTES));
        self.maybe_text(text.as_deref())
    }

    pub(super) fn number(mut self, number: impl Display) -> Self {
        self.cells.push(number.to_string());
        self
    }

    pub(super) fn maybe_number(self, number: Option<impl Display>) -> Self {
        match number {
            Some(number) => self.number(number),
            None => self.null(),
        }
    }

    pub(super) fn instant(mut self, at: Timestamp) -> Self {
        self.cells.push(self.dialect.instant(at));
        self
    }

    pub(super) fn maybe_instant(self, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.instant(at),
            None => self.null(),
        }
    }

    /// The warehouse's clock.
    pub(super) fn now(mut self) -> Self {
        self.cells.push(self.dialect.now().to_owned());
        self
    }

    fn null(mut self) -> Self {
        self.cells.push("null".to_owned());
        self
    }

    /// The row, without parentheses.
    pub(super) fn row(self) -> Result<String, Unwritable> {
        match self.is_bad {
            None => Ok(self.cells.join(", ")),
            Some(bad) => Err(bad),
        }
    }
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
