//! Istio's standard metrics: who called whom, with what outcome, how long it took and how much was said.
//!
//! ```text
//!  a request ends ─► Key (numbers that its connection, host and cluster carry) ─► the worker's own Table ─► Counts
//!                                                                   first time: a new Counts, known to the Store
//!  a scrape      ─► Store: every worker's Counts, added up by labels ─► text
//! ```
//!
//! A request costs one look into the worker's table and eight additions: no lock, no allocation, no text. Labels are
//! written when somebody asks for them.
//!
//! The same counts, by the cluster that was called, are what [`EdgeLoads`] tells the control plane.
//!
//! What is told differs from Istio's proxy in two points: sizes are those of bodies (as Istio's reference says; its proxy adds
//! heads), and durations keep their microseconds in the sum.
//!
//! Bounds: [`SERIES_MAX`] series per worker; what finds no room is counted under `other`, and in [`Store::folded`].

mod key;
mod load;
mod text;

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rajut_ir::{listener::Direction, stats::IstioStats};
use rajut_telemetry::{
    load::{BOUNDS, BUCKETS},
    workload::Workload,
};
use rajut_types::tag::TagValue;

pub(crate) use self::{
    key::{Ends, Key, Protocol, SEPARATOR},
    load::EdgeLoads,
};
use super::texts::TextId;

/// Most series of one worker beside those that the rest is counted under. About 600 bytes each.
pub(crate) const SERIES_MAX: usize = 2000;
/// Configurations that series are told apart by; those that come later are taken for the last one.
const CONTEXTS_MAX: usize = 64;

/// Which end of a call reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// The client's.
    Source,
    /// The server's.
    Destination,
}

/// What all series of a connection manager or TCP proxy have in common.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Context {
    id: u32,
    pub(crate) reporter: Reporter,
    pub(crate) ir: IstioStats,
    /// What of a request some label asks for, beside the standard.
    pub(crate) attributes: Vec<TagValue>,
}

/// What a connection manager or TCP proxy counts by.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    pub(crate) context: Arc<Context>,
    store: Arc<Store>,
}

impl Meter {
    /// Whether this end is the client's.
    pub(crate) fn is_client(&self) -> bool {
        self.context.reporter == Reporter::Source
    }

    /// Who this proxy stands beside, for a peer to be told.
    pub(crate) fn header(&self) -> &Bytes {
        self.store
            .header
            .get_or_init(|| self.store.own().to_header().into())
    }

    /// A key of this meter.
    pub(crate) fn key(&self, protocol: Protocol) -> Key {
        Key::new(self.context.id, protocol)
    }
}

/// Buckets that each value falls into exactly one of, and the values' sum.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// Adds to a counter that only this worker writes.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

impl Histogram {
    /// `thousandths` says the bucket, `amount` goes into the sum.
    fn add(&self, thousandths: u64, amount: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < thousandths);
        add(&self.buckets[bucket], 1);
        add(&self.sum, amount);
    }
}

/// What was seen of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// From its head to the last byte of its answer.
    pub(crate) duration: Duration,
    /// Bytes of its body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// Messages of a gRPC call.
    pub(crate) messages_received: u64,
    /// Messages of a gRPC call's answer.
    pub(crate) messages_sent: u64,
}

/// The counters of one series of one worker.
#[derive(Debug)]
pub(crate) enum Counts {
    /// Of requests.
    Http(Box<HttpCounts>),
    /// Of connections.
    Tcp(TcpCounts),
}

/// How many requests there were is the sum of any histogram's buckets.
#[derive(Debug, Default)]
pub(crate) struct HttpCounts {
    /// Sum in microseconds.
    duration: Histogram,
    request: Histogram,
    response: Histogram,
    /// Of gRPC calls.
    request_messages: AtomicU64,
    /// Of gRPC calls.
    response_messages: AtomicU64,
}

/// Of opaque connections.
#[derive(Debug, Default)]
pub(crate) struct TcpCounts {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counts {
    fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp(TcpCounts::default()),
            Protocol::Http | Protocol::Grpc => Self::Http(Box::default()),
        }
    }

    fn request(&self, seen: Seen) {
        let Self::Http(counts) = self else { return };
        let micros = u64::try_from(seen.duration.as_micros()).unwrap_or(u64::MAX);
        counts.duration.add(micros, micros);
        counts
            .request
            .add(seen.received.saturating_mul(1000), seen.received);
        counts.response.add(seen.sent.saturating_mul(1000), seen.sent);
        if seen.messages_received > 0 {
            add(&counts.request_messages, seen.messages_received);
        }
        if seen.messages_sent > 0 {
            add(&counts.response_messages, seen.messages_sent);
        }
    }
}

/// The series of one worker, by key: ≤ [`SERIES_MAX`], and those that the rest is counted under. Never removed: a counter
/// that vanished would look like a restart.
#[derive(Debug, Default)]
pub(crate) struct Table(RefCell<HashMap<Key, Arc<Counts>, key::Hashing>>);

impl Table {
    /// Counts a request.
    pub(crate) fn request(&self, meter: &Meter, key: Key, seen: Seen) {
        self.with(meter, key, |counts| counts.request(seen));
    }

    /// The counters of a connection's key, which it keeps for its life.
    pub(crate) fn connection(&self, meter: &Meter, key: Key) -> Open {
        let counts = self.with(meter, key, Clone::clone);
        Open { counts }
    }

    fn with<T>(&self, meter: &Meter, key: Key, use_it: impl FnOnce(&Arc<Counts>) -> T) -> T {
        let mut table = self.0.borrow_mut();
        if let Some(counts) = table.get(&key) {
            if key.has_other() {
                meter.store.folded.fetch_add(1, Ordering::Relaxed);
            }
            return use_it(counts);
        }
        let full = table.len() >= SERIES_MAX;
        let key = if full { key.folded() } else { key };
        if full || key.has_other() {
            meter.store.folded.fetch_add(1, Ordering::Relaxed);
        }
        let counts = table
            .entry(key)
            .or_insert_with(|| meter.store.series(&meter.context, key));
        use_it(counts)
    }
}

/// An open connection in the books, until dropped.
#[derive(Debug)]
pub(crate) struct Open {
    counts: Arc<Counts>,
}

impl Open {
    /// Counts it as open.
    pub(crate) fn opened(&self) {
        if let Counts::Tcp(counts) = &*self.counts {
            add(&counts.opened, 1);
        }
    }

    /// Counts bytes that were passed on since the last call.
    pub(crate) fn passed(&self, received: u64, sent: u64) {
        if let Counts::Tcp(counts) = &*self.counts {
            add(&counts.received, received);
            add(&counts.sent, sent);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Counts::Tcp(counts) = &*self.counts {
            add(&counts.closed, 1);
        }
    }
}

/// A series as the scrape finds it.
#[derive(Debug)]
struct Series {
    context: Arc<Context>,
    key: Key,
    counts: Arc<Counts>,
}

/// The series of all workers. Locked when a worker meets a key for the first time, and when they are told.
#[derive(Debug, Default)]
pub(crate) struct Store {
    own: OnceLock<Workload>,
    header: OnceLock<Bytes>,
    contexts: Mutex<Vec<Arc<Context>>>,
    series: Mutex<Vec<Series>>,
    folded: AtomicU64,
}

impl Store {
    /// Says whom this proxy stands beside, once, before any configuration.
    pub(crate) fn set_own(&self, own: Workload) {
        // A second name would be a second process.
        let _ = self.own.set(own);
    }

    fn own(&self) -> Workload {
        self.own.get().cloned().unwrap_or_default()
    }

    /// Requests and connections that are counted under `other`.
    pub(crate) fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    /// What listeners of that direction count by.
    pub(crate) fn meter(self: &Arc<Self>, direction: Direction, ir: &IstioStats) -> Meter {
        let reporter = match direction {
            Direction::Inbound => Reporter::Destination,
            Direction::Outbound | Direction::Unspecified => Reporter::Source,
        };
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = contexts
            .iter()
            .find(|known| known.reporter == reporter && known.ir == *ir);
        let context = if let Some(known) = known {
            known.clone()
        } else if contexts.len() < CONTEXTS_MAX {
            let context = Arc::new(Context {
                id: u32::try_from(contexts.len()).unwrap_or(u32::MAX),
                reporter,
                ir: ir.clone(),
                attributes: ir.attributes(),
            });
            contexts.push(context.clone());
            context
        } else {
            tracing::warn!(
                "too many changes of the metrics' configuration; restart the proxy to see the latest"
            );
            let last = contexts.iter().rev().find(|known| known.reporter == reporter);
            last.unwrap_or(&contexts[0]).clone()
        };
        drop(contexts);
        Meter {
            context,
            store: self.clone(),
        }
    }

    fn series(&self, context: &Arc<Context>, key: Key) -> Arc<Counts> {
        let counts = Arc::new(Counts::new(key.protocol));
        let series = Series {
            context: context.clone(),
            key,
            counts: counts.clone(),
        };
        self.series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(series);
        counts
    }
}
