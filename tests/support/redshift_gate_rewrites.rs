//! What Redshift takes and PostgreSQL does not, put into PostgreSQL's words.

use super::redshift_gate_rules::says;
use super::redshift_gate_words::{Kind, Word};

/// A statement that PostgreSQL takes, and how to find places of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    pub sql: String,
    /// Where each change ends in the new text, and by how many characters it
    /// moved what follows.
    moves: Vec<(usize, isize)>,
}

impl Rewritten {
    /// The original's place of `position`; both count characters from 1.
    pub fn original(&self, position: usize) -> usize {
        let before = self.moves.iter().filter(|(end, _)| *end < position);
        let moved: isize = before.map(|(_, by)| by).sum();
        position.checked_add_signed(-moved).unwrap_or(1).max(1)
    }
}

/// Stands in a `merge` that removes duplicates, so that its errors are known.
pub(super) const REMOVES: &str = "/* remove duplicates */";

/// Stands where a view said that it is bound late; the database remembers.
const BOUND_LATE: &str = "/* with no schema binding */";

/// A change: from word, to word (exclusive), new text.
type Change = (usize, usize, String);

/// `sql`, whose words are `words`, as PostgreSQL takes it.
pub fn rewrite(sql: &str, words: &[Word]) -> Rewritten {
    let mut changes: Vec<Change> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let change = change_at(sql, words, at);
        at = change
            .as_ref()
            .map_or(at + 1, |&(_, end, _)| end.max(at + 1));
        changes.extend(change);
    }
    let mut text = String::new();
    let mut moves = Vec::new();
    let (mut done, mut length) = (0, 0);
    for (from, to, new) in changes {
        let start = words[from].start;
        let end = words[to - 1].end;
        text.push_str(&sql[done..start]);
        length += sql[done..start].chars().count() + new.chars().count();
        let by = new.chars().count().cast_signed() - sql[start..end].chars().count().cast_signed();
        moves.push((length, by));
        text.push_str(&new);
        done = end;
    }
    text.push_str(&sql[done..]);
    Rewritten { sql: text, moves }
}

/// Where the parenthesis that `open` opens is closed.
fn close(words: &[Word], open: usize) -> usize {
    let is_close = |&at: &usize| words[at].text == ")" && words[at].within == words[open].within;
    let found = (open + 1..words.len()).find(is_close);
    found.unwrap_or(words.len() - 1)
}

fn change_at(sql: &str, words: &[Word], at: usize) -> Option<Change> {
    let word = &words[at];
    if word.kind == Kind::Literal {
        return made_column(sql, words, at);
    }
    if word.kind != Kind::Plain || (at > 0 && says(words, at - 1, &["."])) {
        return None;
    }
    let is_call = says(words, at + 1, &["("]);
    let one = |new: &str| Some((at, at + 1, new.to_owned()));
    match word.text.as_str() {
        "nvl" if is_call => one("coalesce"),
        "version" if is_call => one("redshift_version"),
        "pg_get_viewdef" if is_call => one("redshift_viewdef"),
        "merge" if is_first(words, at) => removes_duplicates(sql, words, at),
        "sysdate" => one("pg_catalog.redshift_sysdate()"),
        "dateadd" | "datediff" | "date_part" if is_call => first_argument(words, at),
        "listagg" if is_call => listagg(sql, words, at),
        "varbyte" if is_call => Some((at, close(words, at + 1) + 1, "varbyte".to_owned())),
        "varchar" if says(words, at + 1, &["(", "max", ")"]) => {
            Some((at, at + 4, "varchar(65535)".to_owned()))
        }
        "text" if is_declared(words, at) => one("varchar(256)"),
        "query_group" if at <= 2 => one("rs.query_group"),
        "cancel" if at == 0 => {
            let pid = words.get(1).map_or("0", |word| word.text.as_str());
            let new = format!("select pg_cancel_backend({pid})");
            Some((0, words.len().min(3), new))
        }
        "case" if made_case(sql, words, at).is_some() => one("cast(case"),
        "end" => {
            let from = (0..at)
                .rev()
                .find(|&case| case_end(words, case) == Some(at))?;
            let width = made_case(sql, words, from)?;
            Some((at, at + 1, format!("end as varchar({width}))")))
        }
        _ => layout(words, at),
    }
}

/// Whether the word at `at` begins a statement.
fn is_first(words: &[Word], at: usize) -> bool {
    at == 0 || says(words, at - 1, &[";"])
}

/// `merge into t using s on … remove duplicates`: what matches goes, and all
/// of `s` comes. Both see the tables as they were.
fn removes_duplicates(sql: &str, words: &[Word], at: usize) -> Option<Change> {
    let end = (at..words.len()).find(|&n| is_first(words, n + 1) || n + 1 == words.len())?;
    let find = |with: &[&str]| {
        let is_it = |&n: &usize| says(words, n, with) && words[n].within == words[at].within;
        (at..=end).find(is_it)
    };
    let (using, on) = (find(&["using"])?, find(&["on"])?);
    let remove = find(&["remove", "duplicates"])?;
    let between = |from: usize, to: usize| sql[words[from].end..words[to].start].trim();
    let target = sql[words[at + 2].start..words[using].start].trim();
    let (source, condition) = (between(using, on), between(on, remove));
    let new = format!(
        "with removed as (delete from {target} using {source} where {condition}) {REMOVES} \
         insert into {target} select * from {source} union all select * from {target} where false"
    );
    Some((at, remove + 2, new))
}

/// `dateadd(day, …`: PostgreSQL takes the unit as a literal.
fn first_argument(words: &[Word], at: usize) -> Option<Change> {
    let unit = words.get(at + 2).filter(|unit| unit.kind == Kind::Plain)?;
    let new = format!("{}('{}'", words[at].text, unit.text);
    Some((at, at + 3, new))
}

/// `listagg(x, ',') within group (order by y)`.
fn listagg(sql: &str, words: &[Word], at: usize) -> Option<Change> {
    let end = close(words, at + 1);
    let comma = (at + 2..end).find(|&n| words[n].text == "," && words[n].within == Some(at + 1));
    let value = &sql[words[at + 1].end..words[comma.unwrap_or(end)].start];
    let separator = comma.map_or(", ''", |comma| &sql[words[comma].start..words[end].start]);
    let arguments = format!("cast({value} as varchar){separator}");
    if !says(words, end + 1, &["within", "group", "("]) {
        return Some((at, end + 1, format!("string_agg({arguments})")));
    }
    let last = close(words, end + 3);
    let order = &sql[words[end + 3].end..words[last].start];
    let new = format!("string_agg({arguments} {order})");
    Some((at, last + 1, new))
}

/// Whether `text` is a column's type in a table's declaration.
fn is_declared(words: &[Word], at: usize) -> bool {
    let declares = says(words, 0, &["create"]) || says(words, 0, &["alter", "table"]);
    let is_name = at > 0 && matches!(words[at - 1].kind, Kind::Plain | Kind::Quoted);
    let is_cast = at > 0 && says(words, at - 1, &["as"]);
    let next = words.get(at + 1).map_or("", |word| word.text.as_str());
    declares && is_name && !is_cast && ["", ",", ")", "not", "null", "encode"].contains(&next)
}

/// How a table is laid out, which PostgreSQL does not ask.
fn layout(words: &[Word], at: usize) -> Option<Change> {
    if !says(words, 0, &["create"]) && !says(words, 0, &["alter", "table"]) {
        return None;
    }
    let until = |end: usize| Some((at, end.min(words.len()), String::new()));
    match words[at].text.as_str() {
        "diststyle" | "backup" => until(at + 2),
        "distkey" | "sortkey" if says(words, at + 1, &["("]) => until(close(words, at + 1) + 1),
        "distkey" | "sortkey" if words[at].within.is_some() => until(at + 1),
        "compound" | "interleaved" if says(words, at + 1, &["sortkey", "("]) => {
            until(close(words, at + 2) + 1)
        }
        "encode" if at > 1 => until(at + 2),
        "with" if says(words, at + 1, &["no", "schema", "binding"]) => {
            Some((at, at + 4, BOUND_LATE.to_owned()))
        }
        "identity" if says(words, at + 1, &["("]) && !says(words, at - 1, &["as"]) => {
            let end = close(words, at + 1) + 1;
            Some((at, end, "generated by default as identity".to_owned()))
        }
        _ => None,
    }
}

/// Whether a table is made from a query.
fn makes_table(words: &[Word]) -> bool {
    says(words, 0, &["create"]) && words.iter().any(|word| word.text == "select")
}

/// The bytes in a literal, as its column counts them.
fn width(sql: &str, word: &Word) -> usize {
    let inner = &sql[word.start + 1..word.end - 1];
    inner.replace("''", "'").replace("\\\\", "\\").len().max(1)
}

/// A column made from a literal is as wide as the literal, where PostgreSQL
/// would make it `text`.
fn made_column(sql: &str, words: &[Word], at: usize) -> Option<Change> {
    let before = at.checked_sub(1)?;
    let is_listed = says(words, before, &["select"]) || says(words, before, &[","]);
    if !makes_table(words) || !is_listed || !says(words, at + 1, &["as"]) {
        return None;
    }
    let literal = &sql[words[at].start..words[at].end];
    let width = width(sql, &words[at]);
    Some((at, at + 1, format!("cast({literal} as varchar({width}))")))
}

/// The `end` of the `case` at `at`.
fn case_end(words: &[Word], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    (at..words.len())
        .filter(|_| says(words, at, &["case"]))
        .find(|&n| {
            depth += usize::from(says(words, n, &["case"]));
            depth -= usize::from(says(words, n, &["end"]));
            depth == 0
        })
}

/// The width of a column made from the `case` at `at`, if each of its arms is
/// a literal.
fn made_case(sql: &str, words: &[Word], at: usize) -> Option<usize> {
    let end = case_end(words, at)?;
    if !makes_table(words) || !says(words, end + 1, &["as"]) {
        return None;
    }
    let is_arm = |&n: &usize| says(words, n, &["then"]) || says(words, n, &["else"]);
    let arms: Vec<&Word> = (at..end).filter(is_arm).map(|n| &words[n + 1]).collect();
    let are_literals = arms.iter().all(|arm| arm.kind == Kind::Literal);
    let widths = arms
        .iter()
        .filter(|_| are_literals)
        .map(|arm| width(sql, arm));
    widths.max()
}
