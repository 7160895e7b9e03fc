//! Gateway workloads: which of the deployments are one, and the one that Istio's installation would bring.
//!
//! A deployment is a gateway where its template asks for one (`inject.istio.io/templates: gateway`, the image `auto`), or
//! where a `Gateway` selects it and nothing says what to run for it. For a `Gateway` of Istio's default ingress or egress gateway that
//! no deployment of the sources is, that gateway is added as Istio's default profile installs it, with a `Service` whose
//! ports are those of the servers.

use std::collections::BTreeMap;

use rajut_types::{Hostname, Labels, ObjectRef, Origin, Text};

use crate::{
    Loaded,
    api::deployment,
    model::{Gateway, GatewayProtocol, Protocol, Resolution, Service, ServicePort, TargetPort, Visibility},
};

/// Namespace of Istio's own gateways.
const NAMESPACE: &str = "istio-system";
/// Name and `istio` label of the gateways that Istio's profiles bring.
const BUILT_IN: [(&str, &str); 2] = [
    ("istio-ingressgateway", "ingressgateway"),
    ("istio-egressgateway", "egressgateway"),
];
/// Ports below are those of the system; a gateway's process listens above them, as Istio's does (8080 for 80).
const PRIVILEGED: u16 = 1024;
const ABOVE_PRIVILEGED: u16 = 8_000;
/// Where built-in objects come from, for people.
const SOURCE: &str = "<built-in>";

pub(super) fn add_workloads(loaded: &mut Loaded) {
    for deployment in &mut loaded.deployments {
        let selected =
            |gateway: &Gateway| !gateway.selector.is_empty() && deployment.labels.matches(&gateway.selector);
        deployment.gateway |= deployment.run.is_none() && loaded.gateways.iter().any(selected);
    }
    for (name, label) in BUILT_IN {
        add_built_in(loaded, name, label);
    }
}

fn add_built_in(loaded: &mut Loaded, name: &'static str, label: &str) {
    let labels: Labels = [("app", name), ("istio", label)].into_iter().collect();
    let unserved = |gateway: &&Gateway| {
        gateway.selector.find("istio").is_some_and(|value| value == label)
            && labels.matches(&gateway.selector)
            && !loaded
                .deployments
                .iter()
                .any(|known| known.labels.matches(&gateway.selector))
    };
    let ports: BTreeMap<u16, ServicePort> = loaded
        .gateways
        .iter()
        .filter(unserved)
        .flat_map(|gateway| &gateway.servers)
        .map(|server| {
            let port = ServicePort {
                name: format!("{}-{}", service_protocol(server.protocol).1, server.port).into(),
                number: server.port,
                target: TargetPort::Number(target(server.port)),
                protocol: service_protocol(server.protocol).0,
                origin: server.origin.clone(),
            };
            (server.port, port)
        })
        .collect();
    if ports.is_empty() {
        return;
    }
    let origin = |kind: &str| Origin::new(SOURCE, ObjectRef::new(kind, NAMESPACE, name));
    let mut gateway = deployment::empty(origin("Deployment"));
    gateway.name = name.into();
    gateway.namespace = NAMESPACE.into();
    gateway.kind = "Deployment".into();
    gateway.labels = labels.clone();
    gateway.service_account = format!("{name}-service-account").into();
    gateway.gateway = true;
    loaded.deployments.push(gateway);
    let host = format!("{name}.{NAMESPACE}.svc.{}", loaded.mesh.domain);
    let Ok(host) = host.parse::<Hostname>() else {
        return;
    };
    if !loaded.services.iter().any(|service| service.host == host) {
        loaded
            .services
            .push(service(name, host, labels, ports, origin("Service")));
    }
}

fn service(
    name: &str,
    host: Hostname,
    labels: Labels,
    ports: BTreeMap<u16, ServicePort>,
    origin: Origin,
) -> Service {
    Service {
        host,
        name: name.into(),
        namespace: NAMESPACE.into(),
        ports: ports.into_values().collect(),
        selector: Some(labels),
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
        age: u64::MAX,
    }
}

fn target(port: u16) -> u16 {
    if port < PRIVILEGED {
        ABOVE_PRIVILEGED + port
    } else {
        port
    }
}

/// What the gateway's service says of a port, and how such ports are called.
fn service_protocol(protocol: GatewayProtocol) -> (Protocol, &'static str) {
    match protocol {
        GatewayProtocol::Http => (Protocol::Http, "http"),
        GatewayProtocol::Https => (Protocol::Https, "https"),
        GatewayProtocol::Tls => (Protocol::Tls, "tls"),
        GatewayProtocol::Tcp => (Protocol::Tcp, "tcp"),
    }
}

/// The name under which a `VirtualService` of `namespace` binds to a gateway: `namespace/name`, or `mesh`. Istio's long form
/// (`name.namespace.svc.cluster.local`) is the same gateway.
pub(crate) fn qualified(name: &Text, namespace: &str) -> Text {
    if &**name == "mesh" || name.contains('/') {
        return name.clone();
    }
    let mut parts = name.split('.');
    match (parts.next(), parts.next()) {
        (Some(short), Some(other)) => format!("{other}/{short}").into(),
        _ => format!("{namespace}/{name}").into(),
    }
}
