//! [`crate::netns`] with the kernel's namespaces.

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
pub use probe::probe;
pub use thread::{NamespaceConnector, NamespaceGone, NamespaceThread, STASH_SIZE, enter, in_namespace};
pub use user::{unshare_user, user_namespace_refusal};

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
