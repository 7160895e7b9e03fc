//! [`crate::network`] over rtnetlink.

use std::io;
use std::net::IpAddr;

use crate::linux::netlink::{self, ACK, CREATE, Messages, NetlinkError, REPLACE, ROUTE};
use crate::linux::netns::{NetNs, in_namespace};
use crate::network::{NetworkError, WorkloadNetwork, WorkloadNetworkReport};

/// Loopback is the first device of every namespace (the kernel's `LOOPBACK_IFINDEX`).
pub(crate) const LOOPBACK_INDEX: u32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: on loopback there is nobody to ask, and the address is usable at once.
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

fn request(step: impl FnOnce() -> String, messages: Messages) -> Result<(), NetworkError> {
    let outcome = messages
        .finish()
        .map_err(NetlinkError::Socket)
        .and_then(|request| netlink::exchange(ROUTE, &request));
    outcome.map_err(|error| NetworkError::Refused {
        step: step(),
        source: match error {
            NetlinkError::Socket(source)
            | NetlinkError::Refused {
                source, text: None, ..
            } => source,
            NetlinkError::Refused {
                source,
                text: Some(text),
                ..
            } => io::Error::new(source.kind(), format!("{source}: {text}")),
        },
    })
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,  // AF_INET
        IpAddr::V6(_) => 10, // AF_INET6
    }
}

fn write_address(message: &mut Messages, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => message.attribute(kind, &address.octets()),
        IpAddr::V6(address) => message.attribute(kind, &address.octets()),
    }
}

/// `ip link set lo up`.
pub fn bring_loopback_up() -> Result<(), NetworkError> {
    request(|| "bring loopback up".into(), loopback_up())
}

pub(crate) fn loopback_up() -> Messages {
    let mut messages = Messages::default();
    // ifinfomsg: family, padding, type, index, flags, mask of the flags to change
    let mut fixed = vec![0_u8; 4];
    fixed.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    fixed.extend_from_slice(&IFF_UP.to_ne_bytes());
    fixed.extend_from_slice(&IFF_UP.to_ne_bytes());
    messages.message(RTM_NEWLINK, ACK, &fixed, |_| {});
    messages
}

/// `ip address replace ADDRESS/32 dev lo` (`/128` for IPv6).
pub fn add_loopback_address(address: IpAddr) -> Result<(), NetworkError> {
    let mut messages = Messages::default();
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    // ifaddrmsg: family, prefix length, flags, scope, device
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut fixed = vec![family(address), prefix, flags, RT_SCOPE_UNIVERSE];
    fixed.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    messages.message(RTM_NEWADDR, ACK | CREATE | REPLACE, &fixed, |message| {
        write_address(message, IFA_LOCAL, address);
        write_address(message, IFA_ADDRESS, address);
    });
    request(|| format!("add {address} to loopback"), messages)
}

/// `ip route replace default dev lo src SOURCE`, in the source's family.
pub fn route_everything_to_loopback(source: IpAddr) -> Result<(), NetworkError> {
    let mut messages = Messages::default();
    let scope = if source.is_ipv4() {
        RT_SCOPE_LINK
    } else {
        RT_SCOPE_UNIVERSE
    };
    // rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags
    let fixed = [
        family(source),
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    messages.message(RTM_NEWROUTE, ACK | CREATE | REPLACE, &fixed, |message| {
        message.ne32(RTA_OIF, LOOPBACK_INDEX);
        write_address(message, RTA_PREFSRC, source);
    });
    request(|| format!("add a default route with source {source}"), messages)
}

/// Writes a kernel setting of the calling thread's network namespace: `set_sysctl("ipv4/ip_unprivileged_port_start",
/// "0")`. The name is the path below `/proc/sys/net`.
pub fn set_sysctl(name: &str, value: &str) -> Result<(), NetworkError> {
    // `/proc/thread-self`: sysctls belong to the namespace of the thread that opens them.
    std::fs::write(format!("/proc/sys/net/{name}"), value).map_err(|source| NetworkError::Refused {
        step: format!("set net/{name} to {value}"),
        source,
    })
}

/// Sets the namespace up: loopback, addresses, default routes, and ports below 1024 open to everybody (there is
/// nobody in it but the workload, which expects to bind port 80 as it does in a container).
pub fn set_up_workload(
    namespace: &NetNs,
    network: WorkloadNetwork,
) -> Result<WorkloadNetworkReport, NetworkError> {
    in_namespace(namespace, || {
        bring_loopback_up()?;
        add_loopback_address(network.v4.into())?;
        route_everything_to_loopback(network.v4.into())?;
        // Where /proc/sys is read-only (some containers) low ports stay root's, as they were.
        if let Err(error) = set_sysctl("ipv4/ip_unprivileged_port_start", "0") {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "low ports stay privileged"
            );
        }
        let v6 = network.v6.map(|address| {
            add_loopback_address(address.into())?;
            route_everything_to_loopback(address.into())
        });
        Ok(WorkloadNetworkReport { v6 })
    })
    .map_err(NetworkError::Enter)?
}

#[cfg(test)]
mod tests;
