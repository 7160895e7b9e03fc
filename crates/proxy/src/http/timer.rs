//! One timer per connection or stream, armed again only when it fires: a deadline that moves later with every request
//! costs a comparison, not a registration. Streams, which are short, borrow theirs from their worker's [`Stock`], still
//! armed for the stream before.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Timers that a worker keeps for streams to come.
const STOCK_MAX: usize = 64;

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

    /// Lets go of the task that it would wake; `false` where it was never armed.
    fn forget_task(&mut self) -> bool {
        let Some(sleep) = &mut self.sleep else {
            return false;
        };
        self.wakes = None;
        if sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(()) {
            self.armed = None;
        }
        true
    }
}

/// Timers that were armed and belong to nobody now, at most [`STOCK_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Stock(RefCell<Vec<Timer>>);

impl Stock {
    /// A timer, armed or new.
    pub(crate) fn borrow(&self) -> Timer {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, mut timer: Timer) {
        if self.0.borrow().len() < STOCK_MAX && timer.forget_task() {
            self.0.borrow_mut().push(timer);
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

    #[tokio::test]
    async fn a_borrowed_timer_serves_the_next_and_keeps_no_task() {
        struct Woken;
        impl std::task::Wake for Woken {
            fn wake(self: std::sync::Arc<Self>) {}
        }
        let stock = Stock::default();
        stock.give_back(Timer::default());
        assert!(
            stock.0.borrow().is_empty(),
            "one that was never armed is not kept"
        );
        let mut timer = stock.borrow();
        let task = std::sync::Arc::new(Woken);
        let waker = Waker::from(task.clone());
        let later = Instant::now() + Duration::from_mins(1);
        assert!(!timer.poll(&mut Context::from_waker(&waker), Some(later)));
        drop(waker);
        assert!(std::sync::Arc::strong_count(&task) > 1);
        stock.give_back(timer);
        assert_eq!(std::sync::Arc::strong_count(&task), 1);
        let mut timer = stock.borrow();
        assert_eq!(timer.armed, Some(later));
        for after in [20, 5] {
            let deadline = Instant::now() + Duration::from_millis(after);
            poll_fn(|cx| {
                if timer.poll(cx, Some(deadline)) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            assert!(Instant::now() >= deadline);
        }
    }

    #[tokio::test]
    async fn the_stock_is_bounded() {
        let stock = Stock::default();
        let mut timers: Vec<_> = (0..=STOCK_MAX).map(|_| Timer::default()).collect();
        let later = Instant::now() + Duration::from_mins(1);
        for timer in &mut timers {
            assert!(!timer.poll(&mut Context::from_waker(Waker::noop()), Some(later)));
        }
        for timer in timers {
            stock.give_back(timer);
        }
        assert_eq!(stock.0.borrow().len(), STOCK_MAX);
    }
}
