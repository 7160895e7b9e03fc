//! Starting a child process and waiting for it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::ProcessId;
use crate::Unsupported;
use crate::process::{Isolation, Mounts, SpawnError};
use crate::socket::pipe;

/// A child process. Dropping it leaves the process running; it is then collected only when this process ends.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    id: ProcessId,
}

/// Starts the command with the isolation, of which this system has sessions and inherited descriptors; a namespace is
/// refused with [`SpawnError::Unsupported`]. [`Isolation::die_with_parent`] is a net below other nets and is left out;
/// [`Isolation::drop_capabilities`] is about namespaces and there are no capabilities to drop.
pub fn spawn(mut command: Command, isolation: Isolation) -> Result<Child, SpawnError> {
    let Isolation {
        user,
        network,
        mounts,
        new_session,
        die_with_parent: _,
        drop_capabilities: _,
        inherit,
    } = isolation;
    let missing = match (user, network, mounts) {
        (None, None, Mounts::Inherit) => None,
        (Some(_), _, _) => Some("user namespaces"),
        (_, Some(namespace), _) => namespace.impossible(),
        (..) => Some("mount namespaces"),
    };
    if let Some(what) = missing {
        return Err(Unsupported { what }.into());
    }
    // SAFETY: the closure makes system calls on memory prepared before the fork, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            if new_session {
                rustix::process::setsid()?;
            }
            for fd in &inherit {
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        });
    }
    let inner = command.spawn().map_err(|source| SpawnError::Step {
        step: format!("start {}", command.get_program().to_string_lossy()),
        source,
    })?;
    // It can't be gone: a child that has ended is a zombie until it is waited for.
    let id = ProcessId::of(inner.id()).map_err(|source| SpawnError::Step {
        step: "watch the process".into(),
        source,
    })?;
    Ok(Child { inner, id })
}

impl Child {
    /// The process.
    pub const fn id(&self) -> ProcessId {
        self.id
    }

    /// Its pid.
    pub const fn pid(&self) -> u32 {
        self.id.pid()
    }

    /// The child's standard input, output and error where they were `Stdio::piped()`; once.
    pub fn take_stdin(&mut self) -> Option<io::Result<pipe::Sender>> {
        self.inner
            .stdin
            .take()
            .map(|stream| pipe::Sender::from_owned_fd(stream.into()))
    }

    /// See [`Child::take_stdin`].
    pub fn take_stdout(&mut self) -> Option<io::Result<pipe::Receiver>> {
        self.inner
            .stdout
            .take()
            .map(|stream| pipe::Receiver::from_owned_fd(stream.into()))
    }

    /// See [`Child::take_stdin`].
    pub fn take_stderr(&mut self) -> Option<io::Result<pipe::Receiver>> {
        self.inner
            .stderr
            .take()
            .map(|stream| pipe::Receiver::from_owned_fd(stream.into()))
    }

    /// How it ended, if it has; collects it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.inner.try_wait()
    }

    /// Waits for its end and collects it. Can be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        // Listening begins before the look, so that no end falls between them.
        let mut some_child_ended = signal(SignalKind::child())?;
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            // `None` only when the runtime's signal driver has gone, and then nothing runs any more.
            some_child_ended.recv().await;
        }
    }

    /// Waits for its end, blocking the thread.
    pub fn wait_blocking(&mut self) -> io::Result<ExitStatus> {
        self.inner.wait()
    }

    /// Sends a signal; `Ok(false)` when the process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        self.id.signal(signal)
    }

    /// Sends a signal to the whole process group, for children with [`Isolation::new_session`]: their own children
    /// get it too. `Ok(false)` when none is left.
    pub fn signal_group(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        match rustix::process::kill_process_group(pid, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            // macOS: only zombies are left in the group.
            Err(rustix::io::Errno::PERM) if cfg!(target_os = "macos") => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}
