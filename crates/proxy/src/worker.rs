//! One worker: a thread with a single-threaded runtime, its own epoch, pools and counters.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{epoch::Epoch, listener::stats::ListenerCounters, upstream::namespace::Namespaces};

/// What every task of a worker's thread shares.
#[derive(Debug)]
pub struct Worker {
    /// 0 for the first; the index of its slot in per-worker counters.
    pub index: usize,
    epoch: RefCell<Rc<Epoch>>,
    connections: Cell<u64>,
    random: Cell<u64>,
    drain: watch::Receiver<bool>,
    /// Makes sockets inside workloads' network namespaces.
    pub namespaces: Namespaces,
    /// What its listeners count.
    pub listeners: Arc<ListenerCounters>,
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
        Rc::new(Self {
            index,
            epoch: RefCell::new(epoch),
            connections: Cell::new((index as u64) << 48),
            random: Cell::new(seed | 1),
            drain,
            namespaces: Namespaces::default(),
            listeners,
        })
    }

    /// The epoch of now; a request keeps it for its whole life.
    pub fn epoch(&self) -> Rc<Epoch> {
        self.epoch.borrow().clone()
    }

    /// Adopts a newer epoch.
    pub fn adopt(&self, epoch: Rc<Epoch>) {
        *self.epoch.borrow_mut() = epoch;
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
        *self.drain.borrow()
    }

    /// Resolves when draining begins.
    pub async fn drain_started(&self) {
        let mut drain = self.drain.clone();
        // An error means that the sender is gone, i.e. the process ends: that is a drain as well.
        drop(drain.wait_for(|draining| *draining).await);
    }
}
