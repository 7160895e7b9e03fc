//! Routes that are never reached, and several rules for one host.

use std::collections::BTreeMap;

use rajut_types::{Severity, Text};

use super::{Checker, field, same_audience};
use crate::{
    codes,
    model::{HttpMatch, HttpRoute, StringMatch, TrafficPolicy, VirtualService},
};

/// Matches compared with each other in one rule; beyond that only routes without conditions are judged.
const MAX_COMPARED: usize = 1_000;

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    for rule in &loaded.virtual_services {
        unreachable(checker, rule);
        ports(checker, rule);
    }
    virtual_services_per_host(checker);
    destination_rules_per_host(checker);
}

fn unreachable(checker: &mut Checker<'_>, rule: &VirtualService) {
    let total: usize = rule.http.iter().map(|r| r.matches.len().max(1)).sum();
    let compare = total <= MAX_COMPARED;
    let everything = [HttpMatch::default()];
    let mut before: Vec<(&HttpRoute, &HttpMatch)> = Vec::new();
    for route in &rule.http {
        let matches = if route.matches.is_empty() {
            &everything[..]
        } else {
            &route.matches[..]
        };
        let hidden_by = |m: &HttpMatch| {
            before
                .iter()
                .find(|(_, earlier)| covers(earlier, m))
                .map(|(r, _)| *r)
        };
        let covering: Option<Vec<&HttpRoute>> = matches.iter().map(hidden_by).collect();
        if let Some(first) = covering.and_then(|all| all.first().copied()) {
            let name = if first.name.is_empty() {
                String::new()
            } else {
                format!(" (`{}`)", first.name)
            };
            checker.say(
                codes::UNREACHABLE,
                Severity::Warning,
                &route.origin,
                format!(
                    "no request reaches this route: the route on line {}{name} takes them all",
                    first.origin.line
                ),
                "put the narrower route first",
            );
        }
        for m in matches {
            if compare || *m == HttpMatch::default() {
                before.push((route, m));
            }
        }
    }
}

/// Whether every request that `b` takes is taken by `a`.
fn covers(a: &HttpMatch, b: &HttpMatch) -> bool {
    let folded = a.ignore_uri_case || !b.ignore_uri_case;
    let named = |a: &[(Text, Option<StringMatch>)], b: &[(Text, Option<StringMatch>)]| {
        a.iter().all(|(name, condition)| {
            b.iter().any(|(other, theirs)| {
                name == other
                    && match (condition, theirs) {
                        (None, _) => true,
                        (Some(ours), Some(theirs)) => includes(ours, theirs, false),
                        (Some(_), None) => false,
                    }
            })
        })
    };
    let one = |a: &Option<StringMatch>, b: &Option<StringMatch>| match (a, b) {
        (None, _) => true,
        (Some(a), Some(b)) => includes(a, b, false),
        (Some(_), None) => false,
    };
    let uri = match (&a.uri, &b.uri) {
        (None, _) => true,
        (Some(StringMatch::Prefix(p)), _) if &**p == "/" => true,
        (Some(StringMatch::Regex(r)), _) if &**r == ".*" => true,
        (Some(a_uri), Some(b_uri)) => folded && includes(a_uri, b_uri, a.ignore_uri_case),
        (Some(_), None) => false,
    };
    uri && one(&a.scheme, &b.scheme)
        && one(&a.method, &b.method)
        && one(&a.authority, &b.authority)
        && named(&a.headers, &b.headers)
        // A header that must be absent is covered only by the same condition.
        && a.without_headers.iter().all(|c| b.without_headers.contains(c))
        && named(&a.query, &b.query)
        && (a.port.is_none() || a.port == b.port)
        && (a.source_namespace.is_none() || a.source_namespace == b.source_namespace)
        && b.source_labels.matches(&a.source_labels)
        && (a.gateways.is_empty() || a.gateways == b.gateways)
}

fn includes(a: &StringMatch, b: &StringMatch, fold: bool) -> bool {
    let lower = |text: &str| {
        if fold {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }
    };
    match (a, b) {
        (StringMatch::Exact(a), StringMatch::Exact(b)) => lower(a) == lower(b),
        (StringMatch::Prefix(a), StringMatch::Exact(b) | StringMatch::Prefix(b)) => {
            lower(b).starts_with(&lower(a))
        }
        (StringMatch::Regex(a), StringMatch::Regex(b)) => a == b,
        (StringMatch::Regex(a), _) => &**a == ".*",
        _ => false,
    }
}

/// A match on a port that none of the rule's services has.
fn ports(checker: &mut Checker<'_>, rule: &VirtualService) {
    let services: Vec<_> = rule
        .hosts
        .iter()
        .filter_map(|host| checker.service(host, &rule.namespace))
        .collect();
    if services.len() < rule.hosts.len() {
        return;
    }
    for (index, route) in rule.http.iter().enumerate() {
        for (position, m) in route.matches.iter().enumerate() {
            let Some(port) = m.port else { continue };
            // Inlined routes stand in another object, whose list is counted apart.
            let own = *route.origin.field_path == *format!("spec.http[{index}]");
            if services.iter().any(|s| s.port(port).is_some()) || !own {
                continue;
            }
            checker.say(
                codes::PORT_NOT_FOUND,
                Severity::Warning,
                &field(&rule.origin, format!("spec.http[{index}].match[{position}].port")),
                format!("no host of this rule has the port {port}, so nothing matches"),
                "a match names the service's port, the one that clients dial",
            );
        }
    }
}

fn virtual_services_per_host(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let mut by_host: BTreeMap<_, Vec<(usize, &VirtualService)>> = BTreeMap::new();
    for rule in loaded
        .virtual_services
        .iter()
        .filter(|r| r.gateways.iter().any(|g| &**g == "mesh"))
    {
        for (index, host) in rule.hosts.iter().enumerate() {
            by_host.entry(host).or_default().push((index, rule));
        }
    }
    for (host, rules) in by_host {
        for (at, (index, rule)) in rules.iter().enumerate() {
            let earlier = rules
                .iter()
                .take(at)
                .find(|(_, first)| same_audience(&first.export_to, &rule.export_to));
            let Some((_, first)) = earlier else { continue };
            checker.say(
                codes::HOST_TWICE,
                Severity::Warning,
                &field(&rule.origin, format!("spec.hosts[{index}]")),
                format!(
                    "this rule is not used for `{host}`: {} ({}:{}) comes first",
                    first.origin.object, first.origin.source, first.origin.line
                ),
                "put the routes into one VirtualService, or let one delegate to the other",
            );
        }
    }
}

fn destination_rules_per_host(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let mut by_host: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in &loaded.destination_rules {
        by_host
            .entry((&rule.host, &rule.namespace))
            .or_default()
            .push(rule);
    }
    for ((host, _), rules) in by_host {
        for (at, rule) in rules.iter().enumerate() {
            let earlier = rules.iter().take(at).filter(|first| {
                same_audience(&first.export_to, &rule.export_to)
                    && first.workload_selector == rule.workload_selector
            });
            let earlier: Vec<_> = earlier.collect();
            let policy = earlier
                .iter()
                .find(|first| first.policy != TrafficPolicy::default());
            if let (Some(first), true) = (policy, rule.policy != TrafficPolicy::default()) {
                checker.say(
                    codes::HOST_TWICE,
                    Severity::Warning,
                    &field(&rule.origin, "spec.trafficPolicy"),
                    format!(
                        "this traffic policy is not used for `{host}`: that of {} ({}:{}) comes first",
                        first.origin.object, first.origin.source, first.origin.line
                    ),
                    "put both into one DestinationRule",
                );
            }
            for (index, subset) in rule.subsets.iter().enumerate() {
                let first = earlier
                    .iter()
                    .find(|first| first.subsets.iter().any(|s| s.name == subset.name));
                let Some(first) = first else { continue };
                checker.say(
                    codes::HOST_TWICE,
                    Severity::Warning,
                    &field(&rule.origin, format!("spec.subsets[{index}].name")),
                    format!(
                        "the subset `{}` of `{host}` is defined before by {} ({}:{}), which counts",
                        subset.name, first.origin.object, first.origin.source, first.origin.line
                    ),
                    "take one of the two out",
                );
            }
        }
    }
}
