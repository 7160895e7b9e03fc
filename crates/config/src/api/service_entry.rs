//! Istio `ServiceEntry`: one service per host.

use std::collections::BTreeSet;

use rajut_types::{Hostname, Labels, Severity};

use super::{
    meta::{self, NameForm},
    protocol,
    service::warn_name,
    workload_entry,
};
use crate::{
    codes,
    merge::Defaults,
    model::{Resolution, Service, ServicePort, StaticEndpoint, TargetPort},
    parse::Value,
    read::{Field, Object, shown},
};

/// Istio's bound on the hosts of one entry.
const MAX_HOSTS: usize = 256;

pub(crate) fn read(root: &Object<'_>, defaults: &Defaults) -> Option<Vec<Service>> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root
        .required("spec", "add `spec:` with `hosts:` and `ports:`")?
        .object()?;
    let namespace = root.field().scope().namespace().clone();
    let resolution_field = spec.get("resolution");
    let resolution = resolution_field
        .as_ref()
        .map_or(Some(Resolution::None), resolution);
    let hosts = hosts(&spec, resolution);
    let location = spec
        .get("location")
        .and_then(|field| field.choice(&[("MESH_EXTERNAL", true), ("MESH_INTERNAL", false)]));
    let ports = ports(&spec);
    let addresses = addresses(&spec);
    let selector = spec.object("workloadSelector").map(|object| labels_of(&object));
    let endpoints = endpoints(&spec, &ports, resolution);
    let names = spec.texts("subjectAltNames");
    let [default_export, ..] = &defaults.mesh.default_export;
    let export_to = meta::export_to(&spec, &namespace, default_export);
    spec.one_of(&["endpoints", "workloadSelector"]);
    check_resolution(&spec, resolution, &hosts, &endpoints, selector.is_some());
    let (meta, resolution) = (meta?, resolution?);
    let service = |host: Hostname| Service {
        name: host.text(),
        host,
        namespace: meta.namespace.clone(),
        ports: ports.clone(),
        selector: selector.clone().filter(|s| !s.is_empty()),
        resolution,
        addresses: addresses.clone(),
        headless: false,
        external: location.unwrap_or(true),
        endpoints: endpoints.clone(),
        subject_alt_names: names.clone(),
        export_to: export_to.clone(),
        aliases: Vec::new(),
        traffic_distribution: None,
        origin: root.field().origin(),
        age: meta.age,
    };
    Some(hosts.into_iter().map(service).collect())
}

fn resolution(field: &Field<'_>) -> Option<Resolution> {
    if field.node.text() == Some("DYNAMIC_DNS") {
        field.error(
            codes::NOT_SUPPORTED,
            "`DYNAMIC_DNS` is not supported yet, and no endpoint would be found without it",
            "list the hosts and write `DNS`",
        );
        return None;
    }
    field.choice(&[
        ("NONE", Resolution::None),
        ("STATIC", Resolution::Static),
        ("DNS", Resolution::Dns),
        ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
    ])
}

fn hosts(spec: &Object<'_>, resolution: Option<Resolution>) -> Vec<Hostname> {
    let Some(field) = spec.required("hosts", "add the names that clients use") else {
        return Vec::new();
    };
    let items = field.list();
    if items.is_empty() && matches!(field.node.value, Value::Sequence(_)) {
        field.error(
            codes::MISSING_FIELD,
            "a service entry needs at least one host",
            "",
        );
    }
    if items.len() > MAX_HOSTS {
        field.error(
            codes::OUT_OF_RANGE,
            format!("a service entry has at most {MAX_HOSTS} hosts"),
            "",
        );
    }
    let dns = matches!(resolution, Some(Resolution::Dns | Resolution::DnsRoundRobin));
    let given = spec.has("endpoints");
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for item in items {
        let Some(host) = item.hostname() else { continue };
        if host.as_str() == "*" {
            item.error(
                codes::HOST_WILDCARD,
                "the host `*` can't be a service",
                "for everything unknown set `outboundTrafficPolicy` in the mesh's settings",
            );
        } else if host.is_wildcard() && dns && !given {
            item.error(
                codes::BAD_HOSTNAME,
                format!("the wildcard `{host}` can't be resolved by DNS"),
                "write `resolution: NONE`, or add `endpoints`",
            );
        } else if !seen.insert(host.clone()) {
            item.error(
                codes::DUPLICATE_NAME,
                format!("the host `{host}` is listed twice"),
                "",
            );
        } else {
            all.push(host);
        }
    }
    all
}

fn ports(spec: &Object<'_>) -> Vec<ServicePort> {
    let Some(field) = spec.get("ports") else {
        return Vec::new();
    };
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut all = Vec::new();
    for item in field.list() {
        let Some(object) = item.clone().object() else {
            continue;
        };
        let name_field = object.required("name", "every port needs a name");
        let name = name_field.as_ref().and_then(Field::non_empty_text);
        let number_field = object.required("number", "the number that clients dial");
        let number = number_field.as_ref().and_then(Field::port);
        let target = object.get("targetPort").map(|f| f.port());
        let protocol_field = object.get("protocol");
        let declared = protocol_field.as_ref().and_then(Field::text);
        let (Some(name), Some(number)) = (name, number) else {
            continue;
        };
        if !names.insert(name.clone()) {
            item.error(
                codes::DUPLICATE_NAME,
                format!("two ports are named `{}`", shown(&name)),
                "",
            );
        }
        if !numbers.insert(number) {
            item.error(
                codes::DUPLICATE_NAME,
                format!("the port {number} is listed twice"),
                "",
            );
        }
        let by_protocol = declared.as_deref().map(protocol::by_name);
        match (&by_protocol, &protocol_field, &name_field) {
            (Some(None), Some(field), _) => field.warn(
                codes::PORT_PROTOCOL,
                format!(
                    "the protocol `{}` is not known; it is detected",
                    shown(&declared.unwrap_or_default())
                ),
                "write HTTP, HTTP2, GRPC, HTTPS, TLS or TCP",
            ),
            (None, _, Some(field)) => warn_name(field, &name),
            _ => {}
        }
        all.push(ServicePort {
            target: match target {
                Some(Some(number)) => TargetPort::Number(number),
                Some(None) => continue,
                None => TargetPort::Number(number),
            },
            protocol: by_protocol
                .flatten()
                .unwrap_or_else(|| protocol::of_port("TCP", None, &name, number)),
            name,
            number,
            origin: item.origin(),
        });
    }
    all
}

fn addresses(spec: &Object<'_>) -> Vec<std::net::IpAddr> {
    let mut all = Vec::new();
    for item in spec.list("addresses") {
        let Some(text) = item.text() else { continue };
        match (text.parse(), text.parse::<ipnet::IpNet>()) {
            (Ok(address), _) => all.push(address),
            (_, Ok(net)) if net.prefix_len() == net.max_prefix_len() => all.push(net.addr()),
            (_, Ok(_)) => item.warn(
                codes::NOT_SUPPORTED,
                "ranges of addresses are not supported yet: the range is not captured as this service",
                "list the addresses",
            ),
            _ => {
                item.error(
                    codes::WRONG_TYPE,
                    format!("`{}` is not an IP address", shown(&text)),
                    "names belong under `hosts`",
                );
            }
        }
    }
    all
}

fn labels_of(object: &Object<'_>) -> Labels {
    object.labels("labels")
}

fn endpoints(
    spec: &Object<'_>,
    ports: &[ServicePort],
    resolution: Option<Resolution>,
) -> Vec<StaticEndpoint> {
    spec.list("endpoints")
        .iter()
        .filter_map(|field| endpoint(field, ports, resolution))
        .collect()
}

fn endpoint(
    field: &Field<'_>,
    ports: &[ServicePort],
    resolution: Option<Resolution>,
) -> Option<StaticEndpoint> {
    let object = field.clone().object()?;
    let (endpoint, address_field) = workload_entry::endpoint(&object, Some(ports))?;
    let address = &endpoint.address;
    let by_number = address.parse::<std::net::IpAddr>().is_ok();
    if address.starts_with("unix://") {
        if resolution != Some(Resolution::Static) {
            address_field.error(
                codes::EXCLUSIVE,
                "a Unix socket needs `resolution: STATIC`",
                "write it, or give the endpoint an address",
            );
        }
    } else if resolution == Some(Resolution::Static) && !by_number {
        address_field.error(
            codes::WRONG_TYPE,
            format!(
                "with `resolution: STATIC` an endpoint is an IP address, not `{}`",
                shown(address)
            ),
            "write `resolution: DNS` for names",
        );
    }
    Some(endpoint)
}

fn check_resolution(
    spec: &Object<'_>,
    resolution: Option<Resolution>,
    hosts: &[Hostname],
    endpoints: &[StaticEndpoint],
    selects: bool,
) {
    let place = spec.get("resolution").unwrap_or_else(|| spec.field().clone());
    match resolution {
        Some(Resolution::None) if !endpoints.is_empty() => place.error(
            codes::EXCLUSIVE,
            "with `resolution: NONE` (the default) the dialled address is used, yet endpoints are listed",
            "write `resolution: STATIC` for addresses or `DNS` for names",
        ),
        Some(Resolution::DnsRoundRobin) if endpoints.len() > 1 => place.error(
            codes::EXCLUSIVE,
            "`DNS_ROUND_ROBIN` takes at most one endpoint",
            "write `DNS`",
        ),
        Some(Resolution::Static) if endpoints.is_empty() && !selects => place.error(
            codes::MISSING_FIELD,
            "with `resolution: STATIC` there must be `endpoints` or a `workloadSelector`",
            "add them, or write `resolution: DNS`",
        ),
        Some(Resolution::None) if hosts.iter().all(|h| !h.is_wildcard()) && selects => place.warn(
            codes::NO_EFFECT,
            "with `resolution: NONE` (the default) the selected workloads are not used",
            "write `resolution: STATIC`",
        ),
        _ => {}
    }
    let listed = spec.get("ports").map(|f| f.node.items().len());
    if listed.unwrap_or(0) == 0 {
        spec.field().say_key(
            Severity::Warning,
            codes::MISSING_FIELD,
            "a service entry without ports captures nothing",
            "add `ports: [{number: 443, name: tls, protocol: TLS}]`",
        );
    }
}
