//! Endpoints: where a cluster's requests may go.

use std::net::SocketAddr;

use rajut_types::{Labels, Locality, Text};

/// The endpoints of one cluster. Source: Envoy `endpoint.v3.ClusterLoadAssignment`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadAssignment {
    /// The cluster's name, or the name under which it asks for its endpoints.
    pub cluster_name: Text,
    /// By locality and priority.
    pub localities: Vec<LocalityEndpoints>,
    /// Overprovisioning factor in percent; Envoy's default is 140.
    pub overprovisioning_percent: Option<u32>,
}

impl LoadAssignment {
    /// All endpoints, whatever their locality.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.localities.iter().flat_map(|locality| &locality.endpoints)
    }
}

/// Endpoints that share locality and priority. Source: Envoy `endpoint.v3.LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is tried first.
    pub priority: u32,
    /// Weight among localities of one priority; `None` leaves it out of locality weighting.
    pub weight: Option<u32>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint. Source: Envoy `endpoint.v3.LbEndpoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddress,
    /// Health as the control plane knows it.
    pub health: Health,
    /// Share of load relative to its neighbours, at least 1.
    pub weight: u32,
    /// Name for health checks and logs, may be empty.
    pub hostname: Text,
    /// Labels for `transport_socket_match` (filter metadata `envoy.transport_socket_match`), e.g. `tlsMode: istio`.
    pub tls_labels: Labels,
    /// The workload behind it, as Istio's `istio` filter metadata `workload` names it
    /// (`name;namespace;canonical-name;canonical-revision;cluster`), may be empty.
    pub workload: Text,
    /// Labels for subset selection (filter metadata `envoy.lb`).
    pub lb_labels: Labels,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// IP and port.
    Socket(SocketAddr),
    /// A name to be resolved by the proxy, and a port.
    Dns {
        /// The name.
        host: Text,
        /// The port.
        port: u16,
    },
    /// A Unix socket's path; a leading `@` is the abstract namespace.
    Pipe(Text),
}

impl std::fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Dns { host, port } => write!(f, "{host}:{port}"),
            Self::Pipe(path) => write!(f, "unix://{path}"),
        }
    }
}

/// Health as told by the control plane. Source: Envoy `core.v3.HealthStatus`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not told: taken as healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Not to be used.
    Unhealthy,
    /// Going away: no new connections, open ones finish.
    Draining,
    /// Used only where nothing healthy is left.
    Degraded,
}

impl Health {
    /// Whether new requests may go there.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy | Self::Degraded)
    }
}
