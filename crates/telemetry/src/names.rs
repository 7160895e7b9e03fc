//! Names of metrics and labels, in one place. Those that Envoy has are Envoy's.

/// Label: the cluster's name.
pub const LABEL_CLUSTER: &str = "envoy_cluster_name";
/// Label: the class of a status, `1` to `5`.
pub const LABEL_CODE_CLASS: &str = "envoy_response_code_class";
/// Label: the prefix of a connection manager.
pub const LABEL_HTTP_PREFIX: &str = "envoy_http_conn_manager_prefix";
/// Label: the prefix of access control of connections.
pub const LABEL_RBAC_PREFIX: &str = "envoy_rbac_prefix";
/// Label: the prefix of a set of rules of access control.
pub const LABEL_RBAC_RULES: &str = "envoy_rbac_http_prefix";
/// Label: the prefix of a local rate limit.
pub const LABEL_RATE_LIMIT_PREFIX: &str = "envoy_local_http_ratelimit_prefix";
/// Label: how an attempt ended.
pub const LABEL_RESULT: &str = "result";
/// Label: why something was refused.
pub const LABEL_REASON: &str = "reason";
/// Label: the prefix of external authorization.
pub const LABEL_EXT_AUTHZ_PREFIX: &str = "envoy_ext_authz_prefix";
/// The prefix that connection managers share once there are too many prefixes.
pub const PREFIX_OVERFLOW: &str = "other";

/// Istio's labels of the client's end: workload, namespace, identity, app, version, cluster, canonical service, revision.
pub const ISTIO_SOURCE: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
];
/// The same of the server's end.
pub const ISTIO_DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
];

macro_rules! istio_labels {
    ($($name:ident = $text:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $name: &str = $text;)*

        /// Istio's labels beside those of the two ends, with their meanings.
        pub const ISTIO_LABELS: &[(&str, &str)] = &[$(($text, $help)),*];
    };
}

istio_labels! {
    ISTIO_REPORTER = "reporter", "which end reports, `source` or `destination`";
    ISTIO_SERVICE = "destination_service", "the service's host";
    ISTIO_SERVICE_NAME = "destination_service_name", "the service's name";
    ISTIO_SERVICE_NAMESPACE = "destination_service_namespace", "the service's namespace";
    ISTIO_PROTOCOL = "request_protocol", "`http`, `grpc` or `tcp`";
    ISTIO_CODE = "response_code", "the answer's status, `0` where there was none";
    ISTIO_GRPC_STATUS = "grpc_response_status", "the gRPC status";
    ISTIO_FLAGS = "response_flags", "Envoy's response flags";
    ISTIO_SECURITY = "connection_security_policy", "`mutual_tls`, `none`, or `unknown` (the client's end does not say)";
}

macro_rules! names {
    ($($name:ident = $text:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $name: &str = $text;)*

        /// Every metric with its help text.
        pub const ALL: &[(&str, &str)] = &[$(($text, $help)),*];
    };
}

names! {
    CLUSTER_CX_TOTAL = "envoy_cluster_upstream_cx_total", "Connections made.";
    CLUSTER_CX_ACTIVE = "envoy_cluster_upstream_cx_active", "Connections that are open.";
    CLUSTER_CX_HTTP1_TOTAL = "envoy_cluster_upstream_cx_http1_total", "HTTP/1 connections made.";
    CLUSTER_CX_HTTP2_TOTAL = "envoy_cluster_upstream_cx_http2_total", "HTTP/2 connections made.";
    CLUSTER_CX_DESTROY = "envoy_cluster_upstream_cx_destroy", "Connections closed.";
    CLUSTER_CX_CONNECT_FAIL = "envoy_cluster_upstream_cx_connect_fail", "Connection attempts that failed.";
    CLUSTER_CX_CONNECT_TIMEOUT = "envoy_cluster_upstream_cx_connect_timeout", "Connection attempts that timed out.";
    CLUSTER_CX_OVERFLOW = "envoy_cluster_upstream_cx_overflow", "Connections not made because of `max_connections`.";
    CLUSTER_RX_BYTES = "envoy_cluster_upstream_cx_rx_bytes_total", "Bytes of bodies received from endpoints.";
    CLUSTER_TX_BYTES = "envoy_cluster_upstream_cx_tx_bytes_total", "Bytes of bodies sent to endpoints.";
    CLUSTER_RQ_TOTAL = "envoy_cluster_upstream_rq_total", "Requests sent, retries included.";
    CLUSTER_RQ_ACTIVE = "envoy_cluster_upstream_rq_active", "Requests in flight.";
    CLUSTER_RQ_COMPLETED = "envoy_cluster_upstream_rq_completed", "Requests that are over.";
    CLUSTER_RQ_XX = "envoy_cluster_upstream_rq_xx", "Answers by class.";
    CLUSTER_RQ_PENDING_TOTAL = "envoy_cluster_upstream_rq_pending_total", "Requests that waited for a connection.";
    CLUSTER_RQ_PENDING_ACTIVE = "envoy_cluster_upstream_rq_pending_active", "Requests that wait for a connection.";
    CLUSTER_RQ_PENDING_OVERFLOW = "envoy_cluster_upstream_rq_pending_overflow", "Requests refused by `max_pending_requests`.";
    CLUSTER_RQ_PENDING_FAILURE = "envoy_cluster_upstream_rq_pending_failure_eject", "Requests that waited for a connection that failed.";
    CLUSTER_RQ_OVERFLOW = "envoy_cluster_upstream_rq_active_overflow", "Requests refused by `max_requests`.";
    CLUSTER_RQ_RETRY = "envoy_cluster_upstream_rq_retry", "Retries sent.";
    CLUSTER_RQ_RETRY_SUCCESS = "envoy_cluster_upstream_rq_retry_success", "Retries that succeeded.";
    CLUSTER_RQ_RETRY_OVERFLOW = "envoy_cluster_upstream_rq_retry_overflow", "Retries refused by `max_retries` or the budget.";
    CLUSTER_RQ_RETRY_LIMIT = "envoy_cluster_upstream_rq_retry_limit_exceeded", "Requests whose retries were used up.";
    CLUSTER_RQ_TIMEOUT = "envoy_cluster_upstream_rq_timeout", "Requests that timed out.";
    CLUSTER_RQ_PER_TRY_TIMEOUT = "envoy_cluster_upstream_rq_per_try_timeout", "Tries that timed out.";
    CLUSTER_RQ_RX_RESET = "envoy_cluster_upstream_rq_rx_reset", "Streams reset by the endpoint.";
    CLUSTER_RQ_TX_RESET = "envoy_cluster_upstream_rq_tx_reset", "Streams reset by the proxy.";
    CLUSTER_NONE_HEALTHY = "envoy_cluster_upstream_cx_none_healthy", "Requests without a healthy endpoint.";
    CLUSTER_EJECTIONS_ACTIVE = "envoy_cluster_outlier_detection_ejections_active", "Endpoints that are ejected.";
    CLUSTER_EJECTIONS_TOTAL = "envoy_cluster_outlier_detection_ejections_enforced_total", "Endpoints ejected so far.";
    CLUSTER_HEALTH_CHECKS = "envoy_cluster_health_check_attempt", "Active health checks.";
    CLUSTER_HEALTH_CHECK_FAILURES = "envoy_cluster_health_check_failure", "Active health checks that an endpoint did not pass.";
    CLUSTER_MEMBERSHIP_TOTAL = "envoy_cluster_membership_total", "Endpoints.";
    CLUSTER_MEMBERSHIP_HEALTHY = "envoy_cluster_membership_healthy", "Endpoints that may be used.";
    CLUSTER_CX_OPEN = "envoy_cluster_circuit_breakers_default_cx_open", "1 while `max_connections` is reached.";
    CLUSTER_PENDING_OPEN = "envoy_cluster_circuit_breakers_default_rq_pending_open", "1 while `max_pending_requests` is reached.";
    CLUSTER_RQ_OPEN = "envoy_cluster_circuit_breakers_default_rq_open", "1 while `max_requests` is reached.";
    HTTP_CX_TOTAL = "envoy_http_downstream_cx_total", "Connections.";
    HTTP_CX_ACTIVE = "envoy_http_downstream_cx_active", "Connections that are open.";
    HTTP_CX_HTTP1_TOTAL = "envoy_http_downstream_cx_http1_total", "HTTP/1 connections.";
    HTTP_CX_HTTP2_TOTAL = "envoy_http_downstream_cx_http2_total", "HTTP/2 connections.";
    HTTP_CX_DESTROY = "envoy_http_downstream_cx_destroy", "Connections closed.";
    HTTP_CX_PROTOCOL_ERROR = "envoy_http_downstream_cx_protocol_error", "Connections closed because the bytes were no HTTP.";
    HTTP_CX_IDLE_TIMEOUT = "envoy_http_downstream_cx_idle_timeout", "Connections closed by the idle timeout.";
    HTTP_CX_DRAIN_CLOSE = "envoy_http_downstream_cx_drain_close", "Connections closed because the proxy drained.";
    HTTP_RQ_TOTAL = "envoy_http_downstream_rq_total", "Requests.";
    HTTP_RQ_ACTIVE = "envoy_http_downstream_rq_active", "Requests in flight.";
    HTTP_RQ_COMPLETED = "envoy_http_downstream_rq_completed", "Requests that are over.";
    HTTP_RQ_HTTP1_TOTAL = "envoy_http_downstream_rq_http1_total", "HTTP/1 requests.";
    HTTP_RQ_HTTP2_TOTAL = "envoy_http_downstream_rq_http2_total", "HTTP/2 requests.";
    HTTP_RQ_XX = "envoy_http_downstream_rq_xx", "Answers by class.";
    HTTP_RQ_RX_RESET = "envoy_http_downstream_rq_rx_reset", "Requests whose client went away.";
    HTTP_RQ_TX_RESET = "envoy_http_downstream_rq_tx_reset", "Requests whose answer was cut off.";
    HTTP_RQ_TOO_LARGE = "envoy_http_downstream_rq_too_large", "Requests with a head over the limit.";
    HTTP_RQ_HEADER_TIMEOUT = "envoy_http_downstream_rq_header_timeout", "Heads that did not come in time.";
    HTTP_RQ_TIMEOUT = "envoy_http_downstream_rq_timeout", "Requests that did not come in time.";
    HTTP_RQ_IDLE_TIMEOUT = "envoy_http_downstream_rq_idle_timeout", "Streams that were idle for too long.";
    HTTP_NO_ROUTE = "envoy_http_no_route", "Requests that no route takes.";
    HTTP_UPGRADES_TOTAL = "envoy_http_downstream_cx_upgrades_total", "Upgrades and CONNECT tunnels.";
    PROCESS_CPU = "process_cpu_seconds_total", "Processor time of the proxy, in user and kernel mode.";
    PROCESS_MEMORY = "process_resident_memory_bytes", "Memory of the proxy in RAM.";
    PROCESS_START = "process_start_time_seconds", "When the proxy was started, seconds since 1970.";
    CONTROL_CONNECTED = "envoy_control_plane_connected_state", "1 while the proxy is connected to its control plane.";
    CONTROL_AWAY = "rajut_control_plane_disconnected_seconds_total", "How long the proxy has been without its control plane.";
    CERTIFICATE_ROTATIONS = "rajut_certificate_rotations_total", "Attempts to get a certificate, the first one included, by `result`: `success` or `failure`.";
    CERTIFICATE_EXPIRY = "rajut_certificate_expiration_timestamp_seconds", "When the proxy's certificate ends, seconds since 1970.";
    OWN_TIME = "rajut_proxy_own_time_milliseconds", "How long requests and their answers were in this proxy, apart from what the upstream took; one request in sixteen. A histogram.";
    HTTP_RBAC_ALLOWED = "envoy_http_rbac_allowed", "Requests that access control let pass.";
    HTTP_RBAC_DENIED = "envoy_http_rbac_denied", "Requests that access control refused.";
    HTTP_RBAC_SHADOW_ALLOWED = "envoy_http_rbac_shadow_allowed", "Requests that the shadow rules would let pass.";
    HTTP_RBAC_SHADOW_DENIED = "envoy_http_rbac_shadow_denied", "Requests that the shadow rules would refuse.";
    HTTP_JWT_ALLOWED = "envoy_http_jwt_authn_allowed", "Requests whose tokens are good, or that need none.";
    HTTP_JWT_DENIED = "envoy_http_jwt_authn_denied", "Requests that were refused for their tokens.";
    HTTP_JWT_PREFLIGHTS = "envoy_http_jwt_authn_cors_preflight_bypassed", "Preflights, which need no token.";
    HTTP_EXT_AUTHZ_OK = "envoy_http_ext_authz_ok", "Requests that the provider allowed.";
    HTTP_EXT_AUTHZ_DENIED = "envoy_http_ext_authz_denied", "Requests that the provider refused.";
    HTTP_EXT_AUTHZ_ERROR = "envoy_http_ext_authz_error", "Requests about which the provider did not answer.";
    HTTP_EXT_AUTHZ_TIMEOUT = "envoy_http_ext_authz_timeout", "Requests about which the provider did not answer in time.";
    HTTP_EXT_AUTHZ_DISABLED = "envoy_http_ext_authz_disabled", "Requests about which nobody was asked.";
    HTTP_EXT_AUTHZ_FAILED_OPEN = "envoy_http_ext_authz_failure_mode_allowed", "Requests that passed though the provider did not answer.";
    HTTP_EXT_AUTHZ_INVALID = "envoy_http_ext_authz_invalid", "Requests whose answer of the provider could not be followed.";
    EXT_AUTHZ_OK = "envoy_ext_authz_ok", "Connections that the provider allowed.";
    EXT_AUTHZ_DENIED = "envoy_ext_authz_denied", "Connections that the provider refused.";
    EXT_AUTHZ_ERROR = "envoy_ext_authz_error", "Connections about which the provider did not answer.";
    EXT_AUTHZ_TIMEOUT = "envoy_ext_authz_timeout", "Connections about which the provider did not answer in time.";
    EXT_AUTHZ_DISABLED = "envoy_ext_authz_disabled", "Connections about which nobody was asked.";
    EXT_AUTHZ_FAILED_OPEN = "envoy_ext_authz_failure_mode_allowed", "Connections that passed though the provider did not answer.";
    EXT_AUTHZ_INVALID = "envoy_ext_authz_invalid", "Connections whose answer of the provider could not be followed.";
    RBAC_ALLOWED = "envoy_rbac_allowed", "Connections that access control let pass.";
    RBAC_DENIED = "envoy_rbac_denied", "Connections that access control refused.";
    RBAC_SHADOW_ALLOWED = "envoy_rbac_shadow_allowed", "Connections that the shadow rules would let pass.";
    RBAC_SHADOW_DENIED = "envoy_rbac_shadow_denied", "Connections that the shadow rules would refuse.";
    HTTP_FAULT_DELAYS = "envoy_http_fault_delays_injected", "Requests that had to wait on purpose.";
    HTTP_FAULT_ABORTS = "envoy_http_fault_aborts_injected", "Requests that were answered with an error on purpose.";
    HTTP_FAULT_OVERFLOW = "envoy_http_fault_faults_overflow", "Requests that had no fault, because too many others had.";
    HTTP_FAULT_ACTIVE = "envoy_http_fault_active_faults", "Requests that have a fault now.";
    HTTP_CORS_VALID = "envoy_http_cors_origin_valid", "Requests of pages whose origin is allowed.";
    HTTP_CORS_INVALID = "envoy_http_cors_origin_invalid", "Requests of pages of other origins.";
    HTTP_RATE_LIMIT_ENABLED = "envoy_http_local_rate_limit_enabled", "Requests that a local rate limit looked at.";
    HTTP_RATE_LIMIT_ENFORCED = "envoy_http_local_rate_limit_enforced", "Requests that a local rate limit refused.";
    HTTP_RATE_LIMIT_OK = "envoy_http_local_rate_limit_ok", "Requests within a local rate limit.";
    HTTP_RATE_LIMIT_LIMITED = "envoy_http_local_rate_limit_rate_limited", "Requests over a local rate limit.";
    TRACE_SENT = "envoy_tracing_opentelemetry_spans_sent", "Spans that a collector took.";
    TRACE_DROPPED = "envoy_tracing_opentelemetry_spans_dropped", "Spans that are lost: no room, or no collector.";
    CLUSTER_FIRST_USE_FAILURES = "rajut_cluster_first_use_failures_total", "Clusters whose accepted resources could not be used when a request first needed them.";
    ISTIO_REQUESTS = "istio_requests_total", "Requests that are over.";
    ISTIO_DURATION = "istio_request_duration_milliseconds", "From a request's head to the last byte of its answer. A histogram.";
    ISTIO_REQUEST_BYTES = "istio_request_bytes", "Sizes of requests' bodies. A histogram.";
    ISTIO_RESPONSE_BYTES = "istio_response_bytes", "Sizes of answers' bodies. A histogram.";
    ISTIO_REQUEST_MESSAGES = "istio_request_messages_total", "Messages of gRPC calls that are over.";
    ISTIO_RESPONSE_MESSAGES = "istio_response_messages_total", "Messages of the answers of gRPC calls that are over.";
    ISTIO_TCP_OPENED = "istio_tcp_connections_opened_total", "Opaque connections that were opened.";
    ISTIO_TCP_CLOSED = "istio_tcp_connections_closed_total", "Opaque connections that were closed.";
    ISTIO_TCP_SENT = "istio_tcp_sent_bytes_total", "Bytes that opaque connections passed back to clients.";
    ISTIO_TCP_RECEIVED = "istio_tcp_received_bytes_total", "Bytes that opaque connections passed on from clients.";
    METRICS_FOLDED = "rajut_metrics_folded_total", "Requests and connections that Istio's metrics count under `other`, since there was no room for another series.";
    RECORDED = "rajut_recorder_requests_total", "Requests whose facts were recorded for the control plane.";
    RECORDER_DROPPED = "rajut_recorder_dropped_total", "Requests that were to be recorded and found no room.";
    ACCESS_LOG_DROPPED = "rajut_access_log_dropped_total", "Lines of access logs that found no room.";
    LISTENER_CX_TOTAL = "envoy_listener_downstream_cx_total", "Connections accepted.";
    LISTENER_CX_ACTIVE = "envoy_listener_downstream_cx_active", "Connections open.";
    LISTENER_NO_FILTER_CHAIN = "envoy_listener_no_filter_chain_match", "Connections that no filter chain took.";
    LISTENER_WITHDRAWN = "rajut_proxy_withdrawn_total", "Tunnels, gRPC calls and connections that were open and ended because the rules changed.";
    LISTENER_HANDSHAKES = "envoy_listener_ssl_handshake", "TLS handshakes finished.";
    LISTENER_HANDSHAKE_FAILURES = "envoy_listener_ssl_connection_error", "TLS handshakes failed.";
    LISTENER_REFUSED_CERTIFICATES = "rajut_proxy_certificates_refused_total", "Clients whose certificates were refused in the handshake, by `reason`: `absent`, `revoked`, `expired`, `not_yet_valid`, `unknown_issuer`, `usage`, `name` or `other`.";
    LISTENER_DETECTION_TIMEOUTS = "envoy_listener_downstream_pre_cx_timeout", "Connections that sent nothing while their protocol was waited for.";
    TCP_RX_BYTES = "envoy_tcp_downstream_cx_rx_bytes_total", "Bytes passed on from clients by TCP proxies.";
    TCP_TX_BYTES = "envoy_tcp_downstream_cx_tx_bytes_total", "Bytes passed back to clients by TCP proxies.";
}

/// The help text of a metric; empty where it is none of ours.
pub fn help(name: &str) -> &'static str {
    let known = ALL.iter().find(|(known, _)| *known == name);
    known.map_or("", |(_, help)| help)
}

/// The counters of external authorization of requests, in the order of what is counted.
pub const HTTP_EXT_AUTHZ: [&str; 7] = [
    HTTP_EXT_AUTHZ_OK,
    HTTP_EXT_AUTHZ_DENIED,
    HTTP_EXT_AUTHZ_ERROR,
    HTTP_EXT_AUTHZ_TIMEOUT,
    HTTP_EXT_AUTHZ_DISABLED,
    HTTP_EXT_AUTHZ_FAILED_OPEN,
    HTTP_EXT_AUTHZ_INVALID,
];

/// The counters of external authorization of connections, in the order of what is counted.
pub const EXT_AUTHZ: [&str; 7] = [
    EXT_AUTHZ_OK,
    EXT_AUTHZ_DENIED,
    EXT_AUTHZ_ERROR,
    EXT_AUTHZ_TIMEOUT,
    EXT_AUTHZ_DISABLED,
    EXT_AUTHZ_FAILED_OPEN,
    EXT_AUTHZ_INVALID,
];
