//! Processors: how many there are for us, and which thread runs where.
//!
//! A proxy runs one worker per processor that it may use; what it may use is less than the machine has when a
//! cgroup limits it. Bounds: 1,024 processors (the kernel's `cpu_set_t`).

use std::num::NonZeroUsize;

pub use crate::system::cpu::{allowed, pin_current_thread};

/// Processors that this process may use at the same time: those of its affinity mask, fewer where its cgroup has
/// a quota (a quota of 1.5 gives 1). At least 1.
pub fn available() -> NonZeroUsize {
    // The standard library reads the affinity and the quotas of both cgroup versions.
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
