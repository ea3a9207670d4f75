//! The server's answers in Redshift's words: types, cells and errors.

use super::gate_wire::{Frame, Refusal};
use super::redshift_gate::Redshift;
use super::redshift_gate_cells::{day_to_second, digits, year_to_month};
use super::redshift_gate_manners::{Manners, c_string};
use super::redshift_gate_rewrites::REMOVES;
use bytes::{Buf as _, BufMut as _, BytesMut};

const INTERVAL: u32 = 1186;
const YEAR_TO_MONTH: u32 = 1188;
const DAY_TO_SECOND: u32 = 1190;

/// PostgreSQL's fields of an interval, as its type modifier has them.
const ALL_FIELDS: u32 = 0x7fff;
const YEARS_AND_MONTHS: u32 = 0b110;

/// How the cells of a column are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// As they are.
    Plain,
    /// They are numbers of types.
    TypeNumber,
    /// With so many significant digits, as PostgreSQL 8 wrote them.
    Digits(usize),
    YearToMonth,
    DayToSecond,
}

impl Manners {
    /// An answer's frame in Redshift's words.
    pub fn answer(&mut self, frame: Frame, world: &Redshift) -> Frame {
        match frame.kind {
            b'T' => self.columns_of(&frame, world),
            b'D' if self.last.iter().any(|column| *column != Column::Plain) => {
                self.cells(&frame, world)
            }
            b'E' => self.error(&frame),
            b'Z' => {
                self.session.in_transaction = frame.body() != b"I";
                if !self.session.in_transaction {
                    self.session.has_cursor = false;
                }
                self.last.clear();
                self.described.clear();
                frame
            }
            _ => frame,
        }
    }

    fn columns_of(&mut self, frame: &Frame, world: &Redshift) -> Frame {
        let mut body = frame.body();
        let mut new = BytesMut::new();
        let count = body.get_u16();
        new.put_u16(count);
        self.last.clear();
        let mut types = Vec::new();
        for _ in 0..count {
            let (name, rest) = c_string(body);
            new.put_slice(name.as_bytes());
            new.put_u8(0);
            new.put_slice(&rest[..6]);
            body = &rest[6..];
            let theirs = body.get_u32();
            let modifier = (&body[2..6]).get_u32();
            let ours = match interval(theirs, modifier) {
                Some(ours) => ours,
                None => world.types.get(&theirs).copied().unwrap_or(theirs),
            };
            self.last.push(match ours {
                26 => Column::TypeNumber,
                // `extra_float_digits` is 2.
                700 if self.is_simple => Column::Digits(8),
                701 if self.is_simple => Column::Digits(17),
                YEAR_TO_MONTH if self.is_simple => Column::YearToMonth,
                DAY_TO_SECOND if self.is_simple => Column::DayToSecond,
                _ => Column::Plain,
            });
            types.push(ours);
            new.put_u32(ours);
            new.put_slice(&body[..8]);
            body.advance(8);
        }
        if let Some(statement) = self.described.pop() {
            self.columns.insert(statement, types);
        }
        Frame::new(b'T', &new)
    }

    fn cells(&self, frame: &Frame, world: &Redshift) -> Frame {
        let mut body = frame.body();
        let mut new = BytesMut::new();
        let count = body.get_u16();
        new.put_u16(count);
        for n in 0..usize::from(count) {
            let length = body.get_i32();
            let Ok(size) = usize::try_from(length) else {
                new.put_i32(length);
                continue;
            };
            let cell = &body[..size];
            let column = self.last.get(n).copied().unwrap_or(Column::Plain);
            let text = std::str::from_utf8(cell).ok();
            let written = text.and_then(|text| column.written(text, world));
            let cell = written.map_or(cell.to_vec(), String::into_bytes);
            new.put_i32(i32::try_from(cell.len()).unwrap());
            new.put_slice(&cell);
            body.advance(size);
        }
        Frame::new(b'D', &new)
    }

    fn error(&self, frame: &Frame) -> Frame {
        let mut fields = frame.fields();
        let code = field(&fields, b'C');
        let message = field(&fields, b'M');
        let sent = self.position_of.as_ref().map_or("", |sent| &sent.sql);
        if code == "42601" && message.starts_with("each UNION") && sent.contains(REMOVES) {
            let message =
                "Target relation and source relation must have the same number of columns";
            return Refusal::error("0A000", message).frame();
        }
        if let Some(refusal) = in_redshifts_words(&code, &message, &field(&fields, b'n')) {
            return refusal.frame();
        }
        for (kind, text) in &mut fields {
            if let (b'P', Some(rewritten), Ok(place)) = (*kind, &self.position_of, text.parse()) {
                *text = rewritten.original(place).to_string();
            }
        }
        Frame::of_fields(&fields)
    }
}

/// Redshift's number of an interval's type; a modifier that allows all fields
/// says nothing.
fn interval(number: u32, modifier: u32) -> Option<u32> {
    let fields = modifier >> 16 & ALL_FIELDS;
    if number != INTERVAL || fields == ALL_FIELDS {
        return None;
    }
    Some(match fields & !YEARS_AND_MONTHS {
        0 => YEAR_TO_MONTH,
        _ => DAY_TO_SECOND,
    })
}

impl Column {
    /// What becomes of a cell; none if it stays.
    fn written(self, text: &str, world: &Redshift) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::TypeNumber => Some(world.types.get(&text.parse().ok()?)?.to_string()),
            Self::Digits(8) => Some(digits(f64::from(text.parse::<f32>().ok()?), 8)),
            Self::Digits(count) => Some(digits(text.parse().ok()?, count)),
            Self::YearToMonth => year_to_month(text),
            Self::DayToSecond => day_to_second(text),
        }
    }
}

/// What Redshift says where PostgreSQL says otherwise.
fn in_redshifts_words(code: &str, message: &str, constraint: &str) -> Option<Refusal> {
    let conflict = "could not complete because of conflict with concurrent transaction";
    Some(match code {
        "40001" if message.contains("concurrent") => Refusal::error("XX000", conflict),
        "40001" => Refusal {
            detail: "Serializable isolation violation on table - 100000, transactions \
                     forming the cycle are: 1, 2 (pid:1)"
                .to_owned(),
            ..Refusal::error("XX000", "1023")
        },
        "57014" => Refusal::error("57014", "Query (150) cancelled on user's request"),
        "23514" if constraint.starts_with("redshift_bytes_") => {
            Refusal::error("22001", "value too long for type character varying")
        }
        "21000" if message.starts_with("MERGE") => {
            Refusal::error("XX000", "Found multiple matches to update the same tuple.")
        }
        _ => return None,
    })
}

fn field(fields: &[(u8, String)], kind: u8) -> String {
    let found = fields.iter().find(|(other, _)| *other == kind);
    found.map_or(String::new(), |(_, text)| text.clone())
}
