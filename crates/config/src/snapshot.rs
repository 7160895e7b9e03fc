//! The immutable state of the whole mesh's configuration at one generation.

use std::{collections::BTreeMap, sync::Arc};

use rajut_types::{Hostname, Text};

use crate::model::{
    DestinationRule, MeshConfig, Namespace, PeerAuthentication, Service, VirtualService, Workload,
};

/// Everything that is configured and everything that runs, at one generation. Never changed; a change makes a new one
/// that shares what did not change.
///
/// Lists are sorted by age (oldest first), then name, then namespace: Istio's order of precedence.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Rises by one with every snapshot of a process.
    pub generation: u64,
    /// Mesh-wide settings.
    pub mesh: Arc<MeshConfig>,
    /// name → namespace.
    pub namespaces: BTreeMap<Text, Arc<Namespace>>,
    /// (host, namespace) → service: one host may be written in several namespaces (`ServiceEntry`).
    pub services: BTreeMap<(Hostname, Text), Arc<Service>>,
    /// (namespace, name) → instance.
    pub workloads: BTreeMap<(Text, Text), Arc<Workload>>,
    /// Sorted by age.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Sorted by age.
    pub destination_rules: Vec<Arc<DestinationRule>>,
    /// Sorted by age.
    pub peer_authentications: Vec<Arc<PeerAuthentication>>,
}
