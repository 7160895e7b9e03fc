//! Redirection rules: what makes a workload's traffic go through its sidecar without the workload knowing.
//!
//! [`CaptureRules`] says what is wanted; it becomes a [`Ruleset`] (tables, chains, rules: readable as text in the
//! syntax of the `nft` program) and that becomes one netlink transaction per address family. No `nft` or `iptables`
//! program is needed. Everything lives in tables of our own, called `rajut`, replaced as a whole: installing twice
//! is the same as once, and nobody else's rules are touched.
//!
//! ```text
//!  the workload's socket
//!    └► nat/output      exempt? own address? 127/8? excluded?  → as it is
//!    │                  DNS                                    → 127.0.0.1:dns_port
//!    │                  TCP                                    → 127.0.0.1:outbound_port
//!    └► filter/output   (isolate) what does not stay on this machine's loopback by now is rejected
//!  from outside (a pod)
//!    └► nat/prerouting  TCP to the workload's ports            → inbound_port
//! ```
//!
//! The output hooks run before delivery, so that connections to addresses of 127.0.0.0/8 which serve as workload
//! addresses are redirected too, although a socket could be listening on them
//! ([`CaptureRules::capture_loopback`]).
//!
//! Redirected UDP is only answered correctly from a socket bound to 127.0.0.1 (`::1`) itself, see
//! [`crate::socket::bind_udp`].
//!
//! Bounds: at most [`MAX_ENTRIES`] entries per list, one rule each. Only the first packet of a connection is
//! matched by nat chains, so their length costs nothing per request. Not here: TPROXY, connection marks.

pub(crate) mod rules;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

pub use crate::system::nftables::{install, install_in, remove};
pub use rules::Ruleset;

/// Entries in each list of [`CaptureRules`]: so many that all lists full still fit the send buffer of an ordinary user
/// (a transaction is one message, at most about 416 KiB there).
pub const MAX_ENTRIES: usize = 128;

/// The name of our tables.
pub const TABLE: &str = "rajut";

/// Istio's port for outbound traffic (`ProxyListenPort`).
pub const OUTBOUND_PORT: u16 = 15001;
/// Istio's port for inbound traffic.
pub const INBOUND_PORT: u16 = 15006;
/// Istio's port for captured DNS.
pub const DNS_PORT: u16 = 15053;
/// Istio's user and group id for the sidecar in a pod.
pub const SIDECAR_ID: u32 = 1337;

/// What is captured, declaratively. The defaults redirect all outbound TCP and DNS of a local workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRules {
    /// Outbound TCP goes here.
    pub outbound_port: u16,
    /// DNS (UDP and TCP port 53) goes here; `None`: DNS is not captured.
    pub dns_port: Option<u16>,
    /// Only DNS to these servers is captured; empty: all of it. In a pod: the servers of `resolv.conf`.
    pub dns_servers: Vec<IpAddr>,
    /// TCP that arrives from outside goes here (Kubernetes); `None`: arrivals are left alone.
    pub inbound_port: Option<u16>,
    /// Ports whose arrivals are captured; `None`: all. Istio: `traffic.sidecar.istio.io/includeInboundPorts`.
    pub include_inbound_ports: Option<Vec<u16>>,
    /// Ports whose arrivals are left alone. Istio: `traffic.sidecar.istio.io/excludeInboundPorts`.
    pub exclude_inbound_ports: Vec<u16>,
    /// The workload's own addresses: what it sends to itself is left alone.
    pub own_addresses: Vec<IpAddr>,
    /// Parts of 127.0.0.0/8 (or `::1`) that are *not* the workload itself and are therefore captured.
    pub capture_loopback: Vec<IpNet>,
    /// Only these destinations are captured; empty: all. Istio: `traffic.sidecar.istio.io/includeOutboundIPRanges`.
    pub include_outbound: Vec<IpNet>,
    /// Destinations that are left alone. Istio: `traffic.sidecar.istio.io/excludeOutboundIPRanges`.
    pub exclude_outbound: Vec<IpNet>,
    /// TCP destination ports that are left alone. Istio: `traffic.sidecar.istio.io/excludeOutboundPorts`.
    pub exclude_outbound_ports: Vec<u16>,
    /// The sidecar's user id: its own connections are left alone. Needed where the sidecar lives in the same
    /// namespace (a pod), not in `rajut up`.
    pub exempt_uid: Option<u32>,
    /// The sidecar's group id, as for [`CaptureRules::exempt_uid`].
    pub exempt_gid: Option<u32>,
    /// Whether IPv6 is redirected too; needs listeners on `::1`.
    pub ipv6: bool,
    /// Reject what is not redirected and would leave: UDP other than DNS, ICMP, excluded TCP. For namespaces
    /// whose only way out is the sidecar; in a pod it would cut off what was excluded on purpose.
    pub isolate: bool,
}

impl Default for CaptureRules {
    fn default() -> Self {
        Self {
            outbound_port: OUTBOUND_PORT,
            dns_port: Some(DNS_PORT),
            dns_servers: Vec::new(),
            inbound_port: None,
            include_inbound_ports: None,
            exclude_inbound_ports: Vec::new(),
            own_addresses: Vec::new(),
            capture_loopback: Vec::new(),
            include_outbound: Vec::new(),
            exclude_outbound: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exempt_uid: None,
            exempt_gid: None,
            ipv6: false,
            isolate: false,
        }
    }
}

impl CaptureRules {
    /// For a namespace of `rajut up`: the sidecar lives outside, and there is no other way out.
    pub fn local(own_addresses: Vec<IpAddr>) -> Self {
        Self {
            own_addresses,
            isolate: true,
            ..Self::default()
        }
    }

    /// For a pod: the sidecar is a process with id 1337 in the same namespace, arrivals are captured, and Istio's
    /// own ports (health, metrics, the tunnel) are not.
    pub fn kubernetes(own_addresses: Vec<IpAddr>) -> Self {
        Self {
            own_addresses,
            inbound_port: Some(INBOUND_PORT),
            exclude_inbound_ports: vec![15008, 15020, 15021, 15090],
            exempt_uid: Some(SIDECAR_ID),
            exempt_gid: Some(SIDECAR_ID),
            ipv6: true,
            ..Self::default()
        }
    }

    /// The rules, readable (`to_string` gives a file for `nft -f`).
    pub fn ruleset(&self) -> Result<Ruleset, NftablesError> {
        self.check()?;
        Ok(rules::compile(self))
    }

    fn check(&self) -> Result<(), NftablesError> {
        let lists = [
            ("dns_servers", self.dns_servers.len()),
            (
                "include_inbound_ports",
                self.include_inbound_ports.as_ref().map_or(0, Vec::len),
            ),
            ("exclude_inbound_ports", self.exclude_inbound_ports.len()),
            ("own_addresses", self.own_addresses.len()),
            ("capture_loopback", self.capture_loopback.len()),
            ("include_outbound", self.include_outbound.len()),
            ("exclude_outbound", self.exclude_outbound.len()),
            ("exclude_outbound_ports", self.exclude_outbound_ports.len()),
        ];
        if let Some((list, entries)) = lists.into_iter().find(|(_, entries)| *entries > MAX_ENTRIES) {
            return Err(NftablesError::TooMany { list, entries });
        }
        let ports = [
            ("outbound_port", Some(self.outbound_port)),
            ("dns_port", self.dns_port),
            ("inbound_port", self.inbound_port),
        ];
        match ports.into_iter().find(|(_, port)| *port == Some(0)) {
            Some((field, _)) => Err(NftablesError::PortZero { field }),
            None => Ok(()),
        }
    }
}

/// Why rules could not be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    /// A list is longer than [`MAX_ENTRIES`].
    #[error("{list} has {entries} entries, the limit is {MAX_ENTRIES}")]
    TooMany {
        /// The field of [`CaptureRules`].
        list: &'static str,
        /// Its length.
        entries: usize,
    },
    /// A port to redirect to is 0.
    #[error("{field} is 0")]
    PortZero {
        /// The field of [`CaptureRules`].
        field: &'static str,
    },
    /// The namespace could not be entered.
    #[error("can't enter the network namespace")]
    Enter(#[source] io::Error),
    /// The kernel refused.
    #[error("{reason}")]
    Refused {
        /// For people: what is missing or forbidden.
        reason: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What [`install`] achieved.
#[derive(Debug)]
pub struct Installed {
    /// Whether the IPv6 rules are there; `None` when none were wanted. A kernel without IPv6 is no reason to
    /// give up IPv4.
    pub ipv6: Option<Result<(), NftablesError>>,
}
