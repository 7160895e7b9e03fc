//! [`crate::network`] where no workload has a network of its own.

use std::net::IpAddr;

use super::NAMESPACES;
use crate::netns::NetNs;
use crate::network::{NetworkError, WorkloadNetwork, WorkloadNetworkReport};

fn refused(step: impl Into<String>) -> NetworkError {
    NetworkError::Refused {
        step: step.into(),
        source: NAMESPACES.into(),
    }
}

/// Always refused.
pub fn bring_loopback_up() -> Result<(), NetworkError> {
    Err(refused("bring loopback up"))
}

/// Always refused.
pub fn add_loopback_address(address: IpAddr) -> Result<(), NetworkError> {
    Err(refused(format!("add {address} to loopback")))
}

/// Always refused.
pub fn route_everything_to_loopback(source: IpAddr) -> Result<(), NetworkError> {
    Err(refused(format!("add a default route with source {source}")))
}

/// Always refused.
pub fn set_sysctl(name: &str, value: &str) -> Result<(), NetworkError> {
    Err(refused(format!("set net/{name} to {value}")))
}

/// Sets a namespace up; there is none.
pub const fn set_up_workload(
    namespace: &NetNs,
    _network: WorkloadNetwork,
) -> Result<WorkloadNetworkReport, NetworkError> {
    namespace.impossible()
}
