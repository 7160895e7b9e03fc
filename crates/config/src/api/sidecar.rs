//! Istio `Sidecar`.

use std::{collections::BTreeSet, net::SocketAddr};

use rajut_types::{Severity, Text};

use super::{
    meta::{self, NameForm},
    pool, protocol,
};
use crate::{
    codes,
    merge::Defaults,
    model::{EgressHost, IngressListener, OutboundPolicy, Protocol, Sidecar},
    read::{Field, Object, shown},
};

pub(crate) fn read(root: &Object<'_>, defaults: &Defaults) -> Option<Sidecar> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root.required("spec", "add `spec:` with `egress:`")?.object()?;
    let namespace = root.field().scope().namespace().clone();
    let selector = spec
        .object("workloadSelector")
        .map(|object| object.labels("labels"));
    let egress = spec.has("egress").then(|| egress(&spec, &namespace));
    let ingress = ingress(&spec);
    let outbound_policy = spec.object("outboundTrafficPolicy").map(|o| outbound_policy(&o));
    let inbound_pool = spec
        .object("inboundConnectionPool")
        .map(|o| pool::connection_pool(&o));
    if selector.is_some() && namespace == defaults.mesh.root_namespace {
        spec.get("workloadSelector").into_iter().for_each(|field| {
            field.say_key(
                Severity::Warning,
                codes::NO_EFFECT,
                "in the root namespace a selector takes workloads of that namespace only",
                "take it out to make this the mesh's default",
            );
        });
    }
    let meta = meta?;
    Some(Sidecar {
        name: meta.name,
        namespace: meta.namespace,
        selector: selector.filter(|labels| !labels.is_empty()),
        egress,
        outbound_policy,
        ingress,
        inbound_pool,
        origin: root.field().origin(),
        age: meta.age,
    })
}

fn outbound_policy(object: &Object<'_>) -> OutboundPolicy {
    object.unsupported(
        &["egressProxy", "tls"],
        "unknown destinations are reached directly, with what the client sends",
    );
    // The enum's zero is REGISTRY_ONLY, so an empty block means that.
    object
        .get("mode")
        .and_then(|field| {
            field.choice(&[
                ("ALLOW_ANY", OutboundPolicy::AllowAny),
                ("REGISTRY_ONLY", OutboundPolicy::RegistryOnly),
            ])
        })
        .unwrap_or(OutboundPolicy::RegistryOnly)
}

fn egress(spec: &Object<'_>, namespace: &Text) -> Vec<EgressHost> {
    let mut all = Vec::new();
    for field in spec.list("egress") {
        let Some(listener) = field.object() else { continue };
        listener.unsupported(
            &["port"],
            "the hosts of this listener are seen on all of their ports",
        );
        listener.unsupported(
            &["bind"],
            "connections are captured wherever they go; nothing listens for this address alone",
        );
        capture_mode(&listener);
        let Some(hosts) = listener.required("hosts", "e.g. `hosts: [\"./*\"]` for the own namespace") else {
            continue;
        };
        let items = hosts.list();
        if items.is_empty() {
            hosts.error(
                codes::MISSING_FIELD,
                "there must be a host",
                "`~/*` stands for none",
            );
        }
        all.extend(items.iter().filter_map(|item| egress_host(item, namespace)));
    }
    all
}

/// `namespace/host`; `None` where it is wrong, or `~/…`, which is nothing.
fn egress_host(field: &Field<'_>, own: &Text) -> Option<EgressHost> {
    let text = field.non_empty_text()?;
    let Some((namespace, host)) = text.split_once('/') else {
        field.error(
            codes::BAD_HOSTNAME,
            format!("`{}` names no namespace", shown(&text)),
            format!(
                "write `./{0}` for the own namespace or `*/{0}` for any",
                shown(&text)
            ),
        );
        return None;
    };
    let namespace = match namespace {
        "*" => None,
        "." => Some(own.clone()),
        "~" => return None,
        name if name.starts_with('~') => {
            field.error(
                codes::NOT_SUPPORTED,
                "leaving out a namespace is not supported yet",
                "list the namespaces that are seen",
            );
            return None;
        }
        name => {
            let good = meta::check_name(field, name, NameForm::Label);
            Some(Text::from(name)).filter(|_| good)
        }
    };
    if host == "*" {
        return Some(EgressHost {
            namespace,
            host: None,
        });
    }
    let Ok(host) = host.parse() else {
        field.error(
            codes::BAD_HOSTNAME,
            format!("`{}` is not a host", shown(host)),
            "write a full name (`api.shop.svc.cluster.local`), `*.suffix` or `*`",
        );
        return None;
    };
    Some(EgressHost {
        namespace,
        host: Some(host),
    })
}

/// Read, and named where it asks for another capture than there is.
fn capture_mode(listener: &Object<'_>) {
    let Some(field) = listener.get("captureMode") else {
        return;
    };
    let none = field.choice(&[("DEFAULT", false), ("IPTABLES", false), ("NONE", true)]);
    if none == Some(true) {
        field.warn(
            codes::NOT_SUPPORTED,
            "`captureMode: NONE` is not supported yet: connections are captured as everywhere",
            "take it out, or leave it for a later version",
        );
    }
}

fn ingress(spec: &Object<'_>) -> Vec<IngressListener> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for field in spec.list("ingress") {
        let Some(listener) = field.object() else { continue };
        listener.unsupported(&["bind"], "the workload's own address is listened on");
        listener.refused(&["tls"], "callers would get plaintext or the mesh's TLS instead");
        capture_mode(&listener);
        let port = listener
            .required("port", "e.g. `port: {number: 8080, protocol: HTTP, name: http}`")
            .and_then(Field::object);
        let read = port.and_then(|port| ingress_port(&port, &mut seen));
        let endpoint = listener.get("defaultEndpoint").map(|field| endpoint(&field));
        let pool = listener
            .object("connectionPool")
            .map(|o| pool::connection_pool(&o));
        if let (Some((port, protocol)), Some(endpoint)) =
            (read, endpoint.map_or(Some(None), |it| it.map(Some)))
        {
            all.push(IngressListener {
                port,
                protocol,
                endpoint,
                pool,
            });
        }
    }
    all
}

fn ingress_port(port: &Object<'_>, seen: &mut BTreeSet<u16>) -> Option<(u16, Protocol)> {
    let number_field = port.required("number", "the port that callers reach")?;
    let number = number_field.port();
    let name = port.text("name").unwrap_or_default();
    port.ignore(&["targetPort"]);
    let protocol_field = port.get("protocol");
    let declared = protocol_field.as_ref().and_then(Field::text);
    let by_protocol = declared.as_deref().map(protocol::by_name);
    if let (Some(None), Some(field)) = (&by_protocol, &protocol_field) {
        field.warn(
            codes::PORT_PROTOCOL,
            format!(
                "the protocol `{}` is not known; it is detected",
                shown(&declared.unwrap_or_default())
            ),
            "write HTTP, HTTP2, GRPC, HTTPS, TLS or TCP",
        );
    }
    let number = number?;
    if !seen.insert(number) {
        number_field.error(
            codes::DUPLICATE_NAME,
            format!("the port {number} is listed twice"),
            "",
        );
    }
    let protocol = by_protocol
        .flatten()
        .unwrap_or_else(|| protocol::of_port("TCP", None, &name, number));
    Some((number, protocol))
}

/// `127.0.0.1:port`, `[::1]:port`, `0.0.0.0:port`, `[::]:port`.
fn endpoint(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.non_empty_text()?;
    if text.starts_with("unix://") {
        field.error(
            codes::NOT_SUPPORTED,
            "a Unix socket is not supported yet as the application's endpoint",
            "let the application listen on a port",
        );
        return None;
    }
    let parsed = text.parse::<SocketAddr>().ok().filter(|it| it.port() > 0);
    let good = parsed.filter(|it| it.ip().is_loopback() || it.ip().is_unspecified());
    if good.is_none() {
        field.error(
            codes::WRONG_TYPE,
            format!("`{}` is not an endpoint of the workload", shown(&text)),
            "write `127.0.0.1:PORT`, or `0.0.0.0:PORT` for its own address",
        );
    }
    good
}

#[cfg(test)]
mod tests;
