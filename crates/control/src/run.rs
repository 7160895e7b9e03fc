//! The control plane put together: registry, issuer, discovery, both doors.
//!
//! Start order: state folder, issuer, sources, listeners, then `<state>/control.json` tells where everything is; `/ready`
//! opens when the first snapshot stands and, where a supervisor is to tell what runs, when it has. Nothing is pushed
//! before that. On the way out the socket and `control.json` are removed; proxies keep what they
//! have.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rajut_config::Source;
use rajut_identity::Identity;
use rajut_platform::socket::{ListenOptions, TcpListener, UnixListener, listen, listen_unix};
use rajut_registry::{Registry, RegistryError, RegistryOptions, watch as registry_watch};
use rajut_runtime::{
    Clock,
    drain::{self, Drain, Trigger},
    readiness::{Gate, Readiness},
};
use rajut_types::{Text, TrustDomain};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    accept::spawn_acceptor,
    admin::{self, Admin},
    ca::{CertificateAuthority, IssueError, KeystoreError, SERVER_NAME},
    discovery::Discovery,
    keys,
    notify::{Alertmanager, Notifier},
    observe::{Observer, alarm::LEARNING},
    orders::Orders,
    recorder::Recorder,
    trust,
    wire::serve_grpc,
};

/// The gate that the supervisor's list of workloads opens.
pub(crate) const WORKLOADS_GATE: &str = "workloads";

/// How a control plane is set up.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// Files and folders of configuration.
    pub paths: Vec<PathBuf>,
    /// Texts that were read elsewhere (`<stdin>`, the built-in example).
    pub texts: Vec<Source>,
    /// Namespace of documents without one.
    pub default_namespace: Text,
    /// Where keys, applied objects and addresses are kept.
    pub state_dir: PathBuf,
    /// The TLS port; port 0 takes any.
    pub listen: SocketAddr,
    /// Where a scraper reads the own metrics; `None`: only the operator does.
    pub metrics: Option<SocketAddr>,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Life of workloads' certificates; default 24 h.
    pub certificate_ttl: Duration,
    /// A supervisor tells which workloads run, after each start: until it has, proxies are told nothing and keep what
    /// they have, since half a mesh would take the other half from them.
    pub awaits_workloads: bool,
    /// Who is told of alarms.
    pub alertmanager: Option<Alertmanager>,
    /// How long after its start a workload's first call of a service is no alarm.
    pub learning: Duration,
    /// Time.
    pub clock: Clock,
}

impl ControlOptions {
    /// The usual, with everything kept in `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            paths: Vec::new(),
            texts: Vec::new(),
            default_namespace: "default".into(),
            state_dir: state_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics: None,
            trust_domain: TrustDomain::default(),
            certificate_ttl: Duration::from_hours(24),
            awaits_workloads: false,
            alertmanager: None,
            learning: LEARNING,
            clock: Clock::system(),
        }
    }
}

/// Why a control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file or socket.
    #[error("{what} `{path}`: {source}")]
    Path {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The TLS port can't be opened.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The issuer can't be opened.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The own certificate can't be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The sources can't be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A running control plane. Dropping it stops it.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    admin: Admin,
    state_dir: PathBuf,
    tasks: JoinSet<()>,
    drain: Trigger,
}

/// Starts and serves until the drain begins.
pub async fn run(options: ControlOptions, drain: Drain) -> Result<(), ControlError> {
    let control = start(options).await?;
    drain.started().await;
    control.stop();
    Ok(())
}

/// Starts everything; returns when both doors are open.
pub async fn start(options: ControlOptions) -> Result<Control, ControlError> {
    let state_dir = options.state_dir.clone();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state_dir)
        .map_err(at("can't make the state folder", &state_dir))?;
    let clock = options.clock.clone();
    let authority = open_authority(&options)?;
    let registry = open_registry(&options, authority.told()).await?;
    let readiness = Readiness::default();
    let serving = readiness.gate("listeners");
    let workloads = workloads_gate(&readiness, &options);
    let discovery = Discovery::new(clock.clone());
    let observer = observer(&registry, &options);
    discovery.spawn_push(registry.snapshots(), readiness.clone());
    registry_watch::spawn(registry.clone(), &options.paths);

    let (listener, address) = tcp_listener(options.listen)?;
    let (identity, newest) = watch::channel(Arc::new(authority.own_identity(address.ip(), 1)?));
    let accepted = spawn_acceptor(listener, newest, trust_domains(&options, &registry));
    let mut tasks = JoinSet::new();
    tasks.spawn(keys::keep(registry.clone(), state_dir.clone()));
    let notifier = watch_and_tell(&mut tasks, &observer, &options);
    let recorder = open_recorder(&mut tasks, &options, &registry).await?;
    tasks.spawn(renew_own(
        Arc::clone(&authority),
        address.ip(),
        identity,
        clock.clone(),
    ));
    let (trigger, drain) = drain::channel();
    // Not in the set: it ends by itself when its connections have been told to go.
    tokio::spawn(serve_grpc(
        accepted,
        discovery.clone(),
        Arc::clone(&authority),
        (observer.clone(), recorder.clone()),
        clock.clone(),
        drain,
    ));

    let admin = Admin {
        registry,
        discovery,
        observer,
        notifier,
        recorder,
        authority,
        readiness,
        orders: Orders::default(),
        workloads,
        clock,
    };
    let (listener, owner) = admin_listener(&state_dir.join("control.sock"), &state_dir)?;
    tasks.spawn(admin::serve(listener, owner, admin.clone()));
    trust::spawn(&mut tasks, &admin);
    spawn_metrics(&mut tasks, options.metrics, &admin);
    write_description(&state_dir, address, &options.trust_domain)?;
    serving.open();
    tracing::info!(%address, state = %state_dir.display(), "control plane ready");
    Ok(Control {
        address,
        admin,
        state_dir,
        tasks,
        drain: trigger,
    })
}

/// Goes on with the alarms of the state folder.
fn observer(registry: &Registry, options: &ControlOptions) -> Observer {
    let observer = Observer::new(registry.snapshots(), options.clock.clone(), options.learning);
    observer.keep_in(&options.state_dir);
    observer
}

/// Looks for what is out of the ordinary, and tells it where somebody is to be told.
fn watch_and_tell(
    tasks: &mut JoinSet<()>,
    observer: &Observer,
    options: &ControlOptions,
) -> Option<Notifier> {
    tasks.spawn(observer.clone().keep_watch());
    let notifier = Notifier::new(options.alertmanager.clone()?);
    tasks.spawn(notifier.clone().keep_telling(observer.clone()));
    Some(notifier)
}

/// Whose workloads are of this mesh.
fn trust_domains(options: &ControlOptions, registry: &Registry) -> Vec<TrustDomain> {
    let mesh = registry.snapshot().mesh.clone();
    let domains = std::iter::once(&options.trust_domain).chain(&mesh.trust_domain_aliases);
    domains.cloned().collect()
}

/// Closed only where somebody is to open it.
fn workloads_gate(readiness: &Readiness, options: &ControlOptions) -> Gate {
    let gate = readiness.gate(WORKLOADS_GATE);
    if !options.awaits_workloads {
        gate.open();
    }
    gate
}

impl Control {
    /// Where the TLS port listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the admin door works on, for a process that embeds the control plane.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Stops serving and removes what tells others where it was.
    pub fn stop(mut self) {
        self.drain.start();
        self.admin.discovery.close();
        self.tasks.abort_all();
        for name in ["control.json", "control.sock"] {
            let path = self.state_dir.join(name);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "not removed");
            }
        }
    }
}

fn open_authority(options: &ControlOptions) -> Result<Arc<CertificateAuthority>, KeystoreError> {
    let folder = options.state_dir.join("ca");
    let (domain, life) = (options.trust_domain.clone(), options.certificate_ttl);
    CertificateAuthority::open(&folder, domain, life, options.clock.clone()).map(Arc::new)
}

async fn open_registry(options: &ControlOptions, told: (Text, Text)) -> Result<Registry, ControlError> {
    let registry = RegistryOptions {
        paths: options.paths.clone(),
        texts: options.texts.clone(),
        state: options.state_dir.clone(),
        default_namespace: options.default_namespace.clone(),
        trust_domain: options.trust_domain.clone(),
    };
    let path = options.state_dir.clone();
    let open = move || {
        let known = keys::remembered(&registry.state);
        let registry = Registry::open(registry)?;
        registry.set_key_sets(known);
        // The first snapshot that anybody is told has it.
        registry.set_trust(told);
        Ok::<_, RegistryError>(registry)
    };
    tokio::task::spawn_blocking(open)
        .await
        .map_err(|error| at("reading failed", &path)(io::Error::other(error)))?
        .map_err(ControlError::from)
}

/// What was recorded before is looked at on a thread that may wait.
async fn open_recorder(
    tasks: &mut JoinSet<()>,
    options: &ControlOptions,
    registry: &Registry,
) -> Result<Recorder, ControlError> {
    let (state, snapshots, clock) = (
        options.state_dir.clone(),
        registry.snapshots(),
        options.clock.clone(),
    );
    let path = state.clone();
    let (recorder, keeping) = tokio::task::spawn_blocking(move || Recorder::open(&state, snapshots, clock))
        .await
        .map_err(|error| at("opening the records failed", &path)(io::Error::other(error)))?;
    tasks.spawn(keeping);
    Ok(recorder)
}

/// The mesh works without: somebody else's port is no reason to have none.
fn spawn_metrics(tasks: &mut JoinSet<()>, address: Option<SocketAddr>, admin: &Admin) {
    let Some(address) = address else { return };
    match tcp_listener(address) {
        Ok((listener, _)) => drop(tasks.spawn(admin::serve_metrics(listener, admin.clone()))),
        Err(error) => tracing::warn!(%address, %error, "the own metrics can't be scraped"),
    }
}

fn tcp_listener(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ControlError> {
    listen(address, &ListenOptions::default())
        .and_then(|listener| {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let bound = listener.local_addr()?;
            Ok((listener, bound))
        })
        .map_err(|source| ControlError::Listen { address, source })
}

fn admin_listener(socket: &Path, state_dir: &Path) -> Result<(UnixListener, u32), ControlError> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("can't remove the old socket", socket)(error));
        }
        _ => {}
    }
    let listener = listen_unix(socket, 0o600)
        .and_then(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        })
        .map_err(at("can't listen on the socket", socket))?;
    // Whoever owns a file that this process has just made is the user it runs as.
    let owner = std::fs::metadata(socket)
        .map_err(at("can't look at", state_dir))?
        .uid();
    Ok((listener, owner))
}

fn write_description(
    state_dir: &Path,
    address: SocketAddr,
    trust_domain: &TrustDomain,
) -> Result<(), ControlError> {
    let description = json!({
        "address": address.to_string(),
        "serverName": SERVER_NAME,
        "rootCert": state_dir.join("ca/root-cert.pem"),
        "adminSocket": state_dir.join("control.sock"),
        "trustDomain": trust_domain.as_str(),
        "pid": std::process::id(),
    });
    let (path, fresh) = (state_dir.join("control.json"), state_dir.join("control.json.new"));
    std::fs::write(&fresh, description.to_string() + "\n")
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(at("can't write", &path))
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Path { what, path, source }
}

/// Renews the control plane's own certificate at half its life, and when the mesh's roots or the issuer are others: it is
/// judged by them, and judges by them.
async fn renew_own(
    authority: Arc<CertificateAuthority>,
    address: IpAddr,
    identity: watch::Sender<Arc<Identity>>,
    clock: Clock,
) {
    let mut version = authority.version();
    loop {
        let (remaining, generation) = {
            let current = identity.borrow();
            (current.remaining(clock.wall()), current.generation)
        };
        // Late or not: it is time for another.
        let half = (remaining / 2).max(Duration::from_secs(1));
        let _ = tokio::time::timeout(half, authority.changed(&version)).await;
        version = authority.version();
        match authority.own_identity(address, generation + 1) {
            Ok(renewed) => {
                identity.send_replace(Arc::new(renewed));
            }
            Err(error) => {
                tracing::error!(%error, "the control plane's certificate is not renewed");
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
        }
    }
}
