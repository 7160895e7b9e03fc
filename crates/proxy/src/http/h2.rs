//! One HTTP/2 stream of a client, and the limits of its connection.
//!
//! `h2` is used directly. A piece waits in `queued` until the windows take it, so that one piece per stream is the
//! most that is held here; received bytes give their window back when they are handed on.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use rajut_codec::{Fields, ResponseHead, Version, h1::BodyLength};
use rajut_ir::cluster::Http2Options;

use super::{
    codec::convert,
    message::{DownstreamError, Piece},
};

/// Streams at once where the configuration does not say (Envoy's default since 1.36 is 1024; ours bounds memory).
pub(crate) const STREAMS_DEFAULT: u32 = 1024;
/// Window of a stream where the configuration does not say.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection where the configuration does not say.
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes per stream that wait for the peer's window.
pub(crate) const SEND_BUFFER: usize = 128 * 1024;
/// Streams that a client may have reset before we looked at them (rapid reset, CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 64;
/// Streams that we may have to reset because of a client's mistakes before its connection is closed.
const LOCAL_RESETS_MAX: usize = 256;
/// Budget for small DATA frames, bytes (a flood of tiny frames).
pub(crate) const DATA_FRAME_BUDGET: usize = 512 * 1024;

/// The settings of a server connection.
pub(crate) fn server_builder(options: &Http2Options, max_head_bytes: u32) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(options.max_concurrent_streams.unwrap_or(STREAMS_DEFAULT))
        .initial_window_size(options.initial_stream_window_size.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(
            options
                .initial_connection_window_size
                .unwrap_or(CONNECTION_WINDOW),
        )
        .max_header_list_size(max_head_bytes)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(PENDING_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .data_frame_budget(DATA_FRAME_BUDGET);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Sends a PING at each interval, over a connection of either side; resolves when one is not answered in time.
pub(crate) async fn keep_alive(ping_pong: Option<h2::PingPong>, every: Option<(Duration, Duration)>) {
    if let (Some(mut ping_pong), Some((interval, timeout))) = (ping_pong, every) {
        loop {
            tokio::time::sleep(interval).await;
            let answered = tokio::time::timeout(timeout, ping_pong.ping(h2::Ping::opaque())).await;
            if !matches!(answered, Ok(Ok(_))) {
                return;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// The sending half of a stream, of either side.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: SendStream<Bytes>,
    queued: Option<Bytes>,
    /// What follows the queued piece.
    then: Then,
    /// Bytes still to come where the length was announced: the last one carries `END_STREAM`.
    left: Option<u64>,
}

#[derive(Debug)]
enum Then {
    More,
    End,
    Trailers(Box<convert::FieldMap>),
    Done,
}

impl Sender {
    /// `from`: the version in which the message arrived. HTTP/1 has no trailers after a known length, so there the
    /// last piece can carry `END_STREAM`.
    pub(crate) fn new(stream: SendStream<Bytes>, length: BodyLength, from: Version) -> Self {
        Self {
            stream,
            queued: None,
            then: Then::More,
            left: match length {
                BodyLength::Exact(length) if from != Version::Http2 => Some(length),
                BodyLength::Exact(_) | BodyLength::Empty | BodyLength::Unknown | BodyLength::Tunnel => None,
            },
        }
    }

    /// Whether another piece may be pushed.
    pub(crate) const fn has_room(&self) -> bool {
        self.queued.is_none()
    }

    /// Whether the stream's end has been handed over.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.then, Then::Done)
    }

    pub(crate) fn push(&mut self, piece: Piece) -> Result<(), h2::Error> {
        match piece {
            Piece::Data(bytes) => {
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(bytes.len() as u64);
                    if *left == 0 {
                        self.then = Then::End;
                    }
                }
                self.stream.reserve_capacity(bytes.len());
                self.queued = Some(bytes);
            }
            Piece::Trailers(fields) => return self.push_trailers(&fields),
            Piece::End => {
                if matches!(self.then, Then::More) {
                    self.then = Then::End;
                }
            }
        }
        self.end_if_empty()
    }

    fn push_trailers(&mut self, fields: &Fields) -> Result<(), h2::Error> {
        // Trailers that can't be carried over are left out; the message itself is complete.
        if let Ok(map) = convert::map_from(fields) {
            self.then = Then::Trailers(Box::new(map));
        }
        self.end_if_empty()
    }

    fn end_if_empty(&mut self) -> Result<(), h2::Error> {
        if self.queued.is_some() {
            return Ok(());
        }
        match std::mem::replace(&mut self.then, Then::Done) {
            Then::More => self.then = Then::More,
            Then::End => self.stream.send_data(Bytes::new(), true)?,
            Then::Trailers(map) => self.stream.send_trailers(*map)?,
            Then::Done => {}
        }
        Ok(())
    }

    /// Hands the queued piece over as the peer's windows allow.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while let Some(queued) = &mut self.queued {
            let capacity = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(capacity) => capacity?,
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                },
                capacity => capacity,
            };
            if capacity == 0 {
                continue;
            }
            let part = queued.split_to(capacity.min(queued.len()));
            let last = queued.is_empty();
            let end = last && matches!(self.then, Then::End);
            if last {
                self.queued = None;
            }
            if end {
                self.then = Then::Done;
            }
            self.stream.send_data(part, end)?;
        }
        self.end_if_empty()?;
        Poll::Ready(Ok(()))
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// `Ready` when the peer has reset the stream.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }
}

/// The receiving half of a stream, of either side.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: RecvStream,
    state: Receiving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Data,
    Trailers,
    Done,
}

impl Receiver {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let state = if stream.is_end_stream() {
            Receiving::Done
        } else {
            Receiving::Data
        };
        Self { stream, state }
    }

    /// Whether the end has arrived and nothing waits before it: the next piece is the end, which needs no room, so that
    /// the last DATA frame can carry `END_STREAM` on.
    pub(crate) fn is_at_end(&self) -> bool {
        match self.state {
            Receiving::Data => self.stream.is_end_stream(),
            Receiving::Trailers | Receiving::Done => false,
        }
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, h2::Error>> {
        loop {
            match self.state {
                Receiving::Data => match ready!(self.stream.poll_data(cx)) {
                    Some(bytes) => {
                        let bytes = bytes?;
                        // It is pulled only when the other side has room: handing it on gives the window back.
                        self.stream.flow_control().release_capacity(bytes.len())?;
                        if !bytes.is_empty() {
                            return Poll::Ready(Ok(Piece::Data(bytes)));
                        }
                    }
                    None => self.state = Receiving::Trailers,
                },
                Receiving::Trailers => {
                    let trailers = ready!(self.stream.poll_trailers(cx))?;
                    self.state = Receiving::Done;
                    if let Some(fields) = trailers.and_then(|map| convert::fields_from(map).ok()) {
                        return Poll::Ready(Ok(Piece::Trailers(fields)));
                    }
                }
                Receiving::Done => return Poll::Ready(Ok(Piece::End)),
            }
        }
    }
}

/// One stream of a client.
#[derive(Debug)]
pub(crate) struct ServerStream {
    receiver: Receiver,
    respond: SendResponse<Bytes>,
    sender: Option<Sender>,
    /// The head and `END_STREAM` have gone out together.
    ended: bool,
    is_head: bool,
}

impl ServerStream {
    pub(crate) fn new(body: RecvStream, respond: SendResponse<Bytes>, is_head: bool) -> Self {
        Self {
            receiver: Receiver::new(body),
            respond,
            sender: None,
            ended: false,
            is_head,
        }
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, DownstreamError>> {
        self.receiver.poll_piece(cx).map_err(|error| {
            if error.is_library() {
                DownstreamError::Malformed(400)
            } else {
                DownstreamError::Gone
            }
        })
    }

    /// Whether the next piece is known to be the end.
    pub(crate) fn is_at_end(&self) -> bool {
        self.receiver.is_at_end()
    }

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sender {
            Some(sender) => sender.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    pub(crate) fn push_head(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
    ) -> Result<(), DownstreamError> {
        let response = convert::response_to_h2(head).map_err(|_| DownstreamError::Malformed(502))?;
        let end = length == BodyLength::Empty || self.is_head || matches!(head.status, 204 | 304);
        let stream = self
            .respond
            .send_response(response, end)
            .map_err(|_| DownstreamError::Gone)?;
        self.ended = end;
        self.sender = Some(Sender::new(stream, length, head.version));
        Ok(())
    }

    pub(crate) fn push_informational(&mut self, head: &ResponseHead) -> Result<(), DownstreamError> {
        // An interim response that can't be carried over is left out.
        let Ok(response) = convert::response_to_h2(head) else {
            return Ok(());
        };
        self.respond
            .send_informational(response)
            .map_err(|_| DownstreamError::Gone)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.ended || self.sender.as_ref().is_none_or(Sender::has_room)
    }

    pub(crate) fn push(&mut self, piece: Piece) -> Result<(), DownstreamError> {
        match &mut self.sender {
            Some(sender) if !self.ended => sender.push(piece).map_err(|_| DownstreamError::Gone),
            _ => Ok(()),
        }
    }

    pub(crate) fn push_trailers(&mut self, fields: &Fields) -> Result<(), DownstreamError> {
        match &mut self.sender {
            Some(sender) if !self.ended => sender.push_trailers(fields).map_err(|_| DownstreamError::Gone),
            _ => Ok(()),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DownstreamError>> {
        match &mut self.sender {
            Some(sender) if !self.ended => sender.poll_flush(cx).map_err(|_| DownstreamError::Gone),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Whether the response's head has gone out.
    pub(crate) const fn has_head(&self) -> bool {
        self.sender.is_some()
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        match &mut self.sender {
            Some(sender) => sender.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}
