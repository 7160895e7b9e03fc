//! Callers that authorization policies name and that are not there: most often a slip of the pen, which an `ALLOW` policy answers with 403.
//!
//! Files may be a part of something larger. So a name is judged only where its neighbours are known: a service account in a namespace
//! whose workloads are there, a namespace whose name is close to one that is there.

use std::collections::{BTreeMap, BTreeSet};

use rajut_types::Severity;

use super::{Checker, field};
use crate::{
    codes,
    model::{AuthorizationPolicy, ServiceAccountName, Wild},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    if loaded.authorization_policies.is_empty() || may_be_elsewhere(checker) {
        return;
    }
    let known = Known::new(checker);
    for policy in &loaded.authorization_policies {
        one_policy(checker, policy, &known);
    }
}

/// Whether a workload or an account was left out because of its own errors.
fn may_be_elsewhere(checker: &Checker<'_>) -> bool {
    let kinds = [
        "Deployment",
        "StatefulSet",
        "LocalWorkload",
        "Compose",
        "ServiceAccount",
        "WorkloadEntry",
        "ServiceEntry",
    ];
    let mut broken = checker.loaded.broken.iter();
    broken.any(|object| kinds.contains(&&*object.kind))
}

/// Who there is.
struct Known<'a> {
    /// namespace → its service accounts.
    accounts: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Namespaces of which the workloads are known.
    inhabited: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(checker: &Checker<'a>) -> Self {
        let loaded = checker.loaded;
        let mut accounts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let running = loaded
            .deployments
            .iter()
            .map(|it| (&*it.namespace, &*it.service_account));
        let written = loaded
            .service_accounts
            .iter()
            .map(|it| (&*it.namespace, &*it.name));
        let outside = loaded
            .workload_entries
            .iter()
            .map(|it| (&*it.namespace, &*it.endpoint.service_account));
        let given = loaded.services.iter().flat_map(|service| {
            let all = service.endpoints.iter();
            all.map(|endpoint| (&*service.namespace, &*endpoint.service_account))
        });
        for (namespace, account) in running.chain(written).chain(outside).chain(given) {
            accounts.entry(namespace).or_default().insert(account);
        }
        for namespace in &loaded.namespaces {
            accounts.entry(&namespace.name).or_default();
        }
        Self {
            accounts,
            inhabited: loaded.deployments.iter().map(|it| &*it.namespace).collect(),
        }
    }

    /// What is wrong with a service account, if anything, and what to write instead.
    fn account(&self, checker: &Checker<'_>, namespace: &str, name: &str) -> Option<(String, String)> {
        if !self.inhabited.contains(namespace) {
            return self.namespace(checker, namespace);
        }
        let here = self.accounts.get(namespace)?;
        // Gateways and the like of the mesh itself are often installed by other means.
        let own = namespace == &*checker.loaded.mesh.root_namespace;
        if here.contains(name) {
            return None;
        }
        let near = checker.nearest(name, here.iter().copied());
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if own => return None,
            None => "compare it with `serviceAccountName` of the pods".to_owned(),
        };
        let message = format!("no workload of the namespace `{namespace}` has the service account `{name}`");
        Some((message, hint))
    }

    fn namespace(&self, checker: &Checker<'_>, name: &str) -> Option<(String, String)> {
        if self.accounts.contains_key(name) {
            return None;
        }
        let near = checker.nearest(name, self.accounts.keys().copied())?;
        Some((
            format!("there is no namespace `{name}`"),
            format!("did you mean `{near}`?"),
        ))
    }
}

fn one_policy(checker: &mut Checker<'_>, policy: &AuthorizationPolicy, known: &Known<'_>) {
    let mut found = Vec::new();
    for (rule_at, rule) in policy.rules.iter().enumerate() {
        for (at, source) in rule.sources.iter().enumerate() {
            let path =
                |name: &str, value: usize| format!("spec.rules[{rule_at}].from[{at}].source.{name}[{value}]");
            let principals = [
                ("principals", &source.principals.any),
                ("notPrincipals", &source.principals.none),
            ];
            for (name, values) in principals {
                for (value, wild) in values.iter().enumerate() {
                    if let Some((namespace, account)) = identity(checker, wild) {
                        let wrong = known.account(checker, namespace, account);
                        found.extend(wrong.map(|wrong| (path(name, value), wrong)));
                    }
                }
            }
            let accounts = [
                ("serviceAccounts", &source.service_accounts.any),
                ("notServiceAccounts", &source.service_accounts.none),
            ];
            for (name, values) in accounts {
                for (
                    value,
                    ServiceAccountName {
                        namespace,
                        name: account,
                    },
                ) in values.iter().enumerate()
                {
                    let wrong = known.account(checker, namespace, account);
                    found.extend(wrong.map(|wrong| (path(name, value), wrong)));
                }
            }
            let namespaces = [
                ("namespaces", &source.namespaces.any),
                ("notNamespaces", &source.namespaces.none),
            ];
            for (name, values) in namespaces {
                for (value, wild) in values.iter().enumerate() {
                    if let Wild::Exact(namespace) = wild {
                        let wrong = known.namespace(checker, namespace);
                        found.extend(wrong.map(|wrong| (path(name, value), wrong)));
                    }
                }
            }
        }
    }
    for (path, (message, hint)) in found {
        checker.say(
            codes::CALLER_NOT_FOUND,
            Severity::Warning,
            &field(&policy.origin, path),
            message,
            hint,
        );
    }
}

/// Namespace and service account of an identity of this mesh.
fn identity<'w>(checker: &Checker<'_>, wild: &'w Wild) -> Option<(&'w str, &'w str)> {
    let Wild::Exact(text) = wild else { return None };
    let mesh = &checker.loaded.mesh;
    let (domain, rest) = text.split_once("/ns/")?;
    let mut domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let ours = domains.any(|it| it.as_str() == domain);
    let (namespace, account) = rest.split_once("/sa/")?;
    ours.then_some((namespace, account))
}
