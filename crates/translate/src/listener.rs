//! The parts that outbound and inbound listeners share: connection managers, byte proxies, chains.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rajut_config::model::{MeshConfig, PathNormalization};
use rajut_ir::{
    cluster::{Http1Options, Http2Options},
    filter::HttpFilter,
    http::{
        ClientCertDetails, Codec, ForwardClientCert, HostPort, HttpConnectionManager, RouteSource,
        RouterFilter, ServerHeader,
    },
    listener::{
        ChainAction, Direction, FilterChain, FilterChainMatch, Inspectors, Listener, ListenerAddress,
        TcpProxy,
    },
    tls::DownstreamTls,
};
use rajut_types::{Origin, Text};

/// ALPN names that the HTTP inspector gives to plaintext.
pub(crate) const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
/// Time for a TLS handshake (Istio's gateways use the same; sidecars there have no bound).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle time of opaque connections, Envoy's default.
pub(crate) const TCP_IDLE: Duration = Duration::from_hours(1);

/// A connection manager with Istio's settings for one direction.
pub(crate) fn manager(
    mesh: &MeshConfig,
    direction: Direction,
    stat_prefix: Text,
    routes: RouteSource,
) -> Arc<HttpConnectionManager> {
    let inbound = direction == Direction::Inbound;
    Arc::new(HttpConnectionManager {
        tracing: None,
        codec: Codec::Auto,
        stat_prefix,
        routes,
        filters: filters(direction),
        access_logs: Vec::new(),
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        forward_client_cert: if inbound {
            ForwardClientCert::AppendForward
        } else {
            ForwardClientCert::Sanitize
        },
        client_cert_details: ClientCertDetails {
            subject: inbound,
            uri: inbound,
            dns: inbound,
        },
        idle_timeout: Some(Duration::from_hours(1)),
        stream_idle_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        max_connection_duration: None,
        max_requests_per_connection: None,
        drain_timeout: Duration::from_secs(5),
        max_request_headers_kb: 60,
        max_request_headers_count: 100,
        generate_request_id: true,
        preserve_external_request_id: false,
        upgrades: vec![("websocket".into(), true)],
        normalize_path: mesh.path_normalization != PathNormalization::None,
        merge_slashes: matches!(
            mesh.path_normalization,
            PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes
        ),
        unescape_slashes: mesh.path_normalization == PathNormalization::DecodeAndMergeSlashes,
        server_name: if inbound { "istio-envoy" } else { "envoy" }.into(),
        server_header: if inbound {
            ServerHeader::PassThrough
        } else {
            ServerHeader::Overwrite
        },
        proxy_100_continue: true,
        strip_host_port: HostPort::Keep,
        http1: Http1Options {
            accept_http_10: true,
            ..Http1Options {
                enable_trailers: true,
                ..Http1Options::default()
            }
        },
        http2: Http2Options {
            // A WebSocket may arrive as an extended CONNECT from a hop that was upgraded to HTTP/2.
            allow_connect: true,
            ..Http2Options::default()
        },
    })
}

/// The filters that routes may give something to do, as Istio places them, and the router. They stand in every outbound
/// chain, wanted or not, so that a fault that is switched on changes a route and never a listener: Envoy drains the
/// connections of a listener that changes.
fn filters(direction: Direction) -> Vec<HttpFilter> {
    let router = HttpFilter::router(RouterFilter::default());
    if direction == Direction::Inbound {
        return vec![router];
    }
    vec![HttpFilter::fault(), HttpFilter::cors(), router]
}

/// Bytes to clusters by weight.
pub(crate) fn bytes_to(
    stat_prefix: Text,
    clusters: Vec<(Text, u32)>,
    idle_timeout: Option<Duration>,
) -> ChainAction {
    ChainAction::Tcp(Arc::new(TcpProxy {
        stat_prefix,
        clusters,
        idle_timeout: Some(idle_timeout.unwrap_or(TCP_IDLE)),
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        access_logs: Vec::new(),
        stats: None,
    }))
}

/// A filter chain.
pub(crate) fn chain(
    name: impl Into<Text>,
    matches: FilterChainMatch,
    tls: Option<DownstreamTls>,
    action: ChainAction,
    origin: &Origin,
) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        rbac: Vec::new(),
        ext_authz: None,
        judges_open: false,
        name: name.into(),
        matches,
        transport_connect_timeout: if tls.is_some() {
            HANDSHAKE_TIMEOUT
        } else {
            Duration::ZERO
        },
        tls,
        action,
        origin: origin.clone(),
    })
}

/// A listener without chains.
pub(crate) fn bare(
    mesh: &MeshConfig,
    name: Text,
    socket: SocketAddr,
    direction: Direction,
    origin: Origin,
) -> Listener {
    Listener {
        name,
        address: ListenerAddress { socket, netns: None },
        bind_to_port: false,
        use_original_dst: false,
        inspectors: Inspectors::default(),
        inspection_timeout: mesh.protocol_detection_timeout,
        continue_on_inspection_timeout: true,
        filter_chains: Vec::new(),
        default_filter_chain: None,
        direction,
        access_logs: Vec::new(),
        per_connection_buffer_limit: None,
        api_listener: None,
        origin,
    }
}

/// Texts out of string constants.
pub(crate) fn texts(names: &[&str]) -> Vec<Text> {
    names.iter().map(|name| Text::from(*name)).collect()
}
