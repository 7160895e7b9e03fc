//! Sidecars: whom they select, which hosts they name, which of several is used. Workload entries that nobody selects.

use std::collections::BTreeMap;

use rajut_types::Severity;

use super::{Checker, field};
use crate::{
    codes,
    merge::entries,
    model::{EgressHost, Sidecar, WorkloadEntry},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let mut first: BTreeMap<_, &Sidecar> = BTreeMap::new();
    for sidecar in &loaded.sidecars {
        if sidecar.selector.is_none() {
            match first.get(&sidecar.namespace) {
                Some(first) => not_used(checker, sidecar, first),
                None => drop(first.insert(&sidecar.namespace, sidecar)),
            }
        }
        selector(checker, sidecar);
        for host in sidecar.egress.iter().flatten() {
            egress(checker, sidecar, host);
        }
    }
    for entry in &loaded.workload_entries {
        unselected(checker, entry);
    }
}

fn not_used(checker: &mut Checker<'_>, sidecar: &Sidecar, first: &Sidecar) {
    checker.say(
        codes::HOST_TWICE,
        Severity::Warning,
        &sidecar.origin,
        format!(
            "this Sidecar is not used: {} ({}:{}) is the namespace's default already",
            first.origin.object, first.origin.source, first.origin.line
        ),
        "give one of the two a `workloadSelector`",
    );
}

fn selector(checker: &mut Checker<'_>, sidecar: &Sidecar) {
    let Some(selector) = &sidecar.selector else { return };
    let known = checker.in_namespace(&sidecar.namespace);
    if known.is_empty() || known.iter().any(|it| it.labels.matches(selector)) {
        return;
    }
    checker.say(
        codes::SELECTOR_EMPTY,
        Severity::Warning,
        &field(&sidecar.origin, "spec.workloadSelector"),
        format!(
            "the Sidecar selects no workload of the namespace `{}`",
            sidecar.namespace
        ),
        "correct the labels",
    );
}

fn egress(checker: &mut Checker<'_>, sidecar: &Sidecar, host: &EgressHost) {
    let Some(name) = host.host.as_ref().filter(|name| !name.is_wildcard()) else {
        return;
    };
    let loaded = checker.loaded;
    let there = loaded.services.iter().any(|service| {
        let own = host.namespace.as_ref();
        (service.host == *name || service.host.covers(name) || service.aliases.contains(name))
            && own.is_none_or(|own| *own == service.namespace)
    });
    let routed = loaded
        .virtual_services
        .iter()
        .any(|routes| routes.hosts.contains(name));
    if there || routed || checker.host_may_be_broken(name) {
        return;
    }
    let names = loaded.services.iter().map(|service| service.host.as_str());
    let hint = match checker.nearest(name.as_str(), names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write the full name, as in `./api.shop.svc.cluster.local`".to_owned(),
    };
    let place = host.namespace.as_deref().map_or_else(
        || "any namespace".to_owned(),
        |namespace| format!("the namespace `{namespace}`"),
    );
    checker.say(
        codes::HOST_NOT_FOUND,
        Severity::Warning,
        &field(&sidecar.origin, "spec.egress"),
        format!("no service `{name}` is in {place}"),
        hint,
    );
}

fn unselected(checker: &mut Checker<'_>, entry: &WorkloadEntry) {
    let loaded = checker.loaded;
    let selecting = || {
        loaded
            .services
            .iter()
            .filter(|service| entries::selects(service, entry))
    };
    if selecting().any(|service| entries::takes(service, &entry.endpoint)) {
        return;
    }
    let broken = loaded.broken.iter().any(|object| {
        matches!(&*object.kind, "Service" | "ServiceEntry") && object.namespace == entry.namespace
    });
    if let Some(service) = selecting().next() {
        checker.say(
            codes::NO_EFFECT,
            Severity::Warning,
            &field(&entry.origin, "spec.address"),
            format!(
                "the service `{}` selects this workload and can't use `{}`",
                service.name, entry.endpoint.address
            ),
            "write an IP address, or `resolution: DNS` in the ServiceEntry",
        );
    } else if !broken {
        checker.say(
            codes::SELECTOR_EMPTY,
            Severity::Warning,
            &entry.origin,
            format!(
                "no service of the namespace `{}` selects this workload",
                entry.namespace
            ),
            "write a Service or a ServiceEntry whose selector takes its labels",
        );
    }
}
