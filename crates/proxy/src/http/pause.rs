//! A request that waits between two filters because a fault says so.
//!
//! Nothing is held meanwhile but the request itself: no place in a pool, no breaker's permit. The client's body is read
//! ahead as far as it may be kept ([`super::retry::REPLAY_MAX`]), so that a client that goes away is seen and ends the
//! wait. The deadlines of the whole stream go on; the route's timeout begins when the wait is over, as in Envoy. A
//! drain waits for it as for any request under way.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{deadline::Deadlines, downstream::Downstream, forward, source::Source, timer::Timer};
use crate::failure::{Failure, FailureKind};

/// Waits; `Err` where the request ends before.
pub(crate) async fn wait(
    downstream: &mut Downstream<'_>,
    timer: &mut Timer,
    source: &mut Source,
    mut deadlines: Deadlines,
    pause: Duration,
) -> Result<(), Failure> {
    let until = Instant::now() + pause;
    let mut pause = Timer::default();
    poll_fn(|cx| {
        if pause.poll(cx, Some(until)) {
            return Poll::Ready(Ok(()));
        }
        source
            .poll_ahead(downstream, cx)
            .map_err(forward::downstream_failure)?;
        if source.is_ended() {
            deadlines.request_ended(Instant::now());
            match downstream.poll_gone(cx) {
                Poll::Ready(true) => return Poll::Ready(Err(FailureKind::DownstreamGone.into())),
                Poll::Ready(false) => deadlines.half_closed(),
                Poll::Pending => {}
            }
        }
        if timer.poll(cx, deadlines.next())
            && let Some(kind) = deadlines.expired(Instant::now())
        {
            return Poll::Ready(Err(kind.into()));
        }
        Poll::Pending
    })
    .await
}
