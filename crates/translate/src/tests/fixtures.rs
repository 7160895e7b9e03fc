//! Small meshes.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, sync::Arc};

use rajut_config::{Snapshot, model::*, snapshot::Configuration};
use rajut_ir::{
    Resources,
    cluster::Cluster,
    http::{HttpConnectionManager, RouteSource},
    listener::{ChainAction, FilterChain, Listener},
    route::{Forward, Route, RouteActionKind, RouteConfiguration, VirtualHost},
};
use rajut_types::{Hostname, Labels, Locality, ObjectRef, Origin, Principal, TrustDomain};

use crate::{Capture, DataPlane, ExplicitPort, Proxy, Role, Translator, translate};

pub(super) fn origin(kind: &str, namespace: &str, name: &str) -> Origin {
    Origin::new("t.yaml", ObjectRef::new(kind, namespace, name))
}

pub(super) fn host(name: &str) -> Hostname {
    name.parse().expect("a host in the test")
}

pub(super) fn fqdn(name: &str) -> Hostname {
    host(&format!("{name}.clinic.svc.cluster.local"))
}

/// A service `<name>` of namespace `clinic` at `240.240.0.<vip>`, with one port to container port 8080.
pub(crate) fn service(name: &str, vip: u8, port: u16, protocol: Protocol) -> Service {
    let origin = origin("Service", "clinic", name);
    Service {
        host: fqdn(name),
        name: name.into(),
        namespace: "clinic".into(),
        ports: vec![ServicePort {
            name: "main".into(),
            number: port,
            target: TargetPort::Number(8080),
            protocol,
            origin: origin.clone(),
        }],
        selector: Some([("app", name)].into_iter().collect()),
        resolution: Resolution::Static,
        addresses: vec![IpAddr::from([240, 240, 0, vip])],
        headless: false,
        external: false,
        endpoints: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: Visibility::All,
        aliases: Vec::new(),
        traffic_distribution: None,
        origin,
        age: u64::from(vip),
    }
}

/// A workload of `app` in namespace `clinic`, at `10.0.0.<last>`.
pub(super) fn workload(app: &str, last: u8, version: &str) -> Workload {
    Workload {
        name: format!("{app}-{last}").into(),
        deployment: app.into(),
        namespace: "clinic".into(),
        labels: [("app", app), ("version", version)].into_iter().collect(),
        service_account: app.into(),
        address: IpAddr::from([10, 0, 0, last]),
        named_ports: BTreeMap::new(),
        reached_ports: BTreeMap::new(),
        gateway: None,
        mesh: true,
        locality: Locality::default(),
        weight: 1,
        health: WorkloadHealth::Ready,
    }
}

pub(super) fn rule(name: &str, policy: TrafficPolicy, subsets: &[&str]) -> DestinationRule {
    let origin = origin("DestinationRule", "clinic", name);
    DestinationRule {
        name: name.into(),
        namespace: "clinic".into(),
        host: fqdn(name),
        policy,
        subsets: subsets
            .iter()
            .map(|subset| SubsetRule {
                name: (*subset).into(),
                labels: [("version", *subset)].into_iter().collect(),
                policy: TrafficPolicy::default(),
                origin: origin.clone(),
            })
            .collect(),
        health_check: None,
        export_to: Visibility::All,
        workload_selector: None,
        origin,
        age: 0,
    }
}

pub(super) fn to(name: &str, subset: &str, weight: u32) -> RouteDestination {
    let origin = origin("VirtualService", "clinic", name);
    RouteDestination {
        destination: Destination {
            host: fqdn(name),
            subset: subset.into(),
            port: None,
            origin: origin.clone(),
        },
        weight,
        headers: HeaderOperations::default(),
        origin,
    }
}

pub(super) fn http_route(matches: Vec<HttpMatch>, destinations: Vec<RouteDestination>) -> HttpRoute {
    HttpRoute {
        name: "".into(),
        matches,
        action: HttpAction::Route(destinations),
        rewrite: None,
        timeout: None,
        retries: None,
        headers: HeaderOperations::default(),
        mirrors: Vec::new(),
        fault: None,
        cors: None,
        origin: origin("VirtualService", "clinic", "r"),
    }
}

pub(super) fn virtual_service(name: &str, http: Vec<HttpRoute>) -> VirtualService {
    VirtualService {
        name: name.into(),
        namespace: "clinic".into(),
        hosts: vec![fqdn(name)],
        gateways: vec!["mesh".into()],
        http,
        tls: Vec::new(),
        tcp: Vec::new(),
        export_to: Visibility::All,
        origin: origin("VirtualService", "clinic", name),
        age: 0,
    }
}

pub(super) fn peers(mode: MtlsMode) -> PeerAuthentication {
    PeerAuthentication {
        name: "default".into(),
        namespace: "clinic".into(),
        selector: None,
        mode: Some(mode),
        ports: BTreeMap::new(),
        origin: origin("PeerAuthentication", "clinic", "default"),
        age: 0,
    }
}

pub(super) fn snapshot(configuration: Configuration, workloads: Vec<Workload>) -> Snapshot {
    Snapshot::build(configuration, workloads, &Snapshot::default())
}

/// The sidecar of workload `<app>-1` of namespace `clinic`.
pub(super) fn proxy(app: &str, capture: Capture) -> Proxy {
    Proxy {
        id: format!("sidecar~10.0.0.1~{app}-1.clinic~clinic.svc.cluster.local").into(),
        role: Role::Sidecar,
        data_plane: DataPlane::Rajut,
        principal: Principal::new(&TrustDomain::default(), "clinic", app),
        workload: format!("{app}-1").into(),
        namespace: "clinic".into(),
        labels: [("app", app), ("version", "v1")].into_iter().collect::<Labels>(),
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        locality: Locality::default(),
        capture,
    }
}

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address in the test")
}

pub(super) fn netns() -> Capture {
    Capture::Netns {
        path: "/run/netns/w".into(),
        app_address: IpAddr::from([127, 0, 0, 1]),
        inbound: [(8080, socket("10.0.0.1:8080"))].into_iter().collect(),
    }
}

pub(super) fn explicit(ports: &[(&str, u16)]) -> Capture {
    Capture::Explicit {
        outbound: ports
            .iter()
            .map(|(name, port)| ExplicitPort {
                host: fqdn(name),
                port: *port,
                listen: SocketAddr::from(([127, 0, 0, 1], 18_000 + *port)),
            })
            .collect(),
        inbound: [(8080, (socket("10.0.0.1:8080"), socket("127.0.0.1:9000")))]
            .into_iter()
            .collect(),
    }
}

/// Resources without anything to complain about.
pub(super) fn resources(snapshot: &Snapshot, proxy: &Proxy) -> Resources {
    let (resources, diagnostics) = translate(snapshot, proxy, &mut Translator::default());
    assert_eq!(diagnostics, []);
    resources
}

pub(super) fn cluster<'a>(resources: &'a Resources, name: &str) -> &'a Cluster {
    resources
        .clusters
        .get(name)
        .unwrap_or_else(|| panic!("no cluster {name} among {:?}", resources.clusters.keys()))
}

pub(super) fn listener<'a>(resources: &'a Resources, name: &str) -> &'a Listener {
    resources
        .listeners
        .get(name)
        .unwrap_or_else(|| panic!("no listener {name} among {:?}", resources.listeners.keys()))
}

pub(super) fn routes<'a>(resources: &'a Resources, name: &str) -> &'a RouteConfiguration {
    resources
        .routes
        .get(name)
        .unwrap_or_else(|| panic!("no routes {name} among {:?}", resources.routes.keys()))
}

pub(super) fn virtual_host<'a>(routes: &'a RouteConfiguration, name: &str) -> &'a VirtualHost {
    routes
        .virtual_hosts
        .iter()
        .find(|found| &*found.name == name)
        .unwrap_or_else(|| panic!("no virtual host {name} in {}", routes.name))
}

pub(super) fn forward(route: &Route) -> &Forward {
    match &route.action {
        RouteActionKind::Forward(forward) => forward,
        other => panic!("not a forwarding route: {other:?}"),
    }
}

pub(super) fn manager(chain: &FilterChain) -> &Arc<HttpConnectionManager> {
    match &chain.action {
        ChainAction::Http(manager) => manager,
        ChainAction::Tcp(proxy) => panic!("not HTTP: {proxy:?}"),
    }
}

pub(super) fn inline(chain: &FilterChain) -> &RouteConfiguration {
    match &manager(chain).routes {
        RouteSource::Inline(routes) => routes,
        RouteSource::Rds(name) => panic!("routes of {name} come by RDS"),
    }
}

/// Where a chain of bytes goes.
pub(super) fn clusters_of(chain: &FilterChain) -> Vec<(&str, u32)> {
    match &chain.action {
        ChainAction::Tcp(proxy) => proxy
            .clusters
            .iter()
            .map(|(name, weight)| (&**name, *weight))
            .collect(),
        ChainAction::Http(_) => panic!("not bytes: {}", chain.name),
    }
}
