//! A request that waits between two filters: because a fault says so, for the answer of who is asked about it, or for its own body that
//! is to be shown.
//!
//! Nothing is held meanwhile but the request itself: no place in a pool, no breaker's permit. The client's body is read
//! ahead as far as it may be kept ([`super::retry::REPLAY_MAX`]), so that a client that goes away is seen and ends the
//! wait. The deadlines of the whole stream go on; the route's timeout begins when the wait is over, as in Envoy. A
//! drain waits for it as for any request under way.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    deadline::Deadlines, downstream::Downstream, forward, retry::REPLAY_MAX, source::Source, timer::Timer,
};
use crate::failure::{Failure, FailureKind};

/// What is watched while a request waits.
pub(crate) struct Waiting<'w, 'c> {
    pub(crate) downstream: &'w mut Downstream<'c>,
    pub(crate) timer: &'w mut Timer,
    pub(crate) source: &'w mut Source,
    pub(crate) deadlines: Deadlines,
}

impl Waiting<'_, '_> {
    /// Waits; `Err` where the request ends before.
    pub(crate) async fn pause(&mut self, pause: Duration) -> Result<(), Failure> {
        let until = Instant::now() + pause;
        let mut pause = Timer::default();
        poll_fn(|cx| {
            if pause.poll(cx, Some(until)) {
                return Poll::Ready(Ok(()));
            }
            self.watch(cx, REPLAY_MAX as u64)?;
            Poll::Pending
        })
        .await
    }

    /// Waits for what `work` comes to; `Err` where the request ends before.
    pub(crate) async fn work<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.watch(cx, REPLAY_MAX as u64)?;
            Poll::Pending
        })
        .await
    }

    /// Waits until the body is there, or more than `most` bytes of it; `Err` where the request ends before.
    pub(crate) async fn gather(&mut self, most: u64) -> Result<(), Failure> {
        poll_fn(|cx| {
            self.watch(cx, most + 1)?;
            if self.source.is_ended() || self.source.received() > most {
                return Poll::Ready(Ok(()));
            }
            // What was asked of the client (to go on) must reach it.
            let _ = self
                .downstream
                .poll_flush(cx)
                .map_err(forward::downstream_failure)?;
            Poll::Pending
        })
        .await
    }

    /// Reads the client's body ahead, and sees whether it goes or runs out of time.
    fn watch(&mut self, cx: &mut Context<'_>, most: u64) -> Result<(), Failure> {
        let before = self.source.received();
        self.source
            .poll_ahead(self.downstream, cx, most)
            .map_err(forward::downstream_failure)?;
        if self.source.received() > before {
            self.deadlines.touch(Instant::now());
        }
        if self.source.is_ended() {
            self.deadlines.request_ended(Instant::now());
            match self.downstream.poll_gone(cx) {
                Poll::Ready(true) => return Err(FailureKind::DownstreamGone.into()),
                Poll::Ready(false) => self.deadlines.half_closed(),
                Poll::Pending => {}
            }
        }
        if self.timer.poll(cx, self.deadlines.next())
            && let Some(kind) = self.deadlines.expired(Instant::now())
        {
            return Err(kind.into());
        }
        Ok(())
    }
}
