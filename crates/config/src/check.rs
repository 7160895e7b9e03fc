//! Relations between objects: what each document could not know of the others.
//!
//! Runs on the result of [`load`](crate::load), never changes it, and reports each cause once. An object that was left
//! out because of its own errors is no cause for findings in the objects that refer to it.

mod authorizers;
mod callers;
pub(crate) mod gateways;
mod hosts;
mod overlaps;
mod policies;
mod routes;
mod sidecars;
mod workloads;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use rajut_types::{Code, Diagnostic, Hostname, Origin, Severity, Text};

use crate::{
    Loaded,
    model::{Deployment, DestinationRule, Service, Visibility},
    read::nearest,
};

/// What is wrong between the objects.
pub fn check(loaded: &Loaded) -> Vec<Diagnostic> {
    let mut checker = Checker::new(loaded);
    workloads::check(&mut checker);
    hosts::check(&mut checker);
    routes::check(&mut checker);
    policies::check(&mut checker);
    overlaps::check(&mut checker);
    authorizers::check(&mut checker);
    callers::check(&mut checker);
    gateways::check(&mut checker);
    sidecars::check(&mut checker);
    checker.findings
}

struct Checker<'a> {
    loaded: &'a Loaded,
    /// By host, in order of precedence.
    services: BTreeMap<&'a Hostname, Vec<&'a Service>>,
    /// Those whose host is a wildcard.
    wildcards: Vec<&'a Service>,
    /// By any name that an alias gives.
    aliases: BTreeSet<&'a Hostname>,
    /// By namespace.
    deployments: BTreeMap<&'a str, Vec<&'a Deployment>>,
    /// By namespace, label and value, so that a selector need not look at all.
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Deployment>>,
    /// How many workloads have that name, in all namespaces.
    names: BTreeMap<&'a str, usize>,
    /// Looking for a similar name costs time with the number of names: so many findings get one.
    suggestions: Cell<usize>,
    findings: Vec<Diagnostic>,
}

/// Findings that may search for a similar name.
const MAX_SUGGESTIONS: usize = 500;

impl<'a> Checker<'a> {
    fn new(loaded: &'a Loaded) -> Self {
        let mut services: BTreeMap<&Hostname, Vec<&Service>> = BTreeMap::new();
        let mut deployments: BTreeMap<&str, Vec<&Deployment>> = BTreeMap::new();
        for service in &loaded.services {
            services.entry(&service.host).or_default().push(service);
        }
        for deployment in &loaded.deployments {
            deployments
                .entry(&deployment.namespace)
                .or_default()
                .push(deployment);
        }
        let mut by_label: BTreeMap<_, Vec<&Deployment>> = BTreeMap::new();
        let mut names = BTreeMap::new();
        for deployment in &loaded.deployments {
            *names.entry(&*deployment.name).or_default() += 1;
            for (key, value) in deployment.labels.iter() {
                by_label
                    .entry((&*deployment.namespace, key, value))
                    .or_default()
                    .push(deployment);
            }
        }
        Self {
            by_label,
            names,
            suggestions: Cell::new(MAX_SUGGESTIONS),
            loaded,
            services,
            wildcards: loaded.services.iter().filter(|s| s.host.is_wildcard()).collect(),
            aliases: loaded.services.iter().flat_map(|s| &s.aliases).collect(),
            deployments,
            findings: Vec::new(),
        }
    }

    fn say(
        &mut self,
        code: Code,
        severity: Severity,
        origin: &Origin,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = self.loaded.index.diagnostic(code, severity, origin, message);
        self.findings.push(finding.hint(hint));
    }

    /// The service that a client in `namespace` means by `host`.
    fn service(&self, host: &Hostname, namespace: &str) -> Option<&'a Service> {
        let exact = self.services.get(host).map_or(&[][..], Vec::as_slice);
        let visible = |s: &&&Service| s.export_to.includes(namespace) || &*s.namespace == namespace;
        exact
            .iter()
            .find(visible)
            .copied()
            .or_else(|| self.wildcards.iter().find(|s| s.host.covers(host)).copied())
    }

    /// Whether some object that was left out may define `host`.
    fn host_may_be_broken(&self, host: &Hostname) -> bool {
        let domain = format!(".svc.{}", self.loaded.mesh.domain);
        self.loaded.broken.iter().any(|object| match &*object.kind {
            "Service" => *host.as_str() == *format!("{}.{}{domain}", object.name, object.namespace),
            "ServiceEntry" => self
                .loaded
                .index
                .texts(object, "spec", "hosts")
                .any(|text| text.eq_ignore_ascii_case(host.as_str())),
            "Compose" => host.as_str().ends_with(&format!(".{}{domain}", object.namespace)),
            _ => false,
        })
    }

    /// Deployments of the service's namespace that it selects.
    fn selected(&self, service: &Service) -> Vec<&'a Deployment> {
        let Some(selector) = &service.selector else {
            return Vec::new();
        };
        let rarest = selector
            .iter()
            .map(|(key, value)| {
                self.by_label
                    .get(&(&*service.namespace, key, value))
                    .map_or(&[][..], Vec::as_slice)
            })
            .min_by_key(|all| all.len());
        rarest
            .unwrap_or_else(|| self.in_namespace(&service.namespace))
            .iter()
            .filter(|d| d.labels.matches(selector))
            .copied()
            .collect()
    }

    /// [`nearest`], as long as it may be afforded.
    fn nearest<'n>(&self, text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        let left = self.suggestions.get();
        self.suggestions.set(left.saturating_sub(1));
        (left > 0).then(|| nearest(text, names)).flatten()
    }

    fn in_namespace(&self, namespace: &str) -> &[&'a Deployment] {
        self.deployments.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The rules that a client in `namespace` may meet for `host`.
    fn rules(&self, host: &Hostname, namespace: &str) -> Vec<&'a DestinationRule> {
        self.loaded
            .destination_rules
            .iter()
            .filter(|rule| rule.host == *host || rule.host.covers(host))
            .filter(|rule| &*rule.namespace == namespace || rule.export_to.includes(namespace))
            .collect()
    }
}

/// Whether some client sees both alike.
fn same_audience(a: &Visibility, b: &Visibility) -> bool {
    a == b
}

/// `origin` at a field of the same object.
fn field(origin: &Origin, path: impl Into<Text>) -> Origin {
    origin.at(path, origin.line)
}

#[cfg(test)]
mod tests;
