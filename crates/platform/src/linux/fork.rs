//! Forking without executing, for the two places that need a process and have no program to run in it: the
//! holder of a namespace and the probe. Private to the crate.
//!
//! After `fork` in a multi-threaded process only the calling thread exists in the child, and any lock may be held
//! for ever. So the child's code makes system calls on memory prepared before, allocates nothing, formats nothing and
//! can't panic; it ends with `_exit`.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::linux::sys::check;

/// A forked child of this process, killed and reaped on drop. Referred to by its pidfd, so that a pid that was
/// reaped elsewhere and reused is never touched.
#[derive(Debug)]
pub(crate) struct Child {
    pid: u32,
    pidfd: OwnedFd,
    ended: bool,
}

impl Child {
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills and reaps.
    pub(crate) fn end(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        // Both fail only if the child has ended and was reaped by somebody else, which is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = self.reap();
    }

    /// Waits for the end of the child; returns its exit code, `None` when it died of a signal.
    pub(crate) fn wait(mut self) -> io::Result<Option<i32>> {
        let code = self.reap()?;
        self.ended = true;
        Ok(code)
    }

    fn reap(&self) -> io::Result<Option<i32>> {
        use std::os::fd::AsFd;
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(status) => return Ok(status.and_then(|status| status.exit_status())),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// Forks; the child runs `body` and exits with its result.
///
/// # Safety
///
/// `body` must restrict itself to async-signal-safe functions (see the module's text) and must not panic.
pub(crate) unsafe fn fork(body: impl FnOnce() -> i32) -> io::Result<Child> {
    // SAFETY: the child continues with `body` alone, which the caller vouches for.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        let code = body();
        // SAFETY: ends the process without running destructors or exit handlers, which belong to the parent.
        unsafe { libc::_exit(code) };
    }
    let child = Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no process"))?;
    // The child can't be reaped before this: nobody but us waits for it, and it stays a zombie until then.
    let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
    Ok(Child {
        pid: pid.unsigned_abs(),
        pidfd,
        ended: false,
    })
}

/// The calling thread's `errno`, without building an `io::Error`.
pub(crate) fn errno() -> i32 {
    // SAFETY: returns a valid pointer to this thread's errno.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the pointer is valid for reads, see above.
    unsafe { *location }
}

/// In a forked child: keep only the given descriptors, as 0, 1, …, and cut the other ties to the parent (its
/// session, its signal handlers and mask, its working directory).
///
/// The descriptors must be distinct and greater than their new numbers, or equal to them; both callers pass at most
/// one.
pub(crate) fn leave_parent(name: &CStr, keep: &[i32]) {
    let mut next = 0;
    for &fd in keep {
        // SAFETY: a plain system call on descriptor numbers.
        unsafe { libc::dup2(fd, next) };
        next += 1;
    }
    close_from(next.unsigned_abs());
    // SAFETY: no arguments.
    unsafe { libc::setsid() };
    // SAFETY: a constant path.
    unsafe { libc::chdir(c"/".as_ptr()) };
    // SAFETY: PR_SET_NAME reads a NUL-terminated string of which the kernel takes 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    for signal in 1..=64 {
        // A handler of the parent's runtime would write into a pipe that both processes share.
        // SAFETY: sets the default action; invalid numbers are refused by the kernel.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: all-zero is a valid, empty signal set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Closes all descriptors from `first` on.
fn close_from(first: u32) {
    // SAFETY: a plain system call; nothing in this child uses the descriptors any more.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if closed != 0 {
        // Linux before 5.9: close what can reasonably be open.
        for fd in first..4096 {
            // SAFETY: as above.
            unsafe { libc::close(fd.cast_signed()) };
        }
    }
}
