//! The outbound half of a proxy: clusters, endpoints, route configurations and listeners for everything that its
//! namespace sees. What it makes depends on the client's view, not on the proxy, so that proxies share it.
//!
//! Bounds: as many resources as visible service ports (times subsets); headless services of opaque protocols add a
//! listener per endpoint.

mod bytes;
mod explicit;
mod patch;
mod redirected;

use std::sync::Arc;

use rajut_config::{
    codes,
    model::{LbAlgorithm, Protocol, SubsetRule},
    snapshot::{ClientView, ServiceView},
};
use rajut_ir::{
    NameTable, Names,
    cluster::Cluster,
    endpoint::LoadAssignment,
    listener::Listener,
    route::{HeaderMutations, RouteConfiguration, VirtualHost},
};
use rajut_types::{Diagnostic, Locality, PersistentMap, Severity, Text};

pub(crate) use bytes::{distinct, server_names};
pub(crate) use explicit::add_listeners as add_explicit_listeners;
pub(crate) use patch::patch;
pub(crate) use redirected::{add_listeners as add_redirected_listeners, unknown_chain};

use crate::{
    assignment::{self, AssignmentView},
    cluster::{self, ClusterView},
    dns::{self, NamesView},
    memo::Memo,
    policy::Effective,
    preference::Preference,
    virtual_host::{self, VirtualHostView},
};

/// The outbound half: what all proxies share that see the same. The next version shares what did not change with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outbound {
    /// By name.
    pub listeners: PersistentMap<Text, Arc<Listener>>,
    /// By name.
    pub routes: PersistentMap<Text, Arc<RouteConfiguration>>,
    /// By name.
    pub clusters: PersistentMap<Text, Arc<Cluster>>,
    /// By the cluster's name.
    pub assignments: PersistentMap<Text, Arc<LoadAssignment>>,
    /// For those that answer DNS.
    pub names: Option<Arc<NameTable>>,
    /// What could not be done.
    pub diagnostics: Vec<Diagnostic>,
}

/// Memoised pieces.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    clusters: Memo<ClusterView, Option<Arc<Cluster>>>,
    assignments: Memo<AssignmentView, Arc<LoadAssignment>>,
    virtual_hosts: Memo<VirtualHostView, Arc<VirtualHost>>,
    names: Memo<NamesView, Arc<Names>>,
}

impl Pieces {
    pub(crate) fn turn(&mut self) {
        self.clusters.turn();
        self.assignments.turn();
        self.virtual_hosts.turn();
        self.names.turn();
    }

    /// Pieces made so far.
    pub(crate) fn made(&self) -> u64 {
        self.clusters.made() + self.assignments.made() + self.virtual_hosts.made()
    }

    /// Not counted among the pieces made: they are a small part of one.
    pub(crate) fn names(&mut self, view: NamesView) -> Arc<Names> {
        self.names.find_or_make(view, dns::build)
    }

    pub(crate) fn virtual_host(&mut self, view: VirtualHostView) -> Arc<VirtualHost> {
        self.virtual_hosts
            .find_or_make(view, |view| Arc::new(virtual_host::build(view)))
    }
}

impl Outbound {
    /// Keeps the allocations of `previous` for what is equal, those of its maps too.
    pub(crate) fn keep(&mut self, previous: &Self) {
        keep_equal(&mut self.listeners, &previous.listeners, |a, b| a == b);
        keep_equal(&mut self.routes, &previous.routes, same_table);
        keep_equal(&mut self.clusters, &previous.clusters, |a, b| a == b);
        keep_equal(&mut self.assignments, &previous.assignments, |a, b| a == b);
        if self.names == previous.names {
            self.names.clone_from(&previous.names);
        }
    }

    pub(crate) fn put_cluster(&mut self, cluster: Cluster) {
        self.clusters.insert(cluster.name.clone(), Arc::new(cluster));
    }

    pub(crate) fn put_listener(&mut self, listener: Listener) {
        self.listeners.insert(listener.name.clone(), Arc::new(listener));
    }

    pub(crate) fn put_routes(&mut self, name: Text, virtual_hosts: Vec<Arc<VirtualHost>>) {
        let configuration = RouteConfiguration {
            filters: Vec::new(),
            name: name.clone(),
            virtual_hosts,
            ignore_port_in_host_matching: true,
            headers: HeaderMutations::default(),
        };
        self.routes.insert(name, Arc::new(configuration));
    }
}

/// The previous map with what differs changed in it.
fn keep_equal<T>(
    now: &mut PersistentMap<Text, Arc<T>>,
    previous: &PersistentMap<Text, Arc<T>>,
    same: fn(&T, &T) -> bool,
) {
    let mut kept = previous.clone();
    for name in previous.keys().filter(|name| !now.contains_key(*name)) {
        kept.remove(name);
    }
    for (name, value) in &*now {
        let known = previous.get(name);
        if !known.is_some_and(|known| Arc::ptr_eq(known, value) || same(known, value)) {
            kept.insert(name.clone(), Arc::clone(value));
        }
    }
    *now = kept;
}

/// Virtual hosts that are the same allocation are not compared, a table may have thousands.
fn same_table(a: &RouteConfiguration, b: &RouteConfiguration) -> bool {
    let hosts = a.virtual_hosts.iter().zip(&b.virtual_hosts);
    a.virtual_hosts.len() == b.virtual_hosts.len()
        && hosts
            .into_iter()
            .all(|(own, other)| Arc::ptr_eq(own, other) || own == other)
}

/// Clusters and endpoints of every visible service port and subset.
pub(crate) fn add_clusters(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    redirected: bool,
    locality: &Locality,
) {
    for view in client.services.iter().chain(client.behind.iter()) {
        add_service(out, pieces, client, view, redirected, locality);
    }
}

/// Clusters and endpoints of one service.
fn add_service(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    view: &ServiceView,
    redirected: bool,
    locality: &Locality,
) {
    let subsets = view.rule.as_ref().map_or(&[][..], |rule| rule.subsets.as_slice());
    for port in view
        .service
        .ports
        .iter()
        .filter(|port| port.protocol != Protocol::Udp)
    {
        for subset in std::iter::once(None).chain(subsets.iter().map(Some)) {
            add_cluster(
                out,
                pieces,
                client,
                (view, port.number, subset),
                redirected,
                locality,
            );
        }
    }
}

fn add_cluster(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    (view, port, subset): (&ServiceView, u16, Option<&SubsetRule>),
    redirected: bool,
    locality: &Locality,
) {
    let policy = Effective::new(&client.mesh, view.rule.as_deref(), subset, port);
    let preference = Preference::new(&client.mesh, &view.service, &policy, locality, &client.labels);
    let key = ClusterView::new(&client.mesh, view, port, subset, &preference, redirected);
    let built = pieces
        .clusters
        .find_or_make(key, |view| cluster::outbound(view).map(Arc::new));
    let Some(built) = built else { return };
    out.diagnostics.extend(not_supported(&built, &policy, redirected));
    if cluster::uses_eds(&view.service, &policy.algorithm(), redirected) {
        let key = AssignmentView::new(view, port, subset, preference);
        let assignment = pieces
            .assignments
            .find_or_make(key, |view| Arc::new(assignment::outbound(view)));
        out.assignments.insert(built.name.clone(), assignment);
    }
    out.clusters.insert(built.name.clone(), built);
}

/// Settings of a destination rule that this proxy has no means for.
fn not_supported(cluster: &Cluster, policy: &Effective, redirected: bool) -> Option<Diagnostic> {
    let load_balancer = policy.load_balancer.as_ref()?;
    let (what, hint) = if load_balancer.warmup.is_some() {
        (
            "new endpoints get their full share at once: `warmup` is not supported",
            "leave `warmup` out",
        )
    } else if load_balancer.algorithm == Some(LbAlgorithm::Passthrough) && !redirected {
        (
            "PASSTHROUGH needs redirected traffic; the least loaded endpoint is taken",
            "name an algorithm",
        )
    } else {
        return None;
    };
    let message = format!("{}: {what}", cluster.name);
    Some(
        Diagnostic::new(
            codes::NOT_ON_THIS_PROXY,
            Severity::Warning,
            cluster.origin.clone(),
            message,
        )
        .hint(hint),
    )
}
