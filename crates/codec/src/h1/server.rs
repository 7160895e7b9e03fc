//! The server's side of one connection: reads requests, writes responses, one exchange after the other. Pipelined
//! requests wait in the caller's read buffer until the response before them is finished.
//!
//! ```text
//!  read:   Head ──decode_head──► Body ──decode_body: End──► Body(Done)      any DecodeError ──► Failed
//!  write:  Idle ──decode_head──► Head ──encode_head──► Body ──encode_end──► Body(Done)
//!                                 └─encode_informational─┘ (1xx, as often as wanted)
//!  next_exchange():  both Done, persists ──► read Head, write Idle      tunnel: both sides raw until eof and encode_end
//! ```
//!
//! Bounds: under 300 bytes per connection, no buffers. It keeps no time: idle and header timeouts are the caller's.

use bytes::{Bytes, BytesMut};

use super::{
    BodyEvent, BodyLength, DecodeError, EncodeError, Eof, Limits,
    body::BodyDecoder,
    encode::{self, BodyEncoder, ConnectionLine, FramingLine},
    framing::{self, ResponseTo},
    head::{self, Progress},
};
use crate::{
    Output,
    fields::Fields,
    message::{RequestHead, ResponseHead, Version},
};

/// A received request.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: RequestHead,
    /// What body follows.
    pub body: BodyLength,
    /// The client waits for `100 Continue` before it sends the body: send one with
    /// [`ServerConn::encode_informational`], or a final response.
    pub expect_continue: bool,
    /// The client offers to switch protocols (never to HTTP/2). Whoever forwards it keeps `upgrade`, see
    /// [`forward`](crate::forward).
    pub upgrade: bool,
}

/// What follows on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerNext {
    /// The next request can be decoded.
    Request,
    /// The response (or the tunnel) is not finished.
    Busy,
    /// The response is finished, but the request's body has not been read to its end: read it and throw it away, or
    /// close.
    Drain,
    /// Close once the output is written.
    Close,
}

#[derive(Clone, Copy, Debug)]
enum Read {
    Head,
    Body(BodyDecoder),
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Idle,
    Head,
    Body(BodyEncoder),
}

/// The state of one server connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one exchange, not a hidden state"
)]
pub struct ServerConn {
    limits: Limits,
    accept_http_10: bool,
    read: Read,
    write: Write,
    progress: Progress,
    /// Of the current exchange.
    version: Version,
    response_to: ResponseTo,
    upgrade: bool,
    awaits_continue: bool,
    tunnel: bool,
    /// Whether a next exchange may follow.
    persists: bool,
    /// The caller wants the connection to end after the current exchange.
    closing: bool,
}

impl ServerConn {
    /// A connection before its first request. `accept_http_10`: whether HTTP/1.0 requests are served
    /// (Envoy: `Http1ProtocolOptions.accept_http_10`).
    pub fn new(limits: Limits, accept_http_10: bool) -> Self {
        Self {
            limits,
            accept_http_10,
            read: Read::Head,
            write: Write::Idle,
            progress: Progress::default(),
            version: Version::Http11,
            response_to: ResponseTo::Other,
            upgrade: false,
            awaits_continue: false,
            tunnel: false,
            persists: true,
            closing: false,
        }
    }

    /// Takes the next request head off `buf`, or nothing while it is incomplete or the response before it is not
    /// finished ([`ServerConn::next_exchange`] must have answered `Request`).
    pub fn decode_head(&mut self, buf: &mut BytesMut) -> Result<Option<Request>, DecodeError> {
        match (self.read, self.write) {
            (Read::Failed, _) => return Err(DecodeError::OutOfStep),
            (Read::Head, Write::Idle) => {}
            _ => return Ok(None),
        }
        let result = self.try_decode_head(buf);
        if result.is_err() {
            self.fail();
        }
        self.debug_check();
        result
    }

    fn try_decode_head(&mut self, buf: &mut BytesMut) -> Result<Option<Request>, DecodeError> {
        let Some(lexed) = head::request(buf, &self.limits, &mut self.progress)? else {
            return Ok(None);
        };
        let (mut head, repeated) = (lexed.head, lexed.repeated);
        self.version = head.version;
        if head.version == Version::Http10 && !self.accept_http_10 {
            return Err(DecodeError::Http10Refused);
        }
        let facts = framing::request(&mut head, repeated)?;
        self.response_to = ResponseTo::from(&head.method);
        self.persists = facts.persists;
        self.upgrade = facts.upgrade;
        self.awaits_continue = facts.expect_continue && facts.body != BodyLength::Empty;
        self.read = Read::Body(match facts.body {
            BodyLength::Exact(length) => BodyDecoder::Length(length),
            BodyLength::Unknown => BodyDecoder::chunked(),
            BodyLength::Empty | BodyLength::Tunnel => BodyDecoder::Done,
        });
        self.write = Write::Head;
        let (expect_continue, upgrade) = (self.awaits_continue, facts.upgrade);
        Ok(Some(Request {
            head,
            body: facts.body,
            expect_continue,
            upgrade,
        }))
    }

    /// Takes the next piece of the request's body (or of the tunnel) off `buf`.
    pub fn decode_body(&mut self, buf: &mut BytesMut) -> Result<BodyEvent, DecodeError> {
        let Read::Body(body) = &mut self.read else {
            return Err(DecodeError::OutOfStep);
        };
        let result = body.decode(buf, &self.limits);
        match &result {
            Ok(BodyEvent::Data(_)) => self.awaits_continue = false,
            Ok(_) => {}
            Err(_) => self.fail(),
        }
        self.debug_check();
        result
    }

    /// Says that the client sends nothing more; `buf` is what it left. `Clean` between messages (a response may still
    /// be due), `EndOfBody` when it ended the tunnel's direction.
    pub fn decode_eof(&mut self, buf: &BytesMut) -> Result<Eof, DecodeError> {
        let result = match &mut self.read {
            Read::Head if buf.iter().all(|byte| matches!(byte, b'\r' | b'\n')) => Ok(Eof::Clean),
            Read::Head | Read::Failed => Err(DecodeError::Truncated),
            Read::Body(body) => body
                .eof()
                .map(|ended| if ended { Eof::EndOfBody } else { Eof::Clean }),
        };
        match result {
            Ok(_) if buf.is_empty() => self.closing = true,
            Ok(_) => {}
            Err(_) => self.fail(),
        }
        self.debug_check();
        result
    }

    /// Writes an interim response (1xx, not 101). To an HTTP/1.0 client nothing is written (RFC 9110 §15.2).
    pub fn encode_informational(&mut self, head: &ResponseHead, out: &mut Output) -> Result<(), EncodeError> {
        if !matches!(self.write, Write::Head) {
            return Err(EncodeError::OutOfStep);
        }
        if !head.is_informational() {
            return Err(EncodeError::InvalidHead);
        }
        if self.version == Version::Http10 {
            return Ok(());
        }
        if head.status == 100 {
            self.awaits_continue = false;
        }
        out.try_append(|out| {
            encode::response_head(
                head,
                self.version,
                FramingLine::Nothing,
                ConnectionLine::default(),
                out,
            )
        })
    }

    /// Writes the final response's head. Framing and `connection` follow from `length`, the request and the state of
    /// the connection; whatever the head's own fields say about them is left out.
    ///
    /// Without a request (a timeout, a refused head) it writes an answer after which the connection closes. For 101,
    /// and for 2xx to CONNECT, both directions become a tunnel, whatever `length` says.
    pub fn encode_head(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        match (self.write, self.read) {
            (Write::Head, _) => {}
            (Write::Idle, _) => self.persists = false,
            (Write::Body(_), _) => return Err(EncodeError::OutOfStep),
        }
        if head.is_informational() {
            return Err(EncodeError::InvalidHead);
        }
        let starts_tunnel = head.status == 101
            || self.response_to == ResponseTo::Connect && (200..=299).contains(&head.status);
        if starts_tunnel || length == BodyLength::Tunnel {
            return self.encode_tunnel_head(head, starts_tunnel, out);
        }
        let (line, body) = self.response_framing(head.status, length);
        let persists = self.persists && !self.closing && body != BodyEncoder::Raw;
        let connection = ConnectionLine {
            close: !persists,
            keep_alive: persists && self.version == Version::Http10,
            upgrade: head.status == 426 && head.fields.contains(crate::Known::Upgrade),
            te: false,
        };
        out.try_append(|out| encode::response_head(head, self.version, line, connection, out))?;
        self.persists = persists;
        self.write = Write::Body(body);
        self.debug_check();
        Ok(())
    }

    fn encode_tunnel_head(
        &mut self,
        head: &ResponseHead,
        allowed: bool,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        let asked = self.response_to == ResponseTo::Connect || self.upgrade;
        let body_read = matches!(self.read, Read::Body(body) if body.is_done());
        let fits = allowed && asked && body_read && matches!(self.write, Write::Head);
        if !fits || (head.status == 101 && !self.upgrade) {
            return Err(EncodeError::TunnelRefused);
        }
        let connection = ConnectionLine {
            upgrade: head.status == 101,
            ..ConnectionLine::default()
        };
        out.try_append(|out| {
            encode::response_head(head, self.version, FramingLine::Nothing, connection, out)
        })?;
        self.persists = false;
        self.tunnel = true;
        self.read = Read::Body(BodyDecoder::Tunnel);
        self.write = Write::Body(BodyEncoder::Raw);
        self.debug_check();
        Ok(())
    }

    fn response_framing(&self, status: u16, length: BodyLength) -> (FramingLine, BodyEncoder) {
        let dropped = if length == BodyLength::Empty {
            BodyEncoder::Done
        } else {
            BodyEncoder::Discard
        };
        match (length, status) {
            (_, 204) => (FramingLine::Nothing, dropped),
            (BodyLength::Exact(length), _) if status == 304 || self.response_to == ResponseTo::Head => {
                (FramingLine::Length(length), dropped)
            }
            (_, _) if status == 304 || self.response_to == ResponseTo::Head => {
                (FramingLine::KeepLength, dropped)
            }
            (BodyLength::Empty, _) => (FramingLine::Length(0), BodyEncoder::Done),
            (BodyLength::Exact(length), _) => (FramingLine::Length(length), BodyEncoder::Length(length)),
            (BodyLength::Unknown | BodyLength::Tunnel, _) if self.version == Version::Http10 => {
                (FramingLine::Nothing, BodyEncoder::Raw)
            }
            (BodyLength::Unknown | BodyLength::Tunnel, _) => (FramingLine::Chunked, BodyEncoder::Chunked),
        }
    }

    /// Writes a piece of the response's body (or of the tunnel), by reference if it is large.
    pub fn encode_data(&mut self, piece: Bytes, out: &mut Output) -> Result<(), EncodeError> {
        match &mut self.write {
            Write::Body(body) => body.data(piece, out),
            Write::Idle | Write::Head => Err(EncodeError::OutOfStep),
        }
    }

    /// Ends the response's body; harmless when it has ended. True when the trailers were written, which only a
    /// chunked body has a place for.
    pub fn encode_end(&mut self, trailers: Option<&Fields>, out: &mut Output) -> Result<bool, EncodeError> {
        match &mut self.write {
            Write::Body(body) => body.end(trailers, out),
            Write::Idle | Write::Head => Err(EncodeError::OutOfStep),
        }
    }

    /// Lets the connection end after the current exchange (drain); the response says `connection: close` if its head
    /// is not written yet.
    pub fn close_after(&mut self) {
        self.closing = true;
    }

    /// What follows; with `Request` the machine is ready for the next exchange.
    pub fn next_exchange(&mut self) -> ServerNext {
        let Write::Body(body) = self.write else {
            let idle = matches!((self.write, self.read), (Write::Idle, Read::Head));
            return match (idle, self.closing) {
                (true, false) => ServerNext::Request,
                (true, true) => ServerNext::Close,
                (false, _) => ServerNext::Busy,
            };
        };
        if !body.is_done() {
            return ServerNext::Busy;
        }
        match self.read {
            Read::Body(read) if self.tunnel && !read.is_done() => ServerNext::Busy,
            _ if !self.persists || self.closing => ServerNext::Close,
            Read::Body(read) if read.is_done() => {
                self.read = Read::Head;
                self.write = Write::Idle;
                self.progress = Progress::default();
                // An error answer before the next request must not depend on this one.
                self.version = Version::Http11;
                self.response_to = ResponseTo::Other;
                self.upgrade = false;
                self.awaits_continue = false;
                self.debug_check();
                ServerNext::Request
            }
            // RFC 9110 §10.1.1: nobody knows whether a client that was not told to continue sends the body.
            Read::Body(_) if self.awaits_continue => ServerNext::Close,
            Read::Body(_) => ServerNext::Drain,
            Read::Head | Read::Failed => ServerNext::Close,
        }
    }

    /// Whether no exchange is under way: the connection may be closed at any moment without loss.
    pub fn is_idle(&self) -> bool {
        matches!((self.read, self.write), (Read::Head, Write::Idle)) && self.progress.is_fresh()
    }

    /// Whether the request's body has been read to its end.
    pub fn request_finished(&self) -> bool {
        matches!(self.read, Read::Body(body) if body.is_done())
    }

    /// Whether the response has been written to its end.
    pub fn response_finished(&self) -> bool {
        matches!(self.write, Write::Body(body) if body.is_done())
    }

    /// Whether the response's head has been written, after which no other answer can be given.
    pub fn response_started(&self) -> bool {
        matches!(self.write, Write::Body(_))
    }

    /// Whether the response's body lasts until the connection closes, so that a close looks like its end.
    pub fn body_is_until_close(&self) -> bool {
        matches!(self.write, Write::Body(BodyEncoder::Raw)) && !self.tunnel
    }

    /// Whether both directions are a tunnel.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Whether another exchange can follow the current one, as far as is known now.
    pub fn persists(&self) -> bool {
        self.persists && !self.closing && !matches!(self.read, Read::Failed)
    }

    /// Bytes of the request's body still to come, where its length was announced.
    pub fn body_remaining(&self) -> Option<u64> {
        match self.read {
            Read::Body(body) => body.remaining(),
            Read::Head | Read::Failed => None,
        }
    }

    fn fail(&mut self) {
        self.read = Read::Failed;
        self.persists = false;
    }

    fn debug_check(&self) {
        debug_assert_eq!(self.check_invariants(), Ok(()));
    }

    /// Checks what every operation keeps.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        match (self.read, self.write) {
            (Read::Head, Write::Head) => Err("a response is due without a request"),
            (Read::Body(_), Write::Idle) => Err("a body without an exchange"),
            (Read::Failed, _) if self.persists => Err("a failed connection persists"),
            (_, Write::Body(BodyEncoder::Raw)) if self.persists => {
                Err("a body until close on a lasting connection")
            }
            (Read::Body(BodyDecoder::UntilClose), _) => Err("a request until close"),
            (Read::Body(BodyDecoder::Tunnel), _) if !self.tunnel => Err("a tunnel that nobody accepted"),
            _ => Ok(()),
        }
    }
}
