//! The client's side of one connection: writes requests, reads responses, one exchange at a time (requests are never
//! pipelined, since a failure would leave unknown which of them were processed).
//!
//! ```text
//!  write:  Idle ──encode_head──► Body ──encode_end──► Body(Done)
//!  read:   Idle ──encode_head──► Head ──1xx──► Head ──final──► Body ──End──► Body(Done)     error ──► Failed
//!  next_exchange():  both Done, persists ──► both Idle, reusable        tunnel: both sides raw until eof and encode_end
//! ```
//!
//! Bounds: under 300 bytes per connection, no buffers; at most `Limits::max_informational` interim responses.

use bytes::{Bytes, BytesMut};

use super::{
    BodyEvent, BodyLength, DecodeError, EncodeError, Eof, Limits,
    body::BodyDecoder,
    encode::{self, BodyEncoder, ConnectionLine},
    framing::{self, ConnectionOptions, ResponseTo},
    head::{self, Progress},
};
use crate::{
    Output,
    fields::{Fields, Known},
    message::{RequestHead, ResponseHead},
};

/// A received response.
#[derive(Debug)]
pub struct Response {
    /// Its head. Where [`ResponseHead::is_informational`], another response follows.
    pub head: ResponseHead,
    /// What body follows; `Tunnel` when both directions are opaque from here on.
    pub body: BodyLength,
}

/// What can be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientNext {
    /// Another request can be sent.
    Reusable,
    /// The exchange (or the tunnel) is not finished.
    Busy,
    /// Nothing more: close it.
    Close,
}

#[derive(Clone, Copy, Debug)]
enum Read {
    Idle,
    Head,
    Body(BodyDecoder),
    Failed,
}

/// The state of one client connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one exchange, not a hidden state"
)]
pub struct ClientConn {
    limits: Limits,
    /// Targets are written in absolute form, for a next hop that is a proxy.
    absolute_form: bool,
    read: Read,
    /// `None` while no request is under way.
    write: Option<BodyEncoder>,
    progress: Progress,
    response_to: ResponseTo,
    upgrade: bool,
    tunnel: bool,
    informational: u8,
    persists: bool,
    closing: bool,
}

impl ClientConn {
    /// A connection before its first request.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            absolute_form: false,
            read: Read::Idle,
            write: None,
            progress: Progress::default(),
            response_to: ResponseTo::Other,
            upgrade: false,
            tunnel: false,
            informational: 0,
            persists: true,
            closing: false,
        }
    }

    /// The same for a next hop that is a forward proxy: targets are written in absolute form (RFC 9112 §3.2.2).
    pub fn new_to_proxy(limits: Limits) -> Self {
        Self {
            absolute_form: true,
            ..Self::new(limits)
        }
    }

    /// Writes a request's head. Framing, `connection` and a missing `host` follow from the head, `length` and this
    /// connection's state. A request that still has an `upgrade` field (other than to HTTP/2) offers it to the
    /// server; take it out with [`forward::strip_request`](crate::forward::strip_request) if that is not meant.
    pub fn encode_head(
        &mut self,
        head: &RequestHead,
        length: BodyLength,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        if !matches!((self.read, self.write), (Read::Idle, None)) || !self.persists {
            return Err(EncodeError::OutOfStep);
        }
        let response_to = ResponseTo::from(&head.method);
        if length == BodyLength::Tunnel || (response_to == ResponseTo::Connect && length != BodyLength::Empty)
        {
            return Err(EncodeError::InvalidHead);
        }
        let upgrade = framing::is_upgrade(&head.fields);
        let (line, body) = encode::request_framing(&head.method, length);
        let connection = ConnectionLine {
            close: self.closing,
            keep_alive: false,
            upgrade,
            te: head.fields.contains(Known::Te),
        };
        let absolute = self.absolute_form;
        out.try_append(|out| encode::request_head(head, line, connection, absolute, out))?;
        self.response_to = response_to;
        self.upgrade = upgrade;
        self.persists = !self.closing;
        self.informational = 0;
        self.read = Read::Head;
        self.write = Some(body);
        self.debug_check();
        Ok(())
    }

    /// Writes a piece of the request's body (or of the tunnel), by reference if it is large.
    pub fn encode_data(&mut self, piece: Bytes, out: &mut Output) -> Result<(), EncodeError> {
        self.write
            .as_mut()
            .ok_or(EncodeError::OutOfStep)?
            .data(piece, out)
    }

    /// Ends the request's body; harmless when it has ended. True when the trailers were written, which only a
    /// chunked body has a place for.
    pub fn encode_end(&mut self, trailers: Option<&Fields>, out: &mut Output) -> Result<bool, EncodeError> {
        self.write
            .as_mut()
            .ok_or(EncodeError::OutOfStep)?
            .end(trailers, out)
    }

    /// Takes the next response head off `buf`: interim ones first, then the final one; nothing while it is
    /// incomplete or has been decoded already.
    pub fn decode_head(&mut self, buf: &mut BytesMut) -> Result<Option<Response>, DecodeError> {
        match self.read {
            Read::Head => {}
            Read::Idle if buf.is_empty() => return Ok(None),
            Read::Body(_) => return Ok(None),
            Read::Failed => return Err(DecodeError::OutOfStep),
            Read::Idle => {
                self.fail();
                return Err(DecodeError::UnexpectedData);
            }
        }
        let result = self.try_decode_head(buf);
        if result.is_err() {
            self.fail();
        }
        self.debug_check();
        result
    }

    fn try_decode_head(&mut self, buf: &mut BytesMut) -> Result<Option<Response>, DecodeError> {
        let Some(lexed) = head::response(buf, &self.limits, &mut self.progress)? else {
            return Ok(None);
        };
        let (head, repeated) = (lexed.head, lexed.repeated);
        let fields = &head.fields;
        let body = framing::response(head.status, fields, repeated, head.version, self.response_to)?;
        let options = ConnectionOptions::parse(fields)?;
        if head.is_informational() {
            self.informational += 1;
            if self.informational > self.limits.max_informational {
                return Err(DecodeError::TooManyInformational);
            }
            return Ok(Some(Response { head, body }));
        }
        self.persists &= options.persists(head.version);
        let body_sent = self.write.is_some_and(BodyEncoder::is_done);
        self.read = Read::Body(match body {
            BodyLength::Empty => BodyDecoder::Done,
            BodyLength::Exact(length) => BodyDecoder::Length(length),
            BodyLength::Unknown if fields.contains(Known::TransferEncoding) => BodyDecoder::chunked(),
            BodyLength::Unknown => {
                self.persists = false;
                BodyDecoder::UntilClose
            }
            BodyLength::Tunnel => {
                // RFC 9110 §15.2.2: only what was offered, and after the whole request.
                let switched = head.status != 101 || self.upgrade && options.upgrade;
                if !switched || !body_sent {
                    return Err(DecodeError::UnexpectedUpgrade);
                }
                self.tunnel = true;
                self.persists = false;
                self.write = Some(BodyEncoder::Raw);
                BodyDecoder::Tunnel
            }
        });
        Ok(Some(Response { head, body }))
    }

    /// Takes the next piece of the response's body (or of the tunnel) off `buf`.
    pub fn decode_body(&mut self, buf: &mut BytesMut) -> Result<BodyEvent, DecodeError> {
        let Read::Body(body) = &mut self.read else {
            return Err(DecodeError::OutOfStep);
        };
        let result = body.decode(buf, &self.limits);
        if result.is_err() {
            self.fail();
        }
        self.debug_check();
        result
    }

    /// Says that the server sends nothing more; `buf` is what it left. `EndOfBody` when it ended a body that lasts
    /// until the close, or the tunnel's direction.
    pub fn decode_eof(&mut self, buf: &BytesMut) -> Result<Eof, DecodeError> {
        let result = match &mut self.read {
            Read::Idle if buf.is_empty() => Ok(Eof::Clean),
            Read::Idle => Err(DecodeError::UnexpectedData),
            Read::Head | Read::Failed => Err(DecodeError::Truncated),
            Read::Body(body) => body
                .eof()
                .map(|ended| if ended { Eof::EndOfBody } else { Eof::Clean }),
        };
        self.persists = false;
        if result.is_err() {
            self.fail();
        }
        self.debug_check();
        result
    }

    /// Lets the connection end after the current (or next) exchange; a request whose head is not written yet says
    /// `connection: close`.
    pub fn close_after(&mut self) {
        self.closing = true;
    }

    /// What can be done now; with `Reusable` the machine is ready for the next exchange. `buf` is what has been read
    /// and not decoded: bytes behind a finished response belong to no request, so such a connection is not reused.
    pub fn next_exchange(&mut self, buf: &BytesMut) -> ClientNext {
        match (self.read, self.write) {
            (Read::Idle, _) if self.persists && buf.is_empty() => ClientNext::Reusable,
            (Read::Idle | Read::Failed, _) => ClientNext::Close,
            (Read::Body(read), Some(write)) if read.is_done() && write.is_done() => {
                if !self.persists || self.closing || !buf.is_empty() {
                    return ClientNext::Close;
                }
                self.read = Read::Idle;
                self.write = None;
                self.progress = Progress::default();
                self.debug_check();
                ClientNext::Reusable
            }
            // An answer before the end of the request: what is left of the request will not be sent.
            (Read::Body(read), Some(_)) if read.is_done() && !self.tunnel && !self.persists => {
                ClientNext::Close
            }
            _ => ClientNext::Busy,
        }
    }

    /// Whether the final response's head has arrived.
    pub fn response_started(&self) -> bool {
        matches!(self.read, Read::Body(_))
    }

    /// Whether the response has been read to its end.
    pub fn response_finished(&self) -> bool {
        matches!(self.read, Read::Body(body) if body.is_done())
    }

    /// Whether the request has been written to its end.
    pub fn request_finished(&self) -> bool {
        self.write.is_some_and(BodyEncoder::is_done)
    }

    /// Whether both directions are a tunnel.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Whether another exchange can follow the current one, as far as is known now.
    pub fn persists(&self) -> bool {
        self.persists && !self.closing && !matches!(self.read, Read::Failed)
    }

    /// Bytes of the response's body still to come, where its length was announced.
    pub fn body_remaining(&self) -> Option<u64> {
        match self.read {
            Read::Body(body) => body.remaining(),
            Read::Idle | Read::Head | Read::Failed => None,
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
            (Read::Idle, Some(_)) | (Read::Head | Read::Body(_), None) => {
                Err("a request without its response")
            }
            (Read::Failed, _) if self.persists => Err("a failed connection persists"),
            (Read::Body(BodyDecoder::UntilClose | BodyDecoder::Tunnel), _) if self.persists => {
                Err("a body until close on a lasting connection")
            }
            (Read::Body(BodyDecoder::Tunnel), _) if !self.tunnel => Err("a tunnel that nobody accepted"),
            (_, Some(BodyEncoder::Raw)) if !self.tunnel => Err("a request until close"),
            _ => Ok(()),
        }
    }
}
