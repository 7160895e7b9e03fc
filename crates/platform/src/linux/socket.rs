//! What only Linux has for [`crate::socket`]: the destination before a redirection, what was acknowledged, freedom of
//! addresses, marks.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::Socket;
use tokio::net::TcpStream;

use crate::linux::sys;
use crate::socket::{ListenOptions, listen};

/// Sending descriptors to a peer that is gone is an error, not a signal.
pub(crate) const SEND_FDS: SendFlags = SendFlags::NOSIGNAL;
/// Received descriptors are closed on exec from their first moment.
pub(crate) const RECEIVE_FDS: RecvFlags = RecvFlags::CMSG_CLOEXEC;

/// Received descriptors are that already.
#[expect(clippy::unnecessary_wraps, reason = "the other half can fail")]
pub(crate) fn close_on_exec(_received: &[OwnedFd]) -> io::Result<()> {
    Ok(())
}

/// A bound port that is not listened on can be kept: who sets `SO_REUSEADDR` may bind it all the same.
#[expect(clippy::unnecessary_wraps, reason = "the other half keeps none")]
pub(crate) const fn keep_reserved(socket: Socket) -> Option<Socket> {
    Some(socket)
}

/// One listening socket per worker on the same address; the kernel spreads connections over them (`SO_REUSEPORT`).
pub fn listen_shared(
    address: SocketAddr,
    options: &ListenOptions,
    workers: usize,
) -> io::Result<Vec<TcpListener>> {
    let options = ListenOptions {
        reuse_port: options.reuse_port || workers > 1,
        ..options.clone()
    };
    (0..workers).map(|_| listen(address, &options)).collect()
}

/// `IP_FREEBIND` and `IP_TRANSPARENT`, in the address's own family.
pub(crate) fn set_address_freedom(
    socket: &Socket,
    address: SocketAddr,
    freebind: bool,
    transparent: bool,
) -> io::Result<()> {
    if freebind {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    if transparent {
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    Ok(())
}

/// `IP_BIND_ADDRESS_NO_PORT` (Linux 4.2); one option for both families.
pub(crate) fn set_bind_address_no_port(socket: &Socket) -> io::Result<()> {
    sys::set_int_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// `SO_MARK`.
pub(crate) fn set_mark(socket: &Socket, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

/// `TCP_USER_TIMEOUT`.
pub(crate) fn set_user_timeout(socket: &Socket, timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(timeout)
}

/// The address that the peer dialled before the kernel redirected the connection (`SO_ORIGINAL_DST`).
///
/// [`io::ErrorKind::NotFound`] means that the connection was not redirected: it was dialled at the stream's
/// [`TcpStream::local_addr`]. (The kernel says `ENOENT` only where it does not track connections; where it does, it
/// repeats the local address, and that is mapped to `NotFound` too.)
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    // A dual-stack listener sees IPv4 peers as ::ffff:a.b.c.d, and the kernel answers for those in IPv4 only.
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let found = if local.is_ipv4() {
        rustix::net::sockopt::ip_original_dst(stream).map(SocketAddr::V4)
    } else {
        rustix::net::sockopt::ipv6_original_dst(stream).map(SocketAddr::V6)
    };
    let not_redirected = || io::Error::new(io::ErrorKind::NotFound, "the connection was not redirected");
    match found {
        Ok(found) if (found.ip(), found.port()) == (local.ip(), local.port()) => Err(not_redirected()),
        Ok(found) => Ok(found),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOPROTOOPT | rustix::io::Errno::OPNOTSUPP) => {
            Err(not_redirected())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Bytes that were sent and that the peer's kernel has not acknowledged, retransmissions not counted twice; also
/// after the connection has broken, as long as the socket is open. A peer's orderly close acknowledges all that had
/// reached it before.
///
/// Needs Linux 4.19 (`tcpi_bytes_sent`); [`io::ErrorKind::Unsupported`] before.
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<u64> {
    // Offsets in `struct tcp_info` of linux/tcp.h, which only ever grows at its end.
    const BYTES_ACKED: usize = 120;
    const BYTES_SENT: usize = 200;
    const BYTES_RETRANS: usize = 208;
    let info = sys::tcp_info(socket.as_fd())?;
    let field = |at: usize| {
        info.get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_ne_bytes)
            .ok_or(io::Error::from(io::ErrorKind::Unsupported))
    };
    let sent = field(BYTES_SENT)?.saturating_sub(field(BYTES_RETRANS)?);
    Ok(sent.saturating_sub(field(BYTES_ACKED)?))
}

#[cfg(test)]
mod tests;
