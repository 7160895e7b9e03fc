//! [`Translator`]: translation with its memory.
//!
//! ```text
//!  turn(snapshot) ─► what differs from the last one (Changes)
//!  outbound(scope) ─► nothing of it seen? as it was · few services? patched · else built anew from memoised pieces
//!  own(proxy) ─► the inbound half, memoised by its view
//! ```
//!
//! Pure in effect: the same snapshot and proxy give equal resources whatever was translated before; what is remembered
//! only saves the work (and keeps allocations, so that whoever compares finds quickly what changed). Proxies that see
//! the same share their whole outbound half.
//!
//! Bounds: one outbound half per [`Scope`] that the last two snapshots were asked for; pieces as long as a half uses them
//! ([`Memo`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rajut_config::{
    Snapshot,
    snapshot::{Changes, ClientView, ServiceView, WorkloadView},
};
use rajut_ir::Resources;
use rajut_types::{Diagnostic, Labels, Locality, PersistentMap, Text};

use crate::{
    access_log, cluster, dns, gateway, grpc,
    inbound::{self, Inbound, InboundView},
    memo::Memo,
    outbound::{self, Outbound, Pieces},
    proxy::{Capture, ExplicitPort, Proxy, Role},
    stats, tls,
    tracing::{self, Teller},
};

/// What tells one kind of client from another: proxies of one scope share their outbound half. Holds for snapshots among
/// which [`Changes::everything`] is not said.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    namespace: Text,
    labels: Labels,
    locality: Locality,
    entry: Entry,
    /// A Sidecar may limit what it sees.
    limited: bool,
    /// Its listeners count Istio's metrics.
    counts: bool,
    /// Whose spans its listeners make, where the mesh traces.
    teller: Option<Teller>,
}

/// How a client's connections come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Redirected,
    Explicit(Vec<ExplicitPort>),
    Grpc,
}

/// So many inbound halves are remembered from one round to the next.
const INBOUND_KEPT: usize = 64;

/// What is remembered of a scope.
#[derive(Debug)]
struct Known {
    /// Of which turn it is.
    turn: u64,
    view: ClientView,
    outbound: Arc<Outbound>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Translator {
    /// The snapshot that is translated; held so that no other can look like it.
    last: Option<Snapshot>,
    /// What differs between it and the one before.
    changes: Arc<Changes>,
    /// Counts snapshots.
    turn: u64,
    scopes: HashMap<Scope, Known>,
    inbound: Memo<InboundView, Arc<Inbound>>,
    pieces: Pieces,
    /// Outbound halves that were built anew, and that were patched.
    built: u64,
    patched: u64,
}

/// What a proxy runs on, and what could not be done for it. `cache` remembers pieces between calls.
pub fn translate(snapshot: &Snapshot, proxy: &Proxy, cache: &mut Translator) -> (Resources, Vec<Diagnostic>) {
    cache.turn(snapshot);
    let scope = cache.scope(snapshot, proxy);
    let outbound = cache.outbound(snapshot, &scope);
    let mut resources = Resources {
        listeners: plain(&outbound.listeners),
        routes: plain(&outbound.routes),
        clusters: plain(&outbound.clusters),
        assignments: plain(&outbound.assignments),
        secrets: BTreeMap::new(),
        names: outbound.names.clone(),
    };
    let own = cache.own(snapshot, proxy);
    resources.listeners.extend(own.listeners);
    resources.routes.extend(own.routes);
    resources.clusters.extend(own.clusters);
    resources.assignments.extend(own.assignments);
    resources.secrets.extend(own.secrets);
    (resources, outbound.diagnostics.clone())
}

fn plain<T>(map: &PersistentMap<Text, Arc<T>>) -> BTreeMap<Text, Arc<T>> {
    map.iter()
        .map(|(name, value)| (name.clone(), Arc::clone(value)))
        .collect()
}

impl Translator {
    /// From now on `snapshot` is translated. Gives what differs from the one before.
    pub fn turn(&mut self, snapshot: &Snapshot) -> Arc<Changes> {
        match &self.last {
            Some(last) if last.identity() == snapshot.identity() => return Arc::default(),
            Some(last) => self.changes = Arc::new(snapshot.changes_since(last)),
            None => {
                self.changes = Arc::new(Changes {
                    everything: true,
                    ..Changes::default()
                });
            }
        }
        self.last = Some(snapshot.clone());
        let unused = self.turn.saturating_sub(1);
        self.scopes.retain(|_, known| known.turn >= unused);
        self.turn += 1;
        self.inbound.turn();
        self.pieces.turn();
        Arc::clone(&self.changes)
    }

    /// A round is over: whoever asked for inbound halves has encoded them, and they are not held for the next round, in which few
    /// are asked for again. Of a thousand proxies they were 10 MB.
    pub fn rest(&mut self) {
        self.inbound.trim(INBOUND_KEPT);
    }

    /// Generator calls so far: pieces made, halves built.
    pub fn made(&self) -> u64 {
        self.pieces.made() + self.inbound.made() + self.built
    }

    /// Outbound halves that were patched so far, which costs no more than the pieces that were made.
    pub fn patched(&self) -> u64 {
        self.patched
    }

    /// The kind of client that a proxy is.
    pub fn scope(&self, snapshot: &Snapshot, proxy: &Proxy) -> Scope {
        Scope {
            namespace: proxy.namespace.clone(),
            labels: snapshot.asked_labels(&proxy.labels),
            locality: proxy.locality.clone(),
            counts: stats::counts(proxy),
            teller: Teller::of(snapshot, proxy),
            limited: matches!(proxy.role, Role::Sidecar | Role::Grpc),
            entry: match (&proxy.role, &proxy.capture) {
                (Role::Grpc, _) => Entry::Grpc,
                (_, Capture::Explicit { outbound, .. }) => Entry::Explicit(outbound.clone()),
                (Role::HostGateway | Role::Gateway, _) => Entry::Explicit(Vec::new()),
                (Role::Sidecar, Capture::Redirect | Capture::Netns { .. }) => Entry::Redirected,
            },
        }
    }

    /// The outbound half of a scope, in the snapshot of the last [`Translator::turn`].
    pub fn outbound(&mut self, snapshot: &Snapshot, scope: &Scope) -> Arc<Outbound> {
        let Some(mut known) = self.scopes.remove(scope) else {
            let view = snapshot.client_view(&scope.namespace, &scope.labels, scope.limited);
            let outbound = Arc::new(self.build(&view, scope));
            return self.remember(scope, view, outbound);
        };
        if known.turn == self.turn {
            let outbound = Arc::clone(&known.outbound);
            self.scopes.insert(scope.clone(), known);
            return outbound;
        }
        let changes = Arc::clone(&self.changes);
        let usable = known.turn + 1 == self.turn && !changes.everything;
        let changed = usable
            .then(|| renew(&mut known.view, snapshot, scope, &changes))
            .flatten();
        if let Some(changed) = changed {
            if changed.is_empty() {
                return self.remember(scope, known.view, known.outbound);
            }
            let redirected = match scope.entry {
                Entry::Redirected => Some(true),
                Entry::Explicit(_) => Some(false),
                Entry::Grpc => None,
            };
            let patched = redirected.and_then(|redirected| {
                let (pieces, view) = (&mut self.pieces, &known.view);
                outbound::patch(
                    &known.outbound,
                    pieces,
                    view,
                    &changed,
                    redirected,
                    &scope.locality,
                )
            });
            if let Some(outbound) = patched {
                self.patched += 1;
                return self.remember(scope, known.view, Arc::new(outbound));
            }
        } else {
            let view = snapshot.client_view(&scope.namespace, &scope.labels, scope.limited);
            if view == known.view {
                return self.remember(scope, known.view, known.outbound);
            }
            known.view = view;
        }
        let mut made = self.build(&known.view, scope);
        made.keep(&known.outbound);
        self.remember(scope, known.view, Arc::new(made))
    }

    fn remember(&mut self, scope: &Scope, view: ClientView, outbound: Arc<Outbound>) -> Arc<Outbound> {
        let known = Known {
            turn: self.turn,
            view,
            outbound: Arc::clone(&outbound),
        };
        self.scopes.insert(scope.clone(), known);
        outbound
    }

    fn build(&mut self, client: &ClientView, scope: &Scope) -> Outbound {
        self.built += 1;
        build_outbound(&mut self.pieces, client, scope)
    }

    /// What is a proxy's alone: its inbound half, the listener that captures, and whom the mesh believes (alike for all, but
    /// told as a secret, of which each has its own).
    pub fn own(&mut self, snapshot: &Snapshot, proxy: &Proxy) -> Resources {
        let mut resources = self.own_half(snapshot, proxy);
        if let Some(trust) = &snapshot.trust {
            let secret = tls::mesh_roots(trust);
            resources.secrets.insert(secret.name.clone(), Arc::new(secret));
        }
        resources
    }

    fn own_half(&mut self, snapshot: &Snapshot, proxy: &Proxy) -> Resources {
        let mut resources = Resources::default();
        let workload = || snapshot.workload_view(&proxy.namespace, &proxy.workload, &proxy.labels);
        match proxy.role {
            Role::Sidecar => {
                let teller = Teller::of(snapshot, proxy);
                self.add_own(&mut resources, workload(), proxy, teller);
            }
            Role::Grpc => grpc::add_servers(&mut resources, &workload(), proxy),
            Role::Gateway => {
                let account = proxy.principal.service_account();
                let view = snapshot.gateway_view(&proxy.namespace, &proxy.workload, account);
                if let Some(view) = view {
                    let teller = Teller::of(snapshot, proxy);
                    return gateway::build(&view, stats::counts(proxy), teller.as_ref());
                }
            }
            Role::HostGateway => {}
        }
        resources
    }

    /// What is a sidecar's own: the capturing listener, the inbound half, the clusters of unknown traffic.
    fn add_own(
        &mut self,
        resources: &mut Resources,
        workload: WorkloadView,
        proxy: &Proxy,
        teller: Option<Teller>,
    ) {
        let netns = match &proxy.capture {
            Capture::Redirect => Some(None),
            Capture::Netns { path, .. } => Some(Some(path)),
            Capture::Explicit { .. } => None,
        };
        if let Some(netns) = netns {
            let unknown = outbound::unknown_chain(&workload.mesh);
            let listener = inbound::capture(&workload.mesh, netns, unknown);
            let mut listener = Arc::new(listener);
            listener = access_log::observe(&listener, &workload.observed, &workload.mesh.redaction);
            if stats::counts(proxy) {
                listener = stats::observe(&listener, &workload.observed.metrics);
            }
            resources.listeners.insert(listener.name.clone(), listener);
        }
        if let Some(view) = InboundView::new(workload, proxy, teller) {
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

/// Brings a view to `snapshot`, of which only `changes` may differ. Gives the services that do, in both versions; `None` where
/// one came or went (the view is then of neither snapshot).
fn renew(
    view: &mut ClientView,
    snapshot: &Snapshot,
    scope: &Scope,
    changes: &Changes,
) -> Option<Vec<(ServiceView, ServiceView)>> {
    let mut changed = Vec::new();
    let mut positions = Vec::new();
    for host in &changes.hosts {
        let position = view
            .services
            .binary_search_by(|known| known.service.host.cmp(host));
        let now = snapshot.service_of(host, &scope.namespace, &scope.labels, scope.limited);
        match (position, now) {
            (Ok(position), Some(now)) => {
                let old = view.services.get(position)?;
                if *old != now {
                    // Other routes may lead to other services that are not seen themselves.
                    if view.sidecar.is_some() && old.virtual_service != now.virtual_service {
                        return None;
                    }
                    changed.push((old.clone(), now));
                    positions.push(position);
                }
            }
            // Reached by routes alone, or to be: the few of a limited view are found anew.
            (Err(_), None) if view.sidecar.is_some() && view.sends_to(host) => return None,
            // No service: then maybe routes without one.
            (Err(_), None) => {
                let known = view
                    .unserved
                    .iter()
                    .find(|(known, _)| known == host)
                    .map(|(_, vs)| vs);
                let routes = snapshot.routes_of(host, &scope.namespace, &scope.labels, scope.limited);
                if routes.as_ref() != known {
                    return None;
                }
            }
            _ => return None,
        }
    }
    if !changed.is_empty() {
        let services = Arc::make_mut(&mut view.services);
        for (position, (_, now)) in positions.into_iter().zip(&changed) {
            *services.get_mut(position)? = now.clone();
        }
    }
    Some(changed)
}

fn build_outbound(pieces: &mut Pieces, client: &ClientView, scope: &Scope) -> Outbound {
    let mut out = Outbound::default();
    match &scope.entry {
        Entry::Grpc => {
            grpc::add_clients(&mut out, pieces, client, &scope.locality);
            return out;
        }
        Entry::Redirected => {
            outbound::add_clusters(&mut out, pieces, client, true, &scope.locality);
            outbound::add_redirected_listeners(&mut out, pieces, client);
            out.put_cluster(cluster::passthrough(&client.mesh));
            out.put_cluster(cluster::black_hole(&client.mesh));
            out.names = Some(Arc::new(dns::table(client, pieces)));
        }
        Entry::Explicit(ports) => {
            outbound::add_clusters(&mut out, pieces, client, false, &scope.locality);
            outbound::add_explicit_listeners(&mut out, pieces, client, ports);
        }
    }
    let observe = |listener: &Arc<_>| {
        let logged = access_log::observe(listener, &client.observed, &client.mesh.redaction);
        let logged = tracing::observe(&logged, &client.observed, scope.teller.as_ref(), &client.mesh);
        if scope.counts {
            stats::observe(&logged, &client.observed.metrics)
        } else {
            logged
        }
    };
    out.listeners = out
        .listeners
        .iter()
        .map(|(name, listener)| (name.clone(), observe(listener)))
        .collect();
    out
}
