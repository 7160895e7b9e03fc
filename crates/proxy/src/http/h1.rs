//! The server's side of an HTTP/1 connection: the codec's state machine and the bytes below it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use rajut_codec::{
    Fields, ResponseHead,
    h1::{BodyEvent, BodyLength, DecodeError, EncodeError, Limits, Request, ServerConn},
};

use super::{
    message::{DownstreamError, Piece},
    transport::Transport,
};
use crate::stream::Stream;

/// An HTTP/1 connection of a client.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) transport: Transport,
    pub(crate) machine: ServerConn,
}

/// Why no request came.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The bytes break HTTP; an answer is possible.
    Malformed(DecodeError),
    /// The connection ended in the middle, or broke.
    Gone,
}

impl Server {
    pub(crate) fn new(stream: Stream, limits: Limits, accept_http_10: bool) -> Self {
        Self {
            transport: Transport::new(stream),
            machine: ServerConn::new(limits, accept_http_10),
        }
    }

    /// The next request; `None` when the client has finished.
    pub(crate) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Request>, HeadError>> {
        loop {
            match self.machine.decode_head(&mut self.transport.read) {
                Ok(Some(request)) => return Poll::Ready(Ok(Some(request))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(HeadError::Malformed(error))),
            }
            match ready!(self.transport.poll_read(cx)) {
                Ok(0) => {
                    let clean = self.machine.decode_eof(&self.transport.read).is_ok();
                    return Poll::Ready(if clean { Ok(None) } else { Err(HeadError::Gone) });
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(HeadError::Gone)),
            }
        }
    }

    /// Whether bytes of a request have arrived.
    pub(crate) fn has_begun(&self) -> bool {
        !self.transport.read.is_empty() || !self.machine.is_idle()
    }

    /// The next piece of the request's body (or of the tunnel).
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, DownstreamError>> {
        loop {
            match self.machine.decode_body(&mut self.transport.read) {
                Ok(BodyEvent::Data(bytes)) => return Poll::Ready(Ok(Piece::Data(bytes))),
                Ok(BodyEvent::Trailers(fields)) => return Poll::Ready(Ok(Piece::Trailers(fields))),
                Ok(BodyEvent::End) => return Poll::Ready(Ok(Piece::End)),
                Ok(BodyEvent::Pending) => {}
                Err(error) => return Poll::Ready(Err(DownstreamError::Malformed(error.status()))),
            }
            match ready!(self.transport.poll_read(cx)) {
                Ok(0) => {
                    if self.machine.decode_eof(&self.transport.read).is_err() {
                        return Poll::Ready(Err(DownstreamError::Gone));
                    }
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(DownstreamError::Gone)),
            }
        }
    }

    /// While an answer is awaited: whether the client is gone. Bytes of a next request are kept, up to a bound.
    /// `Ready(true)`: broken; `Ready(false)`: it has finished sending, and may still listen.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.transport.is_finished() {
            return Poll::Ready(false);
        }
        loop {
            // A client that sends on without reading is not watched any further.
            if self.transport.read.len() >= PIPELINE_MAX {
                return Poll::Pending;
            }
            match ready!(self.transport.poll_read(cx)) {
                Ok(0) => return Poll::Ready(false),
                Ok(_) => {}
                Err(_) => return Poll::Ready(true),
            }
        }
    }

    /// Writes a response's head; falls back to a plain 502 where the head can't be written.
    pub(crate) fn push_head(&mut self, head: &ResponseHead, length: BodyLength) -> Result<(), EncodeError> {
        self.machine.encode_head(head, length, &mut self.transport.output)
    }

    pub(crate) fn push_informational(&mut self, head: &ResponseHead) -> Result<(), EncodeError> {
        self.machine
            .encode_informational(head, &mut self.transport.output)
    }

    pub(crate) fn push(&mut self, piece: Piece) -> Result<(), EncodeError> {
        let out = &mut self.transport.output;
        match piece {
            Piece::Data(bytes) => self.machine.encode_data(bytes, out),
            Piece::Trailers(fields) => self.push_trailers(&fields),
            Piece::End => self.machine.encode_end(None, out).map(drop),
        }
    }

    pub(crate) fn push_trailers(&mut self, fields: &Fields) -> Result<(), EncodeError> {
        let out = &mut self.transport.output;
        self.machine.encode_end(Some(fields), out).map(drop)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_flush(cx)
    }

    /// Reads and throws away; `Ready` when the client has finished or broken, or `most` bytes have been read.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, most: &mut usize) -> Poll<()> {
        self.transport.poll_discard(cx, most)
    }
}

/// Bytes of pipelined requests that are read while an answer is awaited.
const PIPELINE_MAX: usize = 64 * 1024;
