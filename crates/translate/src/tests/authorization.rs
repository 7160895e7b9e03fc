use std::sync::Arc;

use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    filter::{HttpFilterKind, RBAC},
    listener::{ChainAction, Direction, FilterChain, Listener},
    matcher::StringMatch,
    rbac::{Action, Permission, Policy, Principal, Rbac, Rule},
};
use rajut_types::TrustDomain;

use super::fixtures::*;
use crate::{Capture, Role};

fn policy(name: &str, action: AuthorizationAction, rules: Vec<AuthorizationRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: name.into(),
        namespace: "clinic".into(),
        selector: None,
        action,
        provider: None,
        dry_run: false,
        closes_open: false,
        rules,
        origin: origin("AuthorizationPolicy", "clinic", name),
        age: 0,
    }
}

fn only<T>(value: T) -> Values<T> {
    Values {
        any: vec![value],
        none: Vec::new(),
    }
}

fn exact(text: &str) -> Values<Wild> {
    only(Wild::Exact(text.into()))
}

fn to(operation: AuthorizationOperation) -> AuthorizationRule {
    AuthorizationRule {
        operations: vec![operation],
        ..AuthorizationRule::default()
    }
}

fn method(name: &str) -> AuthorizationOperation {
    AuthorizationOperation {
        methods: exact(name),
        ..AuthorizationOperation::default()
    }
}

fn port(number: u16) -> AuthorizationOperation {
    AuthorizationOperation {
        ports: only(number),
        ..AuthorizationOperation::default()
    }
}

fn from(source: AuthorizationSource) -> AuthorizationRule {
    AuthorizationRule {
        sources: vec![source],
        ..AuthorizationRule::default()
    }
}

/// The listeners of the workload `web`, whose port 80 leads to 8080, under these policies.
fn listeners(
    capture: Capture,
    role: Role,
    protocol: Protocol,
    mesh: MeshConfig,
    policies: Vec<AuthorizationPolicy>,
) -> Vec<Arc<Listener>> {
    let configuration = Configuration {
        mesh,
        services: vec![service("web", 1, 80, protocol)],
        authorization_policies: policies,
        ..Configuration::default()
    };
    let mut proxy = proxy("web", capture);
    proxy.role = role;
    let found = resources(&snapshot(configuration, vec![workload("web", 1, "v1")]), &proxy);
    found.listeners.values().cloned().collect()
}

fn chains(listener: &Listener) -> impl Iterator<Item = &Arc<FilterChain>> {
    listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain)
}

/// What a chain enforces, in order.
fn enforced(chain: &FilterChain) -> Vec<Arc<Rbac>> {
    match &chain.action {
        ChainAction::Tcp(_) => chain.rbac.clone(),
        ChainAction::Http(manager) => {
            let found = manager.filters.iter().map_while(|filter| match &filter.kind {
                HttpFilterKind::Rbac(rbac) => Some(rbac.clone()),
                _ => None,
            });
            found.collect()
        }
    }
}

/// What the HTTP chains or the TCP chains of the port 8080 enforce: all of them the same.
fn at_port(protocol: Protocol, mesh: MeshConfig, policies: Vec<AuthorizationPolicy>) -> Vec<Arc<Rbac>> {
    let own = listeners(netns(), Role::Sidecar, protocol, mesh, policies);
    let inbound = own.iter().filter(|own| own.direction == Direction::Inbound);
    let mut found: Vec<_> = inbound
        .flat_map(|own| chains(own).map(|chain| enforced(chain)))
        .collect();
    found.dedup();
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn policies(rbac: &Rbac) -> Vec<(String, Policy)> {
    let rules = rbac.rules.as_ref().expect("enforced rules");
    let all = rules.policies().iter();
    all.map(|(name, policy)| (name.to_string(), policy.clone()))
        .collect()
}

#[test]
fn every_way_into_a_workload_is_guarded_and_no_way_out() {
    let nobody = || vec![policy("nobody", AuthorizationAction::Allow, vec![])];
    for protocol in [Protocol::Http, Protocol::Tcp, Protocol::Detect] {
        for capture in [netns(), explicit(&[("web", 80)]), Capture::Redirect] {
            let own = listeners(capture, Role::Sidecar, protocol, MeshConfig::default(), nobody());
            let mut guarded = 0;
            for listener in &own {
                for chain in chains(listener) {
                    let found = enforced(chain);
                    let black_hole = chain.name.ends_with("-blackhole");
                    if listener.direction == Direction::Inbound && !black_hole {
                        let [only] = &found[..] else {
                            panic!("{} {}: {found:#?}", listener.name, chain.name)
                        };
                        let rules = only.rules.as_ref().expect("enforced");
                        assert_eq!(rules.action(), Action::Allow);
                        assert!(rules.policies().is_empty());
                        guarded += 1;
                    } else {
                        assert!(found.is_empty(), "{} {}", listener.name, chain.name);
                    }
                }
            }
            assert!(guarded > 0, "{protocol:?}");
        }
    }
    let own = listeners(
        Capture::Redirect,
        Role::Grpc,
        Protocol::Grpc,
        MeshConfig::default(),
        nobody(),
    );
    let servers: Vec<_> = own
        .iter()
        .filter(|own| own.direction == Direction::Inbound)
        .collect();
    assert!(!servers.is_empty());
    for server in servers {
        assert!(
            chains(server).all(|chain| enforced(chain).len() == 1),
            "{}",
            server.name
        );
    }
}

#[test]
fn actions_stand_in_the_order_in_which_they_decide_under_names_of_their_own() {
    let rules = || vec![AuthorizationRule::default()];
    let all = vec![
        policy("c", AuthorizationAction::Allow, rules()),
        policy("b", AuthorizationAction::Deny, rules()),
        policy("a", AuthorizationAction::Audit, rules()),
        // Nothing that could be refused or noted.
        policy("d", AuthorizationAction::Deny, vec![]),
    ];
    let found = at_port(Protocol::Http, MeshConfig::default(), all.clone());
    let actions: Vec<_> = found
        .iter()
        .map(|rbac| rbac.rules.as_ref().expect("enforced").action())
        .collect();
    assert_eq!(actions, [Action::Log, Action::Deny, Action::Allow]);
    assert_eq!(policies(&found[1])[0].0, "ns[clinic]-policy[b]-rule[0]");
    let own = listeners(netns(), Role::Sidecar, Protocol::Http, MeshConfig::default(), all);
    let inbound = own
        .iter()
        .find(|own| own.direction == Direction::Inbound)
        .expect("inbound");
    let ChainAction::Http(manager) = &inbound.filter_chains[0].action else {
        panic!("not HTTP")
    };
    let names: std::collections::BTreeSet<_> = manager.filters.iter().map(|filter| &filter.name).collect();
    assert_eq!(
        names.len(),
        manager.filters.len(),
        "a route may name each: {names:?}"
    );
    assert!(!names.iter().any(|name| &***name == RBAC));
}

#[test]
fn a_rehearsal_stands_beside_what_is_enforced() {
    let mut rehearsal = policy(
        "rehearsal",
        AuthorizationAction::Deny,
        vec![AuthorizationRule::default()],
    );
    rehearsal.dry_run = true;
    let found = at_port(Protocol::Http, MeshConfig::default(), vec![rehearsal]);
    assert_eq!(found.len(), 1);
    assert!(found[0].rules.is_none());
    assert_eq!(&*found[0].shadow_stat_prefix, "istio_dry_run_deny_");
    assert_eq!(found[0].shadow.as_ref().expect("a rehearsal").policies().len(), 1);
}

#[test]
fn ports_are_the_workloads_and_known_beforehand() {
    let allow = |numbers: &[u16]| {
        let rules = numbers.iter().map(|number| to(port(*number))).collect();
        at_port(
            Protocol::Http,
            MeshConfig::default(),
            vec![policy("ports", AuthorizationAction::Allow, rules)],
        )
    };
    let found = allow(&[80, 8080]);
    let [(name, only)] = &policies(&found[0])[..] else {
        panic!("{found:#?}")
    };
    assert_eq!(name, "ns[clinic]-policy[ports]-rule[1]");
    assert_eq!(only.permissions, [Rule::Any]);
    assert!(policies(&allow(&[80])[0]).is_empty(), "nothing is let through");
}

#[test]
fn bytes_know_no_methods() {
    let at = |action, rules| {
        at_port(
            Protocol::Tcp,
            MeshConfig::default(),
            vec![policy("tcp", action, rules)],
        )
    };
    // An alternative that bytes could meet does not save the rule.
    let mut rule = to(method("GET"));
    rule.operations.push(port(8080));
    let allow = at(AuthorizationAction::Allow, vec![rule, to(port(8080))]);
    let names: Vec<_> = policies(&allow[0]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ns[clinic]-policy[tcp]-rule[1]"]);
    assert_eq!(&*allow[0].stat_prefix, "tcp.");
    let deny = at(AuthorizationAction::Deny, vec![to(method("GET"))]);
    assert_eq!(policies(&deny[0])[0].1.permissions, [Rule::Any]);
    let mut narrow = to(method("GET"));
    narrow
        .conditions
        .push(AuthorizationCondition::ServerName(exact("x")));
    let deny = at(AuthorizationAction::Deny, vec![narrow]);
    assert!(matches!(
        policies(&deny[0])[0].1.permissions[..],
        [Rule::Is(Permission::ServerName(_))]
    ));
}

#[test]
fn the_meshs_own_trust_domain_stands_for_its_aliases() {
    let mesh = MeshConfig {
        trust_domain: TrustDomain::new("hospital"),
        trust_domain_aliases: vec![TrustDomain::new("old")],
        ..MeshConfig::default()
    };
    let named = |principal: &str| {
        let source = AuthorizationSource {
            principals: exact(principal),
            ..AuthorizationSource::default()
        };
        let rules = vec![from(source)];
        let found = at_port(
            Protocol::Http,
            mesh.clone(),
            vec![policy("p", AuthorizationAction::Allow, rules)],
        );
        let mut names = Vec::new();
        let mut pending = policies(&found[0]).remove(0).1.principals;
        while let Some(rule) = pending.pop() {
            match rule {
                Rule::Or(rules) => pending.extend(rules),
                Rule::Is(Principal::Authenticated(Some(matcher))) => match matcher.pattern {
                    StringMatch::Exact(text) => names.push(text.to_string()),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
        names.sort();
        names
    };
    let both = ["spiffe://hospital/ns/a/sa/b", "spiffe://old/ns/a/sa/b"];
    assert_eq!(named("hospital/ns/a/sa/b"), both);
    assert_eq!(named("old/ns/a/sa/b"), both);
    assert_eq!(named("cluster.local/ns/a/sa/b"), both);
    assert_eq!(named("elsewhere/ns/a/sa/b"), ["spiffe://elsewhere/ns/a/sa/b"]);
}
