//! A mesh of any size, as an operator and a cluster would give it: YAML files, and instances for `PUT /v1/workloads`.
//!
//! Namespaces of [`PER_NAMESPACE`] services. Every service has one HTTP port and a selector; every tenth also a
//! `DestinationRule` with two subsets and a `VirtualService` that splits 90:10; every namespace a `PeerAuthentication`.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

/// Services of one namespace.
pub(crate) const PER_NAMESPACE: usize = 20;

/// How large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) services: usize,
    /// Per service.
    pub(crate) endpoints: usize,
    pub(crate) proxies: usize,
    /// Services among which the proxies stand, and which they use on demand: the first so many. In a mesh of twice the size
    /// they stay the same.
    pub(crate) pool: usize,
}

pub(crate) fn namespace(service: usize) -> String {
    format!("team-{}", service / PER_NAMESPACE)
}

pub(crate) fn host(service: usize) -> String {
    format!("svc-{service}.{}.svc.cluster.local", namespace(service))
}

pub(crate) fn cluster(service: usize) -> String {
    format!("outbound|8080||{}", host(service))
}

/// Writes one file per namespace.
pub(crate) fn write(size: Size, folder: &Path) -> anyhow::Result<()> {
    for first in (0..size.services).step_by(PER_NAMESPACE) {
        let namespace = namespace(first);
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\napiVersion: security.istio.io/v1\nkind: \
             PeerAuthentication\nmetadata: {{name: default, namespace: {namespace}}}\nspec: {{mtls: {{mode: STRICT}}}}\n"
        );
        for service in first..(first + PER_NAMESPACE).min(size.services) {
            write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service}, namespace: {namespace}}}\nspec:\n  \
                 selector: {{app: svc-{service}}}\n  ports:\n  - {{name: http, port: 8080}}\n"
            )?;
            if service % 10 == 0 {
                text.push_str(&rule(service, 1_000));
                text.push_str(&routes(service));
            }
        }
        std::fs::write(folder.join(format!("{namespace}.yaml")), text)?;
    }
    Ok(())
}

/// The destination rule of a service; `limit` is what a change of policy changes.
pub(crate) fn rule(service: usize, limit: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: svc-{service}, namespace: {}}}\nspec:\n  \
         host: {}\n  trafficPolicy:\n    connectionPool: {{tcp: {{maxConnections: {limit}}}}}\n    outlierDetection: \
         {{consecutive5xxErrors: 5}}\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: \
         {{version: v2}}}}\n",
        namespace(service),
        host(service),
    )
}

fn routes(service: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: svc-{service}, namespace: {}}}\nspec:\n  \
         hosts: [{host}]\n  http:\n  - route:\n    - {{destination: {{host: {host}, subset: v1}}, weight: 90}}\n    - \
         {{destination: {{host: {host}, subset: v2}}, weight: 10}}\n",
        namespace(service),
        host = host(service),
    )
}

/// The body of `PUT /v1/workloads`.
pub(crate) fn workloads(size: Size) -> Value {
    let one = |service: usize, instance: usize| {
        let number = service * size.endpoints + instance;
        json!({
            "name": format!("svc-{service}-{instance}"),
            "deployment": format!("svc-{service}"),
            "namespace": namespace(service),
            "labels": {"app": format!("svc-{service}"), "version": if instance.is_multiple_of(2) { "v1" } else { "v2" }},
            "serviceAccount": format!("svc-{service}"),
            "address": format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255),
            "mesh": true,
            "health": "ready",
        })
    };
    let all: Vec<Value> = (0..size.services)
        .flat_map(|service| (0..size.endpoints).map(move |instance| one(service, instance)))
        .collect();
    json!({ "workloads": all })
}
