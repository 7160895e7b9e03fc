//! Istio `VirtualService`.

use std::collections::BTreeSet;

use rajut_types::{Hostname, Severity, Text};

use super::{
    matches,
    meta::{self, NameForm},
    route::{self, RawRoute},
};
use crate::{
    codes,
    merge::{Defaults, gateways},
    model::{TcpRoute, TlsRoute, VirtualService},
    parse::Value,
    read::{Field, Object},
};

/// A virtual service whose delegates are not inlined yet.
#[derive(Debug, Clone)]
pub(crate) struct RawVirtualService {
    /// Its `http` is empty.
    pub(crate) rule: VirtualService,
    pub(crate) http: Vec<RawRoute>,
}

impl RawVirtualService {
    /// Whether it is there for others to delegate to.
    pub(crate) fn is_delegate(&self) -> bool {
        self.rule.hosts.is_empty()
    }
}

pub(crate) fn read(root: &Object<'_>, defaults: &Defaults) -> Option<RawVirtualService> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root
        .required("spec", "add `spec:` with `hosts:` and `http:`")?
        .object()?;
    let namespace = root.field().scope().namespace().clone();
    let hosts = hosts(&spec, &namespace, defaults);
    let gateways = gateways(&spec, &namespace, hosts.is_empty());
    let http: Vec<RawRoute> = spec
        .list("http")
        .iter()
        .filter_map(|f| route::http(f, defaults, (!hosts.is_empty()).then_some(&*gateways)))
        .collect();
    let tls: Vec<TlsRoute> = spec
        .list("tls")
        .iter()
        .filter_map(|f| {
            let object = f.clone().object()?;
            let matches = match object.required("match", "add `match: [{sniHosts: […]}]`") {
                Some(field) => field
                    .list()
                    .iter()
                    .filter_map(|m| matches::tls(m, &hosts, defaults))
                    .collect(),
                None => Vec::new(),
            };
            let route = object.required("route", "add the destinations")?;
            let destinations = route::destinations(&route, defaults);
            Some(TlsRoute {
                matches,
                destinations,
                origin: f.origin(),
            })
        })
        .collect();
    let tcp: Vec<TcpRoute> = spec
        .list("tcp")
        .iter()
        .filter_map(|f| {
            let object = f.clone().object()?;
            let matches = object.list("match").iter().filter_map(matches::l4).collect();
            let route = object.required("route", "add the destinations")?;
            let destinations = route::destinations(&route, defaults);
            Some(TcpRoute {
                matches,
                destinations,
                origin: f.origin(),
            })
        })
        .collect();
    let [_, default_export, _] = &defaults.mesh.default_export;
    let export_to = meta::export_to(&spec, &namespace, default_export);
    check_shape(&spec, &hosts);
    let meta = meta?;
    Some(RawVirtualService {
        rule: VirtualService {
            name: meta.name,
            namespace: meta.namespace,
            hosts,
            gateways,
            http: Vec::new(),
            tls,
            tcp,
            export_to,
            origin: root.field().origin(),
            age: meta.age,
        },
        http,
    })
}

fn check_shape(spec: &Object<'_>, hosts: &[Hostname]) {
    // A list of another type has been reported as such.
    let some = |field: Field<'_>| !matches!(&field.node.value, Value::Sequence(items) if items.is_empty());
    if !["http", "tls", "tcp"]
        .iter()
        .any(|name| spec.get(name).is_some_and(some))
    {
        spec.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "a VirtualService needs at least one route in `http`, `tls` or `tcp`",
            "",
        );
    }
    if hosts.is_empty() && !spec.has("hosts") {
        for name in ["tls", "tcp"] {
            if let Some(field) = spec.get(name) {
                field.say_key(
                    Severity::Error,
                    codes::DELEGATE,
                    format!("a VirtualService without hosts is a delegate and can't have `{name}` routes"),
                    "add `hosts:`",
                );
            }
        }
        for route in spec.list("http") {
            if route.node.get("delegate").is_some_and(|d| !d.is_null()) {
                route.error(
                    codes::DELEGATE,
                    "a delegate can't delegate further",
                    "put the routes here, or give this VirtualService `hosts:`",
                );
            }
        }
    }
}

fn hosts(spec: &Object<'_>, namespace: &Text, defaults: &Defaults) -> Vec<Hostname> {
    let mesh = spec.get("gateways").is_none_or(|g| {
        g.node.items().is_empty() || g.node.items().iter().any(|item| item.text() == Some("mesh"))
    });
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::new();
    for field in spec.list("hosts") {
        let Some(host) = field.hostname() else { continue };
        if host.as_str() == "*" && mesh {
            field.error(
                codes::HOST_WILDCARD,
                "the host `*` can't be routed inside the mesh",
                "name the hosts, or bind the rule to a gateway with `gateways:`",
            );
            continue;
        }
        let host = host.qualify(namespace, &defaults.mesh.domain);
        if seen.insert(host.clone()) {
            hosts.push(host);
        } else {
            field.error(
                codes::DUPLICATE_NAME,
                format!("the host `{host}` is listed twice"),
                "",
            );
        }
    }
    hosts
}

/// `mesh`, or `namespace/name`.
fn gateways(spec: &Object<'_>, namespace: &Text, delegate: bool) -> Vec<Text> {
    let Some(field) = spec.get("gateways") else {
        return vec!["mesh".into()];
    };
    if delegate && !spec.has("hosts") {
        field.say_key(
            Severity::Error,
            codes::DELEGATE,
            "a VirtualService without hosts is a delegate and can't name gateways",
            "take `gateways:` out, or add `hosts:`",
        );
    }
    let mut all = Vec::new();
    for item in field.list() {
        let Some(name) = item.non_empty_text() else {
            continue;
        };
        all.push(gateways::qualified(&name, namespace));
    }
    if all.is_empty() { vec!["mesh".into()] } else { all }
}
