//! Reading a document by what is expected of it, collecting every problem.

use super::field::Field;
use super::place::{Problem, Severity, Source};
use super::section::Section;
use super::tree::{Data, Document};
use std::cell::{Cell, RefCell};
use std::ops::Range;

/// How many problems of one file are listed; more than anybody reads, and few
/// enough that a file of nothing but problems costs no time.
const MAX_PROBLEMS: usize = 200;

/// What is read from, and the problems found so far.
#[derive(Debug)]
pub struct Reader<'r> {
    pub(super) source: &'r Source<'r>,
    problems: RefCell<Vec<Problem>>,
    refused: Cell<bool>,
}

impl<'r> Reader<'r> {
    /// A reader of `source` that has found nothing yet.
    pub fn new(source: &'r Source<'r>) -> Self {
        Self {
            source,
            problems: RefCell::new(Vec::new()),
            refused: Cell::new(false),
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
            "the file must be a section of keys and values, as in `name: winback`".into(),
        );
        None
    }

    /// Whether anything found so far refuses the file.
    pub fn has_errors(&self) -> bool {
        self.refused.get()
    }

    /// Everything found, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.span.start, problem.severity));
        problems
    }

    /// Whether as many problems are listed as will be.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() > MAX_PROBLEMS
    }

    pub(super) fn report(&self, at: Range<usize>, severity: Severity, message: String) {
        if severity == Severity::Error {
            self.refused.set(true);
        }
        if self.is_full() {
            return;
        }
        let problem = Problem::at(self.source, at.clone(), severity, message);
        let mut problems = self.problems.borrow_mut();
        if problems.contains(&problem) {
            return;
        }
        if problems.len() < MAX_PROBLEMS {
            problems.push(problem);
        } else {
            let message = "there are more problems than are listed here".to_owned();
            problems.push(Problem::at(self.source, at, severity, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn of_very_many_problems_the_first_are_listed_and_the_rest_is_mentioned() {
        let mut text = String::new();
        for n in 0..50_000 {
            writeln!(text, "key-{n}: 1").unwrap();
        }
        let source = Source {
            name: "f",
            text: &text,
        };
        let document = Document::read(&source).unwrap();
        let reader = Reader::new(&source);
        let mut top = reader.top(&document).unwrap();
        assert_eq!(top.named().len(), 50_000);
        top.finish();
        assert!(reader.has_errors());
        let problems = reader.into_problems();
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        let last = problems.last().unwrap();
        assert_eq!(
            last.to_string(),
            "f:201:1: there are more problems than are listed here"
        );
    }
}
