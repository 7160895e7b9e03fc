//! What the proxy runs on, as it was received: Envoy's `/config_dump` form.

use std::collections::BTreeMap;

use bytes::Bytes;
use rajut_ir::ResourceKind;
use rajut_proto::{Any, reflect::Descriptors};
use rajut_types::Text;
use serde_json::{Value, json};

use crate::last_known::Remembered;

/// One resource as it was received.
#[derive(Debug, Clone)]
pub struct DumpEntry {
    /// The version that the control plane gave it; empty for static resources.
    pub version: Text,
    /// RFC 3339.
    pub updated: String,
    /// The encoded message.
    pub body: Bytes,
    /// From the bootstrap file.
    pub is_static: bool,
}

/// All resources as they were received. Bounded by what the control plane sends.
#[derive(Debug, Default)]
pub struct Dump {
    entries: BTreeMap<(ResourceKind, Text), DumpEntry>,
}

/// kind, name of its dump message, list of static ones, list of dynamic ones, field of the resource.
const FORMS: [(ResourceKind, &str, &str, &str, &str); 5] = [
    (
        ResourceKind::Cluster,
        "ClustersConfigDump",
        "static_clusters",
        "dynamic_active_clusters",
        "cluster",
    ),
    (
        ResourceKind::Listener,
        "ListenersConfigDump",
        "static_listeners",
        "dynamic_listeners",
        "listener",
    ),
    (
        ResourceKind::RouteConfiguration,
        "RoutesConfigDump",
        "static_route_configs",
        "dynamic_route_configs",
        "route_config",
    ),
    (
        ResourceKind::LoadAssignment,
        "EndpointsConfigDump",
        "static_endpoint_configs",
        "dynamic_endpoint_configs",
        "endpoint_config",
    ),
    (
        ResourceKind::Secret,
        "SecretsConfigDump",
        "static_secrets",
        "dynamic_active_secrets",
        "secret",
    ),
];

impl Dump {
    /// Notes a resource.
    pub fn insert(&mut self, kind: ResourceKind, name: Text, entry: DumpEntry) {
        self.entries.insert((kind, name), entry);
    }

    /// Forgets a resource.
    pub fn remove(&mut self, kind: ResourceKind, name: &Text) {
        self.entries.remove(&(kind, name.clone()));
    }

    /// What the control plane gave, to be kept for a start without it.
    pub fn received(&self) -> Vec<Remembered> {
        let dynamic = self.entries.iter().filter(|(_, entry)| !entry.is_static);
        dynamic
            .map(|((kind, name), entry)| Remembered {
                kind: *kind,
                name: name.clone(),
                version: entry.version.clone(),
                body: entry.body.clone(),
            })
            .collect()
    }

    /// Envoy's `ConfigDump`; with `only`, just the lists of that name (as Envoy's `?resource=`).
    pub fn to_json(&self, only: Option<&str>) -> Value {
        // Some megabytes that are let go of again: a person asks rarely.
        let descriptors = Descriptors::load();
        let configs: Vec<Value> = FORMS
            .iter()
            .filter(|(_, _, fixed, dynamic, _)| only.is_none_or(|only| only == *fixed || only == *dynamic))
            .map(|form| self.kind_to_json(&descriptors, form))
            .collect();
        json!({ "configs": configs })
    }

    fn kind_to_json(
        &self,
        descriptors: &Descriptors,
        (kind, message, fixed, dynamic, field): &(ResourceKind, &str, &str, &str, &str),
    ) -> Value {
        let (mut statics, mut dynamics) = (Vec::new(), Vec::new());
        for ((entry_kind, name), entry) in &self.entries {
            if entry_kind != kind {
                continue;
            }
            let resource = if *kind == ResourceKind::Secret {
                json!({ "name": &**name, "note": "redacted" })
            } else {
                readable(descriptors, *kind, &entry.body)
            };
            let mut row = json!({
                "version_info": &*entry.version,
                *field: resource,
                "last_updated": entry.updated,
            });
            if *kind == ResourceKind::Listener && !entry.is_static {
                row = json!({ "name": &**name, "active_state": row });
            }
            if entry.is_static {
                statics.push(row);
            } else {
                dynamics.push(row);
            }
        }
        json!({
            "@type": format!("type.googleapis.com/envoy.admin.v3.{message}"),
            *fixed: statics,
            *dynamic: dynamics,
        })
    }
}

/// The message as JSON; what can't be shown says why in its place.
fn readable(descriptors: &Descriptors, kind: ResourceKind, body: &Bytes) -> Value {
    let any = Any {
        type_url: kind.type_url().into(),
        value: body.to_vec(),
    };
    descriptors
        .message_to_json(&any)
        .unwrap_or_else(|error| json!({ "error": error.to_string() }))
}
