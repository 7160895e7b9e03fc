//! What concerns one gateway workload: which gateways select it, which virtual services are bound to those, with whom they
//! route and which secrets they name.
//!
//! A view, as those of `view`: its fields are all that may be read through it. Secrets are given to nobody but a workload that
//! is known to be a gateway, under the service account that it is known by: what a proxy says of its labels does not count.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use rajut_types::{Hostname, Labels, Text};

use super::{Shared, Snapshot, WorkloadView};
use crate::model::{
    Credential, DestinationRule, Gateway, GatewayServer, HttpRoute, Secret, Service, VirtualService,
};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayView {
    /// Its policies, the services that lead to it, what is told of its calls.
    pub workload: WorkloadView,
    /// Its labels.
    pub labels: Labels,
    /// Those that select it, oldest first.
    pub gateways: Vec<Shared<Gateway>>,
    /// Those that are bound to one of them, oldest first.
    pub virtual_services: Vec<Shared<VirtualService>>,
    /// The services that those send to, as the gateway sees them; an unknown host is absent.
    pub destinations: BTreeMap<Hostname, (Shared<Service>, Option<Shared<DestinationRule>>)>,
    /// Those that the gateways' servers name, by name.
    pub secrets: BTreeMap<Text, Shared<Secret>>,
    /// Where other workloads reach it.
    pub address: IpAddr,
    /// Container port → the port of `address`, where that is another.
    pub reached_ports: BTreeMap<u16, u16>,
    /// Port of a server → where this machine's own clients reach it.
    pub host_addresses: BTreeMap<u16, SocketAddr>,
}

impl GatewayView {
    /// Where the gateway listens for a server's port: for this machine's clients, and for workloads that call its service.
    pub fn sockets(&self, server: &GatewayServer, target: Option<u16>) -> Vec<SocketAddr> {
        let reached = |port: u16| self.reached_ports.get(&port).copied().unwrap_or(port);
        if let Some(bind) = server.bind {
            return vec![SocketAddr::new(bind, target.unwrap_or(server.port))];
        }
        let inside = target.map(|port| SocketAddr::new(self.address, reached(port)));
        self.host_addresses
            .get(&server.port)
            .copied()
            .into_iter()
            .chain(inside)
            .collect()
    }
}

impl Snapshot {
    /// The view of a gateway workload; `None` where it is not known to be one, or is another account's.
    pub fn gateway_view(&self, namespace: &str, name: &str, service_account: &str) -> Option<GatewayView> {
        let known = self.workloads.get(&(Text::from(namespace), Text::from(name)))?;
        let host_addresses = known.gateway.clone()?;
        if &*known.service_account != service_account {
            return None;
        }
        let labels = &known.labels;
        let gateways: Vec<&_> = self
            .gateways
            .iter()
            .filter(|gateway| labels.matches(&gateway.selector))
            .collect();
        let keys: Vec<Text> = gateways.iter().map(|gateway| gateway.key()).collect();
        let virtual_services: Vec<&_> = self
            .virtual_services
            .iter()
            .filter(|vs| vs.gateways.iter().any(|name| keys.contains(name)))
            .filter(|vs| vs.export_to.includes(namespace))
            .collect();
        let asked = self.asked_labels(labels);
        let mut destinations = BTreeMap::new();
        for host in virtual_services.iter().flat_map(|vs| hosts(vs)) {
            if !destinations.contains_key(host)
                && let Some(view) = self.service_of(host, namespace, &asked, false)
            {
                destinations.insert(host.clone(), (view.service, view.rule));
            }
        }
        let servers = gateways.iter().flat_map(|gateway| &gateway.servers);
        let named = |name: &Text| {
            let found = self
                .secrets
                .iter()
                .find(|secret| secret.name == *name && &*secret.namespace == namespace)?;
            Some((name.clone(), Shared::from(found)))
        };
        Some(GatewayView {
            workload: self.workload_view(namespace, name, labels),
            labels: labels.clone(),
            secrets: servers
                .flat_map(secrets)
                .filter_map(|name| named(&name))
                .collect(),
            gateways: gateways.into_iter().map(Shared::from).collect(),
            virtual_services: virtual_services.into_iter().map(Shared::from).collect(),
            destinations,
            address: known.address,
            reached_ports: known.reached_ports.clone(),
            host_addresses,
        })
    }
}

/// The secrets that a server may take certificates and roots from.
fn secrets(server: &GatewayServer) -> Vec<Text> {
    match server.tls.as_ref().and_then(|tls| tls.credential.as_ref()) {
        Some(Credential::Secret { name, roots }) => {
            let roots = roots.clone().unwrap_or_else(|| companion(name));
            vec![name.clone(), roots]
        }
        _ => Vec::new(),
    }
}

/// Where Istio looks for roots that are not beside the certificate.
pub(crate) fn companion(name: &str) -> Text {
    format!("{name}-cacert").into()
}

/// Every host that a virtual service sends to.
fn hosts(vs: &VirtualService) -> impl Iterator<Item = &Hostname> {
    let http = vs
        .http
        .iter()
        .flat_map(HttpRoute::destinations)
        .map(|to| &to.host);
    let tls = vs.tls.iter().flat_map(|route| &route.destinations);
    let tcp = vs.tcp.iter().flat_map(|route| &route.destinations);
    http.chain(tls.chain(tcp).map(|to| &to.destination.host))
}

/// The narrower of two hosts where one lies within the other.
pub fn intersection<'a>(one: &'a Hostname, other: &'a Hostname) -> Option<&'a Hostname> {
    if one == other || within(one, other) {
        Some(one)
    } else if within(other, one) {
        Some(other)
    } else {
        None
    }
}

/// Whether everything that `narrow` covers is covered by `wide`.
fn within(narrow: &Hostname, wide: &Hostname) -> bool {
    let Some(suffix) = wide.as_str().strip_prefix('*') else {
        return false;
    };
    match narrow.as_str().strip_prefix('*') {
        Some(own) => own.ends_with(suffix),
        None => wide.covers(narrow),
    }
}
