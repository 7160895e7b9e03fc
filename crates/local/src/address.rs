//! Which loopback addresses a local mesh uses.
//!
//! Where a machine answers on all of 127.0.0.0/8 without any setup (Linux), every mesh takes a block `127.K.0.0/16` of its
//! own (K from 10 to 250), so that two meshes, or two test runs, never meet, and ports are those of the manifests:
//!
//! | address | what |
//! | --- | --- |
//! | `127.K.x.y` | workload number `250·x + y - 1` as the others see it: its inbound ports, its sidecar's admin port 15000 |
//! | `10.244.x.y` | the same workload inside its own network namespace |
//! | `127.K.255.1` | the control plane |
//! | `127.K.255.2` | the host gateway's admin port; of those for services that came later `127.K.255.3` and up |
//! | `127.K.255.254:15099` | the claim to the block |
//!
//! Elsewhere (macOS) there is 127.0.0.1 alone, and a mesh takes a block of its ports instead: 4,000 from 20,000 up, the
//! first as the claim, the others given out in order where nobody listens yet. A block is taken by listening, so
//! it is free again when its process ends, however it ends.

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use rajut_platform::{
    host,
    socket::{ListenOptions, listen},
};

/// Workloads of one local mesh.
pub const WORKLOADS_MAX: usize = 2_000;
/// Admin port of each sidecar, as in Istio.
pub const ADMIN_PORT: u16 = 15_000;
/// Discovery and issuing port of the control plane, as in Istio.
pub const CONTROL_PORT: u16 = 15_012;
/// First port of the outbound listeners in explicit mode.
pub const OUTBOUND_PORT_FIRST: u16 = 20_000;

const BLOCK_FIRST: u8 = 10;
const BLOCK_LAST: u8 = 250;
const CLAIM_PORT: u16 = 15_099;
const PER_THIRD_OCTET: usize = 250;

/// Listening on a port of this address is the claim to the same port of 127.0.0.1.
const HOST_PORT_CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 0, 255, 254);

/// Where blocks of ports begin, and where they end: before the ports that systems give to connections by themselves.
const PORT_BLOCK_FIRST: u16 = 20_000;
const PORT_BLOCK_LAST: u16 = 44_000;
const PORT_BLOCK_SIZE: u16 = 4_000;

/// A claimed block `127.K.0.0/16`, or one of ports of 127.0.0.1.
#[derive(Debug)]
pub struct AddressBlock {
    kind: Kind,
    control: SocketAddr,
    gateway: SocketAddr,
    _claim: TcpListener,
}

#[derive(Debug)]
enum Kind {
    Addresses {
        octet: u8,
    },
    Ports {
        /// The next to look at; only ever grows.
        next: Cell<u16>,
        /// The first that is not ours.
        end: u16,
    },
}

impl AddressBlock {
    /// Claims the first free block of the kind that this machine has.
    pub fn claim() -> io::Result<Self> {
        if host::whole_loopback() {
            Self::claim_addresses()
        } else {
            Self::claim_ports()
        }
    }

    fn claim_addresses() -> io::Result<Self> {
        let mut last = io::Error::other("no block was tried");
        for octet in BLOCK_FIRST..=BLOCK_LAST {
            let claim = SocketAddr::from((Ipv4Addr::new(127, octet, 255, 254), CLAIM_PORT));
            match listen(claim, &ListenOptions::default()) {
                Ok(claim) => {
                    return Ok(Self {
                        kind: Kind::Addresses { octet },
                        control: (Ipv4Addr::new(127, octet, 255, 1), CONTROL_PORT).into(),
                        gateway: (Ipv4Addr::new(127, octet, 255, 2), ADMIN_PORT).into(),
                        _claim: claim,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn claim_ports() -> io::Result<Self> {
        let mut last = io::Error::other("no block was tried");
        for first in (PORT_BLOCK_FIRST..=PORT_BLOCK_LAST).step_by(PORT_BLOCK_SIZE.into()) {
            let claim = match listen((Ipv4Addr::LOCALHOST, first).into(), &ListenOptions::default()) {
                Ok(claim) => claim,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let kind = Kind::Ports {
                next: Cell::new(first + 1),
                end: first + PORT_BLOCK_SIZE,
            };
            return Ok(Self {
                control: kind.socket(Ipv4Addr::LOCALHOST, CONTROL_PORT)?,
                gateway: kind.socket(Ipv4Addr::LOCALHOST, ADMIN_PORT)?,
                kind,
                _claim: claim,
            });
        }
        Err(last)
    }

    /// Address number `index` as the other proxies see it.
    pub fn workload(&self, index: usize) -> Ipv4Addr {
        match self.kind {
            Kind::Addresses { octet } => numbered(127, octet, index),
            Kind::Ports { .. } => Ipv4Addr::LOCALHOST,
        }
    }

    /// Where a listener that is called `port` in manifests and in Istio listens for a workload at `address`: there, or on
    /// the next port of this block.
    pub fn socket(&self, address: Ipv4Addr, port: u16) -> io::Result<SocketAddr> {
        self.kind.socket(address, port)
    }

    /// A port of this block for an application in explicit mode. `None` where the block is one of addresses: the kernel keeps
    /// ports for applications then ([`rajut_platform::socket::reserve_port`]). Elsewhere it can't, and a port of those that it
    /// gives to connections would soon be taken by one.
    pub fn application_port(&self) -> io::Result<Option<u16>> {
        match self.kind {
            Kind::Addresses { .. } => Ok(None),
            Kind::Ports { .. } => {
                let socket = self.kind.socket(Ipv4Addr::UNSPECIFIED, 0)?;
                Ok(Some(socket.port()))
            }
        }
    }

    /// Whether all workloads have the same address.
    pub const fn is_shared(&self) -> bool {
        matches!(self.kind, Kind::Ports { .. })
    }

    /// The control plane's.
    pub const fn control(&self) -> SocketAddr {
        self.control
    }

    /// The host gateway's admin address.
    pub const fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// What to listen on so that a mesh which starts at the same moment leaves `port` of 127.0.0.1 alone; `None` where
    /// there is no second address to do it on.
    pub fn host_port_claim(&self, port: u16) -> Option<SocketAddr> {
        match self.kind {
            Kind::Addresses { .. } => Some((HOST_PORT_CLAIMS, port).into()),
            Kind::Ports { .. } => None,
        }
    }
}

impl Kind {
    fn socket(&self, address: Ipv4Addr, port: u16) -> io::Result<SocketAddr> {
        let Self::Ports { next, end } = self else {
            return Ok((address, port).into());
        };
        while next.get() < *end {
            let socket = SocketAddr::from((address, next.replace(next.get() + 1)));
            match listen(socket, &ListenOptions::default()) {
                Ok(_) => return Ok(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("the mesh needs more than {PORT_BLOCK_SIZE} ports of {address}"),
        ))
    }
}

/// Address number `index` inside the workload's own namespace.
pub fn inside(index: usize) -> Ipv4Addr {
    numbered(10, 244, index)
}

fn numbered(first: u8, second: u8, index: usize) -> Ipv4Addr {
    debug_assert!(index < WORKLOADS_MAX);
    let third = u8::try_from(index / PER_THIRD_OCTET).unwrap_or(u8::MAX);
    let fourth = u8::try_from(index % PER_THIRD_OCTET + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(first, second, third, fourth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_meshes_get_different_blocks_and_a_dropped_claim_is_free_again() {
        let first = AddressBlock::claim().expect("a block is free");
        let second = AddressBlock::claim().expect("a block is free");
        assert_ne!(first.control(), second.control());
        assert_ne!(
            first.socket(first.workload(0), 8080).unwrap(),
            second.socket(second.workload(0), 8080).unwrap()
        );
    }

    #[test]
    fn one_address_gives_every_listener_a_port_of_its_own() {
        let (first, second) = (
            AddressBlock::claim_ports().unwrap(),
            AddressBlock::claim_ports().unwrap(),
        );
        let mut seen = std::collections::BTreeSet::new();
        for block in [&first, &second] {
            assert!(seen.insert(block.control()) && seen.insert(block.gateway()));
            for index in 0..3 {
                let socket = block.socket(block.workload(index), 8080).unwrap();
                assert_eq!(socket.ip(), Ipv4Addr::LOCALHOST);
                assert!(seen.insert(socket), "{socket} twice");
                let port = block.application_port().unwrap().unwrap();
                assert!(seen.insert((Ipv4Addr::LOCALHOST, port).into()), "{port} twice");
                assert!((PORT_BLOCK_FIRST..PORT_BLOCK_LAST).contains(&port));
            }
        }
        assert_eq!(first.host_port_claim(18_080), None);
    }

    #[test]
    fn a_port_that_somebody_has_is_left_out_and_an_end_is_an_error() {
        let free = listen((Ipv4Addr::LOCALHOST, 0).into(), &ListenOptions::default()).unwrap();
        let taken = free.local_addr().unwrap().port();
        let kind = Kind::Ports {
            next: Cell::new(taken),
            end: taken + 1,
        };
        let error = kind.socket(Ipv4Addr::LOCALHOST, 8080).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_workload_has_an_address_of_its_own() {
        let all: std::collections::BTreeSet<_> = (0..WORKLOADS_MAX).map(inside).collect();
        assert_eq!(all.len(), WORKLOADS_MAX);
        assert_eq!(inside(250), Ipv4Addr::new(10, 244, 1, 1));
    }
}
