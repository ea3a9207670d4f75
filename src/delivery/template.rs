//! The engine of templates: what they may say, and how much they may cost.

use super::template_bounds::unbounded;
use super::template_value::write_engine_value;
use crate::id::{CampaignName, RunId};
use jiff::{SignedDuration, Timestamp};
use minijinja::value::{Kwargs, Object, ObjectRepr, Serde, Value};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Expression, State, Template, UndefinedBehavior,
    filters, tests,
};
use serde_json::Map;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

/// Steps one value may take to render: a page of template text takes some
/// hundreds.
const FUEL: u64 = 20_000;

/// The longest text one template may give, in bytes.
const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// How far back `days_ago` reaches: a hundred years.
const MAX_DAYS: i64 = 36_525;

/// What every template may name besides its columns.
pub const RUN_NAMES: [&str; 9] = [
    "batch",
    "campaign",
    "channel",
    "date",
    "days_ago",
    "fire_time",
    "hours_ago",
    "run_id",
    "var",
];

/// Statements a template may use; none of them can pile up text.
const STATEMENTS: [&str; 8] = [
    "if", "elif", "else", "endif", "for", "endfor", "raw", "endraw",
];

/// The filters of every template, but for the short form of one.
const FILTERS: [&str; 18] = [
    "default",
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "length",
    "first",
    "last",
    "join",
    "split",
    "round",
    "abs",
    "int",
    "float",
    "string",
    "tojson",
];

/// What a run's templates see, apart from columns. Frozen with the run, so
/// that a late or repeated rendering gives the same bytes.
#[derive(Debug, Clone)]
pub struct RunValues {
    /// `campaign`.
    pub campaign: CampaignName,
    /// `run_id`.
    pub run: RunId,
    /// `channel`.
    pub channel: String,
    /// `fire_time`, and what `date`, `days_ago` and `hours_ago` count from.
    pub fire_time: Timestamp,
    /// What `var` gives.
    pub vars: Map<String, serde_json::Value>,
}

/// An exact decimal: written digit by digit, and nothing to be calculated
/// with, since that would round it.
#[derive(Debug)]
pub(super) struct Exact(pub(super) String);

impl Object for Exact {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A call that is wrong whatever the member: reported by `check`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// An error of a call that is wrong whatever the member.
pub fn misuse(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Misuse(message))
}

/// An engine in which exactly `values`, the functions of the run and a few
/// filters can be named, and nothing can be included or defined.
pub fn engine<'s>(values: &RunValues) -> Environment<'s> {
    let mut env = Environment::empty();
    env.set_debug(false);
    env.set_fuel(Some(FUEL));
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    add_filters(&mut env);
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", tests::is_none);
    env.add_test("string", tests::is_string);
    env.add_test("number", tests::is_number);
    env.add_test("in", tests::is_in);

    env.add_global("campaign", values.campaign.as_str());
    env.add_global("run_id", values.run.as_str());
    env.add_global("channel", values.channel.as_str());
    let fire_time = values.fire_time;
    env.add_global("fire_time", shown(fire_time));
    env.add_global("date", fire_time.strftime("%Y-%m-%d").to_string());
    env.add_function("days_ago", move |n: Value| {
        earlier(fire_time, "days_ago", &n, 24, MAX_DAYS)
    });
    env.add_function("hours_ago", move |n: Value| {
        earlier(fire_time, "hours_ago", &n, 1, MAX_DAYS * 24)
    });
    let vars = values.vars.clone();
    env.add_function("var", move |name: String| match vars.get(&name) {
        Some(value) => Ok(Value::from(Serde(value))),
        None => Err(misuse(format!("there is no `{name}` under `vars`"))),
    });
    env
}

fn add_filters(env: &mut Environment) {
    env.add_filter("default", filters::default);
    env.add_filter("d", filters::default);
    env.add_filter("upper", filters::upper);
    env.add_filter("lower", filters::lower);
    env.add_filter("title", filters::title);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("trim", filters::trim);
    env.add_filter("replace", replace);
    env.add_filter("length", filters::length);
    env.add_filter("first", filters::first);
    env.add_filter("last", filters::last);
    env.add_filter("join", filters::join);
    env.add_filter("split", filters::split);
    env.add_filter("round", filters::round);
    env.add_filter("abs", filters::abs);
    env.add_filter(
        "int",
        |state: &State, value: Value, or: Option<Value>, base: Option<u32>, rest: Kwargs| {
            filters::int(state, &rounded(value), or, base, rest)
        },
    );
    env.add_filter(
        "float",
        |state: &State, value: Value, or: Option<Value>, rest: Kwargs| {
            filters::float(state, &rounded(value), or, rest)
        },
    );
    env.add_filter("string", |value: Value| value.to_string());
    // Without `indent`, which gives any number of blanks.
    env.add_filter("tojson", json_text);
}

/// `value` as JSON, with the characters that HTML gives a meaning escaped.
fn json_text(value: &Value) -> Result<String, Error> {
    let mut json = Vec::new();
    write_engine_value(&mut json, value)
        .ok_or_else(|| Error::new(ErrorKind::UndefinedError, "there is no value"))?;
    let json = String::from_utf8_lossy(&json);
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\'' => text.push_str("\\u0027"),
            other => text.push(other),
        }
    }
    Ok(text)
}

/// An exact decimal as the number nearest to it.
fn rounded(value: Value) -> Value {
    let exact = value.downcast_object_ref::<Exact>();
    let nearest = exact.and_then(|exact| exact.0.parse::<f64>().ok());
    nearest.map_or(value, Value::from)
}

/// Bounded, since replacing in what was replaced grows without end.
fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let grown = text.len().saturating_mul(to.len().max(1));
    if grown > MAX_TEXT_BYTES && text.matches(&from).count() * to.len() > MAX_TEXT_BYTES {
        return Err(Error::new(ErrorKind::OutOfFuel, "replace gives too much"));
    }
    Ok(text.replace(&from, &to))
}

/// `YYYY-MM-DD HH:MM:SS`, UTC.
fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn earlier(
    from: Timestamp,
    name: &str,
    count: &Value,
    hours: i64,
    most: i64,
) -> Result<String, Error> {
    let count = Some(count)
        .filter(|n| n.is_integer())
        .and_then(Value::as_i64);
    let at = count
        .filter(|n| (0..=most).contains(n))
        .and_then(|n| from.checked_sub(SignedDuration::from_hours(n * hours)).ok());
    at.map(shown)
        .ok_or_else(|| misuse(format!("`{name}` takes a whole number from 0 to {most}")))
}

/// A text of a campaign file, compiled.
pub enum Parsed<'e, 's> {
    /// There is nothing to render in it.
    Fixed,
    /// Exactly one expression, whose value keeps its type.
    Expression(Expression<'e, 's>),
    /// Text with something to render in it.
    Text(Template<'e, 's>),
}

/// A template that cannot be read, and the byte where.
#[derive(Debug)]
pub struct Unreadable {
    /// What is wrong with it.
    pub message: String,
    /// Where, in bytes from the beginning of the template.
    pub at: usize,
}

impl<'e, 's> Parsed<'e, 's> {
    /// Compiles `source`.
    pub fn of(env: &'e Environment<'s>, source: &'s str) -> Result<Self, Unreadable> {
        if !is_template(source) {
            return Ok(Self::Fixed);
        }
        if let Some((at, word)) = unknown_statement(source) {
            return Err(unavailable(at, word));
        }
        if let Some(inner) = sole_expression(source)
            && unbounded(inner, true).is_none()
            && let Ok(expression) = env.compile_expression(inner)
        {
            return Ok(Self::Expression(expression));
        }
        Self::compiled(env, source)
    }

    /// Compiles `source` as text, whatever is in it.
    pub fn text_of(env: &'e Environment<'s>, source: &'s str) -> Result<Self, Unreadable> {
        unknown_statement(source).map_or_else(
            || Self::compiled(env, source),
            |(at, word)| Err(unavailable(at, word)),
        )
    }

    fn compiled(env: &'e Environment<'s>, source: &'s str) -> Result<Self, Unreadable> {
        if let Some(unbounded) = unbounded(source, false) {
            return Err(unbounded);
        }
        env.template_from_str(source)
            .map(Self::Text)
            .map_err(|error| {
                let at = error.range().map_or(0, |range| range.start);
                let detail = error.detail().unwrap_or("it cannot be read");
                Unreadable {
                    message: format!("the template cannot be read: {detail}"),
                    at,
                }
            })
    }

    /// The names it uses: columns, variables and functions.
    pub fn names(&self) -> Vec<String> {
        let names = match self {
            Self::Fixed => return Vec::new(),
            Self::Expression(expression) => expression.undeclared_variables(false),
            Self::Text(template) => template.undeclared_variables(false),
        };
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        names
    }
}

/// Whether there is anything to render in `source`.
pub fn is_template(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| source.contains(mark))
}

/// What stands between the braces, where there is nothing else.
pub(super) fn sole_expression(source: &str) -> Option<&str> {
    let inner = source.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    Some(inner.strip_suffix('-').unwrap_or(inner))
}

fn unavailable(at: usize, word: &str) -> Unreadable {
    let message =
        format!("`{{% {word} %}}` is not available in templates; there are `if` and `for`");
    Unreadable { message, at }
}

fn unknown_statement(source: &str) -> Option<(usize, &str)> {
    source.match_indices("{%").find_map(|(at, _)| {
        let rest = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let word = &rest[..end];
        (!STATEMENTS.contains(&word)).then_some((at, word))
    })
}

/// Renders a template to text of a bounded length.
pub fn render_text(template: &Template<'_, '_>, scope: Value) -> Result<String, Error> {
    let mut text = Bounded(Vec::new());
    template.render_captured_to(scope, &mut text)?;
    String::from_utf8(text.0)
        .map_err(|_| Error::new(ErrorKind::WriteFailure, "the text is not UTF-8"))
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT_BYTES {
            return Err(io::Error::other("the text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an error of the engine says, without any value it speaks of.
pub fn described(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::UndefinedError => "it uses a value that is not there",
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => "it takes too long or gives too much",
        ErrorKind::UnknownFilter => "it uses an unknown filter",
        ErrorKind::UnknownTest => "it uses an unknown test",
        ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => "it calls an unknown function",
        ErrorKind::TooManyArguments => "a function or filter has an argument it does not take",
        ErrorKind::MissingArgument => "a function or filter lacks an argument",
        _ => "it does what its values do not allow",
    }
}

/// What `check` says of an error, which may speak of values: there is no
/// member yet.
pub fn unreadable(error: &Error) -> Unreadable {
    let detail = error.detail().unwrap_or_else(|| described(error));
    let known = match error.kind() {
        ErrorKind::UnknownFilter => {
            let all: Vec<String> = FILTERS.iter().map(|name| format!("`{name}`")).collect();
            format!("; there are {}", all.join(", "))
        }
        _ => String::new(),
    };
    Unreadable {
        message: format!("the template does not work: {detail}{known}"),
        at: error.range().map_or(0, |range| range.start),
    }
}

/// Tries a template with a value for each of `columns`, to find what is wrong
/// with it whatever the values are.
pub fn trial(parsed: &Parsed<'_, '_>, columns: &[String]) -> Result<(), Unreadable> {
    let names = parsed.names();
    let uses_columns = names.iter().any(|name| {
        columns
            .iter()
            .any(|column| column.eq_ignore_ascii_case(name))
    });
    let known = names
        .iter()
        .filter(|name| {
            columns
                .iter()
                .any(|column| column.eq_ignore_ascii_case(name))
        })
        .map(|name| (name.as_str(), Value::from("1")))
        .chain(std::iter::once(("batch", Value::from(1))));
    let scope = Value::from_pairs(known);
    let tried = match parsed {
        Parsed::Fixed => Ok(()),
        Parsed::Expression(expression) => expression.eval(scope).map(drop),
        Parsed::Text(template) => render_text(template, scope).map(drop),
    };
    let Err(error) = tried else {
        return Ok(());
    };
    let is_misuse = std::error::Error::source(&error).is_some_and(|source| source.is::<Misuse>());
    let whatever_the_values = is_misuse
        || matches!(
            error.kind(),
            ErrorKind::UnknownFilter
                | ErrorKind::UnknownTest
                | ErrorKind::UnknownFunction
                | ErrorKind::MissingArgument
                | ErrorKind::TooManyArguments
        );
    if uses_columns && !whatever_the_values {
        return Ok(());
    }
    Err(unreadable(&error))
}
