//! What can be read at the admin door, as JSON. Names are camelCase, times RFC 3339, lists under a
//! plural key.

use rajut_types::{ObjectRef, Text};
use rajut_xds::{
    Protocol,
    server::{StreamStatus, TypeStatus},
    type_url,
};
use serde_json::{Value, json};

use super::{Admin, route::Query};
use crate::{
    discovery::ProxyStatus,
    node::short_type,
    time::{rfc3339, rfc3339_of},
    wire,
};

pub(super) fn object(object: &ObjectRef) -> Value {
    json!({"kind": &*object.kind, "namespace": &*object.namespace, "name": &*object.name})
}

/// As written, filtered by kind, namespace and name.
pub(super) fn resources(admin: &Admin, query: &Query) -> Value {
    let fits = |key: &str, value: &str, ignore_case: bool| match query.get(key).map(String::as_str) {
        None | Some("") => true,
        Some(wanted) if ignore_case => kind_matches(wanted, value),
        Some(wanted) => wanted == value,
    };
    let resources: Vec<Value> = admin
        .registry
        .written()
        .into_iter()
        .filter(|written| fits("kind", &written.object.kind, true))
        .filter(|written| fits("namespace", &written.object.namespace, false))
        .filter(|written| fits("name", &written.object.name, false))
        .map(|written| {
            json!({
                "kind": &*written.object.kind,
                "namespace": &*written.object.namespace,
                "name": &*written.object.name,
                "source": &*written.source,
                "line": written.line,
                "text": written.text,
                "object": written.value,
            })
        })
        .collect();
    json!({ "resources": resources })
}

/// As kubectl takes kinds: any case, plural too.
fn kind_matches(wanted: &str, kind: &str) -> bool {
    let (wanted, kind) = (wanted.to_ascii_lowercase(), kind.to_ascii_lowercase());
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    wanted == kind || wanted == plural
}

pub(super) fn proxies(admin: &Admin) -> Value {
    let generation = admin.registry.snapshot().generation;
    let proxies: Vec<Value> = admin
        .discovery
        .proxies()
        .iter()
        .map(|status| proxy(status, generation))
        .collect();
    json!({"generation": generation, "proxies": proxies})
}

fn proxy(known: &ProxyStatus, generation: u64) -> Value {
    let ProxyStatus {
        connection,
        proxy,
        user_agent,
        protocol,
        since,
        status,
        resources: _,
    } = known;
    let StreamStatus {
        settled,
        last_change,
        types,
    } = status;
    let types: Vec<Value> = types.iter().map(|(url, status)| of_type(url, status)).collect();
    json!({
        "id": &*proxy.id,
        "connection": connection,
        "workload": &*proxy.workload,
        "namespace": &*proxy.namespace,
        "identity": proxy.principal.spiffe_id(),
        "role": format!("{:?}", proxy.role),
        "dataPlane": format!("{:?}", proxy.data_plane).to_lowercase(),
        "userAgent": &**user_agent,
        "protocol": match protocol { Protocol::Delta => "delta", Protocol::StateOfTheWorld => "sotw" },
        "connectedSince": rfc3339_of(*since),
        "settledGeneration": settled,
        "changedGeneration": last_change,
        "upToDate": *settled >= generation,
        "types": types,
    })
}

/// As people call the kinds of resources; other types keep their short name.
fn kind_name(url: &str) -> Text {
    match url {
        type_url::CLUSTER => "clusters".into(),
        type_url::LOAD_ASSIGNMENT => "endpoints".into(),
        type_url::LISTENER => "listeners".into(),
        type_url::ROUTE => "routes".into(),
        type_url::SECRET => "secrets".into(),
        type_url::NAME_TABLE => "names".into(),
        other => short_type(other),
    }
}

fn of_type(url: &str, status: &TypeStatus) -> Value {
    let TypeStatus {
        wildcard,
        names,
        resources,
        sent_generation,
        acked_generation,
        pushes,
        rejects,
        nack,
        sent_resources: _,
        sent_bytes: _,
    } = status;
    let nack = nack
        .as_ref()
        .map(|nack| json!({"generation": nack.generation, "reason": nack.message}));
    json!({
        "type": &*kind_name(url),
        "typeUrl": url,
        "wildcard": wildcard,
        "subscribed": names,
        "resources": resources,
        "sentGeneration": sent_generation,
        "ackedGeneration": acked_generation,
        "state": match (&nack, acked_generation == sent_generation) {
            (Some(_), _) => "rejected",
            (None, true) => "synced",
            (None, false) => "pending",
        },
        "pushes": pushes,
        "rejects": rejects,
        "nack": nack,
    })
}

pub(super) fn services(admin: &Admin) -> Value {
    let snapshot = admin.registry.snapshot();
    let services: Vec<Value> = snapshot
        .services
        .values()
        .map(|service| {
            let ports: Vec<Value> = service
                .ports
                .iter()
                .map(|port| {
                    let protocol = format!("{:?}", port.protocol).to_lowercase();
                    json!({"name": &*port.name, "port": port.number, "protocol": protocol})
                })
                .collect();
            json!({
                "host": service.host.as_str(),
                "name": &*service.name,
                "namespace": &*service.namespace,
                "addresses": service.addresses,
                "ports": ports,
                "external": service.external,
            })
        })
        .collect();
    json!({ "services": services })
}

pub(super) fn workloads(admin: &Admin) -> Value {
    let snapshot = admin.registry.snapshot();
    let workloads: Vec<&rajut_config::model::Workload> =
        snapshot.workloads.values().map(|known| &**known).collect();
    json!({ "workloads": workloads })
}

pub(super) fn certificates(admin: &Admin) -> Value {
    let certificates: Vec<Value> = admin
        .authority
        .issued()
        .into_iter()
        .map(|issued| {
            json!({
                "serial": issued.serial,
                "principal": issued.principal,
                "workload": issued.workload,
                "notBefore": rfc3339(issued.not_before),
                "notAfter": rfc3339(issued.not_after),
            })
        })
        .collect();
    json!({ "certificates": certificates })
}

pub(super) fn diagnostics(admin: &Admin) -> Value {
    let mut all = admin.registry.diagnostics();
    all.extend(admin.discovery.diagnostics());
    json!({"diagnostics": all, "failure": admin.registry.failure()})
}

/// By node id, or by workload name with or without its namespace.
pub(super) fn config_dump(admin: &Admin, name: &str) -> Option<Value> {
    let proxies = admin.discovery.proxies();
    let found = proxies.iter().rev().find(|known| {
        let (workload, namespace) = (&*known.proxy.workload, &*known.proxy.namespace);
        *known.proxy.id == *name || workload == name || name == format!("{workload}.{namespace}")
    })?;
    let resources = found.resources.as_deref();
    Some(json!({
        "proxy": &*found.proxy.id,
        "generation": resources.map(|set| set.generation),
        "resources": resources.map(wire::dump),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_taken_as_kubectl_takes_them() {
        for wanted in ["VirtualService", "virtualservice", "virtualservices"] {
            assert!(kind_matches(wanted, "VirtualService"), "{wanted}");
        }
        assert!(kind_matches("serviceentries", "ServiceEntry"));
        assert!(!kind_matches("services", "ServiceEntry"));
    }
}
