//! What can be said of a campaign's SQL without a warehouse.

use super::wildcard::deciding_wildcards;
use sqlparser::ast::{
    Expr, Query, Select, SelectItem, SetExpr, Spanned, Statement, Visit, Visitor,
};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, RedshiftSqlDialect, SQLiteDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, TokenizerError};
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

/// Every problem of `sql`, whose member key is the column `key`.
///
/// It must be one read-only query that names its columns. The databases read
/// quotes differently, so a `;` counts if any of them would see it as one. The
/// parser knows less than the warehouses do: what it cannot read is a note.
pub fn lint(sql: &str, key: &str) -> Vec<SqlProblem> {
    let reading = Reading::of(&RedshiftSqlDialect {}, sql);
    let mut problems: Vec<SqlProblem> = statement_problems(sql, &reading);
    if problems.is_empty() {
        problems = shape_problems(sql, key);
    }
    problems
}

/// The columns a query returns, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    /// Those with a name.
    pub names: Vec<String>,
    /// Whether there are no others.
    pub is_whole: bool,
}

/// The columns that `sql` returns, as far as its text tells.
pub fn selected_columns(sql: &str) -> Selected {
    let statements = parsed(sql).unwrap_or_default();
    let Some(Statement::Query(query)) = statements.first() else {
        return Selected::default();
    };
    let mut selects = Vec::new();
    outermost(&query.body, &mut selects);
    let Some(first) = selects.first() else {
        return Selected::default();
    };
    let names: Vec<String> = first
        .projection
        .iter()
        .filter_map(column_name)
        .map(str::to_owned)
        .collect();
    Selected {
        is_whole: names.len() == first.projection.len(),
        names,
    }
}

/// `sql` without the semicolon that ends it, every place kept.
pub(super) fn without_semicolon(sql: &str) -> String {
    let reading = Reading::of(&RedshiftSqlDialect {}, sql);
    match reading.words().next_back() {
        Some(last) if last.token == Token::SemiColon => {
            let mut cut = sql.to_owned();
            let at = byte_offset(sql, last.span.start);
            cut.replace_range(at..at + 1, " ");
            cut
        }
        _ => sql.to_owned(),
    }
}

fn byte_offset(sql: &str, place: Location) -> usize {
    let line = usize::try_from(place.line).unwrap_or(1).max(1);
    let column = usize::try_from(place.column).unwrap_or(1).max(1);
    let starts_of_lines =
        std::iter::once(0).chain(sql.match_indices('\n').map(|(newline, _)| newline + 1));
    let start = starts_of_lines.take(line).last().unwrap_or(0);
    let within = sql[start..].char_indices().nth(column - 1);
    start + within.map_or(sql.len() - start, |(offset, _)| offset)
}

/// The tokens as one database sees them.
struct Reading {
    tokens: Vec<TokenWithSpan>,
    broken: Option<TokenizerError>,
}

impl Reading {
    fn of(dialect: &dyn Dialect, sql: &str) -> Self {
        let mut tokens = Vec::new();
        let broken = Tokenizer::new(dialect, sql)
            .tokenize_with_location_into_buf(&mut tokens)
            .err();
        Self { tokens, broken }
    }

    /// The tokens that mean something.
    fn words(&self) -> impl DoubleEndedIterator<Item = &TokenWithSpan> {
        let is_silent = |token: &Token| matches!(token, Token::Whitespace(_) | Token::EOF);
        self.tokens.iter().filter(move |t| !is_silent(&t.token))
    }

    /// The first `;` that does not end the text.
    fn stray_semicolon(&self) -> Option<Location> {
        let last = self.words().next_back()?.span;
        let is_stray = |t: &&TokenWithSpan| {
            t.token == Token::SemiColon && (t.span != last || self.broken.is_some())
        };
        self.words().find(is_stray).map(|t| t.span.start)
    }
}

/// Whether it is one statement that reads, by its words alone.
fn statement_problems(sql: &str, reading: &Reading) -> Vec<SqlProblem> {
    if let Some(broken) = &reading.broken {
        let message = format!("the SQL cannot be read: {}", broken.message.to_lowercase());
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
        let message = "an audience is one `select` (or `with … select`); nothing else is run";
        problems.push(SqlProblem::at(first.span.start, message));
    }
    let other_readings: [&dyn Dialect; 2] = [&PostgreSqlDialect {}, &SQLiteDialect {}];
    let stray = reading.stray_semicolon().or_else(|| {
        let mut others = other_readings.iter().map(|&d| Reading::of(d, sql));
        others.find_map(|reading| reading.stray_semicolon())
    });
    if let Some(place) = stray {
        let message = "an audience is one statement; there is a `;` in the middle of it";
        problems.push(SqlProblem::at(place, message));
    }
    problems
}

/// Whether it is a read-only query that names its columns and returns the key.
fn shape_problems(sql: &str, key: &str) -> Vec<SqlProblem> {
    let statements = match parsed(sql) {
        Ok(statements) => statements,
        Err(why) => {
            let message = format!(
                "this SQL was not checked further, since {why}; the warehouse has the last word"
            );
            return vec![SqlProblem::at(Location::new(1, 1), message).note()];
        }
    };
    let Some(Statement::Query(query)) = statements.first() else {
        let message = "an audience is one `select` (or `with … select`); nothing else is run";
        return vec![SqlProblem::at(Location::new(1, 1), message)];
    };
    let mut writes = FindWrites;
    if let ControlFlow::Break((span, what)) = query.visit(&mut writes) {
        let message = format!("an audience only reads; {what} is not run");
        return vec![SqlProblem::at(span.start, message)];
    }
    projection_problems(query, key)
}

/// How many operators SQL may have and still be read: each can lie one level
/// deeper than the one before, and what walks through them follows on the
/// stack. A thread of 2 MiB ends between eight and thirty thousand.
const MAX_OPERATORS: usize = 6_000;

/// The statements of `sql`, or why they are not known.
fn parsed(sql: &str) -> Result<Vec<Statement>, String> {
    let reading = Reading::of(&RedshiftSqlDialect {}, sql);
    if reading.words().filter(|t| is_operator(&t.token)).count() > MAX_OPERATORS {
        return Err(format!(
            "it has more than {MAX_OPERATORS} operators: put what it compares with into a list, \
             `in (…)`, or into a table"
        ));
    }
    Parser::parse_sql(&RedshiftSqlDialect {}, sql)
        .map_err(|unknown| format!("our parser does not know all of it ({unknown})"))
}

/// Whether a token can take what stands before it one level deeper.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::NOTNULL
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::IN
                | Keyword::AT
                | Keyword::COLLATE
                | Keyword::OVERLAPS
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::MINUS
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon => false,
        _ => true,
    }
}

/// Looks for what would write or lock.
struct FindWrites;

impl Visitor for FindWrites {
    type Break = (Span, &'static str);

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Self::Break> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            other => ControlFlow::Break((other.span(), "a statement that changes data")),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if !query.locks.is_empty() {
            return ControlFlow::Break((query.span(), "`for update` or `for share`"));
        }
        match query.body.as_ref() {
            SetExpr::Select(select) if select.into.is_some() => {
                ControlFlow::Break((select.span(), "`select … into`"))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn projection_problems(query: &Query, key: &str) -> Vec<SqlProblem> {
    let mut selects = Vec::new();
    outermost(&query.body, &mut selects);
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
    // The first branch names the columns of a `union`.
    let Some(first) = selects.first() else {
        return Vec::new();
    };
    // A `*` over a subquery: its columns are not followed up here.
    if first.projection.iter().any(is_wildcard) {
        return Vec::new();
    }
    let names: Vec<&str> = first.projection.iter().filter_map(column_name).collect();
    // A key that is missing is the file's problem, not this query's.
    if key.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(key)) {
        return Vec::new();
    }
    let place = first.projection.first().map_or(first.span(), Spanned::span);
    vec![SqlProblem::at(place.start, missing_key(key, &names))]
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

fn outermost<'a>(body: &'a SetExpr, selects: &mut Vec<&'a Select>) {
    match body {
        SetExpr::Select(select) => selects.push(select),
        SetExpr::Query(query) => outermost(&query.body, selects),
        SetExpr::SetOperation { left, right, .. } => {
            outermost(left, selects);
            outermost(right, selects);
        }
        _ => {}
    }
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(
        item,
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
    )
}

fn column_name(item: &SelectItem) -> Option<&str> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(&alias.value),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(&name.value),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => {
            path.last().map(|name| name.value.as_str())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(sql: &str) -> SqlProblem {
        lint(sql, "id").into_iter().next().expect("a problem")
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
            assert_eq!(lint(sql, "id"), [], "{sql}");
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
        assert!(!lint(hidden, "id").iter().all(|problem| problem.is_note));
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
            let found: Vec<_> = lint(sql, "id").iter().map(|p| (p.line, p.column)).collect();
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
        assert_eq!(lint(&sql, "id"), []);
        let wide =
            (0..25).map(|n| format!(", c{} as (select a.*, b.* from c{n} a, c{n} b)", n + 1));
        let sql = format!(
            "with c0 as (select * from p){} select * from c25",
            wide.collect::<String>()
        );
        assert_eq!(lint(&sql, "id").len(), 1);
    }

    #[test]
    fn sql_of_any_length_ends_in_a_note_at_most() {
        let note = |sql: &str| {
            assert_eq!(selected_columns(sql), Selected::default());
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
        assert_eq!(lint(&sql, "id"), []);
        // As deep as it may be, on the stack of a thread.
        let sql = format!("select id{} as x from p", " + id".repeat(5_999));
        assert_eq!(lint(&sql, "x"), []);
        assert_eq!(selected_columns(&sql).names, ["x"]);
    }

    #[test]
    fn sql_the_parser_does_not_know_is_a_note() {
        let problem = first("select id from p qualify ??? 1 frobnicate");
        assert!(problem.is_note);
    }

    #[test]
    fn the_selected_columns_are_known_as_far_as_they_have_names() {
        let check = |sql, expect: &[&str], is_whole| {
            let selected = selected_columns(sql);
            assert_eq!(selected.names, expect, "{sql}");
            assert_eq!(selected.is_whole, is_whole, "{sql}");
        };
        check(
            "select id, p.mail as m, q.x from p, q",
            &["id", "m", "x"],
            true,
        );
        check("with q as (select 1 as y) select id from q", &["id"], true);
        check("select id, count(*) from p group by 1", &["id"], false);
        check("select id, p.* from p", &["id"], false);
        check("no sql", &[], false);
    }

    #[test]
    fn the_last_semicolon_is_cut_and_nothing_moves() {
        let sql = "select 'ä;' as id\n; -- end;";
        assert_eq!(without_semicolon(sql), "select 'ä;' as id\n  -- end;");
        assert_eq!(without_semicolon("select 1"), "select 1");
    }
}
