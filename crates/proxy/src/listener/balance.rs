//! Which worker serves a connection: accepting and serving are separate.
//!
//! The kernel spreads new connections over the workers' sockets by a hash, which is fair for many and blind for few:
//! of three long HTTP/2 connections two or all may meet on one worker. So the worker that accepts looks at what all of
//! them have, and hands the socket to the one with the least load:
//!
//! ```text
//!  accept ─► Balance::place ─► own worker ─────────────────────► serve
//!                        └───► Balance::hand_over ─ channel ─► the other worker ─► serve
//! ```
//!
//! Load is the number of open connections, weighted by how busy the worker's thread was lately: a connection that
//! carries a hundred busy streams counts for more than an idle one. A small difference is left alone, since a move costs
//! two system calls and a wake-up. Bounds: [`HANDED_MAX`] sockets wait for a worker; beyond that they stay where they
//! were accepted. Shared atomics are touched when a connection opens and when it ends, never by a request. With one
//! worker there is no balance at all. Not here: connections do not move once they are served.
#![expect(
    clippy::disallowed_methods,
    reason = "connections are counted on all threads, outside of any reactor"
)]

use std::{
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rajut_types::Text;
use tokio::{runtime::RuntimeMetrics, sync::mpsc};

/// Sockets on their way to one worker.
pub const HANDED_MAX: usize = 1024;
/// How often it is looked how busy the workers are, at most.
const LOOK: Duration = Duration::from_millis(100);
/// A thread that never sleeps counts as this much; one that always does as 0.
const BUSY_MAX: u64 = 16;

/// A socket on its way to the worker that serves it.
#[derive(Debug)]
pub struct Handed {
    /// The listener that accepted it.
    pub name: Text,
    /// The connection.
    pub socket: TcpStream,
    /// Its place there.
    pub place: Place,
}

/// What the workers of a proxy have to do.
#[derive(Debug)]
pub struct Balance {
    slots: Vec<Slot>,
    looked: Mutex<Looked>,
}

#[derive(Debug)]
struct Slot {
    open: AtomicU64,
    /// 0..=[`BUSY_MAX`].
    busy: AtomicU64,
    handed: mpsc::Sender<Handed>,
    metrics: std::sync::OnceLock<RuntimeMetrics>,
}

#[derive(Debug)]
struct Looked {
    at: Instant,
    busy: Vec<Duration>,
}

/// An open connection in the books of its worker, until dropped.
#[derive(Debug)]
pub struct Place {
    balance: Arc<Balance>,
    worker: usize,
}

impl Place {
    /// The worker that serves the connection.
    pub const fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.balance.slots[self.worker]
            .open
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl Balance {
    /// For `count` workers; each receives what is handed to it from its receiver.
    pub fn new(count: usize) -> (Arc<Self>, Vec<mpsc::Receiver<Handed>>) {
        let (slots, receivers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (handed, receiver) = mpsc::channel(HANDED_MAX);
                let slot = Slot {
                    open: AtomicU64::new(0),
                    busy: AtomicU64::new(0),
                    handed,
                    metrics: std::sync::OnceLock::new(),
                };
                (slot, receiver)
            })
            .unzip();
        let looked = Looked {
            at: Instant::now(),
            busy: vec![Duration::ZERO; count],
        };
        let balance = Self {
            slots,
            looked: Mutex::new(looked),
        };
        (Arc::new(balance), receivers)
    }

    /// A worker's thread tells where its busy time can be read.
    pub fn watch(&self, worker: usize, metrics: RuntimeMetrics) {
        // A second one of the same worker would be the same.
        let _ = self.slots[worker].metrics.set(metrics);
    }

    /// The place of a connection that `worker` has accepted: there, or with one that has clearly less to do.
    pub fn place(self: &Arc<Self>, worker: usize) -> Place {
        self.look(Instant::now());
        let load = |slot: &Slot| {
            let busy = slot.busy.load(Ordering::Relaxed);
            (1 + slot.open.load(Ordering::Relaxed)) * (1 + busy)
        };
        let own = load(&self.slots[worker]);
        let least = self
            .slots
            .iter()
            .map(load)
            .enumerate()
            .min_by_key(|(_, load)| *load)
            .filter(|(_, least)| *least + *least / 8 < own);
        let worker = least.map_or(worker, |(other, _)| other);
        self.slots[worker].open.fetch_add(1, Ordering::Relaxed);
        Place {
            balance: self.clone(),
            worker,
        }
    }

    /// Gives the socket to the worker of its place; where that one takes no more it comes back.
    pub fn hand_over(&self, handed: Handed) -> Result<(), Handed> {
        let slot = &self.slots[handed.place.worker];
        slot.handed
            .try_send(handed)
            .map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Reads how busy the workers were since the last look, if that was a while ago and nobody else does.
    fn look(&self, now: Instant) {
        let Ok(mut looked) = self.looked.try_lock() else {
            return;
        };
        let passed = now.saturating_duration_since(looked.at);
        if passed < LOOK {
            return;
        }
        looked.at = now;
        for (slot, before) in self.slots.iter().zip(&mut looked.busy) {
            let Some(metrics) = slot.metrics.get() else {
                continue;
            };
            let busy = metrics.worker_total_busy_duration(0);
            let share = share_of(busy.saturating_sub(*before), passed);
            slot.busy.store(share, Ordering::Relaxed);
            *before = busy;
        }
    }
}

/// `busy` in `passed`, in sixteenths.
fn share_of(busy: Duration, passed: Duration) -> u64 {
    let share = busy.as_micros() * u128::from(BUSY_MAX) / passed.as_micros().max(1);
    u64::try_from(share).unwrap_or(BUSY_MAX).min(BUSY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_each_get_a_worker_of_their_own() {
        let (balance, _receivers) = Balance::new(4);
        // The kernel's hash met the same worker each time.
        let places: Vec<_> = (0..3).map(|_| balance.place(2)).collect();
        let mut workers: Vec<_> = places.iter().map(Place::worker).collect();
        workers.sort_unstable();
        workers.dedup();
        assert_eq!(workers.len(), 3);
        drop(places);
        assert_eq!(balance.place(3).worker(), 3, "its own where all are equal");
    }

    #[test]
    fn many_connections_stay_where_they_are_accepted() {
        let (balance, _receivers) = Balance::new(2);
        let _held: Vec<_> = (0..200).map(|at| balance.place(at % 2)).collect();
        let more: Vec<_> = (0..8).map(|_| balance.place(0)).collect();
        assert!(more.iter().all(|place| place.worker() == 0));
        let far: Vec<_> = (0..60).map(|_| balance.place(0)).collect();
        assert!(far.iter().any(|place| place.worker() == 1), "but not for ever");
    }

    #[test]
    fn a_busy_worker_gets_less() {
        let (balance, _receivers) = Balance::new(2);
        balance.slots[0].busy.store(BUSY_MAX, Ordering::Relaxed);
        let places: Vec<_> = (0..12).map(|_| balance.place(0)).collect();
        let busy = places.iter().filter(|place| place.worker() == 0).count();
        assert_eq!(busy, 0);
        assert_eq!(share_of(Duration::from_millis(50), Duration::from_millis(100)), 8);
        assert_eq!(
            share_of(Duration::from_secs(9), Duration::from_millis(100)),
            BUSY_MAX
        );
    }
}
