use std::{sync::Arc, time::Duration};

use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    filter::{HttpFilter, HttpFilterKind},
    listener::{ChainAction, Direction, FilterChain, Listener},
    matcher::{HeaderMatcher, StringMatch, ValueCondition},
    rate_limit::{LocalRateLimit, RateLimitAction},
};
use rajut_types::{Percent, Text};

use super::fixtures::*;
use crate::Capture;

fn limit(name: &str, keys: Vec<LimitKey>, matched: LimitedRequests) -> RateLimit {
    RateLimit {
        name: name.into(),
        requests: 100,
        per: Duration::from_mins(1),
        burst: 20,
        keys,
        matched,
    }
}

fn policy(limits: Vec<RateLimit>) -> RateLimitPolicy {
    RateLimitPolicy {
        name: "records.v1".into(),
        namespace: "clinic".into(),
        selector: None,
        shadow: false,
        limits,
        origin: origin("RateLimitPolicy", "clinic", "records.v1"),
        age: 0,
    }
}

fn listeners(capture: Capture, protocol: Protocol, policy: RateLimitPolicy) -> Vec<Arc<Listener>> {
    let nobody = AuthorizationPolicy {
        name: "nobody".into(),
        namespace: "clinic".into(),
        selector: None,
        action: AuthorizationAction::Allow,
        provider: None,
        dry_run: false,
        closes_open: false,
        rules: Vec::new(),
        origin: origin("AuthorizationPolicy", "clinic", "nobody"),
        age: 0,
    };
    let configuration = Configuration {
        services: vec![service("web", 1, 80, protocol)],
        authorization_policies: vec![nobody],
        rate_limit_policies: vec![policy],
        ..Configuration::default()
    };
    let proxy = proxy("web", capture);
    let found = resources(&snapshot(configuration, vec![workload("web", 1, "v1")]), &proxy);
    found.listeners.values().cloned().collect()
}

fn filters(chain: &FilterChain) -> &[HttpFilter] {
    match &chain.action {
        ChainAction::Http(manager) => &manager.filters,
        ChainAction::Tcp(_) => &[],
    }
}

fn limits(chain: &FilterChain) -> Vec<(Text, Arc<LocalRateLimit>)> {
    let found = filters(chain).iter().filter_map(|filter| match &filter.kind {
        HttpFilterKind::LocalRateLimit(limit) => Some((filter.name.clone(), limit.clone())),
        _ => None,
    });
    found.collect()
}

/// What the limits of one policy become.
fn translated(policy: RateLimitPolicy) -> Vec<Arc<LocalRateLimit>> {
    let own = listeners(netns(), Protocol::Http, policy);
    let chain = own
        .iter()
        .filter(|own| own.direction == Direction::Inbound)
        .flat_map(|own| &own.filter_chains)
        .find(|chain| !limits(chain).is_empty())
        .expect("limits on the way in");
    limits(chain).into_iter().map(|(_, limit)| limit).collect()
}

#[test]
fn every_http_way_into_a_workload_is_limited_after_access_control_and_no_way_out() {
    for capture in [netns(), explicit(&[("web", 80)]), Capture::Redirect] {
        let own = listeners(
            capture,
            Protocol::Detect,
            policy(vec![
                limit("one", vec![], LimitedRequests::default()),
                limit("two", vec![], LimitedRequests::default()),
            ]),
        );
        let mut limited = 0;
        for listener in &own {
            for chain in listener
                .filter_chains
                .iter()
                .chain(&listener.default_filter_chain)
            {
                let names: Vec<_> = limits(chain)
                    .into_iter()
                    .map(|(name, _)| name.to_string())
                    .collect();
                let http = matches!(chain.action, ChainAction::Http(_));
                if listener.direction != Direction::Inbound || !http {
                    assert!(names.is_empty(), "{} {}", listener.name, chain.name);
                    continue;
                }
                assert_eq!(
                    names,
                    [
                        "rate-limit.clinic.records.v1.one",
                        "rate-limit.clinic.records.v1.two"
                    ]
                );
                assert!(matches!(filters(chain)[0].kind, HttpFilterKind::Rbac(_)));
                assert!(matches!(
                    filters(chain)[1].kind,
                    HttpFilterKind::LocalRateLimit(_)
                ));
                limited += 1;
            }
        }
        assert!(limited > 0);
    }
}

#[test]
fn a_limit_of_everything_is_one_bucket_and_a_shadow_refuses_nothing() {
    let all = limit("all", vec![], LimitedRequests::default());
    let found = translated(policy(vec![all.clone()]));
    let bucket = found[0].bucket.expect("one for all");
    assert_eq!(
        (bucket.max_tokens, bucket.tokens_per_fill, bucket.fill_interval),
        (20, 100, Duration::from_mins(1))
    );
    assert!(found[0].descriptors.is_empty() && found[0].rate_limits.is_empty());
    assert_eq!(&*found[0].stat_prefix, "clinic/records_v1/all");
    assert_eq!(found[0].enforced, Percent::ALL);
    assert!(found[0].retry_after && found[0].x_ratelimit_headers);

    let shadow = RateLimitPolicy {
        shadow: true,
        ..policy(vec![all])
    };
    let found = translated(shadow);
    assert_eq!(
        (found[0].enabled, found[0].enforced),
        (Percent::ALL, Percent::NONE)
    );
    assert!(!found[0].retry_after && !found[0].x_ratelimit_headers);
}

#[test]
fn what_a_request_may_lack_has_buckets_without_it() {
    let keys = vec![
        LimitKey::Identity,
        LimitKey::Address,
        LimitKey::Header("x-tenant".into()),
    ];
    let found = translated(policy(vec![limit("one", keys, LimitedRequests::default())]));
    assert_eq!(found[0].bucket, None, "what is not meant is not counted");
    let descriptors: Vec<Vec<String>> = found[0]
        .descriptors
        .iter()
        .map(|descriptor| {
            let entries = descriptor.entries.iter();
            entries
                .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("*")))
                .collect()
        })
        .collect();
    assert_eq!(
        descriptors,
        [
            vec!["limit=one", "identity=*", "remote_address=*", "header.x-tenant=*"],
            vec!["limit=one", "remote_address=*", "header.x-tenant=*"],
            vec!["limit=one", "identity=*", "remote_address=*"],
            vec!["limit=one", "remote_address=*"],
        ]
    );
    assert_eq!(found[0].rate_limits.len(), 1, "a request takes from one bucket");
    assert_eq!(found[0].rate_limits[0].actions.len(), 4);
}

#[test]
fn what_is_meant_is_told_by_method_path_and_headers() {
    let matched = LimitedRequests {
        methods: vec!["GET".into(), "HEAD".into()],
        paths: vec![
            PathPattern::Wild(Wild::Prefix("/a.b".into())),
            PathPattern::Wild(Wild::Suffix("/c".into())),
            PathPattern::Template("/d/{*}/e/{**}".into()),
        ],
        headers: vec![("x-size".into(), Wild::Present)],
    };
    let found = translated(policy(vec![limit("one", vec![], matched)]));
    let [
        RateLimitAction::HeaderValueMatch {
            headers,
            expect: true,
            ..
        },
    ] = &found[0].rate_limits[0].actions[..]
    else {
        panic!("{:?}", found[0].rate_limits)
    };
    let expression = |header: &HeaderMatcher| match &header.condition {
        ValueCondition::Matches(matcher) => match &matcher.pattern {
            StringMatch::Regex(regex) => regex.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let [method, path, size] = &headers[..] else {
        panic!("{headers:?}")
    };
    let (methods, paths) = (expression(method), expression(path));
    assert!(methods.is_full_match(b"GET") && methods.is_full_match(b"HEAD"));
    assert!(!methods.is_full_match(b"GETS"));
    for (path, meant) in [
        ("/a.b", true),
        ("/a.bcd/e?x=1", true),
        ("/axb", false),
        ("/x/c", true),
        ("/x/c?d", true),
        ("/x?y=/c", false),
        ("/d/1/e/", true),
        ("/d/1/e/2/3?x", true),
        ("/d/1/2/e/3", false),
        ("/d//e/3", false),
    ] {
        assert_eq!(paths.is_full_match(path.as_bytes()), meant, "{path}");
    }
    assert_eq!(&*size.name, "x-size");
    assert!(matches!(size.condition, ValueCondition::Present(true)));
}
