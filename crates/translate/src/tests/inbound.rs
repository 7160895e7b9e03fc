use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    cluster::{Discovery, UpstreamProtocol},
    http::{ForwardClientCert, HttpConnectionManager},
    listener::{ChainAction, FilterChain, Listener, TransportProtocol},
    matcher::StringMatch,
    route::RetryOn,
    tls::TlsVersion,
};

use super::fixtures::*;
use crate::Capture;

fn inbound(protocol: Protocol, mode: MtlsMode, capture: Capture) -> rajut_ir::Resources {
    let configuration = Configuration {
        services: vec![service("web", 1, 80, protocol)],
        peer_authentications: vec![peers(mode)],
        ..Configuration::default()
    };
    resources(
        &snapshot(configuration, vec![workload("web", 1, "v1")]),
        &proxy("web", capture),
    )
}

/// (name, mTLS, HTTP) of each chain.
fn shape(listener: &Listener) -> Vec<(&str, bool, bool)> {
    listener
        .filter_chains
        .iter()
        .map(|chain| {
            (
                &*chain.name,
                chain.tls.is_some(),
                matches!(chain.action, ChainAction::Http(_)),
            )
        })
        .collect()
}

fn bound(protocol: Protocol, mode: MtlsMode) -> Listener {
    let found = inbound(protocol, mode, netns());
    listener(&found, "10.0.0.1_8080").clone()
}

#[test]
fn strict_declared_http_takes_tls_whatever_its_alpn_and_nothing_else() {
    let own = bound(Protocol::Http, MtlsMode::Strict);
    assert_eq!(shape(&own), [("mtls-http", true, true)]);
    let chain = &own.filter_chains[0];
    assert_eq!(chain.matches.transport_protocol, Some(TransportProtocol::Tls));
    assert!(chain.matches.application_protocols.is_empty());
    assert!(own.default_filter_chain.is_none());
    let tls = chain.tls.as_ref().expect("mTLS");
    assert!(tls.require_client_certificate && tls.disable_resumption);
    assert_eq!(tls.common.min_version, Some(TlsVersion::V1_3));
    let sans = &tls
        .common
        .validation
        .as_ref()
        .expect("checked")
        .context
        .subject_alt_names;
    assert_eq!(
        sans[0].matcher.pattern,
        StringMatch::Prefix("spiffe://cluster.local/".into())
    );
}

#[test]
fn permissive_declared_http_takes_plaintext_too() {
    let own = bound(Protocol::Http, MtlsMode::Permissive);
    assert_eq!(shape(&own), [("mtls-http", true, true), ("http", false, true)]);
    assert!(own.inspectors.tls && !own.inspectors.http);
}

#[test]
fn disabled_ports_look_at_nothing() {
    let own = bound(Protocol::Http, MtlsMode::Disable);
    assert_eq!(shape(&own), [("http", false, true)]);
    assert_eq!(own.inspectors, rajut_ir::listener::Inspectors::default());
    assert_eq!(own.filter_chains[0].matches.transport_protocol, None);
}

#[test]
fn permissive_opaque_ports_tell_the_meshs_tls_from_the_applications() {
    let own = bound(Protocol::Tcp, MtlsMode::Permissive);
    assert_eq!(
        shape(&own),
        [
            ("mtls", true, false),
            ("tls-passthrough", false, false),
            ("tcp", false, false)
        ]
    );
    assert_eq!(
        own.filter_chains[0].matches.application_protocols,
        ["istio-peer-exchange".into(), "istio".into()]
    );
    assert!(own.filter_chains[1].matches.application_protocols.is_empty());
}

#[test]
fn detected_ports_split_by_alpn_and_server_name() {
    let strict = bound(Protocol::Detect, MtlsMode::Strict);
    assert_eq!(shape(&strict), [("mtls-http", true, true), ("mtls", true, false)]);
    assert!(
        strict.filter_chains[0]
            .matches
            .application_protocols
            .contains(&"h2".into())
    );
    let permissive = bound(Protocol::Detect, MtlsMode::Permissive);
    assert_eq!(
        shape(&permissive),
        [
            ("mtls-http-named", true, true),
            ("mtls-named", true, false),
            ("mtls-http", true, true),
            ("mtls", true, false),
            ("tls-passthrough", false, false),
            ("http", false, true),
            ("tcp", false, false),
        ]
    );
    assert_eq!(
        permissive.filter_chains[0].matches.server_names,
        ["*.web.clinic.svc.cluster.local".into()]
    );
    // Without the mesh's names, a plain `h2` is the application's own TLS.
    assert!(
        !permissive.filter_chains[2]
            .matches
            .application_protocols
            .contains(&"h2".into())
    );
}

fn http(chain: &FilterChain) -> &HttpConnectionManager {
    manager(chain)
}

#[test]
fn the_caller_is_told_to_the_application_and_retries_are_safe() {
    let own = bound(Protocol::Http, MtlsMode::Strict);
    let chain = &own.filter_chains[0];
    assert_eq!(http(chain).forward_client_cert, ForwardClientCert::AppendForward);
    let details = http(chain).client_cert_details;
    assert!(details.subject && details.uri && details.dns);
    let table = inline(chain);
    let retry = forward(&table.virtual_hosts[0].routes[0])
        .retry
        .clone()
        .expect("a policy");
    assert_eq!((retry.on, retry.num_retries), (RetryOn::RESET_BEFORE_REQUEST, 2));
    let grpc = bound(Protocol::Grpc, MtlsMode::Strict);
    let table = inline(&grpc.filter_chains[0]);
    assert_eq!(forward(&table.virtual_hosts[0].routes[0]).retry, None);
}

#[test]
fn the_application_is_reached_inside_its_namespace_with_its_own_protocol() {
    let found = inbound(Protocol::Http, MtlsMode::Strict, netns());
    let own = cluster(&found, "inbound|8080||");
    assert!(matches!(own.protocol, UpstreamProtocol::Http1(_)));
    assert_eq!(
        own.bind.as_ref().and_then(|bind| bind.netns.as_deref()),
        Some("/run/netns/w")
    );
    let Discovery::Static(endpoints) = &own.discovery else {
        panic!("not static");
    };
    assert_eq!(
        endpoints.endpoints().next().expect("one").address.to_string(),
        "127.0.0.1:8080"
    );
    let grpc = inbound(Protocol::Grpc, MtlsMode::Strict, netns());
    assert!(matches!(
        cluster(&grpc, "inbound|8080||").protocol,
        UpstreamProtocol::Http2(_)
    ));
    let detected = inbound(Protocol::Detect, MtlsMode::Strict, netns());
    assert!(matches!(
        cluster(&detected, "inbound|8080||").protocol,
        UpstreamProtocol::UseDownstream(..)
    ));
    let explicit = inbound(Protocol::Http, MtlsMode::Strict, explicit(&[]));
    let own = cluster(&explicit, "inbound|8080||");
    assert_eq!(own.bind, None);
    let Discovery::Static(endpoints) = &own.discovery else {
        panic!("not static");
    };
    assert_eq!(
        endpoints.endpoints().next().expect("one").address.to_string(),
        "127.0.0.1:9000"
    );
}

#[test]
fn redirected_ports_share_a_socket_and_unknown_ones_keep_their_policy() {
    let mut one = peers(MtlsMode::Strict);
    one.name = "one".into();
    one.selector = Some([("app", "web")].into_iter().collect());
    one.ports.insert(9999, Some(MtlsMode::Disable));
    let configuration = Configuration {
        services: vec![service("web", 1, 80, Protocol::Http)],
        peer_authentications: vec![one],
        ..Configuration::default()
    };
    let found = resources(
        &snapshot(configuration, vec![workload("web", 1, "v1")]),
        &proxy("web", Capture::Redirect),
    );
    let own = listener(&found, "virtualInbound");
    assert_eq!(own.address.socket, socket("0.0.0.0:15006"));
    let names: Vec<_> = own.filter_chains.iter().map(|chain| &*chain.name).collect();
    assert_eq!(
        names,
        [
            "virtualInbound-blackhole",
            "8080-mtls-http",
            "9999-http",
            "9999-tcp",
            "mtls-http",
            "mtls"
        ]
    );
    assert_eq!(own.filter_chains[1].matches.destination_port, Some(8080));
    assert_eq!(
        clusters_of(&own.filter_chains[3]),
        [("InboundPassthroughCluster", 1)]
    );
    assert!(own.filter_chains[3].tls.is_none() && own.filter_chains[5].tls.is_some());
    let app = cluster(&found, "inbound|8080||");
    assert_eq!(app.discovery, Discovery::OriginalDst);
    assert_eq!(
        app.bind.as_ref().and_then(|bind| bind.source),
        Some(socket("127.0.0.6:0"))
    );
}

#[test]
fn limits_of_the_own_namespace_hold_towards_the_application() {
    let pool = ConnectionPool {
        http2_max_requests: Some(7),
        ..ConnectionPool::default()
    };
    let policy = TrafficPolicy {
        connection_pool: Some(pool),
        ..TrafficPolicy::default()
    };
    let configuration = Configuration {
        services: vec![service("web", 1, 80, Protocol::Http)],
        destination_rules: vec![rule("web", policy, &[])],
        ..Configuration::default()
    };
    let found = resources(
        &snapshot(configuration, vec![workload("web", 1, "v1")]),
        &proxy("web", netns()),
    );
    assert_eq!(cluster(&found, "inbound|8080||").circuit_breakers.max_requests, 7);
}

#[test]
fn the_oldest_service_tells_the_protocol_and_undeclared_ports_are_detected() {
    let mut newer = service("web-admin", 9, 81, Protocol::Tcp);
    newer.selector = Some([("app", "web")].into_iter().collect());
    let configuration = Configuration {
        services: vec![newer, service("web", 1, 80, Protocol::Grpc)],
        ..Configuration::default()
    };
    let mesh = snapshot(configuration, vec![workload("web", 1, "v1")]);
    let found = resources(&mesh, &proxy("web", netns()));
    assert!(matches!(
        cluster(&found, "inbound|8080||").protocol,
        UpstreamProtocol::Http2(_)
    ));
    let capture = Capture::Netns {
        path: "/run/netns/w".into(),
        app_address: [127, 0, 0, 1].into(),
        inbound: [(7777, socket("10.0.0.1:7777"))].into_iter().collect(),
    };
    let found = resources(&mesh, &proxy("web", capture));
    assert!(matches!(
        cluster(&found, "inbound|7777||").protocol,
        UpstreamProtocol::UseDownstream(..)
    ));
}
