//! SQL as one database reads it: its words, and what its statements are.

use super::Dialect;
use sqlparser::ast::Statement;
use sqlparser::dialect as parsers;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, TokenizerError};

/// How many operators SQL may have and still be read: each can lie one level
/// deeper than the one before, and what walks through them follows on the
/// stack. A thread of 2 MiB ends between eight and thirty thousand.
const MAX_OPERATORS: usize = 6_000;

/// How many queries may lie in SQL that is read further: each name in it may be
/// any of theirs.
const MAX_SELECTS: usize = 2_000;

impl Dialect {
    /// The parser's word for it.
    fn parser(self) -> &'static dyn parsers::Dialect {
        match self {
            Self::Sqlite => &parsers::SQLiteDialect {},
            Self::Postgres => &parsers::PostgreSqlDialect {},
            Self::Redshift => &parsers::RedshiftSqlDialect {},
        }
    }
}

/// The tokens as one database sees them.
pub(super) struct Reading {
    tokens: Vec<TokenWithSpan>,
    /// Why there are no more.
    pub(super) broken: Option<TokenizerError>,
}

impl Reading {
    pub(super) fn of(dialect: Dialect, sql: &str) -> Self {
        let mut tokens = Vec::new();
        let broken = Tokenizer::new(dialect.parser(), sql)
            .tokenize_with_location_into_buf(&mut tokens)
            .err();
        Self { tokens, broken }
    }

    /// The tokens that mean something.
    pub(super) fn words(&self) -> impl DoubleEndedIterator<Item = &TokenWithSpan> {
        let is_silent = |token: &Token| matches!(token, Token::Whitespace(_) | Token::EOF);
        self.tokens.iter().filter(move |t| !is_silent(&t.token))
    }

    /// The first `;` that does not end the text.
    pub(super) fn stray_semicolon(&self) -> Option<Location> {
        let last = self.words().next_back()?.span;
        let is_stray = |t: &&TokenWithSpan| {
            t.token == Token::SemiColon && (t.span != last || self.broken.is_some())
        };
        self.words().find(is_stray).map(|t| t.span.start)
    }
}

/// `sql` without the semicolon that ends it, every place kept.
pub(super) fn without_semicolon(sql: &str, dialect: Dialect) -> String {
    let reading = Reading::of(dialect, sql);
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

/// Why it is not known what SQL says.
pub(super) struct Unread {
    /// In words.
    pub(super) why: String,
    /// Where it was given up.
    pub(super) place: Location,
}

/// The statements of `sql`, or why they are not known.
pub(super) fn parsed(sql: &str, dialect: Dialect) -> Result<Vec<Statement>, Unread> {
    let reading = Reading::of(dialect, sql);
    let is_query = |t: &&TokenWithSpan| match &t.token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::SELECT | Keyword::VALUES | Keyword::TABLE
        ),
        _ => false,
    };
    let too_long = |why: String| Unread {
        why,
        place: Location::new(1, 1),
    };
    if reading.words().filter(|t| is_operator(&t.token)).count() > MAX_OPERATORS {
        return Err(too_long(format!(
            "it has more than {MAX_OPERATORS} operators: put what it compares with into a list, \
             `in (…)`, or into a table"
        )));
    }
    if reading.words().filter(is_query).count() > MAX_SELECTS {
        return Err(too_long(format!(
            "it has more than {MAX_SELECTS} queries in it: put parts of it into views"
        )));
    }
    Parser::parse_sql(dialect.parser(), sql).map_err(|error| unread(&error))
}

/// The parser puts the place behind its words.
fn unread(error: &ParserError) -> Unread {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "it is nested too deep",
    };
    let (what, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
    let place = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(Location::new(line.parse().ok()?, column.parse().ok()?)));
    Unread {
        why: format!(
            "our parser does not know all of it ({})",
            what.replacen("Expected:", "expected", 1)
        ),
        place: place.unwrap_or(Location::new(1, 1)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_semicolon_is_cut_and_nothing_moves() {
        let check = |sql, dialect, expect| assert_eq!(without_semicolon(sql, dialect), expect);
        let sql = "select 'ä;' as id\n; -- end;";
        check(sql, Dialect::Redshift, "select 'ä;' as id\n  -- end;");
        check("select 1", Dialect::Redshift, "select 1");
        check(r"select 'a\' ;", Dialect::Postgres, r"select 'a\'  ");
    }
}
