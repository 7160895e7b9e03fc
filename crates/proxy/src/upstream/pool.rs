//! Step 8 of walk one: connections that are kept for the next request. One set of pools per worker; nothing is shared
//! between workers but the breakers' counts.
//!
//! ```text
//!  HTTP/1:  acquire ─► idle one (last in, first out) ─► exchange ─► release ─► a waiter, or idle, or closed
//!               └────► new one, if max_connections lets it ─┘          (closed: removed, retired, used up, wanted)
//!               └────► wait: pending, until one is released or a place is free
//!  HTTP/2:  acquire ─► a connection with a free stream, or join the attempt under way, or a new connection
//! ```
//!
//! A connection that may be closing is not used: its idle time is bounded by the cluster, by what the server's
//! `keep-alive: timeout` tells (less a margin), and a look at the socket before reuse. A request that must not be
//! sent twice avoids connections that have been idle for longer than [`UNSURE_IDLE`] without such a promise.
//!
//! Bounds: idle HTTP/1 connections ≤ [`IDLE_MAX`] per host and worker; HTTP/2 streams per connection as the peer and
//! the cluster say; waiters are bounded by `max_pending_requests`. A janitor closes what has expired, once a second,
//! only while something is idle.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::poll_fn,
    hash::{BuildHasherDefault, Hasher},
    net::SocketAddr,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use rajut_codec::{
    Known, ResponseHead, Scheme, Version,
    h1::{ClientConn, ClientNext, Limits},
    h2::Client,
};
use rajut_ir::cluster::{Http2Options, UpstreamProtocol};
use rajut_platform::socket::{IdleState, idle_state};
use tokio::{
    sync::{Notify, oneshot},
    task::spawn_local,
    time::Instant,
};

use super::{
    connect::{ConnectionGuard, Established, connect_with},
    exchange::{H1Exchange, H2Exchange, Upstream},
};
use crate::{
    clock,
    cluster::{Cluster, Host, breaker::Permit},
    epoch::Config,
    failure::{Failure, FailureKind},
    http::{
        h2::{self, Driver, Ended, KeepAlive, Link},
        transport::Transport,
    },
    stats::{ClusterCounter, istio::Ends},
    stream::Stream,
    worker::Worker,
};

/// Idle HTTP/1 connections per host and worker.
pub const IDLE_MAX: usize = 1024;
/// Idle time after which a connection without a promise of the server is not used for what must not be sent twice.
/// Node, Apache and most others close after 5 s, some after 2.
pub const UNSURE_IDLE: Duration = Duration::from_millis(1500);
/// A connection is retired this long before the server said that it will close it.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);
/// Bytes of a response's head over HTTP/2.
const RESPONSE_HEAD_MAX: usize = 64 * 1024;
/// How long the last frames of an HTTP/2 connection may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time between two rounds of the janitor.
const SWEEP: Duration = Duration::from_secs(1);

/// What a request asks of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    /// The downstream's version, for clusters that follow it.
    pub(crate) version: Version,
    /// The request must not be sent twice: no connection that may be closing.
    pub(crate) careful: bool,
    /// No reuse at all: the last one was found closed.
    pub(crate) fresh: bool,
}

/// The pools of one worker, by cluster.
#[derive(Debug, Default)]
pub struct Pools {
    /// A cluster's number → its pool; only clusters that were used.
    clusters: RefCell<HashMap<u64, Rc<ClusterPool>, NumberHasher>>,
    has_janitor: Cell<bool>,
}

/// The pool of one cluster.
#[derive(Debug)]
pub(crate) struct ClusterPool {
    cluster: RefCell<Arc<Cluster>>,
    version: u64,
    retired: Cell<bool>,
    /// host's id → its connections.
    hosts: RefCell<HashMap<u64, HostPool, NumberHasher>>,
}

#[derive(Debug, Default)]
struct HostPool {
    /// The oldest first.
    idle: Vec<Idle>,
    waiters: VecDeque<oneshot::Sender<Box<H1Connection>>>,
    h2: Vec<Rc<H2Connection>>,
    attempt: Option<Rc<Attempt>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<H1Connection>,
    since: Instant,
    until: Option<Instant>,
}

/// An HTTP/2 connection that is being made, for all who wait for it.
#[derive(Debug, Default)]
struct Attempt {
    failure: RefCell<Option<Failure>>,
    done: Notify,
}

/// An HTTP/1 connection to a host.
#[derive(Debug)]
pub(crate) struct H1Connection {
    pub(crate) transport: Transport,
    pub(crate) machine: ClientConn,
    /// Requests sent so far.
    pub(crate) requests: u32,
    pool: Rc<ClusterPool>,
    pools: Weak<Pools>,
    worker: Rc<Worker>,
    /// How long the server said that it keeps it idle.
    keep_alive: Option<Duration>,
    opened: Instant,
    /// Asked once: a system call per request would be felt.
    local: Option<SocketAddr>,
    guard: ConnectionGuard,
    ends: Ends,
    /// An answer has come: the server knows who calls.
    pub(crate) answered: bool,
}

/// An HTTP/2 connection to a host.
#[derive(Debug)]
pub(crate) struct H2Connection {
    link: Rc<Link<Client>>,
    streams: Cell<u32>,
    requests: Cell<u32>,
    /// No new streams: used up, or old.
    closed: Cell<bool>,
    opened: Instant,
    local: Option<SocketAddr>,
    freed: Notify,
    ends: Ends,
    /// An answer has come: the server knows who calls.
    answered: Cell<bool>,
}

/// A place for one stream on an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct H2Lease {
    connection: Rc<H2Connection>,
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        streams.set(streams.get().saturating_sub(1));
        self.connection.freed.notify_one();
    }
}

impl H2Lease {
    pub(crate) fn link(&self) -> &Rc<Link<Client>> {
        &self.connection.link
    }

    /// Whether the connection has carried other requests.
    pub(crate) fn is_reused(&self) -> bool {
        self.connection.requests.get() > 1
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.connection.local
    }

    pub(crate) fn ends(&self) -> Ends {
        self.connection.ends
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.connection.answered.get()
    }

    pub(crate) fn note_answer(&self) {
        self.connection.answered.set(true);
    }
}

impl H2Connection {
    /// Whether it takes no further streams, now and later.
    fn is_closed(&self) -> bool {
        self.closed.get() || self.link.is_leaving()
    }

    fn lease(self: &Rc<Self>, max_requests: Option<u32>) -> Option<H2Lease> {
        if self.closed.get() || self.streams.get() >= self.link.stream_limit() {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        self.requests.set(self.requests.get().saturating_add(1));
        if max_requests.is_some_and(|max| self.requests.get() >= max) {
            self.closed.set(true);
        }
        Some(H2Lease {
            connection: self.clone(),
        })
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.link.shutdown();
    }
}

impl H1Connection {
    pub(crate) const fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    pub(crate) const fn ends(&self) -> Ends {
        self.ends
    }

    /// Whether the request that comes now is its last.
    pub(crate) fn is_last(&self) -> bool {
        let cluster = self.pool.cluster.borrow();
        cluster
            .ir()
            .max_requests_per_connection
            .is_some_and(|max| max > 0 && self.requests + 1 >= max)
    }

    /// Remembers `keep-alive: timeout=N` before the field is taken out.
    pub(crate) fn note_keep_alive(&mut self, head: &ResponseHead) {
        let Some(text) = head.fields.get_str(Known::KeepAlive) else {
            return;
        };
        let seconds = text.split(',').find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("timeout")
                .then(|| value.trim().parse::<u64>().ok())
                .flatten()
        });
        if let Some(seconds) = seconds {
            let promised = Duration::from_secs(seconds);
            // A short promise leaves half of it.
            self.keep_alive = Some(promised.saturating_sub(KEEP_ALIVE_MARGIN).max(promised / 2));
        }
    }

    /// After an exchange: to a waiter, to the idle ones, or closed.
    pub(crate) fn release(mut self: Box<Self>) {
        let clean = self.machine.next_exchange(&self.transport.read) == ClientNext::Reusable
            && self.transport.output.is_empty()
            && !self.transport.is_finished();
        if !clean {
            return;
        }
        let pool = self.pool.clone();
        let (idle_timeout, expired) = {
            let cluster = pool.cluster.borrow();
            let ir = cluster.ir();
            let used_up = ir
                .max_requests_per_connection
                .is_some_and(|max| max > 0 && self.requests >= max);
            let old = ir
                .max_connection_duration
                .is_some_and(|longest| self.opened.elapsed() >= longest);
            (
                ir.idle_timeout,
                used_up || old || pool.retired.get() || !cluster.keeps(self.guard.host()),
            )
        };
        if expired {
            return;
        }
        self.transport.give_back();
        let connection = match pool.hand_over(self) {
            Ok(()) => return,
            Err(connection) => connection,
        };
        // Somebody waits at the cap for a place, here or on another worker: give this one up.
        if pool.cluster.borrow().breakers().is_wanted() {
            return;
        }
        let since = clock::now();
        let until = match (idle_timeout, connection.keep_alive) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
        .map(|time| since + time);
        let pools = connection.pools.upgrade();
        let worker = connection.worker.clone();
        let id = connection.guard.host().id;
        {
            let mut hosts = pool.hosts.borrow_mut();
            let idle = &mut hosts.entry(id).or_default().idle;
            if idle.len() >= IDLE_MAX {
                return;
            }
            idle.push(Idle {
                connection,
                since,
                until,
            });
        }
        if let Some(pools) = pools {
            pools.ensure_janitor(&worker);
        }
    }
}

impl ClusterPool {
    /// Gives a released connection to the longest waiting request of its host.
    fn hand_over(&self, connection: Box<H1Connection>) -> Result<(), Box<H1Connection>> {
        let mut hosts = self.hosts.borrow_mut();
        let Some(host) = hosts.get_mut(&connection.guard.host().id) else {
            return Err(connection);
        };
        let mut connection = connection;
        while let Some(waiter) = host.waiters.pop_front() {
            match waiter.send(connection) {
                Ok(()) => return Ok(()),
                // That request is gone.
                Err(back) => connection = back,
            }
        }
        Err(connection)
    }

    /// The idle connection that was used last, if one is worth using.
    fn take_idle(&self, host: &Host, wants: Wants) -> Option<Box<H1Connection>> {
        if wants.fresh {
            return None;
        }
        let mut hosts = self.hosts.borrow_mut();
        let idle = &mut hosts.get_mut(&host.id)?.idle;
        if idle.is_empty() {
            return None;
        }
        let now = clock::now();
        while let Some(mut entry) = idle.pop() {
            if entry.until.is_some_and(|until| until <= now) {
                continue;
            }
            let unsure = wants.careful && entry.connection.keep_alive.is_none();
            if unsure && now.duration_since(entry.since) > UNSURE_IDLE {
                // Those below it have been idle for longer; they may serve another request.
                idle.push(entry);
                return None;
            }
            if entry.is_alive() {
                return Some(entry.connection);
            }
        }
        None
    }

    /// Closes the connection that has been idle for the longest; `false` where none is.
    fn give_up_one(&self) -> bool {
        let mut hosts = self.hosts.borrow_mut();
        let oldest = hosts
            .values_mut()
            .filter(|host| !host.idle.is_empty())
            .min_by_key(|host| host.idle[0].since);
        match oldest {
            Some(host) => {
                drop(host.idle.remove(0));
                true
            }
            None => false,
        }
    }

    /// A stream on an open HTTP/2 connection.
    fn take_stream(&self, host: &Host) -> Option<H2Lease> {
        let max_requests = self
            .cluster
            .borrow()
            .ir()
            .max_requests_per_connection
            .filter(|max| *max > 0);
        let mut hosts = self.hosts.borrow_mut();
        let connections = &mut hosts.get_mut(&host.id)?.h2;
        connections.retain(|connection| !connection.is_closed());
        // The busiest with room first, so that idle ones can expire.
        connections
            .iter()
            .filter(|connection| connection.streams.get() < connection.link.stream_limit())
            .max_by_key(|connection| connection.streams.get())
            .and_then(|connection| connection.lease(max_requests))
            .or_else(|| {
                connections
                    .iter()
                    .find_map(|connection| connection.lease(max_requests))
            })
    }

    fn retire(&self) {
        self.retired.set(true);
        // Dropping a handle lets an HTTP/2 connection end after its streams; idle HTTP/1 ones close now.
        self.hosts.borrow_mut().clear();
    }

    /// Closes what has expired; `true` while something is left.
    fn sweep(&self, now: Instant) -> bool {
        let cluster = self.cluster.borrow().clone();
        let wanted = cluster.breakers().is_wanted();
        let mut left = false;
        let mut hosts = self.hosts.borrow_mut();
        hosts.retain(|_, host| {
            host.idle.retain_mut(|entry| {
                let expired = entry.until.is_some_and(|until| until <= now);
                let kept = !expired && cluster.keeps(entry.connection.guard.host()) && entry.is_alive();
                if kept && now.duration_since(entry.since) >= SWEEP {
                    entry.connection.transport.rest();
                }
                kept
            });
            host.h2.retain(|connection| {
                let old = cluster
                    .ir()
                    .max_connection_duration
                    .is_some_and(|longest| now.duration_since(connection.opened) >= longest);
                if old {
                    connection.closed.set(true);
                }
                !connection.is_closed()
            });
            host.idle.shrink_to(8);
            left |= !host.idle.is_empty() || !host.h2.is_empty();
            !host.idle.is_empty() || !host.h2.is_empty() || !host.waiters.is_empty() || host.attempt.is_some()
        });
        drop(hosts);
        if wanted {
            self.give_up_one();
        }
        left
    }
}

impl Idle {
    /// Whether the connection looks open.
    fn is_alive(&mut self) -> bool {
        let transport = &mut self.connection.transport;
        let look = |transport: &Transport| {
            if transport.stream().has_unread() {
                return IdleState::Unread;
            }
            transport.stream().socket().map_or(IdleState::Open, idle_state)
        };
        match look(transport) {
            IdleState::Open => true,
            IdleState::Unread if matches!(transport.stream(), Stream::Tls(_)) => {
                // A session ticket is taken in by reading; a close alert, or anything else, ends it.
                let mut cx = Context::from_waker(Waker::noop());
                transport.poll_read(&mut cx).is_pending() && look(transport) == IdleState::Open
            }
            IdleState::Closed | IdleState::Broken | IdleState::Unread => false,
        }
    }
}

impl Pools {
    /// Drops what does not serve `config` any more: idle connections close, busy ones finish.
    pub fn retain(&self, config: &Config) {
        self.clusters.borrow_mut().retain(|id, pool| {
            let current = config.clusters.get(pool.cluster.borrow().name());
            let current = current.and_then(|slot| slot.running());
            let same =
                |cluster: &&Arc<Cluster>| cluster.id() == *id && cluster.pool_version() == pool.version;
            if let Some(cluster) = current.filter(same) {
                *pool.cluster.borrow_mut() = cluster.clone();
                return true;
            }
            pool.retire();
            false
        });
    }

    fn pool(self: &Rc<Self>, cluster: &Arc<Cluster>) -> Rc<ClusterPool> {
        let mut clusters = self.clusters.borrow_mut();
        if let Some(pool) = clusters.get(&cluster.id()) {
            if Arc::ptr_eq(&pool.cluster.borrow(), cluster) {
                return pool.clone();
            }
            if pool.version == cluster.pool_version() {
                *pool.cluster.borrow_mut() = cluster.clone();
                return pool.clone();
            }
            pool.retire();
        }
        let pool = Rc::new(ClusterPool {
            cluster: RefCell::new(cluster.clone()),
            version: cluster.pool_version(),
            retired: Cell::new(false),
            hosts: RefCell::default(),
        });
        if cluster.breakers().limits_connections() {
            spawn_local(give_up_when_wanted(Rc::downgrade(&pool), cluster.clone()));
        }
        clusters.insert(cluster.id(), pool.clone());
        pool
    }

    fn ensure_janitor(self: &Rc<Self>, worker: &Rc<Worker>) {
        if !self.has_janitor.replace(true) {
            spawn_local(janitor(Rc::downgrade(self), Rc::downgrade(worker)));
        }
    }

    /// A connection (or a stream on one) that is ready now.
    pub(crate) fn acquire_ready(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        wants: Wants,
    ) -> Option<Upstream> {
        let pool = self.pool(cluster);
        let stream = || {
            pool.take_stream(host)
                .map(|lease| stream_on(lease, cluster, host))
        };
        let connection = || {
            pool.take_idle(host, wants)
                .map(|it| Upstream::H1(H1Exchange::new(it)))
        };
        match &cluster.ir().protocol {
            UpstreamProtocol::Http2(_) => stream(),
            UpstreamProtocol::UseDownstream(..) if wants.version == Version::Http2 => stream(),
            UpstreamProtocol::Http1(_) | UpstreamProtocol::UseDownstream(..) => connection(),
            // What ALPN settled on an earlier connection.
            UpstreamProtocol::Auto(..) => stream().or_else(connection),
        }
    }

    /// A connection (or a stream on one) to a host of the cluster. `host_name`: the request's host, for `auto_sni`.
    pub(crate) async fn acquire(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        wants: Wants,
        host_name: &str,
    ) -> Result<Upstream, Failure> {
        if let Some(ready) = self.acquire_ready(cluster, host, wants) {
            return Ok(ready);
        }
        let request = Acquire {
            pools: self,
            pool: self.pool(cluster),
            worker,
            cluster,
            host,
            wants,
            host_name: (!host_name.is_empty()).then_some(host_name),
        };
        let http2 = match &cluster.ir().protocol {
            UpstreamProtocol::Http1(_) | UpstreamProtocol::Auto(..) => false,
            UpstreamProtocol::Http2(_) => true,
            UpstreamProtocol::UseDownstream(..) => wants.version == Version::Http2,
        };
        if http2 {
            let lease = request.stream().await?;
            return Ok(stream_on(lease, cluster, host));
        }
        request.connection().await
    }
}

/// A request for a connection that is not ready.
struct Acquire<'a> {
    pools: &'a Rc<Pools>,
    pool: Rc<ClusterPool>,
    worker: &'a Rc<Worker>,
    cluster: &'a Arc<Cluster>,
    host: &'a Arc<Host>,
    wants: Wants,
    host_name: Option<&'a str>,
}

impl Acquire<'_> {
    /// A new connection, or one that is released meanwhile, within the breakers' limits.
    async fn connection(&self) -> Result<Upstream, Failure> {
        let Self {
            pool,
            worker,
            cluster,
            host,
            wants,
            ..
        } = self;
        let breakers = cluster.breakers();
        let _pending = Pending::new(worker, cluster)?;
        if let Some(permit) = breakers.connection() {
            return self.open(permit).await;
        }
        cluster.stats().add(worker.index, ClusterCounter::CxOverflow);
        let waiter = breakers.wait();
        loop {
            let mut freed = pin!(waiter.freed());
            freed.as_mut().enable();
            if let Some(connection) = pool.take_idle(host, *wants) {
                return Ok(Upstream::H1(H1Exchange::new(connection)));
            }
            // An idle connection to another host holds a place that is needed here.
            let permit = breakers
                .connection()
                .or_else(|| pool.give_up_one().then(|| breakers.connection()).flatten());
            if let Some(permit) = permit {
                return self.open(permit).await;
            }
            let (give, take) = oneshot::channel();
            pool.hosts
                .borrow_mut()
                .entry(host.id)
                .or_default()
                .waiters
                .push_back(give);
            tokio::select! {
                biased;
                given = take => if let Ok(connection) = given {
                    return Ok(Upstream::H1(H1Exchange::new(connection)));
                },
                () = freed => {}
            }
        }
    }

    async fn open(&self, permit: Permit) -> Result<Upstream, Failure> {
        let Self {
            pool,
            worker,
            cluster,
            host,
            ..
        } = self;
        let made = connect_with(worker, cluster, host, self.host_name, permit).await;
        let Established { stream, ends, permit } = made.inspect_err(|_| {
            cluster
                .stats()
                .add(worker.index, ClusterCounter::RqPendingFailure);
        })?;
        if let UpstreamProtocol::Auto(_, options) = &cluster.ir().protocol
            && stream.alpn() == Some(b"h2")
        {
            let connection = self.start_h2(options, Established { stream, ends, permit });
            let lease = connection.lease(None).ok_or(FailureKind::StreamRefused)?;
            return Ok(stream_on(lease, cluster, host));
        }
        cluster.stats().add(worker.index, ClusterCounter::CxHttp1);
        let local = stream.socket().and_then(|socket| socket.local_addr().ok());
        Ok(Upstream::H1(H1Exchange::new(Box::new(H1Connection {
            transport: Transport::new(stream),
            machine: ClientConn::new(Limits::default()),
            requests: 0,
            pool: Rc::clone(pool),
            pools: Rc::downgrade(self.pools),
            worker: Rc::clone(worker),
            keep_alive: None,
            opened: Instant::now(),
            local,
            guard: permit,
            ends,
            answered: false,
        }))))
    }

    async fn stream(&self) -> Result<H2Lease, Failure> {
        let Self {
            pool,
            worker,
            cluster,
            host,
            ..
        } = self;
        if let Some(lease) = pool.take_stream(host) {
            return Ok(lease);
        }
        let _pending = Pending::new(worker, cluster)?;
        loop {
            if let Some(lease) = pool.take_stream(host) {
                return Ok(lease);
            }
            let under_way = pool
                .hosts
                .borrow()
                .get(&host.id)
                .and_then(|host| host.attempt.clone());
            if let Some(attempt) = under_way {
                let mut done = pin!(attempt.done.notified());
                done.as_mut().enable();
                if let Some(failure) = attempt.failure.borrow().clone() {
                    return Err(failure);
                }
                done.await;
                if let Some(failure) = attempt.failure.borrow().clone() {
                    return Err(failure);
                }
                continue;
            }
            let breakers = cluster.breakers();
            let permit = breakers
                .connection()
                .or_else(|| pool.give_up_one().then(|| breakers.connection()).flatten());
            if let Some(permit) = permit {
                return self.open_h2(permit).await;
            }
            cluster.stats().add(worker.index, ClusterCounter::CxOverflow);
            self.wait_for_stream().await;
        }
    }

    /// At the connection cap: until a stream of the host's connections or a connection's place is free.
    async fn wait_for_stream(&self) {
        let Self {
            pool, cluster, host, ..
        } = self;
        let waiter = cluster.breakers().wait();
        let busy = pool
            .hosts
            .borrow()
            .get(&host.id)
            .and_then(|host| host.h2.first().cloned());
        match busy {
            Some(connection) => tokio::select! {
                () = connection.freed.notified() => {}
                () = waiter.freed() => {}
            },
            None => waiter.freed().await,
        }
    }

    async fn open_h2(&self, permit: Permit) -> Result<H2Lease, Failure> {
        let Self {
            pool,
            worker,
            cluster,
            host,
            ..
        } = self;
        let options = match &cluster.ir().protocol {
            UpstreamProtocol::Http2(options)
            | UpstreamProtocol::UseDownstream(_, options)
            | UpstreamProtocol::Auto(_, options) => options.clone(),
            UpstreamProtocol::Http1(_) => Http2Options::default(),
        };
        let attempt = AttemptGuard::begin(pool, host);
        let made = connect_with(worker, cluster, host, self.host_name, permit)
            .await
            .map(|established| self.start_h2(&options, established));
        let max_requests = cluster.ir().max_requests_per_connection.filter(|max| *max > 0);
        match made {
            Ok(connection) => {
                // Before the others are woken, so that this request is not left without.
                let lease = connection.lease(max_requests);
                drop(attempt);
                lease.ok_or_else(|| FailureKind::StreamRefused.into())
            }
            Err(failure) => {
                cluster
                    .stats()
                    .add(worker.index, ClusterCounter::RqPendingFailure);
                attempt.fail(failure.clone());
                Err(failure)
            }
        }
    }

    fn start_h2(&self, options: &Http2Options, established: Established) -> Rc<H2Connection> {
        let Self {
            pools,
            pool,
            worker,
            cluster,
            host,
            ..
        } = self;
        let Established { stream, ends, permit } = established;
        let local = stream.socket().and_then(|socket| socket.local_addr().ok());
        // The preface and the settings leave with the first request.
        let config = h2::config(options, RESPONSE_HEAD_MAX);
        let driver = Driver::new(stream, BytesMut::new(), config);
        cluster.stats().add(worker.index, ClusterCounter::CxHttp2);
        let connection = Rc::new(H2Connection {
            link: driver.link().clone(),
            streams: Cell::new(0),
            requests: Cell::new(0),
            closed: Cell::new(false),
            opened: Instant::now(),
            local,
            freed: Notify::new(),
            ends,
            answered: Cell::new(false),
        });
        let pings = KeepAlive::new(options.keepalive);
        spawn_local(drive(driver, pings, Rc::downgrade(&connection), permit));
        if !pool.retired.get() {
            let mut hosts = pool.hosts.borrow_mut();
            hosts.entry(host.id).or_default().h2.push(connection.clone());
        }
        pools.ensure_janitor(worker);
        connection
    }
}

fn stream_on(lease: H2Lease, cluster: &Cluster, host: &Host) -> Upstream {
    let scheme = if cluster.originator(host).is_some() {
        Scheme::Https
    } else {
        Scheme::Http
    };
    Upstream::H2(Box::new(H2Exchange::new(lease, scheme)))
}

/// A request that waits for a connection: its place under the limit and in the counters.
struct Pending {
    cluster: Arc<Cluster>,
    worker: usize,
    _permit: Permit,
}

impl Pending {
    fn new(worker: &Worker, cluster: &Arc<Cluster>) -> Result<Self, Failure> {
        let Some(permit) = cluster.breakers().pending() else {
            cluster
                .stats()
                .add(worker.index, ClusterCounter::RqPendingOverflow);
            return Err(FailureKind::PendingOverflow.into());
        };
        cluster.stats().add(worker.index, ClusterCounter::RqPendingTotal);
        Ok(Self {
            cluster: cluster.clone(),
            worker: worker.index,
            _permit: permit,
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.cluster
            .stats()
            .add(self.worker, ClusterCounter::RqPendingDone);
    }
}

/// Publishes the end of an attempt, also when its request is cancelled: another one then tries anew.
struct AttemptGuard {
    attempt: Rc<Attempt>,
    pool: Rc<ClusterPool>,
    host: u64,
}

impl AttemptGuard {
    fn begin(pool: &Rc<ClusterPool>, host: &Host) -> Self {
        let attempt = Rc::new(Attempt::default());
        pool.hosts.borrow_mut().entry(host.id).or_default().attempt = Some(attempt.clone());
        Self {
            attempt,
            pool: pool.clone(),
            host: host.id,
        }
    }

    fn fail(self, failure: Failure) {
        *self.attempt.failure.borrow_mut() = Some(failure);
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if let Some(host) = self.pool.hosts.borrow_mut().get_mut(&self.host) {
            host.attempt = None;
        }
        self.attempt.done.notify_waiters();
    }
}

/// Runs an HTTP/2 connection to its end; with keep-alive, closes it when a PING is not answered in time.
async fn drive(
    mut driver: Driver<Client>,
    mut pings: KeepAlive,
    connection: Weak<H2Connection>,
    guard: ConnectionGuard,
) {
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = driver.poll_drive(cx) {
            return Poll::Ready(ended);
        }
        if pings.poll(cx, driver.link()) {
            driver.give_up();
            return Poll::Ready(Ended::Closed);
        }
        Poll::Pending
    })
    .await;
    if let Some(connection) = connection.upgrade() {
        connection.freed.notify_waiters();
    }
    if let Ended::Broken(error) = ended {
        tracing::debug!(endpoint = %guard.host().address, %error, "HTTP/2 connection ended");
    }
    if ended != Ended::Closed {
        // The last GOAWAY; a server that does not read is not waited for.
        let _ = tokio::time::timeout(FAREWELL, poll_fn(|cx| driver.poll_shutdown(cx))).await;
    }
    drop(guard);
}

/// Gives an idle connection up whenever a request waits at the cap, on whichever worker.
async fn give_up_when_wanted(pool: Weak<ClusterPool>, cluster: Arc<Cluster>) {
    let breakers = cluster.breakers().clone();
    drop(cluster);
    loop {
        breakers.wanted().await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.retired.get() {
            return;
        }
        if breakers.is_wanted() {
            pool.give_up_one();
        }
    }
}

/// Once a second, while something is idle: closes what has expired or was closed by the server, and the pools of
/// clusters that are gone.
async fn janitor(pools: Weak<Pools>, worker: Weak<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let (Some(pools), Some(worker)) = (pools.upgrade(), worker.upgrade()) else {
            return;
        };
        let config = worker.epoch().config.clone();
        let now = Instant::now();
        let mut left = false;
        pools.retain(&config);
        for pool in pools.clusters.borrow().values() {
            left |= pool.sweep(now);
        }
        if !left {
            pools.has_janitor.set(false);
            return;
        }
    }
}

/// Hashes keys that are numbers given out by this process, where nobody can choose colliding ones.
type NumberHasher = BuildHasherDefault<NumberHash>;

#[derive(Debug, Default)]
struct NumberHash(u64);

impl Hasher for NumberHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 over the golden ratio: neighbours end up far apart, in the upper bits too, by which tables tell keys.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
