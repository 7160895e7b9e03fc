//! Policies of the action `CUSTOM` whose provider can't be asked: what they are about is refused.

use std::collections::BTreeSet;

use rajut_types::{Severity, Text};

use super::{Checker, field, hosts};
use crate::{
    codes,
    model::{
        AuthorizationAction, AuthorizationCondition, AuthorizationPolicy, AuthorizationRule, ProviderKind,
    },
};

const REFUSED: &str = "what this policy is about is refused";

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let custom: Vec<&AuthorizationPolicy> = loaded
        .authorization_policies
        .iter()
        .filter(|policy| policy.action == AuthorizationAction::Custom)
        .collect();
    for policy in &custom {
        check_provider(checker, policy);
        if policy.rules.iter().any(asks_tokens) {
            checker.say(
                codes::NO_EFFECT,
                Severity::Warning,
                &field(&policy.origin, "spec.rules"),
                "a rule asks for what a token says: providers are asked before tokens are verified, so that it holds for no request",
                "leave it out, and let the provider judge the token",
            );
        }
    }
    check_one_each(checker, &custom);
}

fn check_provider(checker: &mut Checker<'_>, policy: &AuthorizationPolicy) {
    let Some(name) = &policy.provider else { return };
    let place = field(&policy.origin, "spec.provider.name");
    let providers = &checker.loaded.mesh.providers;
    let known = providers.iter().find(|known| known.name == *name);
    match known.map(|known| &known.kind) {
        Some(ProviderKind::ExtAuthz(authorizer)) => {
            let (host, namespace) = (authorizer.host.clone(), policy.namespace.clone());
            hosts::exists(checker, &host, &namespace, &place);
        }
        Some(_) => checker.say(
            codes::AUTHORIZER,
            Severity::Error,
            &place,
            format!("the provider `{name}` can't be asked about calls: {REFUSED}"),
            "name one with `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`",
        ),
        None => checker.say(
            codes::AUTHORIZER,
            Severity::Error,
            &place,
            format!("there is no provider `{name}`: {REFUSED}"),
            "name one of meshConfig.extensionProviders",
        ),
    }
}

/// A workload has one provider. Of the known workloads the first that has more is named for each policy.
fn check_one_each(checker: &mut Checker<'_>, custom: &[&AuthorizationPolicy]) {
    let loaded = checker.loaded;
    let root = &loaded.mesh.root_namespace;
    let mut said: BTreeSet<(Text, Text)> = BTreeSet::new();
    for workload in &loaded.deployments {
        let holding = custom.iter().filter(|policy| {
            (policy.namespace == *root || policy.namespace == workload.namespace)
                && policy
                    .selector
                    .as_ref()
                    .is_none_or(|selector| workload.labels.matches(selector))
        });
        let mut holding = holding.copied();
        let Some(first) = holding.next() else { continue };
        for other in holding.filter(|other| other.provider != first.provider) {
            let key = (other.namespace.clone(), other.name.clone());
            if !said.insert(key) {
                continue;
            }
            checker.say(
                codes::AUTHORIZER,
                Severity::Error,
                &field(&other.origin, "spec.provider.name"),
                format!(
                    "the workload `{}` has a second provider beside that of {} ({}:{}): what both policies are about is refused there",
                    workload.name, first.origin.object, first.origin.source, first.origin.line
                ),
                "let one provider judge all calls of a workload",
            );
        }
    }
}

fn asks_tokens(rule: &AuthorizationRule) -> bool {
    rule.sources
        .iter()
        .any(|source| !source.request_principals.is_empty())
        || rule.conditions.iter().any(|condition| {
            matches!(
                condition,
                AuthorizationCondition::RequestPrincipal(_) | AuthorizationCondition::Claim(..)
            )
        })
}
