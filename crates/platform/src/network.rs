//! The inside of a workload's namespace: loopback up, the workload's address on it, and a default route that leads
//! everything to loopback, where [`crate::nftables`] redirects it to the sidecar.
//!
//! Spoken over rtnetlink, so that no `ip` program is needed. All functions act on the network namespace of the
//! calling thread: run them through [`crate::netns::in_namespace`], or use [`set_up_workload`].
//!
//! Why a default route `dev lo src ADDRESS`: a connection to any address has to get as far as the output hook
//! where it is redirected, so there must be a route; and with loopback's own 127.0.0.1 as its source the
//! answers would be dropped as martians, so there must be a real source address.
//!
//! Bounds: one request per call. No veth, no bridge, no forwarding: the namespace has no device but loopback.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

pub use crate::system::network::{
    add_loopback_address, bring_loopback_up, route_everything_to_loopback, set_sysctl, set_up_workload,
};

/// A step of setting up a namespace's network failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace could not be entered.
    #[error("can't enter the network namespace")]
    Enter(#[source] io::Error),
    /// The kernel refused a request.
    #[error("can't {step}")]
    Refused {
        /// What was being done: "bring loopback up", "add 10.0.0.1 to loopback".
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What a workload's namespace looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadNetwork {
    /// The workload's address; connections that it makes have it as their source.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, where it has one.
    pub v6: Option<Ipv6Addr>,
}

/// What [`set_up_workload`] achieved.
#[derive(Debug)]
pub struct WorkloadNetworkReport {
    /// `None`: no IPv6 was asked for; otherwise whether it is there. A kernel without IPv6 is no reason to
    /// refuse the workload.
    pub v6: Option<Result<(), NetworkError>>,
}
