//! Clusters: named groups of endpoints and how they are spoken to.

use std::{net::SocketAddr, ops::Range, time::Duration};

use rajut_types::{Labels, Origin, Percent, Text};

use crate::{endpoint::LoadAssignment, tls::UpstreamTls};

/// A cluster. Source: Envoy `cluster.v3.Cluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its name, e.g. `outbound|8080|stable|api-gateway.clinic.svc.cluster.local`.
    pub name: Text,
    /// Name in statistics; empty takes `name`.
    pub alt_stat_name: Text,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// How long a connection attempt may take (TLS included); Envoy's default is 5 s.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub lb_policy: LbPolicy,
    /// Below this share of healthy endpoints all are used; Envoy's default is 50 %, Istio sets 0.
    pub panic_threshold: Percent,
    /// Localities share load by their weights (Envoy `locality_weighted_lb_config`); otherwise weights of localities
    /// are not looked at.
    pub locality_weighted: bool,
    /// Limits of the default priority.
    pub circuit_breakers: CircuitBreakers,
    /// Ejection of endpoints that fail.
    pub outlier_detection: Option<OutlierDetection>,
    /// Endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// TLS towards every endpoint that no entry of `tls_matches` claims.
    pub tls: Option<UpstreamTls>,
    /// The first entry whose labels the endpoint carries decides (`None` in it: plaintext).
    pub tls_matches: Vec<TlsMatch>,
    /// Which HTTP versions are spoken.
    pub protocol: UpstreamProtocol,
    /// Idle time after which a pooled connection is closed; `None` never. Envoy's and Istio's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// Requests after which a connection is closed; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Keep-alive probes of the kernel.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Source address and network namespace of connections.
    pub bind: Option<UpstreamBind>,
    /// Soft limit of the read buffer per connection, bytes; Envoy's default is 1 MiB.
    pub per_connection_buffer_limit: Option<u32>,
    /// Open connections to an endpoint are closed when it turns unhealthy or leaves.
    pub close_connections_on_host_health_failure: bool,
    /// DNS lookups of `StrictDns` and `LogicalDns`.
    pub dns: DnsSettings,
    /// The service behind it, for metrics (Istio's `istio` filter metadata `services`).
    pub service: Option<ServiceRef>,
    /// Who wrote it.
    pub origin: Origin,
}

/// The mesh service that a cluster stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRef {
    /// Fully qualified host name.
    pub host: Text,
    /// Short name.
    pub name: Text,
    /// Namespace.
    pub namespace: Text,
}

/// How a cluster's endpoints are found. Source: Envoy `cluster.v3.Cluster.type`.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Given in place.
    Static(LoadAssignment),
    /// Every address that the names resolve to.
    StrictDns(LoadAssignment),
    /// One address at a time per name, looked up for new connections.
    LogicalDns(LoadAssignment),
    /// By EDS, under this name.
    Eds {
        /// The name that is asked for (`eds_cluster_config.service_name`, or the cluster's).
        service_name: Text,
    },
    /// The address that the client dialled.
    OriginalDst,
}

/// DNS lookups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Time between lookups where the answer's life is not respected; Envoy's default is 5 s.
    pub refresh: Duration,
    /// The answer's time to live decides instead.
    pub respect_ttl: bool,
    /// Only IPv4 addresses are used.
    pub v4_only: bool,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            respect_ttl: false,
            v4_only: false,
        }
    }
}

/// How an endpoint is chosen. Source: Envoy `cluster.v3.Cluster.lb_policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LbPolicy {
    /// In turn, weighted.
    RoundRobin,
    /// The least loaded of `choices` drawn at random (Envoy's default 2).
    LeastRequest {
        /// How many are drawn.
        choices: u32,
    },
    /// At random, weighted.
    Random,
    /// The original destination (Envoy `CLUSTER_PROVIDED`).
    ClusterProvided,
    /// Consistent hashing on a ring.
    RingHash {
        /// Entries at least; Envoy's default is 1024.
        minimum_ring_size: u64,
    },
    /// Consistent hashing by Maglev's table.
    Maglev {
        /// A prime; Envoy's default is 65 537.
        table_size: u64,
    },
}

/// Limits of a cluster, for the whole proxy. `None` is "no limit" here; the decoder puts Envoy's defaults
/// (1024, 1024, 1024, 3) where a message leaves a field out. Source: Envoy `cluster.v3.CircuitBreakers.Thresholds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// Open connections.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests in flight.
    pub max_requests: u32,
    /// Retries in flight.
    pub max_retries: u32,
    /// In place of `max_retries` where set.
    pub retry_budget: Option<RetryBudget>,
}

impl CircuitBreakers {
    /// Envoy's defaults.
    pub const ENVOY: Self = Self {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        retry_budget: None,
    };

    /// Istio's defaults: no limits.
    pub const UNLIMITED: Self = Self {
        max_connections: u32::MAX,
        max_pending_requests: u32::MAX,
        max_requests: u32::MAX,
        max_retries: u32::MAX,
        retry_budget: None,
    };
}

/// A bound on retries relative to the requests in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share of the active and pending requests; Envoy's default is 20 %.
    pub percent: Percent,
    /// Retries that are always allowed; Envoy's default is 3.
    pub min_concurrency: u32,
}

/// Ejection of endpoints that fail. Source: Envoy `cluster.v3.OutlierDetection`; the decoder fills Envoy's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// 5xx answers in a row that eject (default 5); gateway and local errors count too. `None` does not eject.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503 and 504 in a row that eject (default 5, enforced at 0 % in Envoy): `None` where not enforced.
    pub consecutive_gateway_failure: Option<u32>,
    /// Connect failures, resets and timeouts of this proxy in a row, where split from what the upstream answers
    /// (default 5); `None` where not enforced.
    pub consecutive_local_origin_failure: Option<u32>,
    /// Errors that arise here are counted apart from what the upstream answers.
    pub split_external_local_origin_errors: bool,
    /// Time between sweeps that bring endpoints back (default 10 s).
    pub interval: Duration,
    /// Time out of service, times the number of ejections (default 30 s).
    pub base_ejection_time: Duration,
    /// Upper bound of that product (default 300 s, at least the base).
    pub max_ejection_time: Duration,
    /// Share of endpoints out at once (default 10 %), a hard cap: Envoy 1.40 never rounds it up.
    pub max_ejection_percent: Percent,
    /// Answers of these statuses are errors, each as a 500 is, and no others; empty: 5xx.
    pub error_statuses: Vec<u16>,
}

/// Endpoints are asked whether they are well, and get no requests while they are not. Source: Envoy `core.v3.HealthCheck`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// How long an answer may take, the connection included.
    pub timeout: Duration,
    /// Time between two checks of an endpoint.
    pub interval: Duration,
    /// Up to so much is added to each interval, at random.
    pub interval_jitter: Duration,
    /// Failures in a row that take an endpoint out; the first check of all decides alone.
    pub unhealthy_threshold: u32,
    /// Successes in a row that bring it back.
    pub healthy_threshold: u32,
    /// What is asked.
    pub question: HealthQuestion,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthQuestion {
    /// A GET.
    Http {
        /// The request's authority; empty takes the cluster's name.
        host: Text,
        /// Path and query.
        path: Text,
        /// Over HTTP/2, by prior knowledge on plaintext.
        http2: bool,
        /// Statuses of endpoints that are well.
        expected: Vec<Range<u16>>,
        /// Other statuses that count as one failure; all others take the endpoint out at once.
        retriable: Vec<Range<u16>>,
    },
    /// A connection, after TLS where the endpoint has it.
    Tcp,
    /// `grpc.health.v1.Health/Check`. An answer other than `SERVING` takes the endpoint out at once.
    Grpc {
        /// The service that is asked for; empty is the server.
        service: Text,
        /// The request's authority; empty takes the cluster's name.
        authority: Text,
    },
}

/// TLS for endpoints that carry labels. Source: Envoy `cluster.v3.Cluster.TransportSocketMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsMatch {
    /// Name of the entry.
    pub name: Text,
    /// All of these must stand on the endpoint; empty matches every endpoint.
    pub labels: Labels,
    /// `None` is plaintext (raw buffer).
    pub tls: Option<UpstreamTls>,
}

/// Which HTTP versions are spoken to the upstream.
/// Source: Envoy `extensions.upstreams.http.v3.HttpProtocolOptions.upstream_protocol_options`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1(Http1Options),
    /// HTTP/2, by prior knowledge on plaintext.
    Http2(Http2Options),
    /// What the downstream speaks.
    UseDownstream(Http1Options, Http2Options),
    /// What ALPN settles.
    Auto(Http1Options, Http2Options),
}

impl Default for UpstreamProtocol {
    fn default() -> Self {
        Self::Http1(Http1Options::default())
    }
}

/// HTTP/1 of either side. Source: Envoy `core.v3.Http1ProtocolOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http1Options {
    /// HTTP/1.0 requests are taken.
    pub accept_http_10: bool,
    /// Header names keep their letters' case (ours always do; the field is kept for Envoy).
    pub preserve_case: bool,
    /// Trailers are passed on.
    pub enable_trailers: bool,
}

/// HTTP/2 of either side. `None` takes the default of the side. Source: Envoy `core.v3.Http2ProtocolOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http2Options {
    /// Streams at once.
    pub max_concurrent_streams: Option<u32>,
    /// Stream window, bytes.
    pub initial_stream_window_size: Option<u32>,
    /// Connection window, bytes.
    pub initial_connection_window_size: Option<u32>,
    /// Extended CONNECT (RFC 8441).
    pub allow_connect: bool,
    /// PING interval and the time to wait for its answer.
    pub keepalive: Option<(Duration, Duration)>,
}

/// Keep-alive probes of the kernel; `None` leaves the kernel's. Source: Envoy `core.v3.TcpKeepalive`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
}

/// Where connections start. Source: Envoy `core.v3.BindConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamBind {
    /// Source address (port 0: any).
    pub source: Option<SocketAddr>,
    /// Path of the network namespace that connections are made in.
    pub netns: Option<Text>,
}
