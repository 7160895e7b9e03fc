//! Outgoing TCP connections.
//!
//! `ConnectOptions::socket` makes the socket (in the calling thread's network namespace) and
//! `UnconnectedSocket::connect` dials on whatever runtime is at hand. [`connect`] does both.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

use crate::system::socket::{set_address_freedom, set_bind_address_no_port, set_mark, set_user_timeout};

/// The address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    const fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }

    const fn any(self) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Self::V6 => SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        }
    }
}

/// TCP keepalive (Istio: `ConnectionPoolSettings.TCPSettings.TcpKeepalive`). What is `None` keeps the system's
/// value (Linux: 7,200 s, 75 s, 9 probes). The kernel counts whole seconds; less than one becomes one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes after which the connection is dropped, at most 127.
    pub probes: Option<u32>,
}

impl Keepalive {
    pub(super) fn apply(&self, socket: &Socket) -> io::Result<()> {
        // The kernel refuses zero; configuration that says "0.5s" means "as soon as possible".
        let at_least_one = |time: Duration| time.max(Duration::from_secs(1));
        let mut parameters = TcpKeepalive::new();
        if let Some(time) = self.time {
            parameters = parameters.with_time(at_least_one(time));
        }
        if let Some(interval) = self.interval {
            parameters = parameters.with_interval(at_least_one(interval));
        }
        if let Some(probes) = self.probes {
            parameters = parameters.with_retries(probes.clamp(1, 127));
        }
        socket.set_tcp_keepalive(&parameters)
    }
}

/// How an upstream connection is made. The default: no source address, no delay, no timeout of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Source address to bind to; port 0 lets the kernel choose one at connect time.
    /// Envoy: `Cluster.upstream_bind_config.source_address`.
    pub source: Option<SocketAddr>,
    /// `IP_FREEBIND` for the source address.
    pub freebind: bool,
    /// `IP_TRANSPARENT` for the source address (Istio's TPROXY mode). Needs `CAP_NET_ADMIN`.
    pub transparent: bool,
    /// How long the TCP handshake may take (Istio: `tcp.connectTimeout`, 10 s there). `None`: the kernel's
    /// retransmissions decide (about two minutes).
    pub timeout: Option<Duration>,
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// `SO_KEEPALIVE` and its times.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged before the connection is dropped.
    pub user_timeout: Option<Duration>,
    /// `SO_MARK` (needs `CAP_NET_ADMIN`): so that redirection rules can tell the proxy's own packets.
    pub mark: Option<u32>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            source: None,
            freebind: false,
            transparent: false,
            timeout: None,
            nodelay: true,
            keepalive: None,
            user_timeout: None,
            mark: None,
        }
    }
}

impl ConnectOptions {
    /// Makes a socket of the family, with these options, in the network namespace of the calling thread. It
    /// is not connected and may be used on any thread.
    pub fn socket(&self, family: Family) -> io::Result<UnconnectedSocket> {
        let socket = Socket::new(family.domain(), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(keepalive) = &self.keepalive {
            keepalive.apply(&socket)?;
        }
        if let Some(timeout) = self.user_timeout {
            set_user_timeout(&socket, Some(timeout))?;
        }
        if let Some(mark) = self.mark {
            set_mark(&socket, mark)?;
        }
        // A source address of the other family cannot apply to this destination (Envoy ignores it too).
        if let Some(source) = self.source.filter(|source| Family::of(source) == family) {
            set_address_freedom(&socket, source, self.freebind, self.transparent)?;
            if source.port() == 0 {
                // Otherwise `bind` takes one of the 28,000 ephemeral ports for every connection, whatever its
                // destination; with this the port is chosen at connect and may be shared between destinations.
                set_bind_address_no_port(&socket)?;
            } else {
                socket.set_reuse_address(true)?;
            }
            socket.bind(&source.into())?;
        } else if self.transparent {
            set_address_freedom(&socket, family.any(), false, true)?;
        }
        Ok(UnconnectedSocket {
            socket,
            family,
            timeout: self.timeout,
        })
    }
}

/// A socket that is not connected yet: `Send`, bound for ever to the namespace in which it was made.
#[derive(Debug)]
pub struct UnconnectedSocket {
    socket: Socket,
    family: Family,
    timeout: Option<Duration>,
}

impl UnconnectedSocket {
    /// The family that it was made for.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Dials. The error says what the kernel said; a timeout is [`io::ErrorKind::TimedOut`]. Dropping the
    /// future abandons the attempt. Needs a tokio runtime with I/O; with a timeout also one with time.
    pub async fn connect(self, to: SocketAddr) -> io::Result<TcpStream> {
        let timeout = self.timeout;
        match timeout {
            None => self.dial(to).await,
            Some(limit) => tokio::time::timeout(limit, self.dial(to))
                .await
                .unwrap_or_else(|_| {
                    Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("no connection to {to} within {limit:?}"),
                    ))
                }),
        }
    }

    async fn dial(self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.socket.connect(&to.into()) {
            Ok(()) => return TcpStream::from_std(self.socket.into()),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(self.socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}

impl AsFd for UnconnectedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes a socket in the calling thread's namespace and connects it.
pub async fn connect(to: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    options.socket(Family::of(&to))?.connect(to).await
}
