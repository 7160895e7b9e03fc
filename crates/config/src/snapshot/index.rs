//! The indexes of a snapshot: which workloads a service has, which virtual service a host has, which rules and policies
//! hold where. [`Index::after`] makes the next one from the previous: it recomputes what the differences between the two snapshots
//! concern, and shares the rest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use rajut_types::{Hostname, Labels, PersistentMap, Principal, Text};

use super::{
    Shared, Snapshot,
    mtls::{EffectiveMtls, PeerPolicies},
    rules::Rules,
    sidecar::Settings,
    view::{Member, Members},
};
use crate::model::{
    DestinationRule, LocalitySetting, Service, Sidecar, VirtualService, Visibility, Workload,
};

/// A service's key in the snapshot: host and namespace.
pub(super) type ServiceKey = (Hostname, Text);

/// A workload's: namespace and name.
pub(super) type WorkloadKey = (Text, Text);

/// From so many services on, workloads are looked up in an index made for the purpose.
const MANY: usize = 32;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) members: PersistentMap<ServiceKey, Shared<Members>>,
    pub(super) nobody: Shared<Members>,
    pub(super) rules: Arc<Rules>,
    pub(super) virtual_services: Arc<VirtualServices>,
    /// Label keys of clients that some rule asks about.
    pub(super) asked_labels: Arc<BTreeSet<Text>>,
    peers: Arc<PeerPolicies>,
    pub(super) modes: PersistentMap<WorkloadKey, Shared<EffectiveMtls>>,
    selectors: Arc<Selectors>,
    /// The mesh's settings under each Sidecar.
    pub(super) settings: Arc<Settings>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            members: PersistentMap::default(),
            nobody: Shared::from(Arc::new(Members::default())),
            rules: Arc::default(),
            virtual_services: Arc::default(),
            asked_labels: Arc::default(),
            peers: Arc::default(),
            modes: PersistentMap::default(),
            selectors: Arc::default(),
            settings: Arc::default(),
        }
    }
}

impl Index {
    /// The index of `snapshot`, which follows `before`. Equal to one made from nothing, whatever was before.
    pub(super) fn after(snapshot: &Snapshot, before: &Snapshot) -> Self {
        let previous = &*before.index;
        let mut index = previous.clone();
        if !same_objects(&snapshot.destination_rules, &before.destination_rules) {
            index.rules = Arc::new(Rules::new(&snapshot.destination_rules, &previous.rules));
        }
        let routes_changed = !same_objects(&snapshot.virtual_services, &before.virtual_services);
        if routes_changed {
            index.virtual_services = Arc::new(VirtualServices::new(&snapshot.virtual_services));
        }
        let sidecars_changed = !same_objects(&snapshot.sidecars, &before.sidecars);
        if sidecars_changed || !Arc::ptr_eq(&snapshot.mesh, &before.mesh) {
            index.settings = Arc::new(Settings::new(
                &snapshot.sidecars,
                &snapshot.mesh,
                &previous.settings,
            ));
        }
        if routes_changed
            || sidecars_changed
            || snapshot.mesh.locality != before.mesh.locality
            || !same_objects(&snapshot.destination_rules, &before.destination_rules)
            || !same_objects(&snapshot.telemetries, &before.telemetries)
        {
            let asked = asked_labels(snapshot);
            if asked != *index.asked_labels {
                index.asked_labels = Arc::new(asked);
            }
        }
        if !snapshot.services.is_same(&before.services) {
            index.selectors = Arc::new(Selectors::new(snapshot));
        }
        let touched = index.renew_modes(snapshot, before);
        index.renew_members(snapshot, before, &touched);
        index
    }

    /// The modes of all workloads. Gives the workloads, in their old and new forms, that differ or whose mode does.
    fn renew_modes(&mut self, snapshot: &Snapshot, before: &Snapshot) -> Vec<Arc<Workload>> {
        let root = &snapshot.mesh.root_namespace;
        let policies_changed = *root != before.mesh.root_namespace
            || !same_objects(&snapshot.peer_authentications, &before.peer_authentications);
        let mut touched = Vec::new();
        let mut again: BTreeSet<&WorkloadKey> = BTreeSet::new();
        snapshot
            .workloads
            .differences(&before.workloads, |key, old, new| {
                if old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                    return;
                }
                touched.extend(old.into_iter().chain(new).cloned());
                again.insert(key);
            });
        if policies_changed {
            self.peers = Arc::new(PeerPolicies::new(&snapshot.peer_authentications, root));
            let namespaces = namespaces_of_changed(snapshot, before);
            match namespaces {
                Some(namespaces) => {
                    for namespace in namespaces {
                        again.extend(in_namespace(snapshot, &namespace).map(|(key, _)| key));
                    }
                }
                None => again.extend(snapshot.workloads.keys()),
            }
        }
        for key in again {
            let Some(now) = snapshot.workloads.get(key) else {
                self.modes.remove(key);
                continue;
            };
            let mode = self.peers.of(&now.namespace, &now.labels);
            if self.modes.get(key).is_none_or(|known| **known != *mode) {
                self.modes.insert(key.clone(), Shared::from(mode));
                touched.push(Arc::clone(now));
            }
        }
        touched
    }

    /// The workloads behind the services that changed themselves or select one of the touched ones.
    fn renew_members(&mut self, snapshot: &Snapshot, before: &Snapshot, touched: &[Arc<Workload>]) {
        let mut concerned: BTreeSet<ServiceKey> = BTreeSet::new();
        if snapshot.mesh.trust_domain == before.mesh.trust_domain {
            snapshot.services.differences(&before.services, |key, old, new| {
                if !old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                    concerned.insert(key.clone());
                }
            });
        } else {
            concerned.extend(snapshot.services.keys().chain(before.services.keys()).cloned());
        }
        for workload in touched {
            concerned.extend(self.selecting(&workload.namespace, &workload.labels).cloned());
        }
        let by_label = (concerned.len() >= MANY).then(|| ByLabel::new(snapshot));
        for key in &concerned {
            let Some(service) = snapshot.services.get(key) else {
                self.members.remove(key);
                continue;
            };
            let members = if let Some(by_label) = &by_label {
                self.members_of(snapshot, service, by_label.candidates(service))
            } else {
                let all = in_namespace(snapshot, &service.namespace).map(|(_, workload)| workload);
                self.members_of(snapshot, service, all)
            };
            self.put_members(key, members);
        }
    }

    /// The workloads of `candidates` that the service selects.
    fn members_of<'a>(
        &self,
        snapshot: &Snapshot,
        service: &Service,
        candidates: impl Iterator<Item = &'a Arc<Workload>>,
    ) -> Members {
        let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            return Members {
                list: Vec::new(),
                principals: principals(snapshot, service, &[]),
            };
        };
        let list: Vec<Member> = candidates
            .filter(|workload| workload.labels.matches(selector))
            .map(|workload| Member {
                workload: Arc::clone(workload),
                mtls: Arc::clone(
                    self.mtls_of(&workload.namespace, &workload.name, &workload.labels)
                        .arc(),
                ),
            })
            .collect();
        let principals = principals(snapshot, service, &list);
        Members { list, principals }
    }

    fn put_members(&mut self, key: &ServiceKey, mut members: Members) {
        if let Some(known) = self.members.get(key) {
            if **known == members {
                return;
            }
            if known.principals == members.principals {
                members.principals = Arc::clone(&known.principals);
            }
        }
        self.members.insert(key.clone(), Shared::from(Arc::new(members)));
    }

    /// The modes of a workload; computed where it is not known (yet).
    pub(super) fn mtls_of(&self, namespace: &str, name: &str, labels: &Labels) -> Shared<EffectiveMtls> {
        match self.modes.get(&(Text::from(namespace), Text::from(name))) {
            Some(mode) => mode.clone(),
            None => Shared::from(self.peers.of(namespace, labels)),
        }
    }

    /// The services of a namespace whose selector takes these labels.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a ServiceKey> {
        labels.iter().flat_map(move |(label, value)| {
            self.selectors
                .0
                .get(&(Text::from(namespace), Text::from(label), Text::from(value)))
                .into_iter()
                .flatten()
                .filter(|(_, selector)| labels.matches(selector))
                .map(|(key, _)| key)
        })
    }
}

/// Whether both lists are of the same allocations.
pub(super) fn same_objects<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The workloads of a namespace.
fn in_namespace<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
) -> impl Iterator<Item = (&'a WorkloadKey, &'a Arc<Workload>)> {
    let namespace = Text::from(namespace);
    let start = (Text::clone(&namespace), Text::from(""));
    snapshot
        .workloads
        .range_from(&start)
        .take_while(move |((found, _), _)| *found == namespace)
}

/// The namespaces in which some peer authentication differs; `None`: one of the root namespace does, which is everywhere.
fn namespaces_of_changed(snapshot: &Snapshot, before: &Snapshot) -> Option<BTreeSet<Text>> {
    let root = &snapshot.mesh.root_namespace;
    if *root != before.mesh.root_namespace {
        return None;
    }
    let mut namespaces = BTreeSet::new();
    for (these, those) in [
        (&snapshot.peer_authentications, &before.peer_authentications),
        (&before.peer_authentications, &snapshot.peer_authentications),
    ] {
        let known: HashSet<*const _> = those.iter().map(Arc::as_ptr).collect();
        for policy in these
            .iter()
            .filter(|policy| !known.contains(&Arc::as_ptr(policy)))
        {
            if policy.namespace == *root {
                return None;
            }
            namespaces.insert(policy.namespace.clone());
        }
    }
    Some(namespaces)
}

/// Workloads by namespace and label, for a look-up of many services.
struct ByLabel<'a>(HashMap<(&'a str, &'a str, &'a str), Vec<&'a Arc<Workload>>>);

impl<'a> ByLabel<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut by_label: HashMap<_, Vec<&Arc<Workload>>> = HashMap::new();
        for workload in snapshot.workloads.values() {
            for (key, value) in workload.labels.iter() {
                by_label
                    .entry((&*workload.namespace, key, value))
                    .or_default()
                    .push(workload);
            }
        }
        Self(by_label)
    }

    fn candidates(&self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Workload>> {
        let found =
            anchor(service).and_then(|(label, value)| self.0.get(&(&*service.namespace, label, value)));
        found.into_iter().flatten().copied()
    }
}

fn principals(snapshot: &Snapshot, service: &Service, list: &[Member]) -> Arc<[Principal]> {
    let domain = &snapshot.mesh.trust_domain;
    let selected = list
        .iter()
        .filter(|member| member.workload.mesh)
        .map(|member| member.workload.principal(domain));
    let given = service
        .endpoints
        .iter()
        .filter(|endpoint| !endpoint.service_account.is_empty())
        .map(|endpoint| Principal::new(domain, &service.namespace, &endpoint.service_account));
    selected
        .chain(given)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// One label of a service's selector, under which workloads are looked up.
fn anchor(service: &Service) -> Option<(&str, &str)> {
    service.selector.as_ref()?.iter().next()
}

/// (namespace, label, value) → the services whose selector has that label as its anchor.
#[derive(Debug, Default)]
struct Selectors(BTreeMap<(Text, Text, Text), Vec<(ServiceKey, Labels)>>);

impl Selectors {
    fn new(snapshot: &Snapshot) -> Self {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, service) in &snapshot.services {
            if let (Some((label, value)), Some(selector)) = (anchor(service), &service.selector) {
                found
                    .entry((service.namespace.clone(), label.into(), value.into()))
                    .or_default()
                    .push((key.clone(), selector.clone()));
            }
        }
        Self(found)
    }
}

/// Label keys that destination rules, virtual services and telemetries ask of clients.
fn asked_labels(snapshot: &Snapshot) -> BTreeSet<Text> {
    let of_rules = snapshot
        .destination_rules
        .iter()
        .filter_map(|rule| rule.workload_selector.as_ref());
    let of_routes = snapshot.virtual_services.iter().flat_map(|vs| {
        let http = vs
            .http
            .iter()
            .flat_map(|route| &route.matches)
            .map(|m| &m.source_labels);
        let tls = vs
            .tls
            .iter()
            .flat_map(|route| &route.matches)
            .map(|m| &m.l4.source_labels);
        let tcp = vs
            .tcp
            .iter()
            .flat_map(|route| &route.matches)
            .map(|m| &m.source_labels);
        http.chain(tls).chain(tcp)
    });
    let policies = |rule: &'_ Arc<DestinationRule>| {
        let levels = std::iter::once(&rule.policy).chain(rule.subsets.iter().map(|subset| &subset.policy));
        levels
            .flat_map(|policy| std::iter::once(policy).chain(policy.ports.iter().map(|(_, entry)| entry)))
            .filter_map(|policy| policy.load_balancer.as_ref()?.locality.as_ref())
            .flat_map(failover_labels)
            .cloned()
            .collect::<Vec<_>>()
    };
    let near = snapshot.destination_rules.iter().flat_map(policies);
    let near = near.chain(failover_labels(&snapshot.mesh.locality).cloned());
    let of_telemetries = snapshot
        .telemetries
        .iter()
        .filter_map(|one| one.selector.as_ref());
    let of_sidecars = snapshot.sidecars.iter().filter_map(|one| one.selector.as_ref());
    of_rules
        .chain(of_routes)
        .chain(of_sidecars)
        .chain(of_telemetries)
        .flat_map(|labels| labels.iter().map(|(key, _)| Text::from(key)))
        .chain(near)
        .collect()
}

/// The labels of which a client's own value says what is near.
fn failover_labels(setting: &LocalitySetting) -> impl Iterator<Item = &Text> {
    let labels = match setting {
        LocalitySetting::Failover(failover) => failover.labels.as_slice(),
        LocalitySetting::Off | LocalitySetting::Nearest | LocalitySetting::Distribute(_) => &[],
    };
    labels
        .iter()
        .filter(|(_, value)| value.is_none())
        .map(|(key, _)| key)
}

/// Virtual services of the mesh by host.
#[derive(Debug, Default)]
pub(super) struct VirtualServices {
    exact: BTreeMap<Hostname, Vec<Arc<VirtualService>>>,
    /// Longest host first, then by age.
    wildcard: Vec<(Hostname, Arc<VirtualService>)>,
}

impl VirtualServices {
    fn new(sorted: &[Arc<VirtualService>]) -> Self {
        let mut exact: BTreeMap<Hostname, Vec<Arc<VirtualService>>> = BTreeMap::new();
        let mut wildcard = Vec::new();
        for vs in sorted {
            let of_mesh = vs.gateways.is_empty() || vs.gateways.iter().any(|gateway| &**gateway == "mesh");
            if !of_mesh {
                continue;
            }
            for host in &vs.hosts {
                exact.entry(host.clone()).or_default().push(Arc::clone(vs));
                if host.is_wildcard() {
                    wildcard.push((host.clone(), Arc::clone(vs)));
                }
            }
        }
        wildcard.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
        Self { exact, wildcard }
    }

    /// All hosts that some virtual service claims.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.exact.keys()
    }

    /// The one virtual service of a host for clients of a namespace: the most specific host; then private to the
    /// namespace, exported to it by name, public; then the oldest.
    pub(super) fn find(
        &self,
        namespace: &str,
        host: &Hostname,
        sidecar: Option<&Sidecar>,
    ) -> Option<&Arc<VirtualService>> {
        let rank = |vs: &VirtualService| match &vs.export_to {
            Visibility::Namespaces(names)
                if names.iter().all(|name| &**name == namespace) && *vs.namespace == *namespace =>
            {
                0
            }
            Visibility::Namespaces(_) => 1,
            Visibility::All | Visibility::Nobody => 2,
        };
        let visible = |vs: &&Arc<VirtualService>| {
            vs.export_to.includes(namespace) && sidecar.is_none_or(|sidecar| sidecar.follows(vs))
        };
        let exact = self
            .exact
            .get(host)
            .and_then(|list| list.iter().filter(visible).min_by_key(|vs| rank(vs)));
        exact.or_else(|| {
            self.wildcard
                .iter()
                .filter(|(pattern, vs)| pattern.covers(host) && visible(&vs))
                .min_by_key(|(pattern, vs)| (std::cmp::Reverse(pattern.as_str().len()), rank(vs)))
                .map(|(_, vs)| vs)
        })
    }
}
