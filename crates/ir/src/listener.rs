//! Listeners and their filter chains.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use rajut_types::{Origin, Text};

use crate::{
    access_log::AccessLog, ext_authz::NetworkExtAuthz, http::HttpConnectionManager, rbac::Rbac,
    stats::IstioStats, tls::DownstreamTls,
};

/// A listener. Source: Envoy `listener.v3.Listener`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name, e.g. `virtualOutbound`, `10.96.0.7_8080`.
    pub name: Text,
    /// Where it listens; with `bind_to_port: false` only the key that redirected connections are matched by.
    pub address: ListenerAddress,
    /// `false`: no socket; connections are handed over by a listener with `use_original_dst`.
    pub bind_to_port: bool,
    /// Connections whose original destination is another listener's address go there.
    pub use_original_dst: bool,
    /// What is looked at before a chain is chosen.
    pub inspectors: Inspectors,
    /// How long the inspectors may wait for bytes; zero waits for ever. Envoy's default is 15 s.
    pub inspection_timeout: Duration,
    /// After that time the connection goes on unrecognised, instead of being closed.
    pub continue_on_inspection_timeout: bool,
    /// Chosen among by destination, server name, protocol and source; never by order, except where all else is equal.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Where none matches.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Whether it takes traffic of the workload or to it.
    pub direction: Direction,
    /// Lines for connections that no chain took.
    pub access_logs: Vec<AccessLog>,
    /// Soft limit of buffers per connection, bytes; Envoy's default is 1 MiB.
    pub per_connection_buffer_limit: Option<u32>,
    /// The proxyless-gRPC form (`api_listener`): no socket, one connection manager.
    pub api_listener: Option<Arc<HttpConnectionManager>>,
    /// Who wrote it.
    pub origin: Origin,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerAddress {
    /// IP and port.
    pub socket: SocketAddr,
    /// Path of the network namespace in which the socket is made (Envoy `network_namespace_filepath`).
    pub netns: Option<Text>,
}

/// Whose traffic a listener takes. Source: Envoy `core.v3.TrafficDirection`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// Listener filters. Source: Envoy `listener.v3.ListenerFilter`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspectors {
    /// Recover the destination before redirection (`envoy.filters.listener.original_dst`).
    pub original_dst: bool,
    /// Tell TLS, its server name and its protocols (`tls_inspector`).
    pub tls: bool,
    /// Tell HTTP/1 and HTTP/2 in plaintext (`http_inspector`).
    pub http: bool,
}

/// A filter chain. Source: Envoy `listener.v3.FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Its name; unique in the listener where not empty.
    pub name: Text,
    /// Which connections it takes.
    pub matches: FilterChainMatch,
    /// Terminate TLS first.
    pub tls: Option<DownstreamTls>,
    /// How long the handshake may take; zero is no bound.
    pub transport_connect_timeout: Duration,
    /// Access control of the connection, in order, before anything of it is served.
    pub rbac: Vec<Arc<Rbac>>,
    /// Who else is asked about the connection, after that many of `rbac` have judged it.
    pub ext_authz: Option<(usize, Arc<NetworkExtAuthz>)>,
    /// When its access control changes, what is open is judged again, and ended if it would be refused now. Ours alone.
    pub judges_open: bool,
    /// What is done with the connection. Network filters that only look on stand before it.
    pub action: ChainAction,
    /// Who wrote it.
    pub origin: Origin,
}

impl FilterChain {
    /// Where [`FilterChain::judges_open`] travels: metadata that Envoy does not look at.
    pub const METADATA_KEY: &str = "mesh.rajut.dev/chain";
}

/// Which connections a chain takes; an empty field takes all. Envoy's order of precedence: destination port,
/// destination address, server name, transport protocol, application protocol, source.
/// Source: Envoy `listener.v3.FilterChainMatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// The (original) destination's port.
    pub destination_port: Option<u16>,
    /// The (original) destination's address, longest prefix first.
    pub prefix_ranges: Vec<IpNet>,
    /// TLS server names; a left-most `*.` is a wildcard.
    pub server_names: Vec<Text>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: Option<TransportProtocol>,
    /// ALPN protocols of TLS, or `http/1.0`, `http/1.1`, `h2c` as the HTTP inspector tells.
    pub application_protocols: Vec<Text>,
    /// The client's address, longest prefix first.
    pub source_prefix_ranges: Vec<IpNet>,
    /// The client's ports.
    pub source_ports: Vec<u16>,
}

/// What an inspector saw first on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// A TLS client hello.
    Tls,
    /// Anything else.
    RawBuffer,
}

/// What a chain does with its connections.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainAction {
    /// HTTP.
    Http(Arc<HttpConnectionManager>),
    /// Bytes.
    Tcp(Arc<TcpProxy>),
}

/// Opaque bytes to a cluster. Source: Envoy `tcp_proxy.v3.TcpProxy`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    /// Prefix of statistics.
    pub stat_prefix: Text,
    /// Where to; weights are relative.
    pub clusters: Vec<(Text, u32)>,
    /// Closed after this time without a byte; `None` never. Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// Longest life.
    pub max_downstream_connection_duration: Option<Duration>,
    /// Connection attempts at most; Envoy's default is 1.
    pub max_connect_attempts: u32,
    /// One line a connection.
    pub access_logs: Vec<AccessLog>,
    /// Istio's standard metrics of its connections (a network filter of its own before this one).
    pub stats: Option<Arc<IstioStats>>,
}
