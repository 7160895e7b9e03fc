use std::sync::Arc;

use rajut_config::{model::*, snapshot::Configuration};

use super::fixtures::*;
use crate::{Translator, translate};

fn two_services() -> Configuration {
    Configuration {
        services: vec![
            service("api", 1, 80, Protocol::Http),
            service("auth", 2, 80, Protocol::Http),
        ],
        ..Configuration::default()
    }
}

#[test]
fn one_endpoints_change_renews_its_own_assignment_alone() {
    let first = snapshot(
        two_services(),
        vec![workload("api", 7, "v1"), workload("auth", 8, "v1")],
    );
    let mut gone = workload("api", 7, "v1");
    gone.health = WorkloadHealth::NotReady;
    let second = first.with_workloads([gone], []);
    let (client, mut cache) = (proxy("web", netns()), Translator::default());
    let (before, _) = translate(&first, &client, &mut cache);
    let (after, _) = translate(&second, &client, &mut cache);
    let api = "outbound|80||api.clinic.svc.cluster.local";
    let auth = "outbound|80||auth.clinic.svc.cluster.local";
    assert_ne!(before.assignments[api], after.assignments[api]);
    assert!(Arc::ptr_eq(&before.assignments[auth], &after.assignments[auth]));
    for (name, cluster) in &before.clusters {
        assert!(Arc::ptr_eq(cluster, &after.clusters[name]), "{name}");
    }
    for (name, table) in &before.routes {
        assert!(Arc::ptr_eq(table, &after.routes[name]), "{name}");
    }
    for (name, listener) in &before.listeners {
        assert_eq!(listener, &after.listeners[name], "{name}");
    }
}

#[test]
fn proxies_of_one_namespace_share_their_outbound_half() {
    let mesh = snapshot(two_services(), vec![workload("api", 7, "v1")]);
    let mut cache = Translator::default();
    let (one, _) = translate(&mesh, &proxy("web", netns()), &mut cache);
    let (two, _) = translate(&mesh, &proxy("job", netns()), &mut cache);
    assert!(Arc::ptr_eq(&one.routes["80"], &two.routes["80"]));
    assert!(Arc::ptr_eq(
        &one.listeners["0.0.0.0_80"],
        &two.listeners["0.0.0.0_80"]
    ));
}

#[test]
fn what_was_translated_before_never_shows() {
    let mut cache = Translator::default();
    let client = proxy("web", netns());
    let mut strict = two_services();
    strict.peer_authentications = vec![peers(MtlsMode::Strict)];
    let mut limited = two_services();
    limited.mesh.outbound_policy = OutboundPolicy::RegistryOnly;
    limited.destination_rules = vec![rule("api", TrafficPolicy::default(), &["v1"])];
    let mut previous = rajut_config::Snapshot::default();
    for configuration in [two_services(), strict, limited, two_services()] {
        previous = rajut_config::Snapshot::build(configuration, vec![workload("web", 1, "v1")], &previous);
        let remembered = translate(&previous, &client, &mut cache).0;
        let fresh = translate(&previous, &client, &mut Translator::default()).0;
        assert!(remembered == fresh);
    }
}

/// The virtual host of `api`, which a virtual service routes, as it is in three other namespaces.
fn hosts_elsewhere(asks: HttpMatch) -> Vec<Arc<rajut_ir::route::VirtualHost>> {
    let mut configuration = two_services();
    configuration.virtual_services = vec![virtual_service(
        "api",
        vec![
            http_route(vec![asks], vec![to("auth", "", 1)]),
            http_route(Vec::new(), vec![to("api", "", 1)]),
        ],
    )];
    let mesh = snapshot(configuration, vec![workload("api", 7, "v1")]);
    let mut cache = Translator::default();
    let in_namespace = |namespace: &str| {
        let mut client = proxy("web", netns());
        client.namespace = namespace.into();
        let tables = translate(&mesh, &client, &mut cache).0.routes;
        let mut hosts = tables["80"].virtual_hosts.iter();
        let api = hosts.find(|host| host.name.starts_with("api."));
        Arc::clone(api.expect("the service"))
    };
    ["ward", "billing", "archive"].map(in_namespace).into()
}

#[test]
fn a_routed_host_is_shared_by_all_namespaces_that_see_the_same() {
    let header = HttpMatch {
        method: Some(StringMatch::Exact("POST".into())),
        ..HttpMatch::default()
    };
    let hosts = hosts_elsewhere(header);
    assert!(hosts.iter().all(|host| Arc::ptr_eq(host, &hosts[0])));
    assert_eq!(hosts[0].routes.len(), 2);

    let of_the_ward = HttpMatch {
        source_namespace: Some("ward".into()),
        ..HttpMatch::default()
    };
    let hosts = hosts_elsewhere(of_the_ward);
    let routes: Vec<usize> = hosts.iter().map(|host| host.routes.len()).collect();
    assert_eq!(routes, [1, 1, 1], "which of the two depends on the namespace");
    assert_ne!(hosts[0], hosts[1]);
    assert_eq!(hosts[1], hosts[2]);
}
