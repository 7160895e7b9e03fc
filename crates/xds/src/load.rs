//! Envoy's Load Reporting Service, both ends: what a proxy counted on its edges since the last report, over the connection
//! that its discovery stream has.
//!
//! ```text
//!  LoadSource ─► Reporter ── report n ──► [ LoadServer ─► LoadReporter ]
//!                 keeps report n until  ◄── answer ── says so, and when the next is due
//! ```
//!
//! The service's answers are settings; our server answers every report, so that a client knows what has arrived (and so
//! that Envoy, which looks for new clusters only when it is answered, finds them). Our client sends a report again over
//! the next stream until it was answered, and gives reports numbers ([`ReportNumber`], in its node's metadata), by which
//! the server knows one that it has already: each is counted exactly once. Envoy has none of this: what is under way when
//! its stream breaks is lost.
//!
//! Bounds: one report under way; [`CLUSTERS_MAX`] clusters are taken of one, the rest is dropped and counted by the server.
//! It decides nothing about what is counted.

mod client;
mod server;
mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

use rajut_types::Text;
use serde_json::Value;
use tonic::{Extensions, Status};

pub(crate) use client::{Reporter, report};
pub use server::LoadServer;

use crate::message::Node;

/// Most clusters that are taken of one report.
pub const CLUSTERS_MAX: usize = 20_000;
/// Longest name of a cluster or metric that is taken, bytes.
pub const NAME_BYTES_MAX: usize = 512;
/// Most named metrics that are taken of one cluster.
pub const METRICS_MAX: usize = 64;
/// The member of a node's metadata in which our client numbers its reports.
pub const NUMBER_MEMBER: &str = "RAJUT_LOAD_REPORT";

/// What passed to one cluster since the last report. Source: Envoy `endpoint.v3.ClusterStats`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterLoad {
    /// The cluster.
    pub cluster: Text,
    /// Requests that were answered well.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests under way now.
    pub in_progress: u64,
    /// Named metrics: name, times measured, sum.
    pub metrics: Vec<(String, u64, f64)>,
}

/// Where a client's reports come from.
pub trait LoadSource: Send + 'static {
    /// What was counted since the last call. It is not asked again for what it has given.
    fn collect(&mut self) -> Vec<ClusterLoad>;
}

/// Which report this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportNumber {
    /// The process that counts: another one begins at 0.
    pub process: Text,
    /// Rises by one with each report.
    pub number: u64,
}

impl ReportNumber {
    /// The number of a stream's first report, where its client has numbers.
    pub fn of(node: &Node) -> Option<Self> {
        let text = node.metadata.get(NUMBER_MEMBER).and_then(Value::as_str)?;
        let (process, number) = text.split_once('/')?;
        Some(Self {
            process: process.into(),
            number: number.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        format!("{}/{}", self.process, self.number)
    }
}

/// Takes reports.
pub trait LoadSink: Send + Sync + 'static {
    /// A stream's first message has come. `extensions` hold what the acceptor knows of the connection (the peer's
    /// identity). An error ends the stream with that status.
    fn open(&self, extensions: &Extensions, node: &Node) -> Result<Box<dyn LoadReporter>, Status>;
}

/// One client that reports, until dropped.
pub trait LoadReporter: Send {
    /// Takes a report. `left_out`: clusters that were too many. Gives the time until the next one is due.
    fn report(&mut self, loads: Vec<ClusterLoad>, left_out: usize) -> Duration;

    /// Until the first report.
    fn first_due(&self) -> Duration;
}
