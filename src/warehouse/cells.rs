//! Rows as the warehouse sends them, into a page of text cells. The loops
//! here run once per cell of every member, so they allocate nothing.

use super::connect::Connection;
use super::pool::Session;
use crate::audience::{Column, Dialect, Statement};
use crate::run::{Kind, Page, WarehouseError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Decode, Row, Sqlite, TypeInfo, ValueRef, raw_sql};
use std::fmt::Write as _;
use std::sync::Arc;

/// A run table's columns, as pages need them.
pub(super) struct Layout {
    /// The members' columns, in order.
    pub(super) columns: Vec<Column>,
    names: Arc<[String]>,
    kinds: Vec<Kind>,
    /// What has to be done to their text.
    forms: Vec<Form>,
}

/// A text that is not yet what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It is.
    Plain,
    /// Hexadecimal digits, for want of a text.
    Bytes,
    /// A `real` with more digits than it has: 0.7 as 0.69999999. PostgreSQL
    /// writes the shortest.
    Real,
}

/// The type number of Redshift's VARBYTE.
const VARBYTE: u32 = 6551;
/// That of a `real`.
const REAL: u32 = 700;

impl Layout {
    /// Of a run table's columns, ours left out.
    pub(super) fn new(dialect: Dialect, columns: Vec<Column>) -> Self {
        Self {
            names: columns.iter().map(|column| column.name.clone()).collect(),
            kinds: columns.iter().map(|column| kind(dialect, column)).collect(),
            forms: columns.iter().map(|column| form(dialect, column)).collect(),
            columns,
        }
    }
}

fn form(dialect: Dialect, column: &Column) -> Form {
    match column.type_number() {
        Some(VARBYTE) if dialect == Dialect::Redshift => Form::Bytes,
        Some(REAL) if dialect == Dialect::Redshift => Form::Real,
        _ => Form::Plain,
    }
}

/// What the column's type says of its cells. A type we do not know is text.
pub(super) fn kind(dialect: Dialect, column: &Column) -> Kind {
    if dialect == Dialect::Sqlite {
        return declared_kind(&column.type_name);
    }
    match column.type_number() {
        Some(16) => Kind::Bool,
        Some(20 | 21 | 23) => Kind::Integer,
        Some(1700) => Kind::Decimal,
        Some(700 | 701) => Kind::Float,
        Some(1114 | 1082) => Kind::Timestamp, // a date is a text, unless it is infinite
        Some(1184) => Kind::TimestampTz,
        Some(114 | 3802 | 4000) => Kind::Json, // json, jsonb, Redshift's SUPER
        _ => Kind::Text,
    }
}

/// SQLite types its cells, not its columns; a column's declared type says
/// what its whole numbers and texts stand for.
fn declared_kind(declared: &str) -> Kind {
    let declared = declared.to_ascii_lowercase();
    match () {
        () if declared.contains("bool") => Kind::Bool,
        () if declared.contains("timestamp") || declared.contains("datetime") => Kind::Timestamp,
        () if declared.contains("json") => Kind::Json,
        () => Kind::Text,
    }
}

/// Whether rows come in the order of their places.
struct Order {
    /// The column that tells the place, where one does.
    column: Option<usize>,
    last: u64,
    is_kept: bool,
}

impl Order {
    fn by(column: Option<usize>) -> Self {
        Self {
            column,
            last: 0,
            is_kept: true,
        }
    }

    /// Whether it is kept with this row too.
    fn goes_on(&mut self, row: &PgRow) -> Result<bool, sqlx::Error> {
        if let Some(column) = self.column {
            let place = row.try_get_raw(column)?;
            let place = place.as_str().map_err(sqlx::Error::Decode)?;
            let place: u64 = place
                .parse()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            self.is_kept &= place > self.last;
            self.last = place;
        }
        Ok(self.is_kept)
    }
}

/// Reads a page to its end, and keeps of it what comes to `most_bytes`, but a
/// row at least.
pub(super) async fn read_page(
    session: &mut Session,
    statement: &Statement,
    layout: &Layout,
    most_bytes: usize,
) -> Result<Page, WarehouseError> {
    read(session, statement, layout, most_bytes, &mut Order::by(None)).await
}

/// The same of rows that bring their place behind the members' columns. None
/// if they do not come in the order of their places.
pub(super) async fn read_page_in_order(
    session: &mut Session,
    statement: &Statement,
    layout: &Layout,
    most_bytes: usize,
) -> Result<Option<Page>, WarehouseError> {
    let mut order = Order::by(Some(layout.columns.len()));
    let page = read(session, statement, layout, most_bytes, &mut order).await?;
    Ok(order.is_kept.then_some(page))
}

async fn read(
    session: &mut Session,
    statement: &Statement,
    layout: &Layout,
    most_bytes: usize,
    order: &mut Order,
) -> Result<Page, WarehouseError> {
    let mut page = Page::new(Arc::clone(&layout.names));
    let reading = async |connection: &mut Connection| {
        let sql = raw_sql(AssertSqlSafe(statement.sql.as_str()));
        match connection {
            Connection::Postgres(connection) => {
                let mut rows = sql.fetch(&mut **connection);
                while let Some(row) = rows.try_next().await? {
                    if order.goes_on(&row)? && !page.is_cut() {
                        push_postgres(&mut page, &row, layout)?;
                        page.cut_beyond(most_bytes);
                    }
                }
            }
            Connection::Sqlite(connection, _) => {
                let mut rows = sql.fetch(&mut **connection);
                while let Some(row) = rows.try_next().await? {
                    if !page.is_cut() {
                        push_sqlite(&mut page, &row, &layout.kinds)?;
                        page.cut_beyond(most_bytes);
                    }
                }
            }
        }
        Ok(())
    };
    session.read(statement, reading).await?;
    Ok(page)
}

fn push_postgres(page: &mut Page, row: &PgRow, layout: &Layout) -> Result<(), sqlx::Error> {
    for (index, &kind) in layout.kinds.iter().enumerate() {
        let value = row.try_get_raw(index)?;
        if value.is_null() {
            page.push(Kind::Null, "");
            continue;
        }
        let text = value.as_str().map_err(sqlx::Error::Decode)?;
        match kind {
            Kind::Bool => page.push(kind, if text == "t" { "true" } else { "false" }),
            Kind::Decimal if ends_with_letter(text) => page.push(Kind::Float, text),
            Kind::Timestamp | Kind::TimestampTz if !is_infinite(text) && !is_instant(text) => {
                page.push(Kind::Text, text);
            }
            _ => push_formed(page, kind, layout.forms[index], text),
        }
    }
    Ok(())
}

fn push_formed(page: &mut Page, kind: Kind, form: Form, text: &str) {
    match form {
        Form::Plain => page.push(kind, text),
        Form::Bytes => match hex::decode(text) {
            Ok(bytes) => page.push(kind, &STANDARD.encode(bytes)),
            Err(_) => page.push(kind, text),
        },
        Form::Real => match text.parse::<f32>() {
            Ok(real) if real.is_finite() => {
                let mut shortest = StackText::default();
                write!(shortest, "{real:e}").expect("nine digits and an exponent fit");
                page.push(kind, shortest.as_str());
            }
            _ => page.push(kind, text),
        },
    }
}

/// `NaN` and `Infinity`, which an exact number may be as well.
fn ends_with_letter(text: &str) -> bool {
    text.as_bytes().last().is_some_and(u8::is_ascii_alphabetic)
}

/// An end of time, which JSON has no value for.
fn is_infinite(text: &str) -> bool {
    matches!(text, "infinity" | "-infinity")
}

/// Whether an instant is one: date and time, not before the year 1, and of
/// four digits' year.
fn is_instant(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_digit)
        && bytes.get(4) == Some(&b'-')
        && bytes.len() >= "YYYY-MM-DD HH:MM:SS".len()
        && !ends_with_letter(text)
}

fn push_sqlite(page: &mut Page, row: &SqliteRow, kinds: &[Kind]) -> Result<(), sqlx::Error> {
    for (index, &kind) in kinds.iter().enumerate() {
        let value = row.try_get_raw(index)?;
        let stored = value.type_info();
        match stored.name() {
            _ if value.is_null() => page.push(Kind::Null, ""),
            "INTEGER" => {
                let number = <i64 as Decode<Sqlite>>::decode(value).map_err(sqlx::Error::Decode)?;
                push_integer(page, kind, number);
            }
            "REAL" => {
                let number = <f64 as Decode<Sqlite>>::decode(value).map_err(sqlx::Error::Decode)?;
                push_real(page, number);
            }
            "BLOB" => {
                let bytes =
                    <&[u8] as Decode<Sqlite>>::decode(value).map_err(sqlx::Error::Decode)?;
                page.push(Kind::Text, &STANDARD.encode(bytes));
            }
            _ => {
                let text = <&str as Decode<Sqlite>>::decode(value).map_err(sqlx::Error::Decode)?;
                push_text(page, kind, text);
            }
        }
    }
    Ok(())
}

fn push_integer(page: &mut Page, kind: Kind, number: i64) {
    match (kind, number) {
        (Kind::Bool, 0) => page.push(Kind::Bool, "false"),
        (Kind::Bool, 1) => page.push(Kind::Bool, "true"),
        _ => {
            let mut text = StackText::default();
            write!(text, "{number}").expect("an i64 fits");
            page.push(Kind::Integer, text.as_str());
        }
    }
}

fn push_real(page: &mut Page, number: f64) {
    match number {
        n if n.is_nan() => page.push(Kind::Float, "NaN"),
        f64::INFINITY => page.push(Kind::Float, "Infinity"),
        f64::NEG_INFINITY => page.push(Kind::Float, "-Infinity"),
        // `{:?}` is the shortest text that reads back, with an exponent where
        // it is long.
        n => page.push(Kind::Float, &format!("{n:?}")),
    }
}

fn push_text(page: &mut Page, kind: Kind, text: &str) {
    let is_instant = || is_instant(text) && text.as_bytes().get(10) == Some(&b' ');
    let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let kind = match kind {
        Kind::Timestamp if is_instant() => Kind::Timestamp,
        Kind::Json if is_json() => Kind::Json,
        _ => Kind::Text,
    };
    page.push(kind, text);
}

/// A number's digits without an allocation.
#[derive(Default)]
struct StackText {
    bytes: [u8; 20],
    length: usize,
}

impl StackText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("only whole characters are written")
    }
}

impl std::fmt::Write for StackText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self
            .bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_nobody_knows_is_text() {
        let column = |number: &str| Column {
            name: "c".to_owned(),
            type_name: number.to_owned(),
        };
        assert_eq!(kind(Dialect::Postgres, &column("99999")), Kind::Text);
        assert_eq!(kind(Dialect::Redshift, &column("4000")), Kind::Json);
        assert_eq!(kind(Dialect::Sqlite, &column("TIMESTAMP")), Kind::Timestamp);
    }

    #[test]
    fn a_real_is_written_with_the_digits_it_has() {
        let mut page = Page::new(["r".to_owned()].into());
        for text in ["0.69999999", "-1.1754944e-38", "3.4028235e+38", "NaN", "-0"] {
            push_formed(&mut page, Kind::Float, Form::Real, text);
        }
        let rows = (0..page.len()).map(|n| page.row(n).cells().next().unwrap().1.to_owned());
        let written: Vec<String> = rows.collect();
        assert_eq!(
            written,
            ["7e-1", "-1.1754944e-38", "3.4028235e38", "NaN", "-0e0"]
        );
    }

    #[test]
    fn the_longest_whole_number_fits() {
        let mut page = Page::new(["n".to_owned()].into());
        push_integer(&mut page, Kind::Text, i64::MIN);
        let cells: Vec<_> = page.row(0).cells().collect();
        assert_eq!(cells, [(Kind::Integer, "-9223372036854775808")]);
    }
}
