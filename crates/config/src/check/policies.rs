//! Peer authentications and telemetries that are not used.

use std::collections::BTreeMap;

use rajut_types::Severity;

use super::{Checker, field};
use crate::{
    codes,
    model::{PeerAuthentication, Telemetry},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    check_telemetries(checker);
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
        let here = checker.in_namespace(&policy.namespace);
        let known = !here.is_empty()
            && !loaded.broken.iter().any(|b| {
                matches!(
                    &*b.kind,
                    "Deployment" | "StatefulSet" | "LocalWorkload" | "Compose"
                )
            });
        if known && !here.iter().any(|d| d.labels.matches(selector)) {
            checker.say(
                codes::SELECTOR_EMPTY,
                Severity::Warning,
                &field(&policy.origin, "spec.selector"),
                format!(
                    "the policy selects no workload of the namespace `{}`",
                    policy.namespace
                ),
                "compare its labels with those of the pods",
            );
        }
    }
}

/// Of several that hold for a whole namespace the oldest counts.
fn check_telemetries(checker: &mut Checker<'_>) {
    let mut wide: BTreeMap<&str, &Telemetry> = BTreeMap::new();
    let loaded = checker.loaded;
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
