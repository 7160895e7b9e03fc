//! Processes: starting them inside namespaces, telling them apart for certain, measuring and ending them.
//!
//! `rajut up` starts every workload and sidecar through [`spawn`]. A process is named by [`ProcessId`], which is
//! its pid *and* the moment of its start: a pid file that has outlived its process never makes us
//! signal a stranger that got the same number.
//!
//! Bounds: everything here makes a handful of system calls (or reads `/proc`, or runs `ps` where there is none); nothing is cached and nothing runs in the
//! background. It does not restart anything.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

use crate::Unsupported;
use crate::netns::NetNs;
pub use crate::system::process::{
    Child, ProcessId, become_subreaper, processes_in_namespace, processes_with_variable, reap_adopted, spawn,
    usage,
};
use crate::system::process::{alive, isolation_of};

/// A text that is not a [`ProcessId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a process identity (pid:start:boot)")]
pub struct InvalidProcessId;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Something that it needs does not exist or can't be opened.
    #[error("can't prepare the process")]
    Prepare(#[source] io::Error),
    /// This system can't give the process what is asked for.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A step between fork and exec failed, or exec itself.
    #[error("can't {step}")]
    Step {
        /// What was being done: "enter the network namespace", "mount A over B", "start the program".
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The user namespace of a child.
#[derive(Debug)]
pub enum UserNamespace {
    /// A new one in which the caller is root: what [`crate::netns::unshare_user`] does, for a child. It works
    /// whatever threads the parent has.
    New,
    /// An existing one, by its open file. The caller must have made it, or be root.
    Existing(OwnedFd),
}

/// A file that a child sees in place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMount {
    /// The file with the contents.
    pub source: PathBuf,
    /// The path that it covers, which must exist: nothing is created. Symbolic links are followed.
    pub target: PathBuf,
    /// Whether a missing target is an error; otherwise this mount is left out (a system without
    /// `/etc/nsswitch.conf` does not read it either).
    pub required: bool,
}

/// The mount namespace of a child.
#[derive(Debug, Default)]
pub enum Mounts {
    /// The parent's.
    #[default]
    Inherit,
    /// A private copy of the parent's with these files in place of others.
    Private(Vec<FileMount>),
    /// An existing one, by its open file.
    Existing(OwnedFd),
}

/// What is different for a child process. The default changes nothing.
#[derive(Debug, Default)]
pub struct Isolation {
    /// Another user namespace.
    pub user: Option<UserNamespace>,
    /// Another network namespace.
    pub network: Option<NetNs>,
    /// Another mount namespace.
    pub mounts: Mounts,
    /// A session of its own: no signals from the parent's terminal, and it can be signalled as a group.
    pub new_session: bool,
    /// SIGKILL when the parent *thread* ends (`PR_SET_PDEATHSIG`): spawn from the main thread, or from one that lives
    /// as long as the program.
    pub die_with_parent: bool,
    /// Give up for good the capabilities with which a root process could leave its namespace, change its
    /// rules or take over its sidecar (`SYS_ADMIN`, `NET_ADMIN`, `SYS_PTRACE`, `SYS_MODULE`, `BPF`).
    pub drop_capabilities: bool,
    /// Descriptors that the child inherits, under the same numbers (tell it by argument or environment).
    pub inherit: Vec<OwnedFd>,
}

impl Isolation {
    /// The namespaces of a running process: how a command gets into a workload (`rajut exec`). Where a system has no
    /// namespaces, nothing is different.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        isolation_of(pid)
    }
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory in RAM, bytes (RSS: pages shared with other processes count in full).
    pub resident: u64,
    /// Processor time since its start, in user and kernel mode, of all its threads; resolution usually 10 ms.
    pub cpu: Duration,
    /// Threads.
    pub threads: u32,
}

/// Starts the command apart from this process (`--detach`): a session of its own, no input, output appended to the
/// log file, alive after this process has ended.
pub fn spawn_daemon(mut command: Command, log: &Path) -> Result<Child, SpawnError> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(SpawnError::Prepare)?;
    let errors = log.try_clone().map_err(SpawnError::Prepare)?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    spawn(
        command,
        Isolation {
            new_session: true,
            ..Isolation::default()
        },
    )
}

/// Asks the processes to end (SIGTERM), waits up to `grace`, then kills what is left and waits up to a second more.
/// Returns those that are still there (stuck in the kernel, or not ours to signal).
///
/// Blocks: call it from the end of a program, not from a runtime's worker.
#[expect(
    clippy::disallowed_methods,
    reason = "the caller gives it a thread to wait on"
)]
pub fn kill_all(processes: &[ProcessId], grace: Duration) -> Vec<ProcessId> {
    let mut left = alive(processes);
    for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(1))] {
        for process in &left {
            if let Err(error) = process.signal(signal) {
                tracing::debug!(%process, %error, "can't signal");
            }
        }
        let deadline = Instant::now() + patience;
        loop {
            left = alive(&left);
            if left.is_empty() || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if left.is_empty() {
            break;
        }
    }
    left
}
