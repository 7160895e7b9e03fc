//! The message interface: what both versions of HTTP look like to the code that forwards them.
//!
//! A body is pulled piece by piece by whoever writes it on: not pulling is the backpressure, dropping the stream is
//! the cancellation. Nothing here is boxed or generic; the two ends are the closed enums of `downstream.rs` and
//! `upstream/exchange.rs`.

use bytes::Bytes;
use rajut_codec::{Fields, RequestHead, h1::BodyLength};

/// A piece of a body.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// The next bytes, never empty.
    Data(Bytes),
    /// The trailers; nothing follows but `End`.
    Trailers(Fields),
    /// The body is complete.
    End,
}

/// A received request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its head; an extended CONNECT has become the upgrade that it stands for.
    pub(crate) head: RequestHead,
    /// What body follows.
    pub(crate) body: BodyLength,
    /// The client waits for `100 Continue`.
    pub(crate) expect_continue: bool,
    /// The client offers to switch protocols.
    pub(crate) upgrade: bool,
}

/// How a downstream stream ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DownstreamError {
    /// The client went away, or reset its stream.
    Gone,
    /// Its bytes break HTTP; the status says how.
    Malformed(u16),
}
