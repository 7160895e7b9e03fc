//! Faults on purpose: requests that wait ([`super::Passed::Wait`]) and requests that are answered with an error.
//!
//! Drawn per request, the delay and the refusal apart from each other; a request that meets both waits first. What
//! happens while it waits is `http/pause.rs`'s. A refusal is made before the router: it is tried no second time.
//!
//! Bounds: [`ACTIVE_MAX`] requests per prefix of statistics have a fault at one time (Envoy: `max_active_faults`);
//! further ones have none and are counted.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rajut_ir::{
    decide::{Chosen, ChosenCluster, header_matches},
    fault::{AbortStatus, FaultInjection},
};

use super::drawn;
use crate::{
    failure::{Failure, FailureKind, Flags},
    http::{record::Record, view::View},
    stats::{LateStats, OnRouteCounter, OnRouteStats},
};

/// Requests that have a fault at one time, where the configuration names no bound.
pub(crate) const ACTIVE_MAX: u64 = 16_384;
/// By which a caller says on which node it runs (Envoy).
const NODE: &str = "x-envoy-downstream-service-node";

/// The filter of a chain, with its counters.
#[derive(Debug)]
pub(crate) struct Injector {
    ir: Arc<FaultInjection>,
    stats: LateStats,
}

impl Injector {
    pub(super) const fn new(ir: Arc<FaultInjection>, stats: LateStats) -> Self {
        Self { ir, stats }
    }

    /// What the listener's filter says.
    pub(super) const fn ir(&self) -> &Arc<FaultInjection> {
        &self.ir
    }

    /// What happens to a request by `ir`, which is this filter's or a route's: it waits so long, or is refused, or
    /// nothing. `waited`: it has waited here.
    pub(super) fn inject(
        &self,
        ir: &FaultInjection,
        record: &mut Record,
        chosen: Option<&Chosen<'_>>,
        waited: bool,
    ) -> Result<Option<Duration>, Failure> {
        if ir.is_nothing() || (!waited && !concerns(ir, record, chosen)) {
            return Ok(None);
        }
        let worker = record.shared.worker.index;
        if let Some(delay) = &ir.delay
            && !waited
            && drawn(delay.share, record)
            && self.begin(ir, record)
        {
            self.stats.get().add(worker, OnRouteCounter::DelaysInjected);
            record.flags = record.flags.with(Flags::DELAY_INJECTED);
            return Ok(Some(delay.fixed));
        }
        if let Some(abort) = &ir.abort
            && drawn(abort.share, record)
            && self.begin(ir, record)
        {
            self.stats.get().add(worker, OnRouteCounter::AbortsInjected);
            let (status, grpc) = match abort.status {
                AbortStatus::Http(status) => (status, None),
                AbortStatus::Grpc(status) => (200, Some(status)),
            };
            return Err(FailureKind::FaultInjected { status, grpc }.into());
        }
        Ok(None)
    }

    /// Counts the request among those that have a fault; `false` where there are too many. Not exact where workers
    /// meet, as in Envoy.
    fn begin(&self, ir: &FaultInjection, record: &mut Record) -> bool {
        if record.filters.fault.is_some() {
            return true;
        }
        let stats = self.stats.get();
        let most = ir.max_active.map_or(ACTIVE_MAX, u64::from);
        if stats.active_faults.load(Ordering::Relaxed) >= most {
            stats.add(record.shared.worker.index, OnRouteCounter::FaultsOverflow);
            return false;
        }
        stats.active_faults.fetch_add(1, Ordering::Relaxed);
        record.filters.fault = Some(Active(stats.clone()));
        true
    }
}

/// A request that has a fault, until its end.
#[derive(Debug)]
pub(crate) struct Active(Arc<OnRouteStats>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active_faults.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the request is one of those that the faults are for.
fn concerns(ir: &FaultInjection, record: &Record, chosen: Option<&Chosen<'_>>) -> bool {
    let fields = &record.head.fields;
    if !ir.upstream_cluster.is_empty() {
        let cluster = chosen.and_then(|chosen| match &chosen.cluster {
            ChosenCluster::Header(name) => fields.get(&***name),
            named => named.name().map(|name| name.as_bytes()),
        });
        if cluster != Some(ir.upstream_cluster.as_bytes()) {
            return false;
        }
    }
    if !ir.downstream_nodes.is_empty() {
        let node = fields.get(NODE);
        if !ir.downstream_nodes.iter().any(|it| Some(it.as_bytes()) == node) {
            return false;
        }
    }
    let view = View { record };
    ir.headers.iter().all(|header| header_matches(header, &view))
}
