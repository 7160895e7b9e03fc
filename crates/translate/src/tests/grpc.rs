use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    cluster::LbPolicy,
    http::RouteSource,
    matcher::StringMatch,
    route::{RetryOn, RouteActionKind},
    tls::SanKind,
};

use super::fixtures::*;
use crate::{Capture, Role, Translator, translate};

const API: &str = "outbound|7000||api.clinic.svc.cluster.local";

fn client() -> crate::Proxy {
    let mut client = proxy("web", Capture::Redirect);
    client.role = Role::Grpc;
    client
}

fn mesh(mode: MtlsMode, http: Vec<HttpRoute>) -> rajut_config::Snapshot {
    let configuration = Configuration {
        services: vec![
            service("api", 1, 7000, Protocol::Grpc),
            service("db", 2, 3306, Protocol::Tcp),
        ],
        virtual_services: vec![virtual_service("api", http)],
        peer_authentications: vec![peers(mode)],
        ..Configuration::default()
    };
    snapshot(
        configuration,
        vec![workload("api", 7, "v1"), workload("db", 8, "v1")],
    )
}

#[test]
fn listeners_are_named_as_dialled_and_their_routes_answer_that_name() {
    let found = resources(&mesh(MtlsMode::Permissive, vec![]), &client());
    for dialled in [
        "api:7000",
        "api.clinic:7000",
        "api.clinic.svc:7000",
        "api.clinic.svc.cluster.local:7000",
    ] {
        let own = listener(&found, dialled);
        let manager = own.api_listener.as_ref().expect("an API listener");
        assert_eq!(manager.routes, RouteSource::Rds(API.into()));
        let domains = &routes(&found, API).virtual_hosts[0].domains;
        assert!(domains.iter().any(|domain| &**domain == dialled), "{dialled}");
    }
    // Opaque ports are nothing for gRPC, and neither is what captures traffic.
    assert!(found.clusters.keys().all(|name| &**name == API));
    assert!(found.assignments.keys().all(|name| &**name == API));
    assert!(!found.listeners.contains_key("virtualOutbound"));
}

#[test]
fn clusters_go_round_and_localities_have_weights() {
    let found = resources(&mesh(MtlsMode::Permissive, vec![]), &client());
    let own = cluster(&found, API);
    assert_eq!(own.lb_policy, LbPolicy::RoundRobin);
    assert!(own.tls_matches.is_empty());
    assert_eq!(found.assignments[API].localities[0].weight, Some(1));
    assert!(!found.assignments[API].localities[0].locality.is_empty());
    let default = &routes(&found, API).virtual_hosts[0].routes[0];
    assert_eq!(forward(default).retry, None);
}

#[test]
fn strict_servers_are_met_with_provider_certificates_and_exact_names() {
    let strict = resources(&mesh(MtlsMode::Strict, vec![]), &client());
    let tls = cluster(&strict, API).tls.as_ref().expect("mTLS");
    assert_eq!(tls.common.certificate_provider.as_deref(), Some("default"));
    assert!(tls.common.certificates.is_empty() && tls.common.groups.is_empty() && tls.common.alpn.is_empty());
    let sans = &tls
        .common
        .validation
        .as_ref()
        .expect("checked")
        .context
        .subject_alt_names;
    assert_eq!(sans[0].kind, SanKind::Any);
    assert_eq!(
        sans[0].matcher.pattern,
        StringMatch::Exact("spiffe://cluster.local/ns/clinic/sa/api".into())
    );
    let plain = resources(&mesh(MtlsMode::Disable, vec![]), &client());
    assert!(cluster(&plain, API).tls.is_none());
}

#[test]
fn what_grpc_has_no_means_for_is_told() {
    let mut route = http_route(vec![], vec![to("api", "", 1)]);
    route.timeout = Some(std::time::Duration::from_secs(2));
    route.headers.request.set.push(("x-a".into(), "b".into()));
    route.retries = Some(Retries {
        attempts: 3,
        per_try_timeout: None,
        retry_on: Some("5xx,unavailable".into()),
        backoff: None,
        remote_localities: false,
        ignore_previous_hosts: true,
    });
    let (found, diagnostics) = translate(
        &mesh(MtlsMode::Strict, vec![route]),
        &client(),
        &mut Translator::default(),
    );
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].code, rajut_config::codes::NOT_ON_THIS_PROXY);
    let built = &routes(&found, API).virtual_hosts[0].routes[0];
    assert!(built.headers.is_empty());
    assert_eq!(
        forward(built).max_stream_duration,
        Some(std::time::Duration::from_secs(2))
    );
    let retry = forward(built).retry.as_ref().expect("a policy");
    assert_eq!((retry.on, retry.num_retries), (RetryOn::UNAVAILABLE, 3));
}

#[test]
fn servers_listen_under_istios_names() {
    let mut server = client();
    server.workload = "api-7".into();
    server.labels = [("app", "api")].into_iter().collect();
    server.addresses = vec![[10, 0, 0, 7].into()];
    let found = resources(&mesh(MtlsMode::Strict, vec![]), &server);
    let own = listener(&found, "xds.istio.io/grpc/lds/inbound/10.0.0.7:8080");
    let chain = &own.filter_chains[0];
    assert!(
        chain
            .tls
            .as_ref()
            .is_some_and(|tls| tls.require_client_certificate)
    );
    assert!(matches!(
        inline(chain).virtual_hosts[0].routes[0].action,
        RouteActionKind::NonForwarding
    ));
    assert!(
        found
            .listeners
            .contains_key("xds.istio.io/grpc/lds/inbound/0.0.0.0:8080")
    );
}

#[test]
fn faults_stay_and_what_is_for_browsers_falls_away() {
    let mut route = http_route(vec![], vec![to("api", "", 1)]);
    let origin = route.origin.clone();
    route.fault = Some(HttpFault {
        delay: None,
        abort: Some(FaultAbort {
            status: AbortStatus::Grpc(14),
            share: rajut_types::Percent::ALL,
        }),
        origin: origin.clone(),
    });
    route.cors = Some(CorsPolicy {
        origins: Vec::new(),
        methods: Vec::new(),
        headers: Vec::new(),
        expose: Vec::new(),
        max_age: None,
        credentials: None,
        forward_unmatched: true,
        origin,
    });
    let found = resources(&mesh(MtlsMode::Strict, vec![route]), &client());
    let built = &routes(&found, API).virtual_hosts[0].routes[0];
    let names: Vec<_> = built.filters.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, [rajut_ir::filter::FAULT]);
    let manager = listener(&found, "api:7000")
        .api_listener
        .as_ref()
        .expect("an API listener");
    let names: Vec<_> = manager.filters.iter().map(|it| &*it.name).collect();
    assert_eq!(names, [rajut_ir::filter::FAULT, rajut_ir::filter::ROUTER]);
}
