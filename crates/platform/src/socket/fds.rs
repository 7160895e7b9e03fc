//! Passing descriptors over a Unix socket (`SCM_RIGHTS`): listening sockets to a successor, namespace files to
//! another process.
//!
//! A message is some bytes (at least one, the kernel attaches descriptors to bytes) and up to
//! [`MAX_PASSED_FDS`] descriptors. Framing the bytes is the caller's part: a stream socket may deliver them in
//! pieces, but never two descriptor sets in one read.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::system::socket as system;

/// Descriptors in one message; the kernel's own limit is 253 (`SCM_MAX_FD`).
pub const MAX_PASSED_FDS: usize = 64;

const ANCILLARY_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_PASSED_FDS));

fn send_now(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    if bytes.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptors travel with at least one byte",
        ));
    }
    if fds.len() > MAX_PASSED_FDS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} descriptors in one message, the limit is {MAX_PASSED_FDS}",
                fds.len()
            ),
        ));
    }
    let mut space = [MaybeUninit::uninit(); ANCILLARY_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptors don't fit one message",
        ));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        flags | system::SEND_FDS,
    )?;
    Ok(sent)
}

fn receive_now(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        flags | system::RECEIVE_FDS,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // The kernel has closed the surplus; half a set of listeners is of no use, so the rest goes too.
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message brought more than {MAX_PASSED_FDS} descriptors"),
        ));
    }
    system::close_on_exec(&fds)?;
    Ok((received.bytes, fds))
}

/// Sends bytes and descriptors; returns how many of the bytes went (the descriptors went with the first).
pub async fn send_fds(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    stream
        .async_io(Interest::WRITABLE, || {
            send_now(stream.as_fd(), bytes, fds, SendFlags::DONTWAIT)
        })
        .await
}

/// Receives bytes and descriptors (closed on exec). `Ok((0, []))`: the peer has closed.
pub async fn receive_fds(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    stream
        .async_io(Interest::READABLE, || {
            receive_now(stream.as_fd(), buffer, RecvFlags::DONTWAIT)
        })
        .await
}

/// [`send_fds`] on a blocking socket.
pub fn send_fds_blocking(socket: &impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_now(socket.as_fd(), bytes, fds, SendFlags::empty())
}

/// [`receive_fds`] on a blocking socket.
pub fn receive_fds_blocking(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive_now(socket.as_fd(), buffer, RecvFlags::empty())
}
