//! Delegation: routes of a `VirtualService` without hosts take the place of the route that names it.
//!
//! Source: Istio `pilot/pkg/model/virtualservice.go` (what is inherited, which matches are compatible).

use std::collections::{BTreeMap, BTreeSet};

use rajut_types::{Diagnostic, Severity, Text};

use super::{collect::Collected, environment::broken};
use crate::{
    api::{
        route::{Delegate, RawRoute},
        virtual_service::RawVirtualService,
    },
    codes,
    model::{HeaderOperations, HttpMatch, HttpRoute, StringMatch, VirtualService},
    read::{nearest, shown},
};

/// The rules with hosts, with the routes of their delegates.
pub(super) fn inline(all: &Collected) -> (Vec<VirtualService>, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let mut rules = Vec::new();
    let named: ByName<'_> = all
        .virtual_services
        .iter()
        .map(|v| ((&*v.rule.namespace, &*v.rule.name), v))
        .collect();
    for raw in all.virtual_services.iter().filter(|v| !v.is_delegate()) {
        let mut rule = raw.rule.clone();
        for route in &raw.http {
            match &route.delegate {
                None => rule.http.push(route.route.clone()),
                Some(delegate) => rule
                    .http
                    .extend(stand_in(all, &named, route, delegate, &mut findings)),
            }
        }
        rules.push(rule);
    }
    findings.extend(unused(all));
    (rules, findings)
}

/// Delegates that nothing is delegated to. A rule that was left out may be the one that does.
fn unused(all: &Collected) -> Vec<Diagnostic> {
    if all.broken.iter().any(|object| &*object.kind == "VirtualService") {
        return Vec::new();
    }
    let routes = all.virtual_services.iter().flat_map(|rule| &rule.http);
    let used: BTreeSet<(&str, &str)> = routes
        .filter_map(|route| route.delegate.as_ref())
        .map(|delegate| (&*delegate.namespace, &*delegate.name))
        .collect();
    let delegates = all.virtual_services.iter().filter(|rule| rule.is_delegate());
    delegates
        .map(|delegate| &delegate.rule)
        .filter(|rule| !used.contains(&(&*rule.namespace, &*rule.name)))
        .map(|rule| {
            let message =
                "nothing is delegated to this VirtualService, and it has no hosts: its routes are not used";
            all.index
                .diagnostic(codes::DELEGATE, Severity::Warning, &rule.origin, message)
                .hint("add `hosts:`, or name it as the `delegate:` of a route")
        })
        .collect()
}

type ByName<'a> = BTreeMap<(&'a str, &'a str), &'a RawVirtualService>;

fn stand_in(
    all: &Collected,
    named: &ByName<'_>,
    root: &RawRoute,
    delegate: &Delegate,
    findings: &mut Vec<Diagnostic>,
) -> Vec<HttpRoute> {
    let mut refuse = |message: String, hint: String| {
        findings.push(
            all.index
                .diagnostic(codes::DELEGATE, Severity::Error, &delegate.origin, message)
                .hint(hint),
        );
        Vec::new()
    };
    let Some(child) = named.get(&(&*delegate.namespace, &*delegate.name)) else {
        if broken(all, &["VirtualService"], &delegate.namespace, &delegate.name) {
            return Vec::new();
        }
        let names = all
            .virtual_services
            .iter()
            .filter(|v| v.is_delegate())
            .map(|v| &*v.rule.name);
        let hint = match nearest(&delegate.name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add a VirtualService of that name without `hosts`".to_owned(),
        };
        let message = format!(
            "there is no VirtualService `{}` in `{}` to delegate to",
            shown(&delegate.name),
            shown(&delegate.namespace)
        );
        return refuse(message, hint);
    };
    if !child.is_delegate() {
        return refuse(
            format!(
                "`{}` has hosts of its own, so nothing can be delegated to it",
                shown(&delegate.name)
            ),
            "take its `hosts:` out".to_owned(),
        );
    }
    if !child.rule.export_to.includes(&delegate.origin.object.namespace) {
        return refuse(
            format!("`{}` is not exported to this namespace", shown(&delegate.name)),
            "add the namespace to its `exportTo`".to_owned(),
        );
    }
    let mut routes = Vec::new();
    for route in &child.http {
        if let Some(matches) = merge_matches(&root.route.matches, &route.route.matches) {
            routes.push(merge_routes(&root.route, &route.route, matches));
        } else {
            {
                let origin = &route.route.origin;
                let message = format!(
                    "this route is never used: its matches lie outside those of {}, which delegates to it",
                    delegate.origin.object
                );
                let finding = all
                    .index
                    .diagnostic(codes::DELEGATE, Severity::Warning, origin, message);
                findings.push(finding.hint("let the path begin as the delegating route's does"));
            }
        }
    }
    routes
}

fn merge_routes(root: &HttpRoute, child: &HttpRoute, matches: Vec<HttpMatch>) -> HttpRoute {
    let name: Text = match (root.name.is_empty(), child.name.is_empty()) {
        (false, false) => format!("{}-{}", root.name, child.name).into(),
        (true, _) => child.name.clone(),
        (_, true) => root.name.clone(),
    };
    let headers = if child.headers == HeaderOperations::default() {
        root.headers.clone()
    } else {
        child.headers.clone()
    };
    HttpRoute {
        name,
        matches,
        action: child.action.clone(),
        rewrite: child.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: child.timeout.or(root.timeout),
        retries: child.retries.clone().or_else(|| root.retries.clone()),
        headers,
        mirrors: if child.mirrors.is_empty() {
            root.mirrors.clone()
        } else {
            child.mirrors.clone()
        },
        fault: child.fault.clone().or_else(|| root.fault.clone()),
        cors: child.cors.clone().or_else(|| root.cors.clone()),
        origin: child.origin.clone(),
    }
}

/// All pairs that can hold together; `None` if one of the child's can hold with none of the root's.
fn merge_matches(root: &[HttpMatch], child: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(child.to_vec());
    }
    if child.is_empty() {
        return Some(root.to_vec());
    }
    let mut all = Vec::new();
    for child in child {
        let before = all.len();
        all.extend(
            root.iter()
                .filter(|root| !conflict(root, child))
                .map(|root| both(root, child)),
        );
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

fn conflict(root: &HttpMatch, child: &HttpMatch) -> bool {
    let named = |root: &[(Text, Option<StringMatch>)], child: &[(Text, Option<StringMatch>)]| {
        root.iter().any(|(name, condition)| {
            child
                .iter()
                .any(|(other, theirs)| name == other && outside(condition.as_ref(), theirs.as_ref()))
        })
    };
    // A root with a regular expression can't be narrowed by another condition on the same thing.
    outside(root.uri.as_ref(), child.uri.as_ref())
        || outside(root.scheme.as_ref(), child.scheme.as_ref())
        || outside(root.method.as_ref(), child.method.as_ref())
        || outside(root.authority.as_ref(), child.authority.as_ref())
        || named(&root.headers, &child.headers)
        || named(&root.without_headers, &child.without_headers)
        || named(&root.query, &child.query)
        || matches!((root.port, child.port), (Some(a), Some(b)) if a != b)
        || matches!((&root.source_namespace, &child.source_namespace), (Some(a), Some(b)) if a != b)
        || root
            .source_labels
            .iter()
            .any(|(name, value)| child.source_labels.find(name).is_some_and(|other| other != value))
        || !child.gateways.is_empty()
}

/// Whether `child` could hold where `root` does not.
fn outside(root: Option<&StringMatch>, child: Option<&StringMatch>) -> bool {
    match (root, child) {
        (None, _) | (_, None) => false,
        (Some(a), Some(b)) if a == b => false,
        (Some(StringMatch::Prefix(root)), Some(StringMatch::Prefix(child) | StringMatch::Exact(child))) => {
            !child.starts_with(&**root)
        }
        (Some(_), Some(_)) => true,
    }
}

fn both(root: &HttpMatch, child: &HttpMatch) -> HttpMatch {
    let merged = |root: &[(Text, Option<StringMatch>)], child: &[(Text, Option<StringMatch>)]| {
        let mut all = child.to_vec();
        all.extend(
            root.iter()
                .filter(|(name, _)| !child.iter().any(|(other, _)| other == name))
                .cloned(),
        );
        all
    };
    let name: Text = match (root.name.is_empty(), child.name.is_empty()) {
        (false, false) => format!("{}-{}", root.name, child.name).into(),
        (true, _) => child.name.clone(),
        (_, true) => root.name.clone(),
    };
    let labels = root.source_labels.iter().chain(child.source_labels.iter());
    HttpMatch {
        name,
        uri: child.uri.clone().or_else(|| root.uri.clone()),
        ignore_uri_case: if child.uri.is_some() {
            child.ignore_uri_case
        } else {
            root.ignore_uri_case
        },
        scheme: child.scheme.clone().or_else(|| root.scheme.clone()),
        method: child.method.clone().or_else(|| root.method.clone()),
        authority: child.authority.clone().or_else(|| root.authority.clone()),
        headers: merged(&root.headers, &child.headers),
        without_headers: merged(&root.without_headers, &child.without_headers),
        claims: root.claims.iter().chain(&child.claims).cloned().collect(),
        query: merged(&root.query, &child.query),
        port: child.port.or(root.port),
        source_labels: labels.map(|(k, v)| (Text::from(k), Text::from(v))).collect(),
        source_namespace: child
            .source_namespace
            .clone()
            .or_else(|| root.source_namespace.clone()),
        gateways: root.gateways.clone(),
    }
}
