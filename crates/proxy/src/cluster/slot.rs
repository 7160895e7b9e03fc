//! A cluster that is known: its resources as they came, and the running cluster once a request has needed it.
//!
//! ```text
//!  resource arrives ─► validated in full, kept encoded ─► Slot ── first get() ──► decode, compile ─► Cluster
//!                                                          │ newer resource: a slot of its own; running at once
//!                                                          ▼ where the one before ran
//! ```
//!
//! Whichever worker asks first compiles, the others wait for it (once per cluster and change, some ten microseconds).
//! Bounds: as many slots as clusters are known; a cluster that nobody uses costs its encoded bytes and this record.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rajut_ir::{cluster::Cluster as ClusterIr, endpoint::LoadAssignment, wire};
use rajut_types::Text;

use super::{Cluster, Transports};
use crate::{
    held::{ClusterSource, Endpoints},
    stats::Registry,
    tls::secrets::Secrets,
};

/// Clusters whose resources could not be used when a request first needed them, although they had been accepted: a defect
/// of ours, counted for the scrape.
pub static FIRST_USE_FAILURES: AtomicU64 = AtomicU64::new(0);

/// See the module.
#[derive(Debug)]
pub struct Slot {
    name: Text,
    source: ClusterSource,
    endpoints: Option<Endpoints>,
    secrets: Arc<Secrets>,
    registry: Arc<Registry>,
    /// The slot before, for what outlives an update; let go of when this one runs or every worker has it.
    previous: Mutex<Option<Arc<Self>>>,
    running: OnceLock<Option<Arc<Cluster>>>,
    /// A request has asked since the last [`Slot::take_wanted`].
    wanted: AtomicBool,
}

impl Slot {
    /// A cluster of these resources, which runs at once where `previous` does.
    pub fn new(
        name: Text,
        source: ClusterSource,
        endpoints: Option<Endpoints>,
        secrets: Arc<Secrets>,
        registry: Arc<Registry>,
        previous: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let (runs, wanted) = previous.as_ref().map_or((false, false), |slot| {
            (slot.running().is_some(), slot.wanted.load(Ordering::Relaxed))
        });
        let slot = Arc::new(Self {
            name,
            source,
            endpoints,
            secrets,
            registry,
            previous: Mutex::new(previous),
            running: OnceLock::new(),
            wanted: AtomicBool::new(wanted),
        });
        if runs {
            slot.running.get_or_init(|| slot.compile());
        }
        slot
    }

    /// Its name.
    pub const fn name(&self) -> &Text {
        &self.name
    }

    /// The cluster, for a request. `None` where its resources turn out to be unusable, which was said in the log.
    pub fn get(&self) -> Option<&Arc<Cluster>> {
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
        }
        self.running.get_or_init(|| self.compile()).as_ref()
    }

    /// The cluster if a request has needed it.
    pub fn running(&self) -> Option<&Arc<Cluster>> {
        self.running.get().and_then(Option::as_ref)
    }

    /// The cluster for people: one that does not run is compiled for the look and let go of.
    pub fn view(&self) -> Option<Arc<Cluster>> {
        self.running().cloned().or_else(|| self.build(None).ok())
    }

    /// Whether a request has asked since the last call.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Lets go of the slot before: every worker has this one.
    pub fn is_adopted(&self) {
        drop(self.take_previous());
    }

    fn take_previous(&self) -> Option<Arc<Self>> {
        self.previous
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn compile(&self) -> Option<Arc<Cluster>> {
        let before = self.take_previous().and_then(|slot| slot.running().cloned());
        match self.build(before.as_ref()) {
            Ok(cluster) => Some(cluster),
            Err(reason) => {
                FIRST_USE_FAILURES.fetch_add(1, Ordering::Relaxed);
                tracing::error!(cluster = %self.name, %reason, "accepted and yet unusable; the version before serves on");
                before
            }
        }
    }

    fn build(&self, before: Option<&Arc<Cluster>>) -> Result<Arc<Cluster>, String> {
        let ir = self.source.decode()?;
        let transports = transports(&ir, &self.secrets)?;
        let assignment = self.endpoints.as_ref().map(Endpoints::decode).transpose()?;
        Ok(Cluster::build(ir, assignment, transports, &self.registry, before))
    }
}

/// The TLS configurations of a cluster.
pub fn transports(ir: &ClusterIr, secrets: &Secrets) -> Result<Transports, String> {
    let build = |tls: &Option<rajut_ir::tls::UpstreamTls>| {
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

impl ClusterSource {
    /// The cluster as `ir` has it.
    pub fn decode(&self) -> Result<Arc<ClusterIr>, String> {
        match self {
            Self::Kept(ir) => Ok(ir.clone()),
            Self::Encoded { body, .. } => wire::decode_cluster(body)
                .map(|decoded| Arc::new(decoded.value))
                .map_err(|errors| errors.to_string()),
        }
    }
}

impl Endpoints {
    /// The endpoints as `ir` has them.
    pub fn decode(&self) -> Result<Arc<LoadAssignment>, String> {
        match self {
            Self::Kept(ir) => Ok(ir.clone()),
            Self::Encoded(body) => wire::decode_load_assignment(body)
                .map(|decoded| Arc::new(decoded.value))
                .map_err(|errors| errors.to_string()),
        }
    }
}

#[cfg(test)]
impl Slot {
    /// A slot of a cluster that runs already.
    pub(crate) fn of(cluster: &Arc<Cluster>, registry: &Arc<Registry>) -> Arc<Self> {
        let slot = Self::new(
            cluster.name().clone(),
            ClusterSource::Kept(cluster.ir().clone()),
            None,
            Arc::default(),
            registry.clone(),
            None,
        );
        slot.running.get_or_init(|| Some(cluster.clone()));
        slot
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn cluster_ir() -> ClusterIr {
        let text = "static_resources: {clusters: [{name: app, type: STATIC, load_assignment: {cluster_name: app, endpoints: \
                    [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}}]}";
        let bootstrap = wire::bootstrap::parse_bootstrap(text).expect("a bootstrap");
        ClusterIr::clone(&bootstrap.resources.clusters["app"])
    }

    fn slot(ir: &ClusterIr, previous: Option<Arc<Slot>>) -> Arc<Slot> {
        let body = wire::encode_cluster(ir).value;
        let source = ClusterSource::Encoded {
            body,
            eds: None,
            tls: false,
        };
        let registry = Registry::new(1);
        Slot::new(ir.name.clone(), source, None, Arc::default(), registry, previous)
    }

    #[test]
    fn a_cluster_is_compiled_on_first_use_and_its_successor_at_once() {
        let ir = cluster_ir();
        let first = slot(&ir, None);
        assert!(first.running().is_none());
        assert!(!first.take_wanted());
        let seen = first.view().expect("it can be looked at");
        assert_eq!(seen.hosts().len(), 1);
        assert!(first.running().is_none(), "looking is not using");
        let used = first.get().expect("it is usable").clone();
        assert!(first.take_wanted());
        let second = slot(&ir, Some(first));
        let running = second.running().expect("the one before ran");
        assert!(Arc::ptr_eq(running.breakers(), used.breakers()));
    }

    #[test]
    fn what_is_unusable_on_first_use_leaves_the_version_before() {
        let ir = cluster_ir();
        let first = slot(&ir, None);
        let used = first.get().expect("it is usable").clone();
        let failures = FIRST_USE_FAILURES.load(Ordering::Relaxed);
        let broken = ClusterSource::Encoded {
            body: Bytes::from_static(&[0xff]),
            eds: None,
            tls: false,
        };
        let registry = Registry::new(1);
        let second = Slot::new(
            ir.name.clone(),
            broken,
            None,
            Arc::default(),
            registry,
            Some(first),
        );
        assert!(Arc::ptr_eq(second.get().expect("the one before"), &used));
        assert!(FIRST_USE_FAILURES.load(Ordering::Relaxed) > failures);
    }
}
