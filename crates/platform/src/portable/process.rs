//! [`crate::process`] with what every Unix has: `ps`, `SIGCHLD`, `kill`, process groups.

mod child;
mod id;
mod ps;

use std::io;

use crate::Unsupported;
use crate::process::{Isolation, Usage};
use crate::system::netns::NetNsId;

pub use child::{Child, spawn};
pub use id::ProcessId;
pub use ps::processes_with_variable;

pub(crate) use ps::alive;

/// [`Isolation::of_process`]: no process has namespaces of its own, so nothing is different.
#[expect(clippy::unnecessary_wraps, reason = "the other half can fail")]
pub(crate) fn isolation_of(_pid: u32) -> io::Result<Isolation> {
    Ok(Isolation::default())
}

/// Processes inside a network namespace, of which there is none.
pub const fn processes_in_namespace(namespace: NetNsId) -> io::Result<Vec<ProcessId>> {
    namespace.impossible()
}

/// Memory and processor time of a process; not known here.
pub fn usage(_pid: u32) -> io::Result<Usage> {
    Err(Unsupported {
        what: "/proc to measure processes with",
    }
    .into())
}

/// Adopting orphaned descendants; not possible here.
pub fn become_subreaper() -> io::Result<()> {
    Err(Unsupported {
        what: "adoption of orphaned processes",
    }
    .into())
}

/// Collects adopted children, of which there are none without [`become_subreaper`].
#[expect(clippy::unnecessary_wraps, reason = "the other half can fail")]
pub fn reap_adopted(_known: impl Fn(u32) -> bool) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests;
