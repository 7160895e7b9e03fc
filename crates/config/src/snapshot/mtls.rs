//! Which mTLS mode holds on which port of a workload: mesh < namespace < workload < port.
//!
//! Source: Istio `ComposePeerAuthentication`. One policy per level, the oldest; UNSET inherits from the next wider;
//! policies with a selector in the root namespace are ignored.

use std::{collections::BTreeMap, sync::Arc};

use rajut_types::{Labels, Origin, Text};

use crate::model::{MtlsMode, PeerAuthentication};

/// The mode of every port of a workload, with the policies that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveMtls {
    /// Where no port says otherwise.
    pub mode: MtlsMode,
    /// Who decided `mode`.
    pub origin: Origin,
    /// By container port.
    pub ports: BTreeMap<u16, (MtlsMode, Origin)>,
}

impl EffectiveMtls {
    /// The mode of a container port.
    pub fn mode(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).map_or(self.mode, |(mode, _)| *mode)
    }

    /// Who decided the mode of a container port.
    pub fn origin(&self, port: u16) -> &Origin {
        self.ports.get(&port).map_or(&self.origin, |(_, origin)| origin)
    }
}

impl Default for EffectiveMtls {
    fn default() -> Self {
        Self {
            mode: MtlsMode::Permissive,
            origin: Origin::built_in("peer-authentication"),
            ports: BTreeMap::new(),
        }
    }
}

/// The peer authentications of a mesh, by namespace. At most one entry per policy.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerPolicies {
    /// What holds in a namespace where nothing is written.
    mesh: Arc<EffectiveMtls>,
    namespaces: BTreeMap<Text, NamespacePolicies>,
}

#[derive(Debug, Clone)]
struct NamespacePolicies {
    default: Arc<EffectiveMtls>,
    /// Oldest first.
    selected: Vec<Arc<PeerAuthentication>>,
}

impl PeerPolicies {
    /// From policies sorted by age.
    pub(super) fn new(sorted: &[Arc<PeerAuthentication>], root_namespace: &str) -> Self {
        let wide = |namespace: &str| {
            sorted
                .iter()
                .find(|policy| &*policy.namespace == namespace && policy.selector.is_none())
        };
        let mesh = Arc::new(match wide(root_namespace) {
            Some(policy) => level(&EffectiveMtls::default(), policy),
            None => EffectiveMtls::default(),
        });
        let mut namespaces = BTreeMap::new();
        for policy in sorted {
            if *policy.namespace == *root_namespace {
                continue;
            }
            let entry = namespaces
                .entry(policy.namespace.clone())
                .or_insert_with(|| NamespacePolicies {
                    default: wide(&policy.namespace)
                        .map_or_else(|| Arc::clone(&mesh), |wide| Arc::new(level(&mesh, wide))),
                    selected: Vec::new(),
                });
            if policy.selector.is_some() {
                entry.selected.push(Arc::clone(policy));
            }
        }
        Self { mesh, namespaces }
    }

    /// What holds for a workload.
    pub(super) fn of(&self, namespace: &str, labels: &Labels) -> Arc<EffectiveMtls> {
        let Some(policies) = self.namespaces.get(namespace) else {
            return Arc::clone(&self.mesh);
        };
        let selected = policies.selected.iter().find(|policy| {
            policy
                .selector
                .as_ref()
                .is_some_and(|selector| labels.matches(selector))
        });
        match selected {
            Some(policy) => Arc::new(level(&policies.default, policy)),
            None => Arc::clone(&policies.default),
        }
    }
}

/// One level over the next wider one. Ports never inherit from a wider level: they need a selector.
fn level(wider: &EffectiveMtls, policy: &PeerAuthentication) -> EffectiveMtls {
    let (mode, origin) = match policy.mode {
        Some(mode) => (mode, policy.origin.clone()),
        None => (wider.mode, wider.origin.clone()),
    };
    let ports = if policy.selector.is_some() {
        policy
            .ports
            .iter()
            .map(|(port, own)| (*port, (own.unwrap_or(mode), policy.origin.clone())))
            .collect()
    } else {
        BTreeMap::new()
    };
    EffectiveMtls { mode, origin, ports }
}

#[cfg(test)]
mod tests {
    use rajut_types::ObjectRef;

    use super::*;

    fn policy(
        namespace: &str,
        name: &str,
        selector: Option<&str>,
        mode: Option<MtlsMode>,
    ) -> PeerAuthentication {
        PeerAuthentication {
            name: name.into(),
            namespace: namespace.into(),
            selector: selector.map(|app| [("app", app)].into_iter().collect()),
            mode,
            ports: BTreeMap::new(),
            origin: Origin::new("t.yaml", ObjectRef::new("PeerAuthentication", namespace, name)),
            age: 0,
        }
    }

    fn policies(list: Vec<PeerAuthentication>) -> PeerPolicies {
        let sorted: Vec<_> = list.into_iter().map(Arc::new).collect();
        PeerPolicies::new(&sorted, "istio-system")
    }

    fn app(name: &str) -> Labels {
        [("app", name)].into_iter().collect()
    }

    #[test]
    fn each_level_overrides_the_wider_one_and_unset_inherits() {
        let found = policies(vec![
            policy("istio-system", "default", None, Some(MtlsMode::Strict)),
            policy("a", "default", None, None),
            policy("a", "one", Some("one"), Some(MtlsMode::Disable)),
            policy("b", "default", None, Some(MtlsMode::Permissive)),
        ]);
        assert_eq!(found.of("a", &app("two")).mode, MtlsMode::Strict);
        assert_eq!(found.of("a", &app("one")).mode, MtlsMode::Disable);
        assert_eq!(found.of("b", &app("one")).mode, MtlsMode::Permissive);
        assert_eq!(found.of("c", &app("one")).mode, MtlsMode::Strict);
        assert_eq!(policies(vec![]).of("c", &app("one")).mode, MtlsMode::Permissive);
    }

    #[test]
    fn the_oldest_of_a_level_wins_wholly() {
        let found = policies(vec![
            policy("a", "old", None, Some(MtlsMode::Strict)),
            policy("a", "new", None, Some(MtlsMode::Disable)),
        ]);
        assert_eq!(found.of("a", &app("x")).mode, MtlsMode::Strict);
    }

    #[test]
    fn ports_need_a_selector_and_unset_ones_take_the_workloads_mode() {
        let mut chosen = policy("a", "one", Some("one"), Some(MtlsMode::Strict));
        chosen.ports.insert(8080, Some(MtlsMode::Disable));
        chosen.ports.insert(8081, None);
        let mut wide = policy("a", "default", None, None);
        wide.ports.insert(8080, Some(MtlsMode::Strict));
        let found = policies(vec![wide, chosen]);
        let one = found.of("a", &app("one"));
        assert_eq!(one.mode(8080), MtlsMode::Disable);
        assert_eq!(one.mode(8081), MtlsMode::Strict);
        assert_eq!(one.mode(9), MtlsMode::Strict);
        assert_eq!(found.of("a", &app("two")).mode(8080), MtlsMode::Permissive);
    }

    #[test]
    fn selectors_in_the_root_namespace_are_ignored() {
        let found = policies(vec![policy(
            "istio-system",
            "x",
            Some("one"),
            Some(MtlsMode::Strict),
        )]);
        assert_eq!(found.of("istio-system", &app("one")).mode, MtlsMode::Permissive);
        assert_eq!(found.of("a", &app("one")).mode, MtlsMode::Permissive);
    }
}
