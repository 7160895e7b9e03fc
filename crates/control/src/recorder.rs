//! The recorder: what proxies tell of requests, kept on disk for days, so that a changed policy can be judged by them and a refusal
//! can be explained afterwards.
//!
//! ```text
//!  proxy ── tuples, mTLS ──► Recorder ─► whose? (the certificate's workload) ─► queue ─► segments ─► <state>/records/*.seg
//!        ◄── what is wanted, from the mesh's configuration ──┘                                └─► GET /v1/records
//! ```
//!
//! What is recorded is said in the mesh's configuration ([`rajut_config::model::Recording`]) and told to each proxy over the stream
//! on which it reports, with the key of the digests, which is made once (`records/key`, mode 0600) and leaves this process on
//! those streams and on the operator's socket alone. The workload that was called is the one of the reporter's certificate, whatever the
//! tuple says. **Refused**: streams without a mesh certificate, nodes that are not their certificate's.
//!
//! Nothing else waits for it: reports that find the queue full, tuples that are none and what the disk does not take are counted and
//! lost ([`Counts`]). A disk that takes nothing is said once, and tried again. Bounds: [`QUEUED_MAX`] reports in the queue, each at
//! most `xds::recording::REPORT_BYTES_MAX`; on disk what the configuration says.

pub(crate) mod segments;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rajut_config::{
    Snapshot,
    model::{Recording, Workload},
};
use rajut_runtime::Clock;
use rajut_telemetry::recording::{KEY_BYTES, Tuple};
use rajut_xds::{
    Node,
    recording::{Batch, RecordSink, RecordTaker, Wanted},
};
use tokio::sync::{mpsc, watch};
use tonic::{Extensions, Status};

use self::segments::{Limits, Segments};
use crate::{
    accept::PeerInfo,
    ca::secret_bytes,
    node::parse_node,
    observe::{caller, edge::Caller},
};

/// Reports that wait for the disk.
const QUEUED_MAX: usize = 16;
/// How often old records are looked for.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);
/// How long a disk that took nothing is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Seconds of a day.
const DAY: u64 = 86_400;

/// See the module. Cloned freely.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    wanted: watch::Sender<Wanted>,
    queue: mpsc::Sender<Vec<Vec<u8>>>,
    disk: Mutex<Disk>,
    clock: Clock,
    recorded: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Disk {
    segments: Option<Segments>,
    key: Option<[u8; KEY_BYTES]>,
    /// Since when it takes nothing, and why.
    stopped: Option<(SystemTime, String)>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that stand on disk, or stood there.
    pub recorded: u64,
    /// Requests that came and could not be kept.
    pub lost: u64,
    /// Requests that proxies had no room for.
    pub dropped: u64,
    /// Streams that were refused for who opened them.
    pub refused: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Nothing can be written now.
    pub stopped: bool,
}

/// Requests that are alike in all that a policy can ask for, of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike {
    /// One of them; the newest.
    pub example: Tuple,
    /// How many there are.
    pub count: u64,
    /// When the first was, milliseconds since 1970.
    pub first_ms: u64,
}

/// A part of what is recorded.
#[derive(Debug, Default)]
pub struct Part {
    /// What the next part is asked for with; `None`: there is none.
    pub next: Option<u64>,
    /// What was recorded.
    pub alike: Vec<Alike>,
    /// Bytes that could not be read, behind a damage.
    pub damaged: u64,
}

impl Recorder {
    /// Opens what is in `<state>/records`; the future keeps it and belongs into a task. A folder that can't be used is no reason not to
    /// start: it is said, and tried again.
    pub fn open(
        state: &Path,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
        let recorder = Self(Arc::new(Shared {
            folder: state.join("records"),
            wanted: watch::Sender::new(Wanted::default()),
            queue,
            disk: Mutex::default(),
            clock,
            recorded: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            snapshots: snapshots.clone(),
        }));
        recorder.0.follow(&snapshots.borrow().mesh.recording);
        let keeping = keep(recorder.clone(), queued, snapshots);
        (recorder, keeping)
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        let disk = self.0.lock();
        Counts {
            recorded: self.0.recorded.load(Relaxed),
            lost: self.0.lost.load(Relaxed),
            dropped: self.0.dropped.load(Relaxed),
            refused: self.0.refused.load(Relaxed),
            bytes: disk.segments.as_ref().map_or(0, |segments| segments.size().1),
            stopped: disk.stopped.is_some(),
        }
    }

    /// Why nothing can be written now, and since when.
    pub fn stopped(&self) -> Option<(SystemTime, String)> {
        self.0.lock().stopped.clone()
    }

    /// When the oldest record may be from.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.0.lock().segments.as_ref().and_then(Segments::oldest)
    }

    /// The key of the digests, where there is one.
    pub fn key(&self) -> Option<[u8; KEY_BYTES]> {
        self.0.lock().key
    }

    /// What was recorded since `since`, a segment at a time: the first one that was begun after `after`. Reads a file.
    pub fn part(&self, after: u64, since: SystemTime) -> io::Result<Part> {
        let (begun, path, next) = {
            let disk = self.0.lock();
            let Some(segments) = &disk.segments else {
                return Ok(Part::default());
            };
            let Some(begun) = segments.next(after, since) else {
                return Ok(Part::default());
            };
            (begun, segments.place(begun), segments.next(begun, since))
        };
        let page = segments::read(&path)?;
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        let tuples = page.records.iter().filter_map(|record| Tuple::decode(record));
        Ok(Part {
            next: next.map(|_| begun),
            alike: together(tuples.filter(|tuple| tuple.time_ms >= since)),
            damaged: page.damaged,
        })
    }
}

/// Puts together what a policy can't tell apart.
fn together(tuples: impl Iterator<Item = Tuple>) -> Vec<Alike> {
    let mut groups: HashMap<Vec<u8>, Alike> = HashMap::new();
    for tuple in tuples {
        let facts = Tuple {
            id: 0,
            time_ms: 0,
            route: rajut_types::Text::default(),
            status: 0,
            received: 0,
            sent: 0,
            micros: 0,
            ..tuple.clone()
        };
        let group = groups.entry(facts.encode()).or_insert_with(|| Alike {
            example: tuple.clone(),
            count: 0,
            first_ms: tuple.time_ms,
        });
        // One that came twice, since nobody knew that it had come, counts once.
        if group.count == 0 || group.example.id != tuple.id {
            group.count += 1;
            group.first_ms = group.first_ms.min(tuple.time_ms);
            group.example = tuple;
        }
    }
    let mut all: Vec<Alike> = groups.into_values().collect();
    all.sort_unstable_by_key(|alike| (alike.first_ms, alike.example.id));
    all
}

fn limits(recording: &Recording) -> Limits {
    Limits {
        bytes: u64::from(recording.megabytes) << 20,
        age: Duration::from_secs(u64::from(recording.days) * DAY),
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts upon the mesh's configuration: what is kept, and what proxies are told.
    fn follow(&self, recording: &Recording) {
        let mut disk = self.lock();
        if let Some(segments) = &mut disk.segments {
            segments.set_limits(limits(recording));
        } else if recording.is_on() || self.folder.exists() {
            self.open(&mut disk, recording);
        }
        let key = disk.key.filter(|_| recording.is_on() && disk.segments.is_some());
        drop(disk);
        let wanted = key.map_or_else(Wanted::default, |key| Wanted {
            refused: recording.refused,
            share: recording.share.millionths(),
            key: key.to_vec(),
            identifiers: recording.identifiers.iter().map(ToString::to_string).collect(),
            headers: recording.headers.iter().map(ToString::to_string).collect(),
        });
        self.wanted.send_if_modified(|known| {
            let is_new = *known != wanted;
            *known = wanted;
            is_new
        });
    }

    fn open(&self, disk: &mut Disk, recording: &Recording) {
        let opened = Segments::open(&self.folder, limits(recording)).and_then(|segments| {
            let key = secret_bytes(&self.folder.join("key")).map_err(io::Error::other)?;
            Ok((segments, key))
        });
        match opened {
            Ok((segments, key)) => {
                if segments.cut() > 0 {
                    tracing::warn!(
                        bytes = segments.cut(),
                        "the newest records end in a damage, which was cut off"
                    );
                }
                disk.segments = Some(segments);
                disk.key = Some(key);
                disk.stopped = None;
            }
            Err(error) => self.stop(disk, &error),
        }
    }

    /// Nothing is recorded for now.
    fn stop(&self, disk: &mut Disk, error: &io::Error) {
        if disk.stopped.is_none() {
            tracing::warn!(folder = %self.folder.display(), %error, "nothing is recorded: the disk takes nothing; tried again");
        }
        disk.stopped = Some((self.clock.wall(), error.to_string()));
    }

    /// Writes a report.
    fn write(&self, records: &[Vec<u8>]) {
        let now = self.clock.wall();
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let mut disk = self.lock();
        let rests = disk.stopped.as_ref().is_some_and(|(since, _)| {
            now.duration_since(*since)
                .is_ok_and(|passed| passed < RETRY_AFTER)
        });
        let Some(segments) = disk.segments.as_mut().filter(|_| !rests) else {
            self.lost.fetch_add(count, Relaxed);
            return;
        };
        match segments.append(records, now) {
            Ok(()) => {
                self.recorded.fetch_add(count, Relaxed);
                if disk.stopped.take().is_some() {
                    tracing::info!("requests are recorded again");
                }
            }
            Err(error) => {
                self.lost.fetch_add(count, Relaxed);
                self.stop(&mut disk, &error);
            }
        }
    }
}

/// Writes what comes, follows the configuration, deletes what is old. Ends when nobody can report any more.
async fn keep(
    recorder: Recorder,
    mut queued: mpsc::Receiver<Vec<Vec<u8>>>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    let shared = recorder.0;
    let mut looks = tokio::time::interval(EXPIRE_EVERY);
    loop {
        let work: Box<dyn FnOnce(&Shared) + Send> = tokio::select! {
            Some(records) = queued.recv() => Box::new(move |shared: &Shared| shared.write(&records)),
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                let recording = snapshots.borrow_and_update().mesh.recording.clone();
                Box::new(move |shared: &Shared| shared.follow(&recording))
            }
            _ = looks.tick() => {
                let recording = snapshots.borrow().mesh.recording.clone();
                Box::new(move |shared: &Shared| {
                    shared.follow(&recording);
                    let now = shared.clock.wall();
                    if let Some(segments) = &mut shared.lock().segments {
                        segments.expire(now);
                    }
                })
            }
        };
        let working = Arc::clone(&shared);
        if let Err(error) = tokio::task::spawn_blocking(move || work(&working)).await {
            tracing::error!(%error, "the recorder has failed");
        }
    }
}

impl RecordSink for Recorder {
    fn open(
        &self,
        extensions: &Extensions,
        node: &Node,
    ) -> Result<(watch::Receiver<Wanted>, Box<dyn RecordTaker>), Status> {
        let (called, workload) = self.reporter(extensions, node).inspect_err(|status| {
            self.0.refused.fetch_add(1, Relaxed);
            tracing::warn!(node = %node.id, reason = status.message(), "recordings refused");
        })?;
        let taking = Taking {
            shared: Arc::clone(&self.0),
            called,
            workload,
        };
        Ok((self.0.wanted.subscribe(), Box::new(taking)))
    }
}

impl Recorder {
    /// Whose requests these are: those of the workload that the certificate is of.
    fn reporter(
        &self,
        extensions: &Extensions,
        node: &Node,
    ) -> Result<(Caller, Option<Arc<Workload>>), Status> {
        let peer = extensions.get::<PeerInfo>();
        let principal = peer.and_then(|peer| peer.principal.clone());
        let principal =
            principal.ok_or_else(|| Status::unauthenticated("recordings need a mesh certificate"))?;
        let proxy =
            parse_node(node, principal).map_err(|refused| Status::permission_denied(refused.to_string()))?;
        let snapshot = self.0.snapshots.borrow();
        let known = snapshot
            .workloads
            .get(&(proxy.namespace.clone(), proxy.workload.clone()));
        Ok((caller(&proxy, &snapshot)?, known.map(Arc::clone)))
    }
}

/// One proxy that reports.
struct Taking {
    shared: Arc<Shared>,
    called: Caller,
    workload: Option<Arc<Workload>>,
}

impl Taking {
    /// The workload's own port where another stands before it (explicit ports), which policies name.
    fn own_port(&self, dialled: SocketAddr) -> SocketAddr {
        let own = self
            .workload
            .as_ref()
            .and_then(|workload| workload.container_port(dialled));
        SocketAddr::new(dialled.ip(), own.unwrap_or(dialled.port()))
    }
}

impl RecordTaker for Taking {
    fn take(&mut self, batch: Batch) {
        self.shared.dropped.fetch_add(batch.dropped, Relaxed);
        let all = batch.tuples.len();
        let named = batch.tuples.iter().filter_map(|bytes| {
            let tuple = Tuple::decode(bytes)?;
            let named = Tuple {
                namespace: self.called.namespace.clone(),
                workload: self.called.workload.clone(),
                local: tuple.local.map(|dialled| self.own_port(dialled)),
                ..tuple
            };
            Some(named.encode())
        });
        let records: Vec<Vec<u8>> = named.collect();
        let count = records.len();
        let mut lost = all - count;
        if count > 0 && self.shared.queue.try_send(records).is_err() {
            lost += count;
        }
        self.shared
            .lost
            .fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Relaxed);
    }
}
