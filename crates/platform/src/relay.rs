//! Moving bytes between two connections until both have finished: the opaque branch of walk one, after policies and
//! the choice of an endpoint.
//!
//! [`relay`] joins two plain TCP connections. Small messages are copied through a buffer that all connections of a
//! worker share; when reads fill it, the direction changes to `splice(2)`, and the bytes go from socket to
//! socket inside the kernel. An idle connection holds neither buffer nor pipe.
//!
//! [`relay_streams`] joins anything else that reads and writes (TLS), with a buffer that grows with the traffic.
//!
//! ```text
//!            end of input              everything written, other side told
//!  moving ───────────────► draining ───────────────────────────────────────► finished   (each direction on its own)
//!    └── error, idle ──► both directions end, what is under way is lost
//! ```
//!
//! Half-closing is kept: when one side has finished sending, the other is told so and may go on sending. Bounds: per
//! blocked direction at most one pipe ([`PIPE_SIZE`]) or one buffer ([`MAX_BUFFER`]); per worker
//! [`CACHED_PIPES`] pipes are kept for reuse. Not here: TLS, policies, deadlines other than idleness.

mod copy;

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

pub use crate::system::relay::{CACHED_PIPES, PIPE_SIZE, relay};
pub use copy::{MAX_BUFFER, START_BUFFER, relay_streams};

/// How a relay behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayOptions {
    /// End when no byte has moved in either direction for this long (Envoy: `TcpProxy.idle_timeout`, one hour there).
    /// `None`: never. Needs a runtime with time.
    pub idle_timeout: Option<Duration>,
}

/// Bytes moved so far, to be read while the relay runs. They count when they have been written, not when read.
#[derive(Debug, Default)]
pub struct RelayProgress {
    /// From the first connection to the second.
    pub a_to_b: Cell<u64>,
    /// From the second connection to the first.
    pub b_to_a: Cell<u64>,
}

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first argument.
    A,
    /// The second argument.
    B,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides have finished sending, and everything was delivered to the kernel.
    Finished,
    /// Nothing moved for the idle timeout.
    Idle,
    /// A connection broke. The other should be closed with [`crate::socket::set_reset_on_close`], so that its peer does
    /// not mistake the end for an orderly one.
    Failed {
        /// Whose operation failed.
        side: Side,
        /// Whether it was reading from it, otherwise writing to it.
        reading: bool,
        /// What the kernel (or the TLS layer) said.
        error: io::Error,
    },
}

/// The result of a relay.
#[derive(Debug)]
pub struct RelayOutcome {
    /// Bytes from the first connection to the second.
    pub a_to_b: u64,
    /// Bytes from the second connection to the first.
    pub b_to_a: u64,
    /// How it ended.
    pub end: RelayEnd,
}

/// A connection broke: which, and whether while reading.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) side: Side,
    pub(crate) reading: bool,
    pub(crate) error: io::Error,
}

impl Broken {
    pub(crate) const fn reading(side: Side) -> impl FnOnce(io::Error) -> Self {
        move |error| Self {
            side,
            reading: true,
            error,
        }
    }

    pub(crate) const fn writing(side: Side) -> impl FnOnce(io::Error) -> Self {
        move |error| Self {
            side,
            reading: false,
            error,
        }
    }
}

/// When something last moved; only kept where a timeout asks for it.
pub(crate) struct Activity {
    timeout: Option<Duration>,
    last: Cell<Option<Instant>>,
}

impl Activity {
    pub(crate) fn new(options: RelayOptions) -> Self {
        let activity = Self {
            timeout: options.idle_timeout,
            last: Cell::new(None),
        };
        activity.note();
        activity
    }

    pub(crate) fn note(&self) {
        if self.timeout.is_some() {
            self.last.set(Some(Instant::now()));
        }
    }

    /// Ends when nothing was noted for the timeout.
    pub(crate) async fn idle(&self) {
        let (Some(timeout), Some(mut from)) = (self.timeout, self.last.get()) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep_until(from + timeout).await;
            match self.last.get() {
                Some(last) if last > from => from = last,
                _ => return,
            }
        }
    }
}

/// Adds what was written to a counter.
pub(crate) fn count(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get().saturating_add(bytes as u64));
}

pub(crate) fn outcome(progress: &RelayProgress, moved: Option<Result<(), Broken>>) -> RelayOutcome {
    RelayOutcome {
        a_to_b: progress.a_to_b.get(),
        b_to_a: progress.b_to_a.get(),
        end: match moved {
            None => RelayEnd::Idle,
            Some(Ok(())) => RelayEnd::Finished,
            Some(Err(Broken { side, reading, error })) => RelayEnd::Failed { side, reading, error },
        },
    }
}

#[cfg(test)]
pub(crate) mod tests;
