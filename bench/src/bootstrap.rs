//! Envoy bootstrap files, from which we and Envoy run alike.
//!
//! What a sidecar has at least: a connection manager with the router, routes by host, prefix and header, Istio's
//! default retries, circuit breakers with a place to count, statistics. Limits and timers are written out rather than
//! left to defaults, so that both have the same and the report can print them ([`LIMITS`]). With everything on: access
//! rules, a local rate limit, a JSON access log and tracing stand around the same hop.

pub(crate) mod large;

use serde_json::{Map, Value, json};

use crate::peer::Places;
use crate::set::{Answers, Kind, Set, Way};

/// Limits and timers of every HTTP listener, by field, as they are written into the bootstrap and printed.
pub(crate) const LIMITS: &[(&str, &str)] = &[
    ("common_http_protocol_options.idle_timeout", "3600s"),
    ("common_http_protocol_options.max_headers_count", "100"),
    ("max_request_headers_kb", "60"),
    ("stream_idle_timeout", "300s"),
    ("request_headers_timeout", "30s"),
    ("drain_timeout", "5s"),
    ("http2_protocol_options.max_concurrent_streams", "1024"),
    ("http2_protocol_options.initial_stream_window_size", "262144"),
    ("http2_protocol_options.initial_connection_window_size", "1048576"),
    ("per_connection_buffer_limit_bytes", "1048576"),
    ("cluster: connect_timeout", "10s"),
    (
        "cluster: circuit breakers max_connections, max_pending_requests, max_requests",
        "65536",
    ),
    (
        "route: timeout",
        "0s, two retries of connect-failure, refused-stream, unavailable, cancelled",
    ),
];

/// Most of each that a cluster has at a time: high enough not to be reached, low enough to be a limit.
const BREAKER: u64 = 65_536;
/// A limit that is on and not reached: requests per second.
const RATE_LIMIT: u64 = 1_000_000;
/// Traces of so many requests in a hundred.
const TRACED_PERCENT: f64 = 1.0;

/// One file: its name and what stands in it.
pub(crate) type File = (String, Value);

/// The files of a set, one per process, the last hop first. `off`: with everything off that the set has on.
pub(crate) fn files(set: &Set, places: &Places, off: bool) -> Vec<File> {
    if set.kind == Kind::Large {
        return vec![("large.yaml".to_owned(), large::bootstrap(places))];
    }
    let plain = Hop {
        listen: places.front,
        to: places.backend(set),
        tls_in: false,
        tls_out: false,
        http2_in: set.answers == Answers::Http2 || set.answers == Answers::Grpc,
        http2_out: set.answers == Answers::Http2 || set.answers == Answers::Grpc,
        policies: if off { 0 } else { set.policies },
    };
    let one = |name: &str, hop: &Hop, small: &Hop| {
        let value = if set.kind == Kind::Tcp {
            tcp(hop, small, places)
        } else {
            http(hop, places)
        };
        (name.to_owned(), value)
    };
    let small = Hop {
        listen: places.second,
        to: places.backends.echo,
        ..plain
    };
    match set.way {
        Way::Plain if off => vec![one("hop-off.yaml", &plain, &small)],
        Way::Plain => vec![one("hop.yaml", &plain, &small)],
        Way::TlsIn => {
            let terminating = Hop {
                tls_in: true,
                ..plain
            };
            vec![one("hop.yaml", &terminating, &small)]
        }
        Way::TlsBetween { http2 } => {
            let server = |hop: Hop, middle| Hop {
                listen: middle,
                tls_in: true,
                http2_in: http2,
                ..hop
            };
            let client = |hop: Hop, middle| Hop {
                to: middle,
                tls_out: true,
                http2_out: http2,
                ..hop
            };
            vec![
                one(
                    "server.yaml",
                    &server(plain, places.middle),
                    &server(small, places.middle_small),
                ),
                one(
                    "client.yaml",
                    &client(plain, places.middle),
                    &client(small, places.middle_small),
                ),
            ]
        }
    }
}

/// What the probes run through, behind which `origin` listens; the log gets `fields`.
pub(crate) fn probes(places: &Places, origin: u16, fields: &[(&str, &str)]) -> String {
    let fields: Map<String, Value> = fields
        .iter()
        .map(|(name, operator)| ((*name).to_owned(), json!(operator)))
        .collect();
    include_str!("bootstrap/probes.yaml")
        .replace("{{front}}", &places.front.to_string())
        .replace("{{origin}}", &origin.to_string())
        .replace("{{log}}", &places.file("probes.log"))
        .replace("{{log_fields}}", &Value::Object(fields).to_string())
}

/// One process on the way.
#[derive(Debug, Clone, Copy)]
struct Hop {
    listen: u16,
    to: u16,
    tls_in: bool,
    tls_out: bool,
    http2_in: bool,
    http2_out: bool,
    policies: usize,
}

fn http(hop: &Hop, places: &Places) -> Value {
    let on = hop.policies > 0;
    let mut manager = manager(http_filters(hop.policies), virtual_hosts());
    if on {
        manager["access_log"] = access_log(&places.file("access.log"), LOG_FIELDS);
        manager["tracing"] = tracing();
    }
    let mut clusters = vec![cluster("backend", hop.to, hop.http2_out)];
    if hop.tls_out {
        clusters[0]["transport_socket"] = upstream_tls(places, alpn(hop.http2_out));
    }
    if on {
        clusters.push(cluster("collector", places.backends.collector, true));
    }
    let tls = hop.tls_in.then(|| downstream_tls(places, alpn(hop.http2_in)));
    bootstrap(
        vec![listener("inbound", hop.listen, connection_manager(manager), tls)],
        clusters,
    )
}

fn tcp(bulk: &Hop, small: &Hop, places: &Places) -> Value {
    let mut listeners = Vec::new();
    let mut clusters = Vec::new();
    for (name, hop) in [("bulk", bulk), ("small", small)] {
        let filter = json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": type_url("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": name, "cluster": name, "idle_timeout": "3600s",
            },
        });
        let tls = hop.tls_in.then(|| downstream_tls(places, "istio"));
        listeners.push(listener(name, hop.listen, filter, tls));
        let mut cluster = cluster(name, hop.to, false);
        if hop.tls_out {
            cluster["transport_socket"] = upstream_tls(places, "istio");
        }
        clusters.push(cluster);
    }
    bootstrap(listeners, clusters)
}

fn bootstrap(listeners: Vec<Value>, clusters: Vec<Value>) -> Value {
    json!({
        "node": { "id": "bench", "cluster": "bench" },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

fn type_url(message: &str) -> String {
    format!("type.googleapis.com/{message}")
}

fn address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

fn listener(name: &str, port: u16, filter: Value, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [filter] });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({
        "name": name, "address": address("127.0.0.1", port), "per_connection_buffer_limit_bytes": 1_048_576,
        "filter_chains": [chain],
    })
}

fn connection_manager(config: Value) -> Value {
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": config })
}

/// The connection manager with the limits of [`LIMITS`].
fn manager(filters: Vec<Value>, virtual_hosts: Value) -> Value {
    json!({
        "@type": type_url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "inbound",
        "codec_type": "AUTO",
        "normalize_path": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "common_http_protocol_options": { "idle_timeout": "3600s", "max_headers_count": 100 },
        "max_request_headers_kb": 60,
        "stream_idle_timeout": "300s",
        "request_headers_timeout": "30s",
        "drain_timeout": "5s",
        "http2_protocol_options": {
            "max_concurrent_streams": 1024,
            "initial_stream_window_size": 262_144,
            "initial_connection_window_size": 1_048_576,
        },
        "http_filters": filters,
        "route_config": { "name": "routes", "virtual_hosts": virtual_hosts },
    })
}

fn virtual_hosts() -> Value {
    json!([
        {
            "name": "other",
            "domains": ["other.bench.example", "other.bench", "10.1.2.3"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }],
        },
        {
            "name": "bench",
            "domains": ["*"],
            "routes": [
                {
                    "name": "canary",
                    "match": {
                        "prefix": "/bench",
                        "headers": [{ "name": "x-canary", "string_match": { "exact": "1" } }],
                    },
                    "route": { "cluster": "backend" },
                },
                { "name": "default", "match": { "prefix": "/" }, "route": to_cluster("backend") },
            ],
        },
    ])
}

/// Istio's default for a service.
fn to_cluster(cluster: &str) -> Value {
    json!({
        "cluster": cluster,
        "timeout": "0s",
        "retry_policy": { "num_retries": 2, "retry_on": "connect-failure,refused-stream,unavailable,cancelled" },
    })
}

fn cluster(name: &str, port: u16, http2: bool) -> Value {
    cluster_of(name, &["127.0.0.1".to_owned()], port, http2)
}

fn cluster_of(name: &str, hosts: &[String], port: u16, http2: bool) -> Value {
    let endpoints: Vec<Value> = hosts
        .iter()
        .map(|host| json!({ "endpoint": { "address": address(host, port) } }))
        .collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": 1_048_576,
        "circuit_breakers": { "thresholds": [{
            "max_connections": BREAKER, "max_pending_requests": BREAKER, "max_requests": BREAKER,
        }] },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    if http2 {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"] = json!({ options: {
            "@type": type_url(options),
            "explicit_http_config": { "http2_protocol_options": {
                "initial_stream_window_size": 262_144, "initial_connection_window_size": 1_048_576,
            } },
        } });
    }
    cluster
}

// --- TLS ---

fn alpn(http2: bool) -> &'static str {
    if http2 { "h2" } else { "http/1.1" }
}

fn tls_common(places: &Places, alpn: &str) -> Value {
    json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "alpn_protocols": [alpn],
        "tls_certificates": [{
            "certificate_chain": { "filename": places.file("leaf.pem") },
            "private_key": { "filename": places.file("leaf.key") },
        }],
        "validation_context": {
            "trusted_ca": { "filename": places.file("ca.pem") },
            "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "exact": "spiffe://bench.example/ns/default/sa/bench" } },
            ],
        },
    })
}

fn downstream_tls(places: &Places, alpn: &str) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": tls_common(places, alpn),
    } })
}

fn upstream_tls(places: &Places, alpn: &str) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "bench.example",
        "common_tls_context": tls_common(places, alpn),
    } })
}

// --- what can be on ---

/// The filters before and with the router.
fn http_filters(policies: usize) -> Vec<Value> {
    let mut filters = Vec::new();
    if policies > 0 {
        filters.extend(rbac(policies));
        filters.push(rate_limit(RATE_LIMIT));
    }
    filters.push(router());
    filters
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": type_url("envoy.extensions.filters.http.router.v3.Router") },
    })
}

/// Two filters as Istio makes them: what is denied, then what is allowed. Three sevenths of the policies deny; the one
/// that allows the load's requests stands last (both sides evaluate in the order of their names).
fn rbac(policies: usize) -> [Value; 2] {
    let denying = policies * 3 / 7;
    let rule = |number: usize| {
        json!({
            "permissions": [{ "and_rules": { "rules": [
                { "or_rules": { "rules": [
                    { "header": { "name": ":method", "string_match": { "exact": "DELETE" } } },
                    { "header": { "name": ":method", "string_match": { "exact": "PUT" } } },
                ] } },
                { "or_rules": { "rules": [
                    { "url_path": { "path": { "prefix": format!("/admin/{number}/") } } },
                    { "url_path": { "path": { "exact": format!("/internal/{number}") } } },
                ] } },
            ] } }],
            "principals": [{ "and_ids": { "ids": [{ "or_ids": { "ids": [
                { "authenticated": { "principal_name": {
                    "exact": format!("spiffe://bench.example/ns/team-{number}/sa/worker-{number}"),
                } } },
                { "direct_remote_ip": { "address_prefix": format!("10.{}.0.0", number % 250), "prefix_len": 16 } },
            ] } }] } }],
        })
    };
    let last = json!({
        "permissions": [{ "and_rules": { "rules": [
            { "or_rules": { "rules": [
                { "header": { "name": ":method", "string_match": { "exact": "GET" } } },
                { "header": { "name": ":method", "string_match": { "exact": "POST" } } },
            ] } },
            { "or_rules": { "rules": [{ "url_path": { "path": { "prefix": "/bench/" } } }] } },
        ] } }],
        "principals": [{ "direct_remote_ip": { "address_prefix": "127.0.0.0", "prefix_len": 8 } }],
    });
    let named = |numbers: std::ops::Range<usize>| -> Map<String, Value> {
        let name = |number| format!("ns[bench]-policy[rule-{number:04}]-rule[0]");
        numbers.map(|number| (name(number), rule(number))).collect()
    };
    let denied = named(0..denying);
    let mut allowed = named(denying..policies - 1);
    allowed.insert("ns[bench]-policy[the-load]-rule[0]".to_owned(), last);
    [rbac_filter("DENY", denied), rbac_filter("ALLOW", allowed)]
}

fn rbac_filter(action: &str, policies: Map<String, Value>) -> Value {
    json!({ "name": format!("rbac-{}", action.to_lowercase()), "typed_config": {
        "@type": type_url("envoy.extensions.filters.http.rbac.v3.RBAC"),
        "rules": { "action": action, "policies": policies },
    } })
}

fn rate_limit(per_second: u64) -> Value {
    let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
    json!({ "name": "envoy.filters.http.local_ratelimit", "typed_config": {
        "@type": type_url("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"),
        "stat_prefix": "bench",
        "token_bucket": { "max_tokens": per_second, "tokens_per_fill": per_second, "fill_interval": "1s" },
        "filter_enabled": always, "filter_enforced": always,
    } })
}

/// The fields of Istio's own JSON access log.
pub(crate) const LOG_FIELDS: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

fn access_log(path: &str, fields: &[(&str, &str)]) -> Value {
    let fields: Map<String, Value> = fields
        .iter()
        .map(|(name, operator)| ((*name).to_owned(), json!(operator)))
        .collect();
    json!([{ "name": "envoy.access_loggers.file", "typed_config": {
        "@type": type_url("envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        "path": path, "log_format": { "json_format": fields },
    } }])
}

fn tracing() -> Value {
    json!({
        "random_sampling": { "value": TRACED_PERCENT },
        "provider": { "name": "envoy.tracers.opentelemetry", "typed_config": {
            "@type": type_url("envoy.config.trace.v3.OpenTelemetryConfig"),
            "service_name": "bench",
            "grpc_service": { "envoy_grpc": { "cluster_name": "collector" }, "timeout": "1s" },
        } },
    })
}
