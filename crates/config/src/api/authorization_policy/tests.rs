use super::*;
use crate::{Loaded, merge::LoadOptions, merge::load, model::PathPattern, parse::Source};

fn read_spec(annotations: &str, spec: &str) -> Loaded {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: web, namespace: clinic{annotations}}}\nspec:\n{spec}\n"
    );
    load(&[Source::new("p.yaml", text)], &LoadOptions::default())
}

fn policy(spec: &str) -> AuthorizationPolicy {
    let mut loaded = read_spec("", spec);
    assert_eq!(loaded.diagnostics, [], "{spec}");
    loaded.authorization_policies.remove(0)
}

/// The only finding: its place, its code and whether the policy is used.
fn found(spec: &str) -> (String, rajut_types::Code, bool) {
    let loaded = read_spec("", spec);
    let [one] = &loaded.diagnostics[..] else {
        panic!("{spec}: {:#?}", loaded.diagnostics)
    };
    (
        one.origin.field_path.to_string(),
        one.code,
        !loaded.authorization_policies.is_empty(),
    )
}

#[test]
fn values_and_their_wildcards_are_read() {
    let read = policy(
        "  action: DENY
  selector: {matchLabels: {app: web}}
  rules:
  - from:
    - source: {principals: ['*', 'a/ns/b/*', '*/sa/c', a/ns/b/sa/c], notNamespaces: [x]}
    - source: {serviceAccounts: [own, other/their], ipBlocks: [10.0.0.0/8, 192.0.2.1]}
    to: [{operation: {ports: ['80'], notPaths: ['/a/{*}/{**}', /b*]}}]
    when: [{key: 'request.headers[X-Team]', notValues: [z]}]",
    );
    assert_eq!(read.action, AuthorizationAction::Deny);
    let rule = &read.rules[0];
    assert_eq!(
        rule.sources[0].principals.any,
        [
            Wild::Present,
            Wild::Prefix("a/ns/b/".into()),
            Wild::Suffix("/sa/c".into()),
            Wild::Exact("a/ns/b/sa/c".into()),
        ]
    );
    assert_eq!(rule.sources[0].namespaces.none, [Wild::Exact("x".into())]);
    let account = |namespace: &str, name: &str| ServiceAccountName {
        namespace: namespace.into(),
        name: name.into(),
    };
    assert_eq!(
        rule.sources[1].service_accounts.any,
        [account("clinic", "own"), account("other", "their")]
    );
    assert_eq!(rule.sources[1].ip_blocks.any[1].to_string(), "192.0.2.1/32");
    assert_eq!(rule.operations[0].ports.any, [80]);
    assert_eq!(
        rule.operations[0].paths.none,
        [
            PathPattern::Template("/a/{*}/{**}".into()),
            PathPattern::Wild(Wild::Prefix("/b".into())),
        ]
    );
    let AuthorizationCondition::Header(name, values) = &rule.conditions[0] else {
        panic!("{rule:?}")
    };
    assert_eq!((&**name, values.none.len()), ("x-team", 1));
}

#[test]
fn absent_rules_and_an_empty_rule_differ() {
    assert_eq!(policy("  action: ALLOW").rules, []);
    let empty = AuthorizationRule {
        line: 5,
        ..AuthorizationRule::default()
    };
    assert_eq!(policy("  rules: [{}]").rules, [empty]);
}

#[test]
fn a_rehearsal_is_told_by_its_annotation() {
    let rehearsal = |action: &str| {
        let loaded = read_spec(
            ", annotations: {istio.io/dry-run: \"true\"}",
            &format!("  action: {action}"),
        );
        (loaded.authorization_policies[0].dry_run, loaded.diagnostics.len())
    };
    assert_eq!(rehearsal("DENY"), (true, 0));
    assert_eq!(rehearsal("AUDIT"), (false, 1));
    let loaded = read_spec(
        ", annotations: {istio.io/dry-run: \"true\"}",
        "  action: CUSTOM\n  provider: {name: x}",
    );
    assert!(!loaded.authorization_policies[0].dry_run);
    assert_eq!(loaded.diagnostics[0].code, codes::NO_EFFECT);
}

#[test]
fn a_policy_says_whom_to_ask() {
    let read = policy("  action: CUSTOM\n  provider: {name: x}\n  rules: [{}]");
    let (action, provider) = (read.action, read.provider.as_deref());
    assert_eq!((action, provider), (AuthorizationAction::Custom, Some("x")));
}

#[test]
fn what_is_open_ends_only_where_a_policy_that_refuses_asks_for_it() {
    let closes = |value: &str, spec: &str| {
        let annotation = format!(", annotations: {{mesh.rajut.dev/close-open: \"{value}\"}}");
        let loaded = read_spec(&annotation, spec);
        (
            loaded.authorization_policies[0].closes_open,
            loaded.diagnostics.len(),
        )
    };
    assert_eq!(closes("true", "  action: DENY"), (true, 0));
    assert_eq!(closes("true", "  rules: [{}]"), (true, 0));
    assert_eq!(closes("false", "  action: DENY"), (false, 0));
    assert_eq!(closes("yes", "  action: DENY"), (false, 1));
    assert_eq!(closes("true", "  action: AUDIT"), (false, 1));
}

/// A policy that is not understood as a whole is not used: part of it could allow more, or refuse less, than was meant.
#[test]
fn what_can_not_be_followed_is_an_error_at_its_place() {
    for (spec, place, code) in [
        ("  action: CUSTOM", "spec", codes::MISSING_FIELD),
        (
            "  action: CUSTOM\n  provider: {}",
            "spec.provider",
            codes::MISSING_FIELD,
        ),
        ("  provider: {name: x}", "spec.provider", codes::EXCLUSIVE),
        (
            "  targetRefs: [{kind: Service}]",
            "spec.targetRefs",
            codes::NOT_SUPPORTED,
        ),
        (
            "  rules: [{from: []}]",
            "spec.rules[0].from",
            codes::MISSING_FIELD,
        ),
        (
            "  rules: [{from: [{source: {}}]}]",
            "spec.rules[0].from[0].source",
            codes::MISSING_FIELD,
        ),
        (
            "  rules: [{from: [{source: {requestPrincipals: ['*a*']}}]}]",
            "spec.rules[0].from[0].source.requestPrincipals[0]",
            codes::BAD_PATTERN,
        ),
        (
            "  rules: [{from: [{source: {principals: []}}]}]",
            "spec.rules[0].from[0].source.principals",
            codes::MISSING_FIELD,
        ),
        (
            "  rules: [{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}]",
            "spec.rules[0].from[0].source.principals[0]",
            codes::BAD_PATTERN,
        ),
        (
            "  rules: [{from: [{source: {serviceAccounts: ['a/*']}}]}]",
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            codes::BAD_NAME,
        ),
        (
            "  rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]",
            "spec.rules[0].from[0].source.serviceAccounts",
            codes::EXCLUSIVE,
        ),
        (
            "  rules: [{to: [{operation: {ports: ['0']}}]}]",
            "spec.rules[0].to[0].operation.ports[0]",
            codes::OUT_OF_RANGE,
        ),
        (
            "  rules: [{to: [{operation: {paths: ['*/a/*']}}]}]",
            "spec.rules[0].to[0].operation.paths[0]",
            codes::BAD_PATTERN,
        ),
        (
            "  rules: [{to: [{operation: {paths: ['/{**}/a']}}]}]",
            "spec.rules[0].to[0].operation.paths[0]",
            codes::BAD_PATTERN,
        ),
        (
            "  rules: [{to: [{operation: {requestPrincipals: [a], methods: [GET]}}]}]",
            "spec.rules[0].to[0].operation.requestPrincipals",
            codes::UNKNOWN_FIELD,
        ),
        (
            "  rules: [{when: [{key: source.ip}]}]",
            "spec.rules[0].when[0]",
            codes::MISSING_FIELD,
        ),
        (
            "  rules: [{when: [{key: 'request.auth.claims[a][]', values: [b]}]}]",
            "spec.rules[0].when[0].key",
            codes::UNKNOWN_VALUE,
        ),
        (
            "  rules: [{when: [{key: request.auth.claims, values: [b]}]}]",
            "spec.rules[0].when[0].key",
            codes::UNKNOWN_VALUE,
        ),
        (
            "  rules: [{when: [{key: 'request.auth.claims[a]x[b]', values: [b]}]}]",
            "spec.rules[0].when[0].key",
            codes::UNKNOWN_VALUE,
        ),
        (
            "  rules: [{when: [{key: request.auth.subject, values: [b]}]}]",
            "spec.rules[0].when[0].key",
            codes::UNKNOWN_VALUE,
        ),
        (
            "  rules: [{when: [{key: 'experimental.envoy.filters.a.b[c]', values: [b]}]}]",
            "spec.rules[0].when[0].key",
            codes::NOT_SUPPORTED,
        ),
        (
            "  rules: [{when: [{key: source.namespaces, values: [b]}]}]",
            "spec.rules[0].when[0].key",
            codes::UNKNOWN_VALUE,
        ),
    ] {
        let (at, found, used) = found(spec);
        assert!(!used, "{spec}");
        assert_eq!((&*at, found), (place, code), "{spec}");
    }
}
