//! The proxy that resources are made for: who it is, where it stands, how it gets its traffic.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use rajut_types::{Hostname, Labels, Locality, Principal, Text};

/// One proxy, as its xDS node tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// Node id, unique in the mesh.
    pub id: Text,
    /// What it is for.
    pub role: Role,
    /// Which implementation it is.
    pub data_plane: DataPlane,
    /// Its verified identity.
    pub principal: Principal,
    /// The instance (`Workload.name`) that it stands beside; empty for gateways without one.
    pub workload: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Its workload's labels.
    pub labels: Labels,
    /// The workload's addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it runs.
    pub locality: Locality,
    /// How it gets traffic.
    pub capture: Capture,
}

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Beside one workload.
    Sidecar,
    /// The host's door into a local mesh: outbound listeners only, on the machine's loopback.
    HostGateway,
    /// At the mesh's edge, without an application: serves what `Gateway`s say (Istio's node type `router`).
    Gateway,
    /// A proxyless gRPC client or server (`GENERATOR: grpc`).
    Grpc,
}

/// Which data plane it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataPlane {
    /// Ours.
    Rajut,
    /// Upstream Envoy: no filters of ours, no on-demand subscription.
    Envoy,
}

/// How a proxy gets its traffic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Capture {
    /// Kubernetes and virtual machines: redirected to 15001 and 15006 in the proxy's own network namespace.
    Redirect,
    /// A local workload in a network namespace of its own; the proxy stands outside.
    Netns {
        /// Path of the workload's namespace: outbound capture (15001) and connections to the application are made there.
        path: Text,
        /// Where the application is reached inside the namespace.
        app_address: IpAddr,
        /// Inbound listeners: container port → address outside on which other proxies reach it.
        inbound: BTreeMap<u16, SocketAddr>,
    },
    /// A local workload without a namespace: local ports instead of redirection.
    Explicit {
        /// One outbound listener each, for exactly one service port.
        outbound: Vec<ExplicitPort>,
        /// Inbound listeners: container port → (address on which other proxies reach it, address of the application).
        inbound: BTreeMap<u16, (SocketAddr, SocketAddr)>,
    },
}

/// A local port that stands for one port of one service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExplicitPort {
    /// Fully qualified host of the service.
    pub host: Hostname,
    /// The service's port.
    pub port: u16,
    /// Where the proxy listens for it.
    pub listen: SocketAddr,
}
