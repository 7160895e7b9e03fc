//! What the mesh does, as the callers' proxies report it: each edge's requests, failures and response times, kept here so
//! that `rajut top` needs nothing else.
//!
//! ```text
//!  proxy ── load report, mTLS ──► Observer ─► whose? (the certificate's workload) ─► Store: edges ─► GET /v1/edges
//! ```
//!
//! An edge is (the workload that calls) → (service, port, subset). **Refused**: streams without a mesh certificate, nodes
//! that are not their certificate's, workloads that run under another service account. **Left out**: clusters that lead to no
//! service (a proxy's own, its inbound ones), and with a count ([`Counts`]) what exceeds a cap. Each report of our own
//! proxy is counted once, also when it is sent again; of Envoy's, what was under way when its stream broke is lost.
//!
//! Bounds: those of [`store`]; a report at most every second, fewer where a proxy has many clusters ([`interval`]).
//! History lives in memory and ends with the process; alarms and silences are kept ([`kept`]).

pub mod alarm;
pub mod anomaly;
pub mod edge;
pub mod kept;
pub mod series;
pub mod silence;
pub mod store;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rajut_config::Snapshot;
use rajut_runtime::Clock;
use rajut_telemetry::load::{Load, LoadMetric};
use rajut_translate::Proxy;
use rajut_types::Text;
use rajut_xds::{
    Node,
    load::{ClusterLoad, LoadReporter, LoadSink, ReportNumber},
};
use tokio::{sync::watch, time::MissedTickBehavior};
use tonic::{Extensions, Status};

use self::{
    alarm::Alarm,
    edge::{Caller, EdgeKey, Target},
    kept::Kept,
    silence::{NoSilence, Silence, Wish},
    store::{Counts, EdgeView, History, Store},
};
use crate::{accept::PeerInfo, ca::unix_seconds, node::parse_node};

/// Time between two reports of a proxy with few clusters.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Clusters for which one more second is waited: Envoy names every cluster in every report.
const CLUSTERS_PER_SECOND: usize = 200;
/// Longest time between two reports.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// See the module. Cloned freely.
#[derive(Debug, Clone)]
pub struct Observer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Clock,
    began: (Instant, SystemTime),
    /// Where alarms and silences are kept.
    folder: OnceLock<PathBuf>,
    /// (what of them is on disk, whether writing failed).
    written: tokio::sync::Mutex<(u64, bool)>,
}

/// What was noticed, and who has said what to it.
#[derive(Debug, Clone)]
pub struct Noticed {
    /// The time of this answer.
    pub now: SystemTime,
    /// What is called until then is ordinary.
    pub learning_until: SystemTime,
    /// All that are kept, the newest last, each with the silence that holds for it.
    pub alarms: Vec<(Alarm, Option<u64>)>,
    /// All that are kept, the newest last.
    pub silences: Vec<Silence>,
    /// How many alarms there were in this process.
    pub raised: u64,
}

/// The edges over a window.
#[derive(Debug, Clone)]
pub struct View {
    /// The time of this answer.
    pub now: SystemTime,
    /// Nothing is known of the time before.
    pub since: SystemTime,
    /// The window that the figures are of, seconds; at most what was asked for and what is kept.
    pub window: u32,
    /// The resolution that it was looked at with, seconds.
    pub resolution: u32,
    /// The edges, by caller and target.
    pub edges: Vec<EdgeView>,
    /// What was counted beside them.
    pub counts: Counts,
}

impl Observer {
    /// Nothing has been reported yet. Workloads are looked up in the newest snapshot. `learning`: how long first calls are
    /// ordinary.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, clock: Clock, learning: Duration) -> Self {
        let learning = u32::try_from(learning.as_secs()).unwrap_or(u32::MAX);
        Self(Arc::new(Shared {
            store: Mutex::new(Store::learning_for(learning)),
            snapshots,
            began: (clock.now(), clock.wall()),
            clock,
            folder: OnceLock::new(),
            written: tokio::sync::Mutex::default(),
        }))
    }

    /// The edges over the last `window` seconds.
    pub fn view(&self, window: u32) -> View {
        let now = self.0.second();
        let mut store = self.0.lock();
        let (window, resolution, edges) = store.view(window, now);
        let counts = store.counts();
        drop(store);
        View {
            now: self.0.wall(now),
            since: self.0.began.1,
            window,
            resolution,
            edges,
            counts,
        }
    }

    /// What was called on a host, or on all, over the last `window` seconds; and the time of this answer.
    pub fn history(&self, host: Option<&str>, window: u32) -> (SystemTime, History) {
        let now = self.0.second();
        let history = self.0.lock().history(host, window, now);
        (self.0.wall(now), history)
    }

    /// Goes on with the alarms and silences of that state folder, and keeps them there.
    pub fn keep_in(&self, state_dir: &Path) {
        if self.0.folder.set(state_dir.to_owned()).is_ok() {
            let epoch = unix_seconds(self.0.began.1);
            self.0.lock().alarms_mut().go_on(Kept::read(state_dir), epoch);
        }
    }

    /// What was noticed.
    pub fn noticed(&self) -> Noticed {
        let now = self.0.second();
        let store = self.0.lock();
        let alarms = store.alarms();
        let unix = alarms.unix(now);
        let silence = |alarm: &Alarm| alarms.silences().of(alarm, unix).map(|silence| silence.id);
        Noticed {
            now: self.0.wall(now),
            learning_until: self.0.wall(alarms.learning_ends()),
            alarms: alarms
                .all()
                .map(|alarm| (alarm.clone(), silence(alarm)))
                .collect(),
            silences: alarms.silences().all().to_vec(),
            raised: alarms.raised().iter().sum(),
        }
    }

    /// Rises with every change of [`noticed`](Self::noticed) but those that time brings.
    pub fn changes(&self) -> u64 {
        self.0.lock().alarms().changes()
    }

    /// Somebody has seen an alarm; `None`: it is not kept.
    pub fn acknowledge(&self, number: u64, by: Text, why: Text) -> Option<Alarm> {
        let now = self.0.second();
        let mut store = self.0.lock();
        store.alarms_mut().acknowledge(number, by, why, now).cloned()
    }

    /// Nobody is to be told of some alarms for a while.
    pub fn silence(&self, wish: Wish, by: Text) -> Result<Silence, NoSilence> {
        let now = self.0.second();
        self.0.lock().alarms_mut().silence(wish, by, now)
    }

    /// Ends a silence; `None`: none of that number holds.
    pub fn end_silence(&self, id: u64) -> Option<Silence> {
        let now = self.0.second();
        self.0.lock().alarms_mut().end_silence(id, now)
    }

    /// Puts alarms and silences on disk, if something has changed.
    pub async fn save(&self) -> io::Result<()> {
        let Some(folder) = self.0.folder.get().cloned() else {
            return Ok(());
        };
        let mut written = self.0.written.lock().await;
        let (changes, kept) = {
            let store = self.0.lock();
            if store.alarms().changes() == written.0 {
                return Ok(());
            }
            (store.alarms().changes(), store.alarms().to_keep())
        };
        let done = tokio::task::spawn_blocking(move || kept.write(&folder)).await;
        let done = done.map_err(io::Error::other).flatten();
        match &done {
            Ok(()) => *written = (changes, false),
            Err(error) => {
                // Said once; it is tried again every second.
                if !written.1 {
                    tracing::warn!(%error, "alarms and silences are not kept over a restart");
                }
                written.1 = true;
            }
        }
        done
    }

    /// Looks at everything once, for what is far from its own past.
    pub fn watch(&self) {
        let now = self.0.second();
        self.0.lock().watch(now);
    }

    /// [`watch`](Self::watch), every second, for ever.
    pub async fn keep_watch(self) {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.watch();
            // It says so itself.
            let _ = self.save().await;
        }
    }

    /// When a second of [`EdgeView`] was.
    pub fn wall(&self, second: u32) -> SystemTime {
        self.0.wall(second)
    }

    /// What was counted so far, for the scrape.
    pub fn counts(&self) -> Counts {
        self.0.lock().counts()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since the beginning, on the clock that does not jump.
    fn second(&self) -> u32 {
        let passed = self.clock.now().saturating_duration_since(self.began.0);
        u32::try_from(passed.as_secs()).unwrap_or(u32::MAX)
    }

    fn wall(&self, second: u32) -> SystemTime {
        self.began.1 + Duration::from_secs(second.into())
    }
}

/// Whom a proxy speaks for: nobody but the workload that its certificate is of.
pub(crate) fn caller(proxy: &Proxy, snapshot: &Snapshot) -> Result<Caller, Status> {
    let key = (proxy.namespace.clone(), proxy.workload.clone());
    let known = snapshot.workloads.get(&key);
    if let Some(workload) = known
        && *workload.service_account != *proxy.principal.service_account()
    {
        return Err(Status::permission_denied(format!(
            "{}/{} does not run as {}",
            proxy.namespace, proxy.workload, proxy.principal
        )));
    }
    Ok(Caller {
        namespace: proxy.namespace.clone(),
        workload: known.map_or_else(|| proxy.workload.clone(), |workload| workload.deployment.clone()),
        principal: proxy.principal.to_string().into(),
    })
}

impl LoadSink for Observer {
    fn open(&self, extensions: &Extensions, node: &Node) -> Result<Box<dyn LoadReporter>, Status> {
        let opened = self.reporting(extensions, node);
        match opened {
            Ok(reporting) => Ok(Box::new(reporting)),
            Err(status) => {
                self.0.lock().refused();
                tracing::warn!(node = %node.id, reason = status.message(), "load reports refused");
                Err(status)
            }
        }
    }
}

impl Observer {
    fn reporting(&self, extensions: &Extensions, node: &Node) -> Result<Reporting, Status> {
        let peer = extensions.get::<PeerInfo>();
        let principal = peer.and_then(|peer| peer.principal.clone());
        let principal =
            principal.ok_or_else(|| Status::unauthenticated("load reports need a mesh certificate"))?;
        let proxy =
            parse_node(node, principal).map_err(|refused| Status::permission_denied(refused.to_string()))?;
        let caller = caller(&proxy, &self.0.snapshots.borrow())?;
        let instance: Text = format!("{} {}", caller.principal, node.id).into();
        self.0.lock().opened(&caller, &instance, self.0.second())?;
        Ok(Reporting {
            shared: Arc::clone(&self.0),
            caller,
            instance,
            next: ReportNumber::of(node),
            under_way: HashMap::new(),
        })
    }
}

/// One proxy that reports.
struct Reporting {
    shared: Arc<Shared>,
    caller: Caller,
    instance: Text,
    /// The number of its next report, where it has numbers.
    next: Option<ReportNumber>,
    /// What it said last is under way; ≤ the edges of its caller.
    under_way: HashMap<Arc<EdgeKey>, u64>,
}

impl LoadReporter for Reporting {
    fn report(&mut self, loads: Vec<ClusterLoad>, left_out: usize) -> Duration {
        let due = interval(loads.len() + left_out);
        let now = self.shared.second();
        let mut store = self.shared.lock();
        if let Some(next) = &mut self.next {
            let is_new = store.is_new(&self.instance, next);
            next.number += 1;
            if !is_new {
                return due;
            }
        }
        store.reported(left_out);
        for told in loads {
            let Some(target) = Target::of_cluster(&told.cluster) else {
                continue;
            };
            let load = load(&told);
            let before = store
                .key(&self.caller, &target)
                .and_then(|key| self.under_way.get(&*key));
            if load.is_empty() && before.is_none() {
                continue;
            }
            if let Some(key) = store.add(&self.caller, target, &load, now) {
                let before = match load.in_progress {
                    0 => self.under_way.remove(&key),
                    level => self.under_way.insert(Arc::clone(&key), level),
                };
                store.under_way(&key, before.unwrap_or_default(), load.in_progress);
            }
        }
        due
    }

    fn first_due(&self) -> Duration {
        INTERVAL
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let now = self.shared.second();
        let mut store = self.shared.lock();
        for (key, level) in &self.under_way {
            store.under_way(key, *level, 0);
        }
        store.closed(&self.caller, &self.instance, now);
    }
}

/// The more clusters a report names, the longer until the next: the work in a second has a bound.
fn interval(clusters: usize) -> Duration {
    let seconds = u32::try_from(clusters.div_ceil(CLUSTERS_PER_SECOND)).unwrap_or(u32::MAX);
    INTERVAL.saturating_mul(seconds.max(1)).min(INTERVAL_MAX)
}

fn load(told: &ClusterLoad) -> Load {
    let mut load = Load {
        succeeded: told.succeeded,
        failed: told.failed,
        in_progress: told.in_progress,
        detail: None,
    };
    for (name, count, total) in &told.metrics {
        load.take(&LoadMetric {
            name: name.clone(),
            count: *count,
            total: *total,
        });
    }
    load
}
