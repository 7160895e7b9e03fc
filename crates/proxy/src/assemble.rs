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
    ResourceKind, Resources,
    cluster::{self, Discovery},
    endpoint::LoadAssignment,
    http::RouteSource,
    listener as ir,
    route::RouteConfiguration,
    tls::UpstreamTls,
};
use rajut_types::Text;

use crate::{
    cluster::{Cluster, Transports},
    epoch::Config,
    http::{filters::Routes, manager::Manager},
    listener::{Action, Chain, Listener, access::Access, chain::Matcher},
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

#[derive(Debug)]
struct CompiledCluster {
    ir: Arc<cluster::Cluster>,
    assignment: Option<Arc<LoadAssignment>>,
    secrets: u64,
    running: Arc<Cluster>,
    /// Since when the control plane does not have it any more.
    removed: Option<Instant>,
}

/// The EDS names that `clusters` ask for.
pub fn assignment_names<'a>(clusters: impl IntoIterator<Item = &'a Arc<cluster::Cluster>>) -> BTreeSet<Text> {
    let name = |cluster: &Arc<cluster::Cluster>| match &cluster.discovery {
        Discovery::Eds { service_name } => Some(service_name.clone()),
        _ => None,
    };
    clusters.into_iter().filter_map(name).collect()
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

    /// Compiles `resources` with `secrets`. `resolved` holds the endpoints of DNS clusters, by cluster.
    pub fn assemble(
        &mut self,
        resources: &Resources,
        resolved: &HashMap<Text, Arc<LoadAssignment>>,
        secrets: &Secrets,
        now: Instant,
    ) -> Assembled {
        let mut refused = Vec::new();
        let clusters = self.compile_clusters(resources, resolved, secrets, now, &mut refused);
        let warming = self.warming(resources, now);
        self.is_warming = !warming.is_empty();
        let (listeners, routes) = if warming.is_empty() {
            let routes = self.compile_routes(resources);
            let listeners = self.compile_listeners(resources, secrets, &mut refused);
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
        });
        self.previous = config.clone();
        Assembled {
            config,
            refused,
            warming,
        }
    }

    /// Whether the last round held listeners and routes back.
    pub fn is_warming(&self) -> bool {
        self.is_warming
    }

    /// Assignments and routes that were asked for and have not come, within the time that they are waited for.
    fn warming(&mut self, resources: &Resources, now: Instant) -> BTreeSet<Text> {
        let assignments = assignment_names(resources.clusters.values());
        let missing_assignments = assignments
            .into_iter()
            .filter(|name| !resources.assignments.contains_key(name));
        let routes = resources
            .listeners
            .values()
            .flat_map(|listener| route_names(listener));
        let missing_routes = routes.filter(|name| !resources.routes.contains_key(name));
        let missing: BTreeSet<Text> = missing_assignments.chain(missing_routes).collect();
        self.waiting_since.retain(|name, _| missing.contains(name));
        let still_waited_for = |name: &Text| {
            let since = *self.waiting_since.entry(name.clone()).or_insert(now);
            now.duration_since(since) < WARMING_MAX
        };
        missing.into_iter().filter(still_waited_for).collect()
    }

    fn compile_clusters(
        &mut self,
        resources: &Resources,
        resolved: &HashMap<Text, Arc<LoadAssignment>>,
        secrets: &Secrets,
        now: Instant,
        refused: &mut Vec<Refused>,
    ) -> HashMap<Text, Arc<Cluster>> {
        let mut compiled = HashMap::with_capacity(resources.clusters.len());
        for (name, ir) in &resources.clusters {
            let assignment = match &ir.discovery {
                Discovery::Eds { service_name } => resources.assignments.get(service_name).cloned(),
                Discovery::Static(assignment) => Some(Arc::new(assignment.clone())),
                Discovery::StrictDns(_) | Discovery::LogicalDns(_) => resolved.get(name).cloned(),
                Discovery::OriginalDst => None,
            };
            let before = self.clusters.remove(name);
            let unchanged = before.as_ref().is_some_and(|before| {
                Arc::ptr_eq(&before.ir, ir)
                    && before.secrets == secrets.generation()
                    && (before.assignment == assignment)
            });
            let entry = if unchanged {
                before
            } else {
                match transports(ir, secrets) {
                    Ok(transports) => {
                        let previous = before.as_ref().map(|before| &before.running);
                        let running = Cluster::build(
                            ir.clone(),
                            assignment.clone(),
                            transports,
                            &self.registry,
                            previous,
                        );
                        Some(CompiledCluster {
                            ir: ir.clone(),
                            assignment,
                            secrets: secrets.generation(),
                            running,
                            removed: None,
                        })
                    }
                    Err(reason) => {
                        refused.push(Refused {
                            kind: ResourceKind::Cluster,
                            name: name.clone(),
                            reason,
                        });
                        before
                    }
                }
            };
            if let Some(entry) = entry {
                compiled.insert(name.clone(), entry.running.clone());
                self.clusters.insert(name.clone(), entry);
            }
        }
        // The routes that name a removed cluster are replaced by a later update of the same push.
        self.clusters.retain(|name, entry| {
            if resources.clusters.contains_key(name) {
                entry.removed = None;
                return true;
            }
            let lingers = now.duration_since(*entry.removed.get_or_insert(now)) < REMOVED_LINGERS;
            if lingers {
                compiled.insert(name.clone(), entry.running.clone());
            }
            lingers
        });
        compiled
    }

    fn compile_routes(&mut self, resources: &Resources) -> HashMap<Text, Arc<Routes>> {
        let mut compiled = HashMap::with_capacity(resources.routes.len());
        for (name, ir) in &resources.routes {
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
        resources: &Resources,
        secrets: &Secrets,
        refused: &mut Vec<Refused>,
    ) -> HashMap<Text, Arc<Listener>> {
        let mut compiled = HashMap::with_capacity(resources.listeners.len());
        for (name, ir) in &resources.listeners {
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

fn transports(ir: &cluster::Cluster, secrets: &Secrets) -> Result<Transports, String> {
    let build = |tls: &Option<UpstreamTls>| {
        tls.as_ref()
            .map(|tls| secrets.originator(tls))
            .transpose()
            .map_err(|error| error.to_string())
    };
    Ok(Transports {
        default: build(&ir.tls)?,
        matches: ir
            .tls_matches
            .iter()
            .map(|entry| build(&entry.tls))
            .collect::<Result<_, _>>()?,
    })
}

fn listener(ir: &Arc<ir::Listener>, secrets: &Secrets, registry: &Registry) -> Result<Listener, String> {
    let compile = |configured: &Arc<ir::FilterChain>| -> Result<Arc<Chain>, String> {
        let action = match &configured.action {
            ir::ChainAction::Http(manager) => {
                Action::Http(Manager::compile(manager.clone(), registry).map_err(|error| error.to_string())?)
            }
            ir::ChainAction::Tcp(proxy) => Action::Tcp(Arc::new(tcp::Proxy::compile(proxy.clone()))),
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
            action,
        }))
    };
    Ok(Listener {
        matcher: Matcher::compile(&ir.filter_chains),
        chains: ir.filter_chains.iter().map(compile).collect::<Result<_, _>>()?,
        default_chain: ir.default_filter_chain.as_ref().map(compile).transpose()?,
        ir: ir.clone(),
    })
}
