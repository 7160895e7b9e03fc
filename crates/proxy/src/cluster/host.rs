//! Hosts: the endpoints of a cluster with what is remembered of each.
//!
//! Bounds: original destinations that are remembered ≤ [`ORIGINALS_MAX`] per cluster.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use rajut_ir::{
    cluster::Cluster as ClusterIr,
    endpoint::{Endpoint, EndpointAddress, Health, LoadAssignment, LocalityEndpoints},
};
use rajut_types::{Labels, Locality, Text};

use crate::stats::texts::TextId;

/// Most original destinations that a cluster remembers; a full table is emptied.
pub const ORIGINALS_MAX: usize = 1024;

/// An endpoint of a running cluster.
#[derive(Debug)]
pub struct Host {
    /// Equal for two hosts that pooled connections can be shared between.
    pub id: u64,
    /// Where it listens.
    pub address: EndpointAddress,
    /// Its name, may be empty.
    pub hostname: Text,
    /// Where it runs.
    pub locality: Locality,
    /// 0 is tried first.
    pub priority: u32,
    /// Weight among its neighbours, at least 1.
    pub weight: u32,
    /// Share of load: `weight`, or its part of the locality's weight where localities share load by theirs.
    pub share: u32,
    /// The workload behind it, may be empty.
    pub workload: Text,
    /// The same for metrics.
    pub(crate) workload_id: TextId,
    /// Which entry of the cluster's `tls_matches` decides; `None`: the cluster's own TLS.
    pub tls_match: Option<usize>,
    /// Labels that chose it.
    pub tls_labels: Labels,
    /// What is remembered across updates.
    pub record: Arc<HostRecord>,
}

/// What is remembered of an address across updates: one per proxy, shared by all workers.
#[derive(Debug)]
#[repr(align(64))]
pub struct HostRecord {
    id: u64,
    health: AtomicU8,
    removed: AtomicBool,
    /// Out of service until the sweep after this time, ms of [`super::outlier::now_ms`]; 0 is in service.
    pub(super) ejected_until: AtomicU64,
    pub(super) ejections: AtomicU32,
    /// Its health checks have failed.
    unwell: AtomicBool,
    /// What the last of them said; read by people only.
    why_unwell: Mutex<Box<str>>,
    pub(super) consecutive_5xx: AtomicU32,
    pub(super) consecutive_gateway: AtomicU32,
    pub(super) consecutive_local: AtomicU32,
    requests_active: AtomicU32,
    requests: AtomicU64,
    errors: AtomicU64,
    timeouts: AtomicU64,
    connections: AtomicU64,
    connections_closed: AtomicU64,
    connect_failures: AtomicU64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl HostRecord {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            health: AtomicU8::new(0),
            removed: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            unwell: AtomicBool::new(false),
            why_unwell: Mutex::default(),
            consecutive_5xx: AtomicU32::new(0),
            consecutive_gateway: AtomicU32::new(0),
            consecutive_local: AtomicU32::new(0),
            requests_active: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_closed: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
        })
    }

    /// Whether outlier detection has taken it out.
    pub fn is_ejected(&self) -> bool {
        self.ejected_until.load(Ordering::Relaxed) != 0
    }

    /// Whether its health checks have failed.
    pub fn is_unwell(&self) -> bool {
        self.unwell.load(Ordering::Relaxed)
    }

    /// Whether this proxy has found that it gets no requests, by ejection or by health checks.
    pub(super) fn is_out(&self) -> bool {
        self.is_ejected() || self.is_unwell()
    }

    /// Says whether its health checks have failed, and what they said.
    pub(super) fn set_unwell(&self, why: Option<&str>) {
        *self.why_unwell.lock().unwrap_or_else(PoisonError::into_inner) = why.unwrap_or_default().into();
        self.unwell.store(why.is_some(), Ordering::Relaxed);
    }

    /// What the failed health check said; empty while it is well.
    pub fn why_unwell(&self) -> Box<str> {
        self.why_unwell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Of the proxy's memory of this address, whichever cluster's update it outlived.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether it left the cluster: idle connections are closed, busy ones finish.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    fn set_health(&self, health: Health) {
        let number = match health {
            Health::Unknown => 0,
            Health::Healthy => 1,
            Health::Unhealthy => 2,
            Health::Draining => 3,
            Health::Degraded => 4,
        };
        self.health.store(number, Ordering::Relaxed);
    }

    fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            3 => Health::Draining,
            _ => Health::Degraded,
        }
    }
}

/// The counts of a host for `/clusters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Envoy's names")]
pub struct HostCounts {
    pub rq_total: u64,
    pub rq_active: u64,
    pub rq_error: u64,
    pub rq_success: u64,
    pub rq_timeout: u64,
    pub cx_total: u64,
    pub cx_active: u64,
    pub cx_connect_fail: u64,
}

impl Host {
    /// Health as the control plane told.
    pub fn health(&self) -> Health {
        self.record.health()
    }

    /// Whether new requests may go there.
    pub fn is_usable(&self) -> bool {
        self.health().is_usable() && !self.record.is_out()
    }

    /// Requests in flight, of all workers.
    pub fn requests_active(&self) -> u32 {
        self.record.requests_active.load(Ordering::Relaxed)
    }

    /// Counts a request in flight until the guard is dropped.
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.record.requests_active.fetch_add(1, Ordering::Relaxed);
        self.record.requests.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(self.clone())
    }

    /// Counts an error (5xx answer or none); `timeout`: because nothing came.
    pub fn count_error(&self, timeout: bool) {
        self.record.errors.fetch_add(1, Ordering::Relaxed);
        if timeout {
            self.record.timeouts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection that was made.
    pub fn count_connected(&self) {
        self.record.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was closed.
    pub fn count_closed(&self) {
        self.record.connections_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that could not be made.
    pub fn count_connect_failure(&self) {
        self.record.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts of `/clusters`.
    pub fn counts(&self) -> HostCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let record = &self.record;
        let (rq_total, rq_error) = (load(&record.requests), load(&record.errors));
        let rq_active = u64::from(self.requests_active());
        HostCounts {
            rq_total,
            rq_active,
            rq_error,
            rq_success: rq_total.saturating_sub(rq_error + rq_active),
            rq_timeout: load(&record.timeouts),
            cx_total: load(&record.connections),
            cx_active: load(&record.connections).saturating_sub(load(&record.connections_closed)),
            cx_connect_fail: load(&record.connect_failures),
        }
    }
}

/// A request in flight towards a host.
#[derive(Debug)]
pub struct ActiveRequest(Arc<Host>);

impl ActiveRequest {
    /// The host.
    pub const fn host(&self) -> &Arc<Host> {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.record.requests_active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The hosts of an assignment; those that were there before keep their record, those that are gone are marked.
pub(super) fn collect(
    assignment: &LoadAssignment,
    ir: &ClusterIr,
    previous: Option<&[Arc<Host>]>,
) -> Vec<Arc<Host>> {
    let mut known: HashMap<&EndpointAddress, &Arc<Host>> = previous
        .unwrap_or_default()
        .iter()
        .map(|host| (&host.address, host))
        .collect();
    let mut hosts = Vec::new();
    for locality in &assignment.localities {
        let sum: u64 = locality
            .endpoints
            .iter()
            .map(|endpoint| u64::from(endpoint.weight.max(1)))
            .sum();
        for endpoint in &locality.endpoints {
            let weight = endpoint.weight.max(1);
            let share = match locality.weight {
                Some(of_locality) if ir.locality_weighted => share_of(of_locality, weight, sum),
                _ => weight,
            };
            let before = known.remove(&endpoint.address);
            hosts.push(host(endpoint, locality, share, ir, before));
        }
    }
    for gone in known.values() {
        gone.record.removed.store(true, Ordering::Relaxed);
    }
    hosts
}

/// A host's part of its locality's weight, in thousandths of it.
fn share_of(of_locality: u32, weight: u32, sum: u64) -> u32 {
    let share = u64::from(of_locality) * 1000 * u64::from(weight) / sum.max(1);
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

fn host(
    endpoint: &Endpoint,
    of: &LocalityEndpoints,
    share: u32,
    ir: &ClusterIr,
    before: Option<&Arc<Host>>,
) -> Arc<Host> {
    let tls_match = ir
        .tls_matches
        .iter()
        .position(|entry| endpoint.tls_labels.matches(&entry.labels));
    let same_pool =
        before.filter(|host| host.tls_labels == endpoint.tls_labels && host.tls_match == tls_match);
    let record = before.map_or_else(HostRecord::new, |host| host.record.clone());
    record.set_health(endpoint.health);
    record.removed.store(false, Ordering::Relaxed);
    if let Some(host) = same_pool
        && host.hostname == endpoint.hostname
        && host.locality == of.locality
        && host.priority == of.priority
        && host.weight == endpoint.weight.max(1)
        && host.share == share
        && host.workload == endpoint.workload
    {
        return host.clone();
    }
    let id = match (same_pool, before) {
        (Some(host), _) => host.id,
        // Another TLS towards the same address: pooled connections can't be shared.
        (None, Some(_)) => NEXT_ID.fetch_add(1, Ordering::Relaxed),
        (None, None) => record.id,
    };
    Arc::new(Host {
        id,
        address: endpoint.address.clone(),
        hostname: endpoint.hostname.clone(),
        locality: of.locality.clone(),
        priority: of.priority,
        weight: endpoint.weight.max(1),
        share,
        workload: endpoint.workload.clone(),
        workload_id: TextId::of(&endpoint.workload),
        tls_match,
        tls_labels: endpoint.tls_labels.clone(),
        record,
    })
}

/// Hosts made for original destinations, by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Originals(Arc<Mutex<HashMap<SocketAddr, Arc<Host>>>>);

impl Originals {
    /// The host of that address. Takes a lock; only clusters of original destinations come here.
    pub(super) fn host(&self, address: SocketAddr) -> Arc<Host> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(&address) {
            return host.clone();
        }
        if hosts.len() >= ORIGINALS_MAX {
            for host in hosts.values() {
                host.record.removed.store(true, Ordering::Relaxed);
            }
            hosts.clear();
        }
        let record = HostRecord::new();
        let host = Arc::new(Host {
            id: record.id,
            address: EndpointAddress::Socket(address),
            hostname: Text::default(),
            locality: Locality::default(),
            priority: 0,
            weight: 1,
            share: 1,
            workload: Text::default(),
            workload_id: TextId::UNKNOWN,
            tls_match: None,
            tls_labels: Labels::default(),
            record,
        });
        hosts.insert(address, host.clone());
        host
    }
}
