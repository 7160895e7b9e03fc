//! Which policies hold for a workload: those of the root namespace and of its own whose selector takes it. All of them together;
//! none comes before another.
//!
//! Source: Istio `AuthorizationPolicies.ListAuthorizationPolicies`.

use std::sync::Arc;

use rajut_types::{Labels, Text};

use super::Shared;
use crate::model::{AuthorizationPolicy, RateLimitPolicy, RequestAuthentication};

/// A policy of a workload's inbound side.
pub(super) trait Policy {
    /// Its namespace and its selector.
    fn scope(&self) -> (&Text, Option<&Labels>);
}

impl Policy for AuthorizationPolicy {
    fn scope(&self) -> (&Text, Option<&Labels>) {
        (&self.namespace, self.selector.as_ref())
    }
}

impl Policy for RateLimitPolicy {
    fn scope(&self) -> (&Text, Option<&Labels>) {
        (&self.namespace, self.selector.as_ref())
    }
}

impl Policy for RequestAuthentication {
    fn scope(&self) -> (&Text, Option<&Labels>) {
        (&self.namespace, self.selector.as_ref())
    }
}

/// Whether a policy holds for a workload.
pub(super) fn holds(policy: &impl Policy, root_namespace: &str, namespace: &str, labels: &Labels) -> bool {
    let (of, selector) = policy.scope();
    (**of == *root_namespace || **of == *namespace)
        && selector.is_none_or(|selector| labels.matches(selector))
}

/// The policies that hold for a workload, in their order.
pub(super) fn of<P: Policy>(
    sorted: &[Arc<P>],
    root_namespace: &str,
    namespace: &str,
    labels: &Labels,
) -> Vec<Shared<P>> {
    let holding = sorted
        .iter()
        .filter(|policy| holds(&***policy, root_namespace, namespace, labels));
    holding.map(Shared::from).collect()
}

#[cfg(test)]
mod tests {
    use rajut_types::{ObjectRef, Origin};

    use super::*;
    use crate::model::AuthorizationAction;

    fn policy(namespace: &str, name: &str, selector: Option<&str>) -> Arc<AuthorizationPolicy> {
        Arc::new(AuthorizationPolicy {
            name: name.into(),
            namespace: namespace.into(),
            selector: selector.map(|app| [("app", app)].into_iter().collect()),
            action: AuthorizationAction::Allow,
            provider: None,
            dry_run: false,
            closes_open: false,
            rules: Vec::new(),
            origin: Origin::new("t.yaml", ObjectRef::new("AuthorizationPolicy", namespace, name)),
            age: 0,
        })
    }

    #[test]
    fn policies_of_the_mesh_the_namespace_and_the_workload_hold_together() {
        let all = [
            policy("istio-system", "mesh", None),
            policy("istio-system", "mesh-web", Some("web")),
            policy("a", "a", None),
            policy("a", "a-web", Some("web")),
            policy("b", "b", None),
        ];
        let found = |namespace: &str, app: &str| -> Vec<String> {
            let labels = [("app", app)].into_iter().collect();
            of(&all, "istio-system", namespace, &labels)
                .iter()
                .map(|policy| policy.name.to_string())
                .collect()
        };
        assert_eq!(found("a", "web"), ["mesh", "mesh-web", "a", "a-web"]);
        assert_eq!(found("a", "db"), ["mesh", "a"]);
        assert_eq!(found("b", "web"), ["mesh", "mesh-web", "b"]);
        assert_eq!(found("istio-system", "db"), ["mesh"]);
    }
}
