use std::{net::IpAddr, sync::Arc};

use rajut_types::{Labels, ObjectRef, Origin};

use super::*;
use crate::model::{Protocol, Resolution, ServicePort, TargetPort, Visibility, WorkloadHealth};

fn origin(kind: &str, namespace: &str, name: &str) -> Origin {
    Origin::new("t.yaml", ObjectRef::new(kind, namespace, name))
}

fn service(namespace: &str, name: &str) -> Service {
    let origin = origin("Service", namespace, name);
    Service {
        host: format!("{name}.{namespace}.svc.cluster.local")
            .parse()
            .expect("valid"),
        name: name.into(),
        namespace: namespace.into(),
        ports: vec![ServicePort {
            name: "http".into(),
            number: 80,
            target: TargetPort::Number(8080),
            protocol: Protocol::Http,
            origin: origin.clone(),
        }],
        selector: Some([("app", name)].into_iter().collect()),
        resolution: Resolution::Static,
        addresses: Vec::new(),
        headless: false,
        external: false,
        endpoints: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: Visibility::All,
        aliases: Vec::new(),
        traffic_distribution: None,
        origin,
        age: 0,
    }
}

fn workload(namespace: &str, name: &str, app: &str) -> Workload {
    Workload {
        name: name.into(),
        deployment: app.into(),
        namespace: namespace.into(),
        labels: [("app", app)].into_iter().collect(),
        service_account: app.into(),
        address: IpAddr::from([10, 0, 0, 1]),
        named_ports: BTreeMap::new(),
        reached_ports: BTreeMap::new(),
        gateway: None,
        mesh: true,
        locality: rajut_types::Locality::default(),
        weight: 1,
        health: WorkloadHealth::Ready,
    }
}

fn vs(namespace: &str, name: &str, host: &str, export_to: Visibility, age: u64) -> VirtualService {
    VirtualService {
        name: name.into(),
        namespace: namespace.into(),
        hosts: vec![host.parse().expect("valid")],
        gateways: vec!["mesh".into()],
        http: Vec::new(),
        tls: Vec::new(),
        tcp: Vec::new(),
        export_to,
        origin: origin("VirtualService", namespace, name),
        age,
    }
}

fn members(snapshot: &Snapshot, host: &str) -> Shared<Members> {
    let view = snapshot.client_view("x", &Labels::default(), true);
    view.find(&host.parse().expect("valid"))
        .expect("the service is visible")
        .members
        .clone()
}

#[test]
fn endpoints_are_the_selected_workloads_of_the_same_namespace() {
    let configuration = Configuration {
        services: vec![service("a", "web"), service("b", "web")],
        ..Configuration::default()
    };
    let workloads = [
        workload("a", "web-0", "web"),
        workload("a", "db-0", "db"),
        workload("b", "web-0", "web"),
    ];
    let snapshot = Snapshot::build(configuration, workloads, &Snapshot::default());
    let found = members(&snapshot, "web.a.svc.cluster.local");
    assert_eq!(found.list.len(), 1);
    assert_eq!(&*found.list[0].workload.namespace, "a");
    assert_eq!(found.principals.len(), 1);
}

#[test]
fn a_changed_endpoint_touches_its_own_service_alone() {
    let configuration = Configuration {
        services: vec![service("a", "web"), service("a", "db")],
        ..Configuration::default()
    };
    let workloads = [workload("a", "web-0", "web"), workload("a", "db-0", "db")];
    let first = Snapshot::build(configuration.clone(), workloads.clone(), &Snapshot::default());
    let mut moved = workload("a", "web-0", "web");
    moved.health = WorkloadHealth::NotReady;
    let second = first.with_workloads([moved.clone()], []);
    let rebuilt = Snapshot::build(configuration, [moved, workloads[1].clone()], &first);
    for next in [&second, &rebuilt] {
        let (web, db) = ("web.a.svc.cluster.local", "db.a.svc.cluster.local");
        assert_ne!(members(&first, web), members(next, web));
        assert_eq!(
            members(&first, web).principals.as_ptr(),
            members(next, web).principals.as_ptr()
        );
        assert_eq!(members(&first, db), members(next, db));
        assert_eq!(next.generation, 2);
    }
    assert_eq!(
        members(&second, "web.a.svc.cluster.local").list,
        members(&rebuilt, "web.a.svc.cluster.local").list
    );
    let gone = second.with_workloads([], [("a".into(), "web-0".into())]);
    assert!(members(&gone, "web.a.svc.cluster.local").list.is_empty());
}

#[test]
fn an_equal_configuration_keeps_every_allocation() {
    let configuration = Configuration {
        services: vec![service("a", "web")],
        virtual_services: vec![vs("a", "v", "web.a.svc.cluster.local", Visibility::All, 0)],
        ..Configuration::default()
    };
    let workloads = [workload("a", "web-0", "web")];
    let first = Snapshot::build(configuration.clone(), workloads.clone(), &Snapshot::default());
    let second = Snapshot::build(configuration, workloads, &first);
    assert_eq!(
        first.client_view("a", &Labels::default(), true),
        second.client_view("a", &Labels::default(), true)
    );
    assert!(Arc::ptr_eq(&first.mesh, &second.mesh));
}

#[test]
fn one_virtual_service_per_host_private_then_named_then_public_then_oldest() {
    let host = "web.a.svc.cluster.local";
    let only = |namespace: &str| Visibility::Namespaces(vec![namespace.into()]);
    let configuration = Configuration {
        services: vec![service("a", "web")],
        virtual_services: vec![
            vs("a", "wild", "*.a.svc.cluster.local", Visibility::All, 0),
            vs("a", "public-old", host, Visibility::All, 1),
            vs("a", "public-new", host, Visibility::All, 2),
            vs("a", "named", host, only("c"), 3),
            vs("b", "private", host, only("b"), 4),
        ],
        ..Configuration::default()
    };
    let snapshot = Snapshot::build(configuration, [], &Snapshot::default());
    let found = |namespace: &str| {
        let view = snapshot.client_view(namespace, &Labels::default(), true);
        let service = view.find(&host.parse().expect("valid")).expect("visible");
        service.virtual_service.as_ref().expect("a rule").name.to_string()
    };
    assert_eq!(found("x"), "public-old");
    assert_eq!(found("c"), "named");
    assert_eq!(found("b"), "private");
}

#[test]
fn a_view_keeps_only_labels_that_a_rule_asks_about() {
    let mut rule = vs("a", "v", "web.a.svc.cluster.local", Visibility::All, 0);
    rule.tcp.push(crate::model::TcpRoute {
        matches: vec![crate::model::L4Match {
            source_labels: [("tier", "gold")].into_iter().collect(),
            ..crate::model::L4Match::default()
        }],
        destinations: Vec::new(),
        origin: origin("VirtualService", "a", "v"),
    });
    let configuration = Configuration {
        virtual_services: vec![rule],
        ..Configuration::default()
    };
    let snapshot = Snapshot::build(configuration, [], &Snapshot::default());
    let view = snapshot.client_view(
        "a",
        &[("app", "web"), ("tier", "gold")].into_iter().collect(),
        true,
    );
    assert_eq!(view.labels, [("tier", "gold")].into_iter().collect());
    assert_eq!(view.unserved.len(), 1);
}

#[test]
fn hidden_services_are_not_seen_and_the_own_namespace_is_preferred() {
    let mut hidden = service("a", "web");
    hidden.export_to = Visibility::Namespaces(vec!["a".into()]);
    let mut twin = service("b", "api");
    twin.host = "api.example.org".parse().expect("valid");
    let mut older = twin.clone();
    older.namespace = "c".into();
    twin.age = 5;
    let configuration = Configuration {
        services: vec![hidden, twin, older],
        ..Configuration::default()
    };
    let snapshot = Snapshot::build(configuration, [], &Snapshot::default());
    let seen = |namespace: &str| -> Vec<String> {
        let view = snapshot.client_view(namespace, &Labels::default(), true);
        view.services
            .iter()
            .map(|view| format!("{}/{}", view.service.namespace, view.service.host))
            .collect()
    };
    assert_eq!(seen("b"), ["b/api.example.org"]);
    assert_eq!(seen("a"), ["c/api.example.org", "a/web.a.svc.cluster.local"]);
}
