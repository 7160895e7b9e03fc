use rajut_types::Code;

use super::*;
use crate::{
    Loaded,
    merge::{LoadOptions, load},
    model::PathPattern,
    parse::Source,
};

fn read_spec(spec: &str) -> Loaded {
    let text = format!(
        "apiVersion: mesh.rajut.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: records, namespace: clinic}}\n\
         spec: {spec}\n"
    );
    load(&[Source::new("p.yaml", text)], &LoadOptions::default())
}

/// The findings' places and codes, and whether the policy is used.
fn found(limit: &str) -> (Vec<(String, Code)>, bool) {
    let loaded = read_spec(&format!("{{limits: [{limit}]}}"));
    let places = loaded
        .diagnostics
        .iter()
        .map(|one| (one.origin.field_path.to_string(), one.code))
        .collect();
    (places, !loaded.rate_limit_policies.is_empty())
}

#[test]
fn all_fields_are_read_and_the_burst_is_the_number_of_requests() {
    let loaded = read_spec(
        "{selector: {matchLabels: {app: records}}, mode: SHADOW, limits: [{name: a, requests: 100, per: 1m}, {name: b, \
         requests: 10, per: 1s, burst: 3, by: [{caller: IDENTITY}, {caller: ADDRESS}, {header: X-Tenant}], match: {methods: \
         [GET], paths: ['/a*', '/b/{*}'], headers: {X-Size: '*'}}}]}",
    );
    assert_eq!(loaded.diagnostics, []);
    let [policy] = &loaded.rate_limit_policies[..] else {
        panic!("{loaded:?}")
    };
    assert!(policy.shadow && policy.selector.is_some());
    assert_eq!(
        policy.limits,
        [
            RateLimit {
                name: "a".into(),
                requests: 100,
                per: Duration::from_mins(1),
                burst: 100,
                keys: vec![],
                matched: LimitedRequests::default(),
            },
            RateLimit {
                name: "b".into(),
                requests: 10,
                per: Duration::from_secs(1),
                burst: 3,
                keys: vec![
                    LimitKey::Identity,
                    LimitKey::Address,
                    LimitKey::Header("x-tenant".into())
                ],
                matched: LimitedRequests {
                    methods: vec!["GET".into()],
                    paths: vec![
                        PathPattern::Wild(Wild::Prefix("/a".into())),
                        PathPattern::Template("/b/{*}".into()),
                    ],
                    headers: vec![("x-size".into(), Wild::Present)],
                },
            },
        ]
    );
}

/// A limit, the place of what is wrong with it, and what is.
const WRONG: &[(&str, &str, Code)] = &[
    ("{name: a, per: 1s}", "spec.limits[0]", codes::MISSING_FIELD),
    ("{name: a, requests: 1}", "spec.limits[0]", codes::MISSING_FIELD),
    ("{requests: 1, per: 1s}", "spec.limits[0]", codes::MISSING_FIELD),
    (
        "{name: A_b, requests: 1, per: 1s}",
        "spec.limits[0].name",
        codes::BAD_NAME,
    ),
    (
        "{name: a, requests: 0, per: 1s}",
        "spec.limits[0].requests",
        codes::OUT_OF_RANGE,
    ),
    (
        "{name: a, requests: 1, burst: -1, per: 1s}",
        "spec.limits[0].burst",
        codes::OUT_OF_RANGE,
    ),
    (
        "{name: a, requests: 1, per: 10ms}",
        "spec.limits[0].per",
        codes::OUT_OF_RANGE,
    ),
    (
        "{name: a, requests: 1, per: 25h}",
        "spec.limits[0].per",
        codes::OUT_OF_RANGE,
    ),
    (
        "{name: a, requests: 1, per: soon}",
        "spec.limits[0].per",
        codes::BAD_DURATION,
    ),
    (
        "{name: a, requests: 1, per: 1s, by: []}",
        "spec.limits[0].by",
        codes::OUT_OF_RANGE,
    ),
    (
        "{name: a, requests: 1, per: 1s, by: [{}]}",
        "spec.limits[0].by[0]",
        codes::MISSING_FIELD,
    ),
    (
        "{name: a, requests: 1, per: 1s, by: [{caller: IDENTITY, header: x}]}",
        "spec.limits[0].by[0]",
        codes::EXCLUSIVE,
    ),
    (
        "{name: a, requests: 1, per: 1s, by: [{header: x}, {header: X}]}",
        "spec.limits[0].by[1]",
        codes::DUPLICATE_NAME,
    ),
    (
        "{name: a, requests: 1, per: 1s, by: [{header: ':path'}]}",
        "spec.limits[0].by[0].header",
        codes::BAD_HEADER,
    ),
    (
        "{name: a, requests: 1, per: 1s, match: {methods: [get]}}",
        "spec.limits[0].match.methods[0]",
        codes::UNKNOWN_VALUE,
    ),
    (
        "{name: a, requests: 1, per: 1s, match: {paths: ['/{x}']}}",
        "spec.limits[0].match.paths[0]",
        codes::BAD_PATTERN,
    ),
    (
        "{name: a, requests: 1, per: 1s, match: {ports: [80]}}",
        "spec.limits[0].match.ports",
        codes::UNKNOWN_FIELD,
    ),
    (
        "{name: a, requests: 1, per: 1s}, {name: a, requests: 2, per: 1s}",
        "spec.limits[1].name",
        codes::DUPLICATE_NAME,
    ),
];

#[test]
fn what_is_wrong_is_named_at_its_place_and_the_policy_is_not_used() {
    for (limit, place, code) in WRONG {
        assert_eq!(
            found(limit),
            (vec![((*place).to_owned(), *code)], false),
            "{limit}"
        );
    }
    assert!(read_spec("{limits: []}").rate_limit_policies.is_empty());
    assert!(read_spec("{}").rate_limit_policies.is_empty());
}
