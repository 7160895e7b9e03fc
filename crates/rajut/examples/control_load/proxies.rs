//! Proxies as the control plane sees them: certificates of their own, one connection each, subscriptions, and answers.
//! They take every resource and look into none; many share one thread.

use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rajut_identity::{
    Identity, IdentityStore,
    enrol::{EnrolOptions, Issuer, Token, control_plane_connector, enrol},
};
use rajut_runtime::Clock;
use rajut_types::Text;
use rajut_xds::{
    Node, Protocol,
    client::{ClientOptions, Event, Handle, Update, spawn},
    type_url,
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{
    mesh::{self, Size},
    plane::Plane,
};

/// How proxies subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Delta, everything.
    Full,
    /// State of the world, everything.
    World,
    /// Delta, clusters and endpoints by name: what the services need that a proxy uses.
    Demand,
}

/// Services that a proxy uses in the on-demand form; each service then has as many subscribers (with as many proxies as
/// services).
pub(crate) const USED: usize = 20;

impl FromStr for Form {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "full" => Ok(Self::Full),
            "world" => Ok(Self::World),
            "demand" => Ok(Self::Demand),
            other => bail!("unknown form {other}"),
        }
    }
}

/// What all proxies report to.
#[derive(Debug)]
pub(crate) struct Board {
    started: Instant,
    /// Proxies that have everything that they asked for.
    pub(crate) complete: AtomicUsize,
    pub(crate) connected: AtomicUsize,
    pub(crate) lost: AtomicUsize,
    pub(crate) updates: AtomicU64,
    pub(crate) resources: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Microseconds after `started` of the last answer.
    pub(crate) last_answer: AtomicU64,
    watched: Mutex<Text>,
    /// Answers to updates that held the watched resource, and when the last of them was given.
    pub(crate) hits: AtomicUsize,
    pub(crate) last_hit: AtomicU64,
    stopping: AtomicBool,
}

impl Board {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            complete: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            updates: AtomicU64::new(0),
            resources: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_answer: AtomicU64::new(0),
            watched: Mutex::new("".into()),
            hits: AtomicUsize::new(0),
            last_hit: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// From now on updates with this resource are counted.
    pub(crate) fn watch(&self, name: &str) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
        self.hits.store(0, Relaxed);
    }

    fn count(&self, update: &Update) {
        self.updates.fetch_add(1, Relaxed);
        self.resources
            .fetch_add(u64::try_from(update.resources.len()).unwrap_or(0), Relaxed);
        let bytes: usize = update.resources.iter().map(|resource| resource.body.len()).sum();
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Relaxed);
    }

    fn answered(&self, update: &[Text]) {
        let now = self.now();
        self.last_answer.fetch_max(now, Relaxed);
        let watched = self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if update.contains(&watched) {
            self.last_hit.fetch_max(now, Relaxed);
            self.hits.fetch_add(1, Relaxed);
        }
    }
}

/// All proxies.
pub(crate) struct Fleet {
    pub(crate) board: Arc<Board>,
    size: Size,
    form: Form,
    identities: Vec<Identity>,
    issuer: Issuer,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fleet {
    /// Certificates for all; nobody is connected yet.
    pub(crate) async fn enrol(plane: &Plane, size: Size, form: Form) -> anyhow::Result<Self> {
        let issuer = plane.issuer()?;
        let mut identities = Vec::new();
        for service in 0..size.pool.min(size.proxies) {
            let (namespace, account) = (mesh::namespace(service), format!("svc-{service}"));
            let token = plane.token(&namespace, &account, "").await?;
            let options = EnrolOptions {
                issuer: issuer.clone(),
                token: Token::Given(token),
                ttl: Duration::from_hours(12),
            };
            identities.push(Box::pin(enrol(&options, None, &Clock::system())).await?);
        }
        Ok(Self {
            board: Arc::new(Board::new()),
            size,
            form,
            identities,
            issuer,
            thread: None,
        })
    }

    /// Connects everybody, on a thread of its own.
    pub(crate) fn connect(&mut self) -> anyhow::Result<()> {
        let board = Arc::clone(&self.board);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let clients: Vec<(ClientOptions, usize)> = (0..self.size.proxies)
            .map(|proxy| (self.options(proxy), proxy))
            .collect();
        let (form, size) = (self.form, self.size);
        let thread = std::thread::Builder::new().name("proxies".into()).spawn(move || {
            runtime.block_on(async {
                // As many handshakes at once as one thread can finish before they time out.
                let connecting = Arc::new(Semaphore::new(64));
                for (options, proxy) in clients {
                    let (board, connecting) = (Arc::clone(&board), Arc::clone(&connecting));
                    tokio::spawn(async move {
                        let permit = connecting.acquire_owned().await;
                        follow(options, form, size, proxy, board, permit.ok()).await;
                    });
                }
                while !board.stopping.load(Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        self.thread = Some(thread.context("a thread")?);
        Ok(())
    }

    fn options(&self, proxy: usize) -> ClientOptions {
        let (service, instance) = (proxy % self.size.pool, proxy / self.size.pool);
        let namespace = mesh::namespace(service);
        let node = Node {
            id: format!(
                "sidecar~10.255.{}.{}~svc-{service}-{instance}.{namespace}~{namespace}.svc.cluster.local",
                proxy >> 8 & 255,
                proxy & 255
            )
            .into(),
            metadata: json!({"RAJUT_DATA_PLANE": "rajut", "LABELS": {"app": format!("svc-{service}"), "version": "v1"}}),
            ..Node::default()
        };
        let store = IdentityStore::fixed(self.identities[service % self.identities.len()].clone());
        let mut options = ClientOptions::new(node, control_plane_connector(self.issuer.clone(), store));
        if self.form == Form::World {
            options.protocol = Protocol::StateOfTheWorld;
        }
        options
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.board.stopping.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The services that a proxy uses on demand: so many that each of the pool has [`USED`] subscribers.
pub(crate) fn used(proxy: usize, size: Size) -> impl Iterator<Item = usize> {
    let services = (USED * size.pool / size.proxies).clamp(1, size.pool);
    let first = proxy * size.pool / size.proxies;
    (0..services).map(move |step| (first + step) % size.pool)
}

/// What is still missing of the first answers: (type, name); an empty name stands for the type's first update.
type Missing = BTreeSet<(Text, Text)>;

async fn follow(
    options: ClientOptions,
    form: Form,
    size: Size,
    proxy: usize,
    board: Arc<Board>,
    mut connecting: Option<tokio::sync::OwnedSemaphorePermit>,
) {
    let (handle, mut events) = spawn(options);
    let mut missing = subscribe(&handle, form, size, proxy).await;
    let mut complete = false;
    let mut endpoints: BTreeSet<Text> = BTreeSet::new();
    while let Some(event) = events.recv().await {
        let update = match event {
            Event::Connected => {
                connecting = None;
                board.connected.fetch_add(1, Relaxed);
                continue;
            }
            Event::Disconnected { .. } => {
                board.lost.fetch_add(1, Relaxed);
                continue;
            }
            Event::Update(update) => update,
        };
        board.count(&update);
        missing.remove(&(update.type_url.clone(), Text::from("")));
        let names: Vec<Text> = update
            .resources
            .iter()
            .map(|resource| resource.name.clone())
            .collect();
        for name in &names {
            missing.remove(&(update.type_url.clone(), name.clone()));
        }
        if &*update.type_url == type_url::CLUSTER && form != Form::Demand {
            // Every outbound cluster has its endpoints over EDS here.
            let of_services = |name: &&Text| name.starts_with("outbound|") && !endpoints.contains(*name);
            let fresh: Vec<Text> = names.iter().filter(of_services).cloned().collect();
            if !fresh.is_empty() {
                endpoints.extend(fresh.iter().cloned());
                missing.extend(
                    fresh
                        .iter()
                        .map(|name| (type_url::LOAD_ASSIGNMENT.into(), name.clone())),
                );
                handle.subscribe(type_url::LOAD_ASSIGNMENT, fresh).await;
            }
        }
        let Update { ticket, .. } = update;
        handle.answer(ticket, Vec::new()).await;
        board.answered(&names);
        if missing.is_empty() && !complete {
            complete = true;
            board.complete.fetch_add(1, Relaxed);
        }
    }
    drop(connecting);
}

async fn subscribe(handle: &Handle, form: Form, size: Size, proxy: usize) -> Missing {
    let mut missing = Missing::new();
    let route: Text = "8080".into();
    match form {
        Form::Full | Form::World => {
            for url in [type_url::CLUSTER, type_url::LISTENER, type_url::NAME_TABLE] {
                handle.subscribe_all(url).await;
                missing.insert((url.into(), "".into()));
            }
            handle.subscribe(type_url::ROUTE, vec![route.clone()]).await;
            missing.insert((type_url::ROUTE.into(), route));
        }
        Form::Demand => {
            let names: Vec<Text> = used(proxy, size)
                .map(|service| mesh::cluster(service).into())
                .collect();
            for url in [type_url::CLUSTER, type_url::LOAD_ASSIGNMENT] {
                handle.subscribe(url, names.clone()).await;
                missing.extend(names.iter().map(|name| (url.into(), name.clone())));
            }
            // As our proxy does: listeners, names and routes come whole, clusters and endpoints on demand.
            for url in [type_url::LISTENER, type_url::NAME_TABLE] {
                handle.subscribe_all(url).await;
                missing.insert((url.into(), "".into()));
            }
            handle.subscribe(type_url::ROUTE, vec![route.clone()]).await;
            missing.insert((type_url::ROUTE.into(), route));
        }
    }
    missing
}
