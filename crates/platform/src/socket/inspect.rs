//! Looking at a connection without consuming it, and the options that change how it ends.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::Keepalive;

/// Who is at the other end of a Unix socket, as the kernel recorded it at connect time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process; `None` when it lives in a process namespace that is not visible from here.
    pub pid: Option<i32>,
    /// Its effective user id, in our user namespace (65534 when it has none there).
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// `SO_PEERCRED`.
pub fn peer_credentials(stream: &UnixStream) -> io::Result<PeerCredentials> {
    let found = stream.peer_cred()?;
    Ok(PeerCredentials {
        pid: found.pid().filter(|pid| *pid > 0),
        uid: found.uid(),
        gid: found.gid(),
    })
}

/// Copies what has been received without consuming it and without waiting: `WouldBlock` when there is nothing
/// yet, `Ok(0)` when the peer has finished sending.
pub fn try_peek(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(socket, buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(length)
}

/// What [`peek_more`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peeked {
    /// Bytes in the buffer, from the start of what is unread.
    pub length: usize,
    /// No more will come: the peer has closed or shut down its side.
    pub finished: bool,
}

/// Waits until more than `seen` bytes are unread (or the peer has finished, or the buffer is full) and copies
/// them without consuming any: protocol detection calls it with what it has looked at already.
///
/// `TcpStream::peek` in a loop would spin, since it is ready as soon as there is one byte. Put a timeout around
/// it: a client of a server-first protocol sends nothing.
pub async fn peek_more(stream: &TcpStream, buffer: &mut [u8], seen: usize) -> io::Result<Peeked> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let finished = ready.is_read_closed();
        let peeked = stream.try_io(Interest::READABLE, || {
            let length = try_peek(stream, buffer)?;
            // Saying "would block" although there are bytes makes tokio wait for the next arrival.
            if length > seen || length == 0 || length == buffer.len() || finished {
                Ok(length)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        match peeked {
            Ok(length) => {
                return Ok(Peeked {
                    length,
                    finished: finished || length == 0,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a pooled, idle connection is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleState {
    /// Nothing was received since it became idle: it can be used.
    Open,
    /// The peer has closed it.
    Closed,
    /// Bytes have arrived that nobody asked for (an early `408`, a TLS alert): not usable for plain HTTP/1.
    Unread,
    /// It was reset, or its keepalive failed.
    Broken,
}

/// Has this idle connection been closed, or has it unread bytes? No system call while the reactor has seen nothing
/// arrive; one where it has.
///
/// What arrived after the reactor's last turn is not known yet. A caller who writes to such a connection meets the
/// same race as with bytes that are still on the wire.
pub fn idle_state(stream: &TcpStream) -> IdleState {
    let mut byte = [0_u8; 1];
    // "Would block" also stands for "nothing was signalled", in which case the closure does not run.
    match stream.try_io(Interest::READABLE, || try_peek(stream, &mut byte)) {
        Ok(0) => IdleState::Closed,
        Ok(_) => IdleState::Unread,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            IdleState::Open
        }
        Err(_) => IdleState::Broken,
    }
}

/// `SO_LINGER` in whole seconds; `None` restores the default (close returns at once, the kernel delivers).
pub fn set_linger(socket: &impl AsFd, linger: Option<Duration>) -> io::Result<()> {
    SockRef::from(socket).set_linger(linger)
}

/// Makes closing the socket send a reset and discard what is unsent: the peer sees a failure instead of an
/// orderly end, which is what a proxy owes it when the other side was reset.
pub fn set_reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    set_linger(socket, Some(Duration::ZERO))
}

/// Switches keepalive on, on an accepted or connected socket.
pub fn set_keepalive(socket: &impl AsFd, keepalive: &Keepalive) -> io::Result<()> {
    keepalive.apply(&SockRef::from(socket))
}

/// `TCP_USER_TIMEOUT` in milliseconds' precision; `None` restores the default.
pub fn set_user_timeout(socket: &impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
    crate::system::socket::set_user_timeout(&SockRef::from(socket), timeout)
}
