//! An HTTP/2 connection of a client: its own deadlines, and a task for each of its streams.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use rajut_codec::{
    h1::BodyLength,
    h2::{Reason, Request as Received, Server},
};
use rajut_ir::http::HttpConnectionManager;
use tokio::{task::spawn_local, time::Instant};

use super::{DISCARD_MAX, LINGER, READY, serve_request};
use crate::{
    clock,
    http::{
        downstream::Downstream,
        h2::{self, Driver, Ended, KeepAlive},
        message::Request,
        record::Shared,
        timer::Timer,
    },
    stats::ManagerCounter,
    stream::Stream,
};

/// How long a client without open streams may take to say that it has heard of our leave.
const LEAVE: Duration = Duration::from_secs(5);

/// What ended the wait for a stream.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one match; a box would be an allocation per request"
)]
enum Waited {
    Stream(Received, h2::Stream<Server>),
    Ended(Ended),
    /// Idle, old, or the proxy drains.
    Leave,
    /// It did not begin, or end, in time.
    Overdue,
}

/// A connection between two streams.
struct Http2 {
    driver: Driver<Server>,
    pings: KeepAlive,
    timer: Timer,
    streams: Rc<Cell<u32>>,
    opened: Instant,
    idle_since: Instant,
    /// Since when it takes its leave.
    closing: Option<Instant>,
    /// What an idle connection does not need has been given back.
    rests: bool,
}

/// Serves the connection to its end; `first` has been read before.
pub(super) async fn serve_http2(shared: &Rc<Shared>, stream: Stream, first: BytesMut) {
    let ir = shared.manager.ir();
    let count = |counter| shared.manager.stats().add(shared.worker.index, counter);
    let head_bytes = usize::try_from(ir.max_request_headers_kb)
        .unwrap_or(60)
        .saturating_mul(1024);
    let opened = clock::now();
    let mut connection = Http2 {
        driver: Driver::new(stream, first, h2::config(&ir.http2, head_bytes)),
        pings: KeepAlive::new(ir.http2.keepalive),
        timer: Timer::default(),
        streams: Rc::default(),
        opened,
        idle_since: opened,
        closing: None,
        rests: false,
    };
    let mut drain = pin!(shared.worker.drain_started());
    loop {
        let waited = poll_fn(|cx| {
            if let Poll::Ready(waited) = connection.poll(cx, ir) {
                return Poll::Ready(waited);
            }
            if connection.closing.is_none() && drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Waited::Leave);
            }
            Poll::Pending
        })
        .await;
        match waited {
            Waited::Stream(request, stream) => {
                connection.streams.set(connection.streams.get() + 1);
                let active = ActiveStream(connection.streams.clone());
                // Boxed: a task moves its future about, when it is made and when it ends.
                spawn_local(Box::pin(serve_stream(shared.clone(), active, request, stream)));
                if connection.closing.is_none() && shared.is_retired() {
                    connection.leave();
                }
            }
            Waited::Leave => connection.leave(),
            Waited::Overdue => {
                if !connection.driver.link().is_settled() {
                    count(ManagerCounter::CxProtocolError);
                }
                connection.driver.abort(Reason::NO_ERROR);
                return close(connection.driver).await;
            }
            Waited::Ended(Ended::Closed) => {
                if !connection.driver.link().is_settled() {
                    count(ManagerCounter::CxProtocolError);
                }
                return;
            }
            Waited::Ended(Ended::Drained) => return close(connection.driver).await,
            Waited::Ended(Ended::Broken(error)) => {
                count(ManagerCounter::CxProtocolError);
                tracing::debug!(client = %shared.connection.remote, %error, "HTTP/2 connection refused");
                return close(connection.driver).await;
            }
        }
    }
}

impl Http2 {
    /// GOAWAY with the last stream; what is under way finishes.
    fn leave(&mut self) {
        self.closing = Some(Instant::now());
        self.driver.link().shutdown();
    }

    fn poll(&mut self, cx: &mut Context<'_>, ir: &HttpConnectionManager) -> Poll<Waited> {
        self.driver.note_time();
        match self.driver.poll_accept(cx) {
            Poll::Ready(Ok((request, stream))) => return Poll::Ready(Waited::Stream(request, stream)),
            Poll::Ready(Err(ended)) => return Poll::Ready(Waited::Ended(ended)),
            Poll::Pending => {}
        }
        if self.pings.poll(cx, self.driver.link()) {
            // As if the client had closed it: it does not answer.
            self.driver.give_up();
            return Poll::Ready(Waited::Ended(Ended::Closed));
        }
        self.poll_deadlines(cx, ir)
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>, ir: &HttpConnectionManager) -> Poll<Waited> {
        let is_idle = self.streams.get() == 0;
        if !is_idle {
            self.idle_since = clock::now();
            self.rests = false;
        }
        let last = if self.driver.link().is_settled() {
            self.closing.map(|since| since.max(self.idle_since) + LEAVE)
        } else {
            let limit = ir.request_headers_timeout.or(ir.idle_timeout);
            limit.map(|limit| self.opened + limit)
        };
        if last.is_some() || self.closing.is_some() {
            return if self.timer.poll(cx, last) {
                Poll::Ready(Waited::Overdue)
            } else {
                Poll::Pending
            };
        }
        let idle = ir.idle_timeout.map(|limit| self.idle_since + limit);
        let old = ir.max_connection_duration.map(|longest| self.opened + longest);
        let leave = idle.into_iter().chain(old).min();
        let rest = (is_idle && !self.rests).then(|| self.idle_since + READY);
        if !self.timer.poll(cx, leave.into_iter().chain(rest).min()) {
            return Poll::Pending;
        }
        if leave.is_some_and(|leave| leave <= Instant::now()) {
            return Poll::Ready(Waited::Leave);
        }
        self.driver.rest();
        self.rests = true;
        self.poll_deadlines(cx, ir)
    }
}

/// Writes what waits, says that nothing follows, and reads on for a moment: closing with unread bytes would reset the
/// connection and take our last frames with it.
async fn close(mut driver: Driver<Server>) {
    let close = async {
        if poll_fn(|cx| driver.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut most = DISCARD_MAX;
        poll_fn(|cx| driver.poll_discard(cx, &mut most)).await;
    };
    // A peer that neither reads nor closes is not waited for.
    let _ = tokio::time::timeout(LINGER, close).await;
}

/// Counts a stream as open until dropped.
struct ActiveStream(Rc<Cell<u32>>);

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The task of one stream.
fn serve_stream(
    shared: Rc<Shared>,
    active: ActiveStream,
    received: Received,
    stream: h2::Stream<Server>,
) -> impl Future<Output = ()> {
    let request = Request {
        head: received.head,
        // What a tunnel carries begins with the answer.
        body: match received.body {
            BodyLength::Tunnel => BodyLength::Empty,
            length => length,
        },
        expect_continue: received.expect_continue,
        upgrade: received.upgrade,
    };
    async move {
        let mut downstream = Downstream::H2(stream);
        let mut timer = shared.worker.timers.borrow();
        serve_request(&shared, &mut timer, &mut downstream, request).await;
        shared.worker.timers.give_back(timer);
        drop(downstream);
        drop(active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_stream_is_small() {
        // What a stream costs beside the bytes of its heads and of one piece of its body.
        let size = size(serve_stream);
        assert!(size <= 4096, "{size} bytes");
    }
}
