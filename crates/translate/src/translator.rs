//! [`Translator`]: translation with its memory.
//!
//! Pure in effect: the same snapshot and proxy give equal resources whatever was translated before; what is remembered
//! only saves the work (and keeps allocations, so that whoever compares finds quickly what changed). Proxies that see
//! the same share their whole outbound half; a new snapshot that changed nothing for them costs one comparison of views.
//!
//! Bounds: two generations of pieces ([`Memo`]), one outbound half per kind of client and one inbound half per proxy
//! that was translated in one of the last two generations.

use std::{collections::HashMap, sync::Arc};

use rajut_config::{
    Snapshot,
    snapshot::{ClientView, WorkloadView},
};
use rajut_ir::Resources;
use rajut_types::{Diagnostic, Labels, Locality, Text};

use crate::{
    cluster, dns, grpc,
    inbound::{self, Inbound, InboundView},
    memo::Memo,
    outbound::{self, Outbound, Pieces},
    proxy::{Capture, ExplicitPort, Proxy, Role},
};

/// What tells one kind of client from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    namespace: Text,
    labels: Labels,
    locality: Locality,
    entry: Entry,
}

/// How a client's connections come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Redirected,
    Explicit(Vec<ExplicitPort>),
    Grpc,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Translator {
    /// The snapshot that was translated last; held so that no other can look like it.
    last: Option<Snapshot>,
    clients: HashMap<(Text, Labels), ClientView>,
    scopes: Memo<Scope, (ClientView, Arc<Outbound>)>,
    inbound: Memo<InboundView, Arc<Inbound>>,
    pieces: Pieces,
}

/// What a proxy runs on, and what could not be done for it. `cache` remembers pieces between calls.
pub fn translate(snapshot: &Snapshot, proxy: &Proxy, cache: &mut Translator) -> (Resources, Vec<Diagnostic>) {
    cache.turn(snapshot);
    let client = cache.client(snapshot, proxy);
    let outbound = cache.outbound(client.clone(), proxy);
    let mut resources = Resources {
        listeners: outbound.listeners.clone(),
        routes: outbound.routes.clone(),
        clusters: outbound.clusters.clone(),
        assignments: outbound.assignments.clone(),
        secrets: std::collections::BTreeMap::new(),
        names: outbound.names.clone(),
    };
    match proxy.role {
        Role::Sidecar => {
            let workload = snapshot.workload_view(&proxy.namespace, &proxy.workload, &proxy.labels);
            cache.add_own(&mut resources, &client, workload, proxy);
        }
        Role::Grpc => {
            let workload = snapshot.workload_view(&proxy.namespace, &proxy.workload, &proxy.labels);
            grpc::add_servers(&mut resources, &workload, proxy);
        }
        Role::HostGateway => {}
    }
    (resources, outbound.diagnostics.clone())
}

impl Translator {
    /// Starts a new generation where the snapshot is another than the last.
    fn turn(&mut self, snapshot: &Snapshot) {
        let same = |last: &Snapshot| last.identity() == snapshot.identity();
        if self.last.as_ref().is_some_and(same) {
            return;
        }
        self.last = Some(snapshot.clone());
        self.clients.clear();
        self.scopes.turn();
        self.inbound.turn();
        self.pieces.turn();
    }

    fn client(&mut self, snapshot: &Snapshot, proxy: &Proxy) -> ClientView {
        let labels = snapshot.asked_labels(&proxy.labels);
        self.clients
            .entry((proxy.namespace.clone(), labels))
            .or_insert_with_key(|(namespace, labels)| snapshot.client_view(namespace, labels))
            .clone()
    }

    /// The outbound half of a proxy, shared with all that see the same.
    fn outbound(&mut self, client: ClientView, proxy: &Proxy) -> Arc<Outbound> {
        let scope = Scope {
            namespace: client.namespace.clone(),
            labels: client.labels.clone(),
            locality: proxy.locality.clone(),
            entry: match (&proxy.role, &proxy.capture) {
                (Role::Grpc, _) => Entry::Grpc,
                (_, Capture::Explicit { outbound, .. }) => Entry::Explicit(outbound.clone()),
                (Role::HostGateway, _) => Entry::Explicit(Vec::new()),
                (Role::Sidecar, Capture::Redirect | Capture::Netns { .. }) => Entry::Redirected,
            },
        };
        let known = self.scopes.take(&scope);
        if let Some((view, outbound)) = &known
            && *view == client
        {
            let outbound = Arc::clone(outbound);
            self.scopes.put(scope, (client, Arc::clone(&outbound)));
            return outbound;
        }
        let mut made = build_outbound(&mut self.pieces, &client, &scope);
        if let Some((_, previous)) = &known {
            made.keep(previous);
        }
        let made = Arc::new(made);
        self.scopes.put(scope, (client, Arc::clone(&made)));
        made
    }

    /// What is a sidecar's own: the capturing listener, the inbound half, the clusters of unknown traffic.
    fn add_own(
        &mut self,
        resources: &mut Resources,
        client: &ClientView,
        workload: WorkloadView,
        proxy: &Proxy,
    ) {
        let netns = match &proxy.capture {
            Capture::Redirect => Some(None),
            Capture::Netns { path, .. } => Some(Some(path)),
            Capture::Explicit { .. } => None,
        };
        if let Some(netns) = netns {
            let unknown = outbound::unknown_chain(&client.mesh);
            let listener = inbound::capture(&client.mesh, netns, unknown);
            resources
                .listeners
                .insert(listener.name.clone(), Arc::new(listener));
        }
        if let Some(view) = InboundView::new(workload, proxy) {
            let inbound = self
                .inbound
                .find_or_make(view, |view| Arc::new(inbound::build(view)));
            for listener in &inbound.listeners {
                resources
                    .listeners
                    .insert(listener.name.clone(), Arc::clone(listener));
            }
            for cluster in &inbound.clusters {
                resources
                    .clusters
                    .insert(cluster.name.clone(), Arc::clone(cluster));
            }
        }
    }
}

fn build_outbound(pieces: &mut Pieces, client: &ClientView, scope: &Scope) -> Outbound {
    let mut out = Outbound::default();
    match &scope.entry {
        Entry::Grpc => {
            grpc::add_clients(&mut out, pieces, client);
            return out;
        }
        Entry::Redirected => {
            outbound::add_clusters(&mut out, pieces, client, true, &scope.locality);
            outbound::add_redirected_listeners(&mut out, pieces, client);
            out.put_cluster(cluster::passthrough(&client.mesh));
            out.put_cluster(cluster::black_hole(&client.mesh));
            out.names = Some(Arc::new(dns::table(client)));
        }
        Entry::Explicit(ports) => {
            outbound::add_clusters(&mut out, pieces, client, false, &scope.locality);
            outbound::add_explicit_listeners(&mut out, pieces, client, ports);
        }
    }
    out
}
