//! Listening sockets (TCP, UDP, Unix) and what to do when `accept` fails.
//!
//! The functions return plain `std` sockets, already non-blocking: they may be made on a thread that sits in
//! another network namespace and registered with tokio (`TcpListener::from_std`) on the worker that serves them.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Keepalive;
use crate::system::socket::set_address_freedom;

/// How a TCP listener is made. The default suits a sidecar: address reuse, no delay, a queue of 1,024.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a socket option of its own, switched on by its name"
)]
pub struct ListenOptions {
    /// Completed connections that wait for `accept`; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// `SO_REUSEPORT`: several workers listen on the same address and the kernel spreads connections over them.
    pub reuse_port: bool,
    /// `IP_FREEBIND`: the address need not exist (yet) in the namespace. Envoy: `Listener.freebind`.
    pub freebind: bool,
    /// `IP_TRANSPARENT`: accept connections to addresses that are not local (TPROXY). Needs `CAP_NET_ADMIN`.
    /// Envoy: `Listener.transparent`.
    pub transparent: bool,
    /// `TCP_NODELAY`, inherited by accepted connections on Linux.
    pub nodelay: bool,
    /// For an IPv6 address: whether IPv4 peers are refused. `None` keeps the kernel's default
    /// (`net.ipv6.bindv6only`). Envoy: the inverse of `SocketAddress.ipv4_compat`.
    pub only_v6: Option<bool>,
    /// `SO_KEEPALIVE`, inherited by accepted connections on Linux.
    pub keepalive: Option<Keepalive>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            reuse_port: false,
            freebind: false,
            transparent: false,
            nodelay: true,
            only_v6: None,
            keepalive: None,
        }
    }
}

/// Binds and listens. The socket is non-blocking, closed on exec, and lives in the network namespace of the
/// calling thread.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart must be able to bind while connections of the previous run are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    set_address_freedom(&socket, address, options.freebind, options.transparent)?;
    if let (Some(only), SocketAddr::V6(_)) = (options.only_v6, address) {
        socket.set_only_v6(only)?;
    }
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(keepalive) = &options.keepalive {
        keepalive.apply(&socket)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// How a UDP socket is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// `SO_REUSEPORT`: several workers share the port.
    pub reuse_port: bool,
    /// `IP_FREEBIND`, as for [`ListenOptions`].
    pub freebind: bool,
}

/// Binds a non-blocking UDP socket.
///
/// A socket that answers redirected DNS must be bound to the loopback address itself (`127.0.0.1`, `::1`), not
/// to the wildcard: the redirection rewrites the destination to loopback, and only an answer whose source is
/// that very address is translated back.
pub fn bind_udp(address: SocketAddr, options: UdpOptions) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    set_address_freedom(&socket, address, options.freebind, false)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Listens on a Unix socket that only the given `mode` (for example `0o600`) may open.
///
/// A socket file that nobody listens on any more (its process was killed) is removed first; one that answers
/// is left alone and the call fails with [`io::ErrorKind::AddrInUse`]. `sun_path` holds at most 107 bytes.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens on this socket",
                ));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path exists and is no socket",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, so there is no moment at which the wider mode of the umask counts.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// What a failed `accept` means for the accepting loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFault {
    /// That one connection is lost (aborted by the peer, a network error reported early); accept the next.
    Connection,
    /// The process or the machine is out of descriptors or memory; wait a little before the next attempt,
    /// otherwise the loop spins, since the connection stays in the queue.
    Exhausted,
    /// The listener itself is unusable.
    Listener,
}

/// Sorts an error of `accept(2)`. The network errors are those that its manual page lists as belonging to the
/// new connection.
pub fn accept_fault(error: &io::Error) -> AcceptFault {
    match error.raw_os_error() {
        Some(
            libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT,
        ) => AcceptFault::Connection,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => AcceptFault::Exhausted,
        _ => AcceptFault::Listener,
    }
}
