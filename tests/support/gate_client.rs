//! The client's side of the gate: plain or encrypted, as it asks and is
//! allowed, and how it is let down.

use super::gate_acts::Cut;
use super::gate_wire::Side;
use bytes::{Buf as _, Bytes};
use socket2::{SockFilter, SockRef};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client has to see that it was closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// Bytes that may be on their way to a client.
const SENT_AHEAD: usize = 128 * 1024;

/// Classic BPF: of every packet nothing is kept, so it never came, and not
/// even TCP answers it.
const KEEP_NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// A client's connection.
pub enum Client {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Client {
    /// The bytes on the wire.
    fn wire(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Ends the connection; the error says so to whoever relays.
    pub async fn cut(&mut self, how: Cut) -> io::Error {
        let wire = self.wire();
        match how {
            Cut::Reset => drop(SockRef::from(&*wire).set_linger(Some(Duration::ZERO))),
            Cut::Close => {
                // Closing what has unread bytes is an RST, so they are read.
                drop(wire.shutdown().await);
                let mut rest = tokio::io::sink();
                let reading = tokio::io::copy(wire, &mut rest);
                drop(tokio::time::timeout(FAREWELL, reading).await);
            }
        }
        io::ErrorKind::ConnectionReset.into()
    }

    /// From here on the other side hears nothing, not even that its packets
    /// came: the kernel drops them at this socket.
    pub fn make_hole(&mut self) {
        let done = SockRef::from(&*self.wire()).attach_filter(&[KEEP_NOTHING]);
        done.expect(
            "a socket filter makes packets vanish; Linux 6.18 and later want CAP_NET_ADMIN \
             for one on TCP: run the tests as root, or in `unshare -Urn`",
        );
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The client behind its wish for encryption, which is granted where `tls` is
/// given, and the first message it has for the server.
pub async fn welcome(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
) -> io::Result<(Side<Client>, Bytes)> {
    stream.set_nodelay(true)?;
    // A client that does not read is to be felt soon.
    SockRef::from(&stream).set_send_buffer_size(SENT_AHEAD)?;
    let mut client = Side::new(Client::Plain(stream));
    loop {
        let opening = client.opening().await?;
        match ((&opening[4..8]).get_u32(), &tls, client.stream) {
            // SSLRequest.
            (80_877_103, Some(tls), Client::Plain(mut stream)) => {
                stream.write_all(b"S").await?;
                let stream = tls.accept(stream).await?;
                client = Side::new(Client::Tls(Box::new(stream)));
            }
            // The same where there is none, and GSSENCRequest.
            (80_877_103 | 80_877_104, _, mut stream) => {
                stream.write_all(b"N").await?;
                client = Side::new(stream);
            }
            (_, _, stream) => {
                let buffer = client.buffer;
                return Ok((Side { stream, buffer }, opening));
            }
        }
    }
}

impl Side<Client> {
    /// Sends all of it.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}
