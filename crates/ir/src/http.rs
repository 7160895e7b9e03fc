//! The HTTP connection manager and its filters.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rajut_types::Text;

use crate::{
    access_log::AccessLog,
    cluster::{Http1Options, Http2Options},
    filter::HttpFilter,
    route::RouteConfiguration,
    tracing::Tracing,
};

/// How HTTP connections are served. Source: Envoy `http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, as the message has them"
)]
pub struct HttpConnectionManager {
    /// Which versions are taken.
    pub codec: Codec,
    /// Prefix of statistics.
    pub stat_prefix: Text,
    /// Where routes come from.
    pub routes: RouteSource,
    /// In the order in which requests meet them; the last is the router.
    pub filters: Vec<HttpFilter>,
    /// One line a request each.
    pub access_logs: Vec<AccessLog>,
    /// The client's address is the connection's (appended to `x-forwarded-for`): gateways.
    pub use_remote_address: bool,
    /// Trusted hops in `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// Which details of the peer's certificate are told (with `AppendForward` and `SanitizeSet`).
    pub client_cert_details: ClientCertDetails,
    /// Idle time of a connection without requests; `None` never. Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// Idle time of a stream; `None` never. Envoy's default is 5 min, Istio sets 0.
    pub stream_idle_timeout: Option<Duration>,
    /// The whole request must have arrived by then; `None` is no bound (Envoy's default).
    pub request_timeout: Option<Duration>,
    /// The head must have arrived by then; `None` is no bound.
    pub request_headers_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Time for requests in flight when draining (Envoy's default 5 s).
    pub drain_timeout: Duration,
    /// Largest head, KiB; Envoy's default is 60.
    pub max_request_headers_kb: u32,
    /// Most headers; Envoy's default is 100.
    pub max_request_headers_count: u32,
    /// An `x-request-id` is issued where there is none.
    pub generate_request_id: bool,
    /// An `x-request-id` from outside is kept (Envoy `preserve_external_request_id`).
    pub preserve_external_request_id: bool,
    /// Upgrades that are allowed, in lower case (`websocket`); the flag tells whether it is on.
    pub upgrades: Vec<(Text, bool)>,
    /// RFC 3986 dot segments are resolved before routing.
    pub normalize_path: bool,
    /// `//` becomes `/` before routing.
    pub merge_slashes: bool,
    /// `%2F` and `%5C` become `/` and `\\` before routing, and go on so (Envoy
    /// `path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD`).
    pub unescape_slashes: bool,
    /// Text of the `server` header.
    pub server_name: Text,
    /// What becomes of the `server` header of responses.
    pub server_header: ServerHeader,
    /// `Expect: 100-continue` goes to the upstream, instead of being answered here.
    pub proxy_100_continue: bool,
    /// A port of `Host` is ignored for routing (Envoy `strip_any_host_port`: also removed).
    pub strip_host_port: HostPort,
    /// HTTP/1.
    pub http1: Http1Options,
    /// HTTP/2.
    pub http2: Http2Options,
    /// Which requests are traced; `None`: none, and contexts pass untouched.
    pub tracing: Option<Tracing>,
}

impl HttpConnectionManager {
    /// The client's address as trusted proxies tell it; `None`: it is the connection's own. `forwarded_for`: the last field
    /// `x-forwarded-for`, where the connection's own address was appended if it is used.
    /// Source: Envoy `use_remote_address`, `xff_num_trusted_hops`.
    pub fn told_client<'v>(&self, forwarded_for: impl FnOnce() -> Option<&'v [u8]>) -> Option<IpAddr> {
        if self.use_remote_address && self.xff_num_trusted_hops == 0 {
            return None;
        }
        let skip = usize::try_from(self.xff_num_trusted_hops).unwrap_or(usize::MAX);
        forwarded_for()?
            .rsplit(|byte| *byte == b',')
            .nth(skip)
            .and_then(|address| std::str::from_utf8(address).ok())
            .and_then(|address| address.trim().parse().ok())
    }
}

/// HTTP versions of a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where an HTTP connection manager takes its routes from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// In place.
    Inline(Arc<RouteConfiguration>),
    /// By RDS, under this name.
    Rds(Text),
}

/// What becomes of `x-forwarded-client-cert`. Source: Envoy `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Removed.
    #[default]
    Sanitize,
    /// Passed on where the connection is mTLS.
    ForwardOnly,
    /// The peer's is appended where the connection is mTLS.
    AppendForward,
    /// Replaced by the peer's where the connection is mTLS.
    SanitizeSet,
    /// Passed on always.
    AlwaysForwardOnly,
}

/// Which details of the peer's certificate go to `x-forwarded-client-cert`; `By` and `Hash` always do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// Subject.
    pub subject: bool,
    /// URI SANs.
    pub uri: bool,
    /// DNS SANs.
    pub dns: bool,
}

/// What becomes of the `server` header of responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replaced by `server_name`.
    #[default]
    Overwrite,
    /// Set where the upstream sent none.
    AppendIfAbsent,
    /// Left as it is.
    PassThrough,
}

/// What becomes of the port in `Host`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostPort {
    /// Kept.
    #[default]
    Keep,
    /// Removed where it is the listener's.
    StripMatching,
    /// Removed.
    StripAny,
}

/// The router. Source: Envoy `router.v3.Router`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouterFilter {
    /// `x-envoy-*` headers are not added.
    pub suppress_envoy_headers: bool,
}
