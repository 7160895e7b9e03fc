//! Outlier detection: hosts that fail several times in a row leave for a while.
//!
//! Every worker reports to the host's one record, so five failures spread over four workers eject at five. The
//! decision is taken here alone, under a hard cap on the share of ejected hosts (Envoy 1.40: never rounded up). A
//! sweep ([`Ejections::sweep`], by worker 0) brings hosts back.
//!
//! ```text
//!  in service ──n failures in a row, cap allows──► ejected for base × ejections (≤ max) ──sweep──► in service
//! ```

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rajut_ir::cluster::OutlierDetection;
use tokio::time::Instant;

use super::{Cluster, Host};
use crate::{stats::ClusterCounter, worker::Worker};

/// Milliseconds since the first call in this process; never 0.
pub fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// What a request or connection told about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with that status.
    Status(u16),
    /// A connection was made (TCP: that is all there is to learn).
    Connected,
    /// Connect failure, reset or timeout.
    LocalFailure,
}

/// The hosts of a cluster that are out: ejected here, or found unwell by health checks ([`super::health`]).
#[derive(Debug, Default)]
pub struct Ejections {
    ejected: AtomicU32,
    unwell: AtomicU32,
    next_sweep: AtomicU64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Ejections {
    /// How many hosts are out.
    pub fn active(&self) -> u32 {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether every host is in service, as far as this proxy has found.
    pub(super) fn is_empty(&self) -> bool {
        self.ejected.load(Ordering::Relaxed) == 0 && self.unwell.load(Ordering::Relaxed) == 0
    }

    /// Counts the hosts anew whose health checks have failed.
    pub(super) fn recount_unwell(&self, hosts: &[Arc<Host>]) {
        let unwell = hosts.iter().filter(|host| host.record.is_unwell()).count();
        self.unwell
            .store(u32::try_from(unwell).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// After an update: ejected hosts that stay are counted; without outlier detection all come back.
    pub(super) fn recount(&self, hosts: &[Arc<Host>], settings: Option<&OutlierDetection>) {
        if settings.is_none() {
            for host in hosts {
                host.record.ejected_until.store(0, Ordering::Relaxed);
            }
        }
        let ejected = hosts.iter().filter(|host| host.record.is_ejected()).count();
        self.ejected
            .store(u32::try_from(ejected).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn eject(&self, host: &Host, total: usize, settings: &OutlierDetection) -> bool {
        let allowed = u64::from(settings.max_ejection_percent.millionths()) * total as u64 / 1_000_000;
        let took = self
            .ejected
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| {
                (u64::from(now) < allowed).then_some(now + 1)
            });
        if took.is_err() {
            return false;
        }
        let record = &host.record;
        let times = record.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let base = millis(settings.base_ejection_time);
        let most = millis(settings.max_ejection_time).max(base);
        let until = now_ms().saturating_add(base.saturating_mul(times.into()).min(most));
        if record
            .ejected_until
            .compare_exchange(0, until, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            // Another worker was faster.
            record.ejections.fetch_sub(1, Ordering::Relaxed);
            self.ejected.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        true
    }

    fn sweep(&self, hosts: &[Arc<Host>], now: u64) {
        for host in hosts {
            let record = &host.record;
            let until = record.ejected_until.load(Ordering::Relaxed);
            if until == 0 {
                // Each interval in service takes one ejection off the multiplier.
                let less = |times: u32| times.checked_sub(1);
                let _ = record
                    .ejections
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            } else if until <= now {
                for counter in [
                    &record.consecutive_5xx,
                    &record.consecutive_gateway,
                    &record.consecutive_local,
                ] {
                    counter.store(0, Ordering::Relaxed);
                }
                record.ejected_until.store(0, Ordering::Release);
                self.ejected.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// Counts on, or back to zero without dirtying the cache line of a healthy host.
fn count(counter: &AtomicU32, failed: bool) -> u32 {
    if failed {
        return counter.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    }
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
    0
}

impl Cluster {
    /// Tells outlier detection how a host did.
    pub fn report(&self, worker: usize, host: &Host, outcome: Outcome) {
        let Some(settings) = &self.ir.outlier_detection else {
            return;
        };
        let record = &host.record;
        let reached = |limit: Option<u32>, count: u32| limit.is_some_and(|limit| limit > 0 && count >= limit);
        let mut over = false;
        let status = match outcome {
            Outcome::Status(status) if settings.error_statuses.is_empty() => Some(status),
            // Source: Envoy: what the matcher takes is a 500, all else is well.
            Outcome::Status(status) if settings.error_statuses.contains(&status) => Some(500),
            Outcome::Status(_) => Some(200),
            Outcome::Connected => {
                count(&record.consecutive_local, false);
                None
            }
            Outcome::LocalFailure if settings.split_external_local_origin_errors => {
                let failures = count(&record.consecutive_local, true);
                over = reached(settings.consecutive_local_origin_failure, failures);
                None
            }
            Outcome::LocalFailure => Some(503),
        };
        if let Some(status) = status {
            let failures = count(&record.consecutive_5xx, status >= 500);
            let gateway = count(&record.consecutive_gateway, matches!(status, 502..=504));
            over = reached(settings.consecutive_5xx, failures)
                || reached(settings.consecutive_gateway_failure, gateway);
        }
        if over && !record.is_ejected() && self.outlier.eject(host, self.hosts.len(), settings) {
            self.stats.add(worker, ClusterCounter::Ejections);
            tracing::warn!(cluster = %self.name(), endpoint = %host.address, "endpoint ejected");
        }
    }

    /// How many hosts are ejected.
    pub fn ejected(&self) -> u32 {
        self.outlier.active()
    }

    /// Brings hosts back whose time is over, if the interval has passed. Returns when to come again, in ms of
    /// [`now_ms`]; `None` without outlier detection.
    pub fn sweep(&self, now: u64) -> Option<u64> {
        let settings = self.ir.outlier_detection.as_ref()?;
        let due = self.outlier.next_sweep.load(Ordering::Relaxed);
        if due > now {
            return Some(due);
        }
        if due != 0 {
            self.outlier.sweep(&self.hosts, now);
        }
        let next = now.saturating_add(millis(settings.interval).max(1));
        self.outlier.next_sweep.store(next, Ordering::Relaxed);
        Some(next)
    }
}

/// Longest pause between two looks at the clusters of the epoch.
const LOOK: Duration = Duration::from_secs(1);

/// Sweeps every cluster of the worker's epoch at its interval. Worker 0 runs it, for the whole proxy.
pub async fn sweep_forever(worker: std::rc::Rc<Worker>) {
    loop {
        let now = now_ms();
        let next = {
            let epoch = worker.epoch();
            epoch
                .config
                .clusters
                .values()
                .filter_map(|slot| slot.running()?.sweep(now))
                .min()
        };
        let pause = next.map_or(LOOK, |next| {
            Duration::from_millis(next.saturating_sub(now).max(1)).min(LOOK)
        });
        tokio::time::sleep(pause).await;
    }
}
