//! The identity of a process.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::process::{Pid, Signal};

use super::ps;
use crate::process::InvalidProcessId;

/// How far two readings of the same start may lie apart, in seconds: where the kernel counts from boot, `ps` adds the
/// moment of boot, which it computes anew each time and rounds.
const START_SLACK: u64 = 1;

/// A process, and no other that later gets the same pid: pid and start time.
///
/// Its text form (`to_string`, `parse`) is what pid files hold: `1234:1763759184:0`. The last part is 0: the
/// start is a date, so that it needs no boot to count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    pid: u32,
    /// Seconds since 1970.
    start: u64,
}

impl ProcessId {
    pub(super) const fn new(pid: u32, start: u64) -> Self {
        Self { pid, start }
    }

    /// The process that has this pid now. [`io::ErrorKind::NotFound`] when there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let found = ps::look(&[pid])?.into_iter().find(|seen| seen.id.pid == pid);
        found
            .map(|seen| seen.id)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))
    }

    /// This process.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The number. On its own it may already mean another process.
    pub const fn pid(self) -> u32 {
        self.pid
    }

    /// Whether both name the same process.
    pub(super) const fn is_same(self, other: Self) -> bool {
        self.pid == other.pid && self.start.abs_diff(other.start) <= START_SLACK
    }

    /// Whether the process still runs; one that has ended and was not reaped yet (a zombie) does not.
    pub fn is_alive(self) -> bool {
        !ps::alive(&[self]).is_empty()
    }

    /// Sends the signal; `Ok(false)` when the process has ended.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match rustix::process::kill_process(pid, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:0", self.pid, self.start)
    }
}

impl FromStr for ProcessId {
    type Err = InvalidProcessId;

    fn from_str(text: &str) -> Result<Self, InvalidProcessId> {
        let mut parts = text.trim().split(':');
        let (Some(pid), Some(start), Some("0"), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidProcessId);
        };
        Ok(Self {
            pid: pid.parse().map_err(|_| InvalidProcessId)?,
            start: start.parse().map_err(|_| InvalidProcessId)?,
        })
    }
}
