//! Destination rules: policies for the traffic to a host.

use std::time::Duration;

use rajut_types::{Hostname, Labels, Origin, Percent, Text};

use super::Visibility;

/// Policies for the traffic to a host. Source: Istio `DestinationRule`.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationRule {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Fully qualified, possibly a wildcard.
    pub host: Hostname,
    /// For all traffic to the host.
    pub policy: TrafficPolicy,
    /// Named groups of endpoints.
    pub subsets: Vec<SubsetRule>,
    /// Endpoints are asked whether they are well (annotations `mesh.rajut.dev/health-check…`).
    pub health_check: Option<HealthCheck>,
    /// Who may use it.
    pub export_to: Visibility,
    /// Only for client workloads with these labels in the same namespace.
    pub workload_selector: Option<Labels>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// Active health checks of a host's endpoints, by each of its clients. Ours: Istio has no field for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub question: HealthQuestion,
    /// Time between two checks of an endpoint.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub unhealthy_threshold: u32,
    /// Successes in a row that bring it back.
    pub healthy_threshold: u32,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthQuestion {
    /// A GET, on ports that speak HTTP.
    Http {
        /// Path and query.
        path: Text,
        /// Statuses of endpoints that are well, from and to.
        statuses: Vec<(u16, u16)>,
    },
    /// A connection.
    Tcp,
    /// `grpc.health.v1.Health/Check`, on ports of gRPC and HTTP/2.
    Grpc {
        /// Of this service; empty is the server.
        service: Text,
    },
}

/// A named group of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetRule {
    /// Its name.
    pub name: Text,
    /// All must stand on the endpoint.
    pub labels: Labels,
    /// Replaces the host's policy block by block.
    pub policy: TrafficPolicy,
    /// Where.
    pub origin: Origin,
}

/// A traffic policy; a block that is `None` falls to the next wider level.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS of the client side.
    pub tls: Option<ClientTls>,
    /// By service port; such an entry replaces all four blocks wholesale.
    pub ports: Vec<(u16, Self)>,
    /// In place of `max_retries`: percent, minimum concurrency.
    pub retry_budget: Option<(Percent, u32)>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancer {
    /// The algorithm; `None` is the default (least request).
    pub algorithm: Option<LbAlgorithm>,
    /// Slow start.
    pub warmup: Option<Duration>,
    /// What a client's place means for its choice; `None`: what the mesh says.
    pub locality: Option<LocalitySetting>,
}

/// What a client's place means for its choice. Source: Istio `LocalityLoadBalancerSetting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum LocalitySetting {
    /// `enabled: false`: all places are equal.
    Off,
    /// Nearer places first, others for failures; only with outlier detection (or `forced`).
    #[default]
    Nearest,
    /// The same, where the user says what is near.
    Failover(Failover),
    /// So many percent to each place, by the client's place.
    Distribute(Vec<Distribution>),
}

/// What is near, where the user says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Failover {
    /// Region → the region that comes before other foreign ones.
    pub regions: Vec<(Text, Text)>,
    /// Labels in the order of their weight, each with the value that is near; `None`: the client's own.
    pub labels: Vec<(Text, Option<Text>)>,
    /// Also without outlier detection (a service's `trafficDistribution`).
    pub forced: bool,
}

/// Where the requests of clients of one place go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Distribution {
    /// Clients' places, `region/zone/subzone`, `*` at the end for any.
    pub from: Text,
    /// Endpoints' places and their shares, which are 100 together.
    pub to: Vec<(Text, u32)>,
}

/// Algorithms. Source: Istio `LoadBalancerSettings`.
#[derive(Debug, Clone, PartialEq)]
pub enum LbAlgorithm {
    /// The less loaded of two.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// The dialled address.
    Passthrough,
    /// By a key of the request.
    ConsistentHash {
        /// What is hashed.
        key: HashKey,
        /// Ring or Maglev table.
        table: HashTable,
    },
}

/// What consistent hashing hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header.
    Header(Text),
    /// A cookie.
    Cookie {
        /// Its name.
        name: Text,
        /// Its path.
        path: Text,
        /// Generated with this life where set.
        ttl: Option<Duration>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(Text),
}

/// The table of consistent hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// Ring with at least so many entries (default 1024).
    Ring(u64),
    /// Maglev with so many entries (default 65 537).
    Maglev(u64),
}

/// Limits; `None` is "no limit" or the default named. Source: Istio `ConnectionPoolSettings`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionPool {
    /// Open connections.
    pub max_connections: Option<u32>,
    /// Default: the mesh's connect timeout.
    pub connect_timeout: Option<Duration>,
    /// Kernel keep-alive: probes, time, interval.
    pub tcp_keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Idle time of TCP connections (default 1 h).
    pub tcp_idle_timeout: Option<Duration>,
    /// Requests that wait for a connection.
    pub http1_max_pending_requests: Option<u32>,
    /// Requests in flight, also on HTTP/1.
    pub http2_max_requests: Option<u32>,
    /// Requests per connection.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// Idle time of HTTP connections (default 1 h).
    pub http_idle_timeout: Option<Duration>,
    /// `Some(true)` UPGRADE, `Some(false)` `DO_NOT_UPGRADE`, `None` the mesh's default.
    pub h2_upgrade: Option<bool>,
    /// The client's protocol is kept.
    pub use_client_protocol: bool,
    /// Streams at once on an HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 PING: interval, timeout.
    pub http2_keepalive: Option<(Duration, Duration)>,
}

/// Ejection. Source: Istio `OutlierDetection`, Envoy's defaults filled.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// `None`: not enforced.
    pub consecutive_5xx: Option<u32>,
    /// `None`: not enforced.
    pub consecutive_gateway: Option<u32>,
    /// `None`: not enforced.
    pub consecutive_local_origin: Option<u32>,
    /// Local errors are counted apart.
    pub split_local_origin: bool,
    /// Default 10 s.
    pub interval: Duration,
    /// Default 30 s.
    pub base_ejection_time: Duration,
    /// Default 10 %.
    pub max_ejection_percent: Percent,
    /// Panic threshold, default 0 %.
    pub min_health_percent: Percent,
    /// Answers of these statuses are errors, and no others; empty: 5xx.
    pub error_statuses: Vec<u16>,
}

/// TLS of the client side. Source: Istio `ClientTLSSettings`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTls {
    /// The mode.
    pub mode: ClientTlsMode,
    /// File paths inside the proxy: certificate chain, key.
    pub client_certificate: Option<(Text, Text)>,
    /// File path of the roots; `None` with SIMPLE or MUTUAL: the system's.
    pub ca_certificates: Option<Text>,
    /// Accepted names.
    pub subject_alt_names: Vec<Text>,
    /// Server name.
    pub sni: Option<Text>,
    /// Any certificate is taken.
    pub insecure_skip_verify: bool,
}

/// TLS modes of the client side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// Plaintext.
    Disable,
    /// TLS with the server's certificate checked.
    Simple,
    /// With an own certificate.
    Mutual,
    /// With the workload's identity.
    IstioMutual,
}
