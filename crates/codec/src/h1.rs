//! HTTP/1.0 and HTTP/1.1 as state machines without I/O (RFC 9112): [`ServerConn`] reads requests and writes
//! responses, [`ClientConn`] writes requests and reads responses.
//!
//! The caller owns the sockets, the clock and the read buffer. It appends what it read to a `BytesMut`, asks the
//! machine for a head or body piece until that answers "nothing yet", and writes what the machine put into an
//! [`Output`](crate::Output). Steps 4 and 9 of the request path use it.
//!
//! ```text
//!             lex (httparse + strict line ends)         framing (Content-Length, Transfer-Encoding, Connection)
//!  bytes ──► head.rs ───────────────────────────────► framing.rs ──► server.rs / client.rs ──► Request / Response
//!  bytes ──► body.rs (fixed, chunked, until close) ───────────────────────┘      │
//!  Output ◄── encode.rs (heads, chunks, trailers) ◄──────────────────────────────┘
//! ```
//!
//! Bounds: [`Limits`] for everything received; per connection the machines keep under 300 bytes and no buffer.
//! Strictness: whatever two implementations could read differently is refused, see [`DecodeError`]. No input panics.

mod body;
mod client;
mod encode;
mod error;
mod framing;
mod head;
mod server;
#[cfg(test)]
mod tests;

pub use body::BodyEvent;
pub use client::{ClientConn, ClientNext, Response};
pub use encode::EncodeError;
pub(crate) use encode::NEVER_TRAILERS;
pub use error::DecodeError;
pub(crate) use framing::content_length;
pub(crate) use head::check_authority;
pub use server::{Request, ServerConn, ServerNext};

/// How long a message's body is, as far as its head tells. What one side decoded can be handed to the other side's
/// encoder as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    Empty,
    /// Exactly that many bytes.
    Exact(u64),
    /// Known when it ends: chunked, or until the connection closes (responses only).
    Unknown,
    /// No body but a tunnel: everything that follows, in both directions, is opaque (101, or 2xx to CONNECT).
    Tunnel,
}

/// What a received message may at most have. The defaults are Envoy's where Envoy has the limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a head: start line, fields and the empty line. Default 60 KiB
    /// (Envoy: `HttpConnectionManager.max_request_headers_kb`).
    pub max_head_bytes: usize,
    /// Fields of a head, default 100 (Envoy: `HttpProtocolOptions.max_headers_count`); at most 4,096.
    pub max_headers: usize,
    /// Bytes of the request target, default as for the head.
    pub max_target_bytes: usize,
    /// Bytes of a trailer section, default 16 KiB.
    pub max_trailer_bytes: usize,
    /// Fields of a trailer section, default 64.
    pub max_trailers: usize,
    /// Bytes of chunk extensions in one body, all chunks together, default 16 KiB.
    pub max_chunk_extension_bytes: u32,
    /// Interim responses (1xx) before the final one, default 16.
    pub max_informational: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 60 * 1024,
            max_headers: 100,
            max_target_bytes: 60 * 1024,
            max_trailer_bytes: 16 * 1024,
            max_trailers: 64,
            max_chunk_extension_bytes: 16 * 1024,
            max_informational: 16,
        }
    }
}

/// What the end of the peer's bytes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eof {
    /// Between two messages: the connection ends cleanly.
    Clean,
    /// It ended the body that lasts until the close, or the tunnel's direction.
    EndOfBody,
}
