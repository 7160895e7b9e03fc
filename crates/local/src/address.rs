//! Which loopback addresses a local mesh uses.
//!
//! Every mesh on the machine takes a block `127.K.0.0/16` of its own (K from 10 to 250), so that two meshes, or two test
//! runs, never meet. Linux answers on all of 127.0.0.0/8 without any setup. A block is taken by listening on one
//! address of it, so it is free again when its process ends, however it ends.
//!
//! | address | what |
//! | --- | --- |
//! | `127.K.x.y` | workload number `250·x + y - 1` as the others see it: its inbound ports, its sidecar's admin port 15000 |
//! | `10.244.x.y` | the same workload inside its own network namespace |
//! | `127.K.255.1` | the control plane |
//! | `127.K.255.2` | the host gateway's admin port; of those for services that came later `127.K.255.3` and up |
//! | `127.K.255.254:15099` | the claim to the block |

use std::net::{Ipv4Addr, SocketAddr};

use rajut_platform::socket::{ListenOptions, listen};

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

/// A claimed block `127.K.0.0/16`.
#[derive(Debug)]
pub struct AddressBlock {
    octet: u8,
    _claim: std::net::TcpListener,
}

impl AddressBlock {
    /// Claims the first free block.
    pub fn claim() -> std::io::Result<Self> {
        let mut last = std::io::Error::other("no block was tried");
        for octet in BLOCK_FIRST..=BLOCK_LAST {
            let claim = SocketAddr::from((Ipv4Addr::new(127, octet, 255, 254), CLAIM_PORT));
            match listen(claim, &ListenOptions::default()) {
                Ok(claim) => return Ok(Self { octet, _claim: claim }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Address number `index` as the other proxies see it.
    pub fn workload(&self, index: usize) -> Ipv4Addr {
        numbered(127, self.octet, index)
    }

    /// The control plane's.
    pub fn control(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, self.octet, 255, 1), CONTROL_PORT))
    }

    /// The host gateway's.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octet, 255, 2)
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
        assert_ne!(first.octet, second.octet);
        assert_ne!(first.workload(0), second.workload(0));
    }

    #[test]
    fn every_workload_has_an_address_of_its_own() {
        let all: std::collections::BTreeSet<_> = (0..WORKLOADS_MAX).map(inside).collect();
        assert_eq!(all.len(), WORKLOADS_MAX);
        assert_eq!(inside(250), Ipv4Addr::new(10, 244, 1, 1));
    }
}
