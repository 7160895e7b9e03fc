//! Type URLs of the resources that the two planes exchange, and of the extensions that `ir::wire` packs.

/// What stands before a message's full name.
pub const PREFIX: &str = "type.googleapis.com/";

macro_rules! urls {
    ($($name:ident = $message:literal;)*) => {
        $(#[doc = concat!("`", $message, "`.")] pub const $name: &str = concat!("type.googleapis.com/", $message);)*
    };
}

urls! {
    LISTENER = "envoy.config.listener.v3.Listener";
    ROUTE_CONFIGURATION = "envoy.config.route.v3.RouteConfiguration";
    CLUSTER = "envoy.config.cluster.v3.Cluster";
    CLUSTER_LOAD_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret";
    NAME_TABLE = "istio.networking.nds.v1.NameTable";
    HTTP_CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    ROUTER = "envoy.extensions.filters.http.router.v3.Router";
    DOWNSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    UPSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    RAW_BUFFER = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    ORIGINAL_DST = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    TLS_INSPECTOR = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    HTTP_INSPECTOR = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    FILE_ACCESS_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
    STDOUT_ACCESS_LOG = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
    STDERR_ACCESS_LOG = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";
    CEL_FILTER = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter";
    HTTP_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC";
    HTTP_RBAC_PER_ROUTE = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    HTTP_EXT_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
    HTTP_EXT_AUTHZ_PER_ROUTE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
    NETWORK_EXT_AUTHZ = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz";
    NETWORK_RBAC = "envoy.extensions.filters.network.rbac.v3.RBAC";
    RATE_LIMIT_EXPR = "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor";
    JWT_AUTHN = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    LOCAL_RATE_LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    HTTP_FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    CORS = "envoy.extensions.filters.http.cors.v3.Cors";
    CORS_POLICY = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
    ISTIO_STATS = "stats.PluginConfig";
    FILTER_CONFIG = "envoy.config.route.v3.FilterConfig";
    URI_TEMPLATE = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
    OPENTELEMETRY = "envoy.config.trace.v3.OpenTelemetryConfig";
    PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    PREVIOUS_PRIORITIES = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    PRESERVE_CASE = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
}

/// The message's full name in a type URL; the part before the last `/` is a host that nobody looks at.
pub fn message_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
