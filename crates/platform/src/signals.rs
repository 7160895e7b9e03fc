//! The signals that a long-lived process listens to.
//!
//! SIGTERM and SIGINT ask it to end, SIGHUP to reload (or, where there is nothing to reload, to end: the
//! terminal has gone). Bounds: signals that arrive before the last was taken are merged into one.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Why the process should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM: from a supervisor, `kill`, or Kubernetes.
    Terminate,
    /// SIGINT: Ctrl-C. A second one means that the user has lost patience.
    Interrupt,
}

/// Waits for SIGTERM and SIGINT, again and again.
#[derive(Debug)]
pub struct ShutdownSignals {
    terminate: Stream,
    interrupt: Stream,
}

impl ShutdownSignals {
    /// Starts listening; from now on neither ends the process by itself. Needs a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Shutdown {
        // `recv` only returns `None` when the runtime's signal driver has gone, and then nothing runs any more.
        tokio::select! {
            _ = self.terminate.recv() => Shutdown::Terminate,
            _ = self.interrupt.recv() => Shutdown::Interrupt,
        }
    }
}

/// Waits for SIGHUP.
#[derive(Debug)]
pub struct ReloadSignal(Stream);

impl ReloadSignal {
    /// Starts listening; from now on SIGHUP does not end the process. Needs a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// The next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

fn set_sigpipe(handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: only the two constant dispositions are passed, no handler code.
    let previous = unsafe { libc::signal(libc::SIGPIPE, handler) };
    if previous == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Writing to a closed connection gives an error instead of ending the process. Rust's runtime does the same
/// at start; for programs whose `main` is not Rust's, and after [`default_sigpipe`].
pub fn ignore_sigpipe() -> io::Result<()> {
    set_sigpipe(libc::SIG_IGN)
}

/// Writing to a closed pipe ends the process silently, as users expect of `rajut get | head`.
pub fn default_sigpipe() -> io::Result<()> {
    set_sigpipe(libc::SIG_DFL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{ProcessId, Signal};

    #[tokio::test]
    async fn signals_arrive_once_each() {
        let mut shutdown = ShutdownSignals::listen().unwrap();
        let mut reload = ReloadSignal::listen().unwrap();
        let me = ProcessId::current().unwrap();
        me.signal(Signal::TERM).unwrap();
        assert_eq!(shutdown.next().await, Shutdown::Terminate);
        me.signal(Signal::INT).unwrap();
        assert_eq!(shutdown.next().await, Shutdown::Interrupt);
        me.signal(Signal::HUP).unwrap();
        reload.next().await;
    }

    #[test]
    fn writing_to_a_closed_pipe_is_an_error_while_sigpipe_is_ignored() {
        ignore_sigpipe().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        assert_eq!(rustix::io::write(&write, b"x"), Err(rustix::io::Errno::PIPE));
    }
}
