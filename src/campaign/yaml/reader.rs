//! Reading a document by what is expected of it, collecting every problem.

use super::field::Field;
use super::place::{Problem, Severity, Source};
use super::section::Section;
use super::tree::{Data, Document};
use std::cell::RefCell;
use std::ops::Range;

/// How many problems of one file are listed; a reader of more has given up.
const MAX_PROBLEMS: usize = 200;

/// What is read from, and the problems found so far.
#[derive(Debug)]
pub struct Reader<'r> {
    pub(super) source: &'r Source<'r>,
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

    pub(super) fn report(&self, at: Range<usize>, severity: Severity, message: String) {
        let mut problems = self.problems.borrow_mut();
        let problem = Problem::at(self.source, at, severity, message);
        if problems.len() < MAX_PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}
