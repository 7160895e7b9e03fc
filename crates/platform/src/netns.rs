//! Network namespaces: making them, keeping them alive, working inside them.
//!
//! In `rajut up` every workload lives in a network namespace of its own. Its sidecar does not: the sidecar's
//! process stays in the host's namespace and owns single sockets inside the workload's, made by a thread that has
//! entered it. Three ways to work in a namespace, by need:
//!
//! - [`in_namespace`]: a closure on a short-lived thread; for setting things up.
//! - [`NamespaceThread`]: a worker thread that stays inside and takes jobs; for a process that keeps coming back.
//! - [`NamespaceConnector`]: upstream sockets from a small stash, refilled through a `NamespaceThread`; for the
//!   request path.
//!
//! A namespace lives as long as a process, a socket or an open descriptor refers to it. [`NetNs`] is such a
//! descriptor. [`NamespaceHolder`] is a process that does nothing but hold one, so that *other* processes can open
//! it as `/proc/<pid>/ns/net`; it ends with the process that made it, however that ends.
//!
//! Making a namespace needs `CAP_SYS_ADMIN`. An ordinary user has it inside a user namespace of their own
//! ([`unshare_user`]), where the kernel allows those; [`probe`] tells.
//!
//! Bounds: a `NamespaceThread` queues at most the number of jobs it is given; a stash holds at most
//! [`STASH_SIZE`] sockets per family. What this module does not do: addresses, routes ([`crate::network`]) and
//! redirection ([`crate::nftables`]).

mod holder;
mod probe;
mod thread;
mod user;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::thread::UnshareFlags;

pub use holder::NamespaceHolder;
pub use probe::{Capability, probe};
pub use thread::{NamespaceConnector, NamespaceGone, NamespaceThread, STASH_SIZE, enter, in_namespace};
pub use user::{UserNamespaceError, unshare_user, user_namespace_refusal};

pub(crate) use user::IdMaps;

/// An open network namespace. Cloning shares the descriptor; the namespace lives while a clone does.
#[derive(Debug, Clone)]
pub struct NetNs {
    file: Arc<OwnedFd>,
    identity: NetNsId,
}

/// What makes a namespace the same one, whatever path it was opened by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetNsId {
    device: u64,
    inode: u64,
}

impl NetNsId {
    pub(crate) const fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

impl NetNs {
    /// Makes a new namespace, empty but for a loopback device that is down, held by the returned descriptor.
    ///
    /// A dedicated thread leaves the current namespace and ends; the calling thread stays where it is.
    pub fn create() -> io::Result<Self> {
        std::thread::scope(|scope| {
            let made = std::thread::Builder::new()
                .name("netns-create".into())
                .spawn_scoped(scope, || {
                    unshare_net()?;
                    Self::open(Path::new("/proc/thread-self/ns/net"))
                })?
                .join();
            made.unwrap_or_else(|_| Err(io::Error::other("the thread that makes namespaces panicked")))
        })
    }

    /// Opens a namespace by its file: `/proc/<pid>/ns/net`, `/run/netns/<name>`, `/proc/<pid>/fd/<n>`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let kind = rustix::fs::fstatfs(&file)?;
        // Any other file would only fail later, at `setns`, with a bare EINVAL.
        if u64::try_from(kind.f_type).ok() != Some(NSFS_MAGIC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the file is not a namespace",
            ));
        }
        let identity = NetNsId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        Ok(Self {
            file: Arc::new(file.into()),
            identity,
        })
    }

    /// The namespace of a process. Needs the right to look at that process (`PTRACE_MODE_READ`).
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The identity, equal for two descriptors of the same namespace.
    pub const fn id(&self) -> NetNsId {
        self.identity
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Moves the calling thread into a new network namespace.
pub(crate) fn unshare_net() -> io::Result<()> {
    // SAFETY: only the network namespace of this thread changes; no file table or memory is unshared, which is
    // what the function's contract is about.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
