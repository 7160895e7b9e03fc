//! Looking at processes through `/proc`: what they use, which belong to us, and ending those that do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions};

use super::ProcessId;
use crate::linux::netns::NetNsId;
use crate::process::Usage;

/// The fields of `/proc/<pid>/stat` that we use.
pub(super) struct Stat {
    pub(super) state: u8,
    user_ticks: u64,
    system_ticks: u64,
    threads: u32,
    pub(super) start: u64,
    resident_pages: u64,
}

impl Stat {
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let text = match std::fs::read(format!("/proc/{pid}/stat")) {
            // A process that ends while its file is read gives ESRCH.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
            }
            other => other?,
        };
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "/proc/<pid>/stat is not as documented",
            )
        })
    }

    /// `proc_pid_stat(5)`. The second field is the program's name in parentheses, which may hold anything, spaces and
    /// parentheses too: fields are counted from the last one.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The manual numbers from 1; the state is field 3 and the first one here.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            user_ticks: field(14)?.parse().ok()?,
            system_ticks: field(15)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            start: field(22)?.parse().ok()?,
            resident_pages: field(24)?.parse().ok()?,
        })
    }
}

/// Memory and processor time of a process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = Stat::read(pid)?;
    let ticks = stat.user_ticks.saturating_add(stat.system_ticks);
    let per_second = crate::linux::sys::configuration(libc::_SC_CLK_TCK, 100);
    let page = crate::linux::sys::configuration(libc::_SC_PAGESIZE, 4096);
    let rest = (ticks % per_second).saturating_mul(1_000_000_000) / per_second;
    Ok(Usage {
        resident: stat.resident_pages.saturating_mul(page),
        cpu: Duration::from_secs(ticks / per_second) + Duration::from_nanos(rest),
        threads: stat.threads,
    })
}

/// All pids that `/proc` shows.
fn pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()))
}

/// Processes that were started with `NAME=value` in their environment, or whose ancestor was: how `down` finds what
/// a killed supervisor left behind. Other users' processes can't be looked at and are left out; so is the
/// calling process.
pub fn processes_with_variable(name: &str, value: &str) -> io::Result<Vec<ProcessId>> {
    let wanted = format!("{name}={value}");
    let me = std::process::id();
    Ok(pids()?
        .filter(|pid| *pid != me)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| {
                text.split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        })
        .filter_map(|pid| ProcessId::of(pid).ok())
        .collect())
}

/// Processes inside a network namespace. Hold the namespace open meanwhile: the kernel reuses its numbers.
pub fn processes_in_namespace(namespace: NetNsId) -> io::Result<Vec<ProcessId>> {
    Ok(pids()?
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|file| NetNsId::new(file.dev(), file.ino()) == namespace)
        })
        .filter_map(|pid| ProcessId::of(pid).ok())
        .collect())
}

/// From now on orphaned descendants become children of this process instead of the machine's first one, so that
/// none escapes. They must be collected: see [`reap_adopted`].
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Collects the ended children of this process that are not `known` (those that somebody waits for) and returns their pids. Never blocks.
pub fn reap_adopted(known: impl Fn(u32) -> bool) -> io::Result<Vec<u32>> {
    let mut reaped = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for pid in children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok())
        {
            let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                continue;
            };
            if !known(pid)
                && matches!(
                    rustix::process::waitpid(Some(raw), WaitOptions::NOHANG),
                    Ok(Some(_))
                )
            {
                reaped.push(pid);
            }
        }
    }
    Ok(reaped)
}

/// Those of the processes that still run.
pub(crate) fn alive(processes: &[ProcessId]) -> Vec<ProcessId> {
    let running = |process: &ProcessId| process.is_alive();
    processes.iter().copied().filter(running).collect()
}
