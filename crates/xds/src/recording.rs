//! Recorded requests on their way to the control plane, both ends, over the connection that the discovery stream has: our own
//! service, of which Envoy has none.
//!
//! ```text
//!  RecordSource ── report ──► [ RecordServer ─► RecordTaker ]
//!        ▲    ◄── what is wanted, and how many reports were taken ── says so at first and after each change
//! ```
//!
//! What a tuple holds is no affair of this crate. A report is sent again over the next stream until it is known to be taken: one that
//! was taken by a control plane that ended before it said so comes twice (tuples have numbers). What is wanted stays wanted while the
//! control plane is away.
//!
//! Bounds: one report under way, of at most [`TUPLES_MAX`] tuples and [`REPORT_BYTES_MAX`] bytes; [`WANTED_MAX`] expressions and
//! headers are taken of what is wanted.

mod client;
mod server;

#[cfg(test)]
mod tests;

use std::fmt;

use tokio::sync::watch;
use tonic::{Extensions, Status};

pub(crate) use client::{Recorder, record};
pub use server::RecordServer;

use crate::message::Node;

/// Most tuples of one report.
pub const TUPLES_MAX: usize = 16_384;
/// Largest report, bytes.
pub const REPORT_BYTES_MAX: usize = 4 << 20;
/// Most expressions, and most headers, that may be wanted.
pub const WANTED_MAX: usize = 16;

/// What the control plane wants to have recorded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Requests that a policy refuses.
    pub refused: bool,
    /// How many of a million others.
    pub share: u32,
    /// Of the digests. Secret.
    pub key: Vec<u8>,
    /// Regular expressions of segments of paths that are identifiers.
    pub identifiers: Vec<String>,
    /// Headers whose digest is recorded, lower case.
    pub headers: Vec<String>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("refused", &self.refused)
            .field("share", &self.share)
            .field("identifiers", &self.identifiers)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// What was recorded since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Encoded.
    pub tuples: Vec<Vec<u8>>,
    /// Requests that found no room.
    pub dropped: u64,
}

impl Batch {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.tuples.is_empty() && self.dropped == 0
    }
}

/// Where recorded requests come from.
pub trait RecordSource: Send + 'static {
    /// From now on this is wanted.
    fn want(&mut self, wanted: &Wanted);

    /// What was recorded since the last call, at most a report's worth. It is not asked again for what it has given.
    fn collect(&mut self) -> Batch;
}

/// Takes recorded requests.
pub trait RecordSink: Send + Sync + 'static {
    /// A stream's first message has come: what is wanted of this proxy, and who takes it. `extensions` hold what the acceptor knows of
    /// the connection (the peer's identity). An error ends the stream with that status.
    fn open(
        &self,
        extensions: &Extensions,
        node: &Node,
    ) -> Result<(watch::Receiver<Wanted>, Box<dyn RecordTaker>), Status>;
}

/// Takes the reports of one proxy, until dropped.
pub trait RecordTaker: Send {
    /// Takes a report, without waiting.
    fn take(&mut self, batch: Batch);
}
