//! Sockets: listening, connecting, looking into them, handing them to other processes.
//!
//! This is the bottom of both walks: every listener of the proxy is made by [`listen`] and every upstream
//! connection by [`ConnectOptions::socket`] and [`UnconnectedSocket::connect`]. Making a socket and using it are
//! two steps because the first may have to happen on another thread: a socket belongs to the network namespace
//! of the thread that created it, for ever (see [`crate::netns`]).
//!
//! The types of `tokio::net` are re-exported here, and only here; the rest of the workspace names them through
//! this module, so that one place knows how sockets come into being.
//!
//! Bounds: at most [`MAX_PASSED_FDS`] descriptors travel in one message. There is no pool here and no retry.

mod connect;
mod fds;
mod inspect;
mod listen;
mod reserve;

pub use connect::{ConnectOptions, Family, Keepalive, UnconnectedSocket, connect};
pub use fds::{MAX_PASSED_FDS, receive_fds, receive_fds_blocking, send_fds, send_fds_blocking};
pub use inspect::{
    IdleState, Peeked, PeerCredentials, idle_state, peek_more, peer_credentials, set_keepalive, set_linger,
    set_reset_on_close, set_user_timeout, try_peek,
};
pub use listen::{AcceptFault, ListenOptions, UdpOptions, accept_fault, bind_udp, listen, listen_unix};
pub use reserve::{ReservedPort, reserve_port};

pub use crate::system::socket::{listen_shared, original_destination, unacknowledged};
pub use tokio::net::unix::pipe;
pub use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream, lookup_host, tcp, unix};

#[cfg(test)]
pub(crate) mod tests;
