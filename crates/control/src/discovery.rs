//! Who is connected, what each was told, and the task that tells them the newest snapshot.
//!
//! ```text
//!  snapshots (watch) ──┐                    per scope: one outbound half, translated and encoded once
//!  a new stream ───────┴─► debounce ─► push ┤ per proxy: its own inbound half
//!                                           └► interests: who subscribes to what changed? ─► wakes their streams ─► xds
//! ```
//!
//! Proxies of one [`Scope`] share the resources that their outbound halves are; a proxy's entry holds its own few. A change costs what it
//! touches: the scopes patch what differs ([`push`]), and only streams that subscribe to a resource that became another are
//! woken. The others are not looked at; from time to time ([`CATCH_UP`]) they take over the newest set, so that old
//! resources are not kept for their sake.
//!
//! Nothing is pushed before all sources are complete: what is not known yet would be taken for gone.
//!
//! Bounds: [`PROXIES_MAX`] streams. Debounce: [`QUIET`] after a change, [`PATIENCE`] after the first of a series; a new
//! stream does not wait. Invariant: `pushed` is a generation for which every stream that was known then has its resources.

mod push;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rajut_config::Snapshot;
use rajut_identity::context::MESH_ROOTS;
use rajut_runtime::{Clock, readiness::Readiness};
use rajut_translate::{Proxy, Scope};
use rajut_types::{Diagnostic, Principal, Text};
use rajut_xds::{
    Node, Protocol, ResourceSet,
    server::{
        Connection, Feed, Interest, ResourceSource, StreamStatus,
        acks::{Outcome, wait_settled},
        interests::{Interests, StreamId},
    },
    type_url,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tonic::{Extensions, Status};
pub use work::{Totals, Work};

use crate::{
    accept::PeerInfo,
    ca::rotation::Standing,
    node::{parse_node, short_type},
    wire::Layers,
};

/// Streams at once.
pub const PROXIES_MAX: usize = 20_000;
/// No further change for so long, then it is pushed.
pub const QUIET: Duration = Duration::from_millis(5);
/// Pushed after this in any case.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Every stream takes over the newest set at least so often, also if nothing of it concerns it.
pub const CATCH_UP: Duration = Duration::from_secs(30);

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
    work: Work,
}

#[derive(Debug, Default)]
struct State {
    /// connection id → client; at most [`PROXIES_MAX`], removed when its stream has ended.
    clients: HashMap<StreamId, Client>,
    /// Clients whose resources were not made yet.
    arrivals: Vec<StreamId>,
    /// (namespace, workload) → the clients beside it.
    beside: BTreeMap<(Text, Text), Vec<StreamId>>,
    /// Scopes that some client is of, or was of at the last push.
    scopes: HashMap<Arc<Scope>, Kind>,
    interests: Interests,
    /// The generation that `scopes` and the clients' own resources are of.
    generation: u64,
    next_id: StreamId,
    /// Counts of streams that have ended, by short type name.
    ended: BTreeMap<Text, Totals>,
    refused_nodes: u64,
    closed: bool,
}

/// What the proxies of a scope share.
#[derive(Debug, Default)]
struct Kind {
    layers: Layers,
    /// The last generation in which some resource of it differed from the one before.
    changed_at: u64,
    diagnostics: Arc<[Diagnostic]>,
}

#[derive(Debug)]
struct Client {
    proxy: Arc<Proxy>,
    user_agent: Text,
    protocol: Protocol,
    since: SystemTime,
    /// Known once its resources are.
    scope: Option<Arc<Scope>>,
    own: Layers,
    woken: watch::Sender<u64>,
    status: watch::Receiver<StreamStatus>,
    /// The last generation for which its stream was woken; until it is settled, the client has something to answer.
    concerned: u64,
    /// The last generation in which its own resources differed from the ones before.
    changed_at: u64,
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
            work: Work::default(),
        }))
    }

    /// Starts telling the proxies every snapshot, once everything is `ready`: who connects before that is told nothing
    /// and keeps what it has, for what is not known yet would be taken for gone.
    pub fn spawn_push(&self, snapshots: watch::Receiver<Arc<Snapshot>>, ready: Readiness) {
        push::spawn(self.clone(), snapshots, ready);
    }

    /// Everybody who is connected, in the order of arrival.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let state = self.lock();
        let mut proxies: Vec<ProxyStatus> = state
            .clients
            .iter()
            .map(|(id, client)| state.status_of(*id, client))
            .collect();
        proxies.sort_by_key(|known| known.connection);
        proxies
    }

    /// What could not be done for some proxy, each finding once.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let state = self.lock();
        let used: BTreeSet<*const Scope> = state
            .clients
            .values()
            .filter_map(|client| client.scope.as_ref().map(Arc::as_ptr))
            .collect();
        let mut all: Vec<Diagnostic> = Vec::new();
        let of_used = state
            .scopes
            .iter()
            .filter(|(scope, _)| used.contains(&Arc::as_ptr(scope)));
        for found in of_used.flat_map(|(_, kind)| &*kind.diagnostics) {
            if !all.contains(found) {
                all.push(found.clone());
            }
        }
        all
    }

    /// What was sent so far by short type name, to streams that have ended too.
    pub fn totals(&self) -> BTreeMap<Text, Totals> {
        let state = self.lock();
        let mut totals = state.ended.clone();
        for client in state.clients.values() {
            work::count(&mut totals, &client.status.borrow());
        }
        totals
    }

    /// What pushing has cost so far.
    pub fn work(&self) -> &Work {
        &self.0.work
    }

    /// (connected, those that have not answered what concerns them).
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        let unsettled = state.clients.values().filter(|client| !client.is_settled());
        (state.clients.len(), unsettled.count())
    }

    /// How each connected proxy stands to whom it was told to believe, in the order of arrival.
    pub fn standings(&self) -> Vec<(Arc<Proxy>, Standing)> {
        let state = self.lock();
        let following: BTreeSet<StreamId> = state.interests.of(type_url::SECRET, MESH_ROOTS).collect();
        let mut clients: Vec<(&StreamId, &Client)> = state.clients.iter().collect();
        clients.sort_unstable_by_key(|(id, _)| **id);
        let standing = |(id, client): (&StreamId, &Client)| {
            let status = client.status.borrow();
            let secrets = status.types.get(type_url::SECRET);
            let standing = if !following.contains(id) {
                Standing::NotFollowing
            } else if let Some(nack) = secrets.and_then(|secrets| secrets.nack.as_ref()) {
                Standing::Refused(nack.message.clone())
            } else if client.is_settled() {
                Standing::Acknowledged
            } else {
                Standing::Pending
            };
            (Arc::clone(&client.proxy), standing)
        };
        clients.into_iter().map(standing).collect()
    }

    /// Ends the streams of whom the mesh believes no longer. They are refused when they come again.
    pub fn expel(&self, is_revoked: impl Fn(&Principal) -> bool) {
        let mut state = self.lock();
        let revoked: Vec<StreamId> = state
            .clients
            .iter()
            .filter(|(_, client)| is_revoked(&client.proxy.principal))
            .map(|(id, _)| *id)
            .collect();
        for id in revoked {
            state.remove(id);
        }
    }

    /// Nodes that were refused at the door.
    pub fn refused_nodes(&self) -> u64 {
        self.lock().refused_nodes
    }

    /// Ends every stream and takes no more: the proxies go elsewhere or come back later.
    pub fn close(&self) {
        let clients = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.clients)
        };
        drop(clients);
    }

    /// The generation that is pushed: everybody has its resources, whether they have taken them or not.
    pub fn pushed(&self) -> u64 {
        *self.0.pushed.borrow()
    }

    /// Waits until that generation is pushed: everybody has its resources, whether they have taken them or not.
    pub async fn reached(&self, generation: u64) {
        let mut pushed = self.0.pushed.subscribe();
        // The sender is `self`'s own, so the wait can't fail.
        let _ = pushed.wait_for(|pushed| *pushed >= generation).await;
    }

    /// Waits until everybody who is connected now has answered that generation, at most `bound`.
    pub async fn spread(&self, generation: u64, bound: Duration) -> Spread {
        let started = Instant::now();
        // Late or not: whoever has not answered then is silent.
        let _ = tokio::time::timeout(bound, self.reached(generation)).await;
        let mut spread = Spread::default();
        let (mut waiting, mut receivers) = (Vec::new(), Vec::new());
        {
            let state = self.lock();
            let mut clients: Vec<(&StreamId, &Client)> = state.clients.iter().collect();
            clients.sort_unstable_by_key(|(id, _)| **id);
            for (_, client) in clients {
                let changed_at = state.changed_at(client);
                if client.scope.is_none() || client.concerned >= generation {
                    waiting.push((client.proxy.id.clone(), changed_at));
                    receivers.push(client.status.clone());
                } else if changed_at >= generation {
                    spread.on_use.push(client.proxy.id.clone());
                }
            }
        }
        let left = bound.saturating_sub(started.elapsed());
        let outcomes = wait_settled(receivers, generation, left).await;
        for ((proxy, changed_at), outcome) in waiting.into_iter().zip(outcomes) {
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
    /// The last generation in which something differed for the client, whether it subscribes to it or not.
    fn changed_at(&self, client: &Client) -> u64 {
        let kind = client.scope.as_ref().and_then(|scope| self.scopes.get(scope));
        client.changed_at.max(kind.map_or(0, |kind| kind.changed_at))
    }

    /// What a client may be told now.
    fn resources(&self, client: &Client) -> Option<Arc<ResourceSet>> {
        let kind = self.scopes.get(client.scope.as_ref()?)?;
        Some(Arc::new(kind.layers.with_own(&client.own, self.generation)))
    }

    fn status_of(&self, id: StreamId, client: &Client) -> ProxyStatus {
        let mut status = client.status.borrow().clone();
        if client.is_settled() {
            // It has answered everything that concerns it.
            status.settled = status.settled.max(self.generation);
        }
        ProxyStatus {
            connection: u64::from(id),
            proxy: Arc::clone(&client.proxy),
            user_agent: client.user_agent.clone(),
            protocol: client.protocol,
            since: client.since,
            status,
            resources: self.resources(client),
        }
    }

    /// The place of a client, so that a change of its workload finds it.
    fn place(proxy: &Proxy) -> (Text, Text) {
        (proxy.namespace.clone(), proxy.workload.clone())
    }

    fn free_id(&mut self) -> StreamId {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if !self.clients.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn remove(&mut self, id: StreamId) {
        self.interests.forget(id);
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        work::count(&mut self.ended, &client.status.borrow());
        let place = Self::place(&client.proxy);
        if let Some(beside) = self.beside.get_mut(&place) {
            beside.retain(|known| *known != id);
            if beside.is_empty() {
                self.beside.remove(&place);
            }
        }
    }
}

impl Client {
    fn is_settled(&self) -> bool {
        self.scope.is_some() && self.status.borrow().settled >= self.concerned
    }
}

/// A stream's end of the discovery; when it is dropped, the stream has ended.
struct ClientFeed {
    discovery: Discovery,
    id: StreamId,
}

impl Feed for ClientFeed {
    fn newest(&self) -> Option<Arc<ResourceSet>> {
        let state = self.discovery.lock();
        state.resources(state.clients.get(&self.id)?)
    }

    fn interested(&self, changes: Vec<Interest>) {
        let mut state = self.discovery.lock();
        let generation = state.generation;
        if let Some(client) = state.clients.get_mut(&self.id)
            && changes.iter().any(Interest::is_more)
        {
            // It is up to date when it has what it asks for as it is now.
            client.concerned = client.concerned.max(generation);
        }
        for change in changes {
            state.interests.change(self.id, change);
        }
    }
}

impl Drop for ClientFeed {
    fn drop(&mut self) {
        self.discovery.lock().remove(self.id);
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
        let (woken, wakes) = watch::channel(0);
        let (status, known) = watch::channel(StreamStatus::default());
        let id = state.free_id();
        state.beside.entry(State::place(&proxy)).or_default().push(id);
        state.arrivals.push(id);
        let client = Client {
            proxy,
            user_agent: node.user_agent.clone(),
            protocol,
            since: self.0.clock.wall(),
            scope: None,
            own: Layers::default(),
            woken,
            status: known,
            concerned: 0,
            changed_at: 0,
        };
        state.clients.insert(id, client);
        drop(state);
        self.0.arrived.notify_one();
        let discovery = self.clone();
        Ok(Connection {
            feed: Arc::new(ClientFeed { discovery, id }),
            woken: wakes,
            status,
        })
    }
}
