//! How a session with Redshift begins: what may be asked for, who is let in,
//! and what the server says of itself.

use super::gate::SessionFacts;
use super::gate_client::Client;
use super::gate_wire::{Frame, Refusal, Side};
use bytes::{Buf as _, Bytes};
use md5::{Digest as _, Md5};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

/// Every login's password.
pub const PASSWORD: &str = "Gate-Pa55word";

/// The login whose password is kept as SHA-256, so that no MD5 is asked for.
pub const SHA256_USER: &str = "sha256_user";

/// The code of a request to cancel what another session does.
const CANCEL: u32 = 80_877_102;

/// Begins a client's session: checks what it asks for and who it is, and opens
/// its session at the server.
pub(super) async fn open_session(
    client: &mut Side<Client>,
    opening: &Bytes,
    server: &Path,
    facts: &mut SessionFacts,
) -> io::Result<Side<UnixStream>> {
    if (&opening[4..8]).get_u32() == CANCEL {
        let mut server = UnixStream::connect(server).await?;
        server.write_all(opening).await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let asked = parameters(&opening[8..]);
    facts.user = asked.get("user").cloned().unwrap_or_default();
    let admitted = match startup_refusal(&asked) {
        Some(refused) => Err(refused),
        None => log_in(client, &facts.user).await?,
    };
    if let Err(refused) = admitted {
        client.send(&refused.frame().bytes).await?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let mut server = Side::new(UnixStream::connect(server).await?);
    server.stream.write_all(&backend_opening(&asked)).await?;
    loop {
        let frame = server.frame().await?;
        if frame.kind == b'K' {
            facts.pid = frame.body().get_i32();
        }
        if let Some(frame) = status_of_redshift(frame) {
            client.send(&frame.bytes).await?;
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
    // The last ones are what Amazon's own drivers send.
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
        "driver_discovery_version",
        "idp_type",
        "provider_name",
        "identity_namespace",
        "token_type",
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
async fn log_in(client: &mut Side<Client>, user: &str) -> io::Result<Result<(), Refusal>> {
    let refused = || {
        let message = format!("password authentication failed for user \"{user}\"");
        Refusal::fatal("28000", message)
    };
    if user == SHA256_USER {
        // AUTH_REQ_DIGEST, which only Amazon's own drivers know.
        let ask = [&13_u32.to_be_bytes()[..], &[1; 20]].concat();
        client.send(&Frame::new(b'R', &ask).bytes).await?;
        drop(client.frame().await?);
        return Ok(Err(refused()));
    }
    let salt = *b"salt";
    let ask = [&5_u32.to_be_bytes()[..], &salt].concat();
    client.send(&Frame::new(b'R', &ask).bytes).await?;
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
