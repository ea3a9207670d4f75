//! Members in memory, between the warehouse and the request.

use std::ops::Range;
use std::sync::Arc;

/// What a cell holds, and so how it is written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SQL NULL.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number of any length, in decimal.
    Integer,
    /// An exact decimal number.
    Decimal,
    /// A binary floating-point number; may be `NaN` or `Infinity`.
    Float,
    /// `YYYY-MM-DD HH:MM:SS[.ffffff]`, taken as UTC.
    Timestamp,
    /// The same with a UTC offset behind it, `+00`, `+05:30`.
    TimestampTz,
    /// JSON text.
    Json,
    /// Anything else.
    Text,
}

/// Rows of text cells in one buffer: two allocations a page, however many
/// members it holds. Dropping it is the end of the member data in memory.
pub struct Page {
    columns: Arc<[String]>,
    text: String,
    cells: Vec<(usize, Kind)>,
    is_cut: bool,
}

impl Page {
    /// An empty page with the given columns, in the order they are sent.
    pub fn new(columns: Arc<[String]>) -> Self {
        Self {
            columns,
            text: String::new(),
            cells: Vec::new(),
            is_cut: false,
        }
    }

    /// Appends the next cell; a row is complete after one cell per column.
    pub fn push(&mut self, kind: Kind, text: &str) {
        self.text.push_str(text);
        self.cells.push((self.text.len(), kind));
    }

    /// Takes out the newest row if the page has more than `most` bytes with it
    /// and is not empty without it: it is cut short then, and no row behind it
    /// belongs in.
    pub fn cut_beyond(&mut self, most: usize) {
        if self.bytes() <= most || self.len() < 2 {
            return;
        }
        self.is_cut = true;
        let cells = (self.len() - 1) * self.columns.len();
        self.cells.truncate(cells);
        self.text
            .truncate(self.cells.last().map_or(0, |&(end, _)| end));
    }

    /// Whether rows were left out since they were too large together.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The columns' names.
    pub fn columns(&self) -> &Arc<[String]> {
        &self.columns
    }

    /// Complete rows held.
    pub fn len(&self) -> usize {
        self.cells.len() / self.columns.len().max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of member data held.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.cells.len() * size_of::<(usize, Kind)>()
    }

    /// Bytes of member data that some of its rows hold.
    pub fn bytes_of(&self, rows: Range<usize>) -> usize {
        let width = self.columns.len();
        let end = |row: usize| match (row * width).min(self.cells.len()) {
            0 => 0,
            cells => self.cells[cells - 1].0,
        };
        let cells = rows.len() * width;
        end(rows.end) - end(rows.start) + cells * size_of::<(usize, Kind)>()
    }

    /// The row at `index`, from 0.
    pub fn row(&self, index: usize) -> Row<'_> {
        let width = self.columns.len();
        Row {
            page: self,
            cells: index * width..(index + 1) * width,
        }
    }
}

/// One member: a view of a page's row.
#[derive(Clone)]
pub struct Row<'a> {
    page: &'a Page,
    cells: Range<usize>,
}

impl<'a> Row<'a> {
    /// The cells in column order.
    pub fn cells(&self) -> impl Iterator<Item = (Kind, &'a str)> + use<'a> {
        let page = self.page;
        let first = self.cells.start;
        let mut start = match first {
            0 => 0,
            _ => page.cells[first - 1].0,
        };
        page.cells[self.cells.clone()]
            .iter()
            .map(move |&(end, kind)| {
                let text = &page.text[start..end];
                start = end;
                (kind, text)
            })
    }
}
