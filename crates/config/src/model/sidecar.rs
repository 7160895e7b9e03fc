//! What a workload's proxy knows of the mesh and takes from it, and workloads that are written down.

use std::net::SocketAddr;

use rajut_types::{Hostname, Labels, Origin, Text};

use super::{ConnectionPool, OutboundPolicy, Protocol, Service, StaticEndpoint, VirtualService};

/// A workload outside Kubernetes. Source: Istio `WorkloadEntry`.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadEntry {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// What it is to the services that select it.
    pub endpoint: StaticEndpoint,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// What a workload's proxy knows and takes. Source: Istio `Sidecar`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace's is the mesh's default.
    pub namespace: Text,
    /// Which workloads of the namespace; `None`: all that no other selects.
    pub selector: Option<Labels>,
    /// Which hosts its proxies see; `None`: all that are exported to them.
    pub egress: Option<Vec<EgressHost>>,
    /// In place of the mesh's.
    pub outbound_policy: Option<OutboundPolicy>,
    /// In place of the ports of its services; empty: those.
    pub ingress: Vec<IngressListener>,
    /// For inbound connections, in place of what a destination rule says.
    pub inbound_pool: Option<ConnectionPool>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// Hosts that are seen: `namespace/host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressHost {
    /// Where the service is written; `None` is any (`*`). `.` is resolved, `~` is left out.
    pub namespace: Option<Text>,
    /// Which, possibly a wildcard; `None` is any (`*`).
    pub host: Option<Hostname>,
}

/// A port on which a workload is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct IngressListener {
    /// The port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where it goes: a loopback address and port, or the unspecified address for the workload's own; `None`: to
    /// the same port.
    pub endpoint: Option<SocketAddr>,
    /// For its connections.
    pub pool: Option<ConnectionPool>,
}

impl EgressHost {
    fn admits(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

impl Sidecar {
    /// Whether its proxies see a service.
    pub fn sees(&self, service: &Service) -> bool {
        let Some(egress) = &self.egress else { return true };
        let named = |own: &Hostname| *own == service.host || own.covers(&service.host);
        egress
            .iter()
            .any(|it| it.admits(&service.namespace) && it.host.as_ref().is_none_or(named))
    }

    /// Whether its proxies follow a virtual service: one of its hosts is seen, from where it is written.
    pub fn follows(&self, routes: &VirtualService) -> bool {
        let Some(egress) = &self.egress else { return true };
        let meets = |own: &Hostname| {
            let mut hosts = routes.hosts.iter();
            hosts.any(|host| own == host || own.covers(host) || host.covers(own))
        };
        egress
            .iter()
            .any(|it| it.admits(&routes.namespace) && it.host.as_ref().is_none_or(meets))
    }
}
