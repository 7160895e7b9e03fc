use std::time::Duration;

use super::*;
use crate::{
    cluster::{Discovery, LbPolicy, UpstreamProtocol},
    endpoint::EndpointAddress,
    http::RouteSource,
    listener::ChainAction,
};

const FRONT_PROXY: &str = include_str!("../../../tests/bootstraps/front-proxy.yaml");
const TCP: &str = include_str!("../../../tests/bootstraps/tcp.json");
const ADS: &str = include_str!("../../../tests/bootstraps/ads.yaml");

fn parse(text: &str) -> Bootstrap {
    parse_bootstrap(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The faults of a file as `path: fault`.
fn faults(text: &str) -> Vec<String> {
    match parse_bootstrap(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .into_iter()
            .map(|it| format!("{}: {}", it.path, it.fault))
            .collect(),
    }
}

#[test]
fn a_front_proxy_gets_what_its_file_says_and_envoys_defaults() {
    let bootstrap = parse(FRONT_PROXY);
    assert_eq!(bootstrap.admin, Some("127.0.0.1:9901".parse().expect("valid")));
    assert_eq!(bootstrap.ads, None);
    let listener = &bootstrap.resources.listeners["https"];
    assert!(listener.inspectors.tls && !listener.inspectors.http);
    assert_eq!(listener.inspection_timeout, Duration::from_secs(15));
    let chain = &listener.filter_chains[0];
    assert!(
        chain
            .tls
            .as_ref()
            .is_some_and(|tls| tls.require_client_certificate)
    );
    let ChainAction::Http(manager) = &chain.action else {
        panic!("{:?}", chain.action);
    };
    assert_eq!(manager.stream_idle_timeout, None);
    assert_eq!(manager.idle_timeout, Some(Duration::from_hours(1)));
    assert_eq!(manager.max_request_headers_kb, 60);
    assert_eq!(manager.upgrades, [("websocket".into(), true)]);
    let RouteSource::Inline(routes) = &manager.routes else {
        panic!("{:?}", manager.routes);
    };
    assert_eq!(routes.virtual_hosts[0].routes.len(), 4);

    let stable = &bootstrap.resources.clusters["encounters-stable"];
    assert_eq!(stable.connect_timeout, Duration::from_millis(250));
    assert_eq!(stable.lb_policy, LbPolicy::LeastRequest { choices: 2 });
    assert_eq!(stable.circuit_breakers.max_connections, 100);
    assert_eq!(stable.circuit_breakers.max_requests, 1024);
    let outlier = stable.outlier_detection.as_ref().expect("the file has it");
    assert_eq!(outlier.consecutive_5xx, Some(5));
    assert_eq!(outlier.consecutive_gateway_failure, Some(3));
    assert_eq!(outlier.max_ejection_time, Duration::from_mins(5));
    let Discovery::StrictDns(assignment) = &stable.discovery else {
        panic!("{:?}", stable.discovery);
    };
    let endpoints: Vec<_> = assignment.endpoints().collect();
    assert_eq!(
        endpoints[0].address,
        EndpointAddress::Dns {
            host: "localhost".into(),
            port: 4601
        }
    );
    assert_eq!((endpoints[0].weight, endpoints[1].weight), (3, 1));
    let canary = &bootstrap.resources.clusters["encounters-canary"];
    assert!(
        matches!(&canary.protocol, UpstreamProtocol::Http2(it) if it.max_concurrent_streams == Some(100))
    );
    assert_eq!(bootstrap.resources.secrets.len(), 2);
    let ignored: Vec<_> = bootstrap.ignored.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(
        ignored,
        ["static_resources.clusters[0].circuit_breakers.thresholds[1]"]
    );
}

#[test]
fn json_with_the_other_spelling_of_names_is_read_too() {
    let bootstrap = parse(TCP);
    assert_eq!(&*bootstrap.node.locality.region, "jakarta");
    let ChainAction::Tcp(proxy) = &bootstrap.resources.listeners["mysql"].filter_chains[0].action else {
        panic!("a TCP proxy");
    };
    assert_eq!(proxy.clusters, [("primary".into(), 1), ("replica".into(), 3)]);
    assert_eq!(proxy.idle_timeout, None);
    assert_eq!(proxy.max_connect_attempts, 3);
}

#[test]
fn the_control_plane_and_the_node_are_read() {
    let bootstrap = parse(ADS);
    assert_eq!(
        bootstrap.ads,
        Some(Ads {
            cluster: "xds".into(),
            delta: true,
            listeners: true,
            clusters: true,
            load_reports: false,
        })
    );
    assert_eq!(bootstrap.node.metadata["LABELS"]["app"], "signer");
    assert!(matches!(
        bootstrap.resources.clusters["xds"].protocol,
        UpstreamProtocol::Http2(_)
    ));
    let ignored: Vec<_> = bootstrap.ignored.iter().map(|it| &*it.what).collect();
    assert!(
        ignored.contains(&"envoy.config.bootstrap.v3.Bootstrap.layered_runtime"),
        "{ignored:?}"
    );
    assert!(
        ignored.contains(&"envoy.config.bootstrap.v3.Bootstrap.stats_config"),
        "{ignored:?}"
    );
}

#[test]
fn load_is_reported_to_the_control_plane_and_to_nobody_else() {
    let with = |cluster: &str| {
        let source = format!(
            "cluster_manager:\n  load_stats_config:\n    api_type: GRPC\n    transport_api_version: V3\n    \
             grpc_services: [{{envoy_grpc: {{cluster_name: {cluster}}}}}]\n"
        );
        format!("{ADS}\n{source}")
    };
    let bootstrap = parse(&with("xds"));
    assert!(bootstrap.ads.expect("a control plane").load_reports);
    let faults = faults(&with("elsewhere"));
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("cluster_manager.load_stats_config")),
        "{faults:?}"
    );
}

#[test]
fn every_fault_of_a_file_is_told_with_its_place() {
    let broken = FRONT_PROXY
        .replace(
            "stat_prefix: ingress",
            "stat_prefix: ingress\n          via: clinic",
        )
        .replace(
            "lb_policy: LEAST_REQUEST",
            "lb_policy: LEAST_REQUEST\n    health_checks: [{timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 1, custom_health_check: {name: mine}}]",
        )
        .replace(
            "path: /health",
            "path: /health, cookies: [{name: a, string_match: {exact: b}}]",
        )
        .replace("num_retries: 2", "numretries: 2")
        .replace("admin:", "stats_sinks: [{name: envoy.stat_sinks.statsd}]\nadmin:");
    let faults = faults(&broken);
    let starts = |text: &str| faults.iter().any(|it| it.starts_with(text));
    let chain = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    assert!(
        starts(&format!(
            "{chain}.route_config.virtual_hosts[0].retry_policy: `envoy.config.route.v3.RetryPolicy` has no field `numretries`"
        )),
        "{faults:#?}"
    );
    assert!(
        starts(
            "static_resources.clusters[0].health_checks[0].custom_health_check: `envoy.config.core.v3.HealthCheck.custom_health_check` is not supported"
        ),
        "{faults:#?}"
    );
    assert!(starts("stats_sinks[0]: "), "{faults:#?}");

    let spelled = broken.replace("numretries: 2", "num_retries: 2");
    let faults = self::faults(&spelled);
    let starts = |text: &str| faults.iter().any(|it| it.starts_with(text));
    assert!(starts(&format!("{chain}.via: ")), "{faults:#?}");
    assert!(
        starts(&format!(
            "{chain}.route_config.virtual_hosts[0].routes[0].match.cookies[0]: "
        )),
        "{faults:#?}"
    );
    assert_eq!(faults.len(), 4, "{faults:#?}");
}

#[test]
fn what_is_outside_the_subset_is_refused_by_name() {
    let file = |dynamic: &str| format!("node: {{id: a, cluster: b}}\ndynamic_resources: {dynamic}\n");
    for (text, expected) in [
        (
            file("{lds_config: {path_config_source: {path: /x}}}"),
            "dynamic_resources.lds_config: the value a file, or self is not supported",
        ),
        (
            file("{cds_config: {ads: {}}}"),
            "dynamic_resources.ads_config: is required",
        ),
        (
            file("{ads_config: {api_type: REST, cluster_names: [x]}}"),
            "dynamic_resources.ads_config.api_type: the value REST is not supported; write GRPC or DELTA_GRPC",
        ),
        (
            file(
                "{ads_config: {api_type: GRPC, grpc_services: [{google_grpc: {target_uri: x, stat_prefix: y}}]}}",
            ),
            "dynamic_resources.ads_config.grpc_services[0].google_grpc: the value x is not supported",
        ),
        (
            file("{ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: x}}]}}"),
            "dynamic_resources.ads_config: `x` is not a cluster of static_resources",
        ),
        (
            "hds_config: {api_type: GRPC}".into(),
            "hds_config: `envoy.config.bootstrap.v3.Bootstrap.hds_config`",
        ),
        ("node: [".into(), ": "),
        ("[]".into(), ": `[]` is not an object"),
        (
            "admin: {address: {pipe: {path: /x}}}".into(),
            "admin.address.pipe: ",
        ),
        (
            "static_resources: {listeners: {}}".into(),
            "static_resources.listeners: ",
        ),
        (
            "static_resources: {listeners: [{name: a, filter_chains: [{filters: [{name: lua, typed_config: \
             {\"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}]}]}]}"
                .into(),
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config: the type \
             `envoy.extensions.filters.http.lua.v3.Lua` is not known",
        ),
    ] {
        let faults = faults(&text);
        assert!(
            faults.iter().any(|it| it.starts_with(expected)),
            "{text}\n{faults:#?}"
        );
    }
}

#[test]
fn an_endless_file_is_refused() {
    assert_eq!(faults(&" ".repeat(TEXT_MAX + 1)).len(), 1);
    assert_eq!(faults(&"[".repeat(100_000)).len(), 1);
}
