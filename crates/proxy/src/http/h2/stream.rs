//! One HTTP/2 stream as its task has it, of either side.
//!
//! A piece to be sent waits in `queued` until the windows take it, so that one piece per stream is the most that is held
//! here; received bytes give their window back when they are handed on. Whoever lets go of a stream resets what is left of it.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use rajut_codec::{
    Fields, RequestHead, ResponseHead, Scheme, Version,
    h1::BodyLength,
    h2::{Client, EncodeError, Reason, Request, Response, Server, StreamKey},
};

use super::link::{Driver, Ended, Link, Lost, Side};
use crate::http::message::{DownstreamError, Piece};

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream<R: Side> {
    link: Rc<Link<R>>,
    key: StreamKey,
    /// Where its entry is.
    at: usize,
    queued: Bytes,
    /// What follows the queued piece.
    then: Then,
    /// Bytes still to come where the length was announced: the last one carries `END_STREAM`.
    left: Option<u64>,
    /// A server's: its head has gone out.
    has_head: bool,
    /// A server's: the request was HEAD.
    is_head: bool,
}

#[derive(Debug)]
enum Then {
    More,
    End,
    Trailers(Box<Fields>),
    Done,
}

/// The announced length, where nothing can follow it. HTTP/1 has no trailers after a known length, so there the last piece
/// can carry `END_STREAM`.
fn left_of(length: BodyLength, from: Version) -> Option<u64> {
    match length {
        BodyLength::Exact(length) if from != Version::Http2 => Some(length),
        BodyLength::Exact(_) | BodyLength::Empty | BodyLength::Unknown | BodyLength::Tunnel => None,
    }
}

impl<R: Side> Stream<R> {
    /// Whether another piece may be pushed.
    pub(crate) const fn has_room(&self) -> bool {
        self.queued.is_empty()
    }

    /// Whether the end has been handed over.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.then, Then::Done)
    }

    /// Takes a piece; a queued one leaves with [`Stream::poll_flush`].
    pub(crate) fn push(&mut self, piece: Piece) -> Result<(), Lost> {
        if self.is_done() {
            return Ok(());
        }
        match piece {
            Piece::Data(bytes) => {
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(bytes.len() as u64);
                    if *left == 0 {
                        self.then = Then::End;
                    }
                }
                self.queued = bytes;
            }
            Piece::Trailers(fields) => return self.push_trailers(&fields),
            Piece::End => {
                if matches!(self.then, Then::More) {
                    self.then = Then::End;
                }
            }
        }
        if self.queued.is_empty() {
            self.send()
        } else {
            Ok(())
        }
    }

    pub(crate) fn push_trailers(&mut self, fields: &Fields) -> Result<(), Lost> {
        if self.is_done() {
            return Ok(());
        }
        if !self.queued.is_empty() {
            self.then = Then::Trailers(Box::new(fields.clone()));
            return Ok(());
        }
        self.then = Then::Done;
        self.with_machine(|machine, key, out| machine.encode_trailers(key, fields, out))
    }

    /// Lets the stream write, unless it has gone.
    fn with_machine<T>(
        &self,
        write: impl FnOnce(
            &mut rajut_codec::h2::Conn<R>,
            StreamKey,
            &mut rajut_codec::Output,
        ) -> Result<T, EncodeError>,
    ) -> Result<T, Lost> {
        let mut state = self.link.0.borrow_mut();
        if let Some(lost) = state.at(self.at).lost {
            return Err(lost);
        }
        let state = &mut *state;
        let written = write(&mut state.machine, self.key, &mut state.output).map_err(Lost::Unsendable)?;
        state.wake_driver();
        Ok(written)
    }

    /// Sends what waits as far as the windows and the output take it.
    fn send(&mut self) -> Result<(), Lost> {
        let end = matches!(self.then, Then::End);
        if !self.queued.is_empty() || end {
            let mut queued = std::mem::take(&mut self.queued);
            self.with_machine(|machine, key, out| machine.encode_data(key, &mut queued, end, out))?;
            self.queued = queued;
            if self.queued.is_empty() && end {
                self.then = Then::Done;
            }
        }
        if self.queued.is_empty() && matches!(self.then, Then::Trailers(_)) {
            let Then::Trailers(fields) = std::mem::replace(&mut self.then, Then::Done) else {
                return Ok(());
            };
            self.with_machine(|machine, key, out| machine.encode_trailers(key, &fields, out))?;
        }
        Ok(())
    }

    /// Hands the queued piece over as the windows allow.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.send()?;
        if self.queued.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.link.0.borrow_mut().at(self.at).register(cx);
        Poll::Pending
    }

    /// Whether the end has arrived and nothing waits before it: the next piece is the end, which needs no room, so that
    /// the last DATA frame can carry `END_STREAM` on.
    pub(crate) fn is_at_end(&self) -> bool {
        self.link.0.borrow_mut().at(self.at).is_at_end()
    }

    /// The next piece of the body.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Lost>> {
        let mut state = self.link.0.borrow_mut();
        let state = &mut *state;
        let entry = state.at(self.at);
        if let Some(bytes) = entry.take_piece() {
            // It is pulled only when the other side has room: handing it on gives the window back.
            state.release(self.key, bytes.len());
            return Poll::Ready(Ok(Piece::Data(bytes)));
        }
        if let Some(fields) = entry.take_trailers() {
            return Poll::Ready(Ok(Piece::Trailers(fields)));
        }
        if entry.is_ended() {
            return Poll::Ready(Ok(Piece::End));
        }
        if let Some(lost) = entry.lost {
            return Poll::Ready(Err(lost));
        }
        entry.register(cx);
        Poll::Pending
    }

    /// `Ready` when the peer has reset the stream, or the connection has ended.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let mut state = self.link.0.borrow_mut();
        let entry = state.at(self.at);
        if let Some(lost) = entry.lost {
            return Poll::Ready(lost);
        }
        entry.register(cx);
        Poll::Pending
    }

    /// Ends it at once, in both directions.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.then = Then::Done;
        self.queued = Bytes::new();
        let mut state = self.link.0.borrow_mut();
        let state = &mut *state;
        if state.at(self.at).lost.is_none() {
            state.machine.reset(self.key, reason, &mut state.output);
            state.at(self.at).lost = Some(Lost::Given);
            state.wake_driver();
        }
    }
}

impl<R: Side> Drop for Stream<R> {
    fn drop(&mut self) {
        // A task that is dropped with its runtime may be inside a borrow; then the connection goes too.
        let Ok(mut state) = self.link.0.try_borrow_mut() else {
            return;
        };
        let state = &mut *state;
        if state.at(self.at).lost.is_none() {
            // A response that is complete is not taken back (RFC 9113 §8.1).
            let reason = if self.has_head && self.is_done() {
                Reason::NO_ERROR
            } else {
                Reason::CANCEL
            };
            // Where it has ended in both directions there is nothing to reset.
            state.machine.reset(self.key, reason, &mut state.output);
        }
        state.remove(self.key, self.at);
        state.wake_driver();
    }
}

impl Driver<Server> {
    /// The next request, with its stream; resolves with an error when the connection has ended.
    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Request, Stream<Server>), Ended>> {
        self.poll_head(cx).map_ok(|(key, request, is_end)| {
            let stream = Stream {
                at: self.link.0.borrow_mut().add(key, is_end),
                link: self.link.clone(),
                key,
                queued: Bytes::new(),
                then: Then::More,
                left: None,
                has_head: false,
                is_head: request.head.method == rajut_codec::Method::Head,
            };
            (request, stream)
        })
    }
}

/// A client's loss, as the code that forwards has it.
impl From<Lost> for DownstreamError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Malformed(_) => Self::Malformed(400),
            // More or less came than was announced: the client must see a broken stream.
            Lost::Unsendable(_) => Self::Malformed(502),
            Lost::Reset(_) | Lost::Unseen | Lost::Closed | Lost::Given => Self::Gone,
        }
    }
}

impl Stream<Server> {
    pub(crate) fn push_head(&mut self, head: &ResponseHead, length: BodyLength) -> Result<(), Lost> {
        self.with_machine(|machine, key, out| machine.encode_head(key, head, length, out))?;
        self.has_head = true;
        let end = length == BodyLength::Empty || self.is_head || matches!(head.status, 204 | 304);
        self.then = if end { Then::Done } else { Then::More };
        self.left = left_of(length, head.version);
        Ok(())
    }

    pub(crate) fn push_informational(&mut self, head: &ResponseHead) -> Result<(), Lost> {
        match self.with_machine(|machine, key, out| machine.encode_informational(key, head, out)) {
            // An interim response that can't be carried over is left out.
            Err(Lost::Unsendable(_)) => Ok(()),
            sent => sent,
        }
    }

    /// Whether the response's head has gone out.
    pub(crate) const fn has_head(&self) -> bool {
        self.has_head
    }
}

impl Link<Client> {
    /// Opens a stream with a request's head. `scheme` is taken where the head has none.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) fn open(
        self: &Rc<Self>,
        head: &RequestHead,
        scheme: Scheme,
        length: BodyLength,
    ) -> Result<Stream<Client>, EncodeError> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        if state.is_ended() {
            return Err(EncodeError::NoStream);
        }
        let key = state.machine.open(head, scheme, length, &mut state.output)?;
        let at = state.add(key, false);
        state.wake_driver();
        Ok(Stream {
            link: self.clone(),
            key,
            at,
            queued: Bytes::new(),
            then: if length == BodyLength::Empty {
                Then::Done
            } else {
                Then::More
            },
            left: left_of(length, head.version),
            has_head: false,
            is_head: false,
        })
    }
}

impl Stream<Client> {
    /// The next head of the response, interim ones first.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Lost>> {
        let mut state = self.link.0.borrow_mut();
        let entry = state.at(self.at);
        if let Some(head) = entry.heads.pop() {
            return Poll::Ready(Ok(head));
        }
        if let Some(lost) = entry.lost {
            return Poll::Ready(Err(lost));
        }
        entry.register(cx);
        Poll::Pending
    }
}
