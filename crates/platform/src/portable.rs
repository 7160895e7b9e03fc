//! The half of the crate for systems that are not Linux: POSIX and what the BSDs and macOS share.
//!
//! It has the same items as its Linux counterpart. What it can't do is a typed answer, never a silent one: things that
//! exist only on Linux are types without a value ([`netns::NetNs`]) or give [`crate::Unsupported`].
//!
//! | asked for | here |
//! | --- | --- |
//! | namespaces, redirection, pinning | [`crate::Unsupported`]; `probe` says `Refused` |
//! | the destination before a redirection | "the connection was not redirected", since nothing redirects |
//! | processes, by `/proc` and pidfds | by `ps`, `SIGCHLD` and `kill`; a signal can meet a stranger's pid only if a pid is given away again within the microseconds between `ps` and `kill` |
//! | a child that dies with its parent | it lives on, and the next `up` or `down` ends it by its record |
//! | `splice` | a copy through a buffer |
//! | `SO_REUSEPORT`, one queue per worker | one queue that all workers accept from: elsewhere the last socket gets everything |
//!
//! Only calls that macOS has stand here: no `accept4`, `pipe2`, `SOCK_CLOEXEC`, `MSG_NOSIGNAL`, pidfd, eventfd, epoll.

pub(crate) mod cpu;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod netns;
pub(crate) mod network;
pub(crate) mod nftables;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod socket;

use crate::Unsupported;

/// What most of this half's refusals are about.
pub(crate) const NAMESPACES: Unsupported = Unsupported {
    what: "network namespaces",
};
