//! Destination rules: merged inside a namespace, looked up for a client.
//!
//! Source: Istio `DestinationRule` lookup and merge (`push_context.go`, `destination_rule.go`). Nothing merges across
//! namespaces; wildcard and exact hosts never merge.

use std::{collections::BTreeMap, sync::Arc};

use rajut_types::{Hostname, Labels, Text};

use crate::model::{DestinationRule, Sidecar, TrafficPolicy};

/// The merged rules of a mesh. One entry per namespace and host; as many rules in it as differ in exports or selector.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    exact: BTreeMap<Text, BTreeMap<Hostname, Vec<Arc<DestinationRule>>>>,
    /// Longest host first.
    wildcard: BTreeMap<Text, Vec<HostRules>>,
}

/// A host and its rules.
type HostRules = (Hostname, Vec<Arc<DestinationRule>>);

/// Who asks: a client's namespace and labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a Labels,
    pub(super) root_namespace: &'a str,
    /// What limits its sight.
    pub(super) sidecar: Option<&'a Sidecar>,
}

impl Rules {
    /// From rules sorted by age; a merged rule equal to one of `previous` is that very allocation.
    pub(super) fn new(sorted: &[Arc<DestinationRule>], previous: &Self) -> Self {
        let mut exact: BTreeMap<Text, BTreeMap<Hostname, Vec<Arc<DestinationRule>>>> = BTreeMap::new();
        for rule in sorted {
            let same_host = exact
                .entry(rule.namespace.clone())
                .or_default()
                .entry(rule.host.clone())
                .or_default();
            let partner = same_host.iter_mut().find(|other| {
                other.export_to == rule.export_to && other.workload_selector == rule.workload_selector
            });
            match partner {
                Some(older) => *older = Arc::new(merge(older, rule)),
                None => same_host.push(Arc::clone(rule)),
            }
        }
        for (namespace, hosts) in &mut exact {
            for (host, rules) in hosts {
                for rule in rules {
                    if let Some(kept) = previous
                        .rules(namespace, host)
                        .iter()
                        .find(|kept| **kept == *rule)
                    {
                        *rule = Arc::clone(kept);
                    }
                }
            }
        }
        let mut wildcard = BTreeMap::new();
        for (namespace, hosts) in &exact {
            let mut wild: Vec<_> = hosts
                .iter()
                .filter(|(host, _)| host.is_wildcard())
                .map(|(host, rules)| (host.clone(), rules.clone()))
                .collect();
            wild.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
            if !wild.is_empty() {
                wildcard.insert(namespace.clone(), wild);
            }
        }
        Self { exact, wildcard }
    }

    fn rules(&self, namespace: &str, host: &Hostname) -> &[Arc<DestinationRule>] {
        self.exact
            .get(namespace)
            .and_then(|hosts| hosts.get(host))
            .map_or(&[], Vec::as_slice)
    }

    /// The rule for a client's traffic to a host of a service's namespace: the first namespace that has one wins.
    pub(super) fn find(
        &self,
        client: Client<'_>,
        host: &Hostname,
        service_namespace: &str,
    ) -> Option<&Arc<DestinationRule>> {
        if client.namespace != client.root_namespace
            && let Some(rule) = self.find_in(client.namespace, client, host, false)
        {
            return Some(rule);
        }
        self.find_in(service_namespace, client, host, true)
            .or_else(|| self.find_in(client.root_namespace, client, host, true))
    }

    /// The rule of one namespace: the most specific host, and for one host a rule that selects the client first.
    fn find_in(
        &self,
        namespace: &str,
        client: Client<'_>,
        host: &Hostname,
        exported_only: bool,
    ) -> Option<&Arc<DestinationRule>> {
        let applies = |rule: &&Arc<DestinationRule>| {
            (!exported_only || rule.export_to.includes(client.namespace))
                && rule.workload_selector.as_ref().is_none_or(|selector| {
                    *rule.namespace == *client.namespace && client.labels.matches(selector)
                })
        };
        let best = |rules: &'_ [Arc<DestinationRule>]| {
            rules
                .iter()
                .position(|rule| rule.workload_selector.is_some() && applies(&rule))
                .or_else(|| rules.iter().position(|rule| applies(&rule)))
        };
        let exact = self.rules(namespace, host);
        if let Some(position) = best(exact) {
            return exact.get(position);
        }
        self.wildcard
            .get(namespace)?
            .iter()
            .filter(|(pattern, _)| pattern.covers(host))
            .find_map(|(_, rules)| rules.get(best(rules)?))
    }
}

/// Subsets are concatenated, the first definition of a name wins; the older policy wins wholly unless it is empty.
fn merge(older: &DestinationRule, newer: &DestinationRule) -> DestinationRule {
    let mut merged = older.clone();
    if merged.policy == TrafficPolicy::default() {
        merged.policy = newer.policy.clone();
    }
    if merged.health_check.is_none() {
        merged.health_check.clone_from(&newer.health_check);
    }
    for subset in &newer.subsets {
        if merged.subsets.iter().all(|known| known.name != subset.name) {
            merged.subsets.push(subset.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use rajut_types::{ObjectRef, Origin};

    use super::*;
    use crate::model::{ConnectionPool, SubsetRule, Visibility};

    fn rule(
        namespace: &str,
        name: &str,
        host: &str,
        limit: Option<u32>,
        subsets: &[&str],
    ) -> DestinationRule {
        let origin = Origin::new("t.yaml", ObjectRef::new("DestinationRule", namespace, name));
        DestinationRule {
            name: name.into(),
            namespace: namespace.into(),
            host: host.parse().expect("valid"),
            policy: TrafficPolicy {
                connection_pool: limit.map(|limit| ConnectionPool {
                    max_connections: Some(limit),
                    ..ConnectionPool::default()
                }),
                ..TrafficPolicy::default()
            },
            subsets: subsets
                .iter()
                .map(|subset| SubsetRule {
                    name: (*subset).into(),
                    labels: [("version", name)].into_iter().collect(),
                    policy: TrafficPolicy::default(),
                    origin: origin.clone(),
                })
                .collect(),
            health_check: None,
            export_to: Visibility::All,
            workload_selector: None,
            origin,
            age: 0,
        }
    }

    fn rules(list: Vec<DestinationRule>) -> Rules {
        Rules::new(
            &list.into_iter().map(Arc::new).collect::<Vec<_>>(),
            &Rules::default(),
        )
    }

    fn find<'a>(rules: &'a Rules, namespace: &str, host: &str) -> Option<&'a DestinationRule> {
        let client = Client {
            namespace,
            labels: &Labels::default(),
            root_namespace: "root",
            sidecar: None,
        };
        rules
            .find(client, &host.parse().expect("valid"), "server")
            .map(|rule| &**rule)
    }

    #[test]
    fn client_then_service_then_root_namespace_and_nothing_merges_across() {
        let all = rules(vec![
            rule("root", "r", "h.x", Some(1), &["root"]),
            rule("server", "s", "h.x", None, &["v1"]),
            rule("client", "c", "h.x", Some(3), &[]),
        ]);
        assert_eq!(find(&all, "client", "h.x").map(|r| &*r.name), Some("c"));
        assert_eq!(find(&all, "other", "h.x").map(|r| &*r.name), Some("s"));
        assert_eq!(
            find(&all, "other", "h.x").map(|r| r.policy.connection_pool.is_some()),
            Some(false)
        );
        let only_root = rules(vec![rule("root", "r", "*.x", Some(1), &[])]);
        assert_eq!(find(&only_root, "other", "h.x").map(|r| &*r.name), Some("r"));
    }

    #[test]
    fn a_hidden_rule_of_the_service_is_not_found_but_one_of_the_client_is() {
        let mut hidden = rule("server", "s", "h.x", Some(1), &[]);
        hidden.export_to = Visibility::Namespaces(vec!["server".into()]);
        let mut own = rule("client", "c", "h.x", Some(1), &[]);
        own.export_to = Visibility::Nobody;
        let all = rules(vec![hidden, own]);
        assert!(find(&all, "other", "h.x").is_none());
        assert_eq!(find(&all, "client", "h.x").map(|r| &*r.name), Some("c"));
    }

    #[test]
    fn one_host_in_one_namespace_merges_subsets_and_keeps_the_oldest_policy() {
        let all = rules(vec![
            rule("server", "a", "h.x", None, &["v1"]),
            rule("server", "b", "h.x", Some(7), &["v1", "v2"]),
            rule("server", "c", "h.x", Some(9), &[]),
            rule("server", "w", "*.x", Some(1), &["v3"]),
        ]);
        let found = find(&all, "client", "h.x").expect("a rule");
        let names: Vec<_> = found.subsets.iter().map(|subset| &*subset.name).collect();
        assert_eq!(names, ["v1", "v2"]);
        assert_eq!(found.subsets[0].labels.find("version"), Some("a"));
        let limit = found
            .policy
            .connection_pool
            .as_ref()
            .and_then(|pool| pool.max_connections);
        assert_eq!(limit, Some(7));
    }

    #[test]
    fn the_longest_wildcard_wins_and_a_selected_rule_beats_an_unselected_one() {
        let mut selected = rule("client", "sel", "h.x", Some(1), &[]);
        selected.workload_selector = Some([("app", "me")].into_iter().collect());
        let all = rules(vec![
            rule("client", "star", "*", Some(1), &[]),
            rule("client", "long", "*.b.x", Some(1), &[]),
            rule("client", "plain", "h.x", Some(1), &[]),
            selected,
        ]);
        assert_eq!(find(&all, "client", "a.b.x").map(|r| &*r.name), Some("long"));
        assert_eq!(find(&all, "client", "h.x").map(|r| &*r.name), Some("plain"));
        let labels = [("app", "me")].into_iter().collect();
        let client = Client {
            namespace: "client",
            labels: &labels,
            root_namespace: "root",
            sidecar: None,
        };
        let found = all.find(client, &"h.x".parse().expect("valid"), "server");
        assert_eq!(found.map(|r| &*r.name), Some("sel"));
    }

    #[test]
    fn an_equal_merge_keeps_its_allocation() {
        let list: Vec<_> = [
            rule("s", "a", "h.x", None, &["v1"]),
            rule("s", "b", "h.x", None, &["v2"]),
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let first = Rules::new(&list, &Rules::default());
        let second = Rules::new(&list, &first);
        let host = "h.x".parse().expect("valid");
        assert!(Arc::ptr_eq(
            &first.rules("s", &host)[0],
            &second.rules("s", &host)[0]
        ));
    }
}
