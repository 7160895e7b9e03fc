//! Which Sidecar holds for a workload, and the mesh's settings as it changes them.
//!
//! Source: Istio. The oldest of the workload's namespace that selects it, else the namespace's own without a selector, else
//! that of the root namespace. One wins wholly; only an absent `outboundTrafficPolicy` is the mesh's.

use std::{collections::BTreeMap, sync::Arc};

use rajut_types::{Labels, Text};

use super::{Shared, Snapshot};
use crate::model::{MeshConfig, Sidecar};

/// The settings under each Sidecar that changes them; as many as there are Sidecars. Equal ones share an allocation, since it is
/// part of the key of what is made from it.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings(BTreeMap<(Text, Text), Arc<MeshConfig>>);

impl Settings {
    pub(super) fn new(sidecars: &[Arc<Sidecar>], mesh: &Arc<MeshConfig>, previous: &Self) -> Self {
        let mut made: Vec<Arc<MeshConfig>> = vec![Arc::clone(mesh)];
        made.extend(previous.0.values().cloned());
        let mut all = BTreeMap::new();
        for sidecar in sidecars {
            let Some(policy) = sidecar.outbound_policy else {
                continue;
            };
            let changed = MeshConfig {
                outbound_policy: policy,
                ..(**mesh).clone()
            };
            let kept = made.iter().find(|known| ***known == changed).cloned();
            let settings = kept.unwrap_or_else(|| Arc::new(changed));
            made.push(Arc::clone(&settings));
            all.insert((sidecar.namespace.clone(), sidecar.name.clone()), settings);
        }
        Self(all)
    }
}

impl Snapshot {
    /// The Sidecar that holds for a workload with these labels.
    pub fn sidecar_of(&self, namespace: &str, labels: &Labels) -> Option<&Arc<Sidecar>> {
        let own = || self.sidecars.iter().filter(|it| *it.namespace == *namespace);
        let selecting = |it: &&Arc<Sidecar>| {
            it.selector
                .as_ref()
                .is_some_and(|selector| labels.matches(selector))
        };
        let root = &self.mesh.root_namespace;
        own()
            .find(selecting)
            .or_else(|| own().find(|it| it.selector.is_none()))
            .or_else(|| {
                let mut of_root = self.sidecars.iter().filter(|it| it.namespace == *root);
                of_root.find(|it| it.selector.is_none())
            })
    }

    /// The mesh's settings, as a Sidecar changes them.
    pub fn settings_under(&self, sidecar: Option<&Arc<Sidecar>>) -> Shared<MeshConfig> {
        let own = sidecar.and_then(|it| {
            let key = (it.namespace.clone(), it.name.clone());
            self.index.settings.0.get(&key)
        });
        Shared::from(own.unwrap_or(&self.mesh))
    }
}
