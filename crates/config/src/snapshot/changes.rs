//! What differs between two snapshots, in the terms of those who made something from the older one: hosts whose
//! [`ServiceView`](super::ServiceView) and workloads whose [`WorkloadView`](super::WorkloadView) may be another.
//!
//! It names too much rather than too little: whoever is named looks again and may find nothing new. It costs what differs, and
//! a comparison of the lists of policies by allocation; what two snapshots share is not looked at. Bound: the hosts and
//! workloads of both snapshots.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use rajut_types::{Hostname, Text};

use super::{
    Members, Shared, Snapshot,
    holding::{self, Policy},
    index::same_objects,
};
use crate::model::JwtRule;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The mesh's settings, or which labels of clients matter: nothing that was made before holds.
    pub everything: bool,
    /// Whom the mesh believes: every proxy's own half differs, and no other.
    pub trust: bool,
    /// Whether anything but workloads differs: what stands beside no known workload may be concerned too.
    pub configuration: bool,
    /// Hosts of which some client's view may differ.
    pub hosts: BTreeSet<Hostname>,
    /// (namespace, name) of workloads whose own view may differ.
    pub workloads: BTreeSet<(Text, Text)>,
}

impl Snapshot {
    /// What differs from an older snapshot (or any other).
    pub fn changes_since(&self, older: &Self) -> Changes {
        let mut changes = Changes {
            everything: !Arc::ptr_eq(&self.mesh, &older.mesh)
                || *self.index.asked_labels != *older.index.asked_labels
                || !same_objects(&self.telemetries, &older.telemetries)
                || !same_objects(&self.sidecars, &older.sidecars),
            trust: self.trust != older.trust,
            ..Changes::default()
        };
        let (new, old) = (&self.authorization_policies, &older.authorization_policies);
        self.add_policies(new, old, &mut changes);
        let (new, old) = (&self.rate_limit_policies, &older.rate_limit_policies);
        self.add_policies(new, old, &mut changes);
        let (new, old) = (&self.request_authentications, &older.request_authentications);
        self.add_policies(new, old, &mut changes);
        self.add_keys(older, &mut changes);
        changes.configuration |=
            !same_objects(&self.gateways, &older.gateways) || !same_objects(&self.secrets, &older.secrets);
        if Arc::ptr_eq(&self.index, &older.index) {
            return changes;
        }
        self.add_services(older, &mut changes);
        self.add_rules(older, &mut changes);
        self.add_routes(older, &mut changes);
        self.workloads.differences(&older.workloads, |key, old, new| {
            if !old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                changes.workloads.insert(key.clone());
            }
        });
        self.index.modes.differences(&older.index.modes, |key, old, new| {
            if old != new {
                changes.workloads.insert(key.clone());
            }
        });
        changes.configuration |= !same_objects(&self.peer_authentications, &older.peer_authentications);
        changes
    }

    /// Services, and what stands behind them.
    fn add_services(&self, older: &Self, changes: &mut Changes) {
        let mut renewed = Vec::new();
        self.services.differences(&older.services, |key, old, new| {
            if !old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                changes.hosts.insert(key.0.clone());
                renewed.push(key);
            }
        });
        changes.configuration |= !renewed.is_empty();
        for key in renewed {
            for members in [self.index.members.get(key), older.index.members.get(key)] {
                add_members(members, changes);
            }
        }
        self.index
            .members
            .differences(&older.index.members, |key, old, new| {
                if old != new {
                    changes.hosts.insert(key.0.clone());
                }
            });
    }

    /// Destination rules: the hosts they are for, and the workloads behind those, whose own limits they set.
    fn add_rules(&self, older: &Self, changes: &mut Changes) {
        if Arc::ptr_eq(&self.index.rules, &older.index.rules) {
            return;
        }
        changes.configuration = true;
        let (new, old) = (&self.destination_rules, &older.destination_rules);
        let patterns: BTreeSet<&Hostname> = changed(new, old).map(|rule| &rule.host).collect();
        let hosts = self.covered(&patterns);
        for (key, members) in &self.index.members {
            if patterns.contains(&key.0) || (hosts.len() > patterns.len() && hosts.contains(&key.0)) {
                add_members(Some(members), changes);
            }
        }
        changes.hosts.extend(hosts);
    }

    /// Policies: the workloads that they hold for. One that stands beside no known workload (its labels are its own) may be
    /// concerned, too, which `configuration` says.
    fn add_policies<P: Policy + PartialEq>(&self, new: &[Arc<P>], old: &[Arc<P>], changes: &mut Changes) {
        if same_objects(new, old) {
            return;
        }
        changes.configuration = true;
        let policies: Vec<_> = changed(new, old).collect();
        let root = &self.mesh.root_namespace;
        for (key, workload) in &self.workloads {
            let concerned =
                |policy: &&Arc<P>| holding::holds(&***policy, root, &workload.namespace, &workload.labels);
            if policies.iter().any(concerned) {
                changes.workloads.insert(key.clone());
            }
        }
    }

    /// Key sets: the workloads for which an object holds that names one.
    fn add_keys(&self, older: &Self, changes: &mut Changes) {
        if Arc::ptr_eq(&self.key_sets, &older.key_sets) {
            return;
        }
        changes.configuration = true;
        let renewed = |rule: &JwtRule| self.key_sets.get(&rule.keys) != older.key_sets.get(&rule.keys);
        let objects = self.request_authentications.iter();
        let objects: Vec<_> = objects.filter(|it| it.rules.iter().any(renewed)).collect();
        let root = &self.mesh.root_namespace;
        for (key, workload) in &self.workloads {
            let mut concerned = objects
                .iter()
                .map(|it| holding::holds(&***it, root, &workload.namespace, &workload.labels));
            if concerned.any(|concerned| concerned) {
                changes.workloads.insert(key.clone());
            }
        }
    }

    fn add_routes(&self, older: &Self, changes: &mut Changes) {
        if Arc::ptr_eq(&self.index.virtual_services, &older.index.virtual_services) {
            return;
        }
        changes.configuration = true;
        let (new, old) = (&self.virtual_services, &older.virtual_services);
        let patterns: BTreeSet<&Hostname> = changed(new, old).flat_map(|routes| &routes.hosts).collect();
        changes.hosts.extend(self.covered(&patterns));
    }

    /// The hosts themselves, and of wildcards also the services that they cover.
    fn covered(&self, patterns: &BTreeSet<&Hostname>) -> BTreeSet<Hostname> {
        let mut hosts: BTreeSet<Hostname> = patterns.iter().copied().cloned().collect();
        let wild: Vec<&Hostname> = patterns
            .iter()
            .copied()
            .filter(|host| host.is_wildcard())
            .collect();
        if !wild.is_empty() {
            let services = self.services.keys().map(|(host, _)| host);
            hosts.extend(
                services
                    .filter(|host| wild.iter().any(|pattern| pattern.covers(host)))
                    .cloned(),
            );
        }
        hosts
    }
}

/// What stands in one list and not in the other.
fn changed<'a, T>(new: &'a [Arc<T>], old: &'a [Arc<T>]) -> impl Iterator<Item = &'a Arc<T>> {
    let pointers = |list: &[Arc<T>]| list.iter().map(Arc::as_ptr).collect::<HashSet<*const T>>();
    let (known, left) = (pointers(old), pointers(new));
    let came = new
        .iter()
        .filter(move |object| !known.contains(&Arc::as_ptr(object)));
    came.chain(
        old.iter()
            .filter(move |object| !left.contains(&Arc::as_ptr(object))),
    )
}

fn add_members(members: Option<&Shared<Members>>, changes: &mut Changes) {
    let list = members.into_iter().flat_map(|members| &members.list);
    let keys = list.map(|member| (member.workload.namespace.clone(), member.workload.name.clone()));
    changes.workloads.extend(keys);
}
