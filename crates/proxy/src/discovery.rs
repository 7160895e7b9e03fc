//! From discovery updates to adopted epochs: decodes, assembles, has every worker adopt, binds sockets, then answers.
//!
//! ```text
//!  Update ─► decode (ir::wire) ─► Resources ─► Assembler ─► workers adopt ─► sockets ─► ACK, or NACK naming what was refused
//!                 │ a refused resource keeps its previous version
//! ```
//!
//! Runs on the main thread. An update of listeners or routes that waits for endpoints is answered when it is in force. One of the
//! mesh's roots is answered when all workers believe them and show a certificate that is under the first of them: by that
//! answer the control plane knows that the next step of a change of roots breaks nothing here.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rajut_identity::{IdentityStore, Revoked, TrustBundle, context::MESH_ROOTS, trust::InvalidBundle};
use rajut_ir::{
    NameTable, ResourceKind, Resources,
    endpoint::LoadAssignment,
    secret::{Secret, SecretValue},
    tls::{DataSource, ValidationContext},
    wire,
};
use rajut_platform::memory;
use rajut_runtime::clock::Clock;
use rajut_types::Text;
use rajut_xds::{
    client::{Handle, Refusal, Ticket, Update},
    type_url,
};
use tokio::sync::watch;

use crate::{
    admin::{Dump, DumpEntry},
    assemble::{
        Assembler, Given, assignment_names, route_names, secret_files, secret_names, standing_clusters,
    },
    cluster::Cluster,
    epoch::Config,
    held::{ClusterSource, Endpoints, Held},
    last_known::{Known, Remembered},
    on_demand::OnDemand,
    sockets::Sockets,
    stats::Registry,
    tls::secrets::Secrets,
    workers::{WorkerGone, Workers},
};

/// Time between looks at what is still waited for.
pub const WARMING_CHECK: Duration = Duration::from_millis(500);

/// The main thread's state of configuration.
pub struct Discovery {
    held: Held,
    on_demand: Option<OnDemand>,
    resolved: HashMap<Text, Arc<LoadAssignment>>,
    secrets: Arc<Secrets>,
    assembler: Assembler,
    sockets: Sockets,
    workers: Rc<Workers>,
    clock: Clock,
    /// Where names and routes are subscribed to; `None` without a control plane.
    control: Option<Handle>,
    subscribed: [BTreeSet<Text>; 4],
    /// Answers that wait until nothing is warming any more.
    unanswered: Vec<(Ticket, Vec<Refusal>)>,
    /// Clusters of the bootstrap: nobody else is asked for them, and nobody takes them away.
    own_clusters: BTreeSet<Text>,
    /// Secrets of the bootstrap file.
    own_secrets: BTreeSet<Text>,
    /// The own identity, which is told the mesh's roots; `None` where the proxy has none, or not from an issuer.
    store: Option<IdentityStore>,
    /// The roots that were told last.
    trust: Option<TrustBundle>,
    /// Answers about secrets that wait until the roots are in force.
    awaiting_trust: Vec<(Ticket, Vec<Refusal>)>,
    /// What files of certificates and keys looked like when they were read last.
    files: BTreeMap<Text, Option<(SystemTime, u64)>>,
    seen_clusters: bool,
    seen_listeners: bool,
    /// Running on a file of that time, until the control plane has said what it knows.
    last_known: Option<SystemTime>,
    /// What arrived since [`Discovery::take_unsaved`].
    unsaved: bool,
    published: watch::Sender<Arc<Config>>,
    names: watch::Sender<Arc<NameTable>>,
    dump: Rc<RefCell<Dump>>,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery")
            .field("unanswered", &self.unanswered.len())
            .finish_non_exhaustive()
    }
}

/// Where the results go.
#[derive(Debug)]
pub struct Outlets {
    /// Every configuration that was adopted.
    pub config: watch::Sender<Arc<Config>>,
    /// The name table, for the DNS.
    pub names: watch::Sender<Arc<NameTable>>,
    /// The resources as received.
    pub dump: Rc<RefCell<Dump>>,
    /// Counters that outlive configurations.
    pub registry: Arc<Registry>,
}

impl Discovery {
    /// Begins with the resources of the bootstrap file.
    pub fn new(
        resources: Resources,
        on_demand: Option<OnDemand>,
        secrets: Secrets,
        workers: Rc<Workers>,
        clock: Clock,
        outlets: Outlets,
    ) -> Self {
        Self {
            own_clusters: resources.clusters.keys().cloned().collect(),
            own_secrets: resources.secrets.keys().cloned().collect(),
            held: resources.into(),
            on_demand,
            resolved: HashMap::new(),
            secrets: Arc::new(secrets),
            assembler: Assembler::new(outlets.registry),
            sockets: Sockets::default(),
            workers,
            clock,
            control: None,
            subscribed: Default::default(),
            store: None,
            trust: None,
            awaiting_trust: Vec::new(),
            files: BTreeMap::new(),
            unanswered: Vec::new(),
            seen_clusters: false,
            seen_listeners: false,
            last_known: None,
            unsaved: false,
            published: outlets.config,
            names: outlets.names,
            dump: outlets.dump,
        }
    }

    /// From now on the control plane tells this identity whom to believe.
    pub fn follow_trust(&mut self, store: IdentityStore) {
        self.store = Some(store);
    }

    /// From now on subscribes through `handle`.
    pub async fn use_control_plane(&mut self, handle: Handle) {
        for url in [type_url::LISTENER, type_url::NAME_TABLE] {
            handle.subscribe_all(url).await;
        }
        if self.on_demand.is_none() {
            handle.subscribe_all(type_url::CLUSTER).await;
        }
        self.control = Some(handle);
    }

    /// Whether listeners and clusters have come and nothing is waited for: the proxy may take traffic.
    pub fn is_complete(&self) -> bool {
        (self.seen_clusters || self.on_demand.is_some())
            && self.seen_listeners
            && !self.assembler.is_warming()
    }

    /// When what it runs on was given, where that was before this process started.
    pub fn last_known(&self) -> Option<SystemTime> {
        self.last_known
    }

    /// What is to be kept for a start without a control plane; `None` where nothing has changed since the last call, or
    /// nothing whole is there.
    pub fn take_unsaved(&mut self) -> Option<Vec<Remembered>> {
        if !self.unsaved || !self.is_complete() {
            return None;
        }
        self.unsaved = false;
        Some(self.dump.borrow().received())
    }

    /// Begins with what an earlier process of this proxy was given. What the control plane says later replaces it, and it is
    /// asked for the differences only.
    pub async fn restore(&mut self, known: Known) -> Result<(), WorkerGone> {
        let updated = rajut_runtime::clock::rfc3339(known.written);
        let mut versions: HashMap<ResourceKind, Vec<(Text, Text)>> = HashMap::new();
        for Remembered {
            kind,
            name,
            version,
            body,
        } in known.resources
        {
            if let Err(refused) = self.take(kind, &name, &body) {
                tracing::warn!(resource = %name, ?refused, "not taken from the last known configuration");
                continue;
            }
            versions
                .entry(kind)
                .or_default()
                .push((name.clone(), version.clone()));
            if let (ResourceKind::Cluster, Some(on_demand)) = (kind, &mut self.on_demand) {
                on_demand.fetch(name.clone());
            }
            let entry = DumpEntry {
                version,
                updated: updated.clone(),
                body,
                is_static: false,
            };
            self.dump.borrow_mut().insert(kind, name, entry);
        }
        self.seen_clusters = true;
        self.seen_listeners = true;
        self.last_known = Some(known.written);
        self.subscribe().await;
        for refused in self.adopt().await? {
            tracing::warn!(resource = %refused.1.resource, reason = %refused.1.reason, "not in force");
        }
        if let Some(control) = &self.control {
            for (kind, versions) in versions {
                control.remember(kind.type_url(), versions).await;
            }
        }
        Ok(())
    }

    /// Whether something passes with time alone: what was asked for is still waited for, or what is gone lingers.
    pub fn is_unsettled(&self) -> bool {
        !self.unanswered.is_empty() || self.assembler.lingering(self.clock.now()).is_some()
    }

    /// What time alone has changed.
    pub async fn settle(&mut self) -> Result<(), WorkerGone> {
        if !self.unanswered.is_empty() || self.assembler.lingering(self.clock.now()) == Some(true) {
            self.adopt().await?;
        }
        Ok(())
    }

    /// Newer secrets: the own certificate was renewed, or the trust changed.
    pub async fn secrets(&mut self, change: impl FnOnce(&mut Secrets)) -> Result<(), WorkerGone> {
        change(Arc::make_mut(&mut self.secrets));
        self.adopt().await.map(drop)
    }

    /// Looks whether files of certificates and keys have been replaced; what they hold now is in force for new connections.
    pub async fn look_at_files(&mut self) -> Result<(), WorkerGone> {
        let paths = self.held.listeners.values().flat_map(|one| secret_files(one));
        let look = |path: &Text| {
            let found = std::fs::metadata(&**path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        let files: BTreeMap<_, _> = paths.map(|path| (path.clone(), look(&path))).collect();
        // One that is looked at for the first time, too: it may have been replaced since the listener has read it.
        let replaced = files
            .iter()
            .any(|(path, now)| now.is_some() && self.files.get(path) != Some(now));
        self.files = files;
        if replaced {
            tracing::info!("files of certificates are read");
            self.secrets(Secrets::renew).await?;
        }
        Ok(())
    }

    /// Newer endpoints of a DNS cluster.
    pub async fn resolved(
        &mut self,
        cluster: Text,
        assignment: Arc<LoadAssignment>,
    ) -> Result<(), WorkerGone> {
        self.resolved.insert(cluster, assignment);
        self.adopt().await.map(drop)
    }

    /// The resources that are in force, or will be once they are complete.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// A request needs a cluster that is not there.
    pub async fn demand(&mut self, name: Text) {
        let Some(on_demand) = &mut self.on_demand else {
            return;
        };
        if self.held.clusters.contains_key(&name) || !on_demand.fetch(name) {
            return;
        }
        self.subscribe().await;
    }

    /// Looks which clusters are still used; what was not for long is forgotten, and comes again when it is needed.
    pub async fn forget_unused(&mut self) -> Result<(), WorkerGone> {
        let Some(on_demand) = &mut self.on_demand else {
            return Ok(());
        };
        let assembler = &self.assembler;
        let is_busy = |cluster: &Arc<Cluster>| cluster.hosts().iter().any(|host| host.requests_active() > 0);
        let forgotten = on_demand.sweep(|name| match assembler.slot(name) {
            Some(slot) => slot.take_wanted() || slot.running().is_some_and(is_busy),
            None => false,
        });
        if forgotten.is_empty() {
            return Ok(());
        }
        tracing::debug!(clusters = ?forgotten, "not used for long, forgotten");
        for name in &forgotten {
            self.assembler.forget(name);
            self.forget(ResourceKind::Cluster, name);
        }
        self.subscribe().await;
        self.adopt().await?;
        memory::give_back_now();
        Ok(())
    }

    /// Takes an update of the control plane to its answer.
    pub async fn update(&mut self, update: Update) -> Result<(), WorkerGone> {
        let Some(kind) = ResourceKind::of_type_url(&update.type_url) else {
            tracing::debug!(type_url = %update.type_url, "an update of a type that was not asked for");
            return Ok(());
        };
        let mut refusals = Vec::new();
        for resource in &update.resources {
            let body = resource.body.to_bytes();
            if let Err(mut refused) = self.take(kind, &resource.name, &body) {
                refusals.append(&mut refused);
                continue;
            }
            let entry = DumpEntry {
                version: resource.version.clone(),
                updated: rajut_runtime::clock::rfc3339(self.clock.wall()),
                body,
                is_static: false,
            };
            self.dump.borrow_mut().insert(kind, resource.name.clone(), entry);
        }
        for name in &update.removed {
            self.forget(kind, name);
            if kind == ResourceKind::Cluster
                && let Some(on_demand) = &mut self.on_demand
            {
                // Also where the control plane has never had it: who waits for it hears so.
                on_demand.absent.insert(name.clone());
            }
        }
        self.unsaved = true;
        self.last_known = None;
        self.seen_clusters |= kind == ResourceKind::Cluster;
        self.seen_listeners |= kind == ResourceKind::Listener;
        self.subscribe().await;
        let refused = self.adopt().await?;
        refusals.extend(
            refused
                .into_iter()
                .filter(|(of, _)| *of == kind)
                .map(|(_, refusal)| refusal),
        );
        for refusal in &refusals {
            tracing::warn!(resource = %refusal.resource, path = %refusal.path, reason = %refusal.reason, "refused");
        }
        if kind == ResourceKind::Secret && self.store.is_some() {
            self.awaiting_trust.push((update.ticket, refusals));
            self.answer_trust().await;
        } else {
            self.unanswered.push((update.ticket, refusals));
            self.answer_held(kind).await;
        }
        Ok(())
    }

    /// Assembles, has the workers adopt, binds; gives what was refused.
    pub async fn adopt(&mut self) -> Result<Vec<(ResourceKind, Refusal)>, WorkerGone> {
        let assembled = self.assembler.assemble(&Given {
            held: &self.held,
            resolved: &self.resolved,
            secrets: &self.secrets,
            on_demand: self.on_demand.as_ref(),
            now: self.clock.now(),
        });
        self.workers.adopt(&assembled.config).await?;
        let not_bound = self.sockets.apply(&assembled.config, &self.workers).await?;
        let mut refused: Vec<_> = assembled
            .refused
            .into_iter()
            .map(|refused| (refused.kind, refusal(refused.name, refused.reason)))
            .collect();
        for listener in not_bound {
            let reason = listener.to_string();
            refused.push((ResourceKind::Listener, refusal(listener.name, reason)));
        }
        self.published.send_replace(assembled.config);
        if assembled.warming.is_empty() {
            self.answer_all().await;
        } else {
            tracing::debug!(waiting_for = ?assembled.warming, "listeners and routes are held back");
        }
        self.answer_trust().await;
        Ok(refused)
    }

    /// Answers what was told of secrets once the mesh's roots are in force in every respect. In order: to answer a later one
    /// would answer those before it.
    async fn answer_trust(&mut self) {
        if self.awaiting_trust.is_empty() {
            return;
        }
        let identity = self.secrets.identity();
        let follows = |trust: &TrustBundle| identity.is_some_and(|identity| identity.follows(trust));
        if self.trust.as_ref().is_none_or(follows) {
            for (ticket, refusals) in std::mem::take(&mut self.awaiting_trust) {
                self.answer(ticket, refusals).await;
            }
        }
    }

    /// Stops accepting on all listeners.
    pub fn close_listeners(&mut self) {
        self.sockets.close_all();
    }

    /// Answers what is in force: everything when nothing is warming, else all but listeners and routes.
    async fn answer_held(&mut self, kind: ResourceKind) {
        let waits = matches!(kind, ResourceKind::Listener | ResourceKind::RouteConfiguration);
        if (!waits || !self.assembler.is_warming())
            && let Some((ticket, refusals)) = self.unanswered.pop()
        {
            self.answer(ticket, refusals).await;
        }
    }

    async fn answer_all(&mut self) {
        for (ticket, refusals) in std::mem::take(&mut self.unanswered) {
            self.answer(ticket, refusals).await;
        }
    }

    async fn answer(&self, ticket: Ticket, refusals: Vec<Refusal>) {
        if let Some(control) = &self.control {
            control.answer(ticket, refusals).await;
        }
    }

    /// Subscribes to the endpoints, routes and secrets (on demand: the clusters too) that clusters and listeners name, and drops what
    /// none names any more.
    async fn subscribe(&mut self) {
        let Some(control) = &self.control else { return };
        let routes = self
            .held
            .listeners
            .values()
            .flat_map(|listener| route_names(listener))
            .collect();
        let mut endpoints = assignment_names(self.held.clusters.values());
        let mut clusters = BTreeSet::new();
        if let Some(on_demand) = &self.on_demand {
            clusters = standing_clusters(&self.held);
            clusters.extend(on_demand.names().cloned());
            clusters.retain(|name| !self.own_clusters.contains(name));
            // At once with the cluster, whose endpoints go by its name: one round trip less.
            endpoints.extend(on_demand.names().cloned());
        }
        let mut secrets: BTreeSet<Text> = self
            .held
            .listeners
            .values()
            .flat_map(|one| secret_names(one))
            .collect();
        if self.store.is_some() {
            secrets.insert(MESH_ROOTS.into());
        }
        secrets.retain(|name| !self.own_secrets.contains(name));
        let wanted = [clusters, endpoints, routes, secrets];
        let urls = [
            type_url::CLUSTER,
            type_url::LOAD_ASSIGNMENT,
            type_url::ROUTE,
            type_url::SECRET,
        ];
        for (at, url) in urls.into_iter().enumerate() {
            let added: Vec<Text> = wanted[at].difference(&self.subscribed[at]).cloned().collect();
            let dropped: Vec<Text> = self.subscribed[at].difference(&wanted[at]).cloned().collect();
            if !added.is_empty() {
                control.subscribe(url, added).await;
            }
            for name in &dropped {
                let kind = match at {
                    0 => ResourceKind::Cluster,
                    1 => ResourceKind::LoadAssignment,
                    2 => ResourceKind::RouteConfiguration,
                    _ => ResourceKind::Secret,
                };
                match kind {
                    ResourceKind::Cluster => drop(self.held.clusters.remove(name)),
                    ResourceKind::LoadAssignment => drop(self.held.assignments.remove(name)),
                    ResourceKind::Secret => drop(self.held.secrets.remove(name)),
                    _ => drop(self.held.routes.remove(name)),
                }
                self.dump.borrow_mut().remove(kind, name);
            }
            if !dropped.is_empty() {
                control.unsubscribe(url, dropped).await;
            }
        }
        self.subscribed = wanted;
    }

    fn take(&mut self, kind: ResourceKind, name: &Text, body: &Bytes) -> Result<(), Vec<Refusal>> {
        let all = &mut self.held;
        match kind {
            ResourceKind::Cluster => {
                let cluster = accept(name, wire::decode_cluster(body))?;
                all.clusters
                    .insert(name.clone(), ClusterSource::new(cluster, body.clone()));
                if let Some(on_demand) = &mut self.on_demand {
                    on_demand.absent.remove(name);
                }
            }
            ResourceKind::LoadAssignment => {
                accept(name, wire::decode_load_assignment(body))?;
                all.assignments
                    .insert(name.clone(), Endpoints::Encoded(body.clone()));
            }
            ResourceKind::Listener => {
                let listener = accept(name, wire::decode_listener(body))?;
                all.listeners.insert(name.clone(), Arc::new(listener));
            }
            ResourceKind::RouteConfiguration => {
                let routes = accept(name, wire::decode_route_configuration(body))?;
                all.routes.insert(name.clone(), Arc::new(routes));
            }
            ResourceKind::Secret => {
                let secret = Arc::new(accept(name, wire::decode_secret(body))?);
                if let (Some(store), MESH_ROOTS) = (&self.store, &**name) {
                    let bundle = mesh_roots(&secret).map_err(|reason| vec![refusal(name.clone(), reason)])?;
                    self.trust = Some(bundle.clone());
                    store.set_trust(bundle);
                    return Ok(());
                }
                Arc::make_mut(&mut self.secrets).set_named(secret.clone());
                all.secrets.insert(name.clone(), secret);
            }
            ResourceKind::NameTable => {
                let names = Arc::new(accept(name, wire::decode_name_table(body))?);
                self.names.send_replace(names.clone());
                all.names = Some(names);
            }
        }
        Ok(())
    }

    fn forget(&mut self, kind: ResourceKind, name: &Text) {
        let all = &mut self.held;
        match kind {
            ResourceKind::Cluster if self.own_clusters.contains(name) => {}
            ResourceKind::Cluster => {
                drop(all.clusters.remove(name));
            }
            ResourceKind::LoadAssignment => drop(all.assignments.remove(name)),
            ResourceKind::Listener => drop(all.listeners.remove(name)),
            ResourceKind::RouteConfiguration => drop(all.routes.remove(name)),
            ResourceKind::Secret => drop(all.secrets.remove(name)),
            ResourceKind::NameTable => all.names = None,
        }
        self.dump.borrow_mut().remove(kind, name);
    }
}

/// Whom the mesh believes, of the secret that says so.
pub(crate) fn mesh_roots(secret: &Secret) -> Result<TrustBundle, String> {
    let SecretValue::Validation(ValidationContext {
        trusted_ca: Some(DataSource::Inline(pem)),
        crl,
        crl_of_leaf_only,
        ..
    }) = &secret.value
    else {
        return Err("the mesh's roots must be a validation context with `trusted_ca` in place".to_owned());
    };
    let read = || {
        let revoked = match crl {
            Some(DataSource::Inline(crl)) => Revoked::from_pem(crl, *crl_of_leaf_only)?,
            Some(DataSource::File(_)) | None => None,
        };
        Ok(TrustBundle::from_pem(pem)?.with_revoked(revoked))
    };
    read().map_err(|error: InvalidBundle| error.to_string())
}

fn refusal(resource: Text, reason: String) -> Refusal {
    Refusal {
        resource,
        path: String::new(),
        reason,
    }
}

/// The decoded value; what was ignored in it is said once per resource version, at debug level.
fn accept<T>(name: &Text, decoded: wire::DecodeResult<T>) -> Result<T, Vec<Refusal>> {
    match decoded {
        Ok(decoded) => {
            for ignored in &decoded.ignored {
                tracing::debug!(resource = %name, path = %ignored.path, what = %ignored.what, "ignored");
            }
            Ok(decoded.value)
        }
        Err(errors) => Err(errors
            .into_iter()
            .map(|error| Refusal {
                resource: name.clone(),
                reason: error.fault.to_string(),
                path: error.path,
            })
            .collect()),
    }
}
