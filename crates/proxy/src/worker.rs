//! One worker: a thread with a single-threaded runtime, its own epoch, pools and counters.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{sync::watch, task::spawn_local};

use crate::{
    cluster::demand::WAITING_MAX, epoch::Epoch, http::timer, listener::stats::ListenerCounters, stats::istio,
    upstream::namespace::Namespaces,
};

/// What every task of a worker's thread shares.
#[derive(Debug)]
pub struct Worker {
    /// 0 for the first; the index of its slot in per-worker counters.
    pub index: usize,
    epoch: RefCell<Rc<Epoch>>,
    connections: Cell<u64>,
    random: Cell<u64>,
    drain: watch::Receiver<bool>,
    drain_waits: RefCell<Waits>,
    drain_began: Cell<bool>,
    /// A task watches `drain` for all of them.
    drain_watched: Cell<bool>,
    this: Weak<Self>,
    /// Changes with every epoch that is adopted, for those who wait for something in it.
    adopted: watch::Sender<()>,
    /// Requests that wait for a cluster.
    waiting: Cell<u32>,
    /// Makes sockets inside workloads' network namespaces.
    pub namespaces: Namespaces,
    /// What its listeners count.
    pub listeners: Arc<ListenerCounters>,
    /// Its series of Istio's metrics.
    pub(crate) metrics: istio::Table,
    /// Timers for the streams of HTTP/2.
    pub(crate) timers: timer::Stock,
}

/// Who waits for draining to begin. At most one per connection.
#[derive(Debug, Default)]
struct Waits {
    /// By place; a free place is `None`.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Worker {
    /// A worker with its first epoch; `seed` feeds its random draws, `listeners` is read by the scrape.
    pub fn new(
        index: usize,
        epoch: Rc<Epoch>,
        seed: u64,
        drain: watch::Receiver<bool>,
        listeners: Arc<ListenerCounters>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            index,
            epoch: RefCell::new(epoch),
            connections: Cell::new((index as u64) << 48),
            random: Cell::new(seed | 1),
            drain,
            drain_waits: RefCell::default(),
            drain_began: Cell::new(false),
            drain_watched: Cell::new(false),
            adopted: watch::Sender::new(()),
            waiting: Cell::new(0),
            namespaces: Namespaces::default(),
            listeners,
            metrics: istio::Table::default(),
            timers: timer::Stock::default(),
        })
    }

    /// The epoch of now; a request keeps it for its whole life.
    pub fn epoch(&self) -> Rc<Epoch> {
        self.epoch.borrow().clone()
    }

    /// Adopts a newer epoch.
    pub fn adopt(&self, epoch: Rc<Epoch>) {
        *self.epoch.borrow_mut() = epoch;
        self.adopted.send_replace(());
    }

    /// Tells of every epoch that is adopted from now on.
    pub fn adoptions(&self) -> watch::Receiver<()> {
        self.adopted.subscribe()
    }

    /// A place among the requests that wait for a cluster; `None` where too many do.
    pub fn wait_for_cluster(self: &Rc<Self>) -> Option<WaitsForCluster> {
        let waiting = self.waiting.get();
        (waiting < WAITING_MAX).then(|| {
            self.waiting.set(waiting + 1);
            WaitsForCluster(self.clone())
        })
    }

    /// An identifier for a new connection, unique in the process.
    pub fn next_connection_id(&self) -> u64 {
        let id = self.connections.get() + 1;
        self.connections.set(id);
        id
    }

    /// A pseudo-random number (xorshift64*): for balancing, sampling and jitter, never for secrets.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A draw in `0..1_000_000`.
    pub fn draw(&self) -> u32 {
        u32::try_from(((self.random() >> 32) * 1_000_000) >> 32).unwrap_or(0)
    }

    /// Whether the proxy is draining: no new keep-alive, GOAWAY on HTTP/2.
    pub fn draining(&self) -> bool {
        // Without a lock while nothing was said, since every request asks.
        self.drain_began.get() || self.drain.has_changed().unwrap_or(true) && *self.drain.borrow()
    }

    /// Resolves when draining begins. Waiting costs a place in a list; one task of the worker watches for all.
    pub fn drain_started(&self) -> DrainStarted<'_> {
        DrainStarted {
            worker: self,
            place: None,
        }
    }

    fn watch_drain(&self) {
        if self.drain_watched.replace(true) {
            return;
        }
        let (worker, mut drain) = (self.this.clone(), self.drain.clone());
        spawn_local(async move {
            // An error means that the sender is gone, i.e. the process ends: that is a drain as well.
            drop(drain.wait_for(|draining| *draining).await);
            if let Some(worker) = worker.upgrade() {
                worker.drain_began.set(true);
                let waits = worker.drain_waits.take();
                waits.wakers.into_iter().flatten().for_each(Waker::wake);
            }
        });
    }
}

/// See [`Worker::drain_started`].
#[derive(Debug)]
pub struct DrainStarted<'w> {
    worker: &'w Worker,
    place: Option<usize>,
}

impl Future for DrainStarted<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.worker.drain_began.get() {
            return Poll::Ready(());
        }
        this.worker.watch_drain();
        let mut waits = this.worker.drain_waits.borrow_mut();
        let place = *this.place.get_or_insert_with(|| {
            waits.free.pop().unwrap_or_else(|| {
                waits.wakers.push(None);
                waits.wakers.len() - 1
            })
        });
        match &mut waits.wakers[place] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for DrainStarted<'_> {
    fn drop(&mut self) {
        let mut waits = self.worker.drain_waits.borrow_mut();
        // The list is gone once draining has begun.
        if let Some(place) = self.place
            && let Some(wait) = waits.wakers.get_mut(place)
        {
            *wait = None;
            waits.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::epoch::{Config, Epoch};

    fn worker(drain: watch::Receiver<bool>) -> Rc<Worker> {
        let epoch = Epoch::first(Arc::new(Config::default()));
        Worker::new(0, Rc::new(epoch), 1, drain, Arc::default())
    }

    #[test]
    fn the_begin_of_a_drain_reaches_all_who_wait_and_those_who_come_later() {
        let runtime = Builder::new_current_thread()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let (drain, draining) = watch::channel(false);
            let worker = worker(draining);
            for _ in 0..3 {
                // Who gives up leaves a place for the next one.
                let mut wait = worker.drain_started();
                let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut wait).poll(cx))).await;
                assert!(polled.is_pending());
            }
            assert_eq!(worker.drain_waits.borrow().wakers.len(), 1);
            let waiting = [worker.clone(), worker.clone()]
                .map(|worker| spawn_local(async move { worker.drain_started().await }));
            tokio::task::yield_now().await;
            assert!(!worker.draining());
            drain.send(true).unwrap();
            assert!(worker.draining(), "at once, without a turn of the runtime");
            for wait in waiting {
                wait.await.unwrap();
            }
            worker.drain_started().await;
            assert!(worker.draining());
        });
    }
}

/// One request that waits for a cluster, until it is dropped.
#[derive(Debug)]
pub struct WaitsForCluster(Rc<Worker>);

impl Drop for WaitsForCluster {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}
