//! A campaign's own payload: templates in, JSON out, member by member.

use super::format::key;
use super::json_value::json_value;
use super::mask::mask_value;
use super::page::{Kind, Page, Row};
use super::template::{Exact, Parsed, RunValues, described, engine, render_text, sole_expression};
use super::template_value::write_engine_value;
use super::value::{write_string, write_value};
use minijinja::value::Value;
use minijinja::{Environment, Error};
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// `activation.payload`, as the campaign wrote it. What is no template stands
/// for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// One member, instead of its columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Map<String, serde_json::Value>>,
    /// The batch's attributes, instead of those of contact history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Map<String, serde_json::Value>>,
    /// The whole body, instead of the envelope; for batches of one member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Map<String, serde_json::Value>>,
}

impl Payload {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A batch that cannot be rendered: names the template, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` cannot be rendered: {reason}")]
pub struct RenderError {
    /// The template's path in the campaign file.
    pub key: String,
    /// Why, and what to do.
    pub reason: String,
}

/// Templates compiled for the columns of one page.
pub(super) struct Plan<'e, 's> {
    root: Vec<Entry<'e, 's>>,
    /// The columns they use: name in the templates, place in the row.
    used: Vec<(String, usize)>,
    /// Whether what comes of a member's columns only shows its shape.
    pub(super) is_masked: bool,
}

struct Entry<'e, 's> {
    name: &'s str,
    node: Node<'e, 's>,
}

enum Node<'e, 's> {
    /// The same JSON for every member.
    Fixed(Vec<u8>),
    /// A column as it is.
    Column(String, usize),
    Leaf(Leaf<'e, 's>),
    List(Vec<Node<'e, 's>>),
    Map(Vec<Entry<'e, 's>>),
}

struct Leaf<'e, 's> {
    path: String,
    /// Whether it names a column.
    uses_columns: bool,
    parsed: Parsed<'e, 's>,
}

/// Where `name` is among `columns`: written exactly so, else in another case.
pub(super) fn column_at(columns: &[String], name: &str) -> Option<usize> {
    let exact = columns.iter().position(|column| column == name);
    exact.or_else(|| {
        columns
            .iter()
            .position(|column| column.eq_ignore_ascii_case(name))
    })
}

impl<'e, 's> Plan<'e, 's> {
    /// Compiles `map`, which stands at `path` of the campaign file.
    pub(super) fn of(
        env: &'e Environment<'s>,
        path: &str,
        map: &'s Map<String, serde_json::Value>,
        columns: &[String],
    ) -> Result<Self, RenderError> {
        let mut compiler = Compiler {
            env,
            columns,
            used: Vec::new(),
        };
        let root = compiler.entries(path, map)?;
        Ok(Self {
            root,
            used: compiler.used,
            is_masked: false,
        })
    }

    /// What the templates see of a member in the batch `batch`.
    fn scope(&self, cells: &[(Kind, &str)], batch: u32) -> Value {
        let columns = self.used.iter().map(|(name, at)| {
            let value = cells
                .get(*at)
                .map_or(Value::UNDEFINED, |(kind, text)| cell_value(*kind, text));
            (name.as_str(), value)
        });
        // A column named `batch` comes later, and so stays.
        let batch = std::iter::once(("batch", Value::from(batch)));
        Value::from_pairs(batch.chain(columns))
    }

    fn member<'c>(&self, cells: &'c [(Kind, &'c str)], batch: u32) -> Member<'c> {
        Member {
            scope: self.scope(cells, batch),
            cells,
            is_masked: self.is_masked,
        }
    }

    /// Appends the member in `row` as one JSON object.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        row: Option<&Row>,
        batch: u32,
    ) -> Result<(), RenderError> {
        let cells = cells_of(row);
        self.member(&cells, batch).write_map(out, &self.root)
    }

    /// Hands out the fields of the member in `row`, each as JSON.
    pub(super) fn fields(
        &self,
        row: &Row,
        batch: u32,
        mut field: impl FnMut(&str, &[u8]),
    ) -> Result<(), RenderError> {
        let cells = cells_of(Some(row));
        let member = self.member(&cells, batch);
        let mut json = Vec::new();
        for entry in &self.root {
            json.clear();
            member.write_node(&mut json, &entry.node)?;
            field(entry.name, &json);
        }
        Ok(())
    }
}

fn cells_of<'p>(row: Option<&Row<'p>>) -> Vec<(Kind, &'p str)> {
    row.map(|row| row.cells().collect()).unwrap_or_default()
}

struct Compiler<'c, 'e, 's> {
    env: &'e Environment<'s>,
    columns: &'c [String],
    used: Vec<(String, usize)>,
}

impl<'e, 's> Compiler<'_, 'e, 's> {
    fn entries(
        &mut self,
        path: &str,
        map: &'s Map<String, serde_json::Value>,
    ) -> Result<Vec<Entry<'e, 's>>, RenderError> {
        let entries = map.iter().map(|(name, value)| {
            let node = self.node(&format!("{path}.{name}"), value)?;
            Ok(Entry { name, node })
        });
        entries.collect()
    }

    fn node(
        &mut self,
        path: &str,
        value: &'s serde_json::Value,
    ) -> Result<Node<'e, 's>, RenderError> {
        match value {
            serde_json::Value::String(text) => self.text(path, text),
            serde_json::Value::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(at, item)| self.node(&format!("{path}[{at}]"), item));
                Ok(Node::List(items.collect::<Result<_, _>>()?))
            }
            serde_json::Value::Object(map) => Ok(Node::Map(self.entries(path, map)?)),
            other => Ok(Node::Fixed(other.to_string().into_bytes())),
        }
    }

    fn text(&mut self, path: &str, text: &'s str) -> Result<Node<'e, 's>, RenderError> {
        let parsed = Parsed::of(self.env, text).map_err(|unreadable| RenderError {
            key: path.to_owned(),
            reason: unreadable.message,
        })?;
        if matches!(parsed, Parsed::Fixed) {
            let mut fixed = Vec::new();
            write_string(&mut fixed, text);
            return Ok(Node::Fixed(fixed));
        }
        if let Some(name) = sole_expression(text).map(str::trim)
            && let Some(at) = column_at(self.columns, name)
        {
            return Ok(Node::Column(path.to_owned(), at));
        }
        let mut uses_columns = false;
        for name in parsed.names() {
            if let Some(at) = column_at(self.columns, &name) {
                uses_columns = true;
                if !self.used.iter().any(|(used, _)| *used == name) {
                    self.used.push((name, at));
                }
            }
        }
        Ok(Node::Leaf(Leaf {
            path: path.to_owned(),
            uses_columns,
            parsed,
        }))
    }
}

/// One member, about to be written.
struct Member<'c> {
    scope: Value,
    cells: &'c [(Kind, &'c str)],
    is_masked: bool,
}

impl Member<'_> {
    fn write_map(&self, out: &mut Vec<u8>, entries: &[Entry]) -> Result<(), RenderError> {
        out.push(b'{');
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&key(entry.name));
            self.write_node(out, &entry.node)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn write_node(&self, out: &mut Vec<u8>, node: &Node) -> Result<(), RenderError> {
        let from = out.len();
        match node {
            Node::Fixed(json) => out.extend_from_slice(json),
            Node::Column(path, at) => {
                match self.cells.get(*at) {
                    None | Some((Kind::Null, _)) => return Err(nothing_there(path)),
                    Some((kind, text)) => write_value(out, *kind, text),
                }
                if self.is_masked {
                    mask_value(out, from);
                }
            }
            Node::Leaf(leaf) => {
                leaf.write(out, &self.scope)?;
                if self.is_masked && leaf.uses_columns {
                    mask_value(out, from);
                }
            }
            Node::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.write_node(out, item)?;
                }
                out.push(b']');
            }
            Node::Map(entries) => self.write_map(out, entries)?,
        }
        Ok(())
    }
}

impl Leaf<'_, '_> {
    fn write(&self, out: &mut Vec<u8>, scope: &Value) -> Result<(), RenderError> {
        match &self.parsed {
            Parsed::Fixed => Err(nothing_there(&self.path)),
            Parsed::Expression(expression) => {
                let value = expression.eval(scope.clone());
                let value = value.map_err(|error| self.failed(&error))?;
                write_engine_value(out, &value).ok_or_else(|| nothing_there(&self.path))
            }
            Parsed::Text(template) => {
                let text = render_text(template, scope.clone());
                write_string(out, &text.map_err(|error| self.failed(&error))?);
                Ok(())
            }
        }
    }

    fn failed(&self, error: &Error) -> RenderError {
        if error.kind() == minijinja::ErrorKind::UndefinedError {
            return nothing_there(&self.path);
        }
        RenderError {
            key: self.path.clone(),
            reason: format!("{}; change the template", described(error)),
        }
    }
}

fn nothing_there(path: &str) -> RenderError {
    RenderError {
        key: path.to_owned(),
        reason: "a member has no value for it; give it a `default`, or leave such members out \
                 of the audience"
            .to_owned(),
    }
}

/// A cell as templates see it: as its JSON value, with decimals kept exact.
/// NULL is undefined, and so is what JSON has no value for.
pub(super) fn cell_value(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Null => return Value::UNDEFINED,
        Kind::Text => return Value::from(text),
        _ => {}
    }
    let mut json = Vec::with_capacity(text.len() + 3);
    write_value(&mut json, kind, text);
    let digits = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
    match (kind, json.first()) {
        (_, Some(b'n')) => Value::UNDEFINED,
        (Kind::Decimal, Some(b'-' | b'0'..=b'9')) => Value::from_object(Exact(digits(&json))),
        (Kind::Integer, Some(b'-' | b'0'..=b'9')) => match digits(&json).parse::<i64>() {
            Ok(integer) => Value::from(integer),
            Err(_) => Value::from(digits(&json)),
        },
        _ => json_value(&digits(&json)),
    }
}

/// The attributes of batch `batch`, as JSON.
pub(super) fn attributes(
    values: &RunValues,
    map: &Map<String, serde_json::Value>,
    batch: u32,
) -> Result<Vec<u8>, RenderError> {
    let env = engine(values);
    let mut out = Vec::new();
    Plan::of(&env, "activation.payload.attributes", map, &[])?.write(&mut out, None, batch)?;
    Ok(out)
}

/// Hands out a member's columns, each as JSON.
pub(super) fn columns(page: &Page, row: &Row, mut field: impl FnMut(&str, &[u8])) {
    let mut json = Vec::new();
    for (name, (kind, text)) in page.columns().iter().zip(row.cells()) {
        json.clear();
        write_value(&mut json, kind, text);
        field(name, &json);
    }
}
