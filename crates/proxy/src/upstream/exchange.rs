//! Step 9 of walk one: one request on one upstream connection, over either version.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use rajut_codec::{
    Known, RequestHead, ResponseHead, Scheme,
    h1::{BodyEvent, BodyLength, DecodeError},
    h2::{Client, EncodeError, Reason},
};

use super::pool::{H1Connection, H2Lease};
use crate::{
    failure::{Failure, FailureKind},
    http::{
        h2::{Lost, Stream},
        message::Piece,
    },
    stats::istio::Ends,
};

/// How long the settings of a new HTTP/2 connection are waited for, before an upgrade.
const SETTINGS_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// A response's head: one of several interim ones, or the final one with what body follows.
#[derive(Debug)]
pub(crate) enum Head {
    Informational(ResponseHead),
    Final(ResponseHead, BodyLength),
}

/// The upstream's side of one exchange.
#[derive(Debug)]
pub(crate) enum Upstream {
    H1(H1Exchange),
    H2(Box<H2Exchange>),
}

impl Upstream {
    /// Writes the request's head.
    pub(crate) fn push_head(&mut self, head: &RequestHead, length: BodyLength) -> Result<(), Failure> {
        match self {
            Self::H1(exchange) => exchange.push_head(head, length),
            Self::H2(exchange) => exchange.push_head(head, length),
        }
    }

    /// Before an upgrade over HTTP/2: waits for the setting that allows it, which a new connection does not know yet.
    pub(crate) async fn wait_for_upgrades(&self) {
        let Self::H2(exchange) = self else { return };
        let link = exchange.lease.link();
        let settled = poll_fn(|cx| link.poll_settled(cx));
        // A server that says nothing takes none.
        let _ = tokio::time::timeout(SETTINGS_WAIT, settled).await;
    }

    /// Whether more of the request may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.connection.transport.has_room(),
            Self::H2(exchange) => exchange.stream.as_ref().is_none_or(Stream::has_room),
        }
    }

    /// Whether something that was pushed waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::H1(exchange) => !exchange.connection.transport.output.is_empty(),
            Self::H2(exchange) => exchange.stream.as_ref().is_some_and(|stream| !stream.has_room()),
        }
    }

    pub(crate) fn push(&mut self, piece: Piece) -> Result<(), Failure> {
        match self {
            Self::H1(exchange) => {
                let connection = &mut *exchange.connection;
                let out = &mut connection.transport.output;
                let pushed = match piece {
                    Piece::Data(bytes) => connection.machine.encode_data(bytes, out),
                    Piece::Trailers(fields) => connection.machine.encode_end(Some(&fields), out).map(drop),
                    Piece::End => connection.machine.encode_end(None, out).map(drop),
                };
                pushed.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
            }
            Self::H2(exchange) => match &mut exchange.stream {
                Some(stream) => stream.push(piece).map_err(failure_of_h2),
                None => Ok(()),
            },
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(exchange) => exchange.poll_flush(cx),
            Self::H2(exchange) => match &mut exchange.stream {
                Some(stream) => stream.poll_flush(cx).map_err(failure_of_h2),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// The response's head, interim ones first.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        match self {
            Self::H1(exchange) => exchange.poll_head(cx),
            Self::H2(exchange) => exchange.poll_head(cx),
        }
    }

    /// The next piece of the response's body (or of the tunnel).
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        match self {
            Self::H1(exchange) => exchange.poll_piece(cx),
            Self::H2(exchange) => match &mut exchange.stream {
                Some(stream) => stream.poll_piece(cx).map_err(failure_of_h2),
                None => Poll::Ready(Ok(Piece::End)),
            },
        }
    }

    /// Whether the next piece is known to be the end, which needs no room on the other side.
    pub(crate) fn is_at_end(&self) -> bool {
        match self {
            Self::H1(_) => false,
            Self::H2(exchange) => exchange.stream.as_ref().is_some_and(Stream::is_at_end),
        }
    }

    /// Shuts down the sending half of a tunnel.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(exchange) => exchange
                .connection
                .transport
                .poll_shutdown(cx)
                .map_err(|error| exchange.broken(&error)),
            Self::H2(_) => self.poll_flush(cx),
        }
    }

    /// Whether the server can't have seen the request: no byte of it was written.
    pub(crate) fn nothing_sent(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.connection.transport.written == exchange.written_before,
            Self::H2(_) => false,
        }
    }

    /// Whether it is sent on a connection that carried others before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.reused,
            Self::H2(exchange) => exchange.lease.is_reused(),
        }
    }

    /// Whether the server closed the connection before the request reached it: its close was received and not a byte
    /// of the request was acknowledged. A close acknowledges everything that arrived before it.
    pub(crate) fn closed_before_request(&self, failure: &Failure) -> bool {
        let Self::H1(exchange) = self else { return false };
        let saw_close = exchange.connection.transport.is_finished() || exchange.broken_pipe;
        if failure.kind != FailureKind::UpstreamClosed || !saw_close {
            return false;
        }
        let written = exchange.connection.transport.written - exchange.written_before;
        exchange
            .connection
            .transport
            .stream()
            .socket()
            .and_then(|socket| rajut_platform::socket::unacknowledged(socket).ok())
            // The handshake may count as a byte.
            .is_some_and(|unacknowledged| unacknowledged + 2 >= written)
    }

    /// The connection's own address.
    pub(crate) fn local_address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::H1(exchange) => exchange.connection.local_address(),
            Self::H2(exchange) => exchange.lease.local_address(),
        }
    }

    /// Who the two ends of its connection have proven to be.
    pub(crate) fn ends(&self) -> Ends {
        match self {
            Self::H1(exchange) => exchange.connection.ends(),
            Self::H2(exchange) => exchange.lease.ends(),
        }
    }

    /// Whether an answer has come over its connection, to this request or to one before.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.connection.answered,
            Self::H2(exchange) => exchange.lease.is_answered(),
        }
    }

    /// Ends the exchange: the connection goes back to its pool where that is safe. What is unfinished is cancelled.
    pub(crate) fn finish(self) {
        match self {
            Self::H1(exchange) => exchange.connection.release(),
            Self::H2(mut exchange) => {
                if let Some(stream) = &mut exchange.stream
                    && !stream.is_done()
                {
                    stream.reset(Reason::NO_ERROR);
                }
            }
        }
    }
}

/// One request on an HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct H1Exchange {
    pub(crate) connection: Box<H1Connection>,
    written_before: u64,
    reused: bool,
    broken_pipe: bool,
}

impl H1Exchange {
    pub(crate) fn new(connection: Box<H1Connection>) -> Self {
        Self {
            written_before: connection.transport.written,
            reused: connection.requests > 0,
            broken_pipe: false,
            connection,
        }
    }

    fn push_head(&mut self, head: &RequestHead, length: BodyLength) -> Result<(), Failure> {
        let connection = &mut *self.connection;
        if connection.is_last() {
            connection.machine.close_after();
        }
        connection.requests = connection.requests.saturating_add(1);
        connection
            .machine
            .encode_head(head, length, &mut connection.transport.output)
            .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.connection
            .transport
            .poll_flush(cx)
            .map_err(|error| self.broken(&error))
    }

    fn broken(&mut self, error: &io::Error) -> Failure {
        self.broken_pipe |= matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
        );
        let kind = match error.kind() {
            io::ErrorKind::InvalidData => FailureKind::UpstreamProtocol,
            _ => FailureKind::UpstreamClosed,
        };
        kind.into()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        loop {
            let connection = &mut *self.connection;
            match connection.machine.decode_head(&mut connection.transport.read) {
                Ok(Some(response)) if response.head.is_informational() => {
                    return Poll::Ready(Ok(Head::Informational(response.head)));
                }
                Ok(Some(response)) => {
                    connection.answered = true;
                    connection.note_keep_alive(&response.head);
                    return Poll::Ready(Ok(Head::Final(response.head, response.body)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(failure_of_h1(error))),
            }
            match ready!(connection.transport.poll_read(cx)) {
                Ok(0) => {
                    let partial = !connection.transport.read.is_empty();
                    let kind = if partial {
                        FailureKind::UpstreamProtocol
                    } else {
                        FailureKind::UpstreamClosed
                    };
                    return Poll::Ready(Err(kind.into()));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            }
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        loop {
            let connection = &mut *self.connection;
            match connection.machine.decode_body(&mut connection.transport.read) {
                Ok(BodyEvent::Data(bytes)) => return Poll::Ready(Ok(Piece::Data(bytes))),
                Ok(BodyEvent::Trailers(fields)) => return Poll::Ready(Ok(Piece::Trailers(fields))),
                Ok(BodyEvent::End) => return Poll::Ready(Ok(Piece::End)),
                Ok(BodyEvent::Pending) => {}
                Err(error) => return Poll::Ready(Err(failure_of_h1(error))),
            }
            match ready!(connection.transport.poll_read(cx)) {
                Ok(0) => {
                    if let Err(error) = connection.machine.decode_eof(&connection.transport.read) {
                        return Poll::Ready(Err(failure_of_h1(error)));
                    }
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            }
        }
    }
}

fn failure_of_h1(error: DecodeError) -> Failure {
    match error {
        DecodeError::Truncated => FailureKind::UpstreamClosed.into(),
        error => Failure::new(FailureKind::UpstreamProtocol, error.name()),
    }
}

/// What the loss of a stream means.
fn failure_of_h2(lost: Lost) -> Failure {
    match lost {
        Lost::Closed => FailureKind::UpstreamClosed.into(),
        // RFC 9113 §8.7: not processed.
        Lost::Reset(Reason::REFUSED_STREAM) => FailureKind::StreamRefused.into(),
        Lost::Unseen => FailureKind::StaleConnection.into(),
        Lost::Reset(reason) => Failure::new(FailureKind::UpstreamReset, reason.name()),
        Lost::Malformed(error) => Failure::new(FailureKind::UpstreamProtocol, error.name()),
        Lost::Unsendable(error) => Failure::new(FailureKind::Internal, error.to_string()),
        Lost::Given => FailureKind::Internal.into(),
    }
}

/// One stream of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct H2Exchange {
    // Before the lease, so that its place is free when that says so.
    stream: Option<Stream<Client>>,
    lease: H2Lease,
    scheme: Scheme,
    /// The request was an upgrade: a 2xx starts the tunnel.
    upgrade: bool,
}

impl H2Exchange {
    pub(crate) const fn new(lease: H2Lease, scheme: Scheme) -> Self {
        Self {
            stream: None,
            lease,
            scheme,
            upgrade: false,
        }
    }

    fn push_head(&mut self, head: &RequestHead, length: BodyLength) -> Result<(), Failure> {
        let is_upgrade = head.fields.contains(Known::Upgrade);
        self.upgrade = is_upgrade || head.method == rajut_codec::Method::Connect;
        if is_upgrade && !self.lease.link().takes_extended_connect() {
            return Err(Failure::new(
                FailureKind::UpgradeRefused,
                "the endpoint does not take extended CONNECT",
            ));
        }
        let length = if self.upgrade { BodyLength::Tunnel } else { length };
        let stream = self
            .lease
            .link()
            .open(head, self.scheme, length)
            .map_err(|error| match error {
                // Nothing has been sent: the connection is going away.
                EncodeError::NoStream => Failure::new(FailureKind::StaleConnection, error.to_string()),
                error => Failure::new(FailureKind::Internal, error.to_string()),
            })?;
        self.stream = Some(stream);
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(FailureKind::Internal.into()));
        };
        let mut response = ready!(stream.poll_head(cx)).map_err(failure_of_h2)?;
        if response.head.is_informational() {
            return Poll::Ready(Ok(Head::Informational(response.head)));
        }
        self.lease.note_answer();
        if self.upgrade && (200..=299).contains(&response.head.status) {
            response.body = BodyLength::Tunnel;
            // Length and coding mean nothing in a tunnel (RFC 9110 §9.3.6).
            response.head.fields.remove(Known::ContentLength);
        }
        Poll::Ready(Ok(Head::Final(response.head, response.body)))
    }
}
