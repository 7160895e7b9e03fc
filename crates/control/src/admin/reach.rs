//! `GET /v1/reach`: who can reach what ([`crate::reach`]), with the digest of the configuration that says so; with `callers=no` what is
//! asked of callers alone. `GET /v1/service?host=H`: one service with its workloads and the resources that hold for it.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use rajut_types::Hostname;
use serde_json::{Value, json};

use super::{Admin, answer::Refused, route::Query};
use crate::{reach, time::rfc3339_of};

pub(super) fn reach(admin: &Admin, query: &Query) -> Value {
    let snapshot = admin.registry.snapshot();
    let callers = query.get("callers").is_none_or(|wanted| wanted != "no");
    let found = reach::reach(&snapshot, callers);
    let workloads = json!(found.workloads);
    let mut told = Context::new(&SHA256);
    told.update(workloads.to_string().as_bytes());
    json!({
        "now": rfc3339_of(admin.clock.wall()),
        "generation": snapshot.generation,
        "trustDomain": snapshot.mesh.trust_domain.as_str(),
        "configurationDigest": digest(admin),
        "digest": hex(told),
        "workloads": workloads,
        "leftOut": found.left_out,
    })
}

/// SHA-256 of the texts in force, each with its name and length before it, in the order in which they are read.
fn digest(admin: &Admin) -> String {
    let mut context = Context::new(&SHA256);
    for source in admin.registry.sources_in_force() {
        context.update(format!("{} {}\n", source.name, source.bytes.len()).as_bytes());
        context.update(&source.bytes);
    }
    hex(context)
}

fn hex(context: Context) -> String {
    let mut text = "sha256:".to_owned();
    for byte in context.finish().as_ref() {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(super) fn service(admin: &Admin, query: &Query) -> Result<Value, Refused> {
    let host = query
        .get("host")
        .ok_or_else(|| Refused::bad("say which: ?host=HOST"))?;
    let parsed: Hostname = host
        .parse()
        .map_err(|_| Refused::bad(format!("`{host}` is no host")))?;
    let snapshot = admin.registry.snapshot();
    // As its own namespace sees it.
    let own = snapshot.services.values().find(|service| service.host == parsed);
    let view = own.and_then(|service| {
        let labels = rajut_types::Labels::default();
        snapshot.service_of(&parsed, &service.namespace, &labels, false)
    });
    let Some(view) = view else {
        let text = format!("no service `{host}`");
        return Err(Refused::new(http::StatusCode::NOT_FOUND, text));
    };
    let members = view.members.list.iter().map(|member| {
        let workload = &member.workload;
        json!({
            "name": &*workload.name,
            "deployment": &*workload.deployment,
            "namespace": &*workload.namespace,
            "address": workload.address,
            "health": workload.health,
            "version": workload.labels.find("version"),
            "weight": workload.weight,
            "mesh": workload.mesh,
        })
    });
    let subsets = view.rule.iter().flat_map(|rule| &rule.subsets);
    Ok(json!({
        "host": view.service.host.as_str(),
        "name": &*view.service.name,
        "namespace": &*view.service.namespace,
        "external": view.service.external,
        "where": view.service.origin,
        "members": members.collect::<Vec<_>>(),
        "virtualService": view.virtual_service.as_ref().map(|found| &found.origin),
        "destinationRule": view.rule.as_ref().map(|found| &found.origin),
        "subsets": subsets.map(|subset| &*subset.name).collect::<Vec<_>>(),
    }))
}
