use std::{sync::Arc, time::Duration};

use rajut_config::{key_set::NO_KEYS, model::*, snapshot::Configuration};
use rajut_ir::{
    filter::HttpFilterKind,
    jwt::{JwtAuthn, Requirement},
    listener::{ChainAction, Direction, FilterChain},
    rbac::{Action, Principal, Rbac, Rule},
};
use rajut_types::Text;

use super::fixtures::*;
use crate::Role;

fn rule(issuer: &str, keys: KeySource) -> JwtRule {
    JwtRule {
        issuer: issuer.into(),
        audiences: Vec::new(),
        keys,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload: None,
        forward: false,
        output_claims: Vec::new(),
        timeout: Duration::from_secs(5),
        space_delimited: Vec::new(),
        origin: origin("RequestAuthentication", "clinic", "tokens"),
    }
}

fn url() -> KeySource {
    KeySource::Url("https://login/keys".into())
}

fn configuration(rules: Vec<JwtRule>, when: Option<AuthorizationAction>) -> Configuration {
    let asks = |action| AuthorizationPolicy {
        name: "asks".into(),
        namespace: "clinic".into(),
        selector: None,
        action,
        provider: None,
        dry_run: false,
        closes_open: false,
        rules: vec![AuthorizationRule {
            sources: vec![AuthorizationSource {
                request_principals: Values {
                    any: vec![Wild::Exact("https://a/b".into())],
                    none: Vec::new(),
                },
                ..AuthorizationSource::default()
            }],
            ..AuthorizationRule::default()
        }],
        origin: origin("AuthorizationPolicy", "clinic", "asks"),
        age: 0,
    };
    Configuration {
        services: vec![service("web", 1, 80, Protocol::Detect)],
        request_authentications: vec![RequestAuthentication {
            name: "tokens".into(),
            namespace: "clinic".into(),
            selector: None,
            rules,
            origin: origin("RequestAuthentication", "clinic", "tokens"),
            age: 0,
        }],
        authorization_policies: when.map(asks).into_iter().collect(),
        ..Configuration::default()
    }
}

/// The inbound chains of `web`.
fn chains(configuration: Configuration, keys: &[(KeySource, &str)], role: Role) -> Vec<Arc<FilterChain>> {
    let keys = keys.iter().map(|(from, keys)| (from.clone(), Text::from(*keys)));
    let snapshot = snapshot(configuration, vec![workload("web", 1, "v1")]).with_key_sets(keys.collect());
    let mut proxy = proxy(
        "web",
        if role == Role::Grpc {
            explicit(&[])
        } else {
            netns()
        },
    );
    proxy.role = role;
    let found = resources(&snapshot, &proxy);
    let inbound = found
        .listeners
        .values()
        .filter(|own| own.direction == Direction::Inbound);
    inbound.flat_map(|own| own.filter_chains.clone()).collect()
}

/// What the HTTP chains verify: all of them the same, before everything else.
fn verified(rules: Vec<JwtRule>, keys: &[(KeySource, &str)]) -> Arc<JwtAuthn> {
    let all = chains(
        configuration(rules, Some(AuthorizationAction::Deny)),
        keys,
        Role::Sidecar,
    );
    let mut found: Vec<Arc<JwtAuthn>> = Vec::new();
    for chain in &all {
        if let ChainAction::Http(manager) = &chain.action {
            let HttpFilterKind::JwtAuthn(first) = &manager.filters[0].kind else {
                panic!("{}: {:?}", chain.name, manager.filters[0].kind);
            };
            assert!(matches!(manager.filters[1].kind, HttpFilterKind::Rbac(_)));
            found.push(first.clone());
        }
    }
    found.dedup();
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn one_issuer_is_optional_and_of_several_one_or_all_that_are_there() {
    let one = verified(vec![rule("a", url())], &[]);
    let of = |at: usize| Requirement::Provider(format!("origins-{at}").into());
    let optional = |at| Requirement::Any(vec![of(at), Requirement::AllowMissing]);
    assert_eq!(one.requirement, Some(optional(0)));
    assert!(one.bypass_cors_preflight);
    let two = verified(vec![rule("a", url()), rule("b", url())], &[]);
    let all = Requirement::All(vec![optional(0), optional(1)]);
    assert_eq!(two.requirement, Some(Requirement::Any(vec![of(0), of(1), all])));
    let issuers: Vec<_> = two.providers.values().map(|it| &*it.issuer).collect();
    assert_eq!(issuers, ["a", "b"]);
}

#[test]
fn keys_are_told_in_place_and_without_any_every_token_fails() {
    let keys = |source: KeySource, known: &[(KeySource, &str)]| {
        let jwt = verified(vec![rule("a", source)], known);
        jwt.providers["origins-0"].jwks.to_string()
    };
    assert_eq!(keys(KeySource::Inline("mine".into()), &[]), "mine");
    assert_eq!(keys(url(), &[(url(), "fetched")]), "fetched");
    assert_eq!(
        keys(url(), &[(KeySource::Url("https://else".into()), "fetched")]),
        NO_KEYS
    );
}

#[test]
fn every_provider_strips_the_headers_of_all() {
    let telling = |issuer: &str, header: &str| JwtRule {
        output_claims: vec![(header.into(), "sub".into())],
        output_payload: Some("x-payload".into()),
        ..rule(issuer, url())
    };
    let jwt = verified(vec![telling("a", "x-a"), telling("b", "x-b")], &[]);
    for provider in jwt.providers.values() {
        let mut told: Vec<_> = provider.told_in().map(|it| &**it).collect();
        told.sort_unstable();
        assert_eq!(told, ["x-a", "x-b", "x-payload"]);
        let real = provider
            .claim_headers
            .iter()
            .filter(|(_, claim)| &**claim == "sub");
        assert_eq!(real.count(), 1);
    }
}

#[test]
fn where_there_are_no_tokens_a_rule_that_asks_for_one_refuses_rather_more() {
    let enforced = |chain: &FilterChain| -> Vec<Arc<Rbac>> {
        match &chain.action {
            ChainAction::Tcp(_) => chain.rbac.clone(),
            ChainAction::Http(manager) => {
                let filters = manager.filters.iter().filter_map(|filter| match &filter.kind {
                    HttpFilterKind::Rbac(rbac) => Some(rbac.clone()),
                    _ => None,
                });
                filters.collect()
            }
        }
    };
    for role in [Role::Sidecar, Role::Grpc] {
        for action in [AuthorizationAction::Allow, AuthorizationAction::Deny] {
            let all = chains(configuration(vec![rule("a", url())], Some(action)), &[], role);
            assert!(!all.is_empty());
            for chain in &all {
                let knows = role == Role::Sidecar && matches!(chain.action, ChainAction::Http(_));
                let [rbac] = &enforced(chain)[..] else {
                    panic!("{}", chain.name);
                };
                let rules = rbac.rules.as_ref().expect("enforced");
                let principals = rules.policies().first().map(|(_, policy)| &policy.principals[..]);
                match (knows, rules.action(), principals) {
                    // `https:` and `/a/b`, … : three ways to part it.
                    (true, _, Some([Rule::Or(ways)])) => {
                        assert_eq!(ways.len(), 3);
                        let Rule::And(parts) = &ways[2] else {
                            panic!("{ways:#?}")
                        };
                        assert!(parts.iter().all(|it| matches!(it, Rule::Is(Principal::Claim(_)))));
                    }
                    (false, Action::Allow, None) | (false, Action::Deny, Some([Rule::Any])) => {}
                    other => panic!("{} {other:#?}", chain.name),
                }
            }
        }
    }
}

#[test]
fn without_objects_nothing_is_verified() {
    let mut none = configuration(Vec::new(), None);
    none.request_authentications.clear();
    for chain in chains(none, &[], Role::Sidecar) {
        if let ChainAction::Http(manager) = &chain.action {
            assert!(
                !manager
                    .filters
                    .iter()
                    .any(|it| matches!(it.kind, HttpFilterKind::JwtAuthn(_)))
            );
        }
    }
}
