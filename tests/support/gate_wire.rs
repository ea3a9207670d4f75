//! The wire protocol, frame by frame.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// One message: its kind, and all of it, kind and length included.
pub struct Frame {
    pub kind: u8,
    pub bytes: Bytes,
}

impl Frame {
    /// What is behind kind and length.
    pub fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }

    pub fn new(kind: u8, body: &[u8]) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_u32(u32::try_from(body.len()).unwrap() + 4);
        bytes.put_slice(body);
        Self {
            kind,
            bytes: bytes.freeze(),
        }
    }
}

/// One side of a connection, read frame by frame. A read that is given up
/// loses nothing.
pub struct Side<S> {
    pub stream: S,
    pub buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> Side<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The next message behind the handshake.
    pub async fn frame(&mut self) -> io::Result<Frame> {
        self.fill(5).await?;
        let kind = self.buffer[0];
        let length = usize::try_from((&self.buffer[1..5]).get_u32()).unwrap() + 1;
        self.fill(length).await?;
        let bytes = self.buffer.split_to(length).freeze();
        Ok(Frame { kind, bytes })
    }

    /// The first message, which has no kind.
    pub async fn opening(&mut self) -> io::Result<Bytes> {
        self.fill(4).await?;
        let length = usize::try_from((&self.buffer[..4]).get_u32()).unwrap();
        self.fill(length).await?;
        Ok(self.buffer.split_to(length).freeze())
    }
}

/// An error in the warehouse's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
    pub detail: String,
    /// Whether the session ends with it.
    pub is_fatal: bool,
}

impl Refusal {
    /// Of a statement.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: String::new(),
            is_fatal: false,
        }
    }

    /// Of the session.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            is_fatal: true,
            ..Self::error(code, message)
        }
    }

    /// As the server sends it.
    pub fn frame(&self) -> Frame {
        let severity = if self.is_fatal { "FATAL" } else { "ERROR" };
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', self.message.clone()),
        ];
        if !self.detail.is_empty() {
            fields.push((b'D', self.detail.clone()));
        }
        Frame::of_fields(&fields)
    }
}

impl Frame {
    /// An error of these fields.
    pub fn of_fields(fields: &[(u8, String)]) -> Self {
        let mut body = Vec::new();
        for (field, text) in fields {
            body.push(*field);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        Self::new(b'E', &body)
    }

    /// The fields of an error.
    pub fn fields(&self) -> Vec<(u8, String)> {
        let parts = self.body().split(|&byte| byte == 0);
        let fields = parts.filter_map(|part| {
            let (kind, text) = part.split_first()?;
            Some((*kind, String::from_utf8_lossy(text).into_owned()))
        });
        fields.collect()
    }
}
