//! Where each value of a document stands, from the parser's events.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::ops::Range;

/// How deep sections and lists may lie in each other; ours need five.
const MAX_DEPTH: usize = 32;

/// The places of a value and of what is in it, in the order of the file.
#[derive(Debug, Clone)]
pub(super) struct Spans {
    /// In bytes; empty for a section or list in block style.
    pub(super) at: Range<usize>,
    /// Whether it is a `|` text, whose lines are the file's lines.
    pub(super) literal: bool,
    /// Of a section: key, value, key, value; of a list: the items.
    pub(super) inner: Vec<Spans>,
}

/// Why a text has no places: a byte offset and what is wrong there.
pub(super) type Refusal = (usize, String);

/// The places of the one document in `text`; none in an empty file.
pub(super) fn read(text: &str) -> Result<Option<Spans>, Refusal> {
    let offsets = Offsets::of(text);
    let mut open: Vec<Spans> = Vec::new();
    let mut root = None;
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let at = offsets.byte(error.marker().index());
            let message = match error.info() {
                // The parser's own limit, met while it looks ahead.
                "recursion limit exceeded" => too_deep(),
                other => not_yaml(other),
            };
            (at, message)
        })?;
        let at = offsets.range(span);
        let done = match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err((
                        at.start,
                        "a second document starts here; a file has one, so give it a file of its own".into(),
                    ));
                }
                None
            }
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                if open.len() == MAX_DEPTH {
                    return Err((at.start, too_deep()));
                }
                open.push(Spans::leaf(at, false));
                None
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(|mut spans| {
                if !spans.at.is_empty() {
                    spans.at.end = at.end;
                }
                spans
            }),
            Event::Scalar(_, style, ..) => Some(Spans::leaf(at, style == ScalarStyle::Literal)),
            Event::Alias(_) => Some(Spans::leaf(at, false)),
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => None,
        };
        match (done, open.last_mut()) {
            (Some(spans), Some(parent)) => parent.inner.push(spans),
            (Some(spans), None) => root = Some(spans),
            (None, _) => {}
        }
    }
    Ok(root)
}

fn too_deep() -> String {
    format!("sections and lists lie deeper in each other than {MAX_DEPTH} levels; take some out")
}

/// What a YAML parser says, and what to do, for the usual mistakes.
pub(super) fn not_yaml(said: &str) -> String {
    let advice = [
        ("tabs disallowed", "indent with blanks"),
        (
            "unknown anchor",
            "no `&name` stands before this `*name`: write out what is meant",
        ),
        ("flow construct", "is a bracket, brace or quote left open?"),
        ("quoted scalar", "is a quote left open?"),
        (
            "mapping values are not allowed",
            "put a text with `: ` in it in quotes",
        ),
        ("indent", "lines of one section begin in one column"),
    ];
    let found = advice.iter().find(|(part, _)| said.contains(part));
    let advice = found.map_or(String::new(), |(_, what)| format!("; {what}"));
    format!("this is not YAML: {said}{advice}")
}

impl Spans {
    /// A value with nothing in it.
    pub(super) fn leaf(at: Range<usize>, literal: bool) -> Self {
        Self {
            at,
            literal,
            inner: Vec::new(),
        }
    }
}

/// From the parser's count of characters to bytes.
struct Offsets(Option<Vec<usize>>, usize);

impl Offsets {
    fn of(text: &str) -> Self {
        let wide = !text.is_ascii();
        let table = wide.then(|| text.char_indices().map(|(byte, _)| byte).collect());
        Self(table, text.len())
    }

    fn byte(&self, character: usize) -> usize {
        let byte = match &self.0 {
            Some(table) => table.get(character).copied().unwrap_or(self.1),
            None => character,
        };
        byte.min(self.1)
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}
