//! From resources to a configuration that workers can run on: compiles what is new, reuses what is unchanged, and holds
//! back listeners and routes until the endpoints that they need have arrived (make before break).
//!
//! ```text
//!  clusters ──► warm? ──no──► listeners and routes stay as they were (at most WARMING_MAX)
//!                 │yes
//!                 ▼
//!  listeners whose routes are known, routes ──► Config (one version) ──► every worker
//! ```
//!
//! Pure but for the compiled TLS configurations, which read files that the configuration names. A resource that can't
//! be compiled is refused by name and the rest goes on; the previous one of that name keeps serving.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use rajut_ir::{
    ResourceKind,
    endpoint::LoadAssignment,
    filter::{HttpFilter, HttpFilterKind},
    http::RouteSource,
    listener as ir,
    route::{RouteActionKind, RouteConfiguration, Target},
    tls::SecretSource,
};
use rajut_types::Text;

use crate::{
    access_log,
    cluster::{Clusters, Slot, demand::is_on_demand, slot::transports},
    epoch::Config,
    held::{ClusterSource, Endpoints, Held},
    http::{filters::Routes, manager::Manager},
    listener::{Action, Chain, Listener, access::Access, authorize::Asker, chain::Matcher},
    on_demand::OnDemand,
    stats::Registry,
    tcp,
    tls::secrets::Secrets,
};

/// How long listeners and routes wait for endpoints that the control plane does not send: as long as Envoy waits for the
/// first answer (`initial_fetch_timeout`).
pub const WARMING_MAX: Duration = Duration::from_secs(15);

/// How long a removed cluster serves the routes that still name it.
pub const REMOVED_LINGERS: Duration = Duration::from_secs(5);

/// A resource that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name.
    pub name: Text,
    /// What is wrong.
    pub reason: String,
}

/// What one round of assembling gave.
#[derive(Debug)]
pub struct Assembled {
    /// The configuration to adopt.
    pub config: Arc<Config>,
    /// What could not be compiled.
    pub refused: Vec<Refused>,
    /// Clusters and routes that are waited for; listeners and routes that need them are as before.
    pub warming: BTreeSet<Text>,
}

/// Keeps what was compiled, by the identity of what it was compiled from.
#[derive(Debug)]
pub struct Assembler {
    registry: Arc<Registry>,
    version: u64,
    previous: Arc<Config>,
    clusters: HashMap<Text, CompiledCluster>,
    routes: HashMap<Text, (Arc<RouteConfiguration>, Arc<Routes>)>,
    listeners: HashMap<Text, (Arc<ir::Listener>, u64, Arc<Listener>)>,
    waiting_since: HashMap<Text, Instant>,
    is_warming: bool,
}

/// What a configuration is assembled from.
#[derive(Debug, Clone, Copy)]
pub struct Given<'g> {
    /// Resources.
    pub held: &'g Held,
    /// The endpoints of DNS clusters, by cluster.
    pub resolved: &'g HashMap<Text, Arc<LoadAssignment>>,
    /// Own identity and named secrets.
    pub secrets: &'g Arc<Secrets>,
    /// Set where clusters of services come when a request needs them.
    pub on_demand: Option<&'g OnDemand>,
    /// The time.
    pub now: Instant,
}

impl Given<'_> {
    /// Whether a cluster that a request has asked for still lacks its endpoints.
    fn waits_for_endpoints(&self, name: &str, source: &ClusterSource, endpoints: Option<&Endpoints>) -> bool {
        self.on_demand.is_some() && is_on_demand(name) && source.eds().is_some() && endpoints.is_none()
    }
}

#[derive(Debug)]
struct CompiledCluster {
    source: ClusterSource,
    endpoints: Option<Endpoints>,
    secrets: u64,
    slot: Arc<Slot>,
    /// Since when the control plane does not have it any more.
    removed: Option<Instant>,
}

/// The EDS names that `clusters` ask for.
pub fn assignment_names<'a>(clusters: impl IntoIterator<Item = &'a ClusterSource>) -> BTreeSet<Text> {
    let clusters = clusters.into_iter();
    clusters.filter_map(|source| source.eds().cloned()).collect()
}

/// The clusters that listeners and routes name and that do not come on demand: they are there from the start.
pub fn standing_clusters(held: &Held) -> BTreeSet<Text> {
    let mut names = BTreeSet::new();
    for routes in held.routes.values() {
        targets(routes, &mut names);
    }
    for listener in held.listeners.values() {
        let chains = listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain);
        for chain in chains {
            match &chain.action {
                ir::ChainAction::Tcp(proxy) => {
                    names.extend(proxy.clusters.iter().map(|(name, _)| name.clone()));
                }
                ir::ChainAction::Http(manager) => {
                    if let RouteSource::Inline(routes) = &manager.routes {
                        targets(routes, &mut names);
                    }
                }
            }
        }
    }
    names.retain(|name| !is_on_demand(name));
    names
}

/// Adds the clusters that a table's routes name.
fn targets(table: &RouteConfiguration, names: &mut BTreeSet<Text>) {
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    for route in routes {
        let RouteActionKind::Forward(forward) = &route.action else {
            continue;
        };
        match &forward.target {
            Target::Cluster(name) => drop(names.insert(name.clone())),
            Target::Weighted(clusters) => names.extend(clusters.iter().map(|one| one.name.clone())),
            // Whatever the header names is fetched when it is named.
            Target::Header(_) => {}
        }
        names.extend(forward.mirrors.iter().map(|mirror| mirror.cluster.clone()));
    }
}

/// The RDS names that a listener asks for.
pub fn route_names(listener: &ir::Listener) -> BTreeSet<Text> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let managers = chains.filter_map(|chain| match &chain.action {
        ir::ChainAction::Http(manager) => Some(manager),
        ir::ChainAction::Tcp(_) => None,
    });
    let name = |manager: &Arc<rajut_ir::http::HttpConnectionManager>| match &manager.routes {
        RouteSource::Rds(name) => Some(name.clone()),
        RouteSource::Inline(_) => None,
    };
    managers.chain(&listener.api_listener).filter_map(name).collect()
}

/// The files that the TLS of a listener is read from.
pub fn secret_files(listener: &ir::Listener) -> BTreeSet<Text> {
    let names = sds_names(listener);
    let paths = names.iter().flat_map(|name| {
        let pair = name
            .strip_prefix("file-cert:")
            .and_then(|files| files.split_once('~'));
        let roots = name.strip_prefix("file-root:").filter(|path| *path != "system");
        let (chain, key) = pair.unzip();
        chain.into_iter().chain(key).chain(roots)
    });
    paths.map(Text::from).collect()
}

/// The SDS names that a listener asks the control plane for: not the workload's own identity, and not files.
pub fn secret_names(listener: &ir::Listener) -> BTreeSet<Text> {
    let mut names = sds_names(listener);
    names.retain(|name| !matches!(&**name, "default" | "ROOTCA") && !name.starts_with("file-"));
    names
}

fn sds_names(listener: &ir::Listener) -> BTreeSet<Text> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let mut names = BTreeSet::new();
    for common in chains
        .filter_map(|chain| chain.tls.as_ref())
        .map(|tls| &tls.common)
    {
        names.extend(common.certificates.iter().filter_map(|source| match source {
            SecretSource::Sds(name) => Some(name.clone()),
            SecretSource::Inline(_) => None,
        }));
        names.extend(common.validation.iter().filter_map(|one| one.sds.clone()));
    }
    names
}

impl Assembler {
    /// Nothing compiled yet; counters live in `registry`.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            version: 0,
            previous: Arc::default(),
            clusters: HashMap::new(),
            routes: HashMap::new(),
            listeners: HashMap::new(),
            waiting_since: HashMap::new(),
            is_warming: false,
        }
    }

    /// Compiles what is new of `given`.
    pub fn assemble(&mut self, given: &Given<'_>) -> Assembled {
        let mut refused = Vec::new();
        let clusters = self.compile_clusters(given, &mut refused);
        let warming = self.warming(given);
        self.is_warming = !warming.is_empty();
        let (listeners, routes) = if warming.is_empty() {
            let routes = self.compile_routes(given.held);
            let listeners = self.compile_listeners(given.held, given.secrets, &mut refused);
            (listeners, routes)
        } else {
            (self.previous.listeners.clone(), self.previous.routes.clone())
        };
        let redirected = listeners
            .values()
            .filter(|listener| !listener.ir.bind_to_port)
            .map(|listener| (listener.ir.address.socket, listener.clone()))
            .collect();
        self.version += 1;
        let config = Arc::new(Config {
            version: self.version,
            listeners,
            redirected,
            routes,
            clusters,
            demand: given.on_demand.map(|it| it.demand.clone()),
            absent: given.on_demand.map(|it| it.absent.clone()).unwrap_or_default(),
            revoked: given
                .secrets
                .identity()
                .and_then(|identity| identity.roots.revoked().cloned()),
        });
        self.previous = config.clone();
        Assembled {
            config,
            refused,
            warming,
        }
    }

    /// Clusters that are gone and serve on for [`REMOVED_LINGERS`]: `Some(true)` where one has done so for long enough, which
    /// the next round acts upon.
    pub fn lingering(&self, now: Instant) -> Option<bool> {
        let removed = self.clusters.values().filter_map(|entry| entry.removed);
        let since = removed.min()?;
        Some(now.duration_since(since) >= REMOVED_LINGERS)
    }

    /// Whether the last round held listeners and routes back.
    pub fn is_warming(&self) -> bool {
        self.is_warming
    }

    /// Clusters, assignments, routes and secrets that were asked for and have not come, within the time that they are waited for.
    fn warming(&mut self, given: &Given<'_>) -> BTreeSet<Text> {
        let held = given.held;
        let needed = held
            .clusters
            .iter()
            .filter(|(name, _)| given.on_demand.is_none() || !is_on_demand(name))
            .filter_map(|(_, source)| source.eds().cloned());
        let mut missing: BTreeSet<Text> = needed
            .filter(|name| !held.assignments.contains_key(name))
            .collect();
        let routes = held.listeners.values().flat_map(|listener| route_names(listener));
        missing.extend(routes.filter(|name| !held.routes.contains_key(name)));
        let secrets = held
            .listeners
            .values()
            .flat_map(|listener| secret_names(listener));
        missing.extend(secrets.filter(|name| !held.secrets.contains_key(name)));
        if let Some(on_demand) = given.on_demand {
            let unknown = |name: &Text| !held.clusters.contains_key(name) && !on_demand.absent.contains(name);
            missing.extend(standing_clusters(held).into_iter().filter(unknown));
        }
        self.waiting_since.retain(|name, _| missing.contains(name));
        let still_waited_for = |name: &Text| {
            let since = *self.waiting_since.entry(name.clone()).or_insert(given.now);
            given.now.duration_since(since) < WARMING_MAX
        };
        missing.into_iter().filter(still_waited_for).collect()
    }

    fn compile_clusters(&mut self, given: &Given<'_>, refused: &mut Vec<Refused>) -> Clusters {
        let mut compiled = HashMap::with_capacity(given.held.clusters.len());
        for (name, source) in &given.held.clusters {
            let endpoints = match source.eds() {
                Some(eds) => given.held.assignments.get(eds).cloned(),
                None => given.resolved.get(name).cloned().map(Endpoints::Kept),
            };
            if given.waits_for_endpoints(name, source, endpoints.as_ref()) {
                // Not offered before it can be used; the one before serves on.
                if let Some(before) = self.clusters.get(name) {
                    compiled.insert(name.clone(), before.slot.clone());
                }
                continue;
            }
            let before = self.clusters.remove(name);
            match self.compile_cluster(name, source, endpoints, given, before) {
                Ok(entry) => {
                    compiled.insert(name.clone(), entry.slot.clone());
                    self.clusters.insert(name.clone(), entry);
                }
                Err(kept) => {
                    let (reason, before) = *kept;
                    refused.push(Refused {
                        kind: ResourceKind::Cluster,
                        name: name.clone(),
                        reason,
                    });
                    if let Some(entry) = before {
                        compiled.insert(name.clone(), entry.slot.clone());
                        self.clusters.insert(name.clone(), entry);
                    }
                }
            }
        }
        // The routes that name a removed cluster are replaced by a later update of the same push.
        let now = given.now;
        self.clusters.retain(|name, entry| {
            if given.held.clusters.contains_key(name) {
                entry.removed = None;
                return true;
            }
            let lingers = now.duration_since(*entry.removed.get_or_insert(now)) < REMOVED_LINGERS;
            if lingers {
                compiled.insert(name.clone(), entry.slot.clone());
            }
            lingers
        });
        compiled
    }

    /// The slot of a cluster: the one that is there where nothing changed. An error gives back what was there.
    fn compile_cluster(
        &self,
        name: &Text,
        source: &ClusterSource,
        endpoints: Option<Endpoints>,
        given: &Given<'_>,
        before: Option<CompiledCluster>,
    ) -> Result<CompiledCluster, Box<(String, Option<CompiledCluster>)>> {
        let generation = given.secrets.generation();
        let is_same = |before: &CompiledCluster| before.source == *source && before.secrets == generation;
        let before = match before {
            Some(before) if is_same(&before) && before.endpoints == endpoints => {
                before.slot.is_adopted();
                return Ok(before);
            }
            other => other,
        };
        if source.has_tls() && !before.as_ref().is_some_and(is_same) {
            let checked = source
                .decode()
                .and_then(|ir| transports(&ir, given.secrets).map(drop));
            if let Err(reason) = checked {
                return Err(Box::new((reason, before)));
            }
        }
        let slot = Slot::new(
            name.clone(),
            source.clone(),
            endpoints.clone(),
            given.secrets.clone(),
            self.registry.clone(),
            before.map(|before| before.slot),
        );
        Ok(CompiledCluster {
            source: source.clone(),
            endpoints,
            secrets: generation,
            slot,
            removed: None,
        })
    }

    /// Forgets a cluster at once: it was not used for long.
    pub fn forget(&mut self, name: &Text) {
        self.clusters.remove(name);
    }

    /// The slot of a cluster.
    pub fn slot(&self, name: &Text) -> Option<&Arc<Slot>> {
        self.clusters.get(name).map(|entry| &entry.slot)
    }

    fn compile_routes(&mut self, held: &Held) -> HashMap<Text, Arc<Routes>> {
        let mut compiled = HashMap::with_capacity(held.routes.len());
        for (name, ir) in &held.routes {
            let table = match self.routes.get(name) {
                Some((known, table)) if Arc::ptr_eq(known, ir) => table.clone(),
                _ => Arc::new(Routes::compile(ir, &self.registry)),
            };
            self.routes.insert(name.clone(), (ir.clone(), table.clone()));
            compiled.insert(name.clone(), table);
        }
        self.routes.retain(|name, _| compiled.contains_key(name));
        compiled
    }

    fn compile_listeners(
        &mut self,
        held: &Held,
        secrets: &Secrets,
        refused: &mut Vec<Refused>,
    ) -> HashMap<Text, Arc<Listener>> {
        let mut compiled = HashMap::with_capacity(held.listeners.len());
        for (name, ir) in &held.listeners {
            let known = self.listeners.remove(name);
            if let Some((before, generation, running)) = &known
                && Arc::ptr_eq(before, ir)
                && *generation == secrets.generation()
            {
                compiled.insert(name.clone(), running.clone());
                self.listeners
                    .insert(name.clone(), (ir.clone(), *generation, running.clone()));
                continue;
            }
            match listener(ir, secrets, &self.registry) {
                Ok(running) => {
                    let running = Arc::new(running);
                    compiled.insert(name.clone(), running.clone());
                    self.listeners
                        .insert(name.clone(), (ir.clone(), secrets.generation(), running));
                }
                Err(reason) => {
                    refused.push(Refused {
                        kind: ResourceKind::Listener,
                        name: name.clone(),
                        reason,
                    });
                    if let Some(known) = known {
                        compiled.insert(name.clone(), known.2.clone());
                        self.listeners.insert(name.clone(), known);
                    }
                }
            }
        }
        self.listeners.retain(|name, _| compiled.contains_key(name));
        compiled
    }
}

/// Whether a provider of external authorization is to see the certificates of peers.
fn shows_certificate(chain: &ir::FilterChain) -> bool {
    let of_filter = |filter: &HttpFilter| matches!(&filter.kind, HttpFilterKind::ExtAuthz(authz) if authz.include_peer_certificate);
    match &chain.action {
        ir::ChainAction::Http(manager) => manager.filters.iter().any(of_filter),
        ir::ChainAction::Tcp(_) => {
            let asked = chain.ext_authz.as_ref();
            asked.is_some_and(|(_, authz)| authz.include_peer_certificate)
        }
    }
}

fn listener(ir: &Arc<ir::Listener>, secrets: &Secrets, registry: &Registry) -> Result<Listener, String> {
    let compile = |configured: &Arc<ir::FilterChain>| -> Result<Arc<Chain>, String> {
        let action = match &configured.action {
            ir::ChainAction::Http(manager) => {
                let manager = Manager::compile(manager.clone(), ir.direction, registry);
                Action::Http(manager.map_err(|error| error.to_string())?)
            }
            ir::ChainAction::Tcp(proxy) => {
                let proxy = tcp::Proxy::compile(proxy.clone(), ir.direction, registry);
                Action::Tcp(Arc::new(proxy.map_err(|error| error.to_string())?))
            }
        };
        let tls = configured
            .tls
            .as_ref()
            .map(|tls| secrets.terminator(tls))
            .transpose();
        Ok(Arc::new(Chain {
            name: configured.name.clone(),
            tls: tls.map_err(|error| error.to_string())?,
            handshake_timeout: configured.transport_connect_timeout,
            access: configured
                .rbac
                .iter()
                .map(|rbac| Access::new(rbac.clone(), registry))
                .collect(),
            asker: configured
                .ext_authz
                .as_ref()
                .map(|(after, authz)| (*after, Asker::new(authz.clone(), registry))),
            shows_certificate: shows_certificate(configured),
            judges_open: configured.judges_open,
            action,
        }))
    };
    Ok(Listener {
        matcher: Matcher::compile(&ir.filter_chains),
        chains: ir.filter_chains.iter().map(compile).collect::<Result<_, _>>()?,
        default_chain: ir.default_filter_chain.as_ref().map(compile).transpose()?,
        logs: access_log::open_all(&ir.access_logs, registry).map_err(|error| error.to_string())?,
        ir: ir.clone(),
    })
}
