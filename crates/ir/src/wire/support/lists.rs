//! The lists themselves; see the parent module.

use super::Lists;

/// One line of the table per message.
macro_rules! lists {
    ($($message:literal: [$($supported:literal)*] ignorable [$($ignorable:literal)*] instead [$($field:literal = $text:literal)*];)*) => {
        pub(super) static LISTS: &[Lists] = &[$(Lists {
            message: $message,
            supported: &[$($supported),*],
            ignorable: &[$($ignorable),*],
            instead: &[$(($field, $text)),*],
        }),*];
    };
}

#[rustfmt::skip]
lists! {
    "envoy.config.accesslog.v3.AccessLog": [
        "name" "filter" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.accesslog.v3.AccessLogFilter": [
        "response_flag_filter" "status_code_filter" "duration_filter" "not_health_check_filter" "traceable_filter"
        "runtime_filter" "and_filter" "or_filter" "header_filter" "grpc_status_filter" "extension_filter"
        "metadata_filter" "log_type_filter"
    ] ignorable [] instead [];
    "envoy.config.accesslog.v3.ExtensionFilter": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.accesslog.v3.ResponseFlagFilter": [
        "flags"
    ] ignorable [] instead [];
    "envoy.config.bootstrap.v3.Admin": [
        "address"
    ] ignorable [
        "access_log" "access_log_path" "profile_path" "socket_options" "ignore_global_conn_limit"
    ] instead [
        "allow_paths" = "the admin address is meant for the loopback interface"
    ];
    "envoy.config.bootstrap.v3.Bootstrap": [
        "node" "static_resources" "dynamic_resources" "admin" "cluster_manager"
    ] ignorable [
        "node_context_params" "flags_path" "deferred_stat_options" "stats_config"
        "stats_flush_interval" "stats_flush_on_admin" "stats_eviction_interval" "watchdog" "watchdogs" "tracing"
        "layered_runtime" "overload_manager" "enable_dispatcher_stats" "header_prefix"
        "stats_server_version_override" "use_tcp_for_dns_lookups" "typed_dns_resolver_config"
        "perf_tracing_file_path" "default_regex_engine" "application_log_config" "grpc_async_client_manager_config"
        "memory_allocator_manager" "enable_worker_cpu_affinity" "inline_headers" "listener_manager"
    ] instead [
        "stats_sinks" = "read /stats/prometheus of the admin address"
        "hds_config" = "health is not reported"
        "dns_resolution_config" = "names are resolved by the system's resolver"
        "config_sources" = "write dynamic_resources.ads_config"
        "default_config_source" = "write dynamic_resources.ads_config"
    ];
    "envoy.config.bootstrap.v3.Bootstrap.DynamicResources": [
        "lds_config" "cds_config" "ads_config"
    ] ignorable [] instead [
        "lds_resources_locator" = "the wildcard subscription is used"
        "cds_resources_locator" = "the wildcard subscription is used"
    ];
    "envoy.config.bootstrap.v3.Bootstrap.StaticResources": [
        "listeners" "clusters" "secrets"
    ] ignorable [] instead [];
    "envoy.config.bootstrap.v3.ClusterManager": [
        "load_stats_config"
    ] ignorable [
        "local_cluster_name" "outlier_detection" "enable_deferred_cluster_creation"
    ] instead [
        "upstream_bind_config" = "write it on each cluster"
    ];
    "envoy.config.cluster.v3.CircuitBreakers": [
        "thresholds"
    ] ignorable [] instead [
        "per_host_thresholds" = "limits are per cluster"
    ];
    "envoy.config.cluster.v3.CircuitBreakers.Thresholds": [
        "priority" "max_connections" "max_pending_requests" "max_requests" "max_retries" "retry_budget"
    ] ignorable [
        "track_remaining" "max_connection_pools"
    ] instead [];
    "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget": [
        "budget_percent" "min_retry_concurrency"
    ] ignorable [
        "budget_interval"
    ] instead [];
    "envoy.config.cluster.v3.Cluster": [
        "transport_socket_matches" "name" "alt_stat_name" "type" "eds_cluster_config" "connect_timeout"
        "per_connection_buffer_limit_bytes" "lb_policy" "load_assignment" "max_requests_per_connection"
        "circuit_breakers" "upstream_http_protocol_options" "common_http_protocol_options" "http_protocol_options"
        "http2_protocol_options" "typed_extension_protocol_options" "dns_refresh_rate" "respect_dns_ttl"
        "dns_lookup_family" "outlier_detection" "upstream_bind_config" "ring_hash_lb_config" "maglev_lb_config"
        "original_dst_lb_config" "least_request_lb_config" "round_robin_lb_config" "common_lb_config"
        "transport_socket" "metadata" "upstream_connection_options" "close_connections_on_host_health_failure"
        "filters" "health_checks" "ignore_health_on_host_removal"
    ] ignorable [
        "stats_matcher" "per_connection_buffer_high_watermark_timeout" "dns_jitter" "dns_failure_refresh_rate"
        "use_tcp_for_dns_lookups" "typed_dns_resolver_config" "wait_for_warm_on_init" "cleanup_interval"
        "track_timeout_budgets" "track_cluster_stats" "preconnect_policy"
        "lrs_report_endpoint_metrics"
    ] instead [
        "lb_subset_config" = "write a cluster for each subset"
        "cluster_type" = "write type"
        "load_balancing_policy" = "write lb_policy"
        "dns_resolvers" = "names are resolved by the system's resolver"
        "dns_resolution_config" = "names are resolved by the system's resolver"
        "protocol_selection" = "write use_downstream_protocol_config in the HTTP protocol options"
        "transport_socket_matcher" = "write transport_socket_matches"
        "lrs_server" = "write load_stats_config of the cluster manager"
        "connection_pool_per_downstream_connection" = "connections are shared"
    ];
    "envoy.config.cluster.v3.Cluster.CommonLbConfig": [
        "healthy_panic_threshold" "locality_weighted_lb_config"
    ] ignorable [
        "zone_aware_lb_config" "update_merge_window" "ignore_new_hosts_until_first_hc" "override_host_status"
    ] instead [
        "consistent_hashing_lb_config" = "addresses are hashed"
        "close_connections_on_host_set_change" = "write close_connections_on_host_health_failure"
    ];
    "envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig": [] ignorable [] instead [];
    "envoy.config.cluster.v3.Cluster.EdsClusterConfig": [
        "eds_config" "service_name"
    ] ignorable [] instead [];
    "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": [
        "choice_count"
    ] ignorable [] instead [
        "active_request_bias" = "the bias is 1"
        "slow_start_config" = "endpoints get their full share at once"
    ];
    "envoy.config.cluster.v3.Cluster.MaglevLbConfig": [
        "table_size"
    ] ignorable [] instead [];
    "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig": [] ignorable [] instead [
        "use_http_header" = "the address that the client dialled is used"
        "upstream_port_override" = "the port that the client dialled is used"
    ];
    "envoy.config.cluster.v3.Cluster.RingHashLbConfig": [
        "minimum_ring_size"
    ] ignorable [
        "hash_function" "maximum_ring_size"
    ] instead [];
    "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig": [] ignorable [] instead [
        "slow_start_config" = "endpoints get their full share at once"
    ];
    "envoy.config.cluster.v3.Cluster.TransportSocketMatch": [
        "name" "match" "transport_socket"
    ] ignorable [] instead [];
    "envoy.config.cluster.v3.Filter": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.cluster.v3.OutlierDetection": [
        "consecutive_5xx" "interval" "base_ejection_time" "max_ejection_percent" "enforcing_consecutive_5xx"
        "enforcing_success_rate" "consecutive_gateway_failure" "enforcing_consecutive_gateway_failure"
        "split_external_local_origin_errors" "consecutive_local_origin_failure"
        "enforcing_consecutive_local_origin_failure" "enforcing_local_origin_success_rate"
        "enforcing_failure_percentage" "enforcing_failure_percentage_local_origin" "max_ejection_time"
    ] ignorable [
        "success_rate_minimum_hosts" "success_rate_request_volume" "success_rate_stdev_factor"
        "failure_percentage_threshold" "failure_percentage_minimum_hosts" "failure_percentage_request_volume"
        "max_ejection_time_jitter" "successful_active_health_check_uneject_host"
    ] instead [
        "always_eject_one_host" = "write a larger max_ejection_percent"
    ];
    "envoy.config.cluster.v3.UpstreamConnectionOptions": [
        "tcp_keepalive"
    ] ignorable [
        "set_local_interface_name_on_upstream_connections" "happy_eyeballs_config"
    ] instead [];
    "envoy.config.common.matcher.v3.HttpHeadersMatch": [
        "headers"
    ] ignorable [] instead [];
    "envoy.config.common.matcher.v3.MatchPredicate": [
        "or_match" "http_response_headers_match"
    ] ignorable [] instead [
        "and_match" = "write or_match of statuses"
        "not_match" = "write or_match of statuses"
        "any_match" = "write or_match of statuses"
        "http_request_headers_match" = "write http_response_headers_match of `:status`"
        "http_request_trailers_match" = "write http_response_headers_match of `:status`"
        "http_response_trailers_match" = "write http_response_headers_match of `:status`"
        "http_request_generic_body_match" = "write http_response_headers_match of `:status`"
        "http_response_generic_body_match" = "write http_response_headers_match of `:status`"
    ];
    "envoy.config.common.matcher.v3.MatchPredicate.MatchSet": [
        "rules"
    ] ignorable [] instead [];
    "envoy.config.core.v3.Address": [
        "socket_address" "pipe" "envoy_internal_address"
    ] ignorable [] instead [];
    "envoy.config.core.v3.AggregatedConfigSource": [] ignorable [] instead [];
    "envoy.config.core.v3.ApiConfigSource": [
        "api_type" "transport_api_version" "grpc_services" "cluster_names"
    ] ignorable [
        "refresh_delay" "request_timeout" "rate_limit_settings" "set_node_on_first_message_only"
        "config_validators"
    ] instead [];
    "envoy.config.core.v3.BindConfig": [
        "source_address" "socket_options"
    ] ignorable [
        "freebind" "validate_network_namespaces"
    ] instead [
        "additional_source_addresses" = "write one source_address"
        "extra_source_addresses" = "write one source_address"
    ];
    "envoy.config.core.v3.CidrRange": [
        "address_prefix" "prefix_len"
    ] ignorable [] instead [];
    "envoy.config.core.v3.ConfigSource": [
        "path" "path_config_source" "api_config_source" "ads" "self"
    ] ignorable [
        "authorities" "initial_fetch_timeout" "resource_api_version"
    ] instead [];
    "envoy.config.core.v3.DataSource": [
        "filename" "inline_bytes" "inline_string" "environment_variable"
    ] ignorable [
        "watched_directory"
    ] instead [];
    "envoy.config.core.v3.EnvoyInternalAddress": [
        "server_listener_name" "endpoint_id"
    ] ignorable [] instead [];
    "envoy.config.core.v3.GrpcService": [
        "envoy_grpc" "google_grpc" "timeout"
    ] ignorable [
        "retry_policy" "initial_metadata"
    ] instead [];
    "envoy.config.core.v3.GrpcService.EnvoyGrpc": [
        "cluster_name" "authority"
    ] ignorable [
        "retry_policy" "max_receive_message_length" "skip_envoy_headers"
    ] instead [];
    "envoy.config.core.v3.GrpcService.GoogleGrpc": [
        "target_uri" "stat_prefix"
    ] ignorable [
        "channel_credentials" "call_credentials" "credentials_factory_name" "config"
        "per_stream_buffer_limit_bytes" "channel_args" "channel_credentials_plugin" "call_credentials_plugin"
    ] instead [];
    "envoy.config.core.v3.HeaderValue": [
        "key" "value" "raw_value"
    ] ignorable [] instead [];
    "envoy.config.core.v3.HeaderValueOption": [
        "header" "append" "append_action" "keep_empty_value"
    ] ignorable [] instead [];
    "envoy.config.core.v3.HealthCheck": [
        "timeout" "interval" "interval_jitter" "unhealthy_threshold" "healthy_threshold" "http_health_check"
        "tcp_health_check" "grpc_health_check" "reuse_connection" "no_traffic_interval"
    ] ignorable [
        "initial_jitter" "no_traffic_healthy_interval" "event_log_path" "event_logger" "event_service"
        "always_log_health_check_failures" "always_log_health_check_success"
    ] instead [
        "interval_jitter_percent" = "write interval_jitter"
        "alt_port" = "the endpoint's own port is asked"
        "unhealthy_interval" = "write one interval"
        "unhealthy_edge_interval" = "write one interval"
        "healthy_edge_interval" = "write one interval"
        "custom_health_check" = "write http_health_check, tcp_health_check or grpc_health_check"
        "tls_options" = "the cluster's TLS is used"
        "transport_socket_match_criteria" = "the endpoint's own TLS is used"
    ];
    "envoy.config.core.v3.HealthCheck.GrpcHealthCheck": [
        "service_name" "authority"
    ] ignorable [] instead [
        "initial_metadata" = "the question has no headers of its own"
    ];
    "envoy.config.core.v3.HealthCheck.HttpHealthCheck": [
        "host" "path" "expected_statuses" "retriable_statuses" "codec_client_type"
    ] ignorable [] instead [
        "send" = "the question has no body"
        "receive" = "the status is judged"
        "response_buffer_size" = "the status is judged"
        "request_headers_to_add" = "the question has no headers of its own"
        "request_headers_to_remove" = "the question has no headers of its own"
        "service_name_matcher" = "the status is judged"
        "method" = "a GET is sent"
    ];
    "envoy.config.core.v3.HealthCheck.TcpHealthCheck": [] ignorable [] instead [
        "send" = "a connection that can be made is enough"
        "receive" = "a connection that can be made is enough"
        "proxy_protocol_config" = "no PROXY header is sent"
    ];
    "envoy.config.core.v3.Http1ProtocolOptions": [
        "accept_http_10" "header_key_format" "enable_trailers"
    ] ignorable [
        "allow_absolute_url" "default_host_for_http_10" "override_stream_error_on_invalid_http_message"
        "use_balsa_parser" "allow_custom_methods"
    ] instead [
        "allow_chunked_length" = "a request with both Content-Length and Transfer-Encoding is refused, always (smuggling)"
    ];
    "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat": [
        "proper_case_words" "stateful_formatter"
    ] ignorable [] instead [];
    "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords": [] ignorable [] instead [];
    "envoy.config.core.v3.Http2ProtocolOptions": [
        "max_concurrent_streams" "initial_stream_window_size" "initial_connection_window_size" "allow_connect"
        "connection_keepalive"
    ] ignorable [
        "hpack_table_size" "max_outbound_frames" "max_outbound_control_frames"
        "max_consecutive_inbound_frames_with_empty_payload" "max_inbound_priority_frames_per_stream"
        "max_inbound_window_update_frames_per_data_frame_sent" "stream_error_on_invalid_http_messaging"
        "override_stream_error_on_invalid_http_message" "use_oghttp2_codec" "max_metadata_size"
        "enable_huffman_encoding" "max_header_field_size_kb" "disallow_obs_text" "stream_reset_burst"
        "stream_reset_rate"
    ] instead [];
    "envoy.config.core.v3.HttpProtocolOptions": [
        "idle_timeout" "max_connection_duration" "max_headers_count" "max_requests_per_connection"
    ] ignorable [
        "max_connection_duration_jitter" "max_response_headers_kb"
    ] instead [
        "headers_with_underscores_action" = "names with underscores are taken as they are (ALLOW)"
        "max_stream_duration" = "write max_stream_duration on the route"
    ];
    "envoy.config.core.v3.HttpUri": [
        "uri" "cluster" "timeout"
    ] ignorable [] instead [];
    "envoy.config.core.v3.KeepaliveSettings": [
        "interval" "timeout"
    ] ignorable [
        "interval_jitter" "connection_idle_interval"
    ] instead [];
    "envoy.config.core.v3.Locality": [
        "region" "zone" "sub_zone"
    ] ignorable [] instead [];
    "envoy.config.core.v3.Metadata": [
        "filter_metadata"
    ] ignorable [
        "typed_filter_metadata"
    ] instead [];
    "envoy.config.core.v3.Node": [
        "id" "cluster" "metadata" "locality"
    ] ignorable [
        "user_agent_name" "user_agent_version" "user_agent_build_version" "extensions" "client_features"
        "listening_addresses" "dynamic_parameters"
    ] instead [];
    "envoy.config.core.v3.PathConfigSource": [
        "path"
    ] ignorable [
        "watched_directory" "poll_interval"
    ] instead [];
    "envoy.config.core.v3.Pipe": [
        "path"
    ] ignorable [
        "mode"
    ] instead [];
    "envoy.config.core.v3.RuntimeFractionalPercent": [
        "default_value"
    ] ignorable [
        "runtime_key"
    ] instead [];
    "envoy.config.core.v3.SelfConfigSource": [] ignorable [
        "transport_api_version"
    ] instead [];
    "envoy.config.core.v3.SocketAddress": [
        "protocol" "address" "port_value" "named_port" "network_namespace_filepath"
    ] ignorable [] instead [
        "resolver_name" = "write an IP address, or a cluster of type STRICT_DNS"
        "ipv4_compat" = "write a listener for each address family"
    ];
    "envoy.config.core.v3.SocketOption": [
        "description" "level" "name" "int_value" "buf_value" "state" "type" "ip_version"
    ] ignorable [] instead [];
    "envoy.config.core.v3.SocketOption.SocketType": [
        "stream" "datagram"
    ] ignorable [] instead [];
    "envoy.config.core.v3.SocketOption.SocketType.Datagram": [] ignorable [] instead [];
    "envoy.config.core.v3.SocketOption.SocketType.Stream": [] ignorable [] instead [];
    "envoy.config.core.v3.SubstitutionFormatString": [
        "text_format" "json_format" "text_format_source"
    ] ignorable [
        "omit_empty_values" "content_type" "formatters" "json_format_options"
    ] instead [];
    "envoy.config.core.v3.TcpKeepalive": [
        "keepalive_probes" "keepalive_time" "keepalive_interval"
    ] ignorable [] instead [];
    "envoy.config.core.v3.TransportSocket": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.core.v3.TypedExtensionConfig": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.core.v3.UpstreamHttpProtocolOptions": [
        "auto_sni" "auto_san_validation"
    ] ignorable [] instead [
        "override_auto_sni_header" = "the server name is the request's host"
    ];
    "envoy.config.endpoint.v3.ClusterLoadAssignment": [
        "cluster_name" "endpoints" "policy"
    ] ignorable [] instead [
        "named_endpoints" = "write endpoints in place"
    ];
    "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": [
        "overprovisioning_factor"
    ] ignorable [
        "endpoint_stale_after"
    ] instead [
        "drop_overloads" = "write a direct response for a share of requests"
    ];
    "envoy.config.endpoint.v3.Endpoint": [
        "address" "hostname"
    ] ignorable [
        "health_check_config" "observability_name"
    ] instead [
        "additional_addresses" = "write an endpoint for each address"
    ];
    "envoy.config.endpoint.v3.LbEndpoint": [
        "endpoint" "health_status" "metadata" "load_balancing_weight"
    ] ignorable [] instead [
        "endpoint_name" = "write endpoint in place"
    ];
    "envoy.config.endpoint.v3.LocalityLbEndpoints": [
        "locality" "lb_endpoints" "load_balancing_weight" "priority"
    ] ignorable [
        "metadata" "proximity"
    ] instead [
        "leds_cluster_locality_config" = "write lb_endpoints in place"
        "load_balancer_endpoints" = "write lb_endpoints"
    ];
    "envoy.config.listener.v3.ApiListener": [
        "api_listener"
    ] ignorable [] instead [];
    "envoy.config.listener.v3.Filter": [
        "name" "typed_config"
    ] ignorable [] instead [
        "config_discovery" = "write typed_config in place"
    ];
    "envoy.config.listener.v3.FilterChain": [
        "filter_chain_match" "filters" "metadata" "transport_socket" "transport_socket_connect_timeout" "name"
    ] ignorable [] instead [
        "use_proxy_proto" = "the PROXY protocol is not taken"
    ];
    "envoy.config.listener.v3.FilterChainMatch": [
        "destination_port" "prefix_ranges" "source_prefix_ranges" "source_ports" "server_names"
        "transport_protocol" "application_protocols"
    ] ignorable [] instead [
        "source_type" = "write source_prefix_ranges"
        "direct_source_prefix_ranges" = "write source_prefix_ranges"
    ];
    "envoy.config.listener.v3.Listener": [
        "name" "address" "filter_chains" "use_original_dst" "default_filter_chain"
        "per_connection_buffer_limit_bytes" "metadata" "listener_filters" "listener_filters_timeout"
        "continue_on_listener_filters_timeout" "socket_options" "traffic_direction" "api_listener" "access_log"
        "bind_to_port"
    ] ignorable [
        "stat_prefix" "stats_matcher" "per_connection_buffer_high_watermark_timeout" "drain_type" "freebind"
        "tcp_fast_open_queue_length" "connection_balance_config" "reuse_port" "enable_reuse_port"
        "tcp_backlog_size" "max_connections_to_accept_per_socket_event" "ignore_global_conn_limit"
        "bypass_overload_manager" "tcp_keepalive"
    ] instead [
        "additional_addresses" = "write a listener for each address"
        "transparent" = "use original_dst and redirection"
        "deprecated_v1" = "write bind_to_port"
        "udp_listener_config" = "only TCP is carried"
        "filter_chain_matcher" = "write filter_chain_match on each chain"
        "internal_listener" = "listen on an IP address"
        "enable_mptcp" = "leave the field out"
    ];
    "envoy.config.listener.v3.ListenerFilter": [
        "name" "typed_config"
    ] ignorable [
        "filter_disabled"
    ] instead [
        "config_discovery" = "write typed_config in place"
    ];
    "envoy.config.rbac.v3.Permission": [
        "and_rules" "or_rules" "any" "header" "url_path" "destination_ip" "destination_port" "destination_port_range" "not_rule" "requested_server_name" "uri_template"
    ] ignorable [] instead [
        "metadata" = "claims of tokens are conditions of principals"
        "sourced_metadata" = "claims of tokens are conditions of principals"
        "matcher" = "write header, url_path or uri_template"
    ];
    "envoy.config.rbac.v3.Permission.Set": [
        "rules"
    ] ignorable [] instead [];
    "envoy.config.rbac.v3.Policy": [
        "permissions" "principals"
    ] ignorable [
        "cel_config"
    ] instead [
        "condition" = "write permissions and principals"
        "checked_condition" = "write permissions and principals"
    ];
    "envoy.config.rbac.v3.Principal": [
        "and_ids" "or_ids" "any" "authenticated" "source_ip" "direct_remote_ip" "remote_ip" "header" "url_path" "filter_state" "not_id" "metadata"
    ] ignorable [] instead [
        "sourced_metadata" = "write metadata"
        "custom" = "write authenticated"
    ];
    "envoy.config.rbac.v3.Principal.Authenticated": [
        "principal_name"
    ] ignorable [] instead [];
    "envoy.config.rbac.v3.Principal.Set": [
        "ids"
    ] ignorable [] instead [];
    "envoy.config.rbac.v3.RBAC": [
        "action" "policies"
    ] ignorable [] instead [
        "audit_logging_options" = "write access_log on the connection manager"
    ];
    "envoy.config.route.v3.Decorator": [
        "operation"
    ] ignorable [
        "propagate"
    ] instead [];
    "envoy.config.route.v3.DirectResponseAction": [
        "status" "body"
    ] ignorable [] instead [
        "body_format" = "write body"
    ];
    "envoy.config.route.v3.FilterConfig": [
        "config" "is_optional" "disabled"
    ] ignorable [] instead [];
    "envoy.config.route.v3.HeaderMatcher": [
        "name" "exact_match" "safe_regex_match" "range_match" "present_match" "prefix_match" "suffix_match"
        "contains_match" "string_match" "invert_match" "treat_missing_header_as_empty"
    ] ignorable [] instead [];
    "envoy.config.route.v3.NonForwardingAction": [] ignorable [] instead [];
    "envoy.config.route.v3.QueryParameterMatcher": [
        "name" "string_match" "present_match"
    ] ignorable [] instead [];
    "envoy.config.route.v3.RateLimit": [
        "stage" "actions"
    ] ignorable [
        "disable_key"
    ] instead [
        "limit" = "buckets are set in the filter"
        "hits_addend" = "each request takes one token"
        "apply_on_stream_done" = "tokens are taken when a request begins"
        "x_ratelimit_option" = "write enable_x_ratelimit_headers on the filter"
    ];
    "envoy.config.route.v3.RateLimit.Action": [
        "destination_cluster" "request_headers" "remote_address" "generic_key" "header_value_match"
        "extension"
    ] ignorable [] instead [
        "source_cluster" = "write generic_key"
        "query_parameters" = "write request_headers"
        "dynamic_metadata" = "write request_headers"
        "metadata" = "write generic_key"
        "masked_remote_address" = "write remote_address"
        "query_parameter_value_match" = "write header_value_match on :path"
        "remote_address_match" = "write remote_address"
    ];
    "envoy.config.route.v3.RateLimit.Action.DestinationCluster": [] ignorable [] instead [];
    "envoy.config.route.v3.RateLimit.Action.GenericKey": [
        "descriptor_value" "descriptor_key"
    ] ignorable [] instead [
        "default_value" = "write descriptor_value"
    ];
    "envoy.config.route.v3.RateLimit.Action.HeaderValueMatch": [
        "descriptor_value" "descriptor_key" "expect_match" "headers"
    ] ignorable [] instead [
        "default_value" = "write descriptor_value"
    ];
    "envoy.config.route.v3.RateLimit.Action.RemoteAddress": [] ignorable [] instead [];
    "envoy.config.route.v3.RateLimit.Action.RequestHeaders": [
        "header_name" "descriptor_key" "skip_if_absent"
    ] ignorable [] instead [];
    "envoy.config.route.v3.RedirectAction": [
        "https_redirect" "scheme_redirect" "host_redirect" "port_redirect" "path_redirect" "prefix_rewrite"
        "response_code" "strip_query"
    ] ignorable [] instead [
        "regex_rewrite" = "write path_redirect or prefix_rewrite"
    ];
    "envoy.config.route.v3.RetryPolicy": [
        "retry_on" "num_retries" "per_try_timeout" "per_try_idle_timeout" "retry_priority" "retry_host_predicate"
        "host_selection_retry_max_attempts" "retriable_status_codes" "retry_back_off"
    ] ignorable [] instead [
        "retriable_headers" = "write retriable_status_codes"
        "retriable_request_headers" = "write a route for those requests"
        "rate_limited_retry_back_off" = "write retry_back_off"
    ];
    "envoy.config.route.v3.RetryPolicy.RetryBackOff": [
        "base_interval" "max_interval"
    ] ignorable [] instead [];
    "envoy.config.route.v3.RetryPolicy.RetryHostPredicate": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.route.v3.RetryPolicy.RetryPriority": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.config.route.v3.Route": [
        "name" "match" "route" "redirect" "direct_response" "non_forwarding_action" "metadata" "decorator"
        "typed_per_filter_config" "request_headers_to_add" "request_headers_to_remove" "response_headers_to_add"
        "response_headers_to_remove"
    ] ignorable [
        "tracing" "per_request_buffer_limit_bytes" "stat_prefix" "request_body_buffer_limit"
    ] instead [
        "filter_action" = "write route, redirect or direct_response"
    ];
    "envoy.config.route.v3.RouteAction": [
        "cluster" "cluster_header" "weighted_clusters" "cluster_not_found_response_code" "prefix_rewrite"
        "regex_rewrite" "host_rewrite_literal" "auto_host_rewrite" "host_rewrite_header" "append_x_forwarded_host"
        "timeout" "idle_timeout" "retry_policy" "request_mirror_policies" "hash_policy" "max_grpc_timeout"
        "upgrade_configs" "max_stream_duration" "rate_limits" "include_vh_rate_limits"
    ] ignorable [
        "metadata_match" "flush_timeout" "early_data_policy" "priority"
    ] instead [
        "cors" = "use the CORS filter"
        "hedge_policy" = "requests are not hedged"
        "internal_redirect_policy" = "redirections go to the client"
        "internal_redirect_action" = "redirections go to the client"
        "max_internal_redirects" = "redirections go to the client"
        "host_rewrite_path_regex" = "write host_rewrite_literal or host_rewrite_header"
        "cluster_specifier_plugin" = "name a cluster"
        "inline_cluster_specifier_plugin" = "name a cluster"
        "path_rewrite_policy" = "write prefix_rewrite or regex_rewrite"
        "retry_policy_typed_config" = "write retry_policy"
        "grpc_timeout_offset" = "write grpc_timeout_header_max only"
    ];
    "envoy.config.route.v3.RouteAction.HashPolicy": [
        "header" "cookie" "connection_properties" "query_parameter"
    ] ignorable [] instead [
        "terminal" = "write one policy"
        "filter_state" = "hash a header, a cookie, the source or a parameter"
    ];
    "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties": [
        "source_ip"
    ] ignorable [] instead [];
    "envoy.config.route.v3.RouteAction.HashPolicy.Cookie": [
        "name" "ttl" "path"
    ] ignorable [
        "attributes"
    ] instead [];
    "envoy.config.route.v3.RouteAction.HashPolicy.Header": [
        "header_name"
    ] ignorable [] instead [
        "regex_rewrite" = "the whole value is hashed"
    ];
    "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter": [
        "name"
    ] ignorable [] instead [];
    "envoy.config.route.v3.RouteAction.MaxStreamDuration": [
        "max_stream_duration" "grpc_timeout_header_max"
    ] ignorable [] instead [
        "grpc_timeout_header_offset" = "write grpc_timeout_header_max only"
    ];
    "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": [
        "cluster" "runtime_fraction" "disable_shadow_host_suffix_append" "trace_sampled"
    ] ignorable [] instead [
        "cluster_header" = "name a cluster"
    ];
    "envoy.config.route.v3.RouteAction.UpgradeConfig": [
        "upgrade_type" "enabled"
    ] ignorable [] instead [
        "connect_config" = "CONNECT is forwarded, never terminated"
    ];
    "envoy.config.route.v3.RouteConfiguration": [
        "name" "virtual_hosts" "response_headers_to_add" "response_headers_to_remove" "request_headers_to_add"
        "request_headers_to_remove" "ignore_port_in_host_matching" "typed_per_filter_config"
    ] ignorable [
        "validate_clusters" "max_direct_response_body_size_bytes" "metadata"
    ] instead [
        "vhds" = "send all virtual hosts by RDS"
        "request_mirror_policies" = "write them on each route"
        "most_specific_header_mutations_wins" = "the least specific mutation is applied last"
    ];
    "envoy.config.route.v3.RouteMatch": [
        "prefix" "path" "safe_regex" "connect_matcher" "path_separated_prefix" "case_sensitive" "runtime_fraction"
        "headers" "query_parameters" "grpc" "dynamic_metadata"
    ] ignorable [] instead [
        "cookies" = "match the header `cookie` with a regular expression"
        "tls_context" = "match in the filter chain"
        "filter_state" = "match a header"
        "path_match_policy" = "write prefix, path or safe_regex"
    ];
    "envoy.config.route.v3.RouteMatch.ConnectMatcher": [] ignorable [] instead [];
    "envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions": [] ignorable [] instead [];
    "envoy.config.route.v3.VirtualHost": [
        "name" "domains" "routes" "request_headers_to_add" "request_headers_to_remove" "response_headers_to_add"
        "response_headers_to_remove" "typed_per_filter_config" "include_request_attempt_count" "retry_policy"
        "metadata" "rate_limits"
    ] ignorable [
        "virtual_clusters" "per_request_buffer_limit_bytes" "request_body_buffer_limit"
    ] instead [
        "require_tls" = "write a redirect route"
        "cors" = "use the CORS filter"
        "request_mirror_policies" = "write them on each route"
        "matcher" = "write routes"
    ];
    "envoy.config.route.v3.WeightedCluster": [
        "clusters"
    ] ignorable [
        "total_weight" "runtime_key_prefix"
    ] instead [
        "header_name" = "the draw is random"
        "use_hash_policy" = "the draw is random"
    ];
    "envoy.config.route.v3.WeightedCluster.ClusterWeight": [
        "name" "weight" "metadata_match" "request_headers_to_add" "request_headers_to_remove"
        "response_headers_to_add" "response_headers_to_remove" "typed_per_filter_config" "host_rewrite_literal"
    ] ignorable [] instead [
        "cluster_header" = "name a cluster"
    ];
    "envoy.config.trace.v3.OpenTelemetryConfig": [
        "grpc_service" "service_name"
    ] ignorable [
        "max_cache_size" "set_telemetry_sdk_resource_attributes" "set_service_name_resource_attribute" "set_instrumentation_scope"
    ] instead [
        "http_service" = "write grpc_service"
        "exporter" = "write grpc_service"
        "resource_detectors" = "write service_name"
        "sampler" = "write random_sampling on the connection manager"
    ];
    "envoy.config.trace.v3.Tracing.Http": [
        "name" "typed_config"
    ] ignorable [] instead [];
    "envoy.extensions.access_loggers.file.v3.FileAccessLog": [
        "path" "format" "json_format" "typed_json_format" "log_format"
    ] ignorable [] instead [];
    "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter": [
        "expression"
    ] ignorable [] instead [];
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog": [
        "log_format"
    ] ignorable [] instead [];
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": [
        "log_format"
    ] ignorable [] instead [];
    "envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor": [
        "entries" "token_bucket"
    ] ignorable [] instead [
        "shadow_mode" = "write filter_enforced"
    ];
    "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry": [
        "key" "value"
    ] ignorable [] instead [];
    "envoy.extensions.filters.common.fault.v3.FaultDelay": [
        "fixed_delay" "percentage"
    ] ignorable [] instead [
        "header_delay" = "write fixed_delay"
    ];
    "envoy.extensions.filters.http.cors.v3.Cors": [] ignorable [] instead [];
    "envoy.extensions.filters.http.cors.v3.CorsPolicy": [
        "allow_origin_string_match" "allow_methods" "allow_headers" "expose_headers" "max_age" "allow_credentials"
        "filter_enabled" "shadow_enabled" "allow_private_network_access" "forward_not_matching_preflights"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.ext_authz.v3.AuthorizationRequest": [
        "allowed_headers" "headers_to_add"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.ext_authz.v3.AuthorizationResponse": [
        "allowed_upstream_headers" "allowed_upstream_headers_to_append" "allowed_client_headers" "allowed_client_headers_on_success"
    ] ignorable [] instead [
        "dynamic_metadata_from_headers" = "write allowed_upstream_headers: answers are told by headers"
    ];
    "envoy.extensions.filters.http.ext_authz.v3.BufferSettings": [
        "max_request_bytes" "allow_partial_message" "pack_as_bytes"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz": [
        "grpc_service" "http_service" "transport_api_version" "failure_mode_allow" "failure_mode_allow_header_add"
        "with_request_body" "clear_route_cache" "status_on_error" "filter_enabled_metadata" "include_peer_certificate"
        "stat_prefix" "allowed_headers" "disallowed_headers" "include_tls_session"
    ] ignorable [
        "validate_mutations" "bootstrap_metadata_labels_key" "charge_cluster_response_stats" "emit_filter_state_stats"
        "emit_client_span" "enforce_response_header_limits" "filter_metadata" "enable_dynamic_metadata_ingestion"
    ] instead [
        "filter_enabled" = "write filter_enabled_metadata, or disable the filter on routes"
        "deny_at_disable" = "write a filter of access control"
        "metadata_context_namespaces" = "a provider is shown headers, addresses and identities"
        "typed_metadata_context_namespaces" = "a provider is shown headers, addresses and identities"
        "route_metadata_context_namespaces" = "a provider is shown headers, addresses and identities"
        "route_typed_metadata_context_namespaces" = "a provider is shown headers, addresses and identities"
        "encode_raw_headers" = "headers are shown as texts"
        "decoder_header_mutation_rules" = "method, path, host and framing can't be changed; write allowed_upstream_headers"
        "max_denied_response_body_bytes" = "answers of up to 1 MiB are passed on"
        "shadow_mode" = "write failure_mode_allow, or leave the filter out"
    ];
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute": [
        "disabled"
    ] ignorable [] instead [
        "check_settings" = "write two listeners, or disable the filter on the route"
    ];
    "envoy.extensions.filters.http.ext_authz.v3.HttpService": [
        "server_uri" "path_prefix" "authorization_request" "authorization_response"
    ] ignorable [] instead [
        "path_override" = "write path_prefix"
        "retry_policy" = "a question is asked once: write failure_mode_allow"
    ];
    "envoy.extensions.filters.http.fault.v3.FaultAbort": [
        "http_status" "grpc_status" "percentage"
    ] ignorable [] instead [
        "header_abort" = "write http_status or grpc_status"
        "response_body" = "the body is always `fault filter abort`"
    ];
    "envoy.extensions.filters.http.fault.v3.HTTPFault": [
        "delay" "abort" "upstream_cluster" "headers" "downstream_nodes" "max_active_faults"
    ] ignorable [
        "delay_percent_runtime" "abort_percent_runtime" "delay_duration_runtime" "abort_http_status_runtime"
        "max_active_faults_runtime" "response_rate_limit_percent_runtime" "abort_grpc_status_runtime"
        "disable_downstream_cluster_stats" "filter_metadata"
    ] instead [
        "response_rate_limit" = "responses are not slowed down"
    ];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication": [
        "providers" "rules" "bypass_cors_preflight"
    ] ignorable [
        "stat_prefix"
    ] instead [
        "filter_state_rules" = "write one rule"
        "requirement_map" = "write one rule"
        "strip_failure_response" = "a refusal says why in its body"
    ];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader": [
        "header_name" "claim_name"
    ] ignorable [] instead [
        "claim_path" = "write claim_name, with dots between names"
    ];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtHeader": [
        "name" "value_prefix"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider": [
        "clear_route_cache"
        "issuer" "audiences" "local_jwks" "forward" "from_headers" "from_params" "from_cookies" "forward_payload_header"
        "claim_to_headers" "payload_in_metadata" "normalize_payload_in_metadata" "clock_skew_seconds"
    ] ignorable [
        "jwt_cache_config"
    ] instead [
        "remote_jwks" = "the control plane fetches keys and sends them: write local_jwks"
        "subjects" = "write a policy on the claim `sub`"
        "require_expiration" = "leave the field out"
        "max_lifetime" = "leave the field out"
        "pad_forward_payload_header" = "the header is written without padding"
        "header_in_metadata" = "only claims are told"
        "failed_status_in_metadata" = "a refusal is told in the answer and in the access log"
    ];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.NormalizePayload": [
        "space_delimited_claims"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement": [
        "provider_name" "requires_any" "requires_all" "allow_missing"
    ] ignorable [] instead [
        "provider_and_audiences" = "write audiences in the provider"
        "allow_missing_or_failed" = "write allow_missing: a bad token is refused"
        "extract_only_without_validation" = "what is not verified is told to nobody"
    ];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementAndList": [
        "requirements"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementOrList": [
        "requirements"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.jwt_authn.v3.RequirementRule": [
        "match" "requires"
    ] ignorable [] instead [
        "requirement_name" = "write requires"
    ];
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": [
        "stat_prefix" "status" "token_bucket" "filter_enabled" "filter_enforced" "request_headers_to_add_when_not_enforced" "response_headers_to_add" "descriptors" "stage" "local_rate_limit_per_downstream_connection" "enable_x_ratelimit_headers" "vh_rate_limits" "always_consume_default_token_bucket" "rate_limited_as_resource_exhausted" "rate_limits"
        "max_dynamic_descriptors" "enable_retry_after_header"
    ] ignorable [] instead [
        "local_cluster_rate_limit" = "buckets are per proxy"
    ];
    "envoy.extensions.filters.http.rbac.v3.RBAC": [
        "rules" "rules_stat_prefix" "shadow_rules" "shadow_rules_stat_prefix"
    ] ignorable [
        "track_per_rule_stats"
    ] instead [
        "matcher" = "write rules"
        "shadow_matcher" = "write shadow_rules"
    ];
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute": [
        "rbac"
    ] ignorable [] instead [];
    "envoy.extensions.filters.http.router.v3.Router": [
        "suppress_envoy_headers"
    ] ignorable [
        "dynamic_stats" "start_child_span" "upstream_log_options" "respect_expected_rq_timeout"
        "suppress_grpc_request_failure_code_stats" "reject_connect_request_early_data"
    ] instead [
        "upstream_log" = "write access_log on the connection manager"
        "upstream_http_filters" = "filters stand in the connection manager"
    ];
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector": [] ignorable [] instead [];
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst": [] ignorable [] instead [];
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector": [] ignorable [
        "enable_ja3_fingerprinting" "enable_ja4_fingerprinting" "initial_read_buffer_size" "max_client_hello_size"
        "close_connection_on_client_hello_parsing_errors"
    ] instead [];
    "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz": [
        "stat_prefix" "grpc_service" "failure_mode_allow" "include_peer_certificate" "transport_api_version"
        "filter_enabled_metadata" "include_tls_session"
    ] ignorable [
        "bootstrap_metadata_labels_key"
    ] instead [
        "send_tls_alert_on_denial" = "a refused connection is closed"
        "metadata_context_namespaces" = "a provider is shown addresses and identities"
        "typed_metadata_context_namespaces" = "a provider is shown addresses and identities"
        "shadow_mode" = "write failure_mode_allow, or leave the filter out"
    ];
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": [
        "codec_type" "stat_prefix" "rds" "route_config" "http_filters" "common_http_protocol_options"
        "http_protocol_options" "http2_protocol_options" "server_name" "server_header_transformation"
        "max_request_headers_kb" "stream_idle_timeout" "request_timeout" "request_headers_timeout" "drain_timeout"
        "access_log" "use_remote_address" "xff_num_trusted_hops" "generate_request_id"
        "preserve_external_request_id" "forward_client_cert_details" "set_current_client_cert_details"
        "proxy_100_continue" "upgrade_configs" "normalize_path" "merge_slashes" "path_with_escaped_slashes_action"
        "request_id_extension" "strip_matching_host_port" "strip_any_host_port" "tracing"
    ] ignorable [
        "http1_safe_max_connection_duration" "stream_flush_timeout" "drain_timeout_jitter"
        "delayed_close_timeout" "access_log_flush_interval" "flush_access_log_on_new_request" "access_log_options"
        "internal_address_config" "represent_ipv4_remote_address_as_ipv4_mapped_ipv6"
        "stream_error_on_invalid_http_message" "add_proxy_protocol_connection_state" "append_local_overload"
        "scheme_header_transformation"
    ] instead [
        "scoped_routes" = "write rds or route_config"
        "http3_protocol_options" = "HTTP/3 is not spoken"
        "local_reply_config" = "answers of the proxy itself are not rewritten"
        "add_user_agent" = "set the header on the route"
        "via" = "set the header on the route"
        "path_normalization_options" = "write normalize_path"
        "original_ip_detection_extensions" = "write xff_num_trusted_hops"
        "forward_client_cert_matcher" = "write forward_client_cert_details"
    ];
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails": [
        "subject" "dns" "uri"
    ] ignorable [] instead [
        "cert" = "whole certificates are not put into a header"
        "chain" = "whole certificates are not put into a header"
    ];
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing": [
        "client_sampling" "random_sampling" "overall_sampling" "max_path_tag_length" "custom_tags" "provider" "spawn_upstream_span"
    ] ignorable [
        "verbose"
    ] instead [
        "operation" = "spans are named by the route's decorator"
        "upstream_operation" = "a request has one span in each proxy"
        "no_context_propagation" = "leave tracing out"
    ];
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig": [
        "upgrade_type" "enabled"
    ] ignorable [] instead [
        "filters" = "upgrades pass the filters of the connection manager"
    ];
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": [
        "name" "typed_config" "is_optional" "disabled"
    ] ignorable [] instead [
        "config_discovery" = "write typed_config in place"
    ];
    "envoy.extensions.filters.network.http_connection_manager.v3.Rds": [
        "config_source" "route_config_name"
    ] ignorable [] instead [];
    "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension": [
        "typed_config"
    ] ignorable [] instead [];
    "envoy.extensions.filters.network.rbac.v3.RBAC": [
        "rules" "shadow_rules" "shadow_rules_stat_prefix" "stat_prefix" "enforcement_type"
    ] ignorable [
        "delay_deny"
    ] instead [
        "matcher" = "write rules"
        "shadow_matcher" = "write shadow_rules"
    ];
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": [
        "stat_prefix" "cluster" "weighted_clusters" "idle_timeout" "access_log" "max_connect_attempts"
        "max_downstream_connection_duration"
    ] ignorable [
        "metadata_match" "access_log_flush_interval" "access_log_options" "backoff_options"
        "max_downstream_connection_duration_jitter_percentage" "check_drain_close"
    ] instead [
        "hash_policy" = "connections are spread over endpoints without hashing"
        "tunneling_config" = "tunnels over HTTP are not made"
        "on_demand" = "name a cluster that exists"
    ];
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster": [
        "clusters"
    ] ignorable [] instead [];
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": [
        "name" "weight"
    ] ignorable [
        "metadata_match"
    ] instead [];
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": [] ignorable [
        "forward_reason_phrase" "formatter_type_on_envoy_headers"
    ] instead [];
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig": [
        "path_template"
    ] ignorable [] instead [];
    "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor": [
        "descriptor_key" "skip_if_error" "text"
    ] ignorable [] instead [
        "parsed" = "write text"
    ];
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate": [] ignorable [] instead [];
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig": [
        "update_frequency"
    ] ignorable [] instead [];
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer": [] ignorable [] instead [];
    "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext": [
        "trusted_ca" "match_typed_subject_alt_names" "match_subject_alt_names" "crl" "only_verify_leaf_cert_crl"
        "trust_chain_verification" "verify_certificate_hash" "verify_certificate_spki"
    ] ignorable [
        "watched_directory" "max_verify_depth" "suppress_client_ca_list"
    ] instead [
        "system_root_certs" = "write trusted_ca with the system's file"
        "ca_certificate_provider_instance" = "certificate providers are for gRPC clients: use SDS"
        "custom_validator_config" = "write trusted_ca and match_typed_subject_alt_names"
    ];
    "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext": [
        "tls_params" "tls_certificates" "tls_certificate_sds_secret_configs" "validation_context"
        "validation_context_sds_secret_config" "combined_validation_context" "alpn_protocols"
    ] ignorable [] instead [
        "tls_certificate_provider_instance" = "certificate providers are for gRPC clients: use SDS"
        "custom_handshaker" = "leave the field out"
        "key_log" = "keys are never written to a file"
    ];
    "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext": [
        "default_validation_context" "validation_context_sds_secret_config"
    ] ignorable [] instead [
        "validation_context_certificate_provider_instance" = "use SDS"
    ];
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext": [
        "common_tls_context" "require_client_certificate" "disable_stateless_session_resumption"
        "disable_stateful_session_resumption"
    ] ignorable [
        "session_timeout" "full_scan_certs_on_sni_mismatch" "prefer_client_ciphers"
    ] instead [
        "require_sni" = "match server_names in the filter chain"
        "session_ticket_keys" = "sessions are not resumed by shared tickets"
        "session_ticket_keys_sds_secret_config" = "sessions are not resumed by shared tickets"
        "ocsp_staple_policy" = "OCSP is not stapled"
    ];
    "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig": [
        "name" "sds_config"
    ] ignorable [] instead [];
    "envoy.extensions.transport_sockets.tls.v3.Secret": [
        "name" "tls_certificate" "validation_context"
    ] ignorable [] instead [
        "session_ticket_keys" = "sessions are not resumed by shared tickets"
        "generic_secret" = "nothing uses one"
    ];
    "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher": [
        "san_type" "matcher" "oid"
    ] ignorable [] instead [];
    "envoy.extensions.transport_sockets.tls.v3.TlsCertificate": [
        "certificate_chain" "private_key"
    ] ignorable [
        "watched_directory"
    ] instead [
        "password" = "write an unencrypted key"
        "pkcs12" = "write certificate_chain and private_key, PEM"
        "private_key_provider" = "write private_key"
    ];
    "envoy.extensions.transport_sockets.tls.v3.TlsParameters": [
        "tls_minimum_protocol_version" "tls_maximum_protocol_version" "ecdh_curves"
    ] ignorable [
        "cipher_suites"
    ] instead [
        "signature_algorithms" = "the library's are used"
        "compliance_policies" = "write versions and groups"
    ];
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": [
        "common_tls_context" "sni" "auto_sni_san_validation" "max_session_keys"
    ] ignorable [
        "enforce_rsa_key_usage"
    ] instead [
        "auto_host_sni" = "write sni"
        "allow_renegotiation" = "TLS 1.2 is never renegotiated"
    ];
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": [
        "common_http_protocol_options" "upstream_http_protocol_options" "explicit_http_config"
        "use_downstream_protocol_config" "auto_config" "outlier_detection"
    ] ignorable [] instead [
        "http_filters" = "filters stand in the connection manager"
        "retry_policy" = "write it on the route or virtual host"
        "hash_policy" = "write it on the route"
    ];
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.OutlierDetection": [
        "error_matcher"
    ] ignorable [] instead [];
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig": [
        "http_protocol_options" "http2_protocol_options"
    ] ignorable [] instead [
        "http3_protocol_options" = "write http2_protocol_options"
    ];
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig": [
        "http_protocol_options" "http2_protocol_options"
    ] ignorable [] instead [
        "http3_protocol_options" = "write http2_protocol_options"
    ];
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": [
        "http_protocol_options" "http2_protocol_options"
    ] ignorable [] instead [
        "http3_protocol_options" = "write http2_protocol_options"
    ];
    "envoy.type.matcher.v3.FilterStateMatcher": [
        "key" "string_match"
    ] ignorable [] instead [
        "address_match" = "write direct_remote_ip"
    ];
    "envoy.type.matcher.v3.ListMatcher": [
        "one_of"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.ListStringMatcher": [
        "patterns"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.MetadataMatcher": [
        "filter" "path" "value" "invert"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.MetadataMatcher.PathSegment": [
        "key"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.OrMatcher": [
        "value_matchers"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.PathMatcher": [
        "path"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.RegexMatchAndSubstitute": [
        "pattern" "substitution"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.RegexMatcher": [
        "regex"
    ] ignorable [
        "google_re2"
    ] instead [];
    "envoy.type.matcher.v3.StringMatcher": [
        "exact" "prefix" "suffix" "contains" "safe_regex" "custom" "ignore_case"
    ] ignorable [] instead [];
    "envoy.type.matcher.v3.ValueMatcher": [
        "string_match" "list_match" "or_match"
    ] ignorable [] instead [
        "present_match" = "write string_match with a regular expression"
        "null_match" = "write string_match"
        "bool_match" = "write string_match: claims are compared as texts"
        "double_match" = "write string_match: claims are compared as texts"
    ];
    "envoy.type.tracing.v3.CustomTag": [
        "tag" "literal" "request_header"
    ] ignorable [] instead [
        "environment" = "write literal"
        "metadata" = "write literal or request_header"
        "value" = "write literal or request_header"
    ];
    "envoy.type.tracing.v3.CustomTag.Header": [
        "name" "default_value"
    ] ignorable [] instead [];
    "envoy.type.tracing.v3.CustomTag.Literal": [
        "value"
    ] ignorable [] instead [];
    "envoy.type.v3.FractionalPercent": [
        "numerator" "denominator"
    ] ignorable [] instead [];
    "envoy.type.v3.HttpStatus": [
        "code"
    ] ignorable [] instead [];
    "envoy.type.v3.Int32Range": [
        "start" "end"
    ] ignorable [] instead [];
    "envoy.type.v3.Int64Range": [
        "start" "end"
    ] ignorable [] instead [];
    "envoy.type.v3.Percent": [
        "value"
    ] ignorable [] instead [];
    "envoy.type.v3.TokenBucket": [
        "max_tokens" "tokens_per_fill" "fill_interval"
    ] ignorable [] instead [];
    "stats.MetricConfig": [
        "name" "drop" "tags_to_remove" "dimensions"
    ] ignorable [
        "match"
    ] instead [];
    "stats.PluginConfig": [
        "disable_host_header_fallback" "tcp_reporting_duration" "metrics"
    ] ignorable [
        "rescoping_duration" "scope_grace_period_duration"
    ] instead [
        "definitions" = "there are the standard metrics only"
        "reporter" = "the listener's traffic_direction says which reporter it is"
    ];
}
