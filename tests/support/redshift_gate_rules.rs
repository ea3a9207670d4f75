//! What Redshift refuses, told from the words of a statement alone.

use super::gate_wire::Refusal;
use super::redshift_gate_lists::{
    COMMANDS, FUNCTIONS, LEADER_ONLY, RELATIONS, RESERVED, SETTINGS, TYPES, has,
};
use super::redshift_gate_words::{Kind, Word};

/// What a session's earlier statements decide about the next one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Session {
    /// Whether a transaction block is open.
    pub in_transaction: bool,
    /// Whether a cursor is.
    pub has_cursor: bool,
}

impl Session {
    /// The session behind a statement that went well.
    pub fn after(self, words: &[Word]) -> Self {
        match text(words, Some(0)) {
            "begin" | "start" => Self {
                in_transaction: true,
                ..self
            },
            "commit" | "rollback" | "end" | "abort" => Self::default(),
            "declare" => Self {
                has_cursor: true,
                ..self
            },
            "close" => Self {
                has_cursor: false,
                ..self
            },
            _ => self,
        }
    }
}

fn unsupported(what: impl Into<String>) -> Refusal {
    Refusal::error("0A000", what)
}

fn syntax(near: &str) -> Refusal {
    Refusal::error("42601", format!("syntax error at or near \"{near}\""))
}

/// The error of a statement, if it is refused.
pub fn refusal(words: &[Word], session: Session) -> Option<Refusal> {
    for (at, word) in words.iter().enumerate() {
        let found = match word.kind {
            Kind::Plain => plain_word(words, at),
            Kind::Sign => sign(words, at),
            Kind::Bind => bind(words, at),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    command(words)
        .or_else(|| setting(words))
        .or_else(|| values(words))
        .or_else(|| leader_only(words))
        .or_else(|| table_change(words, session))
        .or_else(|| late_binding(words))
        .or_else(|| cursor(words, session))
        .or_else(|| merge(words))
}

/// Whether `words` continue with `with` from `at` on.
pub fn says(words: &[Word], at: usize, with: &[&str]) -> bool {
    with.iter().enumerate().all(|(n, text)| {
        let word = words.get(at + n);
        word.is_some_and(|w| matches!(w.kind, Kind::Plain | Kind::Sign) && w.text == *text)
    })
}

fn text(words: &[Word], at: Option<usize>) -> &str {
    at.and_then(|at| words.get(at)).map_or("", |w| &w.text)
}

/// Whether the word at `at` is called as a function.
fn is_call(words: &[Word], at: usize) -> bool {
    says(words, at + 1, &["("])
}

/// Whether the word at `at` names a type.
fn is_type(words: &[Word], at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else {
        return false;
    };
    let opener = words[at].within;
    let opens = |name: &str| text(words, opener.and_then(|at| at.checked_sub(1))) == name;
    if says(words, before, &["::"]) || (says(words, before, &["as"]) && opens("cast")) {
        return true;
    }
    // A column's, right behind its name.
    let is_column_list = says(words, 0, &["create"]) && words[at].within.is_some();
    let is_new_column =
        says(words, 0, &["alter", "table"]) && words.iter().any(|w| w.text == "add");
    let is_name = matches!(words[before].kind, Kind::Plain | Kind::Quoted);
    let ends = [
        "", ",", ")", "(", "[", "not", "null", "default", "encode", "primary", "unique",
    ];
    (is_column_list || is_new_column) && is_name && ends.contains(&text(words, Some(at + 1)))
}

fn plain_word(words: &[Word], at: usize) -> Option<Refusal> {
    let word = words[at].text.as_str();
    let follows = |with: &[&str]| says(words, at + 1, with);
    let before = |with: &str| at > 0 && says(words, at - 1, &[with]);
    if has(TYPES, word) && is_type(words, at) {
        let message = format!("Column \"?column?\" has unsupported type \"{word}\".");
        return Some(unsupported(message));
    }
    let is_lock = word.starts_with("pg_advisory") || word.starts_with("pg_try_advisory");
    if is_call(words, at) && (has(FUNCTIONS, word) || is_lock) {
        let message = format!("function {word}() does not exist");
        return Some(Refusal::error("42883", message));
    }
    if has(RELATIONS, word) {
        let message = format!("relation \"{word}\" does not exist");
        return Some(Refusal::error("42P01", message));
    }
    let not_supported = match word {
        "returning" => "RETURNING",
        "distinct" if follows(&["on"]) => "SELECT DISTINCT ON",
        "distinct" if follows(&["from"]) && (before("is") || before("not")) => "IS DISTINCT FROM",
        "lateral" => "LATERAL",
        "on" if follows(&["conflict"]) => "ON CONFLICT",
        "on" if follows(&["commit"]) => "ON COMMIT",
        "tablesample" => "TABLESAMPLE",
        "for" if at > 0 && follows(&["update"]) => "SELECT FOR UPDATE",
        "for" if follows(&["share"]) || follows(&["no"]) || follows(&["key"]) => "SELECT FOR SHARE",
        "filter" if follows(&["(", "where"]) => "FILTER",
        "nulls" if in_window(words, at) => "NULLS in a window function",
        "row" if is_call(words, at) && !before("for") => "ROW constructor",
        "array" if follows(&["["]) => "ARRAY constructor",
        "window" if at > 0 && says(words, at + 2, &["as", "("]) => "WINDOW clause",
        "over" if needs_frame(words, at) => {
            let message =
                "Aggregate window functions with an ORDER BY clause require a frame clause";
            return Some(unsupported(message));
        }
        "typcategory" => {
            let message = "column \"typcategory\" does not exist";
            return Some(Refusal::error("42703", message));
        }
        _ => return reserved(words, at),
    };
    Some(unsupported(format!("{not_supported} is not supported")))
}

/// A reserved word where a name stands.
fn reserved(words: &[Word], at: usize) -> Option<Refusal> {
    let word = words[at].text.as_str();
    let starts = [",", "(", "select", "and", "or", "where", "on", "as", "by"];
    let ends = [
        ",",
        ")",
        "=",
        "<",
        ">",
        "from",
        "is",
        "int",
        "bigint",
        "varchar",
        "timestamp",
        "boolean",
    ];
    let is_name = at > 0
        && starts.contains(&text(words, Some(at - 1)))
        && ends.contains(&text(words, Some(at + 1)));
    (has(RESERVED, word) && is_name).then(|| syntax(word))
}

fn in_window(words: &[Word], at: usize) -> bool {
    let opener = words[at].within.and_then(|open| open.checked_sub(1));
    text(words, opener) == "over"
}

/// Whether the window behind `over` orders an aggregate without a frame.
fn needs_frame(words: &[Word], at: usize) -> bool {
    let Some(close) = at.checked_sub(1).filter(|_| is_call(words, at)) else {
        return false;
    };
    let function = (0..close)
        .rev()
        .find(|&open| says(words, open, &["("]) && words[open].within == words[close].within);
    let name = text(words, function.and_then(|open| open.checked_sub(1)));
    let inside = || words.iter().filter(|word| word.within == Some(at + 1));
    let has = |wanted: &[&str]| inside().any(|word| wanted.contains(&word.text.as_str()));
    let aggregates = [
        "sum",
        "count",
        "avg",
        "min",
        "max",
        "stddev_samp",
        "var_samp",
    ];
    aggregates.contains(&name) && has(&["order"]) && !has(&["rows", "range"])
}

fn sign(words: &[Word], at: usize) -> Option<Refusal> {
    let is_array_type = says(words, at, &["[", "]"]);
    is_array_type.then(|| unsupported("array types are not supported"))
}

fn bind(words: &[Word], at: usize) -> Option<Refusal> {
    let takes_none = [
        "create", "alter", "drop", "copy", "unload", "set", "grant", "lock",
    ];
    let first = text(words, Some(0));
    takes_none.contains(&first).then(|| syntax(&words[at].text))
}

fn command(words: &[Word]) -> Option<Refusal> {
    let first = text(words, Some(0));
    let is_listed = COMMANDS.split(", ").any(|command| {
        let command: Vec<&str> = command.split(' ').collect();
        says(words, 0, &command)
    });
    if is_listed {
        let shown: Vec<&str> = words.iter().take(3).map(|w| w.text.as_str()).collect();
        let shown = shown.join(" ").to_uppercase();
        return Some(unsupported(format!(
            "SQL command \"{shown}\" not supported."
        )));
    }
    let writes = ["insert", "update", "delete", "merge"];
    let outer = |word: &&Word| word.kind == Kind::Plain && word.within.is_none();
    if first == "with"
        && words
            .iter()
            .filter(outer)
            .any(|w| writes.contains(&&*w.text))
    {
        let word = words
            .iter()
            .filter(outer)
            .find(|w| writes.contains(&&*w.text));
        return Some(syntax(&word?.text));
    }
    if first == "copy"
        && words
            .iter()
            .any(|w| w.text == "stdin" || w.text == "stdout")
    {
        return Some(unsupported(
            "COPY FROM STDIN and TO STDOUT are not supported",
        ));
    }
    if first == "lock" && words.iter().any(|w| w.text == "mode") {
        return Some(syntax("in"));
    }
    None
}

fn setting(words: &[Word]) -> Option<Refusal> {
    if !says(words, 0, &["set"]) && !says(words, 0, &["reset"]) {
        return None;
    }
    if says(words, 1, &["time", "zone"]) {
        return time_zone(words, 3, &["interval", "default"]);
    }
    if says(words, 1, &["timezone"]) {
        return time_zone(words, 3, &["default"]);
    }
    let at = if says(words, 1, &["session"]) || says(words, 1, &["local"]) {
        2
    } else {
        1
    };
    let name = text(words, Some(at));
    let is_known = has(SETTINGS, name) || says(words, at + 1, &["."]) || name == "authorization";
    let message = format!("unrecognized configuration parameter \"{name}\"");
    (!is_known).then(|| Refusal::error("42704", message))
}

/// A time zone is a name or an offset in quotes, or one of `others`: no
/// number, not `local`, and an interval not behind `to`. [D r_timezone_config]
fn time_zone(words: &[Word], at: usize, others: &[&str]) -> Option<Refusal> {
    let value = words.get(at)?;
    let is_one = matches!(value.kind, Kind::Literal | Kind::Quoted)
        || others.contains(&value.text.as_str())
        || (value.kind == Kind::Plain && value.text != "local" && value.text != "interval");
    (!is_one).then(|| syntax(&value.text))
}

/// `values` anywhere but as the rows of an `insert`.
fn values(words: &[Word]) -> Option<Refusal> {
    let is_insert = says(words, 0, &["insert"]) || says(words, 0, &["merge"]);
    let at = words
        .iter()
        .position(|w| w.kind == Kind::Plain && w.text == "values")?;
    if !is_insert || words[at].within.is_some() {
        return Some(syntax("values"));
    }
    let rows = words[at..]
        .iter()
        .filter(|w| w.text == "(" && w.within.is_none())
        .count();
    let has_query = words[at..]
        .iter()
        .any(|w| w.kind == Kind::Plain && w.text == "select");
    let message = "subqueries are not allowed in a multi-row VALUES";
    (rows > 1 && has_query).then(|| unsupported(message))
}

/// A relation that is read.
struct Relation {
    is_catalog: bool,
    /// Whether its schema is named.
    is_qualified: bool,
}

fn relations(words: &[Word]) -> Vec<Relation> {
    let mut found = Vec::new();
    for at in 0..words.len() {
        let is_source = says(words, at, &["from"]) || says(words, at, &["join"]);
        let is_extract = text(words, words[at].within.and_then(|open| open.checked_sub(1)));
        if !is_source || ["extract", "trim", "substring", "overlay"].contains(&is_extract) {
            continue;
        }
        let Some(first) = words
            .get(at + 1)
            .filter(|w| matches!(w.kind, Kind::Plain | Kind::Quoted))
        else {
            continue;
        };
        if is_call(words, at + 1) {
            continue;
        }
        let is_qualified = says(words, at + 2, &["."]);
        let last = if is_qualified {
            text(words, Some(at + 3))
        } else {
            &first.text
        };
        let prefixes = ["pg_", "svv_", "svl_", "stv_", "stl_", "sys_"];
        let is_catalog = first.text == "information_schema"
            || (prefixes.iter().any(|p| last.starts_with(p))
                && (!is_qualified || first.text == "pg_catalog"));
        let is_cte = (0..at).any(|n| words[n].text == *last && says(words, n + 1, &["as", "("]));
        if !is_cte {
            found.push(Relation {
                is_catalog,
                is_qualified,
            });
        }
    }
    found
}

/// Whether a statement is the work of the compute nodes, for which it waits in
/// a queue: it reads or writes the rows of a table that is not a catalog.
pub fn reads_or_writes_rows(words: &[Word]) -> bool {
    let writes = match text(words, Some(0)) {
        "insert" | "update" | "delete" | "merge" | "copy" | "unload" => true,
        "create" => words.iter().any(|word| word.text == "select"),
        _ => false,
    };
    writes || relations(words).iter().any(|relation| !relation.is_catalog)
}

/// What only the leader node has, beside a table of a user's, or written into
/// one.
fn leader_only(words: &[Word]) -> Option<Refusal> {
    let relations = relations(words);
    let writes = ["create", "insert", "update", "delete"].contains(&text(words, Some(0)));
    let has_user_table = relations.iter().any(|relation| !relation.is_catalog);
    let has_catalog = relations.iter().any(|relation| relation.is_catalog);
    let calls =
        (0..words.len()).any(|at| has(LEADER_ONLY, text(words, Some(at))) && is_call(words, at));
    let message =
        "Specified types or functions (one per INFO message) not supported on Redshift tables.";
    let is_mixed = (has_user_table || writes) && (has_catalog || calls);
    is_mixed.then(|| unsupported(message))
}

fn table_change(words: &[Word], session: Session) -> Option<Refusal> {
    if !says(words, 0, &["alter", "table"]) {
        return None;
    }
    if let Some(comma) = words.iter().find(|w| w.text == "," && w.within.is_none()) {
        return Some(syntax(&comma.text));
    }
    let has = |with: &[&str]| (0..words.len()).any(|at| says(words, at, with));
    if has(&["if", "not", "exists"]) {
        return Some(syntax("not"));
    }
    if !has(&["alter", "column"]) {
        return None;
    }
    if session.in_transaction {
        let message = "ALTER TABLE ALTER COLUMN cannot run inside a transaction block";
        return Some(Refusal::error("25001", message));
    }
    let is_width = (0..words.len()).any(|at| {
        says(words, at, &["type", "varchar", "("])
            || says(words, at, &["type", "character", "varying", "("])
    });
    let message = "ALTER COLUMN TYPE changes the size of a VARCHAR and nothing else";
    (!is_width).then(|| unsupported(message))
}

/// A view that is bound late needs the schema of each relation. [D
/// r_CREATE_VIEW]
fn late_binding(words: &[Word]) -> Option<Refusal> {
    let is_late = (0..words.len()).any(|at| says(words, at, &["with", "no", "schema", "binding"]));
    let message = "All the relation names inside should be qualified when creating VIEW WITH NO \
                   SCHEMA BINDING.";
    let is_bare = |relation: &Relation| !relation.is_qualified;
    let is_refused = is_late && relations(words).iter().any(is_bare);
    is_refused.then(|| unsupported(message))
}

fn cursor(words: &[Word], session: Session) -> Option<Refusal> {
    if !says(words, 0, &["declare"]) {
        return None;
    }
    if !session.in_transaction {
        let message = "DECLARE CURSOR may only be used in transaction blocks";
        return Some(Refusal::error("25P01", message));
    }
    let message = "only one cursor may be open in a session";
    session.has_cursor.then(|| unsupported(message))
}

/// One `when matched`, one `when not matched`, nothing more to either.
fn merge(words: &[Word]) -> Option<Refusal> {
    let count = |with: &[&str]| (0..words.len()).filter(|&at| says(words, at, with)).count();
    if !says(words, 0, &["merge"]) {
        return None;
    }
    if count(&["matched", "and"]) > 0 {
        return Some(syntax("and"));
    }
    if count(&["with"]) > 0 {
        return Some(syntax("with"));
    }
    let arms = (
        count(&["when", "matched"]),
        count(&["when", "not", "matched"]),
    );
    if count(&["remove", "duplicates"]) == 1 {
        let is_mixed = arms != (0, 0);
        return is_mixed.then(|| syntax("remove"));
    }
    let message = "MERGE needs one WHEN MATCHED and one WHEN NOT MATCHED clause";
    (arms != (1, 1)).then(|| Refusal::error("42601", message))
}

/// Whether `limit` or `offset` takes a bind, which must not be an `int8`.
pub fn binds_limit(words: &[Word]) -> Vec<usize> {
    let is_limit = |at: &usize| says(words, *at, &["limit"]) || says(words, *at, &["offset"]);
    let bound = (0..words.len()).filter(is_limit).filter_map(|at| {
        let bind = words.get(at + 1).filter(|w| w.kind == Kind::Bind)?;
        bind.text[1..].parse().ok()
    });
    bound.collect()
}
