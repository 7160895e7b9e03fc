//! The few system calls that neither `rustix` nor `socket2` offers, each behind a safe function.
//!
//! Private to the crate. Everything here is one call and its error; what to do with it is said where it is used.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Turns the `-1` of a system call into its error.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `setsockopt` with an `int`.
pub(crate) fn set_int_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 4;
    // SAFETY: the pointer is to a live `int` and the length is an int's; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            LENGTH,
        )
    };
    check(result).map(drop)
}

/// `sysconf`, or the value that nearly all systems have.
pub(crate) fn configuration(name: libc::c_int, usual: u64) -> u64 {
    // SAFETY: no memory is involved.
    let found = unsafe { libc::sysconf(name) };
    u64::try_from(found)
        .ok()
        .filter(|value| *value > 0)
        .unwrap_or(usual)
}

/// `TCP_INFO`, as long as this kernel's is (at most 512 bytes).
pub(crate) fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut info = vec![0_u8; 512];
    let mut length: libc::socklen_t = 512;
    // SAFETY: the pointers are to live memory of the stated length, which the kernel writes at most and updates.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(result)?;
    info.truncate(length as usize);
    Ok(info)
}
