//! Where a line of a text stands in the file that holds the text.

use super::tree::{Data, Node};
use std::ops::Range;

/// The place of a line and column of a text: exact where the text stands
/// in the file as it is.
pub(super) fn place_of_line(
    source: &str,
    node: &Node,
    line: usize,
    column: usize,
) -> Option<Range<usize>> {
    let Data::Text(text) = &node.data else {
        return None;
    };
    let content = text.split('\n').nth(line.checked_sub(1)?)?;
    let into: usize = content
        .chars()
        .take(column.checked_sub(1)?)
        .map(char::len_utf8)
        .sum();
    if !node.literal {
        let begin = node.at.start + source[node.at.clone()].find(content)?;
        return (line == 1).then(|| begin + into..word_end(source, begin + into));
    }
    // The parser places a literal text at its first line that is not blank.
    let blank = text.split('\n').take_while(|line| line.is_empty()).count();
    let below = (line - 1).checked_sub(blank)?;
    let first = source[..node.at.start].rfind('\n').map_or(0, |at| at + 1);
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

/// The end of the word that begins at `start`, at least one character on.
fn word_end(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or("");
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let first = rest.chars().next().map_or(0, char::len_utf8);
    start + word.unwrap_or(rest.len()).max(first)
}

#[cfg(test)]
mod tests {
    use crate::campaign::yaml::{Document, Reader, Source};

    #[test]
    fn a_place_in_a_block_is_a_place_in_the_file() {
        let text = "sql: |\n\n    select é, x\n      from t\n";
        check(text, 2, 11, "3:15 x");
        check(text, 3, 3, "4:7 from");
        check(&text.replace('\n', "\r\n"), 3, 8, "4:12 t");
    }

    #[test]
    fn a_block_with_a_stated_indent_keeps_its_columns() {
        check("sql: |2\n    select x\n  from t\n", 1, 3, "2:5 select");
    }

    #[test]
    fn a_place_in_a_line_is_exact_and_in_a_folded_text_the_beginning() {
        check("sql: select x from t\n", 1, 8, "1:13 x");
        check("sql: \"select x\"\n", 1, 8, "1:14 x");
        check("sql: >\n  select x\n  from t\n", 2, 1, "2:3 select x");
        check("sql: |\n  a\n", 99, 1, "2:3 a");
    }

    /// Places a problem at a line and column of the text under `sql`.
    #[track_caller]
    fn check(text: &str, line: usize, column: usize, expect: &str) {
        let source = Source { name: "f", text };
        let document = Document::read(&source).unwrap();
        let reader = Reader::new(&source);
        let mut top = reader.top(&document).unwrap();
        let field = top.optional("sql").unwrap();
        field.at_line(line, column, false, "m".to_owned());
        let problem = reader.into_problems().remove(0);
        let place = format!(
            "{}:{} {}",
            problem.line, problem.column, &text[problem.span]
        );
        assert_eq!(place, expect);
    }
}
