//! What can be said of a campaign's SQL without a warehouse.

use super::Dialect;
use super::columns::BadColumns;
use super::reading::{Reading, parsed};
use super::selected::{Named, columns_of, naming_select};
use super::wildcard::deciding_wildcards;
use sqlparser::ast::{Query, SetExpr, Spanned, Statement, Visit, Visitor};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Span, Token};
use std::ops::ControlFlow;

/// One thing wrong with a campaign's SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlProblem {
    /// What, and what would be right.
    pub message: String,
    /// Its line in the SQL, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// Whether it is a remark only, and refuses nothing.
    pub is_note: bool,
}

impl SqlProblem {
    fn at(place: Location, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            line: usize::try_from(place.line).unwrap_or(1).max(1),
            column: usize::try_from(place.column).unwrap_or(1).max(1),
            is_note: false,
        }
    }

    fn note(self) -> Self {
        Self {
            is_note: true,
            ..self
        }
    }
}

/// What is said of SQL that does more than ask.
const ONE_SELECT: &str = "the SQL must be one `select` (or `with … select`); nothing else is run";

/// Every problem of `sql`, whose member key is the column `key`, as `dialect`
/// reads it.
///
/// It must be one read-only query that names its columns. The parser knows
/// less than the warehouses do: what it cannot read is a note.
pub fn lint(sql: &str, key: &str, dialect: Dialect) -> Vec<SqlProblem> {
    let problems = statement_problems(sql, dialect);
    if problems.is_empty() {
        return shape_problems(sql, key, dialect);
    }
    problems
}

/// Whether it is one statement that reads, by its words alone.
fn statement_problems(sql: &str, dialect: Dialect) -> Vec<SqlProblem> {
    let reading = Reading::of(dialect, sql);
    if let Some(broken) = &reading.broken {
        let what = broken.message.to_lowercase();
        // A path, or what a regular expression escapes.
        let advice = match dialect == Dialect::Redshift && sql.contains(r"\'") {
            true => r"Redshift reads `\'` as a quote within the text, so write `\\'` where it ends",
            false => "close it, or take it out",
        };
        let message = format!("the SQL cannot be read: {what}; {advice}");
        return vec![SqlProblem::at(broken.location, message)];
    }
    let Some(first) = reading.words().find(|t| t.token != Token::LParen) else {
        let place = Location::new(1, 1);
        return vec![SqlProblem::at(place, "there is no SQL; write a `select`")];
    };
    let begins_well = matches!(
        &first.token,
        Token::Word(word) if matches!(word.keyword, Keyword::SELECT | Keyword::WITH)
    );
    let mut problems = Vec::new();
    if !begins_well {
        problems.push(SqlProblem::at(first.span.start, ONE_SELECT));
    }
    let other_readings = readings_that_count(dialect).iter();
    let stray = reading.stray_semicolon().or_else(|| {
        let mut others = other_readings.map(|&other| Reading::of(other, sql));
        others.find_map(|reading| reading.stray_semicolon())
    });
    if let Some(place) = stray {
        let message = "the SQL must be one statement; there is a `;` in the middle of it";
        problems.push(SqlProblem::at(place, message));
    }
    problems
}

/// The databases read quotes differently, and our reader need not read them
/// quite as the database does: a `;` counts if another would see it as one,
/// too. Only Redshift takes a backslash in a literal for an escape, so its
/// reading says nothing of the others.
fn readings_that_count(dialect: Dialect) -> &'static [Dialect] {
    match dialect {
        Dialect::Redshift | Dialect::Sqlite => &[Dialect::Postgres, Dialect::Sqlite],
        Dialect::Postgres => &[Dialect::Sqlite],
    }
}

/// Whether it is a read-only query that names its columns and returns the key.
fn shape_problems(sql: &str, key: &str, dialect: Dialect) -> Vec<SqlProblem> {
    let statements = match parsed(sql, dialect) {
        Ok(statements) => statements,
        Err(unread) => {
            let message = format!(
                "this SQL was not checked further, since {}; the warehouse has the last word",
                unread.why
            );
            return vec![SqlProblem::at(unread.place, message).note()];
        }
    };
    let Some(Statement::Query(query)) = statements.first() else {
        return vec![SqlProblem::at(Location::new(1, 1), ONE_SELECT)];
    };
    let mut writes = FindWrites::default();
    let visited = query.visit(&mut writes);
    debug_assert!(visited.is_continue(), "the visitor never breaks off");
    let writes = writes.0.into_iter().map(|(span, what)| {
        let message = format!("the SQL may only read; {what} is not run");
        SqlProblem::at(span.start, message)
    });
    let mut problems: Vec<_> = writes
        .chain(projection_problems(query, key, dialect))
        .collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

/// Looks for what would write or lock.
#[derive(Default)]
struct FindWrites(Vec<(Span, &'static str)>);

impl Visitor for FindWrites {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        if !matches!(statement, Statement::Query(_)) {
            self.0
                .push((statement.span(), "a statement that changes data"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !query.locks.is_empty() {
            self.0.push((query.span(), "`for update` or `for share`"));
        }
        if let SetExpr::Select(select) = query.body.as_ref()
            && select.into.is_some()
        {
            self.0.push((select.span(), "`select … into`"));
        }
        ControlFlow::Continue(())
    }
}

fn projection_problems(query: &Query, key: &str, dialect: Dialect) -> Vec<SqlProblem> {
    let wildcards: Vec<SqlProblem> = deciding_wildcards(query)
        .into_iter()
        .map(|place| {
            let message = "`select *` is not staged, since it changes when the table does; \
                           name the columns";
            SqlProblem::at(place, message)
        })
        .collect();
    if !wildcards.is_empty() {
        return wildcards;
    }
    let select = naming_select(&query.body);
    let (Some(columns), Some(select)) = (columns_of(query, dialect), select) else {
        return Vec::new();
    };
    // Without a `*` there is a column for each item, and each has its place.
    let place = |at: usize| match select.projection.len() == columns.len() {
        true => select.projection[at].span().start,
        false => select.projection[0].span().start,
    };
    let mut problems = Vec::new();
    if !key.is_empty() {
        problems.extend(
            unfit_columns(&columns).map(|(at, unfit)| SqlProblem::at(place(at), unfit.to_string())),
        );
    }
    let names: Vec<&str> = columns.iter().filter_map(Named::name).collect();
    // A key that is missing is the file's problem, not this query's.
    if !key.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(key)) {
        problems.push(SqlProblem::at(place(0), missing_key(key, &names)));
    }
    problems
}

/// The columns that could not be staged: those under our names, and those
/// under a name that one before them has.
fn unfit_columns(columns: &[Named]) -> impl Iterator<Item = (usize, BadColumns)> {
    let mut seen = std::collections::HashSet::new();
    columns.iter().enumerate().filter_map(move |(at, column)| {
        let Named::Plainly(name) = column else {
            return None;
        };
        let name = name.clone();
        let folded = name.to_ascii_lowercase();
        if folded.starts_with(super::columns::OURS) {
            return Some((at, BadColumns::Reserved { name }));
        }
        (!seen.insert(folded)).then_some((at, BadColumns::Duplicate { name }))
    })
}

fn missing_key(key: &str, names: &[&str]) -> String {
    let nearest = names
        .iter()
        .map(|name| {
            (
                strsim::jaro_winkler(&name.to_lowercase(), &key.to_lowercase()),
                name,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    match nearest {
        Some((_, name)) => {
            format!("the key `{key}` is not a selected column; did you mean `{name}`?")
        }
        None => format!("the key `{key}` is not a selected column; select it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::{Selected, selected_columns};

    fn first(sql: &str) -> SqlProblem {
        lint(sql, "id", Dialect::Redshift)
            .into_iter()
            .next()
            .expect("a problem")
    }

    #[test]
    fn one_query_that_names_its_columns_is_fine() {
        for sql in [
            "select id, email from shared.people",
            "SELECT p.ID from people p;",
            "with x as (select id from p) select id from x -- done",
            "select a as id from p union all select b from q ; -- end;",
            "(select id from p)",
            "select id from p where name = 'a;b'",
        ] {
            assert_eq!(lint(sql, "id", Dialect::Redshift), [], "{sql}");
        }
    }

    #[test]
    fn anything_but_one_query_is_refused() {
        for sql in [
            "",
            " -- nothing\n",
            "delete from p",
            "select id from p; drop table p",
            "select id from p; select 1;",
            "select id from p where n = 'open",
            "select id from p /* open",
            "with x as (delete from p returning id) select id from x",
            "select id into q from p",
            "select id from p for update",
        ] {
            assert!(!first(sql).is_note, "{sql}");
        }
    }

    #[test]
    fn a_semicolon_that_only_some_databases_see_is_refused() {
        let hidden = r"select id from p where a = 'x\'; drop table p; --'";
        assert!(first(hidden).message.contains("`;`"));
        let hidden = "select id from p where a = $$ ; drop table p; $$";
        assert!(
            !lint(hidden, "id", Dialect::Redshift)
                .iter()
                .all(|problem| problem.is_note)
        );
    }

    #[test]
    fn a_problem_has_its_place_and_the_nearest_column() {
        let problem = first("select\n  idd, email from p");
        assert_eq!((problem.line, problem.column), (2, 3));
        assert!(problem.message.ends_with("did you mean `idd`?"));
        let problem = first("select id,\n p.* from p");
        assert_eq!((problem.line, problem.column), (2, 2));
    }

    #[test]
    fn a_star_that_decides_the_columns_is_found_however_deep_it_stands() {
        for (sql, places) in [
            ("select id from (select * from p) q", &[][..]),
            ("select count(*) as id from p", &[]),
            (
                "with a as (select * from p) select id from a where exists (select * from q)",
                &[],
            ),
            ("select q.* from (select id, n from p) q", &[]),
            (
                "with a as (select id from p), b as (select * from a) select * from b",
                &[],
            ),
            (
                "select * from (select id, a from p) pivot (count(a) for a in (1, 2))",
                &[],
            ),
            (
                "select x.* from p pivot (count(a) for a in (1, 2)) as x",
                &[(1, 8)],
            ),
            ("select id, q.* from p q", &[(1, 12)]),
            ("select * from (\n select * from p\n) q", &[(2, 9)]),
            ("with a as (select * from p) select a.* from a", &[(1, 19)]),
            ("select id from p union all select * from q", &[(1, 35)]),
            (
                "select * from (select id from p) q join r on r.id = q.id",
                &[(1, 8)],
            ),
            (
                "select q.* from (select id from p) q join r on r.id = q.id",
                &[],
            ),
            ("with p as (select * from p) select * from p", &[(1, 19)]),
        ] {
            let found: Vec<_> = lint(sql, "id", Dialect::Redshift)
                .iter()
                .map(|p| (p.line, p.column))
                .collect();
            assert_eq!(found, places, "{sql}");
        }
    }

    #[test]
    fn stars_over_stars_end() {
        let names = (0..200).map(|n| format!(", c{} as (select * from c{n})", n + 1));
        let sql = format!(
            "with c0 as (select id from p){} select * from c200",
            names.collect::<String>()
        );
        assert_eq!(lint(&sql, "id", Dialect::Redshift), []);
        let wide =
            (0..25).map(|n| format!(", c{} as (select a.*, b.* from c{n} a, c{n} b)", n + 1));
        let sql = format!(
            "with c0 as (select * from p){} select * from c25",
            wide.collect::<String>()
        );
        assert_eq!(lint(&sql, "id", Dialect::Redshift).len(), 1);
    }

    #[test]
    fn many_names_of_many_queries_take_no_more_than_their_text() {
        let queries = |count: usize| {
            let more: String = (1..count)
                .map(|n| format!(", c{n} as (select id from c{})", n - 1))
                .collect();
            format!("with c0 as (select id from p){more}")
        };
        let sources = vec!["c1499"; 20_000].join(", ");
        let sql = format!("{} select * from {sources}", queries(1_500));
        assert_eq!(lint(&sql, "id", Dialect::Redshift), []);
        let problem = first(&format!("{} select * from c1", queries(3_000)));
        assert!(problem.is_note && problem.message.contains("into views"));
    }

    #[test]
    fn sql_of_any_length_ends_in_a_note_at_most() {
        let note = |sql: &str| {
            assert_eq!(
                selected_columns(sql, Dialect::Redshift),
                Selected::default()
            );
            first(sql)
        };
        for (term, between) in [
            ("select id from p where a = 1", " or a = 1"),
            ("select id, a", " + a"),
            ("select id from p", " union all select id from p"),
            ("select id, a", "::int"),
            ("select id, a from p where a", " is null"),
        ] {
            let problem = note(&format!("{term}{}", between.repeat(30_000)));
            assert!(problem.is_note, "{}", problem.message);
            assert!(problem.message.contains("in (…)"), "{}", problem.message);
        }
        let list = vec!["'x'"; 100_000].join(", ");
        let sql = format!("select id from p where a in ({list})");
        assert_eq!(lint(&sql, "id", Dialect::Redshift), []);
        // As deep as it may be, on the stack of a thread.
        let sql = format!("select id{} as x from p", " + id".repeat(5_999));
        assert_eq!(lint(&sql, "x", Dialect::Redshift), []);
        assert_eq!(selected_columns(&sql, Dialect::Redshift).names, ["x"]);
    }

    #[test]
    fn sql_the_parser_does_not_know_is_a_note() {
        let problem = first("select id from p qualify ??? 1 frobnicate");
        assert!(problem.is_note);
    }

    #[test]
    fn only_redshift_takes_a_backslash_for_an_escape() {
        for (sql, is_one_on_redshift) in [
            (r"select id from p where a = 'C:\' and b = 1;", false),
            // As Redshift reads it, a statement of its own follows.
            (
                r"select id from p where a = 'x\''; drop table p; --'",
                false,
            ),
            (r"select id from p where a = 'x\\' and b = 'y'", true),
        ] {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                assert_eq!(lint(sql, "id", dialect), [], "{dialect:?}: {sql}");
            }
            let problems = lint(sql, "id", Dialect::Redshift);
            assert_eq!(problems.is_empty(), is_one_on_redshift, "{sql}");
            assert!(problems.iter().all(|problem| !problem.is_note));
        }
    }

    #[test]
    fn the_key_is_looked_for_in_what_a_star_stands_for() {
        let problem = first("select * from (\n select idd, email from p\n) q");
        assert!(problem.message.ends_with("did you mean `idd`?"));
        assert_eq!((problem.line, problem.column), (1, 8));
        for sql in [
            "with c(id) as (select pid from p) select * from c",
            "select * from (select pid from p) q(id)",
            "select p.id::varchar, email from p",
        ] {
            assert_eq!(lint(sql, "id", Dialect::Redshift), [], "{sql}");
        }
    }

    #[test]
    fn columns_that_could_not_be_staged_are_found() {
        let sql = "select id, email,\n  p.Email, 1 as cd_seq from p";
        let problems = lint(sql, "id", Dialect::Redshift);
        let found: Vec<_> = problems.iter().map(|p| (p.line, p.column)).collect();
        assert_eq!(found, [(2, 3), (2, 12)], "{problems:?}");
        // What must be fresh has no key, and is not staged.
        assert_eq!(
            lint("select max(a) as cd_a from p", "", Dialect::Redshift),
            []
        );
    }

    #[test]
    fn everything_that_writes_is_found() {
        let sql = "with x as (delete from p returning id),\n y as (update p set a = 1 returning id)\n\
                   select id from x";
        assert_eq!(lint(sql, "id", Dialect::Postgres).len(), 2);
    }

    #[test]
    fn a_note_stands_where_the_parser_gave_up() {
        let problem = first("select id\nfrom p\nqualify ??? 1 frobnicate");
        assert!(problem.is_note);
        assert_eq!(problem.line, 3, "{}", problem.message);
        assert!(!problem.message.contains("Line:"), "{}", problem.message);
    }
}
