//! Virtual addresses, persisted so that a host keeps its address over restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use rajut_config::{
    model::{Resolution, Service},
    snapshot::allocate,
};
use rajut_types::Hostname;

use crate::overlay::write_atomically;

#[derive(Debug)]
pub(crate) struct Vips {
    path: PathBuf,
    assigned: BTreeMap<Hostname, IpAddr>,
}

impl Vips {
    /// What an earlier process assigned; an unreadable file is the same as none (addresses follow from names first).
    pub(crate) fn open(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let written: BTreeMap<String, IpAddr> = serde_json::from_str(&text).unwrap_or_default();
        let assigned = written
            .into_iter()
            .filter_map(|(host, address)| Some((host.parse().ok()?, address)))
            .collect();
        Self { path, assigned }
    }

    /// Gives an address to every service that needs one and has none.
    pub(crate) fn assign(&mut self, services: &mut [Service]) {
        let hosts: BTreeSet<Hostname> = services
            .iter()
            .filter(|service| needs_address(service))
            .map(|service| service.host.clone())
            .collect();
        let assigned = allocate(&hosts, &self.assigned);
        for service in services.iter_mut().filter(|service| needs_address(service)) {
            service.addresses.extend(assigned.get(&service.host).copied());
        }
        if assigned != self.assigned {
            self.assigned = assigned;
            self.persist();
        }
    }

    fn persist(&self) {
        let text: BTreeMap<&str, IpAddr> = self
            .assigned
            .iter()
            .map(|(host, address)| (host.as_str(), *address))
            .collect();
        let written = serde_json::to_vec_pretty(&text)
            .map_err(std::io::Error::other)
            .and_then(|bytes| write_atomically(&self.path, &bytes));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "virtual addresses are not saved");
        }
    }
}

/// Wildcards and services whose clients dial an address of their own have no use for one.
fn needs_address(service: &Service) -> bool {
    service.addresses.is_empty()
        && !service.headless
        && !service.host.is_wildcard()
        && service.resolution != Resolution::None
}
