//! Step 7 of walk one: a cluster's hosts, limits, ejection and balancing.
//!
//! A [`Cluster`] is built once per change on the main thread and shared by all workers; what must be one per proxy
//! (breakers, outlier records, active requests of a host) is kept from one build to the next by address. What it does
//! not do: hold connections (`upstream/pool.rs`) or look names up (`cluster/dns.rs` does, and its answers come back
//! as a new assignment).

pub mod breaker;
pub mod demand;
pub mod dns;
pub mod health;
pub mod host;
pub mod outlier;
pub mod pick;
pub mod slot;
mod spread;
pub mod status;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rajut_ir::{
    cluster::{Cluster as ClusterIr, Discovery},
    endpoint::{Health, LoadAssignment},
};
use rajut_types::Text;

pub use breaker::Breakers;
pub use host::Host;
pub use pick::PickContext;
pub use slot::Slot;

use crate::{
    stats::{ClusterStats, PerWorker, Registry, Row, texts::TextId},
    tls::originate::Originator,
};

/// The TLS of a cluster, resolved against the secrets of one epoch.
#[derive(Debug, Clone, Default)]
pub struct Transports {
    /// For endpoints that no match claims; `None` is plaintext.
    pub default: Option<Arc<Originator>>,
    /// One per entry of the cluster's `tls_matches`, in order; `None` is plaintext.
    pub matches: Vec<Option<Arc<Originator>>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A running cluster, shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    /// Kept from one build to the next: what workers find their pools by.
    id: u64,
    ir: Arc<ClusterIr>,
    transports: Transports,
    priorities: Vec<pick::Priority>,
    hosts: Vec<Arc<Host>>,
    breakers: Arc<Breakers>,
    outlier: Arc<outlier::Ejections>,
    original: host::Originals,
    stats: Arc<ClusterStats>,
    /// The service that it stands for, as metrics name it.
    service: TextId,
    /// Its name, as metrics have it.
    name_id: TextId,
    /// One balancing cursor per worker.
    cursor: PerWorker<1>,
    /// Rises when pooled connections of the version before can't serve this one.
    pool_version: u64,
}

impl Cluster {
    /// A cluster with the endpoints of `assignment` (EDS, or DNS answers), or with those given in place. What
    /// outlives an update comes from `previous`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the assignment of this build is not used again"
    )]
    pub fn build(
        ir: Arc<ClusterIr>,
        assignment: Option<Arc<LoadAssignment>>,
        transports: Transports,
        registry: &Registry,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let empty;
        let assignment: &LoadAssignment = match (&ir.discovery, &assignment) {
            (_, Some(assignment)) => assignment,
            (Discovery::Static(assignment), None) => assignment,
            (
                Discovery::StrictDns(_)
                | Discovery::LogicalDns(_)
                | Discovery::Eds { .. }
                | Discovery::OriginalDst,
                None,
            ) => {
                empty = LoadAssignment {
                    cluster_name: ir.name.clone(),
                    localities: Vec::new(),
                    overprovisioning_percent: None,
                };
                &empty
            }
        };
        let hosts = host::collect(assignment, &ir, previous.map(|cluster| cluster.hosts.as_slice()));
        let outlier = previous.map_or_else(Arc::default, |cluster| cluster.outlier.clone());
        outlier.recount(&hosts, ir.outlier_detection.as_ref());
        health::recount(&outlier, &hosts, ir.health_check.as_ref());
        let breakers = previous.map_or_else(
            || Arc::new(Breakers::default()),
            |cluster| cluster.breakers.clone(),
        );
        breakers.set_limits(&ir.circuit_breakers);
        Arc::new(Self {
            id: previous.map_or_else(|| NEXT_ID.fetch_add(1, Ordering::Relaxed), |cluster| cluster.id),
            priorities: pick::priorities(&hosts, &ir, assignment),
            stats: previous.map_or_else(
                || Arc::new(ClusterStats::new(registry.workers())),
                |cluster| cluster.stats.clone(),
            ),
            cursor: PerWorker::new(registry.workers()),
            pool_version: previous.map_or(0, |before| {
                before.pool_version + u64::from(!before.pools_serve(&ir))
            }),
            service: service_id(&ir),
            name_id: TextId::of(&ir.name),
            original: previous.map_or_else(host::Originals::default, |cluster| cluster.original.clone()),
            hosts,
            breakers,
            outlier,
            transports,
            ir,
        })
    }

    /// Unique in the process; an update keeps it.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &Text {
        &self.ir.name
    }

    /// As configured.
    pub fn ir(&self) -> &Arc<ClusterIr> {
        &self.ir
    }

    /// Its hosts, whatever their health.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Its limits and what counts against them.
    pub fn breakers(&self) -> &Arc<Breakers> {
        &self.breakers
    }

    /// Its counters.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }

    /// The service that it stands for, as metrics name it: `host;name;namespace`, or not known.
    pub(crate) const fn service(&self) -> TextId {
        self.service
    }

    /// Its name, as metrics have it.
    pub(crate) const fn name_id(&self) -> TextId {
        self.name_id
    }

    /// Rises when pooled connections of the version before can't serve this one.
    pub const fn pool_version(&self) -> u64 {
        self.pool_version
    }

    /// The TLS towards a host; `None` is plaintext.
    pub fn originator(&self, host: &Host) -> Option<&Arc<Originator>> {
        match host.tls_match {
            Some(index) => self.transports.matches.get(index).and_then(Option::as_ref),
            None => self.transports.default.as_ref(),
        }
    }

    /// Whether a host still belongs to the cluster and may get new requests on open connections.
    pub fn keeps(&self, host: &Host) -> bool {
        !host.record.is_removed()
            && (!self.ir.close_connections_on_host_health_failure
                || (host.health() != Health::Unhealthy && !host.record.is_unwell()))
    }

    /// The rows of a scrape.
    pub fn rows(&self, out: &mut Vec<Row>) {
        let name = if self.ir.alt_stat_name.is_empty() {
            &self.ir.name
        } else {
            &self.ir.alt_stat_name
        };
        self.stats.rows(name, out);
        status::gauges(self, name, out);
    }

    /// Whether connections made for this cluster can serve `next`: the same TLS, protocol and source.
    fn pools_serve(&self, next: &ClusterIr) -> bool {
        let before = &self.ir;
        before.tls == next.tls
            && before.tls_matches == next.tls_matches
            && before.protocol == next.protocol
            && before.bind == next.bind
    }
}

/// Clusters of no service that metrics name. Source: Istio.
const NAMED_BY_THEMSELVES: [&str; 3] = [
    "PassthroughCluster",
    "BlackHoleCluster",
    "InboundPassthroughCluster",
];

fn service_id(ir: &ClusterIr) -> TextId {
    match &ir.service {
        Some(service) => TextId::of(&format!(
            "{};{};{}",
            service.host, service.name, service.namespace
        )),
        None if NAMED_BY_THEMSELVES.contains(&&*ir.name) => TextId::of(&format!(";{};", ir.name)),
        None => TextId::UNKNOWN,
    }
}

/// Name → cluster; the type of [`crate::epoch::Config::clusters`].
pub type Clusters = HashMap<Text, Arc<Slot>>;
