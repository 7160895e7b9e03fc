//! Starting a child process and waiting for it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ProcessId;
use crate::process::{Isolation, SpawnError};
use crate::socket::pipe;

/// A child process. Dropping it leaves the process running; it is then collected only when this process ends.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    id: ProcessId,
    pidfd: Pidfd,
}

/// The descriptor registers with the runtime on the first wait, so that children can be started outside one.
#[derive(Debug)]
enum Pidfd {
    Plain(Option<OwnedFd>),
    Registered(AsyncFd<OwnedFd>),
}

/// Starts the command with the isolation.
///
/// The error names the step that failed. The command's own settings (arguments, environment, folder, standard streams)
/// are `std`'s; `pre_exec` closures that were added before run before the isolation is entered.
pub fn spawn(mut command: Command, isolation: Isolation) -> Result<Child, SpawnError> {
    let prepared = isolation
        .prepare(command.get_current_dir())
        .map_err(SpawnError::Prepare)?;
    let (report, failed) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| SpawnError::Prepare(errno.into()))?;
    let prepared = std::sync::Arc::new(prepared);
    let inside = std::sync::Arc::clone(&prepared);
    // SAFETY: the closure makes system calls on memory prepared before the fork, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            inside.enter().map_err(|(step, errno)| {
                let _ = rustix::io::write(&failed, &[step.number()]);
                io::Error::from_raw_os_error(errno)
            })
        });
    }
    let inner = command.spawn().map_err(|source| {
        let mut number = [0_u8; 1];
        let step = if rustix::io::read(&report, &mut number) == Ok(1) {
            prepared.describe(number[0])
        } else {
            // Nothing was reported: everything was entered, and the program itself could not be started.
            format!("start {}", command.get_program().to_string_lossy())
        };
        SpawnError::Step { step, source }
    })?;
    Child::of(inner).map_err(|source| SpawnError::Step {
        step: "watch the process".into(),
        source,
    })
}

impl Child {
    fn of(inner: std::process::Child) -> io::Result<Self> {
        // Neither can fail because the child has ended: it stays a zombie until it is waited for.
        let id = ProcessId::of(inner.id())?;
        let pid = i32::try_from(inner.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            inner,
            id,
            pidfd: Pidfd::Plain(Some(pidfd)),
        })
    }

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
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            let registered = match &mut self.pidfd {
                Pidfd::Registered(registered) => registered,
                Pidfd::Plain(plain) => {
                    let plain = plain
                        .take()
                        .ok_or_else(|| io::Error::other("no runtime to wait on"))?;
                    // SAFETY: an `OwnedFd` keeps its descriptor open and unchanged until it is dropped, and the
                    // `AsyncFd` owns it.
                    let registered = unsafe { AsyncFd::register_with_interest(plain, Interest::READABLE) };
                    self.pidfd = Pidfd::Registered(registered.map_err(|error| error.into_parts().1)?);
                    continue;
                }
            };
            // A pidfd becomes readable when the process ends, and stays so.
            let mut ready = registered.readable().await?;
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            ready.clear_ready();
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
            Err(errno) => Err(errno.into()),
        }
    }
}
