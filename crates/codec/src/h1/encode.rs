//! Heads and bodies going out. A head's untouched field lines are copied in runs; what frames the message
//! (`content-length`, `transfer-encoding`, `connection`) is always written by this module from what the connection
//! knows, never passed on from a received head, so that a peer can't frame our messages.
//!
//! ```text
//!  Length(n) ──n bytes written──► (end) Done          Chunked ──end, trailers──► Done
//!  Discard (HEAD, 204, 304) ──end──► Done             Raw (until close, tunnel) ──end──► Done
//! ```
//!
//! What it refuses ([`EncodeError`]): a start line that would inject bytes, more or fewer body bytes than announced.

use bytes::Bytes;
use thiserror::Error;

use super::{BodyLength, framing};
use crate::{
    Output,
    fields::{Fields, Known, KnownSet, decimal, is_value_byte},
    message::{
        Method, RequestHead, ResponseHead, Scheme, TargetForm, Version, is_authority_byte, is_path_byte,
        reason_phrase,
    },
};

/// Why a message can't be written. What stands in the output before stays valid only for `InvalidHead` and
/// `TunnelRefused` (nothing was written); after the others the connection must be closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// Method, target, authority, status or reason hold what would break out of the start line.
    #[error("invalid start line")]
    InvalidHead,
    /// A 101, or a response that starts a tunnel, where none was asked for or the request's body is still coming.
    #[error("no tunnel can start here")]
    TunnelRefused,
    /// More body bytes than the head announced.
    #[error("the body is longer than announced")]
    BodyTooLong,
    /// The body ended before the announced length.
    #[error("the body is shorter than announced")]
    BodyTooShort,
    /// Not allowed in this state (a second head, a body before the head); a defect of the caller.
    #[error("encoding in a state that does not allow it")]
    OutOfStep,
}

/// The half of a body that is still to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEncoder {
    Length(u64),
    Chunked,
    /// Bytes as they are: until the connection closes, or a tunnel.
    Raw,
    /// There may be none (HEAD, 204, 304): what comes is dropped.
    Discard,
    Done,
}

impl BodyEncoder {
    pub(crate) const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }

    pub(crate) fn data(&mut self, piece: Bytes, out: &mut Output) -> Result<(), EncodeError> {
        if piece.is_empty() {
            return if self.is_done() {
                Err(EncodeError::OutOfStep)
            } else {
                Ok(())
            };
        }
        match self {
            Self::Length(left) => {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(EncodeError::BodyTooLong)?;
                out.push(piece);
            }
            Self::Chunked => {
                out.append(|out| write_chunk_size(piece.len(), out));
                out.push(piece);
                out.push_slice(b"\r\n");
            }
            Self::Raw => out.push(piece),
            Self::Discard => {}
            Self::Done => return Err(EncodeError::OutOfStep),
        }
        Ok(())
    }

    /// Ends the body; a second time it does nothing. True when the trailers went out, false when this framing has no
    /// place for them.
    pub(crate) fn end(&mut self, trailers: Option<&Fields>, out: &mut Output) -> Result<bool, EncodeError> {
        let wrote = match self {
            Self::Length(0) | Self::Raw | Self::Discard | Self::Done => false,
            Self::Length(_) => return Err(EncodeError::BodyTooShort),
            Self::Chunked => {
                out.push_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    out.append(|out| trailers.write_lines(out, NEVER_TRAILERS));
                }
                out.push_slice(b"\r\n");
                trailers.is_some()
            }
        };
        *self = Self::Done;
        Ok(wrote)
    }
}

/// Fields that are about one connection or about framing: written by the encoder itself or not at all.
const OWN: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::ContentLength,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// Fields that never go into a trailer section (RFC 9110 §6.5.1).
pub(crate) const NEVER_TRAILERS: KnownSet = OWN
    .with(Known::Host)
    .with(Known::Trailer)
    .with(Known::Te)
    .with(Known::Authorization)
    .with(Known::SetCookie)
    .with(Known::Cookie)
    .with(Known::Expect);

/// How the body of a message goes out, and so which field line frames it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingLine {
    /// None at all.
    Nothing,
    /// `content-length`, the received line if it says the same.
    Length(u64),
    Chunked,
    /// The received `content-length` as information (HEAD, 304), if it is one valid number.
    KeepLength,
}

/// The `connection` line of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of options")]
pub(crate) struct ConnectionLine {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    pub(crate) te: bool,
}

impl ConnectionLine {
    fn write(self, out: &mut Vec<u8>) {
        let options = [
            (self.close, b"close".as_slice()),
            (self.keep_alive, b"keep-alive"),
            (self.upgrade, b"upgrade"),
            (self.te, b"te"),
        ];
        let mut start: &[u8] = b"connection: ";
        for (_, option) in options.into_iter().filter(|(set, _)| *set) {
            out.extend_from_slice(start);
            out.extend_from_slice(option);
            start = b", ";
        }
        if start == b", " {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// How a request's body is framed (RFC 9112 §6.2).
pub(crate) fn request_framing(method: &Method, length: BodyLength) -> (FramingLine, BodyEncoder) {
    match length {
        BodyLength::Empty if method.expects_body() => (FramingLine::Length(0), BodyEncoder::Done),
        BodyLength::Empty => (FramingLine::Nothing, BodyEncoder::Done),
        BodyLength::Exact(length) => (FramingLine::Length(length), BodyEncoder::Length(length)),
        BodyLength::Unknown => (FramingLine::Chunked, BodyEncoder::Chunked),
        BodyLength::Tunnel => (FramingLine::Nothing, BodyEncoder::Raw),
    }
}

/// Writes a request's head. `absolute`: in absolute form, for a next hop that is a proxy.
pub(crate) fn request_head(
    head: &RequestHead,
    framing: FramingLine,
    connection: ConnectionLine,
    absolute: bool,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let (path, authority) = (&head.path_and_query[..], &head.authority[..]);
    let valid_path = path.iter().fold(true, |valid, byte| valid & is_path_byte(*byte))
        && (path.is_empty() || path[0] == b'/' || (path == b"*" && head.method == Method::Options));
    let valid_authority = authority
        .iter()
        .fold(true, |valid, byte| valid & is_authority_byte(*byte));
    if !valid_path || !valid_authority {
        return Err(EncodeError::InvalidHead);
    }
    out.reserve(path.len() + authority.len() + head.fields.wire_len() + 128);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    if head.method == Method::Connect || head.form == TargetForm::Authority {
        if head.method != Method::Connect || authority.is_empty() {
            return Err(EncodeError::InvalidHead);
        }
        out.extend_from_slice(authority);
    } else {
        if absolute && !authority.is_empty() {
            out.extend_from_slice(head.scheme.unwrap_or(Scheme::Http).as_str().as_bytes());
            out.extend_from_slice(b"://");
            out.extend_from_slice(authority);
        }
        match path {
            b"" => out.push(b'/'),
            b"*" if absolute => {}
            path => out.extend_from_slice(path),
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut skip = OWN;
    let host = head.fields.get(Known::Host);
    if host != Some(authority) || head.fields.count(Known::Host) != 1 {
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(authority);
        out.extend_from_slice(b"\r\n");
        skip = skip.with(Known::Host);
    }
    write_fields(&head.fields, skip, framing, connection, out);
    Ok(())
}

/// Writes a response's head. `version` is that of the request, which is at most HTTP/1.1.
pub(crate) fn response_head(
    head: &ResponseHead,
    version: Version,
    framing: FramingLine,
    connection: ConnectionLine,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if !(100..=999).contains(&head.status) || !head.reason.iter().all(|byte| is_value_byte(*byte)) {
        return Err(EncodeError::InvalidHead);
    }
    out.reserve(head.fields.wire_len() + 128);
    out.extend_from_slice(if version == Version::Http10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    let mut digits = [0; 20];
    out.extend_from_slice(decimal(head.status.into(), &mut digits));
    out.push(b' ');
    if head.reason.is_empty() {
        out.extend_from_slice(reason_phrase(head.status).as_bytes());
    } else {
        out.extend_from_slice(&head.reason);
    }
    out.extend_from_slice(b"\r\n");
    write_fields(&head.fields, OWN, framing, connection, out);
    Ok(())
}

fn write_fields(
    fields: &Fields,
    skip: KnownSet,
    line: FramingLine,
    connection: ConnectionLine,
    out: &mut Vec<u8>,
) {
    let mut skip = skip;
    let received = fields
        .get(Known::ContentLength)
        .and_then(|value| framing::content_length(value).ok());
    let received = received.filter(|_| fields.count(Known::ContentLength) == 1);
    let keep = match line {
        FramingLine::KeepLength => received.is_some(),
        FramingLine::Length(length) => received == Some(length),
        FramingLine::Nothing | FramingLine::Chunked => false,
    };
    if keep {
        skip = skip.without(Known::ContentLength);
    }
    if connection.upgrade {
        skip = skip.without(Known::Upgrade);
    }
    fields.write_lines(out, skip);
    match line {
        FramingLine::Length(length) if !keep => {
            let mut digits = [0; 20];
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(decimal(length, &mut digits));
            out.extend_from_slice(b"\r\n");
        }
        FramingLine::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        FramingLine::Length(_) | FramingLine::Nothing | FramingLine::KeepLength => {}
    }
    connection.write(out);
    out.extend_from_slice(b"\r\n");
}

/// `size CRLF` in hexadecimal.
fn write_chunk_size(size: usize, out: &mut Vec<u8>) {
    let mut buffer = [0; 18];
    let mut at = 16;
    let mut left = size;
    loop {
        at -= 1;
        buffer[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    buffer[16..].copy_from_slice(b"\r\n");
    out.extend_from_slice(&buffer[at..]);
}
