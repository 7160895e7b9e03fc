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

use std::io;
use std::path::PathBuf;

pub use crate::system::netns::{
    NamespaceConnector, NamespaceGone, NamespaceHolder, NamespaceThread, NetNs, NetNsId, STASH_SIZE, enter,
    in_namespace, probe, unshare_user, user_namespace_refusal,
};

/// How `rajut up` can give each workload a network of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// This process may make and configure namespaces as it is.
    Root,
    /// It may inside a user namespace: see [`super::unshare_user`].
    Rootless,
    /// Something in the way; without it being removed only explicit ports remain.
    Refused {
        /// One sentence for people: what refuses and, where known, what to change.
        reason: String,
    },
}

/// Why [`unshare_user`] failed.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The kernel only lets single-threaded processes change their user namespace.
    #[error("a process with {threads} threads can't enter a user namespace; do it before any thread starts")]
    Threads {
        /// Threads of the process.
        threads: usize,
    },
    /// The kernel or its configuration refuses user namespaces.
    #[error("{reason}")]
    Refused {
        /// For people: which setting refuses, and how to change it.
        reason: String,
        /// What `unshare` said.
        #[source]
        source: io::Error,
    },
    /// The namespace was made but the ids could not be mapped: the process must not go on in it.
    #[error("can't write {}", file.display())]
    Map {
        /// `uid_map`, `gid_map` or `setgroups`.
        file: PathBuf,
        /// What the write said.
        #[source]
        source: io::Error,
    },
}
