//! One round of pushing: what a snapshot means for the scopes and the proxies, then who must hear of it.
//!
//! ```text
//!  Changes ─► scopes: patch, encode what is new ─► changed names ─► interests ─► wake
//!         └─► proxies beside changed workloads: their own half ────► changed names ──┘
//! ```
//!
//! Runs on a thread of its own, one round at a time, and holds the lock only to read who is there and to publish: streams go on
//! meanwhile. A round costs a look-up per scope and what changed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rajut_config::{Snapshot, snapshot::Changes};
use rajut_ir::Resources;
use rajut_runtime::readiness::Readiness;
use rajut_translate::{DataPlane, Outbound, Proxy, Role, Scope, Translator};
use rajut_types::Text;
use rajut_xds::server::interests::StreamId;
use tokio::{
    sync::watch,
    time::{Instant, interval_at},
};

use super::{CATCH_UP, Discovery, Kind, PATIENCE, QUIET, State, Work};
use crate::wire::{Changed, Encoder, Layers};

pub(super) fn spawn(discovery: Discovery, snapshots: watch::Receiver<Arc<Snapshot>>, ready: Readiness) {
    tokio::spawn(async move {
        ready.ready().await;
        push_for_ever(discovery, snapshots).await;
    });
}

struct Pusher {
    discovery: Discovery,
    translator: Translator,
    encoder: Encoder,
    /// What was encoded of each scope. As many as are in use.
    known: HashMap<Arc<Scope>, Encoded>,
}

/// A scope's half, and its encoded form.
#[derive(Default)]
struct Encoded {
    outbound: Arc<Outbound>,
    layers: Layers,
}

/// What a round found; published in one step.
#[derive(Default)]
struct Round {
    /// Scopes whose resources differ.
    scopes: Vec<(Arc<Scope>, Encoded, Changed)>,
    /// Proxies that are new, or whose scope or own resources differ.
    clients: Vec<(StreamId, Arc<Scope>, Layers)>,
}

async fn push_for_ever(discovery: Discovery, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut pusher = Pusher::new(discovery.clone());
    let mut catch_up = interval_at(Instant::now() + CATCH_UP, CATCH_UP);
    let mut caught_up = 0;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        // Off the event loop: streams go on while a large mesh is translated.
        let pushing = tokio::task::spawn_blocking(move || {
            pusher.push(&snapshot);
            pusher
        });
        pusher = match pushing.await {
            Ok(pusher) => pusher,
            Err(error) => {
                // Half of a round may be missing from its memory: the next one makes everything anew, for everybody.
                tracing::error!(%error, "a change was not pushed: proxies keep what they have until the next one");
                discovery.0.work.failed.fetch_add(1, Relaxed);
                Pusher::new(discovery.clone())
            }
        };
        let shared = Arc::clone(&discovery.0);
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    settle(&mut snapshots).await;
                    break;
                }
                () = shared.arrived.notified() => break,
                _ = catch_up.tick() => {
                    let state = discovery.lock();
                    if state.generation > caught_up {
                        caught_up = state.generation;
                        for client in state.clients.values() {
                            client.woken.send_replace(caught_up);
                        }
                    }
                }
            }
        }
    }
}

/// Waits for the end of a series of changes.
async fn settle(snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
    let latest = Instant::now() + PATIENCE;
    loop {
        snapshots.borrow_and_update();
        let quiet = (Instant::now() + QUIET).min(latest);
        match tokio::time::timeout_at(quiet, snapshots.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

impl Pusher {
    /// With nothing remembered: its first round makes everything, for everybody who is connected.
    fn new(discovery: Discovery) -> Self {
        Self {
            discovery,
            translator: Translator::default(),
            encoder: Encoder::default(),
            known: HashMap::new(),
        }
    }

    /// Gives every stream what the snapshot means for it; streams that it does not concern are left alone.
    fn push(&mut self, snapshot: &Snapshot) {
        let made = self.translator.made();
        let changes = self.translator.turn(snapshot);
        let (arrivals, others) = self.concerned(snapshot, &changes);
        let mut round = Round::default();
        for (id, proxy, scope) in arrivals.into_iter().chain(others) {
            let scope = match scope.filter(|_| !changes.everything) {
                Some(scope) => scope,
                None => self.scope(snapshot, &proxy),
            };
            let own = self.translator.own(snapshot, &proxy);
            name_what_envoy_lacks(&proxy, &own);
            round.clients.push((id, scope, self.encoder.own(&own)));
        }
        let in_use: BTreeSet<usize> = {
            let state = self.discovery.lock();
            let old = state.clients.values().filter_map(|client| client.scope.as_ref());
            let new = round.clients.iter().map(|(_, scope, _)| scope);
            old.chain(new).map(|scope| Arc::as_ptr(scope).addr()).collect()
        };
        self.known
            .retain(|scope, _| in_use.contains(&Arc::as_ptr(scope).addr()));
        for (scope, known) in &mut self.known {
            let outbound = self.translator.outbound(snapshot, scope);
            if Arc::ptr_eq(&outbound, &known.outbound) {
                continue;
            }
            let changed = self.encoder.renew(&mut known.layers, &outbound, &known.outbound);
            known.outbound = outbound;
            let published = Encoded {
                outbound: Arc::clone(&known.outbound),
                layers: known.layers.clone(),
            };
            round.scopes.push((Arc::clone(scope), published, changed));
        }
        let work = &self.discovery.0.work;
        let (encoded, bytes) = self.encoder.take_counts();
        Work::add(&work.encoded, encoded);
        Work::add(&work.encoded_bytes, bytes);
        work.generated.fetch_add(self.translator.made() - made, Relaxed);
        work.rounds.fetch_add(1, Relaxed);
        self.encoder.turn();
        self.translator.rest();
        self.discovery
            .lock()
            .publish(round, snapshot.generation, work, |scope| {
                self.known.contains_key(scope)
            });
        self.discovery.0.pushed.send_if_modified(|pushed| {
            let newer = *pushed < snapshot.generation;
            *pushed = (*pushed).max(snapshot.generation);
            newer
        });
    }

    /// The proxies whose scope or own half must be looked at: those that are new, then the others.
    #[expect(clippy::type_complexity, reason = "two lists of the same")]
    fn concerned(
        &self,
        snapshot: &Snapshot,
        changes: &Changes,
    ) -> (
        Vec<(StreamId, Arc<Proxy>, Option<Arc<Scope>>)>,
        Vec<(StreamId, Arc<Proxy>, Option<Arc<Scope>>)>,
    ) {
        let mut state = self.discovery.lock();
        let arrivals = std::mem::take(&mut state.arrivals);
        let told = |id: &StreamId| {
            let client = state.clients.get(id)?;
            Some((*id, Arc::clone(&client.proxy), client.scope.clone()))
        };
        let new: Vec<_> = arrivals.iter().filter_map(told).collect();
        let mut others: BTreeSet<StreamId> = BTreeSet::new();
        if changes.everything || changes.trust {
            others.extend(state.clients.keys());
        } else {
            let beside = changes
                .workloads
                .iter()
                .filter_map(|workload| state.beside.get(workload));
            others.extend(beside.flatten());
            if changes.configuration {
                // What gateways serve is made of everything that is written.
                let gateways = state.clients.iter();
                let is_gateway =
                    |(_, client): &(&StreamId, &super::Client)| client.proxy.role == Role::Gateway;
                others.extend(gateways.filter(is_gateway).map(|(id, _)| *id));
                // Beside no workload that the registry knows: found by nothing but a look.
                let unknown = state
                    .beside
                    .iter()
                    .filter(|(place, _)| !snapshot.workloads.contains_key(*place));
                others.extend(unknown.flat_map(|(_, ids)| ids));
            }
        }
        for id in &arrivals {
            others.remove(id);
        }
        let others = others.iter().filter_map(told).collect();
        (new, others)
    }

    /// The one allocation of a proxy's scope.
    fn scope(&mut self, snapshot: &Snapshot, proxy: &Proxy) -> Arc<Scope> {
        let scope = Arc::new(self.translator.scope(snapshot, proxy));
        if let Some((known, _)) = self.known.get_key_value(&scope) {
            return Arc::clone(known);
        }
        self.known.insert(Arc::clone(&scope), Encoded::default());
        scope
    }
}

impl State {
    /// Takes over what a round found and wakes the streams that it concerns.
    fn publish(
        &mut self,
        round: Round,
        generation: u64,
        work: &Work,
        is_known: impl Fn(&Arc<Scope>) -> bool,
    ) {
        self.generation = self.generation.max(generation);
        let mut woken: BTreeSet<StreamId> = BTreeSet::new();
        // (type, name) → the scopes in which it differs.
        let mut changed: HashMap<(&'static str, Text), Vec<Arc<Scope>>> = HashMap::new();
        for (scope, encoded, names) in round.scopes {
            let kind = self.scopes.entry(Arc::clone(&scope)).or_default();
            if !names.is_empty() {
                kind.changed_at = generation;
            }
            *kind = Kind {
                layers: encoded.layers,
                changed_at: kind.changed_at,
                diagnostics: encoded.outbound.diagnostics.as_slice().into(),
            };
            for name in names {
                changed.entry(name).or_default().push(Arc::clone(&scope));
            }
        }
        for ((url, name), scopes) in &changed {
            for id in self.interests.of(url, name) {
                let scope = self.clients.get(&id).and_then(|client| client.scope.as_ref());
                if scope.is_some_and(|scope| scopes.iter().any(|known| Arc::ptr_eq(known, scope))) {
                    woken.insert(id);
                }
            }
        }
        for (id, scope, own) in round.clients {
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let moved = client.scope.as_ref().is_none_or(|known| *known != scope);
            if moved || !client.own.is_same(&own) {
                client.changed_at = generation;
                woken.insert(id);
            }
            client.scope = Some(scope);
            client.own = own;
        }
        self.scopes.retain(|scope, _| is_known(scope));
        // Before the first is woken: who sees a stream awake sees it counted.
        Work::add(&work.woken, woken.len());
        for id in &woken {
            if let Some(client) = self.clients.get_mut(id) {
                client.concerned = self.generation;
                client.woken.send_replace(self.generation);
            }
        }
    }
}

/// Envoy takes what it does not know, and does nothing.
fn name_what_envoy_lacks(proxy: &Proxy, own: &Resources) {
    let mut chains = own
        .listeners
        .values()
        .flat_map(|listener| &listener.filter_chains);
    if proxy.data_plane == DataPlane::Envoy && chains.any(|chain| chain.judges_open) {
        tracing::warn!(
            proxy = %proxy.id,
            "a policy wants what is open to end when it would be refused (mesh.rajut.dev/close-open): Envoy does not, and its \
             connections go on until they end by themselves"
        );
    }
}
