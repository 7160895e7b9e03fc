//! Processes: starting them inside namespaces, telling them apart for certain, measuring and ending them.
//!
//! `rajut up` starts every workload and sidecar through [`spawn`]. A process is named by [`ProcessId`], which is
//! its pid *and* the moment of its start: a pid file that has outlived its process never makes us
//! signal a stranger that got the same number.
//!
//! Bounds: everything here reads `/proc` or makes a handful of system calls; nothing is cached and nothing runs in the
//! background. It does not restart anything.

mod child;
mod id;
mod isolation;
mod survey;

pub use child::{Child, SpawnError, spawn, spawn_daemon};
pub use id::{InvalidProcessId, ProcessId};
pub use isolation::{FileMount, Isolation, Mounts, UserNamespace};
pub use rustix::process::Signal;
pub use survey::{
    Usage, become_subreaper, kill_all, processes_in_namespace, processes_with_variable, reap_adopted, usage,
};

#[cfg(test)]
mod tests;
