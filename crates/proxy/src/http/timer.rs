//! One timer per connection or stream, armed again only when it fires: a deadline that moves later with every request
//! costs a comparison, not a registration.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A lazily armed timer.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the registered timer fires.
    armed: Option<Instant>,
    /// Whom it wakes then.
    wakes: Option<Waker>,
}

impl Timer {
    /// Whether `deadline` has passed; otherwise the task is woken when it has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else { return false };
        loop {
            match (&mut self.sleep, self.armed) {
                (Some(_), Some(armed)) if armed <= deadline => {}
                (Some(sleep), _) => {
                    sleep.as_mut().reset(deadline);
                    self.wakes = None;
                    self.armed = Some(deadline);
                }
                (None, _) => {
                    self.sleep = Some(Box::pin(sleep_until(deadline)));
                    self.armed = Some(deadline);
                }
            }
            let sleep = self.sleep.as_mut().expect("set above");
            let is_registered = self
                .wakes
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_registered && !sleep.is_elapsed() {
                return false;
            }
            if sleep.as_mut().poll(cx) == Poll::Pending {
                self.wakes = Some(cx.waker().clone());
                return false;
            }
            self.armed = None;
            self.wakes = None;
            if Instant::now() >= deadline {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_later_deadline_keeps_the_registration_and_still_fires_in_time() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let first = start + Duration::from_millis(10);
        let second = start + Duration::from_millis(25);
        poll_fn(|cx| {
            assert!(!timer.poll(cx, Some(first)));
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| {
            if timer.poll(cx, Some(second)) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        assert!(start.elapsed() >= Duration::from_millis(25));
        let earlier = Instant::now() + Duration::from_millis(5);
        poll_fn(|cx| {
            if timer.poll(cx, Some(earlier)) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        assert!(Instant::now() >= earlier);
    }
}
