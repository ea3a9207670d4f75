//! Problems of files as a person, or a program, reads them.

use crate::campaign::{Problem, Severity};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest line that is shown; of a longer one a snippet says nothing.
const MAX_LINE_BYTES: usize = 500;

/// The problems as text: each as `file:line:col: message` with its line of the
/// file below, and a closing line for each file. `sources` holds the files'
/// texts by name; a file without one is shown without its lines.
pub fn render(problems: &[Problem], sources: &BTreeMap<String, String>, color: bool) -> String {
    let mut text = String::new();
    for of_file in problems.chunk_by(|a, b| a.file == b.file) {
        for problem in of_file {
            text.push_str(&format!("{problem}\n"));
            let source = sources.get(&problem.file);
            if let Some(snippet) = source.and_then(|source| snippet(problem, source, color)) {
                text.push_str(&snippet);
                text.push_str("\n\n");
            }
        }
        if let Some(closing) = closing(of_file) {
            text.push_str(&format!("{closing}\n"));
        }
    }
    text
}

/// The problems as JSON: `[{file, line, column, severity, message}]`.
pub fn view(problems: &[Problem]) -> Value {
    let list = problems.iter().map(|problem| {
        json!({
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "severity": problem.severity.as_str(),
            "message": problem.message,
        })
    });
    list.collect()
}

/// What became of a file, where it was refused.
fn closing(problems: &[Problem]) -> Option<String> {
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    let count = match errors.count() {
        0 => return None,
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let file = &problems[0].file;
    Some(format!(
        "{file}: {count}; nothing was loaded from this file"
    ))
}

/// The line of the file, with the place marked in it.
fn snippet(problem: &Problem, source: &str, color: bool) -> Option<String> {
    let start = problem.span.start;
    let line_start = source.get(..start)?.rfind('\n').map_or(0, |at| at + 1);
    let line = source.get(line_start..)?.lines().next()?;
    if line.len() > MAX_LINE_BYTES || line.trim().is_empty() {
        return None;
    }
    // A terminal would obey control characters; only the tab is harmless.
    let shown: String = line
        .chars()
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    let from = start - line_start;
    let to = (problem.span.end.max(start + 1) - line_start).min(line.len());
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Note => Level::NOTE,
    };
    let annotation = AnnotationKind::Primary.span(from..to.max(from));
    let lines = Snippet::source(shown)
        .line_start(problem.line)
        .annotation(annotation);
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    Some(renderer.render(&[Group::with_level(level).element(lines)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Source;

    fn problems(text: &str) -> Vec<Problem> {
        let source = Source {
            name: "c/a.yaml",
            text,
        };
        let at = text.find("nmae").unwrap();
        let place = |span, severity, message: &str| {
            Problem::at(&source, span, severity, message.to_owned())
        };
        vec![
            place(
                at..at + 4,
                Severity::Error,
                "unknown key `nmae`; did you mean `name`?",
            ),
            place(at + 6..at + 7, Severity::Note, "short"),
        ]
    }

    #[test]
    fn a_problem_is_a_line_of_its_own_then_the_place_in_the_file() {
        let text = "# ä\nnmae: x\n";
        let sources = BTreeMap::from([("c/a.yaml".to_owned(), text.to_owned())]);
        insta::assert_snapshot!(render(&problems(text), &sources, false));
        assert!(render(&problems(text), &sources, true).contains('\u{1b}'));
    }

    #[test]
    fn a_program_reads_json() {
        let expect = concat!(
            r#"[{"file":"c/a.yaml","line":1,"column":1,"severity":"error","#,
            r#""message":"unknown key `nmae`; did you mean `name`?"},"#,
            r#"{"file":"c/a.yaml","line":1,"column":7,"severity":"note","message":"short"}]"#,
        );
        assert_eq!(view(&problems("nmae: x")).to_string(), expect);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = "nmae: \u{1b}[31mred\n";
        let sources = BTreeMap::from([("c/a.yaml".to_owned(), text.to_owned())]);
        assert!(!render(&problems(text), &sources, false).contains('\u{1b}'));
    }
}
