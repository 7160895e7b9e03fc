//! What proxies see and take under a Sidecar.

use rajut_config::{
    LoadOptions, Source, load,
    snapshot::{Configuration, Snapshot},
};
use rajut_ir::{
    Resources,
    cluster::Discovery,
    endpoint::EndpointAddress,
    route::{RouteActionKind, VirtualHost},
};

use super::fixtures::*;
use crate::{Capture, Role, Translator, translate};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: clinic}
spec: {clusterIP: 240.240.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: other}
spec: {clusterIP: 240.240.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: third}
spec: {clusterIP: 240.240.0.3, ports: [{name: http, port: 80}]}
---
";

/// Everything that a snapshot of these texts is made of.
fn of(texts: &str) -> Configuration {
    let loaded = load(
        &[Source::new("t.yaml", format!("{SERVICES}{texts}"))],
        &LoadOptions::default(),
    );
    let errors: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|it| it.severity == rajut_types::Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    Configuration::of(&loaded)
}

fn sidecar(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn made(texts: &str) -> Resources {
    made_for(texts, Role::Sidecar, netns())
}

fn made_for(texts: &str, role: Role, capture: Capture) -> Resources {
    let mut client = proxy("web", capture);
    client.role = role;
    resources(&snapshot(of(texts), vec![workload("web", 1, "v1")]), &client)
}

/// The hosts of the outbound clusters.
fn clusters(resources: &Resources) -> Vec<&str> {
    let names = resources
        .clusters
        .keys()
        .filter_map(|name| name.strip_prefix("outbound|80||"));
    names
        .map(|name| name.trim_end_matches(".svc.cluster.local"))
        .collect()
}

fn hosts(resources: &Resources) -> Vec<String> {
    let table = routes(resources, "80");
    let named = |host: &VirtualHost| host.name.trim_end_matches(".svc.cluster.local:80").to_owned();
    table.virtual_hosts.iter().map(|host| named(host)).collect()
}

#[test]
fn egress_hosts_limit_clusters_routes_and_names() {
    assert_eq!(clusters(&made("")), ["api.other", "db.third", "web.clinic"]);
    for (hosts_seen, wanted) in [
        ("['./*']", vec!["web.clinic"]),
        ("['*/*']", vec!["api.other", "db.third", "web.clinic"]),
        ("['~/*']", vec![]),
        ("['other/*']", vec!["api.other"]),
        (
            "['*/db.third.svc.cluster.local', './*']",
            vec!["db.third", "web.clinic"],
        ),
        ("['*/*.other.svc.cluster.local']", vec!["api.other"]),
        ("['other/db.third.svc.cluster.local']", vec![]),
    ] {
        let text = sidecar(
            "default",
            "clinic",
            &format!("{{egress: [{{hosts: {hosts_seen}}}]}}"),
        );
        let found = made(&text);
        assert_eq!(clusters(&found), wanted, "{hosts_seen}");
        for name in ["api.other", "db.third", "web.clinic"] {
            let seen = wanted.contains(&name);
            let listed = found
                .routes
                .get("80")
                .is_some_and(|_| hosts(&found).iter().any(|host| host == name));
            assert_eq!(listed, seen, "{hosts_seen}: {name}");
            let table = format!("{:?}", found.names);
            assert_eq!(
                table.contains(&format!("{name}.svc")),
                seen,
                "{hosts_seen}: {table}"
            );
        }
    }
}

#[test]
fn the_selecting_one_wins_over_the_namespaces_own_and_that_over_the_root_namespaces() {
    let root = sidecar("default", "istio-system", "{egress: [{hosts: ['third/*']}]}");
    let own = sidecar("default", "clinic", "{egress: [{hosts: ['other/*']}]}");
    let selecting = sidecar("web", "clinic", "{workloadSelector: {labels: {app: web}}}");
    let others = sidecar(
        "x",
        "clinic",
        "{workloadSelector: {labels: {app: x}}, egress: [{hosts: ['~/*']}]}",
    );
    assert_eq!(clusters(&made(&root)), ["db.third"]);
    assert_eq!(clusters(&made(&format!("{root}{own}"))), ["api.other"]);
    assert_eq!(clusters(&made(&format!("{root}{own}{others}"))), ["api.other"]);
    let all = format!("{root}{own}{others}{selecting}");
    assert_eq!(
        clusters(&made(&all)).len(),
        3,
        "nothing of the others is inherited"
    );
    assert_eq!(
        clusters(&made_for(&own, Role::Gateway, netns())).len(),
        3,
        "a gateway is no sidecar"
    );
}

#[test]
fn routes_that_are_seen_reach_services_that_are_not() {
    let routes_of_web = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: clinic}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: api.other.svc.cluster.local}}]}]
";
    let own = sidecar("default", "clinic", "{egress: [{hosts: ['./*']}]}");
    let found = made(&format!("{own}{routes_of_web}"));
    assert_eq!(clusters(&found), ["api.other", "web.clinic"]);
    assert_eq!(
        hosts(&found).iter().filter(|host| *host == "api.other").count(),
        0
    );
    // A virtual service of a namespace that is not seen is not followed.
    let foreign = routes_of_web
        .replace("namespace: clinic", "namespace: other")
        .replace("[web]", "[web.clinic.svc.cluster.local]");
    assert_eq!(clusters(&made(&format!("{own}{foreign}"))), ["web.clinic"]);
    let everything = made(&foreign);
    let host = virtual_host(routes(&everything, "80"), "web.clinic.svc.cluster.local:80");
    let target = format!("{:?}", forward(&host.routes[0]).target);
    assert!(
        target.contains("outbound|80||api.other.svc.cluster.local"),
        "{target}"
    );
}

#[test]
fn its_policy_for_unknown_destinations_goes_before_the_meshs() {
    let refuses = |found: &Resources| {
        let host = routes(found, "80")
            .virtual_hosts
            .iter()
            .find(|host| host.domains.contains(&"*".into()));
        matches!(
            host.map(|host| &host.routes[0].action),
            Some(RouteActionKind::DirectResponse(_))
        )
    };
    assert!(!refuses(&made("")));
    assert!(!refuses(&made(&sidecar(
        "default",
        "clinic",
        "{egress: [{hosts: ['*/*']}]}"
    ))));
    let empty = sidecar("default", "clinic", "{outboundTrafficPolicy: {}}");
    assert!(refuses(&made(&empty)), "the enum's zero is REGISTRY_ONLY");
    let allow = sidecar("default", "clinic", "{outboundTrafficPolicy: {mode: ALLOW_ANY}}");
    assert!(!refuses(&made(&allow)));
}

#[test]
fn ingress_replaces_the_ports_of_services_and_leads_to_its_endpoint() {
    let target = |capture: Capture, endpoint: &str| {
        let spec = format!(
            "{{ingress: [{{port: {{number: 8080, protocol: TCP, name: x}}{endpoint}, connectionPool: {{tcp: {{maxConnections: 3}}}}}}], \
             inboundConnectionPool: {{tcp: {{maxConnections: 9}}}}}}"
        );
        let found = made_for(&sidecar("default", "clinic", &spec), Role::Sidecar, capture);
        let own = cluster(&found, "inbound|8080||").clone();
        assert_eq!(own.circuit_breakers.max_connections, 3);
        match own.discovery {
            Discovery::Static(all) => match all.localities[0].endpoints[0].address {
                EndpointAddress::Socket(address) => address.to_string(),
                ref other => other.to_string(),
            },
            Discovery::OriginalDst => "dialled".to_owned(),
            other => format!("{other:?}"),
        }
    };
    let loopback = ", defaultEndpoint: '127.0.0.1:9999'";
    let own = ", defaultEndpoint: '0.0.0.0:9999'";
    let mut inside = netns();
    if let Capture::Netns { app_address, .. } = &mut inside {
        *app_address = [10, 1, 1, 1].into();
    }
    assert_eq!(target(inside.clone(), ""), "10.1.1.1:8080");
    assert_eq!(target(inside.clone(), loopback), "127.0.0.1:9999");
    assert_eq!(target(inside, own), "10.1.1.1:9999");
    assert_eq!(target(Capture::Redirect, ""), "dialled");
    assert_eq!(target(Capture::Redirect, loopback), "127.0.0.1:9999");
    assert_eq!(target(Capture::Redirect, own), "10.0.0.1:9999");
    assert_eq!(
        target(explicit(&[]), ", defaultEndpoint: '127.0.0.1:8080'"),
        "127.0.0.1:9000"
    );
    // Only what stands there is taken as declared.
    let found = made(&sidecar(
        "default",
        "clinic",
        "{ingress: [{port: {number: 1234, protocol: HTTP}}]}",
    ));
    let listener = listener(&found, "10.0.0.1_8080");
    assert!(
        listener.inspectors.http || listener.filter_chains.len() > 1,
        "detected: {listener:?}"
    );
    let limited = made(&sidecar(
        "default",
        "clinic",
        "{inboundConnectionPool: {tcp: {maxConnections: 9}}}",
    ));
    assert_eq!(
        cluster(&limited, "inbound|8080||")
            .circuit_breakers
            .max_connections,
        9
    );
}

#[test]
fn a_change_gives_what_building_anew_gives() {
    let routes_of_web = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: clinic}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: HOST}}]}]
";
    let to = |host: &str| routes_of_web.replace("HOST", host);
    let own = sidecar("default", "clinic", "{egress: [{hosts: ['./*']}]}");
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: other}
spec: {host: api, trafficPolicy: {connectionPool: {tcp: {maxConnections: 4}}}}
";
    let steps = [
        own.clone(),
        format!("{own}{}", to("api.other.svc.cluster.local")),
        format!("{own}{}{rule}", to("api.other.svc.cluster.local")),
        format!("{own}{}", to("db.third.svc.cluster.local")),
        format!("{own}{}", to("new.third.svc.cluster.local")),
        to("db.third.svc.cluster.local"),
        sidecar("default", "clinic", "{outboundTrafficPolicy: {}}"),
    ];
    let client = proxy("web", netns());
    let mut kept = Translator::default();
    let mut last = Snapshot::default();
    for (at, step) in steps.iter().enumerate() {
        last = Snapshot::build(of(step), vec![workload("web", 1, "v1")], &last);
        let (found, _) = translate(&last, &client, &mut kept);
        let (anew, _) = translate(&last, &client, &mut Translator::default());
        assert_eq!(found, anew, "step {at}");
    }
}
