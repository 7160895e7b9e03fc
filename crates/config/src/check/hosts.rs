//! Hosts, subsets and ports that rules name.

use std::collections::{BTreeMap, BTreeSet};

use rajut_types::{Hostname, Origin, Severity, Text};

use super::{Checker, field};
use crate::{
    codes,
    model::{Destination, HttpRoute, VirtualService, host_alias},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    for rule in loaded
        .virtual_services
        .iter()
        .chain(&loaded.partial.virtual_services)
    {
        virtual_service(checker, rule);
    }
    for rule in loaded
        .destination_rules
        .iter()
        .chain(&loaded.partial.destination_rules)
    {
        let origin = field(&rule.origin, "spec.host");
        exists(checker, &rule.host, &rule.namespace, &origin);
    }
}

fn virtual_service(checker: &mut Checker<'_>, rule: &VirtualService) {
    let destinations: Vec<&Destination> = destinations(rule).collect();
    let mut said: BTreeSet<&Hostname> = BTreeSet::new();
    let mut missing: BTreeMap<&Hostname, Vec<(&Text, &Origin)>> = BTreeMap::new();
    for to in destinations {
        if said.insert(&to.host) {
            exists(checker, &to.host, &rule.namespace, &to.origin);
        }
        if let Some(service) = checker.service(&to.host, &rule.namespace)
            && let Some(port) = to.port
            && service.port(port).is_none()
        {
            let numbers: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
            let path = format!("{}.port.number", to.origin.field_path.trim_end_matches(".host"));
            let origin = to.origin.at(path, to.origin.line);
            checker.say(
                codes::PORT_NOT_FOUND,
                Severity::Error,
                &origin,
                format!("the service `{}` has no port {port}", service.name),
                format!(
                    "its ports are {}; a rule names the service's port, not the container's",
                    numbers.join(", ")
                ),
            );
        }
        if !to.subset.is_empty() && !subset_defined(checker, to, &rule.namespace) {
            let all = missing.entry(&to.host).or_default();
            if !all.iter().any(|(name, _)| **name == to.subset) {
                all.push((&to.subset, &to.origin));
            }
        }
    }
    for (host, subsets) in missing {
        say_missing(checker, rule, host, &subsets);
    }
    if rule.gateways.iter().any(|g| &**g == "mesh") {
        own_hosts(checker, rule, &said);
    }
}

/// A rule for a host that nobody calls has no effect; hosts that were reported as destinations are not repeated.
fn own_hosts(checker: &mut Checker<'_>, rule: &VirtualService, said: &BTreeSet<&Hostname>) {
    for (index, host) in rule.hosts.iter().enumerate() {
        let local = host
            .as_str()
            .ends_with(&format!(".svc.{}", checker.loaded.mesh.domain));
        if local && !host.is_wildcard() && !said.contains(host) {
            let origin = field(&rule.origin, format!("spec.hosts[{index}]"));
            exists(checker, host, &rule.namespace, &origin);
        }
    }
}

/// All destinations of the rule.
fn destinations(rule: &VirtualService) -> impl Iterator<Item = &Destination> {
    let http = rule.http.iter().flat_map(HttpRoute::destinations);
    let tls = rule.tls.iter().flat_map(|route| &route.destinations);
    let tcp = rule.tcp.iter().flat_map(|route| &route.destinations);
    http.chain(tls.chain(tcp).map(|to| &to.destination))
}

fn subset_defined(checker: &Checker<'_>, to: &Destination, namespace: &str) -> bool {
    checker
        .rules(&to.host, namespace)
        .iter()
        .any(|rule| rule.subsets.iter().any(|subset| subset.name == to.subset))
        || checker.loaded.broken.iter().any(|object| {
            &*object.kind == "DestinationRule"
                && checker
                    .loaded
                    .index
                    .text(object, &["spec", "host"])
                    .is_some_and(|text| {
                        let host = text.parse::<Hostname>();
                        host.is_ok_and(|h| {
                            h.qualify(&object.namespace, &checker.loaded.mesh.domain) == to.host
                        })
                    })
        })
}

/// The subsets of one host that are defined nowhere: each at its place, the lines to add once.
fn say_missing(
    checker: &mut Checker<'_>,
    rule: &VirtualService,
    host: &Hostname,
    subsets: &[(&Text, &Origin)],
) {
    let rules = checker.rules(host, &rule.namespace);
    let short = short_name(host);
    let key = subsets
        .iter()
        .find_map(|(name, _)| label_of(checker, host, &rule.namespace, name))
        .unwrap_or_else(|| "version".to_owned());
    let entries: Vec<String> = subsets
        .iter()
        .map(|(name, _)| {
            let own = label_of(checker, host, &rule.namespace, name);
            let (key, value) = (own.as_deref().unwrap_or(&key), name);
            format!("  - name: {name}\n    labels:\n      {key}: {value}")
        })
        .collect();
    let entries = entries.join("\n");
    let lines = match rules.first() {
        Some(existing) => format!(
            "add to `spec.subsets` of the {} ({}:{}):\n{entries}",
            existing.origin.object, existing.origin.source, existing.origin.line
        ),
        None => format!(
            "add this resource:\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: \
             {short}\n  namespace: {}\nspec:\n  host: {short}\n  subsets:\n{entries}",
            rule.namespace
        ),
    };
    let mut shown = false;
    for (name, origin) in subsets {
        let known = rules
            .iter()
            .flat_map(|rule| &rule.subsets)
            .map(|subset| &*subset.name);
        let near = checker.nearest(name, known);
        let what = match rules.first() {
            Some(existing) => format!("the {} does not define it", existing.origin.object),
            None => "there is no DestinationRule for the host".to_owned(),
        };
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if !std::mem::replace(&mut shown, true) => lines.clone(),
            None => "the lines above define it, too".to_owned(),
        };
        let path = format!("{}.subset", origin.field_path.trim_end_matches(".host"));
        checker.say(
            codes::SUBSET_NOT_DEFINED,
            Severity::Error,
            &origin.at(path, origin.line),
            format!("the subset `{name}` of `{short}` is not defined: {what}"),
            hint,
        );
    }
}

/// The label of the service's workloads whose value is the subset's name.
fn label_of(checker: &Checker<'_>, host: &Hostname, namespace: &str, subset: &str) -> Option<String> {
    let deployments = checker
        .service(host, namespace)
        .map_or_else(Vec::new, |service| checker.selected(service));
    deployments
        .iter()
        .flat_map(|d| d.labels.iter())
        .find(|(_, value)| *value == subset)
        .map(|(key, _)| key.to_owned())
}

fn short_name(host: &Hostname) -> &str {
    host.as_str().split('.').next().unwrap_or_default()
}

/// Whether `host` exists for a rule in `namespace`; says so if not.
pub(super) fn exists(checker: &mut Checker<'_>, host: &Hostname, namespace: &str, origin: &Origin) {
    if checker.service(host, namespace).is_some()
        || checker.aliases.contains(host)
        || *host == host_alias()
        || host.is_wildcard() && checker.loaded.services.iter().any(|s| host.covers(&s.host))
        || checker.host_may_be_broken(host)
    {
        return;
    }
    let hint = suggest(checker, host, namespace);
    // Where no services are given at all, the files are a part of something larger.
    let severity = if checker.loaded.services.is_empty() {
        Severity::Warning
    } else {
        Severity::Error
    };
    let domain = format!(".svc.{}", checker.loaded.mesh.domain);
    let message = match host
        .as_str()
        .strip_suffix(&domain)
        .and_then(|rest| rest.split_once('.'))
    {
        Some((name, namespace)) => format!("the host `{name}` does not exist in the namespace `{namespace}`"),
        None => format!("the host `{host}` does not exist"),
    };
    checker.say(codes::HOST_NOT_FOUND, severity, origin, message, hint);
}

fn suggest(checker: &Checker<'_>, host: &Hostname, namespace: &str) -> String {
    let services = &checker.loaded.services;
    let name = short_name(host);
    let domain = format!(".svc.{}", checker.loaded.mesh.domain);
    if let Some(hidden) = services.iter().find(|s| s.host == *host) {
        return format!(
            "{} defines it, but does not export it to `{namespace}`",
            hidden.origin.object
        );
    }
    // `name.namespace` is not completed.
    if let Some((name, other)) = host.as_str().split_once('.')
        && let Some(found) = services
            .iter()
            .find(|s| &*s.name == name && &*s.namespace == other)
    {
        return format!("write `{}`: a name with a dot is not completed", found.host);
    }
    let local = host.as_str().ends_with(&domain);
    if let Some(found) = services.iter().find(|s| local && &*s.name == name) {
        return format!(
            "there is one in the namespace `{}`: write `{}`",
            found.namespace, found.host
        );
    }
    let meant_namespace = host
        .as_str()
        .strip_suffix(&domain)
        .and_then(|rest| rest.split_once('.'))
        .map(|(_, namespace)| namespace);
    let near = if local {
        let here = services.iter().filter(|s| meant_namespace == Some(&*s.namespace));
        checker.nearest(name, here.map(|s| &*s.name))
    } else {
        checker.nearest(host.as_str(), services.iter().map(|s| s.host.as_str()))
    };
    if let (None, true) = (near, local)
        && let Some(far) = checker.nearest(name, services.iter().map(|s| &*s.name))
        && let Some(found) = services.iter().find(|s| &*s.name == far)
    {
        return format!("did you mean `{}`?", found.host);
    }
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if local => format!("add a Service `{name}`, or correct the name"),
        None => format!("add a ServiceEntry with `hosts: [{host}]`, or correct the name"),
    }
}
