//! Texts, and what is wrong with them where.

use super::MAX_FILE_BYTES;
use std::fmt;
use std::ops::Range;

/// A text to be compiled, and what to call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// What problems call it: its path as the user would write it.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// Worth knowing; the file is taken.
    Note,
}

impl Severity {
    /// The name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Note => "note",
        }
    }
}

/// One thing wrong with a file: place, what, hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The column in that line, in characters, from 1.
    pub column: usize,
    /// The place in bytes; within one line.
    pub span: Range<usize>,
    /// What is wrong, and what would be right. Never a secret.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

impl Problem {
    /// A problem at `span` of `source`; of a longer span, its first line.
    pub fn at(source: &Source, span: Range<usize>, severity: Severity, message: String) -> Self {
        let text = source.text;
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find(['\n', '\r'])
            .map_or(text.len(), |length| start + length);
        let end = floor_boundary(text, span.end).clamp(start, line_end);
        Self {
            file: source.name.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start]
                .chars()
                .filter(|c| *c != '\u{feff}')
                .count()
                + 1,
            span: start..end,
            message,
            severity,
        }
    }

    /// An error about `file` as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        let source = Source {
            name: file,
            text: "",
        };
        Self::at(&source, 0..0, Severity::Error, message.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file, line, column, ..
        } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if self.severity == Severity::Note {
            f.write_str("note: ")?;
        }
        f.write_str(&self.message)
    }
}

/// The nearest character boundary at or before `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Takes a file's bytes as text, or says why they are none.
pub fn decode(file: &str, bytes: Vec<u8>) -> Result<String, Problem> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Problem::of_file(
            file,
            "the file is larger than 1 MiB; nothing of it was taken. Divide it, or move data into the \
             warehouse",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let sound = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..sound]).into_owned();
        let source = Source {
            name: file,
            text: &text,
        };
        Problem::at(
            &source,
            sound..sound,
            Severity::Error,
            "the file is not UTF-8 from here on; save it as UTF-8".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_characters_and_a_span_stays_in_its_line() {
        let source = Source {
            name: "f",
            text: "a\näé x\nb",
        };
        let problem = Problem::at(&source, 7..9, Severity::Error, "m".to_owned());
        assert_eq!((problem.line, problem.column), (2, 4));
        assert_eq!(problem.span, 7..8);
        assert_eq!(problem.to_string(), "f:2:4: m");
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_with_their_place() {
        let problem = decode("f", b"a: 1\nb: \xff".to_vec()).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "f:2:4: the file is not UTF-8 from here on; save it as UTF-8"
        );
        assert!(decode("f", vec![b'a'; MAX_FILE_BYTES + 1]).is_err());
    }
}
