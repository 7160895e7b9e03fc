//! [`crate::netns`] where there are none: types without a value, so that whoever holds one can't exist either.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::NAMESPACES;
use crate::netns::{Capability, UserNamespaceError};
use crate::socket::{ConnectOptions, TcpStream};

/// Sockets per family that a connector would keep ready.
pub const STASH_SIZE: usize = 8;

/// Nothing is one of these. Private, so that code which handles namespaces compiles without being told that it is never
/// reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Never {}

/// An open network namespace; there is none on this system.
#[derive(Debug, Clone, Copy)]
pub struct NetNs(Never);

/// What makes a namespace the same one; there is none on this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetNsId(Never);

impl NetNs {
    /// Always refused.
    pub fn create() -> io::Result<Self> {
        Err(NAMESPACES.into())
    }

    /// Always refused.
    pub fn open(_path: &Path) -> io::Result<Self> {
        Err(NAMESPACES.into())
    }

    /// Always refused.
    pub fn of_process(_pid: u32) -> io::Result<Self> {
        Err(NAMESPACES.into())
    }

    /// Always refused.
    pub fn current() -> io::Result<Self> {
        Err(NAMESPACES.into())
    }

    /// The identity.
    pub const fn id(&self) -> NetNsId {
        match self.0 {}
    }
}

impl NetNs {
    /// What a value that can't exist is good for: anything.
    pub(crate) const fn impossible(&self) -> ! {
        match self.0 {}
    }
}

impl NetNsId {
    /// See [`NetNs::impossible`].
    pub(crate) const fn impossible(self) -> ! {
        match self.0 {}
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

/// A process that holds a namespace; there is none on this system.
#[derive(Debug)]
pub struct NamespaceHolder(Never);

impl NamespaceHolder {
    /// Always refused.
    pub fn spawn() -> io::Result<Self> {
        Err(NAMESPACES.into())
    }

    /// The holder's process id.
    pub const fn pid(&self) -> u32 {
        match self.0 {}
    }

    /// Where other processes open it.
    pub const fn path(&self) -> PathBuf {
        match self.0 {}
    }

    /// The namespace.
    pub const fn namespace(&self) -> &NetNs {
        match self.0 {}
    }
}

/// A job was not done because the namespace's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread inside the network namespace has ended")]
pub struct NamespaceGone;

impl From<NamespaceGone> for io::Error {
    fn from(gone: NamespaceGone) -> Self {
        Self::other(gone)
    }
}

/// Moves the calling thread into the namespace.
pub const fn enter(namespace: &NetNs) -> io::Result<()> {
    match namespace.0 {}
}

/// Runs the closure inside the namespace.
pub fn in_namespace<T: Send>(namespace: &NetNs, _work: impl FnOnce() -> T + Send) -> io::Result<T> {
    match namespace.0 {}
}

/// A worker thread that lives in a namespace; there is none on this system.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceThread(Never);

impl NamespaceThread {
    /// Starts the thread.
    pub const fn start(namespace: &NetNs, _queue: usize) -> io::Result<Self> {
        match namespace.0 {}
    }

    /// The namespace in which the thread lives.
    pub const fn namespace(&self) -> &NetNs {
        match self.0 {}
    }

    /// Has the closure run inside.
    #[expect(clippy::unused_async, reason = "the other half waits")]
    pub async fn run<T, F>(&self, _work: F) -> Result<T, NamespaceGone>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self.0 {}
    }

    /// Has the closure run inside, blocking.
    pub fn run_blocking<T, F>(&self, _work: F) -> Result<T, NamespaceGone>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self.0 {}
    }
}

/// Connects from inside a namespace; there is none on this system.
#[derive(Debug)]
pub struct NamespaceConnector(Never);

impl NamespaceConnector {
    /// A connector.
    pub fn new(thread: NamespaceThread, _options: ConnectOptions) -> Self {
        match thread.0 {}
    }

    /// The thread whose namespace it connects from.
    pub const fn thread(&self) -> &NamespaceThread {
        match self.0 {}
    }

    /// Connects from inside the namespace.
    #[expect(clippy::unused_async, reason = "the other half waits")]
    pub async fn connect(&self, _to: SocketAddr) -> io::Result<TcpStream> {
        match self.0 {}
    }
}

/// What this kernel lets us do: no namespaces.
pub fn probe() -> Capability {
    Capability::Refused {
        reason: format!("{} has no network namespaces", crate::host::system()),
    }
}

/// Moves the process into a new user namespace; always refused.
pub fn unshare_user() -> Result<(), UserNamespaceError> {
    let source = io::Error::from(NAMESPACES);
    Err(UserNamespaceError::Refused {
        reason: user_namespace_refusal(&source),
        source,
    })
}

/// Why this machine refuses user namespaces, in one sentence.
pub fn user_namespace_refusal(error: &io::Error) -> String {
    error.to_string()
}
