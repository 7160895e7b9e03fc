//! The next version of an outbound half where few services differ: their clusters and endpoints are made again, everything else
//! is kept as it stands.
//!
//! What it does not do: anything that changes which listeners there are or what they say. Where a service came, went or
//! changed its ports, where routes or the ports of opaque protocols are concerned, it declines, and the half is built anew. So
//! the result is the same as that of building anew, always.

use std::sync::Arc;

use rajut_config::{
    model::Protocol,
    snapshot::{ClientView, ServiceView},
};
use rajut_types::Locality;

use super::{Outbound, Pieces, add_service};
use crate::{
    names,
    virtual_host::{Domains, VirtualHostView},
};

/// The half after `previous`, where `client` sees other versions of `changed` (the old one and the new one) and nothing else
/// differs. `None`: it must be built anew.
pub(crate) fn patch(
    previous: &Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    changed: &[(ServiceView, ServiceView)],
    redirected: bool,
    locality: &Locality,
) -> Option<Outbound> {
    if !changed.iter().all(is_simple) {
        return None;
    }
    let mut fresh = Outbound::default();
    let mut next = previous.clone();
    for (old, new) in changed {
        if old.rule != new.rule && !routes_stay(previous, pieces, client, new, redirected) {
            return None;
        }
        add_service(&mut fresh, pieces, client, new, redirected, locality);
        // A subset that the old rule had and the new one has not.
        let subsets = old
            .rule
            .iter()
            .flat_map(|rule| &rule.subsets)
            .map(|subset| &*subset.name);
        for port in &old.service.ports {
            for subset in std::iter::once("").chain(subsets.clone()) {
                let name = names::outbound_cluster(port.number, subset, &old.service.host);
                if !fresh.clusters.contains_key(&name) {
                    next.clusters.remove(&name);
                }
                if !fresh.assignments.contains_key(&name) {
                    next.assignments.remove(&name);
                }
            }
        }
    }
    // Findings are about rules and listeners: while those stay, so do the findings.
    let ruled = changed.iter().any(|(old, new)| old.rule != new.rule);
    if ruled && !(fresh.diagnostics.is_empty() && previous.diagnostics.is_empty()) {
        return None;
    }
    for (name, cluster) in &fresh.clusters {
        let known = next.clusters.get(name);
        if !known.is_some_and(|known| Arc::ptr_eq(known, cluster) || known == cluster) {
            next.clusters.insert(name.clone(), Arc::clone(cluster));
        }
    }
    for (name, assignment) in &fresh.assignments {
        let known = next.assignments.get(name);
        if !known.is_some_and(|known| Arc::ptr_eq(known, assignment) || known == assignment) {
            next.assignments.insert(name.clone(), Arc::clone(assignment));
        }
    }
    Some(next)
}

/// Whether listeners and names do not depend on what differs.
fn is_simple((old, new): &(ServiceView, ServiceView)) -> bool {
    let plain = |protocol: Protocol| protocol.is_http() || protocol == Protocol::Udp;
    old.service == new.service
        && old.virtual_service == new.virtual_service
        && !new.service.headless
        && (old.rule == new.rule || new.service.ports.iter().all(|port| plain(port.protocol)))
}

/// Whether the routes to a service whose rule differs are what they were: its own, and those that virtual services
/// send to it.
fn routes_stay(
    previous: &Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    changed: &ServiceView,
    redirected: bool,
) -> bool {
    // Elsewhere each service has tables of its own, which are not worth the distinction.
    if !redirected {
        return false;
    }
    let host = &changed.service.host;
    let sends_there = |view: &&ServiceView| {
        view.service.host == *host
            || view.virtual_service.as_ref().is_some_and(|routes| {
                routes
                    .http
                    .iter()
                    .any(|route| route.destinations().any(|to| to.host == *host))
            })
    };
    if client.unserved.iter().any(|(_, routes)| !routes.http.is_empty()) {
        return false;
    }
    client.services.iter().filter(sends_there).all(|view| {
        let ports = view
            .service
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp);
        ports.clone().all(|port| port.protocol.is_http())
            && ports.into_iter().all(|port| {
                let fresh = VirtualHostView::of_service(client, view, port.number, Domains::Names);
                let fresh = pieces.virtual_host(fresh);
                let table = previous.routes.get(&*port.number.to_string());
                let known = table
                    .into_iter()
                    .flat_map(|table| &table.virtual_hosts)
                    .find(|known| known.name == fresh.name);
                known.is_some_and(|known| Arc::ptr_eq(known, &fresh) || *known == fresh)
            })
    })
}
