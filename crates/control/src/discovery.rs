//! Who is connected, what each was told, and the task that tells them the newest snapshot.
//!
//! ```text
//!  snapshots (watch) ──┐    (from the moment on at which all sources are complete)
//!  a new stream ───────┴─► debounce ─► translate (memoised) ─► encode (memoised) ─► each stream's watch ─► xds
//! ```
//!
//! Bounds: [`PROXIES_MAX`] streams. Debounce: [`QUIET`] after a change, [`PATIENCE`] after the first of a series; a new
//! stream does not wait. Invariant: `pushed` is a generation for which every stream that was known then has its resources.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rajut_config::Snapshot;
use rajut_ir::Resources;
use rajut_runtime::{Clock, readiness::Readiness};
use rajut_translate::Proxy;
use rajut_types::{Diagnostic, Text};
use rajut_xds::{
    Node, Protocol, ResourceSet,
    server::{
        Connection, ResourceSource, StreamStatus,
        acks::{Outcome, wait_settled},
    },
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tonic::{Extensions, Status};

use crate::{
    accept::PeerInfo,
    node::{parse_node, short_type},
    wire::Encoder,
};

/// Streams at once.
pub const PROXIES_MAX: usize = 20_000;
/// No further change for so long, then it is pushed.
pub const QUIET: Duration = Duration::from_millis(5);
/// Pushed after this in any case.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Makes a proxy's resources; remembers what it likes between calls.
pub type Translate = Box<dyn FnMut(&Snapshot, &Proxy) -> (Resources, Vec<Diagnostic>) + Send>;

/// The connected proxies. Cloned freely.
#[derive(Debug, Clone)]
pub struct Discovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A new stream waits for its resources.
    arrived: Notify,
    pushed: watch::Sender<u64>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    /// connection id → client; at most [`PROXIES_MAX`], removed when its stream has ended.
    clients: BTreeMap<u64, Client>,
    next_id: u64,
    /// Counts of streams that have ended, by short type name.
    ended: BTreeMap<Text, (u64, u64)>,
    refused_nodes: u64,
    closed: bool,
}

#[derive(Debug)]
struct Client {
    proxy: Arc<Proxy>,
    user_agent: Text,
    protocol: Protocol,
    since: SystemTime,
    resources: watch::Sender<Option<Arc<ResourceSet>>>,
    status: watch::Receiver<StreamStatus>,
    /// The last generation in which its set differed from the one before.
    changed_at: u64,
    diagnostics: Vec<Diagnostic>,
}

/// One connected proxy, for people.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// Unique among the connections of this process.
    pub connection: u64,
    /// Who.
    pub proxy: Arc<Proxy>,
    /// What it calls itself.
    pub user_agent: Text,
    /// Variant of the protocol.
    pub protocol: Protocol,
    /// Since when.
    pub since: SystemTime,
    /// What it has acknowledged.
    pub status: StreamStatus,
    /// What it was told.
    pub resources: Option<Arc<ResourceSet>>,
}

/// What became of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Proxies that subscribe to something that changed.
    pub affected: Vec<Text>,
    /// Those of them that took it in full.
    pub acknowledged: Vec<Text>,
    /// Proxies for which something changed that they have not asked for: they will fetch it on use.
    pub on_use: Vec<Text>,
    /// Refusals.
    pub rejected: Vec<Rejection>,
    /// Affected proxies that have not answered in time, or have disconnected meanwhile.
    pub silent: Vec<Text>,
}

/// A proxy's refusal.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rejection {
    /// Node id.
    pub proxy: Text,
    /// The type's short name, e.g. `Listener`.
    pub resource: Text,
    /// The proxy's words.
    pub reason: String,
}

impl Discovery {
    /// Nobody is connected yet.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            arrived: Notify::new(),
            pushed: watch::Sender::new(0),
            clock,
        }))
    }

    /// Starts telling the proxies every snapshot, once everything is `ready`: who connects before that is told nothing
    /// and keeps what it has, for what is not known yet would be taken for gone.
    pub fn spawn_push(
        &self,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        translate: Translate,
        ready: Readiness,
    ) {
        let pusher = Pusher {
            discovery: self.clone(),
            translate,
            encoder: Encoder::default(),
        };
        tokio::spawn(async move {
            ready.ready().await;
            push_for_ever(pusher, snapshots).await;
        });
    }

    /// Everybody who is connected, in the order of arrival.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let mut state = self.lock();
        state.forget_ended();
        let status = |(id, client): (&u64, &Client)| ProxyStatus {
            connection: *id,
            proxy: Arc::clone(&client.proxy),
            user_agent: client.user_agent.clone(),
            protocol: client.protocol,
            since: client.since,
            status: client.status.borrow().clone(),
            resources: client.resources.borrow().clone(),
        };
        state.clients.iter().map(status).collect()
    }

    /// What could not be done for some proxy, each finding once.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let state = self.lock();
        let mut all: Vec<Diagnostic> = Vec::new();
        for found in state.clients.values().flat_map(|client| &client.diagnostics) {
            if !all.contains(found) {
                all.push(found.clone());
            }
        }
        all
    }

    /// Pushes and refusals so far by short type name, ended streams included.
    pub fn totals(&self) -> BTreeMap<Text, (u64, u64)> {
        let mut state = self.lock();
        state.forget_ended();
        let mut totals = state.ended.clone();
        for client in state.clients.values() {
            count(&mut totals, &client.status.borrow());
        }
        totals
    }

    /// Nodes that were refused at the door.
    pub fn refused_nodes(&self) -> u64 {
        self.lock().refused_nodes
    }

    /// Ends every stream and takes no more: the proxies go elsewhere or come back later.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.clients.clear();
    }

    /// Waits until everybody who is connected now has answered that generation, at most `bound`.
    pub async fn spread(&self, generation: u64, bound: Duration) -> Spread {
        let started = Instant::now();
        let mut pushed = self.0.pushed.subscribe();
        let waited = tokio::time::timeout(bound, pushed.wait_for(|pushed| *pushed >= generation)).await;
        drop(waited);
        let clients: Vec<(Text, u64, watch::Receiver<StreamStatus>)> = {
            let mut state = self.lock();
            state.forget_ended();
            let told = |client: &Client| (client.proxy.id.clone(), client.changed_at, client.status.clone());
            state.clients.values().map(told).collect()
        };
        let receivers = clients.iter().map(|(_, _, status)| status.clone()).collect();
        let left = bound.saturating_sub(started.elapsed());
        let outcomes = wait_settled(receivers, generation, left).await;
        let mut spread = Spread::default();
        for ((proxy, changed_at, _), outcome) in clients.into_iter().zip(outcomes) {
            spread.add(proxy, changed_at, &outcome, generation);
        }
        spread
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spread {
    fn add(&mut self, proxy: Text, changed_at: u64, outcome: &Outcome, generation: u64) {
        let status = outcome.status();
        let sent = status.last_change >= generation;
        match outcome {
            Outcome::Settled(_) if !sent && changed_at >= generation => self.on_use.push(proxy),
            Outcome::Settled(_) if !sent => {}
            Outcome::Settled(_) => {
                let nacks: Vec<Rejection> = status
                    .types
                    .iter()
                    .filter_map(|(url, status)| Some((url, status.nack.as_ref()?)))
                    .filter(|(_, nack)| nack.generation >= generation)
                    .map(|(url, nack)| Rejection {
                        proxy: proxy.clone(),
                        resource: short_type(url),
                        reason: nack.message.clone(),
                    })
                    .collect();
                if nacks.is_empty() {
                    self.acknowledged.push(proxy.clone());
                }
                self.rejected.extend(nacks);
                self.affected.push(proxy);
            }
            Outcome::Gone(_) | Outcome::Late(_) if sent || changed_at >= generation => {
                self.silent.push(proxy.clone());
                self.affected.push(proxy);
            }
            Outcome::Gone(_) | Outcome::Late(_) => {}
        }
    }
}

impl State {
    /// A stream that has ended has dropped its status sender.
    fn forget_ended(&mut self) {
        let ended = &mut self.ended;
        self.clients.retain(|_, client| {
            let alive = client.status.has_changed().is_ok();
            if !alive {
                count(ended, &client.status.borrow());
            }
            alive
        });
    }
}

fn count(totals: &mut BTreeMap<Text, (u64, u64)>, status: &StreamStatus) {
    for (url, status) in &status.types {
        let total = totals.entry(short_type(url)).or_default();
        total.0 += status.pushes;
        total.1 += status.rejects;
    }
}

impl ResourceSource for Discovery {
    fn connect(
        &self,
        extensions: &Extensions,
        node: &Node,
        protocol: Protocol,
    ) -> Result<Connection, Status> {
        let mut state = self.lock();
        state.forget_ended();
        if state.closed {
            return Err(Status::unavailable("the control plane is stopping"));
        }
        let principal = extensions
            .get::<PeerInfo>()
            .and_then(|peer| peer.principal.clone());
        let principal =
            principal.ok_or_else(|| Status::unauthenticated("discovery needs a mesh certificate"))?;
        let proxy = match parse_node(node, principal) {
            Ok(proxy) => Arc::new(proxy),
            Err(refused) => {
                state.refused_nodes += 1;
                tracing::warn!(node = %node.id, %refused, "node refused");
                return Err(Status::permission_denied(refused.to_string()));
            }
        };
        if state.clients.len() >= PROXIES_MAX {
            return Err(Status::resource_exhausted("too many proxies are connected"));
        }
        tracing::info!(node = %node.id, principal = %proxy.principal, ?protocol, "proxy connected");
        let (resources, told) = watch::channel(None);
        let (status, known) = watch::channel(StreamStatus::default());
        state.next_id += 1;
        let id = state.next_id;
        let client = Client {
            proxy,
            user_agent: node.user_agent.clone(),
            protocol,
            since: self.0.clock.wall(),
            resources,
            status: known,
            changed_at: 0,
            diagnostics: Vec::new(),
        };
        state.clients.insert(id, client);
        drop(state);
        self.0.arrived.notify_one();
        Ok(Connection {
            resources: told,
            status,
        })
    }
}

struct Pusher {
    discovery: Discovery,
    translate: Translate,
    encoder: Encoder,
}

async fn push_for_ever(mut pusher: Pusher, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
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
                tracing::error!(%error, "pushing has stopped: proxies keep what they have");
                return;
            }
        };
        let arrived = Arc::clone(&pusher.discovery.0);
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                settle(&mut snapshots).await;
            }
            () = arrived.arrived.notified() => {}
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
    /// Gives every stream what the snapshot means for it; streams that have it already are left alone.
    fn push(&mut self, snapshot: &Snapshot) {
        let generation = snapshot.generation;
        let waiting: Vec<(u64, Arc<Proxy>, Option<Arc<ResourceSet>>)> = {
            let mut state = self.discovery.lock();
            state.forget_ended();
            let told = |(id, client): (&u64, &Client)| {
                let current = client.resources.borrow().clone();
                (*id, Arc::clone(&client.proxy), current)
            };
            state.clients.iter().map(told).collect()
        };
        let is_current =
            |set: &Option<Arc<ResourceSet>>| set.as_ref().is_some_and(|set| set.generation >= generation);
        if waiting
            .iter()
            .any(|(_, _, set)| set.as_ref().is_some_and(|set| set.generation < generation))
        {
            self.encoder.turn();
        }
        for (id, proxy, previous) in waiting.into_iter().filter(|(_, _, set)| !is_current(set)) {
            let (resources, diagnostics) = (self.translate)(snapshot, &proxy);
            let set = Arc::new(self.encoder.encode(&resources, generation, previous.as_deref()));
            let mut state = self.discovery.lock();
            let Some(client) = state.clients.get_mut(&id) else {
                continue;
            };
            client.diagnostics = diagnostics;
            if previous.is_none_or(|previous| set.differences(&previous) > 0) {
                client.changed_at = generation;
            }
            client.resources.send_replace(Some(set));
        }
        self.discovery.0.pushed.send_if_modified(|pushed| {
            let newer = *pushed < generation;
            *pushed = (*pushed).max(generation);
            newer
        });
    }
}
