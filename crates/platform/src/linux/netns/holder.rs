//! A process that holds a network namespace, so that other processes can open it as `/proc/<pid>/ns/net`.
//!
//! ```text
//!  maker: socketpair ─ fork ──────────► child: setsid, close all but its end, unshare(NEWNET)
//!         read 4 bytes  ◄── errno ──────       report
//!         … keeps its end open …              read until end of file ──► exit
//! ```
//!
//! The child ends when the maker's end of the pair closes: when the holder is dropped, and also when the maker
//! is killed. (`PR_SET_PDEATHSIG` would not do: it fires when the forking *thread* ends.)

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::NetNs;
use crate::linux::fork::{self, Child};

/// A child process that does nothing but keep a new network namespace alive.
#[derive(Debug)]
pub struct NamespaceHolder {
    // Order matters on drop: closing the socket ends the child, which `Child` then reaps.
    alive: Option<OwnedFd>,
    child: Child,
    namespace: NetNs,
}

impl NamespaceHolder {
    /// Forks the holder. It shows up as `rajut-netns` in process lists.
    ///
    /// May be called with other threads running: the child touches neither memory management nor locks.
    pub fn spawn() -> io::Result<Self> {
        let (mine, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let their_fd = theirs.as_raw_fd();
        // SAFETY: `hold` only makes system calls on the stack's memory.
        let child = unsafe { fork::fork(|| hold(their_fd)) }?;
        drop(theirs);
        let mut report = [0_u8; 4];
        let (length, _) = rustix::net::recv(&mine, &mut report, rustix::net::RecvFlags::WAITALL)?;
        if length != report.len() {
            return Err(io::Error::other(
                "the namespace's holder ended before it reported",
            ));
        }
        match i32::from_ne_bytes(report) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let namespace = NetNs::of_process(child.pid())?;
        Ok(Self {
            alive: Some(mine),
            child,
            namespace,
        })
    }

    /// The holder's process id.
    pub const fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// `/proc/<pid>/ns/net`, valid while the holder lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// The namespace.
    pub const fn namespace(&self) -> &NetNs {
        &self.namespace
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        self.alive = None;
        self.child.end();
    }
}

/// The child's life. Runs after `fork` in what was a multi-threaded process: system calls only.
fn hold(socket: i32) -> i32 {
    fork::leave_parent(c"rajut-netns", &[socket]);
    // The socket is descriptor 0 now.
    // SAFETY: a plain system call.
    let outcome = if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        0
    } else {
        fork::errno()
    };
    let report = outcome.to_ne_bytes();
    // SAFETY: the pointer and the length are those of a live array.
    let written = unsafe { libc::send(0, report.as_ptr().cast(), report.len(), libc::MSG_NOSIGNAL) };
    if written < 0 || outcome != 0 {
        return 1;
    }
    let mut byte = 0_u8;
    loop {
        // SAFETY: the pointer is to one live byte and the length is one.
        let read = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        // The maker never writes: anything but an interruption means that it is gone.
        if read >= 0 || fork::errno() != libc::EINTR {
            return 0;
        }
    }
}
