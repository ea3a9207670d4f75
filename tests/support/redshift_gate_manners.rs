//! One client's session with Redshift: its statements on their way in, by
//! either protocol.

use super::gate_wire::{Frame, Refusal};
use super::redshift_gate::{Redshift, TYPES, Verdict, judge, statements};
use super::redshift_gate_answers::Column;
use super::redshift_gate_rewrites::Rewritten;
use super::redshift_gate_rules::{Session, binds_limit, says};
use super::redshift_gate_words::words;
use bytes::Buf as _;
use std::collections::HashMap;
use std::io;

/// The most binds a statement takes.
const MAX_BINDS: usize = 32_767;

/// What a refused statement becomes.
const REFUSED: &str = "select the_gate_refuses_this_statement()";

/// PostgreSQL's types whose binary form is another one here: numeric, time,
/// timetz, date. Of Redshift's own, and of intervals, none is known.
const TEXT_ONLY: &[u32] = &[1700, 1083, 1266, 1082, 1188, 1190];

/// One client's session.
#[derive(Default)]
pub struct Manners {
    pub session: Session,
    /// What `query_group` was set to.
    pub query_group: Option<String>,
    /// Whether the last question came by the simple protocol, whose answers
    /// are all text.
    pub(super) is_simple: bool,
    /// The last result's columns.
    pub(super) last: Vec<Column>,
    /// The columns' types of each prepared statement.
    pub(super) columns: HashMap<String, Vec<u32>>,
    pub(super) described: Vec<String>,
    pub(super) position_of: Option<Rewritten>,
}

impl Manners {
    /// A `Query` message: what goes on instead, or the error.
    pub fn query(&mut self, sql: &str) -> Result<Frame, Refusal> {
        self.is_simple = true;
        match judge(sql, self.session) {
            Verdict::Refused(refused) => Err(refused),
            Verdict::Passed(rewritten) => {
                let all = words(sql);
                for statement in statements(&all) {
                    self.session = self.session.after(&statement);
                    if says(&statement, 0, &["set", "query_group", "to"]) {
                        let value = statement.get(3).map_or("", |w| &sql[w.start..w.end]);
                        self.query_group = Some(value.trim_matches('\'').to_owned());
                    } else if says(&statement, 0, &["reset", "query_group"]) {
                        self.query_group = None;
                    }
                }
                let frame = Frame::new(b'Q', format!("{}\0", rewritten.sql).as_bytes());
                self.position_of = Some(rewritten);
                Ok(frame)
            }
        }
    }

    /// A message of the extended protocol: what goes on instead, and the error
    /// that the client is to see for it. `Err` cuts the session.
    pub fn extended(
        &mut self,
        frame: Frame,
        world: &Redshift,
    ) -> io::Result<(Frame, Option<Refusal>)> {
        self.is_simple = false;
        let body = frame.body().to_vec();
        let (name, rest) = c_string(&body);
        match frame.kind {
            b'P' => {
                let (sql, types) = c_string(rest);
                let found = self.prepared_refusal(sql, types);
                if !name.is_empty() {
                    *world.prepared.lock().unwrap() += 1;
                }
                let sent = match &found {
                    Err(_) => REFUSED.to_owned(),
                    Ok(sql) => sql.clone(),
                };
                let types: &[u8] = if found.is_err() { &[0, 0] } else { types };
                let body = [name.as_bytes(), b"\0", sent.as_bytes(), b"\0", types].concat();
                Ok((Frame::new(b'P', &body), found.err()))
            }
            b'D' if body.first() == Some(&b'S') => {
                let (name, _) = c_string(&body[1..]);
                self.described.push(name.to_owned());
                Ok((frame, None))
            }
            b'C' if body.first() == Some(&b'S') && body.get(1) != Some(&0) => {
                let mut open = world.prepared.lock().unwrap();
                *open = open.saturating_sub(1);
                Ok((frame, None))
            }
            b'B' => {
                let (statement, rest) = c_string(rest);
                if self.wants_strange_binary(statement, rest) {
                    // As a server whose answer the client cannot read.
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Ok((frame, None))
            }
            _ => Ok((frame, None)),
        }
    }

    fn prepared_refusal(&mut self, sql: &str, mut types: &[u8]) -> Result<String, Refusal> {
        let count = usize::from(types.get_u16());
        let limits = binds_limit(&words(sql));
        let is_int8 = |n: &usize| {
            types
                .get(4 * (n - 1)..4 * n)
                .is_some_and(|t| t == 20_u32.to_be_bytes())
        };
        let highest = words(sql)
            .iter()
            .filter_map(|word| word.text.strip_prefix('$')?.parse().ok())
            .max();
        if count.max(highest.unwrap_or(0)) > MAX_BINDS {
            return Err(Refusal::error("42P02", "there is no parameter $-32768"));
        }
        if limits.iter().any(is_int8) {
            return Err(Refusal {
                detail: "Not implemented code 1001 context 'IsA(cons, Const)'".to_owned(),
                ..Refusal::error("XX000", "Not implemented")
            });
        }
        match judge(sql, self.session) {
            Verdict::Refused(refused) => Err(refused),
            Verdict::Passed(rewritten) => Ok(rewritten.sql),
        }
    }

    /// Whether a `Bind`, from behind its two names on, wants a column in
    /// binary that has none here.
    fn wants_strange_binary(&self, statement: &str, mut rest: &[u8]) -> bool {
        let skip = 2 * usize::from(rest.get_u16());
        rest.advance(skip);
        for _ in 0..rest.get_u16() {
            let length = rest.get_i32();
            rest.advance(usize::try_from(length).unwrap_or(0));
        }
        let formats: Vec<u16> = (0..rest.get_u16()).map(|_| rest.get_u16()).collect();
        let columns = self.columns.get(statement).map_or(&[][..], Vec::as_slice);
        columns.iter().enumerate().any(|(n, oid)| {
            let format = match formats.as_slice() {
                [] => 0,
                [all] => *all,
                each => each.get(n).copied().unwrap_or(0),
            };
            let is_theirs = TYPES.iter().any(|(_, theirs)| theirs == oid);
            format == 1 && (is_theirs || TEXT_ONLY.contains(oid))
        })
    }
}

/// The text up to the next NUL, and what is behind it.
pub(super) fn c_string(bytes: &[u8]) -> (&str, &[u8]) {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).unwrap_or("");
    (text, bytes.get(end + 1..).unwrap_or(&[]))
}
