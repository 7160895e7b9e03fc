//! HTTP/2 as a state machine without I/O (RFC 9113, RFC 7541): [`ServerConn`] takes requests and sends responses, [`ClientConn`]
//! the reverse, each for all streams of one connection.
//!
//! The caller owns the socket, the clock and the read buffer. It appends what it read to a `BytesMut`, takes [`Event`]s out with
//! [`Conn::receive`] until there is none, and writes what the machine put into the [`Output`](crate::Output). Streams are named by
//! a [`StreamKey`], whose slot is small and can index a table of the caller's.
//!
//! ```text
//!  BytesMut ──► frame.rs ──► conn/receive.rs ──┬─ HEADERS ─► hpack ─► section.rs ─► Event::Head, Trailers
//!                               │              └─ DATA: a slice of the buffer ────► Event::Data
//!                            streams.rs  (windows, states)
//!                               │
//!  Output ◄──── frame.rs ◄── conn/send.rs ◄─── encode_head, encode_data, encode_trailers; release, reset
//! ```
//!
//! - Received data counts against the windows until [`Conn::release`] is called for it: not calling it is the backpressure.
//! - [`Conn::encode_data`] takes what the windows and the output have room for and leaves the rest of the piece with the caller;
//!   [`Conn::next_writable`] names the stream to go on with.
//!
//! Bounds: [`Config`] for everything received. Per connection the machine keeps two compression tables (at most 4 KiB of
//! ours and what was offered, with buffers up to twice that), a header block while its frames arrive, and 64 bytes for each
//! open stream. What it answers by itself (acknowledgements, resets) is bounded by [`Config::max_control_frames`]. No input panics.
//! What it does not do: priorities, server push, `ALTSVC` and other extensions; unknown frames are skipped.

mod budget;
mod config;
mod conn;
mod error;
mod frame;
mod hpack;
mod section;
mod streams;
#[cfg(test)]
mod tests;

pub use crate::h1::{BodyLength, Request, Response};
pub use config::Config;
pub use conn::{Client, ClientConn, Conn, Event, Role, Server, ServerConn};
pub use error::{DecodeError, EncodeError, Reason};
pub use streams::StreamKey;
