//! Finding a free port for somebody else.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::system::socket::keep_reserved;

/// A TCP port that the kernel gives to nobody else while this lives: it is bound but does not listen.
///
/// A process that sets `SO_REUSEADDR` before `bind` (servers do, Node and Python among them) can take the port
/// while the reservation stands; one that doesn't needs [`ReservedPort::release`] first, after which there is
/// the usual short race. Other systems than Linux would refuse even the first: there the port is only known to have
/// been free.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    held: Option<Socket>,
}

impl ReservedPort {
    /// The address with the port that was found.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Gives the port up and tells it.
    pub fn release(self) -> u16 {
        drop(self.held);
        self.address.port()
    }
}

/// Reserves a TCP port on the address: the given one, or with port 0 a free one of the kernel's choice.
pub fn reserve_port(ip: IpAddr, port: u16) -> io::Result<ReservedPort> {
    let wanted = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&wanted.into())?;
    let address = socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel returned no IP address"))?;
    Ok(ReservedPort {
        address,
        held: keep_reserved(socket),
    })
}
