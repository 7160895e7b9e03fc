//! The client's side of one exchange, over either version.

use std::task::{Context, Poll};

use rajut_codec::{
    Fields, ResponseHead,
    h1::BodyLength,
    h2::{Reason, Server},
};

use super::{
    h1, h2,
    message::{DownstreamError, Piece},
};

/// The client's side of one exchange.
#[derive(Debug)]
pub(crate) enum Downstream<'c> {
    /// An HTTP/1 connection, lent for the exchange.
    H1(&'c mut h1::Server),
    /// An HTTP/2 stream.
    H2(h2::Stream<Server>),
}

impl Downstream<'_> {
    /// The next piece of the request.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, DownstreamError>> {
        match self {
            Self::H1(server) => server.poll_piece(cx),
            Self::H2(stream) => stream.poll_piece(cx).map_err(DownstreamError::from),
        }
    }

    /// Whether the next piece is known to be the request's end, which needs no room on the other side.
    pub(crate) fn is_at_end(&self) -> bool {
        match self {
            Self::H1(_) => false,
            Self::H2(stream) => stream.is_at_end(),
        }
    }

    /// After the request's end: `Ready(true)` when the client is gone, `Ready(false)` when it has finished sending
    /// and may still listen.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::H1(server) => server.poll_gone(cx),
            Self::H2(stream) => stream.poll_lost(cx).map(|_| true),
        }
    }

    pub(crate) fn push_head(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
    ) -> Result<(), DownstreamError> {
        match self {
            // A head that can't be written is the upstream's fault.
            Self::H1(server) => server
                .push_head(head, length)
                .map_err(|_| DownstreamError::Malformed(502)),
            Self::H2(stream) => stream.push_head(head, length).map_err(DownstreamError::from),
        }
    }

    pub(crate) fn push_informational(&mut self, head: &ResponseHead) -> Result<(), DownstreamError> {
        match self {
            Self::H1(server) => server
                .push_informational(head)
                .map_err(|_| DownstreamError::Malformed(502)),
            Self::H2(stream) => stream.push_informational(head).map_err(DownstreamError::from),
        }
    }

    /// Whether more of the response may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::H1(server) => server.transport.has_room(),
            Self::H2(stream) => stream.has_room(),
        }
    }

    pub(crate) fn push(&mut self, piece: Piece) -> Result<(), DownstreamError> {
        match self {
            // The upstream sent more or less than it announced: the client must see a broken connection.
            Self::H1(server) => server.push(piece).map_err(|_| DownstreamError::Malformed(502)),
            Self::H2(stream) => stream.push(piece).map_err(DownstreamError::from),
        }
    }

    /// As [`Downstream::push`] with [`Piece::Trailers`], for who keeps them.
    pub(crate) fn push_trailers(&mut self, fields: &Fields) -> Result<(), DownstreamError> {
        match self {
            Self::H1(server) => server
                .push_trailers(fields)
                .map_err(|_| DownstreamError::Malformed(502)),
            Self::H2(stream) => stream.push_trailers(fields).map_err(DownstreamError::from),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DownstreamError>> {
        match self {
            Self::H1(server) => server.poll_flush(cx).map_err(|_| DownstreamError::Gone),
            Self::H2(stream) => stream.poll_flush(cx).map_err(DownstreamError::from),
        }
    }

    /// Cuts the exchange off: the client must not take what it got for complete.
    pub(crate) fn abort(&mut self) {
        match self {
            Self::H1(server) => {
                let until_close = server.machine.response_started() && server.machine.body_is_until_close();
                server.machine.close_after();
                // A missing last chunk or byte tells it; a body that lasts until the close needs a reset.
                if until_close && let Some(socket) = server.transport.stream().socket() {
                    // A socket that is gone already needs no reset.
                    drop(rajut_platform::socket::set_reset_on_close(socket));
                }
            }
            Self::H2(stream) => stream.reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Lets an HTTP/1 connection end after this exchange.
    pub(crate) fn close_after(&mut self) {
        if let Self::H1(server) = self {
            server.machine.close_after();
        }
    }

    /// Whether a response's head has gone out.
    pub(crate) fn response_started(&self) -> bool {
        match self {
            Self::H1(server) => server.machine.response_started(),
            Self::H2(stream) => stream.has_head(),
        }
    }
}
