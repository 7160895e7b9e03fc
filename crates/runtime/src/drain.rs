//! Drain: the owner says "no new work", the tasks finish what they hold, the owner waits for them with a deadline.
//!
//! ```text
//!  Trigger ──start()──► every Drain sees it          Drain ──hold()──► Held (one open piece of work)
//!     └────finish(deadline): until no Held is left, or the deadline
//! ```
//!
//! It closes nothing by itself; whoever waits on [`Drain::started`] decides what closing means.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The owner's end.
#[derive(Debug)]
pub struct Trigger {
    start: watch::Sender<bool>,
    held: mpsc::Receiver<std::convert::Infallible>,
    hold: Option<mpsc::Sender<std::convert::Infallible>>,
}

/// A task's end; cloned freely.
#[derive(Debug, Clone)]
pub struct Drain {
    start: watch::Receiver<bool>,
    hold: mpsc::WeakSender<std::convert::Infallible>,
}

/// One open piece of work: [`Trigger::finish`] waits until it is dropped.
#[derive(Debug, Clone)]
pub struct Held(
    #[expect(dead_code, reason = "held for its drop")] Option<mpsc::Sender<std::convert::Infallible>>,
);

/// A trigger and the first of its drains.
pub fn channel() -> (Trigger, Drain) {
    let (start, started) = watch::channel(false);
    let (hold, held) = mpsc::channel(1);
    let drain = Drain {
        start: started,
        hold: hold.downgrade(),
    };
    let hold = Some(hold);
    (Trigger { start, held, hold }, drain)
}

impl Trigger {
    /// Says "no new work". Idempotent.
    pub fn start(&self) {
        self.start.send_replace(true);
    }

    /// Starts the drain and waits until everything held is released or `deadline` has passed. True: all released.
    pub async fn finish(mut self, deadline: Duration) -> bool {
        self.start();
        self.hold = None;
        tokio::time::timeout(deadline, self.held.recv()).await.is_ok()
    }
}

impl Drain {
    /// Waits until the drain has started (or its owner is gone, which counts as started).
    pub async fn started(&self) {
        let mut start = self.start.clone();
        // The error means that the owner is gone: there is nobody left to work for.
        let _ = start.wait_for(|started| *started).await;
    }

    /// Whether the drain has started.
    pub fn is_started(&self) -> bool {
        *self.start.borrow()
    }

    /// Marks an open piece of work.
    pub fn hold(&self) -> Held {
        Held(self.hold.upgrade())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_what_is_held_and_no_longer_than_the_deadline() {
        let (trigger, drain) = channel();
        let held = drain.hold();
        assert!(!drain.is_started());
        let waiting = tokio::spawn(async move {
            drain.started().await;
            drop(held);
        });
        assert!(trigger.finish(Duration::from_secs(5)).await);
        waiting.await.expect("the task ends");

        let (trigger, drain) = channel();
        let _held = drain.hold();
        assert!(!trigger.finish(Duration::from_secs(5)).await);
        assert!(drain.is_started());
    }
}
