//! The request's body on its way to an upstream, kept for another try while it is small.
//!
//! Bounds: [`REPLAY_MAX`] bytes are kept per request; beyond that the request can't be sent again.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rajut_codec::h1::BodyLength;

use super::{
    downstream::Downstream,
    grpc::Messages,
    message::{DownstreamError, Piece},
    retry::REPLAY_MAX,
};

/// The request's body.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one body")]
pub(crate) struct Source {
    kept: Vec<Piece>,
    pulled_bytes: u64,
    keeps: bool,
    /// The next kept piece to send.
    at: usize,
    pulled: bool,
    /// The end has been read.
    ended: bool,
    /// The end has been handed to the current try.
    pub(crate) sent: bool,
    /// Of a gRPC call.
    messages: Option<Messages>,
}

impl Source {
    pub(crate) fn new(length: BodyLength, is_grpc: bool) -> Self {
        let empty = length == BodyLength::Empty;
        Self {
            kept: Vec::new(),
            pulled_bytes: 0,
            keeps: true,
            at: 0,
            pulled: false,
            ended: empty,
            sent: empty,
            messages: is_grpc.then(Messages::default),
        }
    }

    /// Whether the whole body has been read.
    pub(crate) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether it can be sent from the start again.
    pub(crate) const fn can_replay(&self) -> bool {
        self.keeps || !self.pulled
    }

    /// Bytes that the client has sent so far, each counted once however often it is sent on.
    pub(crate) const fn received(&self) -> u64 {
        self.pulled_bytes
    }

    /// Messages of a gRPC call that the client has sent so far, each counted once.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.map_or(0, |messages| messages.count())
    }

    /// From the start, for another try.
    pub(crate) fn rewind(&mut self) {
        self.at = 0;
        self.sent = self.ended && self.kept.is_empty();
    }

    /// No further try will come.
    pub(crate) fn forget(&mut self) {
        self.keeps = false;
        if self.at >= self.kept.len() {
            self.kept = Vec::new();
            self.at = 0;
        }
    }

    /// What follows is a tunnel's direction.
    pub(crate) fn become_tunnel(&mut self) {
        *self = Self {
            ended: false,
            sent: false,
            keeps: false,
            pulled_bytes: self.pulled_bytes,
            ..Self::new(BodyLength::Tunnel, false)
        };
    }

    /// The whole body, where it has been kept.
    pub(crate) fn copy(&self) -> Option<Vec<Piece>> {
        (self.ended && (self.keeps || !self.pulled)).then(|| self.kept.clone())
    }

    /// Whether the next piece for the current try is the end, which needs no room on the other side.
    pub(crate) fn is_at_end(&self, downstream: &Downstream<'_>) -> bool {
        self.at >= self.kept.len() && (self.ended || downstream.is_at_end())
    }

    /// The start of what has been read ahead, and whether that is all of the body.
    pub(crate) fn start(&self, most: usize) -> (Bytes, bool) {
        let mut out = BytesMut::new();
        for piece in &self.kept {
            if let Piece::Data(bytes) = piece {
                let taken = bytes.len().min(most - out.len());
                out.extend_from_slice(&bytes[..taken]);
            }
        }
        let whole = self.ended && self.pulled_bytes <= most as u64;
        (out.freeze(), whole)
    }

    /// Reads on while nothing can be sent, until `most` bytes have come.
    pub(crate) fn poll_ahead(
        &mut self,
        downstream: &mut Downstream<'_>,
        cx: &mut Context<'_>,
        most: u64,
    ) -> Result<(), DownstreamError> {
        while !self.ended && self.pulled_bytes < most {
            let Poll::Ready(piece) = downstream.poll_piece(cx) else {
                break;
            };
            let piece = piece?;
            self.pulled = true;
            if let Piece::Data(bytes) = &piece {
                self.pulled_bytes += bytes.len() as u64;
                if let Some(messages) = &mut self.messages {
                    messages.pass(bytes);
                }
            }
            self.ended = matches!(piece, Piece::End);
            self.kept.push(piece);
        }
        Ok(())
    }

    /// The next piece for the current try.
    pub(crate) fn poll_next(
        &mut self,
        downstream: &mut Downstream<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Piece, DownstreamError>> {
        if let Some(piece) = self.kept.get(self.at) {
            self.at += 1;
            return Poll::Ready(Ok(piece.clone()));
        }
        if self.ended {
            return Poll::Ready(Ok(Piece::End));
        }
        let piece = ready!(downstream.poll_piece(cx))?;
        self.pulled = true;
        if let Piece::Data(bytes) = &piece {
            self.pulled_bytes += bytes.len() as u64;
            if let Some(messages) = &mut self.messages {
                messages.pass(bytes);
            }
        }
        if matches!(piece, Piece::End) {
            self.ended = true;
        }
        if self.keeps && self.pulled_bytes <= REPLAY_MAX as u64 {
            self.kept.push(piece.clone());
            self.at += 1;
        } else {
            self.keeps = false;
            self.kept = Vec::new();
            self.at = 0;
        }
        Poll::Ready(Ok(piece))
    }
}
