//! Counters of one worker's listeners: written by that worker alone, summed over workers when scraped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rajut_telemetry::names;

use crate::stats::Row;

/// Counters of one worker. Relaxed loads and stores suffice: there is one writer.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections that are open.
    pub active: AtomicU64,
    /// Connections that no filter chain took.
    pub no_filter_chain: AtomicU64,
    /// TLS handshakes that were finished.
    pub handshakes: AtomicU64,
    /// TLS handshakes that failed: no certificate, an unknown authority, no common parameters, or time.
    pub handshake_failures: AtomicU64,
    /// Exchanges and connections that were open and ended because the rules changed.
    pub withdrawn: AtomicU64,
    /// Connections that sent nothing while they were waited for.
    pub detection_timeouts: AtomicU64,
    /// Bytes passed on from clients by TCP proxies.
    pub tcp_received_bytes: AtomicU64,
    /// Bytes passed back to clients by TCP proxies.
    pub tcp_sent_bytes: AtomicU64,
}

/// Adds to a counter that only the calling worker writes.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

/// Subtracts from a gauge that only the calling worker writes.
pub fn sub(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_sub(amount),
        Ordering::Relaxed,
    );
}

impl ListenerCounters {
    /// The sums over all workers, for the scrape.
    pub fn rows(workers: &[Arc<Self>]) -> Vec<Row> {
        let sum = |counter: fn(&Self) -> &AtomicU64| -> u64 {
            workers
                .iter()
                .map(|worker| counter(worker).load(Ordering::Relaxed))
                .sum()
        };
        vec![
            Row::counter(names::LISTENER_CX_TOTAL, &[], sum(|of| &of.connections)),
            Row::gauge(names::LISTENER_CX_ACTIVE, &[], sum(|of| &of.active)),
            Row::counter(
                names::LISTENER_NO_FILTER_CHAIN,
                &[],
                sum(|of| &of.no_filter_chain),
            ),
            Row::counter(names::LISTENER_WITHDRAWN, &[], sum(|of| &of.withdrawn)),
            Row::counter(names::LISTENER_HANDSHAKES, &[], sum(|of| &of.handshakes)),
            Row::counter(
                names::LISTENER_HANDSHAKE_FAILURES,
                &[],
                sum(|of| &of.handshake_failures),
            ),
            Row::counter(
                names::LISTENER_DETECTION_TIMEOUTS,
                &[],
                sum(|of| &of.detection_timeouts),
            ),
            Row::counter(names::TCP_RX_BYTES, &[], sum(|of| &of.tcp_received_bytes)),
            Row::counter(names::TCP_TX_BYTES, &[], sum(|of| &of.tcp_sent_bytes)),
        ]
    }
}
