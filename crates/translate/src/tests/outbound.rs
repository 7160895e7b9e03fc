use std::{net::IpAddr, time::Duration};

use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    cluster::{Discovery, LbPolicy, UpstreamProtocol},
    endpoint::Health,
    http::RouteSource,
    matcher::StringMatch,
    route::{HostRewrite, RouteActionKind},
    tls::TlsVersion,
};
use rajut_types::Percent;

use super::fixtures::*;
use crate::{Capture, Role};

const API: &str = "outbound|80||api.clinic.svc.cluster.local";

fn mesh_of(services: Vec<Service>) -> Configuration {
    Configuration {
        services,
        ..Configuration::default()
    }
}

#[test]
fn http_ports_share_a_listener_and_unknown_hosts_pass_through() {
    let configuration = mesh_of(vec![
        service("api", 1, 80, Protocol::Http),
        service("auth", 2, 80, Protocol::Grpc),
    ]);
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let shared = listener(&found, "0.0.0.0_80");
    assert!(!shared.bind_to_port);
    assert_eq!(shared.filter_chains.len(), 1);
    assert_eq!(
        manager(&shared.filter_chains[0]).routes,
        RouteSource::Rds("80".into())
    );
    let rest = shared
        .default_filter_chain
        .as_ref()
        .expect("a chain for the rest");
    assert_eq!(clusters_of(rest), [("PassthroughCluster", 1)]);
    let table = routes(&found, "80");
    assert!(table.ignore_port_in_host_matching);
    let names: Vec<_> = table.virtual_hosts.iter().map(|host| &*host.name).collect();
    assert_eq!(
        names,
        [
            "api.clinic.svc.cluster.local:80",
            "auth.clinic.svc.cluster.local:80",
            "allow_any"
        ]
    );
    let api = virtual_host(table, "api.clinic.svc.cluster.local:80");
    for domain in [
        "api",
        "api.clinic",
        "api.clinic.svc",
        "api.clinic.svc.cluster.local",
        "240.240.0.1",
    ] {
        assert!(api.domains.iter().any(|found| &**found == domain), "{domain}");
    }
    assert_eq!(forward(&api.routes[0]).timeout, None);
    assert_eq!(forward(&api.routes[0]).grpc_timeout_max, Some(Duration::ZERO));
}

#[test]
fn registry_only_answers_502_and_drops_bytes() {
    let mut configuration = mesh_of(vec![service("api", 1, 80, Protocol::Http)]);
    configuration.mesh.outbound_policy = OutboundPolicy::RegistryOnly;
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let blocked = virtual_host(routes(&found, "80"), "block_all");
    let RouteActionKind::DirectResponse(answer) = &blocked.routes[0].action else {
        panic!("not a direct response");
    };
    assert_eq!(answer.status, 502);
    let capture = listener(&found, "virtualOutbound");
    let rest = capture
        .default_filter_chain
        .as_ref()
        .expect("a chain for the rest");
    assert_eq!(clusters_of(rest), [("BlackHoleCluster", 1)]);
}

#[test]
fn the_capturing_listener_stands_in_the_namespace_and_refuses_itself() {
    let found = resources(
        &snapshot(Configuration::default(), vec![]),
        &proxy("web", netns()),
    );
    let capture = listener(&found, "virtualOutbound");
    assert_eq!(capture.address.socket, socket("127.0.0.1:15001"));
    assert_eq!(capture.address.netns.as_deref(), Some("/run/netns/w"));
    assert!(capture.use_original_dst && capture.bind_to_port && capture.inspectors.original_dst);
    assert_eq!(capture.filter_chains[0].matches.destination_port, Some(15001));
    assert_eq!(clusters_of(&capture.filter_chains[0]), [("BlackHoleCluster", 1)]);
    let plain = resources(
        &snapshot(Configuration::default(), vec![]),
        &proxy("web", Capture::Redirect),
    );
    assert_eq!(
        listener(&plain, "virtualOutbound").address.socket,
        socket("0.0.0.0:15001")
    );
}

#[test]
fn detected_ports_tell_http_from_bytes_on_their_own_address() {
    let configuration = mesh_of(vec![service("db", 3, 9000, Protocol::Detect)]);
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let own = listener(&found, "240.240.0.3_9000");
    assert!(own.inspectors.http && own.continue_on_inspection_timeout);
    assert_eq!(own.inspection_timeout, Duration::from_secs(1));
    let route = "db.clinic.svc.cluster.local:9000";
    assert_eq!(
        manager(&own.filter_chains[0]).routes,
        RouteSource::Rds(route.into())
    );
    assert_eq!(routes(&found, route).virtual_hosts[0].domains, ["*".into()]);
    let rest = own.default_filter_chain.as_ref().expect("a chain for the rest");
    let name = "outbound|9000||db.clinic.svc.cluster.local";
    assert_eq!(clusters_of(rest), [(name, 1)]);
    assert!(matches!(
        cluster(&found, name).protocol,
        UpstreamProtocol::UseDownstream(..)
    ));
    // No protocol is offered by configuration: the pool's own is.
    let tls = cluster(&found, name).tls_matches[0].tls.as_ref().expect("mTLS");
    assert_eq!(tls.common.alpn, []);
}

#[test]
fn opaque_ports_wait_for_nothing() {
    let configuration = mesh_of(vec![service("db", 3, 3306, Protocol::Tcp)]);
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let own = listener(&found, "240.240.0.3_3306");
    assert_eq!(own.inspectors, rajut_ir::listener::Inspectors::default());
    assert!(found.routes.is_empty());
}

#[test]
fn tcp_routes_go_by_weight_and_leave_zero_out() {
    let mut vs = virtual_service("db", vec![]);
    vs.tcp.push(TcpRoute {
        matches: vec![],
        destinations: vec![to("db", "v1", 3), to("db", "v2", 0), to("db", "v3", 1)],
        origin: origin("VirtualService", "clinic", "db"),
    });
    let configuration = Configuration {
        virtual_services: vec![vs],
        ..mesh_of(vec![service("db", 3, 3306, Protocol::Tcp)])
    };
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let rest = listener(&found, "240.240.0.3_3306")
        .default_filter_chain
        .as_ref()
        .expect("a chain");
    assert_eq!(
        clusters_of(rest),
        [
            ("outbound|3306|v1|db.clinic.svc.cluster.local", 3),
            ("outbound|3306|v3|db.clinic.svc.cluster.local", 1)
        ]
    );
}

#[test]
fn tls_routes_go_by_server_name() {
    let mut vs = virtual_service("bank", vec![]);
    vs.hosts = vec![host("bank.example.org")];
    vs.tls.push(TlsRoute {
        matches: vec![TlsMatch {
            sni_hosts: vec![host("bank.example.org")],
            l4: L4Match::default(),
        }],
        destinations: vec![to("db", "", 1)],
        origin: origin("VirtualService", "clinic", "bank"),
    });
    let mut bank = service("bank", 5, 443, Protocol::Tls);
    bank.host = host("bank.example.org");
    bank.addresses.clear();
    bank.external = true;
    bank.resolution = Resolution::Dns;
    let configuration = Configuration {
        virtual_services: vec![vs],
        ..mesh_of(vec![bank, service("db", 3, 3306, Protocol::Tcp)])
    };
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let own = listener(&found, "0.0.0.0_443");
    assert!(own.inspectors.tls && !own.inspectors.http);
    assert_eq!(
        own.filter_chains[0].matches.server_names,
        ["bank.example.org".into()]
    );
    // A single-port service takes its own port, not the dialled one.
    assert_eq!(
        clusters_of(&own.filter_chains[0]),
        [("outbound|3306||db.clinic.svc.cluster.local", 1)]
    );
    let external = cluster(&found, "outbound|443||bank.example.org");
    assert!(matches!(&external.discovery, Discovery::StrictDns(names) if names.endpoints().count() == 1));
    assert!(external.tls.is_none() && external.tls_matches.is_empty());
}

#[test]
fn explicit_ports_answer_any_host_and_tell_the_upstream_its_own() {
    let configuration = mesh_of(vec![
        service("api", 1, 80, Protocol::Http),
        service("db", 3, 3306, Protocol::Tcp),
    ]);
    let found = resources(
        &snapshot(configuration, vec![workload("api", 7, "v1")]),
        &proxy("web", explicit(&[("api", 80), ("db", 3306)])),
    );
    let api = listener(&found, "127.0.0.1_18080");
    assert!(api.bind_to_port && !api.inspectors.http);
    let table = routes(&found, "api.clinic.svc.cluster.local:80");
    assert_eq!(table.virtual_hosts[0].domains, ["*".into()]);
    let action = forward(&table.virtual_hosts[0].routes[0]);
    assert_eq!(
        action.host_rewrite,
        Some(HostRewrite::Literal("api.clinic.svc.cluster.local:80".into()))
    );
    let db = listener(&found, "127.0.0.1_21306")
        .default_filter_chain
        .as_ref()
        .expect("a chain");
    assert_eq!(
        clusters_of(db),
        [("outbound|3306||db.clinic.svc.cluster.local", 1)]
    );
    assert!(!found.listeners.contains_key("virtualOutbound"));
    assert!(found.names.is_none());
    assert_eq!(found.assignments[API].endpoints().count(), 1);
}

#[test]
fn the_hosts_door_has_outbound_listeners_alone() {
    let configuration = mesh_of(vec![service("api", 1, 80, Protocol::Http)]);
    let mut door = proxy("door", explicit(&[("api", 80)]));
    door.role = Role::HostGateway;
    let found = resources(&snapshot(configuration, vec![]), &door);
    assert_eq!(
        found.listeners.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["127.0.0.1_18080"]
    );
    assert!(found.clusters.keys().all(|name| name.starts_with("outbound|")));
}

#[test]
fn an_explicit_port_of_an_unknown_service_is_told_and_skipped() {
    let mesh = snapshot(Configuration::default(), vec![]);
    let (found, diagnostics) = crate::translate(
        &mesh,
        &proxy("web", explicit(&[("ghost", 80)])),
        &mut crate::Translator::default(),
    );
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].code, rajut_config::codes::EXPLICIT_PORT_UNKNOWN);
    assert!(found.routes.is_empty());
}

#[test]
fn endpoints_carry_health_mtls_and_the_workload() {
    let mut late = workload("api", 8, "v1");
    late.health = WorkloadHealth::NotReady;
    let mut leaving = workload("api", 9, "v1");
    leaving.health = WorkloadHealth::Terminating;
    leaving.mesh = false;
    let configuration = mesh_of(vec![service("api", 1, 80, Protocol::Http)]);
    let found = resources(
        &snapshot(configuration, vec![workload("api", 7, "v1"), late, leaving]),
        &proxy("web", netns()),
    );
    let endpoints: Vec<_> = found.assignments[API].endpoints().collect();
    assert_eq!(endpoints.len(), 3);
    assert_eq!(
        endpoints
            .iter()
            .map(|endpoint| endpoint.health)
            .collect::<Vec<_>>(),
        [Health::Healthy, Health::Unhealthy, Health::Draining]
    );
    assert_eq!(endpoints[0].address.to_string(), "10.0.0.7:8080");
    assert_eq!(&*endpoints[0].workload, "api;clinic;api;v1;;api;v1");
    assert_eq!(endpoints[0].tls_labels.find("tlsMode"), Some("istio"));
    assert!(endpoints[2].tls_labels.is_empty());
}

#[test]
fn a_disabled_server_turns_the_clients_mtls_off_for_its_endpoints() {
    let configuration = Configuration {
        peer_authentications: vec![peers(MtlsMode::Disable)],
        ..mesh_of(vec![service("api", 1, 80, Protocol::Http)])
    };
    let found = resources(
        &snapshot(configuration, vec![workload("api", 7, "v1")]),
        &proxy("web", netns()),
    );
    let endpoint = found.assignments[API].endpoints().next().expect("an endpoint");
    assert!(endpoint.tls_labels.is_empty());
}

#[test]
fn mesh_tls_names_the_servers_accounts_and_never_resumes() {
    let configuration = mesh_of(vec![service("api", 1, 80, Protocol::Http)]);
    let found = resources(
        &snapshot(configuration, vec![workload("api", 7, "v1")]),
        &proxy("web", netns()),
    );
    let api = cluster(&found, API);
    assert_eq!(api.tls_matches[0].labels.find("tlsMode"), Some("istio"));
    assert!(api.tls_matches[1].tls.is_none() && api.tls_matches[1].labels.is_empty());
    let tls = api.tls_matches[0].tls.as_ref().expect("mTLS");
    assert_eq!(&*tls.sni, "outbound_.80_._.api.clinic.svc.cluster.local");
    assert_eq!(tls.max_session_keys, Some(0));
    assert_eq!(tls.common.min_version, Some(TlsVersion::V1_3));
    assert_eq!(&*tls.common.groups[0], "X25519MLKEM768");
    let sans = &tls
        .common
        .validation
        .as_ref()
        .expect("checked")
        .context
        .subject_alt_names;
    assert_eq!(sans.len(), 1);
    assert_eq!(
        sans[0].matcher.pattern,
        StringMatch::Exact("spiffe://cluster.local/ns/clinic/sa/api".into())
    );
}

#[test]
fn a_rules_tls_mode_replaces_auto_mtls() {
    let with = |mode| {
        let tls = ClientTls {
            mode,
            client_certificate: None,
            ca_certificates: None,
            subject_alt_names: vec![],
            sni: None,
            insecure_skip_verify: false,
        };
        let policy = TrafficPolicy {
            tls: Some(tls),
            ..TrafficPolicy::default()
        };
        let configuration = Configuration {
            destination_rules: vec![rule("api", policy, &[])],
            ..mesh_of(vec![service("api", 1, 80, Protocol::Http)])
        };
        let found = resources(
            &snapshot(configuration, vec![workload("api", 7, "v1")]),
            &proxy("web", netns()),
        );
        let api = cluster(&found, API).clone();
        assert!(api.tls_matches.is_empty());
        api.tls
    };
    assert_eq!(with(ClientTlsMode::Disable), None);
    let mutual = with(ClientTlsMode::IstioMutual).expect("TLS");
    assert_eq!(&*mutual.sni, "outbound_.80_._.api.clinic.svc.cluster.local");
    let simple = with(ClientTlsMode::Simple).expect("TLS");
    assert!(simple.auto_sni && simple.auto_san_validation);
    assert!(simple.common.certificates.is_empty());
}

#[test]
fn limits_are_the_rules_and_none_by_default() {
    let pool = ConnectionPool {
        max_connections: Some(100),
        http1_max_pending_requests: Some(10),
        http2_max_requests: Some(1000),
        h2_upgrade: Some(true),
        ..ConnectionPool::default()
    };
    let outlier = OutlierDetection {
        consecutive_5xx: None,
        consecutive_gateway: Some(5),
        consecutive_local_origin: None,
        split_local_origin: false,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_mins(10),
        max_ejection_percent: Percent::from_millionths(500_000),
        min_health_percent: Percent::default(),
        error_statuses: Vec::new(),
    };
    let policy = TrafficPolicy {
        connection_pool: Some(pool),
        outlier_detection: Some(outlier),
        ..TrafficPolicy::default()
    };
    let configuration = Configuration {
        destination_rules: vec![rule("api", policy, &["v1"])],
        ..mesh_of(vec![
            service("api", 1, 80, Protocol::Http),
            service("auth", 2, 80, Protocol::Http),
        ])
    };
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    for name in [API, "outbound|80|v1|api.clinic.svc.cluster.local"] {
        let api = cluster(&found, name);
        assert_eq!(api.circuit_breakers.max_connections, 100);
        assert_eq!(api.circuit_breakers.max_requests, 1000);
        assert_eq!(api.circuit_breakers.max_retries, u32::MAX);
        assert!(matches!(api.protocol, UpstreamProtocol::Http2(_)));
        let ejection = api.outlier_detection.as_ref().expect("ejection");
        assert_eq!(
            (ejection.consecutive_5xx, ejection.consecutive_gateway_failure),
            (None, Some(5))
        );
        assert_eq!(ejection.max_ejection_time, Duration::from_mins(10));
    }
    let auth = cluster(&found, "outbound|80||auth.clinic.svc.cluster.local");
    assert_eq!(
        auth.circuit_breakers,
        rajut_ir::cluster::CircuitBreakers::UNLIMITED
    );
    assert_eq!(auth.lb_policy, LbPolicy::LeastRequest { choices: 2 });
    assert_eq!(auth.panic_threshold, Percent::default());
    assert_eq!(auth.connect_timeout, Duration::from_secs(10));
    assert!(matches!(auth.protocol, UpstreamProtocol::Http1(_)));
}

#[test]
fn headless_services_go_where_the_client_dialled() {
    let mut db = service("db", 3, 5432, Protocol::Tcp);
    db.addresses.clear();
    db.headless = true;
    let mesh = snapshot(mesh_of(vec![db]), vec![workload("db", 7, "v1")]);
    let found = resources(&mesh, &proxy("web", netns()));
    let name = "outbound|5432||db.clinic.svc.cluster.local";
    let own = cluster(&found, name);
    assert_eq!(
        (&own.discovery, &own.lb_policy),
        (&Discovery::OriginalDst, &LbPolicy::ClusterProvided)
    );
    assert!(own.tls.is_some() && own.tls_matches.is_empty());
    assert!(found.listeners.contains_key("10.0.0.7_5432"));
    assert!(!found.assignments.contains_key(name));
    let names = found.names.as_ref().expect("a table");
    let pod = [IpAddr::from([10, 0, 0, 7])];
    for known in [
        "db",
        "db.clinic.svc.cluster.local",
        "db-7.db",
        "db-7.db.clinic.svc.cluster.local",
    ] {
        assert_eq!(names.find(known), Some(&pod[..]), "{known}");
    }
    // Without redirection nobody dials an endpoint: they are sent instead.
    let explicit = resources(&mesh, &proxy("web", explicit(&[("db", 5432)])));
    assert_eq!(explicit.assignments[name].endpoints().count(), 1);
}

#[test]
fn names_are_short_in_the_own_namespace_alone() {
    let mesh = snapshot(mesh_of(vec![service("api", 1, 80, Protocol::Http)]), vec![]);
    let own = resources(&mesh, &proxy("web", netns()));
    let mut stranger = proxy("web", netns());
    stranger.namespace = "other".into();
    let other = resources(&mesh, &stranger);
    let has = |found: &rajut_ir::Resources, name: &str| {
        found
            .names
            .as_ref()
            .is_some_and(|table| table.find(name).is_some())
    };
    assert!(has(&own, "api") && has(&own, "api.clinic") && has(&own, "api.clinic.svc.cluster.local"));
    assert!(!has(&other, "api") && has(&other, "api.clinic"));
}

#[test]
fn the_names_of_a_service_are_one_part_for_all_namespaces_but_its_own() {
    let services = vec![
        service("api", 1, 80, Protocol::Http),
        service("db", 2, 81, Protocol::Http),
    ];
    let mesh = snapshot(mesh_of(services), vec![]);
    let mut cache = crate::Translator::default();
    let mut parts_of = |namespace: &str| {
        let mut client = proxy("web", netns());
        client.namespace = namespace.into();
        let found = crate::translate(&mesh, &client, &mut cache).0;
        found.names.as_ref().expect("a table").parts().to_vec()
    };
    let (own, one, other) = (parts_of("clinic"), parts_of("one"), parts_of("other"));
    assert_eq!((own.len(), one.len(), other.len()), (2, 2, 2));
    let all = one.iter().zip(&other).zip(&own);
    for ((one, other), own) in all {
        assert!(std::sync::Arc::ptr_eq(one, other));
        assert_eq!((own.len(), one.len()), (4, 3));
    }
}

#[test]
fn a_full_name_is_never_displaced_by_the_short_form_of_another_host() {
    let mut foreign = service("entry", 2, 80, Protocol::Http);
    foreign.host = "api.clinic".parse().expect("a host");
    let services = vec![service("api", 1, 80, Protocol::Http), foreign];
    let mesh = snapshot(mesh_of(services), vec![]);
    let found = resources(&mesh, &proxy("web", netns()));
    let names = found.names.as_ref().expect("a table");
    let of = |name: &str| names.find(name).expect("a name").to_vec();
    assert_eq!(of("api.clinic.svc"), of("api"));
    assert_ne!(of("api.clinic"), of("api"), "the service entry's own name");
    let all: Vec<_> = names.iter().map(|(name, _)| name).collect();
    let once: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(all.len(), once.len(), "each name once");
}

#[test]
fn hosts_are_short_in_the_own_namespace_alone_and_shared_by_all_others() {
    let mesh = snapshot(mesh_of(vec![service("api", 1, 80, Protocol::Http)]), vec![]);
    let mut cache = crate::Translator::default();
    let mut table_of = |namespace: &str| {
        let mut client = proxy("web", netns());
        client.namespace = namespace.into();
        let found = crate::translate(&mesh, &client, &mut cache).0;
        routes(&found, "80").virtual_hosts[0].clone()
    };
    let (own, other, third) = (table_of("clinic"), table_of("other"), table_of("third"));
    assert!(own.domains.contains(&"api".into()));
    assert!(!other.domains.contains(&"api".into()) && other.domains.contains(&"api.clinic".into()));
    assert!(std::sync::Arc::ptr_eq(&other, &third));
}

#[test]
fn endpoints_elsewhere_wait_for_failures_only_where_ejection_is_on() {
    let mut far = workload("api", 8, "v1");
    far.locality = rajut_types::Locality::parse("eu/b");
    let mut near = workload("api", 7, "v1");
    near.locality = rajut_types::Locality::parse("eu/a");
    let outlier = OutlierDetection {
        consecutive_5xx: Some(5),
        consecutive_gateway: None,
        consecutive_local_origin: None,
        split_local_origin: false,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: Percent::from_millionths(100_000),
        min_health_percent: Percent::default(),
        error_statuses: Vec::new(),
    };
    let priorities = |outlier: Option<OutlierDetection>| {
        let policy = TrafficPolicy {
            outlier_detection: outlier,
            ..TrafficPolicy::default()
        };
        let configuration = Configuration {
            destination_rules: vec![rule("api", policy, &[])],
            ..mesh_of(vec![service("api", 1, 80, Protocol::Http)])
        };
        let mut client = proxy("web", netns());
        client.locality = rajut_types::Locality::parse("eu/a");
        let found = resources(&snapshot(configuration, vec![near.clone(), far.clone()]), &client);
        found.assignments[API]
            .localities
            .iter()
            .map(|place| place.priority)
            .collect::<Vec<_>>()
    };
    assert_eq!(priorities(None), [0, 0]);
    assert_eq!(priorities(Some(outlier)), [0, 1]);
}
