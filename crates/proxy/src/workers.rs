//! The worker threads as the main thread sees them: start, give configuration and sockets, wait for adoption.
//!
//! Bounds: [`COMMANDS_MAX`] commands wait for a worker; the main thread waits for room.

use std::{
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use rajut_platform::socket::TcpListener;
use rajut_types::Text;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Semaphore, mpsc, oneshot, watch},
};

use crate::{
    epoch::{Config, Epoch},
    listener::{
        accept::{CONNECTIONS_MAX, Share, accept_loop, serve_handed},
        balance::{Balance, Handed},
        stats::ListenerCounters,
    },
    worker::Worker,
};

/// Configuration changes are coalesced long before this.
const COMMANDS_MAX: usize = 64;

/// What a worker is told.
enum Command {
    /// Use this configuration from the next request on, and say so.
    Adopt(Arc<Config>, oneshot::Sender<()>),
    /// Accept on this socket for the listener of that name until `stop` turns true.
    Listen {
        name: Text,
        socket: std::net::TcpListener,
        stop: watch::Receiver<bool>,
    },
}

/// All worker threads.
pub struct Workers {
    commands: Vec<mpsc::Sender<Command>>,
    threads: Vec<JoinHandle<()>>,
    counters: Vec<Arc<ListenerCounters>>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("count", &self.commands.len())
            .finish_non_exhaustive()
    }
}

/// A worker has ended, which it does only by a defect.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a worker thread has ended; the proxy can't go on")]
pub struct WorkerGone;

impl Workers {
    /// Starts `count` threads with a first configuration; `seeds` feeds their random draws.
    pub fn start(
        count: usize,
        config: &Arc<Config>,
        drain: &watch::Receiver<bool>,
        seeds: impl Fn(usize) -> u64,
    ) -> io::Result<Self> {
        let mut workers = Self {
            commands: Vec::new(),
            threads: Vec::new(),
            counters: Vec::new(),
        };
        let (balance, handed) = Balance::new(count);
        for (index, handed) in handed.into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
            let counters = Arc::new(ListenerCounters::default());
            let start = Start {
                index,
                config: config.clone(),
                seed: seeds(index),
                drain: drain.clone(),
                counters: counters.clone(),
                balance: (count > 1).then(|| balance.clone()),
                handed,
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run_worker(start, receiver))?;
            workers.commands.push(sender);
            workers.threads.push(thread);
            workers.counters.push(counters);
        }
        Ok(workers)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Gives all workers a configuration and waits until every one has adopted it.
    pub async fn adopt(&self, config: &Arc<Config>) -> Result<(), WorkerGone> {
        let mut adopted = Vec::with_capacity(self.commands.len());
        for worker in &self.commands {
            let (done, wait) = oneshot::channel();
            worker
                .send(Command::Adopt(config.clone(), done))
                .await
                .map_err(|_| WorkerGone)?;
            adopted.push(wait);
        }
        for wait in adopted {
            wait.await.map_err(|_| WorkerGone)?;
        }
        Ok(())
    }

    /// Gives each worker one of `sockets` (as many as there are workers) to accept on.
    pub async fn listen(
        &self,
        name: &Text,
        sockets: Vec<std::net::TcpListener>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), WorkerGone> {
        for (worker, socket) in self.commands.iter().zip(sockets) {
            let command = Command::Listen {
                name: name.clone(),
                socket,
                stop: stop.clone(),
            };
            worker.send(command).await.map_err(|_| WorkerGone)?;
        }
        Ok(())
    }

    /// What the workers' listeners count, for the scrape.
    pub fn counters(&self) -> &[Arc<ListenerCounters>] {
        &self.counters
    }

    /// Downstream connections that are open.
    pub fn active_connections(&self) -> u64 {
        self.counters
            .iter()
            .map(|counters| counters.active.load(Ordering::Relaxed))
            .sum()
    }

    /// Whether a thread has ended.
    pub fn any_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

struct Start {
    index: usize,
    config: Arc<Config>,
    seed: u64,
    drain: watch::Receiver<bool>,
    counters: Arc<ListenerCounters>,
    /// `None` where it is the only one.
    balance: Option<Arc<Balance>>,
    handed: mpsc::Receiver<Handed>,
}

fn run_worker(start: Start, mut commands: mpsc::Receiver<Command>) {
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(crate::clock::woke)
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(worker = start.index, %error, "no runtime for the worker");
            return;
        }
    };
    runtime.block_on(async move {
        let Start {
            index,
            config,
            seed,
            drain,
            counters,
            balance,
            handed,
        } = start;
        let worker = Worker::new(index, Rc::new(Epoch::first(config)), seed, drain, counters);
        let share = Share {
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            balance,
        };
        if let Some(balance) = &share.balance {
            balance.watch(index, tokio::runtime::Handle::current().metrics());
            tokio::task::spawn_local(serve_handed(worker.clone(), handed, share.permits.clone()));
        }
        if index == 0 {
            // One sweep brings ejected endpoints back, and one checker asks each endpoint, for all workers.
            tokio::task::spawn_local(crate::cluster::outlier::sweep_forever(worker.clone()));
            tokio::task::spawn_local(crate::cluster::health::check_forever(worker.clone()));
        }
        while let Some(command) = commands.recv().await {
            match command {
                Command::Adopt(config, done) => {
                    worker.adopt(Rc::new(worker.epoch().next(config)));
                    // The main thread waits for it unless it is ending.
                    let _ = done.send(());
                }
                Command::Listen { name, socket, stop } => match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let accepting = accept_loop(worker.clone(), name, socket, share.clone(), stop);
                        tokio::task::spawn_local(accepting);
                    }
                    Err(error) => tracing::error!(listener = %name, %error, "the socket can't be served"),
                },
            }
        }
    });
}

#[cfg(test)]
mod tests;
