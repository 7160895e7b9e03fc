//! Policies and telemetries that are not used, or that select nothing.

use std::collections::BTreeMap;

use rajut_types::{Labels, Origin, Severity};

use super::{Checker, field};
use crate::{
    codes,
    model::{PeerAuthentication, ProviderKind, Telemetry},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    check_telemetries(checker);
    check_selectors(checker);
    let loaded = checker.loaded;
    let mut wide: BTreeMap<&str, &PeerAuthentication> = BTreeMap::new();
    for policy in &loaded.peer_authentications {
        let Some(selector) = &policy.selector else {
            if let Some(first) = wide.get(&*policy.namespace) {
                checker.say(
                    codes::POLICY_IGNORED,
                    Severity::Warning,
                    &policy.origin,
                    format!(
                        "this policy is not used: {} ({}:{}) comes first in the namespace `{}`",
                        first.origin.object, first.origin.source, first.origin.line, policy.namespace
                    ),
                    "keep one policy without a selector in each namespace",
                );
            } else {
                wide.insert(&policy.namespace, policy);
            }
            continue;
        };
        if policy.namespace == loaded.mesh.root_namespace {
            checker.say(
                codes::POLICY_IGNORED,
                Severity::Warning,
                &field(&policy.origin, "spec.selector"),
                format!(
                    "a policy with a selector is not used in the root namespace `{}`",
                    policy.namespace
                ),
                "put it into the workloads' namespace, or take the selector out to make it mesh-wide",
            );
            continue;
        }
        selects_something(checker, &policy.origin, &policy.namespace, selector);
    }
}

fn check_selectors(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let authorization = loaded
        .authorization_policies
        .iter()
        .map(|policy| (&policy.selector, &policy.origin, &policy.namespace));
    let limits = loaded
        .rate_limit_policies
        .iter()
        .map(|policy| (&policy.selector, &policy.origin, &policy.namespace));
    let tokens = loaded
        .request_authentications
        .iter()
        .map(|policy| (&policy.selector, &policy.origin, &policy.namespace));
    for (selector, origin, namespace) in authorization.chain(limits).chain(tokens) {
        // One of the root namespace chooses among the workloads of all.
        if let Some(selector) = selector
            && *namespace != loaded.mesh.root_namespace
        {
            selects_something(checker, origin, namespace, selector);
        }
    }
}

/// Providers are those that the mesh has; one that is known and not followed was named where it stands.
fn check_providers(checker: &mut Checker<'_>, telemetry: &Telemetry) {
    let mesh = &checker.loaded.mesh;
    let known = |name: &str| mesh.providers.iter().find(|provider| &*provider.name == name);
    let of_logs = telemetry.logging.iter().flat_map(|rule| {
        let names = rule.providers.iter();
        names.map(move |name| (&rule.origin, name, &**name == "envoy"))
    });
    let of_traces = telemetry
        .tracing
        .iter()
        .filter_map(|rule| Some((&rule.origin, rule.provider.as_ref()?, false)));
    let mut unknown: Vec<_> = of_logs
        .chain(of_traces)
        .filter(|(_, name, built_in)| !built_in && known(name).is_none())
        .map(|(origin, name, _)| (origin, format!("there is no provider `{name}`: it gets nothing")))
        .collect();
    let is_log = |name: &str| known(name).is_none_or(|one| matches!(one.kind, ProviderKind::File { .. }));
    let is_tracer =
        |name: &str| known(name).is_none_or(|one| matches!(one.kind, ProviderKind::OpenTelemetry { .. }));
    for rule in &telemetry.logging {
        let wrong = rule.providers.iter().find(|name| !is_log(name));
        unknown.extend(wrong.map(|name| {
            (
                &rule.origin,
                format!("the provider `{name}` takes no access logs"),
            )
        }));
        let nobody = mesh.access_log.is_none() && mesh.default_logging.is_empty();
        let named = telemetry.logging.iter().any(|rule| !rule.providers.is_empty());
        if rule.providers.is_empty()
            && !rule.disabled
            && nobody
            && !named
            && telemetry.namespace == mesh.root_namespace
        {
            let message = "no provider is named, and the mesh has no default one: nothing is logged";
            unknown.push((&rule.origin, message.to_owned()));
        }
    }
    for rule in &telemetry.tracing {
        let wrong = rule.provider.iter().find(|name| !is_tracer(name));
        unknown.extend(wrong.map(|name| (&rule.origin, format!("the provider `{name}` takes no spans"))));
    }
    for (origin, message) in unknown {
        let hint = "name one of meshConfig.extensionProviders, or for logs `envoy`";
        checker.say(codes::NO_EFFECT, Severity::Warning, origin, message, hint);
    }
}

/// Whether some workload of the namespace has these labels, as far as the workloads are known.
fn selects_something(checker: &mut Checker<'_>, origin: &Origin, namespace: &str, selector: &Labels) {
    let here = checker.in_namespace(namespace);
    let known = !here.is_empty()
        && !checker.loaded.broken.iter().any(|b| {
            matches!(
                &*b.kind,
                "Deployment" | "StatefulSet" | "LocalWorkload" | "Compose"
            )
        });
    if known && !here.iter().any(|d| d.labels.matches(selector)) {
        checker.say(
            codes::SELECTOR_EMPTY,
            Severity::Warning,
            &field(origin, "spec.selector"),
            format!("the policy selects no workload of the namespace `{namespace}`"),
            "compare its labels with those of the pods",
        );
    }
}

/// Of several that hold for a whole namespace the oldest counts.
fn check_telemetries(checker: &mut Checker<'_>) {
    let mut wide: BTreeMap<&str, &Telemetry> = BTreeMap::new();
    let loaded = checker.loaded;
    for telemetry in &loaded.telemetries {
        check_providers(checker, telemetry);
    }
    for telemetry in loaded.telemetries.iter().filter(|one| one.selector.is_none()) {
        let Some(first) = wide.get(&*telemetry.namespace) else {
            wide.insert(&telemetry.namespace, telemetry);
            continue;
        };
        checker.say(
            codes::POLICY_IGNORED,
            Severity::Warning,
            &telemetry.origin,
            format!(
                "this object is not used: {} ({}:{}) comes first in the namespace `{}`",
                first.origin.object, first.origin.source, first.origin.line, telemetry.namespace
            ),
            "keep one Telemetry without a selector in each namespace",
        );
    }
}
