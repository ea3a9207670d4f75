//! What makes the gate a door to Redshift: how a session begins, which
//! statements are refused or put into PostgreSQL's words, and how answers are
//! put back. What is refused is decided by plain functions beside this file.

use super::gate_wire::{Frame, Refusal, Side};
use super::postgres::ConnDetails;
use super::redshift_gate_rewrites::{Rewritten, rewrite};
use super::redshift_gate_rules::{Session, binds_limit, refusal, says};
use super::redshift_gate_words::{Word, words};
use super::site::postgres_rows;
use bytes::{Buf as _, BufMut as _, BytesMut};
use md5::{Digest as _, Md5};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

/// Every login's password.
pub const PASSWORD: &str = "Gate-Pa55word";

/// The login whose password is kept as SHA-256, so that no MD5 is asked for.
pub const SHA256_USER: &str = "sha256_user";

/// The most binds a statement takes.
const MAX_BINDS: usize = 32_767;
/// The longest statement, in bytes.
const MAX_STATEMENT: usize = 16 * 1024 * 1024;
/// What a refused statement becomes.
const REFUSED: &str = "select the_gate_refuses_this_statement()";
/// Types whose binary form is not PostgreSQL's, or is not known to it:
/// numeric, time, timetz, date, SUPER, VARBYTE.
const TEXT_ONLY: &[u32] = &[1700, 1083, 1266, 1082, SUPER, VARBYTE];
const SUPER: u32 = 4000;
const VARBYTE: u32 = 6551;

const SETUP: &str = include_str!("redshift_gate_setup.sql");

/// What the sessions of one gate have in common.
pub struct Redshift {
    /// PostgreSQL's numbers of our types, and Redshift's.
    types: BTreeMap<u32, u32>,
    /// Prepared statements that are open, over all sessions.
    prepared: Mutex<usize>,
}

impl Redshift {
    /// Makes `database` one.
    pub async fn found(database: &ConnDetails) -> Self {
        postgres_rows(database, SETUP).await;
        // What new clusters and Serverless have is snapshot isolation.
        let name = &database.database;
        let isolation = "set default_transaction_isolation = 'repeatable read'";
        postgres_rows(database, &format!("alter database {name} {isolation}")).await;
        let found = "select oid, typname from pg_type where typname in ('super', 'varbyte')";
        let types = postgres_rows(database, found).await;
        let types = types.iter().map(|row| {
            let cell = |name: &str| row[name].as_deref().unwrap();
            let theirs = if cell("typname") == "super" {
                SUPER
            } else {
                VARBYTE
            };
            (cell("oid").parse().unwrap(), theirs)
        });
        Self {
            types: types.collect(),
            prepared: Mutex::default(),
        }
    }

    /// Named statements that clients have prepared and not closed.
    pub fn prepared(&self) -> usize {
        *self.prepared.lock().unwrap()
    }
}

/// Begins a client's session: checks what it asks for and who it is, and opens
/// its session at the server.
pub async fn open_session(
    client: &mut Side<TcpStream>,
    server: &Path,
) -> io::Result<Side<UnixStream>> {
    let opening = loop {
        let opening = client.opening().await?;
        match (&opening[4..8]).get_u32() {
            // Encryption is asked for; there is none on loopback.
            80_877_103 | 80_877_104 => client.stream.write_all(b"N").await?,
            80_877_102 => {
                let mut server = UnixStream::connect(server).await?;
                server.write_all(&opening).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => break opening,
        }
    };
    let asked = parameters(&opening[8..]);
    let admitted = match startup_refusal(&asked) {
        Some(refused) => Err(refused),
        None => log_in(client, asked.get("user").map_or("", String::as_str)).await?,
    };
    if let Err(refused) = admitted {
        client.stream.write_all(&refused.frame().bytes).await?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let mut server = Side::new(UnixStream::connect(server).await?);
    server.stream.write_all(&backend_opening(&asked)).await?;
    loop {
        let frame = server.frame().await?;
        if let Some(frame) = status_of_redshift(frame) {
            client.stream.write_all(&frame.bytes).await?;
            if frame.kind == b'Z' {
                return Ok(server);
            }
            if frame.kind == b'E' {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
    }
}

fn parameters(text: &[u8]) -> BTreeMap<String, String> {
    let mut parts = text.split(|&byte| byte == 0);
    let mut asked = BTreeMap::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if !name.is_empty() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            asked.insert(text(name), text(value));
        }
    }
    asked
}

/// Why a session with these parameters does not begin.
pub fn startup_refusal(asked: &BTreeMap<String, String>) -> Option<Refusal> {
    let known = [
        "user",
        "database",
        "client_encoding",
        "datestyle",
        "timezone",
        "application_name",
        "extra_float_digits",
        "options",
        "client_protocol_version",
        "driver_version",
        "os_version",
        "plugin_name",
    ];
    let unknown = |name: &str| {
        let message = format!("unrecognized configuration parameter \"{name}\"");
        Some(Refusal::fatal("42704", message))
    };
    for (name, value) in asked {
        let name = name.to_lowercase();
        if !known.contains(&name.as_str()) {
            return unknown(&name);
        }
        if name == "extra_float_digits" && !value.parse().is_ok_and(|n| (-15..=2).contains(&n)) {
            let message = format!(
                "{value} is outside the valid range for parameter \"extra_float_digits\" (-15 .. 2)"
            );
            return Some(Refusal::fatal("22023", message));
        }
        if name == "options" {
            let allowed = [
                "statement_timeout",
                "query_group",
                "search_path",
                "timezone",
            ];
            let names = value
                .split("-c")
                .filter_map(|part| Some(part.split_once('=')?.0.trim()));
            let strange = names.into_iter().find(|name| !allowed.contains(name));
            if let Some(name) = strange {
                return unknown(name);
            }
        }
    }
    None
}

/// Asks for the password as the login's is kept.
async fn log_in(client: &mut Side<TcpStream>, user: &str) -> io::Result<Result<(), Refusal>> {
    let refused = || {
        let message = format!("password authentication failed for user \"{user}\"");
        Refusal::fatal("28000", message)
    };
    if user == SHA256_USER {
        // AUTH_REQ_DIGEST, which only Amazon's own drivers know.
        let ask = [&13_u32.to_be_bytes()[..], &[1; 20]].concat();
        client
            .stream
            .write_all(&Frame::new(b'R', &ask).bytes)
            .await?;
        drop(client.frame().await?);
        return Ok(Err(refused()));
    }
    let salt = *b"salt";
    let ask = [&5_u32.to_be_bytes()[..], &salt].concat();
    client
        .stream
        .write_all(&Frame::new(b'R', &ask).bytes)
        .await?;
    let answer = client.frame().await?;
    let inner = hex(&Md5::digest(format!("{PASSWORD}{user}")));
    let expected = hex(&Md5::digest([inner.as_bytes(), &salt].concat()));
    let is_right = answer.body() == format!("md5{expected}\0").as_bytes();
    Ok(if is_right { Ok(()) } else { Err(refused()) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The gate's own opening: the client's, and literals read as Redshift does.
fn backend_opening(asked: &BTreeMap<String, String>) -> Vec<u8> {
    let passed = ["user", "database", "application_name", "extra_float_digits"];
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    let mut add = |name: &str, value: &str| {
        for part in [name, value] {
            body.extend_from_slice(part.as_bytes());
            body.push(0);
        }
    };
    for (name, value) in asked
        .iter()
        .filter(|(name, _)| passed.contains(&name.as_str()))
    {
        add(name, value);
    }
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("standard_conforming_strings", "off"),
        ("escape_string_warning", "off"),
        ("client_min_messages", "warning"),
    ] {
        add(name, value);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

fn status_of_redshift(frame: Frame) -> Option<Frame> {
    if frame.kind != b'S' {
        return Some(frame);
    }
    let told =
        |name: &str, value: &str| Some(Frame::new(b'S', format!("{name}\0{value}\0").as_bytes()));
    let name = frame.body().split(|&byte| byte == 0).next().unwrap_or(b"");
    match name {
        b"server_version" => told("server_version", "8.0.2"),
        b"client_encoding" => told("client_encoding", "UNICODE"),
        b"standard_conforming_strings" | b"in_hot_standby" | b"default_transaction_read_only" => {
            None
        }
        _ => Some(frame),
    }
}

/// What becomes of a statement's SQL.
pub enum Verdict {
    /// Passed on, in PostgreSQL's words.
    Passed(Rewritten),
    /// Refused, with this error.
    Refused(Refusal),
}

/// One message of SQL, judged.
pub fn judge(sql: &str, session: Session) -> Verdict {
    if sql.len() > MAX_STATEMENT {
        let message = format!(
            "Statement is too large. Statement Size: {} bytes. Maximum Allowed: {MAX_STATEMENT} bytes",
            sql.len()
        );
        return Verdict::Refused(Refusal::error("54000", message));
    }
    let all = words(sql);
    let statements = all.split(|word| word.text == ";" && word.within.is_none());
    for statement in statements {
        let own = relative(statement, &all);
        if let Some(refused) = refusal(&own, session) {
            return Verdict::Refused(refused);
        }
    }
    Verdict::Passed(rewrite(sql, &all))
}

/// The words of one of several statements, counted from its own first.
fn relative(statement: &[Word], all: &[Word]) -> Vec<Word> {
    let first = statement
        .first()
        .and_then(|word| all.iter().position(|other| other == word));
    let first = first.unwrap_or(0);
    let own = |word: &Word| Word {
        within: word.within.map(|open| open - first),
        ..word.clone()
    };
    statement.iter().map(own).collect()
}

/// One client's session.
#[derive(Default)]
pub struct Manners {
    pub session: Session,
    /// The last result's columns that hold types' numbers.
    type_cells: Vec<usize>,
    /// The columns' types of each prepared statement.
    columns: HashMap<String, Vec<u32>>,
    described: Vec<String>,
    position_of: Option<Rewritten>,
}

impl Manners {
    /// A `Query` message: what goes on instead, or the error.
    pub fn query(&mut self, frame: &Frame) -> Result<Frame, Refusal> {
        let sql = String::from_utf8_lossy(frame.body());
        let sql = sql.trim_end_matches('\0');
        match judge(sql, self.session) {
            Verdict::Refused(refused) => Err(refused),
            Verdict::Passed(rewritten) => {
                let word = words(sql);
                if says(&word, 0, &["declare"]) {
                    self.session.has_cursor = true;
                } else if says(&word, 0, &["close"]) {
                    self.session.has_cursor = false;
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
        match judge(
            sql,
            Session {
                is_prepared: true,
                ..self.session
            },
        ) {
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
            format == 1 && TEXT_ONLY.contains(oid)
        })
    }

    /// An answer's frame in Redshift's words.
    pub fn answer(&mut self, frame: Frame, world: &Redshift) -> Frame {
        match frame.kind {
            b'T' => self.columns_of(&frame, world),
            b'D' if !self.type_cells.is_empty() => self.cells(&frame, world),
            b'E' => self.error(&frame),
            b'Z' => {
                self.session.in_transaction = frame.body() != b"I";
                if !self.session.in_transaction {
                    self.session.has_cursor = false;
                }
                self.type_cells.clear();
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
        self.type_cells.clear();
        let mut types = Vec::new();
        for n in 0..count {
            let (name, rest) = c_string(body);
            new.put_slice(name.as_bytes());
            new.put_u8(0);
            new.put_slice(&rest[..6]);
            body = &rest[6..];
            let theirs = body.get_u32();
            let ours = world.types.get(&theirs).copied().unwrap_or(theirs);
            if ours == 26 {
                self.type_cells.push(usize::from(n));
            }
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

    /// A row in which types are named by their numbers.
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
            let number = std::str::from_utf8(cell)
                .ok()
                .and_then(|text| text.parse().ok());
            let known = number.and_then(|number: u32| world.types.get(&number));
            let cell = match known.filter(|_| self.type_cells.contains(&n)) {
                Some(ours) => ours.to_string().into_bytes(),
                None => cell.to_vec(),
            };
            new.put_i32(i32::try_from(cell.len()).unwrap());
            new.put_slice(&cell);
            body.advance(size);
        }
        Frame::new(b'D', &new)
    }

    fn error(&self, frame: &Frame) -> Frame {
        let mut fields = frame.fields();
        let code = field(&fields, b'C');
        if code == "40001" && field(&fields, b'M').contains("concurrent") {
            let message = "could not complete because of conflict with concurrent transaction";
            return Refusal::error("XX000", message).frame();
        }
        if code == "57014" {
            let message = "Query (150) cancelled on user's request";
            return Refusal::error("57014", message).frame();
        }
        if code == "40001" {
            let detail = "Serializable isolation violation on table - 100000, transactions \
                          forming the cycle are: 1, 2 (pid:1)";
            return Refusal {
                detail: detail.to_owned(),
                ..Refusal::error("XX000", "1023")
            }
            .frame();
        }
        if code == "23514" && field(&fields, b'n').starts_with("redshift_bytes_") {
            let message = "value too long for type character varying";
            return Refusal::error("22001", message).frame();
        }
        for (kind, text) in &mut fields {
            if let (b'P', Some(rewritten), Ok(place)) = (*kind, &self.position_of, text.parse()) {
                *text = rewritten.original(place).to_string();
            }
        }
        Frame::of_fields(&fields)
    }
}

fn field(fields: &[(u8, String)], kind: u8) -> String {
    let found = fields.iter().find(|(other, _)| *other == kind);
    found.map_or(String::new(), |(_, text)| text.clone())
}

/// The text up to the next NUL, and what is behind it.
fn c_string(bytes: &[u8]) -> (&str, &[u8]) {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).unwrap_or("");
    (text, bytes.get(end + 1..).unwrap_or(&[]))
}
