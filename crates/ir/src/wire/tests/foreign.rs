//! Messages as Istio's control plane and Envoy's examples write them.

#![expect(
    clippy::too_many_lines,
    reason = "tables of cases, in the messages' own shapes"
)]

use std::time::Duration;

use rajut_proto::reflect;
use serde_json::{Value, json};

use super::super::*;
use crate::{
    cluster::{CircuitBreakers, Discovery, LbPolicy, UpstreamProtocol},
    filter::{CORS, FAULT},
    http::{ForwardClientCert, RouteSource},
    listener::{ChainAction, Direction},
    route::{RetryOn, RouteActionKind, Target},
};

fn bytes(type_name: &str, json: &Value) -> Vec<u8> {
    reflect::json_to_message(type_name, json).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn decoded<T>(result: DecodeResult<T>) -> Decoded<T> {
    result.unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn an_outbound_cluster_of_istio_is_taken() {
    let message = json!({
        "name": "outbound|8080|v1|reviews.prod.svc.cluster.local",
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "service_name": "outbound|8080|v1|reviews.prod.svc.cluster.local"
        },
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{
            "max_connections": 4_294_967_295u32, "max_pending_requests": 4_294_967_295u32,
            "max_requests": 4_294_967_295u32, "max_retries": 4_294_967_295u32, "track_remaining": true
        }]},
        "outlier_detection": {
            "consecutive_5xx": 7, "interval": "5s", "base_ejection_time": "900s", "max_ejection_percent": 50,
            "enforcing_consecutive_5xx": 100, "enforcing_success_rate": 0
        },
        "common_lb_config": {"locality_weighted_lb_config": {}, "healthy_panic_threshold": {}},
        "metadata": {"filter_metadata": {"istio": {
            "config": "/apis/networking.istio.io/v1/namespaces/prod/destination-rule/reviews",
            "services": [{"host": "reviews.prod.svc.cluster.local", "name": "reviews", "namespace": "prod"}]
        }}},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}
        }},
        "transport_socket_matches": [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {
                "name": "envoy.transport_sockets.tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                        "alpn_protocols": ["istio-peer-exchange", "istio", "h2"],
                        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {
                            "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
                                "set_node_on_first_message_only": true,
                                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]},
                            "initial_fetch_timeout": "0s", "resource_api_version": "V3"}}],
                        "combined_validation_context": {
                            "default_validation_context": {"match_typed_subject_alt_names": [
                                {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/prod/sa/reviews"}}]},
                            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": {
                                "api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
                                    "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}}}
                        }
                    },
                    "sni": "outbound_.8080_.v1_.reviews.prod.svc.cluster.local"
                }}},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}
        ],
        "filters": [{"name": "istio.metadata_exchange", "typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
            "value": {"protocol": "istio-peer-exchange", "enable_discovery": true}}}]
    });
    let cluster = decoded(decode_cluster(&bytes(
        "envoy.config.cluster.v3.Cluster",
        &message,
    )));
    let ignored: Vec<_> = cluster.ignored.iter().map(|it| it.path.as_str()).collect();
    assert!(ignored.contains(&"filters[0]"), "{ignored:?}");
    assert!(
        ignored.contains(&"circuit_breakers.thresholds[0].track_remaining"),
        "{ignored:?}"
    );
    let cluster = cluster.value;
    assert_eq!(cluster.circuit_breakers, CircuitBreakers::UNLIMITED);
    assert_eq!(cluster.lb_policy, LbPolicy::LeastRequest { choices: 2 });
    assert_eq!(cluster.panic_threshold.millionths(), 0);
    assert!(cluster.locality_weighted);
    assert!(matches!(cluster.protocol, UpstreamProtocol::UseDownstream(..)));
    assert!(matches!(&cluster.discovery, Discovery::Eds { service_name } if service_name.ends_with("local")));
    let service = cluster.service.expect("the metadata names it");
    assert_eq!((&*service.name, &*service.namespace), ("reviews", "prod"));
    let tls = cluster.tls_matches[0].tls.as_ref().expect("TLS");
    let validation = tls.common.validation.as_ref().expect("combined");
    assert_eq!(validation.sds.as_deref(), Some("ROOTCA"));
    assert_eq!(validation.context.subject_alt_names.len(), 1);
    assert_eq!(cluster.tls_matches[1].tls, None);
    let outlier = cluster.outlier_detection.expect("it is there");
    assert_eq!(
        (outlier.consecutive_5xx, outlier.consecutive_gateway_failure),
        (Some(7), None)
    );
    assert_eq!(outlier.max_ejection_time, Duration::from_mins(15));
}

fn manager_of_istio() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound_0.0.0.0_8080;",
        "route_config": {
            "name": "inbound|8080||",
            "validate_clusters": false,
            "virtual_hosts": [{"name": "inbound|http|8080", "domains": ["*"], "routes": [{
                "name": "default", "match": {"prefix": "/"},
                "decorator": {"operation": "reviews.prod.svc.cluster.local:8080/*"},
                "route": {"cluster": "inbound|8080||", "timeout": "0s",
                    "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}}]}]
        },
        "http_filters": [
            {"name": "istio.metadata_exchange", "typed_config": {
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "type.googleapis.com/io.istio.http.peer_metadata.Config", "value": {}}},
            {"name": "envoy.filters.http.grpc_stats", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
                "emit_filter_state": true, "stats_for_all_methods": false}},
            {"name": "istio.alpn", "typed_config": {
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"}},
            {"name": "envoy.filters.http.fault", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}},
            {"name": "envoy.filters.http.cors", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}},
            {"name": "envoy.filters.http.rbac", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"action": "DENY"}}},
            {"name": "envoy.filters.http.rbac", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"action": "ALLOW"}}},
            {"name": "istio.stats", "typed_config": {
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "type.googleapis.com/stats.PluginConfig", "value": {}}},
            {"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
        ],
        "tracing": {"client_sampling": {"value": 100.0}, "random_sampling": {"value": 1.0}, "overall_sampling": {"value": 100.0}},
        "server_name": "istio-envoy",
        "use_remote_address": false,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "normalize_path": true,
        "request_id_extension": {"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
            "use_request_id_for_trace_sampling": true}},
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "delayed_close_timeout": "1s",
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"text_format_source": {"inline_string": "[%START_TIME%]\n"}}}}]
    })
}

#[test]
fn an_inbound_listener_of_istio_is_taken() {
    let message = json!({
        "name": "virtualInbound",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
        "use_original_dst": true,
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": true,
        "listener_filters_timeout": "0s",
        "connection_balance_config": {"exact_balance": {}},
        "listener_filters": [
            {"name": "envoy.filters.listener.original_dst", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}},
            {"name": "envoy.filters.listener.tls_inspector", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}},
            {"name": "envoy.filters.listener.http_inspector",
             "filter_disabled": {"not_match": {"destination_port_range": {"start": 8080, "end": 8081}}},
             "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}
        ],
        "access_log": [{"name": "envoy.access_loggers.file",
            "filter": {"response_flag_filter": {"flags": ["NR"]}},
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": "/dev/stdout"}}],
        "filter_chains": [
            {"name": "virtualInbound-blackhole",
             "filter_chain_match": {"destination_port": 15006},
             "filters": [
                {"name": "istio.stats", "typed_config": {
                    "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                    "type_url": "type.googleapis.com/stats.PluginConfig"}},
                {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "BlackHoleCluster", "cluster": "BlackHoleCluster"}}]},
            {"name": "0.0.0.0_8080",
             "filter_chain_match": {"destination_port": 8080, "transport_protocol": "tls",
                "application_protocols": ["istio-http/1.1", "istio"]},
             "transport_socket_connect_timeout": "15s",
             "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": {
                    "alpn_protocols": ["istio-peer-exchange", "h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2",
                        "cipher_suites": ["ECDHE-ECDSA-AES256-GCM-SHA384"]},
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {"ads": {}}}],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": [
                            {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}]},
                        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": {"ads": {}}}}
                }}},
             "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager_of_istio()}]}
        ]
    });
    let listener = decoded(decode_listener(&bytes(
        "envoy.config.listener.v3.Listener",
        &message,
    )));
    let what: Vec<_> = listener.ignored.iter().map(|it| &*it.what).collect();
    for expected in [
        "istio.stats",
        "istio.alpn",
        "istio.metadata_exchange",
        "envoy.filters.http.grpc_stats",
        "envoy.config.listener.v3.Listener.connection_balance_config",
    ] {
        assert!(what.contains(&expected), "{expected} is not in {what:?}");
    }
    let listener = listener.value;
    assert_eq!(listener.direction, Direction::Inbound);
    assert!(listener.use_original_dst && listener.continue_on_inspection_timeout);
    assert_eq!(listener.inspection_timeout, Duration::ZERO);
    let ChainAction::Http(manager) = &listener.filter_chains[1].action else {
        panic!("HTTP");
    };
    assert_eq!(manager.forward_client_cert, ForwardClientCert::AppendForward);
    // One for DENY and one for ALLOW, both of one name, and the router.
    let names: Vec<&str> = manager.filters.iter().map(|filter| &*filter.name).collect();
    let rbac = "envoy.filters.http.rbac";
    assert_eq!(names, [FAULT, CORS, rbac, rbac, "envoy.filters.http.router"]);
    assert!(manager.unescape_slashes);
    let RouteSource::Inline(routes) = &manager.routes else {
        panic!("in place");
    };
    let RouteActionKind::Forward(forward) = &routes.virtual_hosts[0].routes[0].action else {
        panic!("forward");
    };
    assert_eq!(forward.timeout, None);
    assert_eq!(forward.max_stream_duration, None);
    assert_eq!(forward.grpc_timeout_max, Some(Duration::ZERO));
    assert_eq!(&*routes.virtual_hosts[0].origin.source, "xds");
}

#[test]
fn routes_of_istio_are_taken_with_their_retries() {
    let message = json!({
        "name": "8080",
        "validate_clusters": false,
        "max_direct_response_body_size_bytes": 1_048_576,
        "ignore_port_in_host_matching": true,
        "virtual_hosts": [
            {"name": "allow_any", "domains": ["*"], "include_request_attempt_count": true, "routes": [{
                "name": "allow_any", "match": {"prefix": "/"},
                "route": {"cluster": "PassthroughCluster", "timeout": "0s",
                    "max_grpc_timeout": "0s"}}]},
            {"name": "reviews.prod.svc.cluster.local:8080",
             "domains": ["reviews.prod.svc.cluster.local", "reviews", "10.96.0.7"],
             "include_request_attempt_count": true,
             "routes": [{
                "match": {"prefix": "/", "case_sensitive": true,
                    "headers": [{"name": "end-user", "string_match": {"exact": "jason"}},
                        {"name": "x-not", "invert_match": true, "treat_missing_header_as_empty": true,
                         "string_match": {"prefix": "a"}}],
                    "runtime_fraction": {"default_value": {"numerator": 25, "denominator": "HUNDRED"}, "runtime_key": "k"}},
                "route": {
                    "weighted_clusters": {"clusters": [
                        {"name": "outbound|8080|v1|reviews", "weight": 80},
                        {"name": "outbound|8080|v2|reviews", "weight": 20}], "total_weight": 100},
                    "timeout": "0s",
                    "retry_policy": {
                        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                        "num_retries": 2,
                        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
                        "host_selection_retry_max_attempts": "5",
                        "retriable_status_codes": [503]
                    },
                    "max_grpc_timeout": "0s"
                },
                "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/prod/virtual-service/reviews"}}},
                "decorator": {"operation": "reviews.prod.svc.cluster.local:8080/*"}
            }]}
        ]
    });
    let routes = decoded(decode_route_configuration(&bytes(
        "envoy.config.route.v3.RouteConfiguration",
        &message,
    )));
    let routes = routes.value;
    let RouteActionKind::Forward(forward) = &routes.virtual_hosts[1].routes[0].action else {
        panic!("forward");
    };
    let Target::Weighted(clusters) = &forward.target else {
        panic!("weighted");
    };
    assert_eq!(clusters.iter().map(|it| it.weight).collect::<Vec<_>>(), [80, 20]);
    let retry = forward.retry.as_ref().expect("it is there");
    assert_eq!((retry.num_retries, retry.avoid_previous_hosts_attempts), (2, 5));
    assert!(retry.on.has(RetryOn::CANCELLED) && retry.on.has(RetryOn::RETRIABLE_STATUS_CODES));
    assert_eq!(
        (retry.base_interval.as_millis(), retry.max_interval.as_millis()),
        (25, 250)
    );
    assert_eq!(forward.grpc_timeout_max, Some(Duration::ZERO));
    let fraction = routes.virtual_hosts[1].routes[0].matches.fraction;
    assert_eq!(fraction.map(rajut_types::Percent::millionths), Some(250_000));
}

#[test]
fn defaults_are_envoys_where_a_field_is_left_out() {
    let message = json!({
        "name": "r",
        "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "c", "retry_policy": {"retry_on": "5xx"}}}]}]
    });
    let routes = decoded(decode_route_configuration(&bytes(
        "envoy.config.route.v3.RouteConfiguration",
        &message,
    )));
    let RouteActionKind::Forward(forward) = &routes.value.virtual_hosts[0].routes[0].action else {
        panic!("forward");
    };
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    let retry = forward.retry.as_ref().expect("it is there");
    assert_eq!((retry.num_retries, retry.avoid_previous_hosts_attempts), (1, 0));
    let message = json!({"name": "c", "load_assignment": {"cluster_name": "c"}, "outlier_detection": {}});
    let cluster = decoded(decode_cluster(&bytes(
        "envoy.config.cluster.v3.Cluster",
        &message,
    )));
    assert_eq!(
        cluster.ignored.len(),
        1,
        "success rates are not looked at, and that is told"
    );
    let cluster = cluster.value;
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.circuit_breakers, CircuitBreakers::ENVOY);
    assert_eq!(cluster.panic_threshold.millionths(), 500_000);
    assert_eq!(cluster.idle_timeout, Some(Duration::from_hours(1)));
    let outlier = cluster.outlier_detection.expect("it is there");
    assert_eq!(
        (outlier.consecutive_5xx, outlier.max_ejection_percent.millionths()),
        (Some(5), 100_000)
    );
}

#[test]
fn endpoints_of_istio_keep_workload_and_tls_mode() {
    let message = json!({
        "cluster_name": "outbound|8080||reviews",
        "endpoints": [{
            "locality": {"region": "r", "zone": "z"},
            "load_balancing_weight": 2,
            "lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {"address": "10.0.0.9", "port_value": 8080}}},
                "health_status": "DRAINING",
                "load_balancing_weight": 1,
                "metadata": {"filter_metadata": {
                    "envoy.transport_socket_match": {"tlsMode": "istio"},
                    "istio": {"workload": "reviews-v1;prod;reviews;v1;Kubernetes"}}}
            }]
        }]
    });
    let type_name = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    let assignment = decoded(decode_load_assignment(&bytes(type_name, &message))).value;
    let endpoint = assignment.endpoints().next().expect("one");
    assert_eq!(endpoint.tls_labels.find("tlsMode"), Some("istio"));
    assert_eq!(&*endpoint.workload, "reviews-v1;prod;reviews;v1;Kubernetes");
    assert!(!endpoint.health.is_usable());
}
