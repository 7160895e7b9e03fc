//! The names that a sidecar's DNS answers by itself: every service that its namespace sees, under all its names.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use rajut_config::{
    model::{Service, WorkloadHealth},
    snapshot::{ClientView, Members, ServiceView, Shared},
};
use rajut_ir::{NameTable, Names};
use rajut_types::{Hostname, Text};

use crate::{names, outbound::Pieces};

/// What the names of one service are made of. Those for clients of other namespaces are the same for all of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamesView {
    service: Shared<Service>,
    /// Of a headless service, whose names lead to its endpoints.
    members: Option<Shared<Members>>,
    /// The client's namespace, where it may use a name that others may not.
    near: Option<Text>,
    /// The mesh's.
    domain: Text,
}

impl NamesView {
    fn new(view: &ServiceView, client: &ClientView) -> Self {
        let service = &view.service;
        let ending = format!(".{}.svc.{}", client.namespace, client.mesh.domain);
        let is_near = hosts(service).any(|host| {
            host.as_str().ends_with(&ending) || (is_bare(host) && service.namespace == client.namespace)
        });
        Self {
            service: service.clone(),
            members: service.headless.then(|| view.members.clone()),
            near: is_near.then(|| client.namespace.clone()),
            domain: client.mesh.domain.clone(),
        }
    }
}

/// The names of a service.
pub(crate) fn build(view: &NamesView) -> Arc<Names> {
    let addresses = addresses(view);
    if addresses.is_empty() && !view.service.headless {
        // Nothing of the mesh's own to answer with: the name is looked up outside.
        return Arc::default();
    }
    let near = view.near.as_deref().unwrap_or_default();
    let mut all = BTreeMap::new();
    for host in hosts(&view.service) {
        if is_bare(host) && *view.service.namespace != *near {
            continue;
        }
        for form in names::forms_of(host, near, &view.domain) {
            for (name, address) in pods(view, &form) {
                all.entry(name).or_insert_with(|| Arc::from([address]));
            }
            all.entry(form).or_insert_with(|| Arc::clone(&addresses));
        }
    }
    all.into_iter().collect()
}

fn hosts(service: &Service) -> impl Iterator<Item = &Hostname> {
    std::iter::once(&service.host).chain(&service.aliases)
}

fn is_bare(host: &Hostname) -> bool {
    !host.as_str().contains('.')
}

/// The table of a client: the names of all services that it sees. Full names are never displaced by another host's short form, and
/// of two equal ones the first host's counts.
pub(crate) fn table(client: &ClientView, pieces: &mut Pieces) -> NameTable {
    let parts: Vec<Arc<Names>> = client
        .services
        .iter()
        .map(|view| pieces.names(NamesView::new(view, client)))
        .collect();
    let full: HashSet<&str> = client
        .services
        .iter()
        .zip(&parts)
        .filter(|(_, part)| !part.is_empty())
        .flat_map(|(view, _)| hosts(&view.service))
        .filter(|host| !is_bare(host))
        .map(Hostname::as_str)
        .collect();
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(parts.len());
    for (view, part) in client.services.iter().zip(&parts) {
        let counts = |name: &str| {
            let is_own = || hosts(&view.service).any(|host| host.as_str() == name);
            (!full.contains(name) || is_own()) && !seen.contains(name)
        };
        let own: Vec<_> = part.iter().filter(|(name, _)| counts(name)).collect();
        let rest = if own.len() == part.len() {
            Arc::clone(part)
        } else {
            own.iter().map(|entry| (*entry).clone()).collect()
        };
        seen.extend(own.into_iter().map(|(name, _)| &**name));
        if !rest.is_empty() {
            kept.push(rest);
        }
    }
    NameTable::of_parts(kept)
}

/// Where a name of the service leads: its virtual addresses, or for a headless one its ready endpoints.
fn addresses(view: &NamesView) -> Arc<[IpAddr]> {
    let Some(members) = &view.members else {
        return view.service.addresses.as_slice().into();
    };
    let workloads = members
        .list
        .iter()
        .filter(|member| member.workload.health == WorkloadHealth::Ready)
        .map(|member| member.workload.address);
    let given = view
        .service
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.address.parse().ok());
    let mut all: Vec<IpAddr> = workloads.chain(given).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// `<pod>.<service…>` for the pods of a headless service, ready or not: stateful peers find each other while starting.
fn pods<'v>(view: &'v NamesView, form: &'v str) -> impl Iterator<Item = (Text, IpAddr)> + 'v {
    let members = view.members.iter().flat_map(|members| &members.list);
    members.map(move |member| {
        let name = format!("{}.{form}", member.workload.name).into();
        (name, member.workload.address)
    })
}
