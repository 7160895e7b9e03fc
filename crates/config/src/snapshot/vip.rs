//! Stable virtual addresses for services that have none of their own.
//!
//! Pure: the caller persists what it was given and passes it in again, so that an address never moves from one host to
//! another while both live. Range and habit are Istio's (`240.240.0.0/16`); nothing outside the mesh routes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use rajut_types::Hostname;

/// The first two bytes of every virtual address.
const PREFIX: [u8; 2] = [240, 240];

/// How many hosts can have an address: the /16 without its first and last address.
pub const VIP_CAPACITY: usize = 65_534;

/// Gives every host an address: the previous one where it had one, else one that follows from its name (so that two
/// machines mostly agree), or the next that is free. Hosts beyond [`VIP_CAPACITY`] are left out, in the order of names.
pub fn allocate(
    hosts: &BTreeSet<Hostname>,
    previous: &BTreeMap<Hostname, IpAddr>,
) -> BTreeMap<Hostname, IpAddr> {
    // One flag a slot: 64 KiB each, for the length of the call.
    let mut taken = vec![false; usize::from(u16::MAX) + 1];
    let mut assigned = BTreeMap::new();
    for host in hosts {
        let kept = previous.get(host).and_then(|address| slot_of(*address));
        if let Some(slot) = kept.filter(|slot| !taken[usize::from(*slot)]) {
            taken[usize::from(slot)] = true;
            assigned.insert(host.clone(), address_of(slot));
        }
    }
    // Addresses of hosts that are gone are reused last: a client may still hold the old answer.
    let mut avoided = taken.clone();
    for slot in previous.values().filter_map(|address| slot_of(*address)) {
        avoided[usize::from(slot)] = true;
    }
    for host in hosts {
        if assigned.contains_key(host) {
            continue;
        }
        let start = hash(host.as_str());
        let free = probe(start, |slot| !avoided[usize::from(slot)])
            .or_else(|| probe(start, |slot| !taken[usize::from(slot)]));
        let Some(slot) = free else { break };
        taken[usize::from(slot)] = true;
        avoided[usize::from(slot)] = true;
        assigned.insert(host.clone(), address_of(slot));
    }
    assigned
}

/// The first slot at or after `start` that `is_free`, around the range once.
fn probe(start: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    (0..=u16::MAX)
        .map(|step| start.wrapping_add(step))
        .find(|slot| is_usable(*slot) && is_free(*slot))
}

fn is_usable(slot: u16) -> bool {
    slot != 0 && slot != u16::MAX
}

fn address_of(slot: u16) -> IpAddr {
    let [high, low] = slot.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(PREFIX[0], PREFIX[1], high, low))
}

/// The slot of an address of the range; `None` for any other address.
fn slot_of(address: IpAddr) -> Option<u16> {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, high, low] = v4.octets();
            let slot = u16::from_be_bytes([high, low]);
            ([a, b] == PREFIX && is_usable(slot)).then_some(slot)
        }
        IpAddr::V6(_) => None,
    }
}

/// FNV-1a, folded to 16 bits: the same on every machine and in every release, unlike the standard library's hasher.
fn hash(text: &str) -> u16 {
    let full = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = full.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<Hostname> {
        names
            .iter()
            .map(|name| name.parse().expect("a host in the test"))
            .collect()
    }

    #[test]
    fn addresses_stay_when_other_hosts_come_and_go() {
        let first = allocate(&hosts(&["a.x", "b.x", "c.x"]), &BTreeMap::new());
        let second = allocate(&hosts(&["0.x", "b.x", "d.x"]), &first);
        let b: Hostname = "b.x".parse().expect("valid");
        assert_eq!(first[&b], second[&b]);
        let distinct: BTreeSet<_> = second.values().collect();
        assert_eq!(distinct.len(), 3);
        // What belonged to hosts that are gone is not handed to the new ones while there is room.
        let gone: Vec<_> = first
            .iter()
            .filter(|(host, _)| **host != b)
            .map(|(_, ip)| ip)
            .collect();
        assert!(second.values().all(|ip| !gone.contains(&ip)));
    }

    #[test]
    fn a_full_range_leaves_hosts_out_and_repeats_nothing() {
        let many: BTreeSet<Hostname> = (0..VIP_CAPACITY + 3)
            .map(|n| format!("h{n}.x").parse().expect("valid"))
            .collect();
        let assigned = allocate(&many, &BTreeMap::new());
        assert_eq!(assigned.len(), VIP_CAPACITY);
        let distinct: BTreeSet<_> = assigned.values().collect();
        assert_eq!(distinct.len(), VIP_CAPACITY);
    }

    #[test]
    fn a_foreign_or_doubled_previous_address_is_not_kept() {
        let previous = [
            ("a.x", "10.0.0.1"),
            ("b.x", "240.240.0.9"),
            ("c.x", "240.240.0.9"),
        ]
        .into_iter()
        .map(|(host, ip)| (host.parse().expect("valid"), ip.parse().expect("valid")))
        .collect();
        let assigned = allocate(&hosts(&["a.x", "b.x", "c.x"]), &previous);
        assert!(assigned.values().all(|ip| slot_of(*ip).is_some()));
        assert_eq!(assigned.values().collect::<BTreeSet<_>>().len(), 3);
    }
}
