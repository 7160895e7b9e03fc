//! The names that a sidecar's DNS answers by itself: every service that its namespace sees, under all its names.

use std::{collections::BTreeMap, net::IpAddr};

use rajut_config::{
    model::WorkloadHealth,
    snapshot::{ClientView, ServiceView},
};
use rajut_ir::NameTable;
use rajut_types::Text;

use crate::names;

/// The table of a client. Full names are never displaced by another host's short form.
pub(crate) fn table(client: &ClientView) -> NameTable {
    let mut full = BTreeMap::new();
    let mut short = BTreeMap::new();
    for view in client.services.iter() {
        let addresses = addresses(view);
        if addresses.is_empty() && !view.service.headless {
            // Nothing of the mesh's own to answer with: the name is looked up outside.
            continue;
        }
        let hosts = std::iter::once(&view.service.host).chain(&view.service.aliases);
        for host in hosts {
            let bare = !host.as_str().contains('.');
            if bare && view.service.namespace != client.namespace {
                continue;
            }
            let forms = names::forms_of(host, &client.namespace, &client.mesh.domain);
            for (position, form) in forms.into_iter().enumerate() {
                pods(view, &form, &mut short);
                let table = if position == 0 && !bare {
                    &mut full
                } else {
                    &mut short
                };
                table.entry(form).or_insert_with(|| addresses.clone());
            }
        }
    }
    short.append(&mut full);
    NameTable { names: short }
}

/// Where a name of the service leads: its virtual addresses, or for a headless one its ready endpoints.
fn addresses(view: &ServiceView) -> Vec<IpAddr> {
    if !view.service.headless {
        return view.service.addresses.clone();
    }
    let workloads = view
        .members
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
    all
}

/// `<pod>.<service…>` for the pods of a headless service, ready or not: stateful peers find each other while starting.
fn pods(view: &ServiceView, form: &str, names: &mut BTreeMap<Text, Vec<IpAddr>>) {
    if !view.service.headless {
        return;
    }
    for member in &view.members.list {
        let name = format!("{}.{form}", member.workload.name).into();
        names.entry(name).or_insert_with(|| vec![member.workload.address]);
    }
}
