//! What a server shows of itself in TLS, over a connection of its own: the
//! driver tells nothing of the one that is used.

use super::keepalive::dial;
use super::{ConnectorOptions, Tls};
use crate::tls::{TlsReport, look};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Asks a server for TLS before anything else: length and code of the message
/// SSLRequest (PostgreSQL manual, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// None where the connection is not encrypted; an error says what was in the
/// way.
pub(super) async fn shown(options: &ConnectorOptions) -> Option<Result<TlsReport, String>> {
    let ConnectorOptions::Server(server) = options else {
        return None;
    };
    if server.tls == Tls::Disable {
        return None;
    }
    let (host, port) = (server.host.as_str(), server.port);
    let asking = async {
        let failed = |error: std::io::Error| format!("{host}:{port}: {error}");
        let mut stream = dial(host, port).await.map_err(failed)?;
        stream.write_all(&SSL_REQUEST).await.map_err(failed)?;
        match stream.read_u8().await.map_err(failed)? {
            b'S' => Ok(stream),
            _ => Err(format!("{host}:{port} speaks no TLS")),
        }
    };
    Some(look(host, asking).await)
}
