//! The indexes of a snapshot: which workloads a service has, which virtual service a host has, which rules and policies
//! hold where. Built in full by [`Index::build`]; [`Index::after_workloads`] recomputes only the services concerned.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use rajut_types::{Hostname, Labels, Principal, Text};

use super::{
    Shared, Snapshot,
    mtls::{EffectiveMtls, PeerPolicies},
    rules::Rules,
    view::{Member, Members},
};
use crate::model::{Service, VirtualService, Visibility, Workload};

/// A service's key in the snapshot: host and namespace.
type ServiceKey = (Hostname, Text);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) members: BTreeMap<ServiceKey, Shared<Members>>,
    pub(super) nobody: Shared<Members>,
    pub(super) rules: Arc<Rules>,
    pub(super) virtual_services: Arc<VirtualServices>,
    /// Label keys of clients that some rule asks about.
    pub(super) asked_labels: Arc<BTreeSet<Text>>,
    peers: Arc<PeerPolicies>,
    modes: BTreeMap<(Text, Text), Shared<EffectiveMtls>>,
    selectors: Arc<Selectors>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            members: BTreeMap::new(),
            nobody: Shared::from(Arc::new(Members::default())),
            rules: Arc::default(),
            virtual_services: Arc::default(),
            asked_labels: Arc::default(),
            peers: Arc::default(),
            modes: BTreeMap::new(),
            selectors: Arc::default(),
        }
    }
}

impl Index {
    pub(super) fn build(snapshot: &Snapshot, previous: &Self) -> Self {
        let peers = PeerPolicies::new(&snapshot.peer_authentications, &snapshot.mesh.root_namespace);
        let modes = snapshot
            .workloads
            .iter()
            .map(|(key, workload)| {
                let mode = peers.of(&workload.namespace, &workload.labels);
                (key.clone(), keep(mode, previous.modes.get(key)))
            })
            .collect();
        let mut index = Self {
            members: BTreeMap::new(),
            nobody: previous.nobody.clone(),
            rules: Arc::new(Rules::new(&snapshot.destination_rules, &previous.rules)),
            virtual_services: Arc::new(VirtualServices::new(&snapshot.virtual_services)),
            asked_labels: Arc::new(asked_labels(snapshot)),
            peers: Arc::new(peers),
            modes,
            selectors: Arc::new(Selectors::new(snapshot)),
        };
        let mut by_label: HashMap<(&str, &str, &str), Vec<&Arc<Workload>>> = HashMap::new();
        for workload in snapshot.workloads.values() {
            for (key, value) in workload.labels.iter() {
                by_label
                    .entry((&*workload.namespace, key, value))
                    .or_default()
                    .push(workload);
            }
        }
        for (key, service) in &snapshot.services {
            let candidates = match anchor(service) {
                Some((label, value)) => by_label
                    .get(&(&*service.namespace, label, value))
                    .map_or(&[][..], Vec::as_slice),
                None => &[],
            };
            let members = index.members_of(snapshot, service, candidates.iter().copied());
            index.put_members(key, members, previous);
        }
        index
    }

    /// As `previous`, with the services of `touched` workloads (old and new forms) looked at again.
    pub(super) fn after_workloads(snapshot: &Snapshot, previous: &Self, touched: &[Arc<Workload>]) -> Self {
        let mut index = previous.clone();
        let mut concerned = BTreeSet::new();
        for workload in touched {
            let key = (workload.namespace.clone(), workload.name.clone());
            match snapshot.workloads.get(&key) {
                Some(now) => {
                    let mode = index.peers.of(&now.namespace, &now.labels);
                    let mode = keep(mode, previous.modes.get(&key));
                    index.modes.insert(key, mode);
                }
                None => {
                    index.modes.remove(&key);
                }
            }
            concerned.extend(previous.selecting(&workload.namespace, &workload.labels).cloned());
        }
        for key in &concerned {
            let Some(service) = snapshot.services.get(key) else {
                continue;
            };
            let start = (service.namespace.clone(), Text::from(""));
            let candidates = snapshot
                .workloads
                .range(start..)
                .take_while(|((namespace, _), _)| *namespace == service.namespace)
                .map(|(_, workload)| workload);
            let members = index.members_of(snapshot, service, candidates);
            index.put_members(key, members, previous);
        }
        index
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

    fn put_members(&mut self, key: &ServiceKey, mut members: Members, previous: &Self) {
        let kept = match previous.members.get(key) {
            Some(known) if **known == members => known.clone(),
            known => {
                if let Some(known) = known.filter(|known| known.principals == members.principals) {
                    members.principals = Arc::clone(&known.principals);
                }
                Shared::from(Arc::new(members))
            }
        };
        self.members.insert(key.clone(), kept);
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

fn keep(mode: Arc<EffectiveMtls>, previous: Option<&Shared<EffectiveMtls>>) -> Shared<EffectiveMtls> {
    match previous {
        Some(previous) if **previous == *mode => previous.clone(),
        _ => Shared::from(mode),
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

/// Label keys that destination rules and virtual services ask of clients.
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
    of_rules
        .chain(of_routes)
        .flat_map(|labels| labels.iter().map(|(key, _)| Text::from(key)))
        .collect()
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
    pub(super) fn find(&self, namespace: &str, host: &Hostname) -> Option<&Arc<VirtualService>> {
        let rank = |vs: &VirtualService| match &vs.export_to {
            Visibility::Namespaces(names)
                if names.iter().all(|name| &**name == namespace) && *vs.namespace == *namespace =>
            {
                0
            }
            Visibility::Namespaces(_) => 1,
            Visibility::All | Visibility::Nobody => 2,
        };
        let visible = |vs: &&Arc<VirtualService>| vs.export_to.includes(namespace);
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
