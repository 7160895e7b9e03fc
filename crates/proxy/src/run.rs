//! The proxy process: bootstrap, identity, discovery, workers, admin, signals.
//!
//! ```text
//!  main thread                                   worker threads
//!  bootstrap ─► identity ─► Discovery ── adopt ─► Epoch, accept, serve
//!      admin, DNS, name resolution, signals
//! ```
//!
//! Ends by draining: `SIGTERM` (or `/quitquitquit`) stops keep-alive and sends GOAWAY; the process ends when no
//! connection is left or the drain time is over. A second signal ends it at once.

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use rajut_identity::{
    Identity, IdentityStore,
    enrol::{Issuer, control_plane_connector},
};
use rajut_ir::{
    NameTable, Resources,
    cluster::{Cluster, Discovery as Discover},
    wire::bootstrap::{self, Bootstrap},
};
use rajut_platform::{
    memory,
    signals::ShutdownSignals,
    socket::{self, ConnectOptions},
};
use rajut_runtime::{
    Clock,
    clock::rfc3339,
    connector::Connector,
    readiness::{Gate, Readiness},
};
use rajut_telemetry::workload::Workload;
use rajut_types::{Labels, Text};
use rajut_xds::{
    Node, Protocol,
    client::{self, ClientOptions, Event},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use crate::{
    admin::{self, Admin, Dump},
    cluster::demand::Demand,
    discovery::{Discovery, Outlets, WARMING_CHECK},
    dns::{self, DnsOptions},
    enrol::{self, Enrolment},
    epoch::Config,
    last_known::{GRACE, LastKnown, SAVE_EVERY},
    on_demand::OnDemand,
    recorder,
    resolver::Resolver,
    stats::{Registry, istio::EdgeLoads},
    tls::secrets::Secrets,
    workers::Workers,
};

/// How a proxy is started.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// An Envoy bootstrap, YAML or JSON.
    pub bootstrap: PathBuf,
    /// Worker threads; a sidecar has one, a gateway one per core.
    pub concurrency: usize,
    /// How the workload's identity is obtained; `None` where the bootstrap has its own certificates, or none.
    pub enrolment: Option<Enrolment>,
    /// The workload's DNS; `None` where names are not captured.
    pub dns: Option<DnsOptions>,
    /// Time for connections to finish after `SIGTERM`; Istio's `terminationDrainDuration` is 5 s.
    pub drain_time: Duration,
    /// Where the last configuration that the control plane gave is kept; `None`: nowhere.
    pub last_known: Option<PathBuf>,
    /// Clusters of services are fetched when a request first needs them (our own control plane over the incremental
    /// protocol), and forgotten when none has for so long; `None`: everything is told at once.
    pub on_demand: Option<Duration>,
}

/// Runs a proxy until it is told to end.
pub fn run(options: ProxyOptions) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(options))
}

#[expect(
    clippy::too_many_lines,
    reason = "the process from nothing, read top to bottom"
)]
async fn serve(options: ProxyOptions) -> anyhow::Result<()> {
    let clock = Clock::system();
    let started = clock.now();
    let mut bootstrap = read_bootstrap(&options.bootstrap)?;
    let readiness = Readiness::default();
    let (drain, draining) = watch::channel(false);
    let (quit, quitting) = watch::channel(false);
    let (config, configs) = watch::channel(Arc::new(Config::default()));
    let (names, named) = watch::channel(Arc::new(NameTable::default()));
    let concurrency = options.concurrency.max(1);
    let registry = Registry::new(concurrency);
    registry.set_node(&bootstrap.node.id);
    registry.set_workload(own_workload(&bootstrap.node));
    let workers = Rc::new(Workers::start(concurrency, &configs.borrow(), &draining, seed)?);
    let dump = Rc::new(RefCell::new(Dump::default()));

    let certificate = options.enrolment.as_ref().map(|_| readiness.gate("certificate"));
    let listeners = readiness.gate("listeners");
    let (store_known, stores) = watch::channel(None);
    let (source, sources) = watch::channel(None);
    if let Some(address) = bootstrap.admin {
        let admin = Admin {
            node: bootstrap.node.id.to_string(),
            readiness: readiness.clone(),
            config: configs.clone(),
            workers: workers.clone(),
            dump: dump.clone(),
            registry: registry.clone(),
            identity: stores.clone(),
            last_known: sources,
            clock: clock.clone(),
            drain: drain.clone(),
            quit,
            started,
        };
        let listener = admin::bind(address).with_context(|| format!("the admin port {address}"))?;
        tokio::task::spawn_local(admin::serve(listener, Rc::new(admin)));
    }
    if let Some(dns) = options.dns.clone() {
        tokio::task::spawn_local(async move {
            if let Err(error) = dns::serve(dns, named).await {
                tracing::error!(%error, "the workload's DNS can't be served");
            }
        });
    }

    tokio::task::spawn_local(slim(readiness.clone()));
    let mut secrets = Secrets::new(bootstrap.resources.secrets.values().cloned());
    let last_known = options
        .last_known
        .as_deref()
        .filter(|_| bootstrap.ads.is_some())
        .map(|path| LastKnown::new(path, bootstrap.node.id.clone()));
    let identity = enrolled(&options, &clock, &mut secrets, last_known.is_some()).await?;
    store_known.send_replace(identity.as_ref().map(|own| own.store.clone()));
    if let Some(gate) = certificate.as_ref().filter(|_| secrets.has_identity()) {
        gate.open();
    }
    let logs = registry.clone();
    let outlets = Outlets {
        config,
        names,
        dump,
        registry,
    };
    let reports_load = bootstrap.ads.as_ref().is_some_and(|ads| ads.load_reports);
    let load = reports_load.then(|| logs.edges(configs));
    let is_incremental = bootstrap.ads.as_ref().is_some_and(|ads| ads.delta);
    let on_demand = options.on_demand.filter(|_| is_incremental);
    let (demand, demands) = Demand::channel();
    let mut discovery = Discovery::new(
        take_resources(&mut bootstrap),
        on_demand.map(|_| OnDemand::new(demand)),
        secrets,
        workers.clone(),
        clock.clone(),
        outlets,
    );
    if let Some(own) = &identity {
        discovery.follow_trust(own.store.clone());
    }
    let main = Main {
        registry: logs.clone(),
        discovery,
        workers,
        listeners,
        certificate,
        identity,
        last_known,
        source,
        load,
        clock,
        demands,
        // Two looks without use, then it is forgotten.
        look: on_demand.map(|forget_after| forget_after / 2),
        quitting,
        drain,
    };
    let outcome = Box::pin(main.run(&bootstrap, options.drain_time)).await;
    // The lines of the last moments still wait for the writing thread.
    logs.writers().flush();
    outcome
}

/// Whom this proxy stands beside, as its node says in Istio's words.
fn own_workload(node: &bootstrap::Node) -> Workload {
    let text = |key| {
        node.metadata
            .get(key)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    };
    let labels = node.metadata.get("LABELS").and_then(|labels| labels.as_object());
    let labels: Labels = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    Workload::new(
        text("WORKLOAD_NAME"),
        text("NAMESPACE"),
        text("CLUSTER_ID"),
        &labels,
    )
}

/// The resources of the bootstrap file, of which only the control plane's cluster stays behind.
fn take_resources(bootstrap: &mut Bootstrap) -> Resources {
    let resources = std::mem::take(&mut bootstrap.resources);
    if let Some(ads) = &bootstrap.ads
        && let Some(cluster) = resources.clusters.get(&ads.cluster)
    {
        let kept = &mut bootstrap.resources.clusters;
        kept.insert(ads.cluster.clone(), cluster.clone());
    }
    resources
}

/// Between two looks at files of certificates.
const FILES_LOOK: Duration = Duration::from_secs(1);
/// How long after it is ready a proxy lets go of what only its start needed: the first requests are not in its way.
const SLIM_AFTER: Duration = Duration::from_secs(2);

/// Lets go of what only the start needed.
async fn slim(readiness: Readiness) {
    readiness.ready().await;
    tokio::time::sleep(SLIM_AFTER).await;
    memory::give_back_now();
    match memory::forget_startup_code() {
        Ok(bytes) => tracing::debug!(bytes, "code of the start is unmapped"),
        Err(error) => tracing::debug!(%error, "code of the start stays mapped"),
    }
}

fn read_bootstrap(path: &Path) -> anyhow::Result<Bootstrap> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("the bootstrap file {shown}"))?;
    bootstrap::parse_bootstrap(&text).map_err(|errors| {
        let lines: Vec<_> = errors.into_iter().map(|error| format!("  {error}")).collect();
        anyhow::anyhow!("{shown} can't be used:\n{}", lines.join("\n"))
    })
}

/// The own identity, once the issuer has given it; `None` where there is no enrolment. Where the last known configuration
/// can be served, an issuer that does not answer is waited for in the background: what needs the certificate is refused
/// until it comes.
async fn enrolled(
    options: &ProxyOptions,
    clock: &Clock,
    secrets: &mut Secrets,
    can_go_on: bool,
) -> anyhow::Result<Option<Own>> {
    let Some(enrolment) = &options.enrolment else {
        return Ok(None);
    };
    let store = enrol::start(enrolment, clock)?;
    let first = enrol::first(&store);
    let first = if can_go_on {
        tokio::time::timeout(GRACE, first).await.ok().transpose()?
    } else {
        Some(first.await?)
    };
    let generation = first.as_ref().map_or(0, |first| first.generation);
    if first.is_none() {
        tracing::warn!("no certificate yet; what needs one is refused until the issuer answers");
    }
    secrets.set_identity(first);
    Ok(Some(Own {
        store,
        generation,
        issuer: enrolment.issuer()?,
    }))
}

/// What the main thread goes round with.
struct Main {
    registry: Arc<Registry>,
    discovery: Discovery,
    workers: Rc<Workers>,
    listeners: Gate,
    certificate: Option<Gate>,
    identity: Option<Own>,
    last_known: Option<LastKnown>,
    /// When what the proxy runs on was given, where that was before this process.
    source: watch::Sender<Option<SystemTime>>,
    /// What the control plane is told of the edges, until it has been handed to its task.
    load: Option<EdgeLoads>,
    clock: Clock,
    /// Clusters that requests wait for.
    demands: mpsc::Receiver<Text>,
    /// How often it is looked which clusters are used.
    look: Option<Duration>,
    quitting: watch::Receiver<bool>,
    drain: watch::Sender<bool>,
}

/// The own identity as the main thread follows it.
struct Own {
    store: IdentityStore,
    generation: u64,
    issuer: Issuer,
}

/// Endpoints of DNS clusters that wait for the main thread.
const RESOLVED_QUEUED_MAX: usize = 64;

/// Time between looks where nothing is fetched on demand: they do nothing.
const NO_LOOK: Duration = Duration::from_hours(24);

/// Shortest time between looks at which clusters are used.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Time between looks at whether connections are left while draining.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

impl Main {
    async fn run(mut self, bootstrap: &Bootstrap, drain_time: Duration) -> anyhow::Result<()> {
        let mut events = self.connect(bootstrap).await?;
        let refused = self.discovery.adopt().await?;
        // What the operator wrote by hand must work: a port in use is no reason to serve the rest silently.
        if !refused.is_empty() {
            let lines: Vec<_> = refused
                .iter()
                .map(|(_, one)| format!("{}: {}", one.resource, one.reason))
                .collect();
            anyhow::bail!("{}", lines.join("\n"));
        }
        if events.is_none() {
            self.listeners.open();
        }
        let (resolved, mut resolutions) = mpsc::channel(RESOLVED_QUEUED_MAX);
        let mut resolver = Resolver::new(resolved);
        let mut warming = tokio::time::interval(WARMING_CHECK);
        let mut looking = tokio::time::interval(self.look.unwrap_or(NO_LOOK).max(LOOK_MIN));
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quitting = self.quitting.clone();
        let mut shutdown = ShutdownSignals::listen()?;
        let (mut saving, mut files) = (every(SAVE_EVERY), every(FILES_LOOK));
        let grace = tokio::time::sleep(GRACE);
        tokio::pin!(grace);
        let mut in_grace = events.is_some() && self.last_known.is_some();
        loop {
            resolver.follow(&self.discovery.held().clusters);
            tokio::select! {
                event = next(&mut events) => {
                    // Either it is there, or its absence is acted upon now.
                    in_grace = false;
                    self.event(event).await?;
                }
                () = &mut grace, if in_grace => {
                    in_grace = false;
                    self.restore().await?;
                }
                Some(name) = self.demands.recv(), if self.look.is_some() => self.discovery.demand(name).await,
                _ = looking.tick(), if self.look.is_some() => self.discovery.forget_unused().await?,
                _ = files.tick() => self.discovery.look_at_files().await?,
                _ = saving.tick(), if self.last_known.is_some() => self.save(),
                newer = newer(self.identity.as_ref()) => {
                    if let Some(own) = &mut self.identity {
                        own.generation = newer.generation;
                    }
                    if let Some(gate) = &self.certificate {
                        gate.open();
                    }
                    self.discovery.secrets(|secrets| secrets.set_identity(Some(newer))).await?;
                }
                Some((cluster, assignment)) = resolutions.recv() => {
                    self.discovery.resolved(cluster, assignment).await?;
                }
                _ = warming.tick(), if self.discovery.is_unsettled() => {
                    self.discovery.settle().await?;
                    self.open_when_complete();
                }
                _ = quitting.wait_for(|quit| *quit) => break,
                signal = shutdown.next() => {
                    tracing::info!(?signal, "the proxy ends");
                    break;
                }
            }
            if self.workers.any_ended() {
                anyhow::bail!("a worker thread has ended");
            }
        }
        self.drain(drain_time, &mut shutdown).await;
        Ok(())
    }

    /// The discovery stream, where the bootstrap has one.
    async fn connect(&mut self, bootstrap: &Bootstrap) -> anyhow::Result<Option<mpsc::Receiver<Event>>> {
        let Some(ads) = &bootstrap.ads else {
            return Ok(None);
        };
        let cluster = bootstrap.resources.clusters.get(&ads.cluster);
        let cluster = cluster
            .with_context(|| format!("ads_config names the cluster {}, which is not there", ads.cluster))?;
        let address = discovery_address(cluster)?;
        let connector = match &self.identity {
            Some(own) => {
                let issuer = Issuer {
                    address,
                    ..own.issuer.clone()
                };
                control_plane_connector(issuer, own.store.clone())
            }
            None => plaintext(address),
        };
        let mut options = ClientOptions::new(node(&bootstrap.node), connector);
        if !ads.delta {
            options.protocol = Protocol::StateOfTheWorld;
        }
        if let Some(load) = self.load.take() {
            options.load = Some(Box::new(load));
            // Whoever takes reports of load may take recordings, too; a control plane that does not says so.
            let source = recorder::Source::new(self.registry.recorder(), self.clock.clone());
            options.recording = Some(Box::new(source));
        }
        self.registry.control().lost(self.clock.now());
        let (handle, events) = client::spawn(options);
        self.discovery.use_control_plane(handle).await;
        Ok(Some(events))
    }

    async fn event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Connected => {
                self.registry.control().connected(self.clock.now());
                tracing::info!("connected to the control plane");
            }
            Event::Disconnected { reason, retry_in } => {
                self.registry.control().lost(self.clock.now());
                tracing::warn!(%reason, ?retry_in, "no control plane; serving on what is known");
                self.restore().await?;
            }
            Event::Update(update) => {
                self.discovery.update(update).await?;
                self.source.send_replace(None);
                self.open_when_complete();
            }
        }
        Ok(())
    }

    /// Takes the last known configuration where nothing whole has come from the control plane and it was not tried yet.
    async fn restore(&mut self) -> anyhow::Result<()> {
        if self.discovery.is_complete() || self.discovery.last_known().is_some() {
            return Ok(());
        }
        let Some(file) = &self.last_known else {
            return Ok(());
        };
        match file.read(self.clock.wall()) {
            Ok(known) => {
                let written = known.written;
                self.discovery.restore(known).await?;
                self.source.send_replace(Some(written));
                tracing::warn!(
                    given = %rfc3339(written),
                    "no control plane: serving on the last known configuration"
                );
                self.open_when_complete();
            }
            Err(error) => tracing::info!(%error, "no last known configuration"),
        }
        Ok(())
    }

    /// Writes what the control plane gave, off this thread.
    fn save(&mut self) {
        let Some(file) = &self.last_known else { return };
        let Some(resources) = self.discovery.take_unsaved() else {
            return;
        };
        let (file, now) = (file.clone(), self.clock.wall());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = file.write(&resources, now) {
                tracing::warn!(%error, "the last known configuration can't be kept");
            }
        });
    }

    fn open_when_complete(&self) {
        if self.discovery.is_complete() {
            self.listeners.open();
        }
    }

    /// No new keep-alive, GOAWAY; ends when no connection is left or the time is over.
    async fn drain(mut self, drain_time: Duration, shutdown: &mut ShutdownSignals) {
        self.drain.send_replace(true);
        let finished = async {
            while self.workers.active_connections() > 0 {
                tokio::time::sleep(DRAIN_CHECK).await;
            }
        };
        tokio::select! {
            () = finished => {}
            () = tokio::time::sleep(drain_time) => {
                tracing::info!(connections = self.workers.active_connections(), "the drain time is over");
            }
            _ = shutdown.next() => {}
        }
        self.discovery.close_listeners();
    }
}

/// The next identity of this process; without an enrolment there is never one.
async fn newer(own: Option<&Own>) -> Arc<Identity> {
    let newer = match own {
        Some(own) => own.store.newer_than(own.generation).await,
        None => None,
    };
    match newer {
        Some(identity) => identity,
        None => std::future::pending().await,
    }
}

/// The node as the discovery client sends it.
fn node(node: &bootstrap::Node) -> Node {
    Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: node.metadata.clone(),
        user_agent: "rajut".into(),
        ..Node::default()
    }
}

/// Where the discovery cluster's first endpoint is.
fn discovery_address(cluster: &Cluster) -> anyhow::Result<String> {
    let assignment = match &cluster.discovery {
        Discover::Static(assignment) | Discover::StrictDns(assignment) | Discover::LogicalDns(assignment) => {
            assignment
        }
        Discover::Eds { .. } | Discover::OriginalDst => {
            anyhow::bail!(
                "cluster {}: the control plane's own cluster must give its endpoints in place",
                cluster.name
            )
        }
    };
    let first = assignment.endpoints().next();
    let first =
        first.with_context(|| format!("cluster {}: the control plane has no endpoint", cluster.name))?;
    Ok(first.address.to_string())
}

/// A connector without TLS, for a bootstrap that has no enrolment: a control plane on a trusted socket.
fn plaintext(address: String) -> Connector {
    Connector::new(move || {
        let address = address.clone();
        async move {
            let mut addresses = socket::lookup_host(&address).await?;
            let to = addresses
                .next()
                .ok_or_else(|| io::Error::other(format!("{address} has no address")))?;
            socket::connect(to, &ConnectOptions::default()).await
        }
    })
}

/// The next event; without a control plane there is never one.
async fn next(events: &mut Option<mpsc::Receiver<Event>>) -> Event {
    match events {
        Some(receiver) => match receiver.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A seed for a worker's draws: from the address space's and the process's own randomness, never for secrets.
fn seed(worker: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_usize(worker);
    hasher.finish()
}
