//! What is found to be wrong with a campaign file later than by reading it.

use super::yaml::{Document, Field, Problem, Reader, Section, Source};

/// A problem with the value under the keys `path`, at a line and column of it
/// (from 1) where it is a text and they are known. It stands for the file where
/// the value is not there any more.
pub fn problem_at(
    source: &Source,
    path: &[&'static str],
    place: Option<(usize, usize)>,
    message: String,
) -> Problem {
    let document = match Document::read(source) {
        Ok(document) => document,
        Err(problem) => return problem,
    };
    let reader = Reader::new(source);
    if let Some(field) = reader.top(&document).and_then(|top| value_at(top, path)) {
        match place {
            Some((line, column)) => field.at_line(line, column, false, message.clone()),
            None => field.error(message.clone()),
        }
    }
    let found = reader.into_problems().pop();
    found.unwrap_or_else(|| Problem::of_file(source.name, message))
}

fn value_at<'r>(top: Section<'r>, path: &[&'static str]) -> Option<Field<'r>> {
    let (last, parents) = path.split_last()?;
    let mut section = top;
    for key in parents {
        section = section.optional(key)?.section()?;
    }
    section.optional(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_sql_is_one_in_the_file() {
        let source = Source {
            name: "a.yaml",
            text: "name: a\naudience:\n  sql: |\n    select\n      idd\n",
        };
        let path = ["audience", "sql"];
        let at = |place| problem_at(&source, &path, place, "no".to_owned()).to_string();
        assert_eq!(at(Some((2, 3))), "a.yaml:5:7: no");
        let gone = problem_at(&source, &["policy", "order_by"], None, "no".to_owned());
        assert_eq!(gone.to_string(), "a.yaml:1:1: no");
    }
}
