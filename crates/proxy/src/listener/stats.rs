//! Counters of one worker's listeners: written by that worker alone, summed over workers when scraped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rajut_identity::verify::PeerRefused;
use rajut_telemetry::names;
use rustls::CertificateError;

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
    /// Certificates of clients that were refused, by [`Refusal`].
    pub refused_certificates: [AtomicU64; Refusal::ALL.len()],
    /// Exchanges and connections that were open and ended because the rules changed.
    pub withdrawn: AtomicU64,
    /// Connections that sent nothing while they were waited for.
    pub detection_timeouts: AtomicU64,
    /// Bytes passed on from clients by TCP proxies.
    pub tcp_received_bytes: AtomicU64,
    /// Bytes passed back to clients by TCP proxies.
    pub tcp_sent_bytes: AtomicU64,
}

/// Why a client's certificate is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// None was shown.
    Absent,
    /// Revoked.
    Revoked,
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYetValid,
    /// It leads to none of the roots.
    UnknownIssuer,
    /// It is not for clients.
    Usage,
    /// Its name is none of those that are let in: another trust domain, another identity, no identity at all.
    Name,
    /// Anything else: not to be read, a bad signature, a chain that is too long.
    Other,
}

impl Refusal {
    /// In the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::Revoked,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownIssuer,
        Self::Usage,
        Self::Name,
        Self::Other,
    ];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Usage => "usage",
            Self::Name => "name",
            Self::Other => "other",
        }
    }

    /// Why a handshake failed, where it was for the client's certificate.
    pub fn of(error: &std::io::Error) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(match inner {
            rustls::Error::NoCertificatesPresented => Self::Absent,
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::Revoked => Self::Revoked,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                    Self::Usage
                }
                CertificateError::Other(other) if other.0.is::<PeerRefused>() => Self::Name,
                _ => Self::Other,
            },
            _ => return None,
        })
    }
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
    /// Counts a handshake that failed, and why where it was for the client's certificate.
    pub fn handshake_failed(&self, error: &std::io::Error) {
        add(&self.handshake_failures, 1);
        let Some(reason) = Refusal::of(error) else { return };
        let at = Refusal::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = at.and_then(|at| self.refused_certificates.get(at)) {
            add(counter, 1);
        }
    }

    /// The sums over all workers, for the scrape.
    pub fn rows(workers: &[Arc<Self>]) -> Vec<Row> {
        let sum = |counter: fn(&Self) -> &AtomicU64| -> u64 {
            workers
                .iter()
                .map(|worker| counter(worker).load(Ordering::Relaxed))
                .sum()
        };
        let refused = Refusal::ALL.iter().enumerate().map(|(at, reason)| {
            let count: u64 = workers
                .iter()
                .filter_map(|worker| worker.refused_certificates.get(at))
                .map(|counter| counter.load(Ordering::Relaxed))
                .sum();
            let labels = [(names::LABEL_REASON, reason.name().into())];
            Row::counter(names::LISTENER_REFUSED_CERTIFICATES, &labels, count)
        });
        let mut rows: Vec<Row> = refused.collect();
        rows.extend([
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
        ]);
        rows
    }
}
