//! Threads that work inside a namespace.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustix::thread::LinkNameSpaceType;
use tokio::sync::{mpsc, oneshot};

use crate::socket::{ConnectOptions, Family, TcpStream, UnconnectedSocket};

use super::NetNs;

/// Sockets per family that a [`NamespaceConnector`] keeps ready.
pub const STASH_SIZE: usize = 8;

/// Moves the calling thread into the namespace, for good. Only for threads (or processes) of one's own: a
/// runtime's worker that has moved makes all its later sockets there.
pub fn enter(namespace: &NetNs) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(
        rustix::fd::AsFd::as_fd(namespace),
        Some(LinkNameSpaceType::Network),
    )?;
    Ok(())
}

/// Runs the closure on a thread of its own inside the namespace, and waits for it.
///
/// Blocks; costs a thread (some 50 µs). Sockets that the closure returns stay in the namespace.
pub fn in_namespace<T: Send>(namespace: &NetNs, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("netns-once".into())
            .spawn_scoped(scope, || {
                enter(namespace)?;
                Ok(work())
            })?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the work inside the namespace panicked")))
    })
}

/// A job was not done because the namespace's thread has ended: a job before it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread inside the network namespace has ended")]
pub struct NamespaceGone;

impl From<NamespaceGone> for io::Error {
    fn from(gone: NamespaceGone) -> Self {
        Self::other(gone)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A worker thread that lives in a namespace and does jobs one after the other, in the order of their arrival.
///
/// Clones share the thread; it ends after the last of them. A job that blocks holds up all others: make sockets
/// there, wait elsewhere.
#[derive(Clone)]
pub struct NamespaceThread {
    jobs: mpsc::Sender<Job>,
    namespace: NetNs,
}

impl fmt::Debug for NamespaceThread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NamespaceThread")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl NamespaceThread {
    /// Starts the thread; at most `queue` jobs wait (at least one), who comes later waits for room.
    pub fn start(namespace: &NetNs, queue: usize) -> io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(queue.max(1));
        let (entered, has_entered) = std::sync::mpsc::sync_channel(1);
        let inside = namespace.clone();
        std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                let outcome = enter(&inside);
                let failed = outcome.is_err();
                // The receiver waits below; it can only be gone if its thread panicked.
                if entered.send(outcome).is_err() || failed {
                    return;
                }
                while let Some(job) = waiting.blocking_recv() {
                    job();
                }
            })?;
        has_entered
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other(NamespaceGone)))?;
        Ok(Self {
            jobs,
            namespace: namespace.clone(),
        })
    }

    /// The namespace in which the thread lives.
    pub const fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Has the closure run inside and returns its result. Dropping the future before the job began still lets it
    /// run; its result is dropped.
    pub async fn run<T, F>(&self, work: F) -> Result<T, NamespaceGone>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move || drop(answer.send(work())));
        self.jobs.send(job).await.map_err(|_| NamespaceGone)?;
        result.await.map_err(|_| NamespaceGone)
    }

    /// [`NamespaceThread::run`] for code outside a runtime. Must not be called from asynchronous code.
    pub fn run_blocking<T, F>(&self, work: F) -> Result<T, NamespaceGone>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, result) = std::sync::mpsc::sync_channel(1);
        let job: Job = Box::new(move || drop(answer.send(work())));
        self.jobs.blocking_send(job).map_err(|_| NamespaceGone)?;
        result.recv().map_err(|_| NamespaceGone)
    }
}

/// Connects from inside a namespace, cheaply: sockets are made [`STASH_SIZE`] at a time by the namespace's
/// thread, and all but every eighth connection finds one ready.
///
/// One per worker and set of options; not `Send`, takes no lock.
#[derive(Debug)]
pub struct NamespaceConnector {
    thread: NamespaceThread,
    options: Arc<ConnectOptions>,
    v4: RefCell<Vec<UnconnectedSocket>>,
    v6: RefCell<Vec<UnconnectedSocket>>,
    // Sockets may move between threads; the stash must not be shared.
    _not_send: std::marker::PhantomData<Rc<()>>,
}

impl NamespaceConnector {
    /// A connector with an empty stash.
    pub fn new(thread: NamespaceThread, options: ConnectOptions) -> Self {
        Self {
            thread,
            options: Arc::new(options),
            v4: RefCell::default(),
            v6: RefCell::default(),
            _not_send: std::marker::PhantomData,
        }
    }

    /// The thread whose namespace it connects from.
    pub const fn thread(&self) -> &NamespaceThread {
        &self.thread
    }

    /// Connects from inside the namespace.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stash = match Family::of(&to) {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let ready = stash.borrow_mut().pop();
        let socket = match ready {
            Some(socket) => socket,
            None => self.refill(Family::of(&to), stash).await?,
        };
        socket.connect(to).await
    }

    async fn refill(
        &self,
        family: Family,
        stash: &RefCell<Vec<UnconnectedSocket>>,
    ) -> io::Result<UnconnectedSocket> {
        let options = Arc::clone(&self.options);
        // A source with a fixed port can be bound once only: no stash for those.
        let count = if options.source.is_some_and(|source| source.port() != 0) {
            1
        } else {
            STASH_SIZE
        };
        let made = self
            .thread
            .run(move || (0..count).map(|_| options.socket(family)).collect::<Vec<_>>())
            .await?;
        let mut made = made.into_iter();
        let first = made
            .next()
            .unwrap_or_else(|| Err(io::Error::other(NamespaceGone)))?;
        // Out of descriptors half way: what was made is used, the next refill reports the error.
        let mut stash = stash.borrow_mut();
        let room = STASH_SIZE.saturating_sub(stash.len());
        stash.extend(made.map_while(Result::ok).take(room));
        Ok(first)
    }
}
