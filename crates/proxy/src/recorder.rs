//! What this proxy records of the requests that its workload is asked, for the control plane.
//!
//! ```text
//!  request ends ─► wanted? ─► the worker's buffer ─ every second ─► redacted, encoded ─► xds::recording ─► control plane
//! ```
//!
//! Only the connection managers of inbound listeners have a recorder. What is wanted comes from the control plane, over the stream
//! that takes the records; until it has come, and where nothing is wanted, a request costs one look at a number that nobody writes.
//! Of a request that is recorded its facts are copied into a buffer of its worker, with a lock that nobody else takes but once a
//! second; identifiers become digests off the workers' threads ([`redact`](self::redact)), before anything leaves the process.
//!
//! Bounds: [`WAITING_MAX`] requests of a worker wait, [`WAITING_BYTES_MAX`] bytes of their texts; what finds no room is counted and
//! told. Does not: opaque connections, what is refused at a connection's begin, gateways.

mod redact;

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use rajut_codec::{Known, Method};
use rajut_runtime::Clock;
use rajut_telemetry::recording::{HEADERS_MAX, ISSUERS_MAX, PATH_MAX, TEXT_MAX, Token};
use rajut_types::Text;
use rajut_xds::recording::{Batch, REPORT_BYTES_MAX, RecordSource, TUPLES_MAX, Wanted};
use tokio::time::Instant;

use self::redact::Redactor;
use crate::{
    clock,
    connection::Peer,
    http::{record::Record, view::client_address},
};

/// Requests that one worker has waiting.
pub(crate) const WAITING_MAX: usize = 8192;
/// Bytes of their texts.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Longest value of a header that is digested; of a longer one only that it is there is told.
const VALUE_MAX: usize = 4096;

/// In [`Recorder::mode`]: refused requests are wanted. Below it stands the share of the others.
const REFUSED: u32 = 1 << 31;
const ALL: u32 = 1_000_000;

/// What the workers record into. See the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// 0: nothing is wanted.
    mode: AtomicU32,
    buffers: Box<[Mutex<Buffer>]>,
    recorded: AtomicU64,
    dropped: AtomicU64,
    /// Makes numbers of requests that nobody can foresee.
    numbers: RandomState,
}

#[derive(Debug, Default)]
struct Buffer {
    waiting: VecDeque<Seen>,
    /// Of their texts.
    bytes: usize,
    /// Names of the headers that are wanted.
    headers: Arc<[Text]>,
    dropped: u64,
}

/// A request as it was.
#[derive(Debug)]
struct Seen {
    id: u64,
    start: Instant,
    took: Duration,
    source: Option<Text>,
    tls: bool,
    remote: IpAddr,
    forwarded: bool,
    local: SocketAddr,
    server_name: Option<Text>,
    listener: Text,
    route: Text,
    method: Method,
    authority: Box<[u8]>,
    /// `None`: too long.
    path: Option<Box<[u8]>>,
    headers: Vec<Value>,
    token: Token,
    refused: bool,
    reason: Text,
    status: u16,
    received: u64,
    sent: u64,
}

/// A header: its name, how often it stood there, and its value where that was once.
type Value = (Text, u32, Option<Box<[u8]>>);

impl Seen {
    fn bytes(&self) -> usize {
        let values = self
            .headers
            .iter()
            .map(|(.., value)| value.as_deref().map_or(0, <[u8]>::len));
        self.authority.len()
            + self.path.as_deref().map_or(0, <[u8]>::len)
            + self.reason.len()
            + values.sum::<usize>()
    }
}

/// Whether the words of a refusal are those of a policy: access control, a token, external authorization.
fn is_refusal(details: &str) -> bool {
    ["rbac_access_denied", "jwt_authn_access_denied", "ext_authz_"]
        .iter()
        .any(|begin| details.starts_with(begin))
}

impl Recorder {
    /// For that many workers. Nothing is wanted yet.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            mode: AtomicU32::new(0),
            buffers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            recorded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            numbers: RandomState::new(),
        }
    }

    /// (requests recorded, requests that found no room).
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.recorded.load(Relaxed), self.dropped.load(Relaxed))
    }

    fn buffer(&self, worker: usize) -> MutexGuard<'_, Buffer> {
        lock(&self.buffers[worker % self.buffers.len()])
    }

    /// Takes a request that is over, if it is wanted.
    pub(crate) fn request(&self, record: &Record) {
        let mode = self.mode.load(Relaxed);
        if mode == 0 {
            return;
        }
        let refused = is_refusal(record.details.as_str());
        let share = mode & !REFUSED;
        let wanted =
            (refused && mode & REFUSED != 0) || share >= ALL || (share > 0 && record.worker().draw() < share);
        if !wanted {
            return;
        }
        let mut buffer = self.buffer(record.shared.worker.index);
        if buffer.waiting.len() >= WAITING_MAX || buffer.bytes >= WAITING_BYTES_MAX {
            buffer.dropped += 1;
            return;
        }
        let seen = self.seen(record, refused, &buffer.headers);
        buffer.bytes += seen.bytes();
        buffer.waiting.push_back(seen);
    }

    fn seen(&self, record: &Record, refused: bool, headers: &[Text]) -> Seen {
        let connection = &record.shared.connection;
        let head = &record.head;
        let cut = |bytes: &[u8], most: usize| Box::from(&bytes[..bytes.len().min(most)]);
        let source = match &connection.peer {
            Peer::Verified(peer) => peer.uris.first().cloned(),
            Peer::None => None,
        };
        let end = head
            .path_and_query
            .iter()
            .position(|byte| matches!(byte, b'?' | b'#'));
        let path = &head.path_and_query[..end.unwrap_or(head.path_and_query.len())];
        let headers = headers.iter().map(|name| {
            let count = head.fields.count(&**name);
            let value = head
                .fields
                .get(&**name)
                .filter(|value| count == 1 && value.len() <= VALUE_MAX);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (name.clone(), count, value.map(Box::from))
        });
        Seen {
            id: self.number(record),
            start: record.start,
            took: clock::now().duration_since(record.start),
            source,
            tls: record.shared.is_tls,
            remote: connection.remote.ip(),
            forwarded: client_address(record).ip() != connection.remote.ip(),
            local: connection.local,
            server_name: connection.sni.clone(),
            listener: connection.listener.clone(),
            route: record.route.clone(),
            method: head.method.clone(),
            authority: cut(&head.authority, TEXT_MAX),
            path: (path.len() <= PATH_MAX).then(|| Box::from(path)),
            headers: headers.collect(),
            token: token(record),
            refused,
            reason: if refused {
                record.details.as_str().into()
            } else {
                Text::default()
            },
            status: if record.has_response {
                record.response.status
            } else {
                0
            },
            received: record.bytes_received,
            sent: record.bytes_sent,
        }
    }

    /// The number of a request: the same whenever it is asked for, and no other request's.
    pub(crate) fn number(&self, record: &Record) -> u64 {
        let id = record.head.fields.get(Known::XRequestId);
        self.numbers
            .hash_one((record.shared.connection.id, record.start, id))
    }

    /// The oldest that wait, at most a report's worth; and how many found no room since the last time.
    fn take(&self, most: usize) -> (Vec<Seen>, u64) {
        let (mut taken, mut dropped) = (Vec::new(), 0);
        for buffer in &self.buffers {
            let mut buffer = lock(buffer);
            dropped += std::mem::take(&mut buffer.dropped);
            let room = most - taken.len();
            if buffer.waiting.len() <= room {
                // Its room goes with it: an idle proxy keeps none.
                taken.extend(std::mem::take(&mut buffer.waiting));
                buffer.bytes = 0;
            } else {
                taken.extend(buffer.waiting.drain(..room));
                buffer.bytes = buffer.waiting.iter().map(Seen::bytes).sum();
            }
        }
        self.recorded
            .fetch_add(u64::try_from(taken.len()).unwrap_or_default(), Relaxed);
        self.dropped.fetch_add(dropped, Relaxed);
        (taken, dropped)
    }
}

fn lock(buffer: &Mutex<Buffer>) -> MutexGuard<'_, Buffer> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a request's tokens.
fn token(record: &Record) -> Token {
    let details = record.details.as_str();
    if details.starts_with("jwt_authn_access_denied") {
        return Token::Refused;
    }
    // Preflights are let pass without a look, and external authorization comes before it.
    let unseen = record.head.method == Method::Options || details.starts_with("ext_authz");
    if unseen || !record.manager.filters().looks_at_tokens() {
        return Token::Unknown;
    }
    let issuers: Vec<Text> = record.filters.told.issuers().take(ISSUERS_MAX).cloned().collect();
    if issuers.is_empty() {
        Token::None
    } else {
        Token::Good(issuers)
    }
}

/// What the control plane is told. Belongs to the task that reports.
#[derive(Debug)]
pub(crate) struct Source {
    recorder: Arc<Recorder>,
    clock: Clock,
    redactor: Option<Redactor>,
    /// Encoded, and beyond what a report may hold.
    left: VecDeque<Vec<u8>>,
}

impl Source {
    /// Of that recorder.
    pub(crate) const fn new(recorder: Arc<Recorder>, clock: Clock) -> Self {
        Self {
            recorder,
            clock,
            redactor: None,
            left: VecDeque::new(),
        }
    }
}

impl RecordSource for Source {
    fn want(&mut self, wanted: &Wanted) {
        let redactor = Redactor::new(wanted);
        // Without it nothing could be told as it should be.
        let mode = match (&redactor, wanted.refused) {
            (None, _) => 0,
            (Some(_), refused) => wanted.share.min(ALL) | if refused { REFUSED } else { 0 },
        };
        self.redactor = redactor;
        let headers = wanted.headers.iter().take(HEADERS_MAX);
        let headers: Arc<[Text]> = headers.map(|name| Text::from(&**name)).collect();
        for buffer in &self.recorder.buffers {
            let mut buffer = lock(buffer);
            buffer.headers = Arc::clone(&headers);
            if mode == 0 {
                buffer.waiting = VecDeque::new();
                buffer.bytes = 0;
            }
        }
        self.recorder.mode.store(mode, Relaxed);
    }

    fn collect(&mut self) -> Batch {
        let Some(redactor) = &self.redactor else {
            return Batch::default();
        };
        let (seen, dropped) = if self.left.is_empty() {
            self.recorder.take(TUPLES_MAX)
        } else {
            (Vec::new(), 0)
        };
        let now = (Instant::now(), self.clock.wall());
        self.left.extend(
            seen.into_iter()
                .map(|seen| redactor.tuple(seen, time_of(now)).encode()),
        );
        let mut batch = Batch {
            tuples: Vec::new(),
            dropped,
        };
        let mut bytes = 0;
        while let Some(tuple) = self.left.front()
            && bytes + tuple.len() <= REPORT_BYTES_MAX
        {
            bytes += tuple.len();
            batch.tuples.extend(self.left.pop_front());
        }
        batch
    }
}

/// When something began, milliseconds since 1970.
fn time_of((now, wall): (Instant, SystemTime)) -> impl Fn(Instant) -> u64 {
    move |start| {
        let began = wall - now.saturating_duration_since(start);
        let since = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
