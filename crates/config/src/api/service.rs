//! Kubernetes `Service`.

use std::collections::BTreeSet;

use rajut_types::{Hostname, Locality, Text};

use super::{
    meta::{self, Meta, NameForm},
    protocol,
};
use crate::{
    codes,
    merge::Defaults,
    model::{Resolution, Service, ServicePort, StaticEndpoint, TargetPort, TrafficDistribution},
    parse::{Style, Value},
    read::{Field, Object, shown},
};

/// The service; none if it is headless and has no ports, which only names pods.
pub(crate) fn read(root: &Object<'_>, defaults: &Defaults) -> Option<Vec<Service>> {
    let meta = meta::read(root, NameForm::Label);
    let spec = root
        .required("spec", "add `spec:` with `selector:` and `ports:`")?
        .object()?;
    spec.ignore(&[
        "sessionAffinity",
        "sessionAffinityConfig",
        "externalIPs",
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerIP",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
        "allocateLoadBalancerNodePorts",
        "healthCheckNodePort",
        "publishNotReadyAddresses",
        "topologyKeys",
    ]);
    let traffic_distribution = spec
        .get("trafficDistribution")
        .and_then(|field| field.choice(DISTRIBUTIONS));
    let kind = spec.get("type").and_then(|field| {
        field.choice(&[
            ("ClusterIP", "ClusterIP"),
            ("NodePort", "NodePort"),
            ("LoadBalancer", "LoadBalancer"),
            ("ExternalName", "ExternalName"),
        ])
    });
    let external = spec.get("externalName").and_then(|field| field.hostname());
    let selector = spec.get("selector").map(|field| field.labels());
    let addresses = addresses(&spec);
    let ports = ports(&spec, kind == Some("ExternalName") || addresses.is_none());
    let names_pods = addresses.is_none() && ports.is_empty();
    let meta = meta?;
    let host = host(&meta.name, &meta.namespace, defaults)?;
    let mut service = Service {
        host,
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        ports,
        selector: selector.filter(|selector| !selector.is_empty()),
        resolution: Resolution::Static,
        headless: addresses.is_none(),
        addresses: addresses.unwrap_or_default(),
        external: false,
        endpoints: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: exported(&meta, defaults),
        aliases: Vec::new(),
        traffic_distribution: traffic_distribution.or_else(|| annotated_distribution(&meta)),
        origin: root.field().origin(),
        age: meta.age,
    };
    if kind == Some("ExternalName") {
        let target = external.or_else(|| {
            spec.required("externalName", "write the name that the service stands for")?;
            None
        })?;
        be_external(&mut service, &target);
    }
    Some(if names_pods { Vec::new() } else { vec![service] })
}

const DISTRIBUTIONS: &[(&str, TrafficDistribution)] = &[
    ("PreferClose", TrafficDistribution::SameZone),
    ("PreferSameZone", TrafficDistribution::SameZone),
    ("PreferSameNode", TrafficDistribution::SameNode),
];

/// Istio's annotation, which says the same as `trafficDistribution`.
fn annotated_distribution(meta: &Meta) -> Option<TrafficDistribution> {
    let written = meta
        .annotations
        .find("networking.istio.io/traffic-distribution")?;
    let known = DISTRIBUTIONS.iter().find(|(name, _)| *name == written);
    known.map(|(_, distribution)| *distribution)
}

/// `<name>.<namespace>.svc.<domain>`; `None` cannot happen for checked names, but is no reason to stop.
pub(crate) fn host(name: &str, namespace: &str, defaults: &Defaults) -> Option<Hostname> {
    format!("{name}.{namespace}.svc.{}", defaults.mesh.domain)
        .parse()
        .ok()
}

fn be_external(service: &mut Service, target: &Hostname) {
    service.resolution = Resolution::Dns;
    service.external = true;
    service.selector = None;
    service.headless = false;
    service.endpoints = vec![StaticEndpoint {
        address: target.text(),
        ports: Vec::new(),
        labels: rajut_types::Labels::default(),
        locality: Locality::default(),
        weight: 1,
        service_account: Text::default(),
        serves: None,
    }];
}

fn exported(meta: &Meta, defaults: &Defaults) -> crate::model::Visibility {
    let [default, ..] = &defaults.mesh.default_export;
    match meta.annotations.find("networking.istio.io/exportTo") {
        Some(value) => {
            let values: Vec<Text> = value
                .split(',')
                .map(str::trim)
                .filter(|v| !v.is_empty())
                .map(Text::from)
                .collect();
            meta::visibility(&values, &meta.namespace, default)
        }
        None => default.clone(),
    }
}

/// The virtual addresses; `None` for a headless service.
fn addresses(spec: &Object<'_>) -> Option<Vec<std::net::IpAddr>> {
    let mut addresses = Vec::new();
    let single = spec.get("clusterIP");
    let fields: Vec<Field<'_>> = spec.list("clusterIPs");
    let fields = if fields.is_empty() {
        single.into_iter().collect()
    } else {
        fields
    };
    for field in fields {
        match field.loose_text().as_deref() {
            Some("None") => return None,
            Some("") | None => {}
            Some(_) => addresses.extend(field.ip()),
        }
    }
    Some(addresses)
}

fn ports(spec: &Object<'_>, external: bool) -> Vec<ServicePort> {
    let fields = match spec.get("ports") {
        Some(field) => {
            let fields = field.list();
            if fields.is_empty() && !external && matches!(field.node.value, Value::Sequence(_)) {
                field.error(codes::MISSING_FIELD, "a service needs at least one port", "");
            }
            fields
        }
        None if external => Vec::new(),
        None => {
            spec.required("ports", "add the ports that clients dial");
            Vec::new()
        }
    };
    let several = fields.len() > 1;
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(port) = field.clone().object().and_then(|object| service_port(&object)) else {
            continue;
        };
        if several && port.name.is_empty() {
            field.error(
                codes::MISSING_FIELD,
                "a service with several ports must name each",
                "add `name: http-…`, `grpc-…` or `tcp-…`",
            );
        } else if !port.name.is_empty() && !names.insert(port.name.clone()) {
            field.error(
                codes::DUPLICATE_NAME,
                format!("two ports are named `{}`", shown(&port.name)),
                "",
            );
        }
        let udp = port.protocol == crate::model::Protocol::Udp;
        if !numbers.insert((port.number, udp)) {
            field.error(
                codes::DUPLICATE_NAME,
                format!("the port {} is listed twice", port.number),
                "",
            );
        }
        ports.push(port);
    }
    ports
}

fn service_port(object: &Object<'_>) -> Option<ServicePort> {
    object.ignore(&["nodePort"]);
    let name_field = object.get("name");
    let name = name_field.as_ref().and_then(Field::text).unwrap_or_default();
    let number = object.required("port", "the number that clients dial")?.port();
    let transport = object
        .get("protocol")
        .and_then(|field| field.choice(&[("TCP", "TCP"), ("UDP", "UDP"), ("SCTP", "SCTP")]));
    let app_field = object.get("appProtocol");
    let app = app_field.as_ref().and_then(Field::text);
    let target = object.get("targetPort").map(|field| target_port(&field));
    let number = number?;
    let transport = transport.unwrap_or("TCP");
    if transport == "SCTP" {
        object.field().warn(
            codes::NOT_SUPPORTED,
            "SCTP is not carried by the mesh; the port is taken as TCP",
            "take the port out of the mesh",
        );
    }
    let protocol = protocol::of_port(transport, app.as_deref(), &name, number);
    if protocol != crate::model::Protocol::Udp {
        match (&app_field, &app, &name_field) {
            (Some(field), Some(app), _) if protocol::by_name(app).is_none() => unknown_app(field, app),
            (None, _, Some(field)) => warn_name(field, &name),
            _ => {}
        }
    }
    Some(ServicePort {
        target: target.unwrap_or(Some(TargetPort::Number(number)))?,
        name,
        number,
        protocol,
        origin: object.field().origin(),
    })
}

fn unknown_app(field: &Field<'_>, app: &str) {
    if !app.starts_with("kubernetes.io/") {
        field.warn(
            codes::PORT_PROTOCOL,
            format!(
                "the application protocol `{}` is not known; it is detected",
                shown(app)
            ),
            "write `http`, `http2`, `grpc`, `tls`, `tcp` or leave it out",
        );
    }
}

pub(crate) fn warn_name(field: &Field<'_>, name: &str) {
    if let Some(instead) = protocol::near_miss(name) {
        field.warn(
            codes::PORT_PROTOCOL,
            format!(
                "the port name `{}` declares no protocol: only what stands before the first `-` counts",
                shown(name)
            ),
            format!("write `{instead}`, or set `appProtocol`"),
        );
    }
}

/// A number, or the name of a container port.
pub(crate) fn target_port(field: &Field<'_>) -> Option<TargetPort> {
    match &field.node.value {
        Value::Scalar(scalar) if scalar.style == Style::Plain && scalar.text.parse::<i128>().is_ok() => {
            field.port().map(TargetPort::Number)
        }
        _ => field.non_empty_text().map(TargetPort::Name),
    }
}
