//! Services: names that can be called. One form for Kubernetes `Service`, Istio `ServiceEntry` and Compose services.

use std::net::IpAddr;

use rajut_types::{Hostname, Labels, Locality, Origin, Text};

use super::Visibility;

/// A name that can be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Fully qualified, possibly a wildcard (`ServiceEntry`).
    pub host: Hostname,
    /// Short name (`metadata.name`, or the host for a `ServiceEntry`).
    pub name: Text,
    /// Where it was written.
    pub namespace: Text,
    /// At least one.
    pub ports: Vec<ServicePort>,
    /// Which workloads are its endpoints; `None`: none are selected (endpoints are given, or there are none).
    pub selector: Option<Labels>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Its virtual addresses: written (`clusterIP`, `ServiceEntry.addresses`) or allocated by the registry. Empty for a
    /// headless service.
    pub addresses: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Outside the mesh: no mTLS, no identity (`location: MESH_EXTERNAL`).
    pub external: bool,
    /// Endpoints given in place (`ServiceEntry.endpoints`, or a host-side server).
    pub endpoints: Vec<StaticEndpoint>,
    /// Accepted names of the server when the client originates TLS.
    pub subject_alt_names: Vec<Text>,
    /// Who may see it.
    pub export_to: Visibility,
    /// Other names that resolve to it (Compose aliases, `externalName` sources).
    pub aliases: Vec<Hostname>,
    /// Which endpoints are preferred, whatever the mesh says (`trafficDistribution`).
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Where.
    pub origin: Origin,
    /// Rises with age: smaller is older (creation time, or order of reading).
    pub age: u64,
}

impl Service {
    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// Which endpoints of a service are preferred. Source: Kubernetes `Service.spec.trafficDistribution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// `PreferClose`, `PreferSameZone`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePort {
    /// May be empty.
    pub name: Text,
    /// What clients dial.
    pub number: u16,
    /// What the workload listens on.
    pub target: TargetPort,
    /// Declared by name or `appProtocol`, or to be detected.
    pub protocol: Protocol,
    /// Where.
    pub origin: Origin,
}

/// The workload's port behind a service port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// A named container port.
    Name(Text),
}

/// The protocol of a port. Source: Istio protocol selection (`pkg/config/protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 (also h2c by `appProtocol`).
    Http2,
    /// gRPC, HTTP/2.
    Grpc,
    /// gRPC-Web over HTTP/1.1.
    GrpcWeb,
    /// Opaque TLS, routed by server name.
    Tls,
    /// As TLS.
    Https,
    /// Opaque bytes.
    Tcp,
    /// Not proxied.
    Udp,
    /// Told by the first bytes.
    Detect,
}

impl Protocol {
    /// Declared HTTP of any version.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Declared HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Declared TLS that is not terminated.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// How the endpoints of a service are found. Source: Istio `ServiceEntry.resolution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Workloads and given endpoints (Kubernetes services, `STATIC`).
    Static,
    /// The dialled address (`NONE`).
    None,
    /// All addresses that the names resolve to (`DNS`).
    Dns,
    /// One address at a time (`DNS_ROUND_ROBIN`).
    DnsRoundRobin,
}

/// An endpoint given in place.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticEndpoint {
    /// IP, host name, or `unix://` path.
    pub address: Text,
    /// Service port name → port; a missing one is the service's target port.
    pub ports: Vec<(Text, u16)>,
    /// For subsets and the `tlsMode`.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// At least 1.
    pub weight: u32,
    /// For secure naming; empty where unknown.
    pub service_account: Text,
    /// The service's ports that it is an endpoint of; `None`: all. Given where several entries make one service.
    pub serves: Option<Vec<u16>>,
}

impl StaticEndpoint {
    /// Whether it is an endpoint of that port of its service.
    pub fn serves(&self, port: u16) -> bool {
        self.serves.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}
