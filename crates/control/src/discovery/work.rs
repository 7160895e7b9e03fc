//! What pushing costs, counted: per change it is the same in a small mesh and in a large one, which is what the counters are for.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rajut_types::Text;
use rajut_xds::server::StreamStatus;

use crate::node::short_type;

/// Counters since the process's start.
#[derive(Debug, Default)]
pub struct Work {
    /// Snapshots that were pushed.
    pub rounds: AtomicU64,
    /// Snapshots that could not be pushed because of a fault of this program.
    pub failed: AtomicU64,
    /// Generator calls: pieces of resources that were made, not remembered.
    pub generated: AtomicU64,
    /// Resources that were encoded.
    pub encoded: AtomicU64,
    /// Their bytes.
    pub encoded_bytes: AtomicU64,
    /// Streams that were woken because something they subscribe to changed.
    pub woken: AtomicU64,
}

impl Work {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What was sent of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Responses.
    pub pushes: u64,
    /// Responses that were refused.
    pub rejects: u64,
    /// Resources in them.
    pub resources: u64,
    /// Bytes of those.
    pub bytes: u64,
}

pub(super) fn count(totals: &mut BTreeMap<Text, Totals>, status: &StreamStatus) {
    for (url, status) in &status.types {
        let total = totals.entry(short_type(url)).or_default();
        total.pushes += status.pushes;
        total.rejects += status.rejects;
        total.resources += status.sent_resources;
        total.bytes += status.sent_bytes;
    }
}
