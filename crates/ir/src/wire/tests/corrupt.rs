//! Each kind of fault, at its place.

#![expect(
    clippy::too_many_lines,
    clippy::unnecessary_wraps,
    reason = "tables of cases, in the messages' own shapes"
)]

use prost::Message as _;
use rajut_proto::{
    cluster::{self as cluster_pb, cluster::TransportSocketMatch},
    core, endpoint as endpoint_pb,
    google::protobuf as wkt,
    listener as listener_pb, route as route_pb, tls as tls_pb,
};

use super::super::*;

/// The faults of a resource as `path: fault`.
fn faults<T: fmt::Debug>(decoded: DecodeResult<T>) -> Vec<String> {
    match decoded {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .into_iter()
            .map(|it| format!("{}: {}", it.path, it.fault))
            .collect(),
    }
}

fn duration(seconds: i64, nanos: i32) -> Option<wkt::Duration> {
    Some(wkt::Duration { seconds, nanos })
}

fn number(value: u32) -> Option<wkt::UInt32Value> {
    Some(wkt::UInt32Value { value })
}

fn socket(address: &str, port: u32) -> Option<core::Address> {
    Some(core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    })
}

fn endpoint(address: Option<core::Address>) -> endpoint_pb::LbEndpoint {
    endpoint_pb::LbEndpoint {
        host_identifier: Some(endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(
            endpoint_pb::Endpoint {
                address,
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn assignment(endpoints: Vec<endpoint_pb::LbEndpoint>) -> endpoint_pb::ClusterLoadAssignment {
    endpoint_pb::ClusterLoadAssignment {
        cluster_name: "c".into(),
        endpoints: vec![endpoint_pb::LocalityLbEndpoints {
            lb_endpoints: endpoints,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn cluster(change: impl FnOnce(&mut cluster_pb::Cluster)) -> Vec<String> {
    let mut message = cluster_pb::Cluster {
        name: "c".into(),
        load_assignment: Some(assignment(vec![endpoint(socket("10.0.0.1", 80))])),
        ..Default::default()
    };
    assert_eq!(faults(decode_cluster(&message.encode_to_vec())), [""; 0]);
    change(&mut message);
    faults(decode_cluster(&message.encode_to_vec()))
}

#[test]
fn clusters_name_the_field_that_is_wrong() {
    let cases: Vec<(Vec<String>, &str)> = vec![
        (
            cluster(|it| it.name.clear()),
            "name: is required: the cluster's name",
        ),
        (
            cluster(|it| it.connect_timeout = duration(0, 0)),
            "connect_timeout: 0s is out of range",
        ),
        (
            cluster(|it| it.connect_timeout = duration(-1, 0)),
            "connect_timeout: -1s 0ns is out of range",
        ),
        (
            cluster(|it| it.connect_timeout = duration(1, -1)),
            "connect_timeout: 1s -1ns is out of range",
        ),
        (
            cluster(|it| it.lb_policy = 99),
            "lb_policy: 99 is not a value of this enumeration",
        ),
        (
            cluster(|it| it.lb_policy = 7),
            "lb_policy: the value LOAD_BALANCING_POLICY_CONFIG is not supported",
        ),
        (
            cluster(|it| it.load_assignment = None),
            "load_assignment: is required: the endpoints",
        ),
        (
            cluster(|it| it.load_assignment = Some(assignment(vec![endpoint(socket("name", 80))]))),
            "load_assignment: `name` is not an IP address (use the type STRICT_DNS for names)",
        ),
        (
            cluster(|it| it.load_assignment = Some(assignment(vec![endpoint(socket("10.0.0.1", 65_536))]))),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: 65536 is out of range; allowed: 0 to 65535",
        ),
        (
            cluster(|it| it.load_assignment = Some(assignment(vec![endpoint(None)]))),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address: is required: an address",
        ),
        (
            cluster(|it| it.health_checks = vec![core::HealthCheck::default()]),
            "health_checks[0].timeout: is required: a duration",
        ),
        (
            cluster(|it| it.health_checks = vec![http_check(|_| {}), http_check(|_| {})]),
            "health_checks[1]: the value a second check is not supported; write one",
        ),
        (
            cluster(|it| it.health_checks = vec![http_check(|it| it.path = "live".into())]),
            "health_checks[0].http_health_check.path: `live` is not a path that begins with `/`",
        ),
        (
            cluster(|it| {
                it.health_checks = vec![http_check(|it| {
                    it.expected_statuses = vec![rajut_proto::types::Int64Range { start: 300, end: 200 }];
                })];
            }),
            "health_checks[0].http_health_check.expected_statuses[0]: 300 to 200 is out of range",
        ),
        (
            cluster(|it| it.health_checks = vec![http_check(|it| it.method = 3)]),
            "health_checks[0].http_health_check.method: `envoy.config.core.v3.HealthCheck.HttpHealthCheck.method` is not supported; a GET is sent",
        ),
        (
            cluster(|it| {
                it.outlier_detection = Some(cluster_pb::OutlierDetection {
                    enforcing_consecutive_5xx: number(50),
                    ..Default::default()
                });
            }),
            "outlier_detection.enforcing_consecutive_5xx: the value 50 is not supported; write 0 (off) or 100 (on)",
        ),
        (
            cluster(|it| {
                it.outlier_detection = Some(cluster_pb::OutlierDetection {
                    enforcing_success_rate: number(100),
                    ..Default::default()
                });
            }),
            "outlier_detection.enforcing_success_rate: the value 100 is not supported",
        ),
        (
            cluster(|it| {
                it.transport_socket_matches = vec![TransportSocketMatch {
                    name: "t".into(),
                    transport_socket: Some(core::TransportSocket {
                        name: "alts".into(),
                        config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any {
                            type_url: "type.googleapis.com/x.Alts".into(),
                            value: vec![],
                        })),
                    }),
                    ..Default::default()
                }];
            }),
            "transport_socket_matches[0].transport_socket.typed_config: transport socket `alts` (x.Alts) is not supported",
        ),
        (
            cluster(|it| {
                it.cluster_discovery_type = Some(cluster_pb::cluster::ClusterDiscoveryType::Type(2));
            }),
            "",
        ),
    ];
    for (found, expected) in cases {
        let holds = match expected {
            "" => found.is_empty(),
            expected => found.iter().any(|it| it.starts_with(expected)),
        };
        assert!(holds, "expected {expected}\nfound {found:#?}");
    }
}

fn http_check(corrupt: impl FnOnce(&mut core::health_check::HttpHealthCheck)) -> core::HealthCheck {
    let mut http = core::health_check::HttpHealthCheck {
        path: "/live".into(),
        ..Default::default()
    };
    corrupt(&mut http);
    core::HealthCheck {
        timeout: duration(1, 0),
        interval: duration(5, 0),
        unhealthy_threshold: number(3),
        healthy_threshold: number(2),
        health_checker: Some(core::health_check::HealthChecker::HttpHealthCheck(http)),
        ..Default::default()
    }
}

#[test]
fn all_faults_of_a_resource_are_told_at_once() {
    let found = cluster(|it| {
        it.connect_timeout = duration(0, 0);
        it.lb_policy = 99;
        it.health_checks = vec![http_check(|it| it.method = 3)];
        it.load_assignment = Some(assignment(vec![endpoint(None), endpoint(socket("", 1))]));
    });
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn fields_of_unknown_numbers_are_refused_wherever_they_stand() {
    use prost::encoding::{WireType, encode_key, encode_varint};
    // Field 3000 in the address of an endpoint.
    let mut socket = core::SocketAddress {
        address: "10.0.0.1".into(),
        ..Default::default()
    }
    .encode_to_vec();
    encode_key(3000, WireType::Varint, &mut socket);
    encode_varint(1, &mut socket);
    let wrap = |number: u32, inner: &[u8]| {
        let mut out = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut out);
        encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    // Address.socket_address, Endpoint.address, LbEndpoint.endpoint, LocalityLbEndpoints.lb_endpoints, …endpoints
    let lb_endpoint = wrap(1, &wrap(1, &wrap(1, &socket)));
    let mut bytes = wrap(1, b"c");
    bytes.extend(wrap(2, &wrap(2, &lb_endpoint)));
    assert_eq!(
        faults(decode_load_assignment(&bytes)),
        [
            "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.#3000: field number 3000 is not known to this build; the sender uses a newer xDS: leave the field out"
        ]
    );
}

fn route(
    change: impl FnOnce(&mut route_pb::VirtualHost, &mut route_pb::RouteMatch, &mut route_pb::RouteAction),
) -> Vec<String> {
    let mut matches = route_pb::RouteMatch {
        path_specifier: Some(route_pb::route_match::PathSpecifier::Prefix("/".into())),
        ..Default::default()
    };
    let mut action = route_pb::RouteAction {
        cluster_specifier: Some(route_pb::route_action::ClusterSpecifier::Cluster("c".into())),
        ..Default::default()
    };
    let mut host = route_pb::VirtualHost {
        name: "h".into(),
        domains: vec!["*".into()],
        ..Default::default()
    };
    change(&mut host, &mut matches, &mut action);
    host.routes.push(route_pb::Route {
        r#match: Some(matches),
        action: Some(route_pb::route::Action::Route(action)),
        ..Default::default()
    });
    let message = route_pb::RouteConfiguration {
        name: "r".into(),
        virtual_hosts: vec![host],
        ..Default::default()
    };
    faults(decode_route_configuration(&message.encode_to_vec()))
}

#[test]
fn routes_name_the_field_that_is_wrong() {
    use route_pb::route_action::ClusterSpecifier;
    let weights = |weights: &[u32]| {
        Some(ClusterSpecifier::WeightedClusters(route_pb::WeightedCluster {
            clusters: weights
                .iter()
                .map(|weight| route_pb::weighted_cluster::ClusterWeight {
                    name: "c".into(),
                    weight: number(*weight),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }))
    };
    let regex = |source: &str| {
        Some(route_pb::route_match::PathSpecifier::SafeRegex(
            rajut_proto::matcher::RegexMatcher {
                regex: source.into(),
                ..Default::default()
            },
        ))
    };
    let retry = |on: &str| route_pb::RetryPolicy {
        retry_on: on.into(),
        ..Default::default()
    };
    let host = "virtual_hosts[0]";
    let cases: Vec<(Vec<String>, String)> = vec![
        (route(|_, _, _| {}), String::new()),
        (
            route(|it, _, _| it.domains.clear()),
            format!("{host}.domains: is required"),
        ),
        (
            route(|it, _, _| it.domains.push("a*b".into())),
            format!("{host}.domains[1]: `a*b` is not a host name"),
        ),
        (
            route(|it, _, _| it.domains.push("*".into())),
            format!("{host}.domains[1]: `*` stands twice"),
        ),
        (
            route(|it, _, _| it.require_tls = 2),
            format!(
                "{host}.require_tls: `envoy.config.route.v3.VirtualHost.require_tls` is not supported; write a redirect route"
            ),
        ),
        (
            route(|_, _, it| it.cluster_specifier = None),
            format!("{host}.routes[0].route: is required: cluster,"),
        ),
        (
            route(|_, _, it| it.cluster_specifier = weights(&[0, 0])),
            format!(
                "{host}.routes[0].route.weighted_clusters.clusters: a sum of weights of 0 is out of range"
            ),
        ),
        (
            route(|_, _, it| it.cluster_specifier = weights(&[u32::MAX, 1])),
            format!("{host}.routes[0].route.weighted_clusters.clusters: a sum of weights of 4294967296"),
        ),
        (
            route(|_, it, _| it.path_specifier = None),
            format!("{host}.routes[0].match: is required: prefix"),
        ),
        (
            route(|_, it, _| it.path_specifier = regex("(")),
            format!("{host}.routes[0].match.safe_regex.regex: `(` is not a regular expression"),
        ),
        (
            route(|_, it, _| it.path_specifier = regex("(?=a)")),
            format!("{host}.routes[0].match.safe_regex.regex: `(?=a)` is not a regular expression"),
        ),
        (
            route(|_, it, _| it.cookies.push(route_pb::CookieMatcher::default())),
            format!(
                "{host}.routes[0].match.cookies[0]: `envoy.config.route.v3.RouteMatch.cookies` is not supported"
            ),
        ),
        (
            route(|_, _, it| it.retry_policy = Some(retry("5xx,never"))),
            format!("{host}.routes[0].route.retry_policy.retry_on: `never` is not one of 5xx"),
        ),
        (
            route(|it, _, _| {
                it.typed_per_filter_config.insert(
                    "envoy.filters.http.fault".into(),
                    Any {
                        type_url: "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
                            .into(),
                        value: vec![0x0a, 0x00],
                    },
                );
            }),
            format!(
                "{host}.typed_per_filter_config[\"envoy.filters.http.fault\"].delay: is required: fixed_delay"
            ),
        ),
        (route(|_, _, it| it.priority = 1), String::new()),
    ];
    for (found, expected) in cases {
        let holds = match &*expected {
            "" => found.is_empty(),
            expected => found.iter().any(|it| it.starts_with(expected)),
        };
        assert!(holds, "expected {expected}\nfound {found:#?}");
    }
}

fn listener(change: impl FnOnce(&mut listener_pb::Listener)) -> Vec<String> {
    let proxy = rajut_proto::tcp_proxy::TcpProxy {
        stat_prefix: "t".into(),
        cluster_specifier: Some(rajut_proto::tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(
            "c".into(),
        )),
        ..Default::default()
    };
    let mut message = listener_pb::Listener {
        name: "l".into(),
        address: socket("127.0.0.1", 80),
        filter_chains: vec![listener_pb::FilterChain {
            filters: vec![filter("tcp", type_url::TCP_PROXY, proxy.encode_to_vec())],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(faults(decode_listener(&message.encode_to_vec())), [""; 0]);
    change(&mut message);
    faults(decode_listener(&message.encode_to_vec()))
}

fn filter(name: &str, url: &str, value: Vec<u8>) -> listener_pb::Filter {
    listener_pb::Filter {
        name: name.into(),
        config_type: Some(listener_pb::filter::ConfigType::TypedConfig(Any {
            type_url: url.into(),
            value,
        })),
    }
}

#[test]
fn listeners_name_the_field_that_is_wrong() {
    let cases: Vec<(Vec<String>, &str)> = vec![
        (listener(|it| it.address = None), "address: is required"),
        (
            listener(|it| it.address = socket("localhost", 1)),
            "address.socket_address.address: `localhost` is not an IP address",
        ),
        (
            listener(|it| it.filter_chains.clear()),
            "filter_chains: is required",
        ),
        (
            listener(|it| it.filter_chains[0].filters.clear()),
            "filter_chains[0].filters: is required: an HTTP connection manager or a TCP proxy",
        ),
        (
            listener(|it| {
                it.filter_chains[0]
                    .filters
                    .insert(0, filter("mongo", "type.googleapis.com/x.Mongo", vec![]));
            }),
            "filter_chains[0].filters[0].typed_config: network filter `mongo` (x.Mongo) is not supported; supported: envoy.filters.network.rbac, envoy.filters.network.ext_authz, istio.stats, and as the last one",
        ),
        (
            listener(|it| it.filter_chains.push(it.filter_chains[0].clone())),
            "filter_chains[1].filter_chain_match: `filter_chain_match` stands twice",
        ),
        (
            listener(|it| {
                it.filter_chains[0].filter_chain_match = Some(listener_pb::FilterChainMatch {
                    prefix_ranges: vec![core::CidrRange {
                        address_prefix: "10.0.0.0".into(),
                        prefix_len: number(33),
                    }],
                    ..Default::default()
                });
            }),
            "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len: 33 is out of range",
        ),
        (
            listener(|it| {
                it.filter_chains[0].filter_chain_match = Some(listener_pb::FilterChainMatch {
                    source_ports: (0..300).collect(),
                    server_names: (0..300).map(|at| format!("s{at}")).collect(),
                    ..Default::default()
                });
            }),
            "filter_chains[0].filter_chain_match: 90000 combinations is out of range",
        ),
        (
            listener(|it| {
                it.filter_chains[0].filter_chain_match = Some(listener_pb::FilterChainMatch {
                    source_type: 1,
                    ..Default::default()
                });
            }),
            "filter_chains[0].filter_chain_match.source_type: `envoy.config.listener.v3.FilterChainMatch.source_type` is not supported; write source_prefix_ranges",
        ),
        (
            listener(|it| {
                it.socket_options = vec![core::SocketOption {
                    level: 1,
                    name: 36,
                    value: Some(core::socket_option::Value::IntValue(1337)),
                    ..Default::default()
                }];
            }),
            "socket_options[0]: the value level 1 name 36 = 1337 is not supported",
        ),
        (
            listener(|it| {
                let context = tls_pb::DownstreamTlsContext {
                    require_sni: Some(wkt::BoolValue { value: true }),
                    common_tls_context: Some(tls_pb::CommonTlsContext {
                        key_log: Some(tls_pb::TlsKeyLog::default()),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                it.filter_chains[0].transport_socket = Some(core::TransportSocket {
                    name: "tls".into(),
                    config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any {
                        type_url: type_url::DOWNSTREAM_TLS.into(),
                        value: context.encode_to_vec(),
                    })),
                });
            }),
            "filter_chains[0].transport_socket.typed_config.common_tls_context.key_log: `envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.key_log` is not supported; keys are never written",
        ),
    ];
    for (found, expected) in cases {
        assert!(
            found.iter().any(|it| it.starts_with(expected)),
            "expected {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn an_explicit_default_of_a_refused_field_is_no_fault() {
    let off = Some(wkt::BoolValue { value: false });
    assert_eq!(listener(|it| it.transparent = off), [""; 0]);
    let on = Some(wkt::BoolValue { value: true });
    assert_eq!(listener(|it| it.transparent = on).len(), 1);
}

#[test]
fn bytes_that_are_no_message_are_told_so() {
    let found = faults(decode_cluster(&[0x0a, 0xff]));
    assert!(
        found[0].starts_with(": the bytes are not a valid message"),
        "{found:?}"
    );
    let found = faults(decode_name_table(&[0xff]));
    assert_eq!(found.len(), 1);
}

#[test]
fn the_error_shows_resource_path_and_what_to_do() {
    let message = cluster_pb::Cluster {
        name: "outbound|80||a".into(),
        lrs_server: Some(core::ConfigSource::default()),
        ..Default::default()
    };
    let errors = decode_cluster(&message.encode_to_vec()).expect_err("two faults");
    assert!(
        errors.to_string().starts_with("outbound|80||a: lrs_server: `envoy.config.cluster.v3.Cluster.lrs_server` is not supported; write load_stats_config of the cluster manager"),
        "{errors}"
    );
}
