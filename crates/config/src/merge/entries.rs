//! Workload entries: each is an endpoint of the services of its namespace that select it, as if it stood in their
//! `endpoints`.
//!
//! Source: Istio. Names and Unix sockets are for service entries that can use them; who can't is told in `check`.

use std::net::IpAddr;

use crate::{
    Loaded,
    model::{Resolution, Service, StaticEndpoint, WorkloadEntry},
};

pub(super) fn add_endpoints(loaded: &mut Loaded) {
    if loaded.workload_entries.is_empty() {
        return;
    }
    for service in &mut loaded.services {
        let own: Vec<StaticEndpoint> = loaded
            .workload_entries
            .iter()
            .filter(|entry| selects(service, entry) && takes(service, &entry.endpoint))
            .map(|entry| entry.endpoint.clone())
            .collect();
        service.endpoints.extend(own);
    }
}

/// Whether a service selects an entry.
pub(crate) fn selects(service: &Service, entry: &WorkloadEntry) -> bool {
    let selector = service.selector.as_ref().filter(|selector| !selector.is_empty());
    service.namespace == entry.namespace
        && selector.is_some_and(|selector| entry.endpoint.labels.matches(selector))
}

/// Whether a service can use an endpoint's address.
pub(crate) fn takes(service: &Service, endpoint: &StaticEndpoint) -> bool {
    let address = endpoint.address.parse::<IpAddr>().is_ok();
    let of_kubernetes = &*service.origin.object.kind == "Service";
    match service.resolution {
        Resolution::None => false,
        Resolution::Static => address || (!of_kubernetes && endpoint.address.starts_with("unix://")),
        Resolution::Dns | Resolution::DnsRoundRobin => !endpoint.address.starts_with("unix://"),
    }
}
