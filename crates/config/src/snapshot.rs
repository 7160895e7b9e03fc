//! The immutable state of the whole mesh's configuration at one generation, with the indexes that make it cheap to ask.
//!
//! Walk two of `ARCHITECTURE.md`, between `merge` and `translate`. A snapshot is never changed; [`Snapshot::build`] and
//! [`Snapshot::with_workloads`] make the next one and keep the allocation of everything that did not change, so that
//! whoever compares by identity ([`Shared`]) sees exactly what did. Generators never see a snapshot: they get
//! [`view`]s, whose fields are the key of what is made from them.
//!
//! Bounds: sizes follow the configuration; an index holds one entry per service, host or policy. It does not validate,
//! allocate virtual addresses by itself ([`allocate`] is called by the registry), or know any proxy.

mod changes;
mod gateway;
mod holding;
mod index;
mod mtls;
mod rules;
mod shared;
mod sidecar;
mod telemetry;
pub mod view;
mod vip;

use std::{collections::BTreeMap, sync::Arc};

pub use changes::Changes;
pub(crate) use gateway::companion;
pub use gateway::{GatewayView, intersection};
use index::Index;
pub use mtls::EffectiveMtls;
use rajut_types::{Hostname, PersistentMap, Text};
pub use shared::Shared;
pub use view::{ClientView, Member, Members, ServiceView, WorkloadView};
pub use vip::{VIP_CAPACITY, allocate};

use crate::Loaded;
use crate::model::{
    AuthorizationPolicy, DestinationRule, Gateway, KeySource, MeshConfig, Namespace, PeerAuthentication,
    RateLimitPolicy, RequestAuthentication, Secret, Service, Sidecar, Telemetry, VirtualService, Workload,
};

/// Everything that is configured and everything that runs, at one generation. Never changed; a change makes a new one
/// that shares what did not change.
///
/// Lists are sorted by age (oldest first), then name, then namespace: Istio's order of precedence. Made by
/// [`Snapshot::build`]; changing a field afterwards would leave the indexes behind.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Rises by one with every snapshot of a process.
    pub generation: u64,
    /// Mesh-wide settings.
    pub mesh: Arc<MeshConfig>,
    /// name → namespace.
    pub namespaces: BTreeMap<Text, Arc<Namespace>>,
    /// (host, namespace) → service: one host may be written in several namespaces (`ServiceEntry`).
    pub services: PersistentMap<(Hostname, Text), Arc<Service>>,
    /// (namespace, name) → instance.
    pub workloads: PersistentMap<(Text, Text), Arc<Workload>>,
    /// Sorted by age.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Sorted by age.
    pub destination_rules: Vec<Arc<DestinationRule>>,
    /// Sorted by age.
    pub peer_authentications: Vec<Arc<PeerAuthentication>>,
    /// Sorted by age.
    pub authorization_policies: Vec<Arc<AuthorizationPolicy>>,
    /// Sorted by age.
    pub rate_limit_policies: Vec<Arc<RateLimitPolicy>>,
    /// Sorted by age.
    pub request_authentications: Vec<Arc<RequestAuthentication>>,
    /// Key sets that were fetched, as [`usable`](crate::key_set::usable) gives them.
    pub key_sets: Arc<KeySets>,
    /// Whom everybody of the mesh believes; `None` until the issuer has said.
    pub trust: Option<Arc<Trust>>,
    /// Sorted by age.
    pub telemetries: Vec<Arc<Telemetry>>,
    /// Sorted by age.
    pub gateways: Vec<Arc<Gateway>>,
    /// Sorted by namespace and name.
    pub secrets: Vec<Arc<Secret>>,
    /// Sorted by age.
    pub sidecars: Vec<Arc<Sidecar>>,
    index: Arc<Index>,
}

/// Whom everybody of the mesh believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The roots, PEM; the first is the one that certificates are issued under.
    pub roots: Text,
    /// Revocation lists, PEM, one for each issuer; may be empty.
    pub crl: Text,
    /// The generation that brought it.
    pub since: u64,
}

/// Where from → the key set. As many as rules name.
pub type KeySets = BTreeMap<KeySource, Text>;

/// What a snapshot is built from, besides the workloads: all validated objects, in any order.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Services, with their virtual addresses.
    pub services: Vec<Service>,
    /// Virtual services, delegates inlined.
    pub virtual_services: Vec<VirtualService>,
    /// Destination rules.
    pub destination_rules: Vec<DestinationRule>,
    /// Peer authentications.
    pub peer_authentications: Vec<PeerAuthentication>,
    /// Authorization policies.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// Rate limits.
    pub rate_limit_policies: Vec<RateLimitPolicy>,
    /// Issuers of tokens.
    pub request_authentications: Vec<RequestAuthentication>,
    /// Changes of metrics.
    pub telemetries: Vec<Telemetry>,
    /// Gateways.
    pub gateways: Vec<Gateway>,
    /// Secrets of gateways.
    pub secrets: Vec<Secret>,
    /// What proxies see and take.
    pub sidecars: Vec<Sidecar>,
}

impl Configuration {
    /// What was loaded, as far as a snapshot holds it.
    pub fn of(loaded: &Loaded) -> Self {
        Self {
            mesh: loaded.mesh.clone(),
            namespaces: loaded.namespaces.clone(),
            services: loaded.services.clone(),
            virtual_services: loaded.virtual_services.clone(),
            destination_rules: loaded.destination_rules.clone(),
            peer_authentications: loaded.peer_authentications.clone(),
            authorization_policies: loaded.authorization_policies.clone(),
            rate_limit_policies: loaded.rate_limit_policies.clone(),
            request_authentications: loaded.request_authentications.clone(),
            telemetries: loaded.telemetries.clone(),
            gateways: loaded.gateways.clone(),
            secrets: loaded.secrets.clone(),
            sidecars: loaded.sidecars.clone(),
        }
    }
}

impl Snapshot {
    /// The snapshot after `previous` (the default one at the start) with this configuration and these workloads.
    pub fn build(
        configuration: Configuration,
        workloads: impl IntoIterator<Item = Workload>,
        previous: &Self,
    ) -> Self {
        let workloads = keep_map(workloads, &previous.workloads, |workload| {
            (workload.namespace.clone(), workload.name.clone())
        });
        Self::assemble(configuration, workloads, previous)
    }

    /// The next snapshot, with another configuration and the same workloads. Costs a comparison of every object, and what the
    /// changed ones concern.
    #[must_use]
    pub fn with_configuration(&self, configuration: Configuration) -> Self {
        Self::assemble(configuration, self.workloads.clone(), self)
    }

    fn assemble(
        configuration: Configuration,
        workloads: PersistentMap<(Text, Text), Arc<Workload>>,
        previous: &Self,
    ) -> Self {
        let Configuration {
            mesh,
            namespaces,
            services,
            virtual_services,
            destination_rules,
            peer_authentications,
            authorization_policies,
            rate_limit_policies,
            request_authentications,
            telemetries,
            gateways,
            secrets,
            sidecars,
        } = configuration;
        let namespaces = namespaces.into_iter().map(|namespace| {
            let key = namespace.name.clone();
            let kept = keep(namespace, previous.namespaces.get(&key));
            (key, kept)
        });
        let mut next = Self {
            generation: previous.generation + 1,
            mesh: keep(mesh, Some(&previous.mesh)),
            namespaces: namespaces.collect(),
            services: keep_map(services, &previous.services, |service| {
                (service.host.clone(), service.namespace.clone())
            }),
            workloads,
            virtual_services: keep_sorted(virtual_services, &previous.virtual_services, |object| {
                (object.age, object.name.clone(), object.namespace.clone())
            }),
            destination_rules: keep_sorted(destination_rules, &previous.destination_rules, |object| {
                (object.age, object.name.clone(), object.namespace.clone())
            }),
            peer_authentications: keep_sorted(
                peer_authentications,
                &previous.peer_authentications,
                |object| (object.age, object.name.clone(), object.namespace.clone()),
            ),
            authorization_policies: keep_sorted(
                authorization_policies,
                &previous.authorization_policies,
                |object| (object.age, object.name.clone(), object.namespace.clone()),
            ),
            rate_limit_policies: keep_sorted(rate_limit_policies, &previous.rate_limit_policies, |object| {
                (object.age, object.name.clone(), object.namespace.clone())
            }),
            request_authentications: keep_sorted(
                request_authentications,
                &previous.request_authentications,
                |object| (object.age, object.name.clone(), object.namespace.clone()),
            ),
            key_sets: Arc::clone(&previous.key_sets),
            trust: previous.trust.clone(),
            telemetries: keep_sorted(telemetries, &previous.telemetries, |object| {
                (object.age, object.name.clone(), object.namespace.clone())
            }),
            gateways: keep_sorted(gateways, &previous.gateways, |object| {
                (object.age, object.name.clone(), object.namespace.clone())
            }),
            secrets: keep_sorted(secrets, &previous.secrets, |object| {
                (object.namespace.clone(), object.name.clone())
            }),
            sidecars: keep_sorted(sidecars, &previous.sidecars, |object| {
                (object.age, object.name.clone(), object.namespace.clone())
            }),
            index: Arc::default(),
        };
        next.index = Arc::new(Index::after(&next, previous));
        next
    }

    /// The next snapshot, where some workloads came, changed or went and nothing else did. Costs what the services
    /// concerned cost.
    #[must_use]
    pub fn with_workloads(
        &self,
        changed: impl IntoIterator<Item = Workload>,
        removed: impl IntoIterator<Item = (Text, Text)>,
    ) -> Self {
        let mut next = Self {
            generation: self.generation + 1,
            ..self.clone()
        };
        let mut touched = false;
        for key in removed {
            touched |= next.workloads.remove(&key).is_some();
        }
        for workload in changed {
            let key = (workload.namespace.clone(), workload.name.clone());
            if next.workloads.get(&key).is_some_and(|known| **known == workload) {
                continue;
            }
            touched = true;
            next.workloads.insert(key, Arc::new(workload));
        }
        if touched {
            next.index = Arc::new(Index::after(&next, self));
        }
        next
    }

    /// The next snapshot, with other key sets and nothing else.
    #[must_use]
    pub fn with_key_sets(&self, key_sets: KeySets) -> Self {
        let mut next = Self {
            generation: self.generation + 1,
            key_sets: keep(key_sets, Some(&self.key_sets)),
            ..self.clone()
        };
        // Its allocation stands for the whole contents.
        next.index = Arc::new(Index::after(&next, self));
        next
    }

    /// The next snapshot, with another trust and nothing else.
    #[must_use]
    pub fn with_trust(&self, roots: Text, crl: Text) -> Self {
        let since = self.generation + 1;
        let mut next = Self {
            generation: since,
            trust: Some(Arc::new(Trust { roots, crl, since })),
            ..self.clone()
        };
        // Its allocation stands for the whole contents.
        next.index = Arc::new(Index::after(&next, self));
        next
    }

    /// A key of this snapshot's contents: equal only for snapshots that answer every question alike.
    pub fn identity(&self) -> impl Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static {
        Shared::from(&self.index)
    }
}

/// `value`, or the previous allocation where it is equal.
fn keep<T: PartialEq>(value: T, previous: Option<&Arc<T>>) -> Arc<T> {
    match previous {
        Some(previous) if **previous == value => Arc::clone(previous),
        _ => Arc::new(value),
    }
}

/// The previous map with what differs changed in it, so that the two share the rest.
fn keep_map<K: Ord + Clone, T: PartialEq>(
    values: impl IntoIterator<Item = T>,
    previous: &PersistentMap<K, Arc<T>>,
    key: impl Fn(&T) -> K,
) -> PersistentMap<K, Arc<T>> {
    let mut next = previous.clone();
    let mut named = std::collections::BTreeSet::new();
    for value in values {
        let key = key(&value);
        if next.get(&key).is_none_or(|known| **known != value) {
            next.insert(key.clone(), Arc::new(value));
        }
        named.insert(key);
    }
    if named.len() < next.len() {
        for key in previous.keys().filter(|key| !named.contains(*key)) {
            next.remove(key);
        }
    }
    next
}

fn keep_sorted<K: Ord, T: PartialEq>(
    mut values: Vec<T>,
    previous: &[Arc<T>],
    key: impl Fn(&T) -> K,
) -> Vec<Arc<T>> {
    values.sort_by_cached_key(&key);
    let known: BTreeMap<K, &Arc<T>> = previous.iter().map(|value| (key(value), value)).collect();
    values
        .into_iter()
        .map(|value| {
            let kept = known.get(&key(&value)).copied();
            keep(value, kept)
        })
        .collect()
}

#[cfg(test)]
mod tests;
