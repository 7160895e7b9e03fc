//! What other systems have for [`crate::socket`] in place of Linux's options.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::net::{RecvFlags, SendFlags};
use socket2::Socket;
use tokio::net::TcpStream;

use crate::Unsupported;
use crate::socket::{ListenOptions, listen};

/// Writing to a peer that is gone is an error, since Rust programs ignore SIGPIPE.
pub(crate) const SEND_FDS: SendFlags = SendFlags::empty();
/// See [`close_on_exec`].
pub(crate) const RECEIVE_FDS: RecvFlags = RecvFlags::empty();

/// Marks what was received. A process that another thread starts in this moment may inherit it; the flag that would
/// prevent that (`MSG_CMSG_CLOEXEC`) is not everywhere.
pub(crate) fn close_on_exec(received: &[OwnedFd]) -> io::Result<()> {
    for fd in received {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// A bound port that is not listened on would keep everybody from it, whatever options they set: it is let go, and the
/// usual short race remains.
pub(crate) fn keep_reserved(socket: Socket) -> Option<Socket> {
    drop(socket);
    None
}

/// One listening socket, shared: every worker gets a descriptor of it and accepts from the same queue.
pub fn listen_shared(
    address: SocketAddr,
    options: &ListenOptions,
    workers: usize,
) -> io::Result<Vec<TcpListener>> {
    let listener = listen(address, options)?;
    let mut all: Vec<TcpListener> = (1..workers)
        .map(|_| listener.try_clone())
        .collect::<io::Result<_>>()?;
    all.push(listener);
    Ok(all)
}

/// Binding to addresses that this machine does not have.
pub(crate) fn set_address_freedom(
    _socket: &Socket,
    _address: SocketAddr,
    freebind: bool,
    transparent: bool,
) -> io::Result<()> {
    if freebind || transparent {
        return Err(Unsupported {
            what: "sockets with foreign addresses (IP_FREEBIND, IP_TRANSPARENT)",
        }
        .into());
    }
    Ok(())
}

/// Choosing the port of a bound socket at connect time only spares ports; without it `bind` chooses.
#[expect(clippy::unnecessary_wraps, reason = "the other half can fail")]
pub(crate) const fn set_bind_address_no_port(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// `SO_MARK` belongs to redirection rules.
pub(crate) fn set_mark(_socket: &Socket, _mark: u32) -> io::Result<()> {
    Err(Unsupported {
        what: "marks on sockets (SO_MARK)",
    }
    .into())
}

/// `TCP_USER_TIMEOUT`.
pub(crate) fn set_user_timeout(_socket: &Socket, timeout: Option<Duration>) -> io::Result<()> {
    match timeout {
        None => Ok(()),
        Some(_) => Err(Unsupported {
            what: "timeouts of unacknowledged data (TCP_USER_TIMEOUT)",
        }
        .into()),
    }
}

/// The address that the peer dialled before the kernel redirected the connection: nothing redirects here, so it is
/// always [`io::ErrorKind::NotFound`].
pub fn original_destination(_stream: &TcpStream) -> io::Result<SocketAddr> {
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "the connection was not redirected",
    ))
}

/// Bytes that were sent and that the peer's kernel has not acknowledged: not known here.
pub fn unacknowledged(_socket: &impl AsFd) -> io::Result<u64> {
    Err(Unsupported {
        what: "count of unacknowledged bytes",
    }
    .into())
}

#[cfg(test)]
mod tests;
