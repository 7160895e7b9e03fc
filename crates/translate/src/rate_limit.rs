//! Rate limit policies as what the HTTP ports of a workload enforce: a local rate limit ([`rajut_ir::rate_limit`]) for each limit, so
//! that each has counters of its own.
//!
//! A limit of some requests, or one that tells callers apart, makes a descriptor of a request: an entry called `limit` where the
//! request is meant, then one for each of its keys. What a request may lack (a header, an identity) has buckets without that
//! entry, too, so that nobody escapes by leaving it out. Opaque ports have no requests, and no limits.

use std::sync::Arc;

use rajut_config::{
    model::{LimitKey, LimitedRequests, PathPattern, RateLimit as Limit, RateLimitPolicy, Wild},
    snapshot::Shared,
};
use rajut_ir::{
    filter::{HttpFilter, HttpFilterKind},
    http::HttpConnectionManager,
    listener::{ChainAction, FilterChain},
    matcher::{HeaderMatcher, Regex, StringMatch, StringMatcher, ValueCondition},
    rate_limit::{
        DescriptorLimit, LocalRateLimit, RateLimit, RateLimitAction, TokenBucket, VirtualHostLimits,
    },
};
use rajut_types::{Percent, Text};

/// Callers, addresses or values that a limit tells apart at a time.
const DYNAMIC_MAX: u32 = 10_000;
/// The entry that says which limit a descriptor is about.
const LIMIT: &str = "limit";
/// Envoy's name of the entry with the client's address.
const ADDRESS: &str = "remote_address";

/// The chain with the limits in force, after what refuses requests and before everything else that looks at them.
pub(crate) fn limit(chain: Arc<FilterChain>, policies: &[Shared<RateLimitPolicy>]) -> Arc<FilterChain> {
    let ChainAction::Http(manager) = &chain.action else {
        return chain;
    };
    let filters: Vec<_> = policies.iter().flat_map(|policy| filters(policy)).collect();
    if filters.is_empty() {
        return chain;
    }
    let manager = Arc::new(HttpConnectionManager {
        filters: filters
            .into_iter()
            .chain(manager.filters.iter().cloned())
            .collect(),
        ..(**manager).clone()
    });
    Arc::new(FilterChain {
        action: ChainAction::Http(manager),
        ..(*chain).clone()
    })
}

fn filters(policy: &RateLimitPolicy) -> impl Iterator<Item = HttpFilter> {
    policy.limits.iter().map(|limit| HttpFilter {
        name: format!("rate-limit.{}.{}.{}", policy.namespace, policy.name, limit.name).into(),
        disabled: false,
        kind: HttpFilterKind::LocalRateLimit(Arc::new(filter(policy, limit))),
    })
}

fn filter(policy: &RateLimitPolicy, limit: &Limit) -> LocalRateLimit {
    let bucket = TokenBucket {
        max_tokens: limit.burst,
        tokens_per_fill: limit.requests,
        fill_interval: limit.per,
    };
    let headers = headers(&limit.matched);
    let is_plain = headers.is_empty() && limit.keys.is_empty();
    let (descriptors, rate_limits) = if is_plain {
        (Vec::new(), Vec::new())
    } else {
        (descriptors(limit, bucket), vec![actions(limit, headers)])
    };
    LocalRateLimit {
        // Envoy ends the label with its metrics at a dot.
        stat_prefix: format!("{}/{}/{}", policy.namespace, policy.name, limit.name)
            .replace('.', "_")
            .into(),
        status: 429,
        bucket: is_plain.then_some(bucket),
        enabled: Percent::ALL,
        enforced: if policy.shadow {
            Percent::NONE
        } else {
            Percent::ALL
        },
        request_headers_when_not_enforced: Vec::new(),
        response_headers: Vec::new(),
        descriptors,
        stage: 0,
        per_connection: false,
        x_ratelimit_headers: !policy.shadow,
        virtual_host: VirtualHostLimits::Ignore,
        always_consume_default: false,
        resource_exhausted: true,
        rate_limits,
        dynamic_max: DYNAMIC_MAX,
        retry_after: !policy.shadow,
    }
}

/// What the descriptor of a request is made of.
fn actions(limit: &Limit, headers: Vec<HeaderMatcher>) -> RateLimit {
    let meant = if headers.is_empty() {
        RateLimitAction::GenericKey {
            key: LIMIT.into(),
            value: limit.name.clone(),
        }
    } else {
        RateLimitAction::HeaderValueMatch {
            key: LIMIT.into(),
            value: limit.name.clone(),
            expect: true,
            headers,
        }
    };
    let keys = limit.keys.iter().map(|key| match key {
        LimitKey::Address => RateLimitAction::RemoteAddress,
        LimitKey::Identity => RateLimitAction::PeerIdentity {
            key: entry(key),
            skip: true,
        },
        LimitKey::Header(name) => RateLimitAction::RequestHeader {
            name: name.clone(),
            key: entry(key),
            skip: true,
        },
    });
    RateLimit {
        stage: 0,
        actions: std::iter::once(meant).chain(keys).collect(),
    }
}

fn entry(key: &LimitKey) -> Text {
    match key {
        LimitKey::Identity => "identity".into(),
        LimitKey::Address => ADDRESS.into(),
        LimitKey::Header(name) => format!("header.{name}").into(),
    }
}

/// With and without each entry that a request may lack.
fn descriptors(limit: &Limit, bucket: TokenBucket) -> Vec<DescriptorLimit> {
    let mut all = vec![vec![(Text::from(LIMIT), Some(limit.name.clone()))]];
    for key in &limit.keys {
        let may_lack = !matches!(key, LimitKey::Address);
        let without = if may_lack { all.clone() } else { Vec::new() };
        for entries in &mut all {
            entries.push((entry(key), None));
        }
        all.extend(without);
    }
    all.into_iter()
        .map(|entries| DescriptorLimit { entries, bucket })
        .collect()
}

/// What the heads of the requests that are meant have.
fn headers(requests: &LimitedRequests) -> Vec<HeaderMatcher> {
    let mut headers = Vec::new();
    if !requests.methods.is_empty() {
        headers.push(matches(":method", one_of(&requests.methods)));
    }
    if !requests.paths.is_empty() {
        let parts: Vec<_> = requests.paths.iter().map(path).collect();
        // `:path` has the query.
        headers.push(matches(
            ":path",
            expression(&format!("(?:{})(?:\\?.*)?", parts.join("|"))),
        ));
    }
    for (name, value) in &requests.headers {
        headers.push(match value {
            Wild::Present => HeaderMatcher {
                name: name.clone(),
                condition: ValueCondition::Present(true),
                invert: false,
                missing_is_empty: false,
            },
            Wild::Exact(text) => matches(name, StringMatch::Exact(text.clone())),
            Wild::Prefix(text) => matches(name, StringMatch::Prefix(text.clone())),
            Wild::Suffix(text) => matches(name, StringMatch::Suffix(text.clone())),
        });
    }
    headers
}

fn matches(name: &str, pattern: StringMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: name.into(),
        condition: ValueCondition::Matches(StringMatcher {
            pattern,
            ignore_case: false,
        }),
        invert: false,
        missing_is_empty: false,
    }
}

fn one_of(texts: &[Text]) -> StringMatch {
    match texts {
        [one] => StringMatch::Exact(one.clone()),
        many => expression(
            &many
                .iter()
                .map(|text| Regex::escape(text))
                .collect::<Vec<_>>()
                .join("|"),
        ),
    }
}

fn expression(source: &str) -> StringMatch {
    StringMatch::Regex(Regex::new(source).expect("escaped texts and fixed parts are a valid expression"))
}

/// An expression for a path without its query.
fn path(path: &PathPattern) -> String {
    match path {
        PathPattern::Wild(Wild::Exact(text)) => Regex::escape(text),
        PathPattern::Wild(Wild::Prefix(text)) => Regex::escape(text) + "[^?]*",
        PathPattern::Wild(Wild::Suffix(text)) => "[^?]*".to_owned() + &Regex::escape(text),
        PathPattern::Wild(Wild::Present) => "[^?]+".to_owned(),
        PathPattern::Template(source) => {
            let segments = source.split('/').map(|segment| match segment {
                "{*}" => "[^/?]+".to_owned(),
                "{**}" => "[^?]*".to_owned(),
                literal => Regex::escape(literal),
            });
            segments.collect::<Vec<_>>().join("/")
        }
    }
}
