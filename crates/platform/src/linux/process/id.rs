//! The identity of a process.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::survey::Stat;
use crate::process::InvalidProcessId;

/// A process, and no other that later gets the same pid: pid, start time, and the boot in which both count.
///
/// Its text form (`to_string`, `parse`) is what pid files hold: `1234:987654:4f1c…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    pid: u32,
    /// Clock ticks (usually 10 ms) since boot, from `/proc/<pid>/stat`.
    start: u64,
    /// `/proc/sys/kernel/random/boot_id`: ticks of different boots can't be compared.
    boot: u128,
}

/// The identity of this boot, 0 where the kernel does not tell.
fn boot() -> u128 {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
        .unwrap_or(0)
}

impl ProcessId {
    /// The process that has this pid now. [`io::ErrorKind::NotFound`] when there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start: Stat::read(pid)?.start,
            boot: boot(),
        })
    }

    /// This process.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The number. On its own it may already mean another process.
    pub const fn pid(self) -> u32 {
        self.pid
    }

    /// Whether the process still runs; one that has ended and was not reaped yet (a zombie) does not.
    pub fn is_alive(self) -> bool {
        boot() == self.boot
            && Stat::read(self.pid)
                .is_ok_and(|stat| stat.start == self.start && !matches!(stat.state, b'Z' | b'X'))
    }

    /// Sends the signal; `Ok(false)` when the process has ended.
    ///
    /// Free of races: the process is pinned by a pidfd before its start time is compared.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let pinned = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pinned) => pinned,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match rustix::process::pidfd_send_signal(&pinned, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{:x}", self.pid, self.start, self.boot)
    }
}

impl FromStr for ProcessId {
    type Err = InvalidProcessId;

    fn from_str(text: &str) -> Result<Self, InvalidProcessId> {
        let mut parts = text.trim().split(':');
        let (Some(pid), Some(start), Some(boot), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidProcessId);
        };
        Ok(Self {
            pid: pid.parse().map_err(|_| InvalidProcessId)?,
            start: start.parse().map_err(|_| InvalidProcessId)?,
            boot: u128::from_str_radix(boot, 16).map_err(|_| InvalidProcessId)?,
        })
    }
}
