//! Resources at random: everything that the model can say and the wire can carry.

#![expect(
    clippy::too_many_lines,
    reason = "one strategy per struct, as long as it has fields"
)]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*, sample::select};
use rajut_types::{Labels, Locality, ObjectRef, Origin, Percent, Text, condition::Condition, tag::TagValue};

use crate::{
    NameTable,
    access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogSink},
    cluster::*,
    cors::Cors,
    endpoint::*,
    ext_authz::{
        Asked, BODY_MAX, BodyToCheck, ExtAuthz, HttpProvider, NetworkExtAuthz, Provider as AuthzProvider,
    },
    fault::{Abort, AbortStatus, Delay, FaultInjection},
    filter::*,
    http::*,
    jwt::{ClaimCondition, ClaimMatcher, JwtAuthn, JwtProvider, Requirement},
    listener::*,
    matcher::*,
    rate_limit::*,
    rbac::{Action, Permission, Policy, Principal, Rbac, Rule, Rules, UriTemplate},
    route::*,
    secret::*,
    stats::{IstioStats, Metric, MetricOverride},
    tls::*,
    tracing::{self, CustomTag, OpenTelemetry, Tracing},
};

fn name() -> impl Strategy<Value = Text> + Clone {
    "[a-z][a-z0-9.-]{0,9}".prop_map(Text::from)
}

fn maybe_empty() -> impl Strategy<Value = Text> {
    "[a-z]{0,5}".prop_map(Text::from)
}

fn millis(lowest: u64) -> impl Strategy<Value = Duration> + Clone {
    (lowest..100_000_000).prop_map(Duration::from_millis)
}

/// None, or more than zero (zero is "none" on the wire).
fn bound() -> impl Strategy<Value = Option<Duration>> + Clone {
    option::of(millis(1))
}

fn percent() -> impl Strategy<Value = Percent> {
    (0..=1_000_000u32).prop_map(Percent::from_millionths)
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn labels() -> impl Strategy<Value = Labels> {
    vec(("[a-z]{1,4}", "[a-z]{0,4}"), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn origin() -> impl Strategy<Value = Origin> {
    (
        maybe_empty(),
        any::<u32>(),
        maybe_empty(),
        maybe_empty(),
        maybe_empty(),
        maybe_empty(),
    )
        .prop_map(|(source, line, kind, namespace, object, field_path)| Origin {
            source,
            line,
            object: ObjectRef::new(kind, namespace, object),
            field_path,
        })
}

fn regex() -> impl Strategy<Value = Regex> {
    select(vec!["a+", "/[0-9]{2,}", "(x|y).*", "[^/]+"]).prop_map(|it| Regex::new(it).expect("valid"))
}

fn string_matcher() -> impl Strategy<Value = StringMatcher> {
    let pattern = prop_oneof![
        maybe_empty().prop_map(StringMatch::Exact),
        name().prop_map(StringMatch::Prefix),
        name().prop_map(StringMatch::Suffix),
        name().prop_map(StringMatch::Contains),
        regex().prop_map(StringMatch::Regex),
    ];
    (pattern, any::<bool>()).prop_map(|(pattern, ignore_case)| StringMatcher {
        ignore_case: ignore_case && !matches!(pattern, StringMatch::Regex(_)),
        pattern,
    })
}

fn json() -> impl Strategy<Value = JsonFormat> {
    let leaf = prop_oneof![
        "%[A-Z]{1,4}%".prop_map(|text| JsonFormat::Text(text.into())),
        any::<bool>().prop_map(JsonFormat::Truth),
        (-9..9).prop_map(|number| JsonFormat::Number(f64::from(number) / 2.0)),
        Just(JsonFormat::Null),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let object = prop::collection::btree_map("[a-z]{1,4}", inner.clone(), 0..3);
        let object = object.prop_map(|fields| {
            JsonFormat::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key.into(), value))
                    .collect(),
            )
        });
        prop_oneof![object, vec(inner, 0..3).prop_map(JsonFormat::List)]
    })
}

fn access_log(filter: impl Strategy<Value = LogFilter>) -> impl Strategy<Value = AccessLog> {
    let sink = prop_oneof![
        Just(LogSink::Stdout),
        Just(LogSink::Stderr),
        name().prop_map(LogSink::File),
    ];
    let json = prop::collection::btree_map("[a-z]{1,4}", json(), 0..3).prop_map(|fields| {
        LogFormat::Json(
            fields
                .into_iter()
                .map(|(key, value)| (key.into(), value))
                .collect(),
        )
    });
    let format = prop_oneof![
        Just(LogFormat::Default),
        "[a-z%\n]{1,9}".prop_map(|it| LogFormat::Text(it.into())),
        json,
    ];
    (sink, format, option::of(filter)).prop_map(|(sink, format, filter)| AccessLog { sink, format, filter })
}

/// A log of requests or connections.
fn filtered_log() -> impl Strategy<Value = AccessLog> {
    access_log((100..600_u16).prop_map(|code| {
        let condition = Condition::parse(&format!("response.code >= {code}"));
        LogFilter::Condition(condition.expect("it is valid"))
    }))
}

// --- routes ---

fn header_values() -> impl Strategy<Value = Vec<HeaderValue>> {
    let append = select(vec![
        AppendAction::Append,
        AppendAction::AddIfAbsent,
        AppendAction::Overwrite,
        AppendAction::OverwriteIfExists,
    ]);
    vec(
        ("x-[a-z]{1,4}", "[a-zA-Z%]{0,5}", append).prop_map(|(name, value, append)| HeaderValue {
            name: name.into(),
            value: value.into(),
            append,
        }),
        0..3,
    )
}

fn mutations() -> BoxedStrategy<HeaderMutations> {
    (
        header_values(),
        vec(name(), 0..2),
        header_values(),
        vec(name(), 0..2),
    )
        .prop_map(
            |(request_set, request_remove, response_set, response_remove)| HeaderMutations {
                request_set,
                request_remove,
                response_set,
                response_remove,
            },
        )
        .boxed()
}

fn condition(ranges: bool) -> BoxedStrategy<ValueCondition> {
    let range = (any::<i64>(), any::<i64>()).prop_map(|(start, end)| ValueCondition::Range(start..end));
    let other = prop_oneof![
        any::<bool>().prop_map(ValueCondition::Present),
        string_matcher().prop_map(ValueCondition::Matches),
    ];
    if ranges {
        prop_oneof![3 => other, 1 => range].boxed()
    } else {
        other.boxed()
    }
}

fn header_matcher() -> impl Strategy<Value = HeaderMatcher> {
    (name(), condition(true), any::<bool>(), any::<bool>()).prop_map(
        |(name, condition, invert, missing_is_empty)| HeaderMatcher {
            name,
            condition,
            invert,
            missing_is_empty,
        },
    )
}

fn route_match() -> BoxedStrategy<RouteMatch> {
    let path = prop_oneof![
        "/[a-z/]{0,5}".prop_map(|it| PathMatch::Prefix(it.into())),
        "/[a-z/]{0,5}".prop_map(|it| PathMatch::Exact(it.into())),
        "/[a-z]{1,5}".prop_map(|it| PathMatch::SeparatedPrefix(it.into())),
        regex().prop_map(PathMatch::Regex),
        Just(PathMatch::Connect),
    ];
    let query = (name(), condition(false)).prop_map(|(name, condition)| QueryMatcher { name, condition });
    (
        path,
        any::<bool>(),
        vec(header_matcher(), 0..3),
        vec(query, 0..2),
        any::<bool>(),
        option::of(percent()),
        vec(route_claim(), 0..2),
    )
        .prop_map(
            |(path, case_sensitive, headers, query, grpc, fraction, claims)| RouteMatch {
                path,
                case_sensitive,
                headers,
                query,
                grpc,
                fraction,
                claims,
            },
        )
        .boxed()
}

fn route_claim() -> impl Strategy<Value = RouteClaim> {
    (vec(name(), 1..3), claim_condition(), any::<bool>()).prop_map(|(path, value, invert)| RouteClaim {
        matcher: ClaimMatcher { path, value },
        invert,
    })
}

fn retry() -> BoxedStrategy<RetryPolicy> {
    let on = vec(select(RetryOn::NAMES.to_vec()), 0..4).prop_map(|names| {
        names
            .into_iter()
            .fold(RetryOn::default(), |on, (_, it)| on.with(it))
    });
    (
        (on, any::<u32>(), bound(), bound()),
        (1..10_000u64, 0..10_000u64),
        vec(100..600u16, 0..3),
        0..10u32,
        option::of(1..10u32),
    )
        .prop_map(
            |((on, num_retries, per_try, per_try_idle), (base, more), codes, avoid, priorities)| {
                RetryPolicy {
                    on,
                    num_retries,
                    per_try_timeout: per_try,
                    per_try_idle_timeout: per_try_idle,
                    base_interval: Duration::from_millis(base),
                    max_interval: Duration::from_millis(base + more),
                    status_codes: codes,
                    avoid_previous_hosts_attempts: avoid,
                    previous_priorities_update: priorities,
                }
            },
        )
        .boxed()
}

fn target() -> BoxedStrategy<Target> {
    let weighted = (
        name(),
        1..1000u32,
        mutations(),
        option::of(name()),
        overrides(),
        origin(),
    )
        .prop_map(
            |(name, weight, headers, host_rewrite, filters, origin)| WeightedCluster {
                name,
                weight,
                headers,
                host_rewrite,
                filters,
                origin,
            },
        );
    prop_oneof![
        name().prop_map(Target::Cluster),
        name().prop_map(Target::Header),
        vec(weighted, 1..4).prop_map(Target::Weighted),
    ]
    .boxed()
}

fn forward() -> BoxedStrategy<Forward> {
    let path = prop_oneof![
        "/[a-z]{0,4}".prop_map(|it| PathRewrite::Prefix(it.into())),
        (regex(), maybe_empty()).prop_map(|(pattern, substitution)| PathRewrite::Regex {
            pattern,
            substitution
        }),
    ];
    let host = prop_oneof![
        name().prop_map(HostRewrite::Literal),
        Just(HostRewrite::Auto),
        name().prop_map(HostRewrite::Header),
    ];
    let hash = prop_oneof![
        name().prop_map(HashPolicy::Header),
        (name(), option::of(millis(0)), maybe_empty()).prop_map(|(name, ttl, path)| HashPolicy::Cookie {
            name,
            ttl,
            path
        }),
        Just(HashPolicy::SourceIp),
        name().prop_map(HashPolicy::QueryParameter),
    ];
    let mirror = (name(), percent(), any::<bool>(), any::<bool>()).prop_map(
        |(cluster, fraction, shadow_host_suffix, traced)| Mirror {
            cluster,
            fraction,
            shadow_host_suffix,
            traced,
        },
    );
    (
        (
            target(),
            select(vec![503u16, 404, 500]),
            bound(),
            option::of(millis(0)),
            bound(),
        ),
        (
            option::of(millis(0)),
            option::of(retry()),
            option::of(path),
            option::of(host),
            any::<bool>(),
        ),
        (
            vec(hash, 0..2),
            vec(mirror, 0..2),
            vec((name(), any::<bool>()), 0..2),
            vec(rate_limit(), 0..2),
            any::<bool>(),
        ),
    )
        .prop_map(
            |(
                (target, cluster_not_found_status, timeout, idle_timeout, max_stream_duration),
                (grpc_timeout_max, retry, path_rewrite, host_rewrite, append_x_forwarded_host),
                (hash, mirrors, upgrades, rate_limits, include_virtual_host_limits),
            )| Forward {
                target,
                cluster_not_found_status,
                timeout,
                idle_timeout,
                max_stream_duration,
                grpc_timeout_max,
                retry,
                path_rewrite,
                host_rewrite,
                append_x_forwarded_host,
                hash,
                mirrors,
                upgrades,
                rate_limits,
                include_virtual_host_limits,
            },
        )
        .boxed()
}

fn action() -> BoxedStrategy<RouteActionKind> {
    let path = prop_oneof![
        "/[a-z]{0,4}".prop_map(|it| RedirectPath::Full(it.into())),
        "/[a-z]{0,4}".prop_map(|it| RedirectPath::Prefix(it.into())),
    ];
    let redirect = (
        option::of(name()),
        option::of(name()),
        option::of(1..=u16::MAX),
        option::of(path),
        select(vec![301u16, 302, 303, 307, 308]),
        any::<bool>(),
    )
        .prop_map(|(scheme, host, port, path, status, strip_query)| {
            RouteActionKind::Redirect(Box::new(Redirect {
                scheme,
                host,
                port,
                path,
                status,
                strip_query,
            }))
        });
    let response = (200..600u16, vec(any::<u8>(), 0..8)).prop_map(|(status, body)| {
        RouteActionKind::DirectResponse(DirectResponse {
            status,
            body: body.into(),
        })
    });
    prop_oneof![
        4 => forward().prop_map(|it| RouteActionKind::Forward(Box::new(it))),
        1 => redirect,
        1 => response,
        1 => Just(RouteActionKind::NonForwarding),
    ]
    .boxed()
}

fn route() -> BoxedStrategy<Route> {
    (
        maybe_empty(),
        route_match(),
        action(),
        mutations(),
        maybe_empty(),
        overrides(),
        origin(),
    )
        .prop_map(
            |(name, matches, action, headers, decorator, filters, origin)| Route {
                name,
                matches,
                action,
                headers,
                decorator,
                filters,
                origin,
            },
        )
        .boxed()
}

pub(super) fn routes() -> BoxedStrategy<RouteConfiguration> {
    let host = (
        vec(route(), 0..4),
        option::of(retry()),
        mutations(),
        any::<bool>(),
        origin(),
        select(vec!["*.", "", "x."]),
        overrides(),
        vec(rate_limit(), 0..2),
    );
    (name(), vec(host, 0..3), any::<bool>(), mutations(), overrides())
        .prop_map(
            |(name, hosts, ignore_port_in_host_matching, headers, filters)| RouteConfiguration {
                name,
                virtual_hosts: hosts
                    .into_iter()
                    .enumerate()
                    .map(
                        |(
                            at,
                            (
                                routes,
                                retry_policy,
                                headers,
                                include_request_attempt_count,
                                origin,
                                prefix,
                                filters,
                                rate_limits,
                            ),
                        )| {
                            Arc::new(VirtualHost {
                                name: format!("host{at}").into(),
                                domains: vec![
                                    format!("{prefix}d{at}.example").into(),
                                    format!("d{at}:80").into(),
                                ],
                                routes: routes.into_iter().map(Arc::new).collect(),
                                retry_policy,
                                headers,
                                include_request_attempt_count,
                                origin,
                                filters,
                                rate_limits,
                            })
                        },
                    )
                    .collect(),
                ignore_port_in_host_matching,
                headers,
                filters,
            },
        )
        .boxed()
}

// --- filters ---

fn permission(http: bool) -> BoxedStrategy<Rule<Permission>> {
    let of_http = prop_oneof![
        header_matcher().prop_map(Permission::Header),
        string_matcher().prop_map(Permission::UrlPath),
        select(vec!["/a/{*}/b", "/a/{**}", "/*/c"])
            .prop_map(|it| Permission::UriTemplate(UriTemplate::parse(it).expect("valid"))),
    ];
    let leaf = prop_oneof![
        net().prop_map(Permission::DestinationIp),
        any::<u16>().prop_map(Permission::DestinationPort),
        (0..60_000u32, 1..5_000u32)
            .prop_map(|(start, more)| Permission::DestinationPorts(start..start + more)),
        string_matcher().prop_map(Permission::ServerName),
    ];
    rule(if http {
        prop_oneof![of_http, leaf].boxed()
    } else {
        leaf.boxed()
    })
}

fn principal(http: bool) -> BoxedStrategy<Rule<Principal>> {
    let of_http = prop_oneof![
        header_matcher().prop_map(Principal::Header),
        string_matcher().prop_map(Principal::UrlPath),
        (vec(name(), 1..3), claim_condition())
            .prop_map(|(path, value)| Principal::Claim(ClaimMatcher { path, value })),
    ];
    let leaf = prop_oneof![
        option::of(string_matcher()).prop_map(Principal::Authenticated),
        net().prop_map(Principal::DirectRemoteIp),
        net().prop_map(Principal::RemoteIp),
    ];
    rule(if http {
        prop_oneof![of_http, leaf].boxed()
    } else {
        leaf.boxed()
    })
}

fn claim_condition() -> impl Strategy<Value = ClaimCondition> {
    string_matcher()
        .prop_map(ClaimCondition::Text)
        .prop_recursive(3, 8, 2, |inner| {
            prop_oneof![
                inner.clone().prop_map(|it| ClaimCondition::Element(Box::new(it))),
                vec(inner, 1..3).prop_map(ClaimCondition::Any),
            ]
        })
}

fn jwt_provider() -> impl Strategy<Value = JwtProvider> {
    (
        (name(), vec(name(), 0..2), name(), any::<bool>()),
        (
            vec((name(), maybe_empty()), 0..2),
            vec(name(), 0..2),
            vec(name(), 0..2),
        ),
        (maybe_empty(), vec((name(), name()), 0..2), maybe_empty()),
        (vec(name(), 0..2), 1..1000_u32, any::<bool>()),
    )
        .prop_map(
            |(
                (issuer, audiences, jwks, forward),
                (from_headers, from_params, from_cookies),
                (payload_header, claim_headers, metadata),
                (space_delimited, clock_skew, clear_route_cache),
            )| JwtProvider {
                issuer,
                audiences,
                jwks,
                forward,
                from_headers,
                from_params,
                from_cookies,
                payload_header,
                claim_headers,
                metadata,
                space_delimited,
                clock_skew,
                clear_route_cache,
            },
        )
}

fn jwt_authn() -> impl Strategy<Value = JwtAuthn> {
    let providers = prop::collection::btree_map(name(), jwt_provider(), 1..3);
    (providers, any::<bool>(), 0..3).prop_map(|(providers, bypass_cors_preflight, form)| {
        let each: Vec<_> = providers.keys().cloned().map(Requirement::Provider).collect();
        let optional = each
            .iter()
            .map(|it| Requirement::Any(vec![it.clone(), Requirement::AllowMissing]));
        let requirement = match form {
            0 => None,
            1 => each.first().cloned(),
            _ => Some(Requirement::Any(vec![Requirement::All(optional.collect())])),
        };
        JwtAuthn {
            providers,
            requirement,
            bypass_cors_preflight,
        }
    })
}

fn rule<L: Clone + std::fmt::Debug + 'static>(leaf: BoxedStrategy<L>) -> BoxedStrategy<Rule<L>> {
    prop_oneof![1 => Just(Rule::Any), 4 => leaf.prop_map(Rule::Is)]
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 1..3).prop_map(Rule::And),
                vec(inner.clone(), 1..3).prop_map(Rule::Or),
                inner.prop_map(|it| Rule::Not(Box::new(it))),
            ]
        })
        .boxed()
}

fn net() -> impl Strategy<Value = ipnet::IpNet> {
    select(vec!["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]).prop_map(|it| it.parse().expect("valid"))
}

fn rbac(http: bool) -> BoxedStrategy<Rbac> {
    let policy =
        (vec(permission(http), 1..3), vec(principal(http), 1..3)).prop_map(|(permissions, principals)| {
            Policy {
                permissions,
                principals,
            }
        });
    let rules = (
        select(vec![Action::Allow, Action::Deny, Action::Log]),
        prop::collection::btree_map(name(), policy, 0..3),
    )
        .prop_map(|(action, policies)| Arc::new(Rules::compile(action, policies)));
    (
        option::of(rules.clone()),
        option::of(rules),
        name(),
        maybe_empty(),
    )
        .prop_map(|(rules, shadow, stat_prefix, shadow_stat_prefix)| Rbac {
            rules,
            shadow,
            stat_prefix,
            shadow_stat_prefix,
        })
        .boxed()
}

fn rate_limit() -> BoxedStrategy<RateLimit> {
    let action = prop_oneof![
        (name(), name(), any::<bool>()).prop_map(|(name, key, skip)| RateLimitAction::RequestHeader {
            name,
            key,
            skip
        }),
        Just(RateLimitAction::RemoteAddress),
        (name(), any::<bool>()).prop_map(|(key, skip)| RateLimitAction::PeerIdentity { key, skip }),
        Just(RateLimitAction::DestinationCluster),
        (name(), name()).prop_map(|(key, value)| RateLimitAction::GenericKey { key, value }),
        (name(), name(), any::<bool>(), vec(header_matcher(), 1..3)).prop_map(
            |(key, value, expect, headers)| RateLimitAction::HeaderValueMatch {
                key,
                value,
                expect,
                headers
            }
        ),
    ];
    (0..=10u32, vec(action, 1..3))
        .prop_map(|(stage, actions)| RateLimit { stage, actions })
        .boxed()
}

fn local_rate_limit() -> BoxedStrategy<LocalRateLimit> {
    let bucket = (1..1000u32, 1..1000u32).prop_map(|(max_tokens, tokens_per_fill)| TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval: Duration::from_secs(1),
    });
    let descriptor = (vec((name(), option::of(name())), 1..3), bucket.clone())
        .prop_map(|(entries, bucket)| DescriptorLimit { entries, bucket });
    let modes = select(vec![
        VirtualHostLimits::Override,
        VirtualHostLimits::Include,
        VirtualHostLimits::Ignore,
    ]);
    (
        (name(), 400..600u16, option::of(bucket), percent(), percent()),
        (
            header_values(),
            header_values(),
            vec(descriptor, 0..3),
            0..=10u32,
            vec(rate_limit(), 0..2),
        ),
        (any::<[bool; 5]>(), modes, 1..100u32),
    )
        .prop_map(
            |(
                (stat_prefix, status, bucket, enabled, enforced),
                (request_headers_when_not_enforced, response_headers, descriptors, stage, rate_limits),
                (
                    [
                        per_connection,
                        x_ratelimit_headers,
                        always_consume_default,
                        resource_exhausted,
                        retry_after,
                    ],
                    virtual_host,
                    dynamic_max,
                ),
            )| LocalRateLimit {
                stat_prefix,
                status,
                bucket,
                enabled,
                enforced,
                request_headers_when_not_enforced,
                response_headers,
                descriptors,
                stage,
                per_connection,
                x_ratelimit_headers,
                virtual_host,
                always_consume_default,
                resource_exhausted,
                rate_limits,
                dynamic_max,
                retry_after,
            },
        )
        .boxed()
}

fn fault() -> BoxedStrategy<FaultInjection> {
    let delay = (millis(1), percent()).prop_map(|(fixed, share)| Delay { fixed, share });
    let status = prop_oneof![
        (200_u16..600).prop_map(AbortStatus::Http),
        (0_u8..17).prop_map(AbortStatus::Grpc),
    ];
    let abort = (status, percent()).prop_map(|(status, share)| Abort { status, share });
    let max_active = option::of(any::<u32>());
    (
        option::of(delay),
        option::of(abort),
        prop_oneof![Just(Text::default()), name()],
        vec(header_matcher(), 0..2),
        vec(name(), 0..2),
        max_active,
    )
        .prop_map(
            |(delay, abort, upstream_cluster, headers, downstream_nodes, max_active)| FaultInjection {
                delay,
                abort,
                upstream_cluster,
                headers,
                downstream_nodes,
                max_active,
            },
        )
        .boxed()
}

fn cors() -> BoxedStrategy<Cors> {
    let text = || prop_oneof![Just(Text::default()), name()];
    (
        vec(string_matcher(), 0..2),
        (text(), text(), text(), text()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        (percent(), percent()),
    )
        .prop_map(
            |(
                allow_origins,
                (allow_methods, allow_headers, expose_headers, max_age),
                allow_credentials,
                allow_private_network,
                forward_not_matching,
                (enabled, shadow),
            )| Cors {
                allow_origins,
                allow_methods,
                allow_headers,
                expose_headers,
                max_age,
                allow_credentials,
                allow_private_network,
                forward_not_matching,
                enabled,
                shadow,
            },
        )
        .boxed()
}

fn overrides() -> BoxedStrategy<FilterOverrides> {
    let over = prop_oneof![
        Just((Text::from(RBAC), FilterOverride::Disabled)),
        Just((Text::from(LOCAL_RATE_LIMIT), FilterOverride::Enabled)),
        rbac(true).prop_map(|it| (Text::from("access"), FilterOverride::Rbac(Arc::new(it)))),
        local_rate_limit().prop_map(|it| (Text::from("limit"), FilterOverride::LocalRateLimit(Arc::new(it)))),
        fault().prop_map(|it| (Text::from(FAULT), FilterOverride::Fault(Arc::new(it)))),
        cors().prop_map(|it| (Text::from(CORS), FilterOverride::Cors(Arc::new(it)))),
    ];
    prop_oneof![
        3 => Just(FilterOverrides::new()),
        1 => over.prop_map(|it| vec![it]),
    ]
    .boxed()
}

fn istio_stats() -> BoxedStrategy<IstioStats> {
    let value = prop_oneof![
        name().prop_map(TagValue::Literal),
        name().prop_map(TagValue::RequestHeader),
        Just(TagValue::ResponseCode),
    ];
    let set = prop_oneof![Just(Vec::new()), (name(), value).prop_map(|tag| vec![tag]),];
    let metric = (
        option::of(select(Metric::ALL.to_vec())),
        any::<bool>(),
        vec(name(), 0..2),
        set,
    )
        .prop_map(|(metric, drop, remove, set)| MetricOverride {
            metric,
            drop,
            remove,
            set,
        });
    (any::<bool>(), millis(100), vec(metric, 0..2))
        .prop_map(|(host_fallback, tcp_reporting, metrics)| IstioStats {
            host_fallback,
            tcp_reporting,
            metrics,
        })
        .boxed()
}

fn asked() -> impl Strategy<Value = Option<Asked>> {
    let one = (maybe_empty(), string_matcher()).prop_map(|(shadow_prefix, policy)| Asked {
        shadow_prefix,
        policy,
    });
    option::of(one)
}

fn authz_provider() -> BoxedStrategy<AuthzProvider> {
    let names = || vec(string_matcher(), 0..2);
    let http = (
        (
            name(),
            maybe_empty(),
            prop_oneof![Just("".into()), Just("/check".into())],
        ),
        vec((name(), maybe_empty()), 0..2),
        (names(), names(), names(), names()),
    )
        .prop_map(|((cluster, uri, path_prefix), headers_to_add, names)| {
            AuthzProvider::Http(HttpProvider {
                cluster,
                uri,
                path_prefix,
                headers_to_add,
                upstream_headers: names.0,
                upstream_headers_to_append: names.1,
                client_headers: names.2,
                client_headers_on_success: names.3,
            })
        });
    let grpc =
        (name(), maybe_empty()).prop_map(|(cluster, authority)| AuthzProvider::Grpc { cluster, authority });
    prop_oneof![grpc, http].boxed()
}

fn ext_authz() -> BoxedStrategy<ExtAuthz> {
    let body =
        (1..=BODY_MAX, any::<bool>(), any::<bool>()).prop_map(|(max_bytes, allow_partial, as_bytes)| {
            BodyToCheck {
                max_bytes,
                allow_partial,
                as_bytes,
            }
        });
    (
        (authz_provider(), bound(), option::of(body), asked()),
        (200..=599u16, maybe_empty()),
        (
            option::of(vec(string_matcher(), 0..2)),
            vec(string_matcher(), 0..2),
        ),
        any::<[bool; 5]>(),
    )
        .prop_map(
            |((provider, timeout, body, asked), (status_on_error, stat_prefix), headers, flags)| ExtAuthz {
                provider,
                timeout,
                failure_mode_allow: flags[0],
                failure_mode_header: flags[1],
                status_on_error,
                clear_route_cache: flags[2],
                body,
                allowed_headers: headers.0,
                disallowed_headers: headers.1,
                include_peer_certificate: flags[3],
                include_tls_session: flags[4],
                stat_prefix,
                asked,
            },
        )
        .boxed()
}

fn network_ext_authz() -> BoxedStrategy<NetworkExtAuthz> {
    (
        (name(), maybe_empty(), bound(), name(), asked()),
        any::<[bool; 3]>(),
    )
        .prop_map(
            |((cluster, authority, timeout, stat_prefix, asked), flags)| NetworkExtAuthz {
                cluster,
                authority,
                timeout,
                failure_mode_allow: flags[0],
                include_peer_certificate: flags[1],
                include_tls_session: flags[2],
                stat_prefix,
                asked,
            },
        )
        .boxed()
}

fn filters() -> BoxedStrategy<Vec<HttpFilter>> {
    let filter = prop_oneof![
        rbac(true).prop_map(|it| HttpFilterKind::Rbac(Arc::new(it))),
        ext_authz().prop_map(|it| HttpFilterKind::ExtAuthz(Arc::new(it))),
        jwt_authn().prop_map(|it| HttpFilterKind::JwtAuthn(Arc::new(it))),
        local_rate_limit().prop_map(|it| HttpFilterKind::LocalRateLimit(Arc::new(it))),
        fault().prop_map(|it| HttpFilterKind::Fault(Arc::new(it))),
        Just(HttpFilterKind::Cors),
        istio_stats().prop_map(|it| HttpFilterKind::IstioStats(Arc::new(it))),
    ];
    (vec((filter, any::<bool>()), 0..3), any::<bool>())
        .prop_map(|(filters, suppress_envoy_headers)| {
            filters
                .into_iter()
                .enumerate()
                .map(|(at, (kind, disabled))| HttpFilter {
                    name: format!("filter{at}").into(),
                    disabled,
                    kind,
                })
                .chain([HttpFilter::router(RouterFilter {
                    suppress_envoy_headers,
                })])
                .collect()
        })
        .boxed()
}

// --- TLS ---

fn data_source() -> impl Strategy<Value = DataSource> {
    prop_oneof![
        name().prop_map(DataSource::File),
        vec(any::<u8>(), 0..9).prop_map(|it| DataSource::Inline(it.into())),
    ]
}

fn certificate() -> impl Strategy<Value = TlsCertificate> {
    (data_source(), data_source()).prop_map(|(chain, key)| TlsCertificate { chain, key })
}

fn validation_context() -> BoxedStrategy<ValidationContext> {
    let typed = (
        select(vec![SanKind::Dns, SanKind::Uri, SanKind::Ip]),
        string_matcher(),
    );
    (
        option::of(data_source()),
        (option::of(data_source()), any::<bool>()),
        vec(typed, 0..2),
        vec(string_matcher(), 0..2),
        (vec("[a-zA-Z0-9+/]{43}=", 0..2), vec("[0-9a-f]{64}", 0..2)),
        any::<bool>(),
    )
        .prop_map(
            |(
                trusted_ca,
                (crl, crl_of_leaf_only),
                typed,
                any_kind,
                (keys, certificates),
                accept_untrusted,
            )| ValidationContext {
                trusted_ca,
                crl,
                crl_of_leaf_only,
                pins: keys
                    .into_iter()
                    .map(|text| CertificatePin::Key(text.into()))
                    .chain(
                        certificates
                            .into_iter()
                            .map(|text| CertificatePin::Certificate(text.into())),
                    )
                    .collect(),
                subject_alt_names: typed
                    .into_iter()
                    .chain(any_kind.into_iter().map(|matcher| (SanKind::Any, matcher)))
                    .map(|(kind, matcher)| SanMatcher { kind, matcher })
                    .collect(),
                accept_untrusted,
            },
        )
        .boxed()
}

fn common_tls() -> BoxedStrategy<CommonTls> {
    let validation =
        (option::of(name()), validation_context()).prop_map(|(sds, context)| Validation { sds, context });
    let version = || option::of(select(vec![TlsVersion::V1_2, TlsVersion::V1_3]));
    (
        vec(certificate(), 0..2),
        vec(name(), 0..2),
        option::of(validation),
        vec(name(), 0..3),
        version(),
        version(),
        vec(name(), 0..2),
    )
        .prop_map(
            |(inline, sds, validation, alpn, min_version, max_version, groups)| CommonTls {
                certificates: inline
                    .into_iter()
                    .map(SecretSource::Inline)
                    .chain(sds.into_iter().map(SecretSource::Sds))
                    .collect(),
                validation,
                alpn,
                min_version,
                max_version,
                groups,
                certificate_provider: None,
            },
        )
        .boxed()
}

fn downstream_tls() -> BoxedStrategy<DownstreamTls> {
    (common_tls(), any::<bool>(), any::<bool>())
        .prop_map(
            |(common, require_client_certificate, disable_resumption)| DownstreamTls {
                common,
                require_client_certificate,
                disable_resumption,
            },
        )
        .boxed()
}

fn upstream_tls() -> BoxedStrategy<UpstreamTls> {
    (
        common_tls(),
        maybe_empty(),
        any::<bool>(),
        option::of(any::<u32>()),
    )
        .prop_map(
            |(common, sni, auto_san_validation, max_session_keys)| UpstreamTls {
                common,
                sni,
                auto_sni: false,
                auto_san_validation,
                max_session_keys,
            },
        )
        .boxed()
}

pub(super) fn secret() -> impl Strategy<Value = Secret> {
    let value = prop_oneof![
        certificate().prop_map(SecretValue::Certificate),
        validation_context().prop_map(SecretValue::Validation),
    ];
    (name(), value).prop_map(|(name, value)| Secret { name, value })
}

// --- clusters and endpoints ---

pub(super) fn assignment(names: bool) -> BoxedStrategy<LoadAssignment> {
    let dns = (name(), any::<u16>()).prop_map(|(host, port)| EndpointAddress::Dns {
        host: format!("h{host}").into(),
        port,
    });
    let address = prop_oneof![
        3 => socket().prop_map(EndpointAddress::Socket),
        1 => name().prop_map(EndpointAddress::Pipe),
    ];
    let address = if names {
        prop_oneof![address, dns].boxed()
    } else {
        address.boxed()
    };
    let health = select(vec![
        Health::Unknown,
        Health::Healthy,
        Health::Unhealthy,
        Health::Draining,
        Health::Degraded,
    ]);
    let endpoint = (
        address,
        health,
        1..100u32,
        maybe_empty(),
        labels(),
        maybe_empty(),
        labels(),
    )
        .prop_map(
            |(address, health, weight, hostname, tls_labels, workload, lb_labels)| Endpoint {
                address,
                health,
                weight,
                hostname,
                tls_labels,
                workload,
                lb_labels,
            },
        );
    let locality =
        (maybe_empty(), maybe_empty(), maybe_empty()).prop_map(|(region, zone, sub_zone)| Locality {
            region,
            zone,
            sub_zone,
        });
    let localities = (locality, 0..5u32, option::of(any::<u32>()), vec(endpoint, 0..3)).prop_map(
        |(locality, priority, weight, endpoints)| LocalityEndpoints {
            locality,
            priority,
            weight,
            endpoints,
        },
    );
    (name(), vec(localities, 0..3), option::of(1..1000u32))
        .prop_map(
            |(cluster_name, localities, overprovisioning_percent)| LoadAssignment {
                cluster_name,
                localities,
                overprovisioning_percent,
            },
        )
        .boxed()
}

fn http1() -> impl Strategy<Value = Http1Options> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(accept_http_10, preserve_case, enable_trailers)| Http1Options {
            accept_http_10,
            preserve_case,
            enable_trailers,
        },
    )
}

fn http2() -> BoxedStrategy<Http2Options> {
    let window = || option::of(65_535..=2_147_483_647u32);
    (
        option::of(1..1000u32),
        window(),
        window(),
        any::<bool>(),
        option::of((millis(1), millis(1))),
    )
        .prop_map(
            |(streams, stream, connection, allow_connect, keepalive)| Http2Options {
                max_concurrent_streams: streams,
                initial_stream_window_size: stream,
                initial_connection_window_size: connection,
                allow_connect,
                keepalive,
            },
        )
        .boxed()
}

fn outlier() -> BoxedStrategy<OutlierDetection> {
    let count = || option::of(1..100u32);
    (
        (count(), count(), count(), any::<bool>()),
        (millis(1), millis(0), 0..100_000u64, 0..=100u32),
        vec(100..600u16, 0..3),
    )
        .prop_map(
            |((five, gateway, local, split), (interval, base, more, percent), error_statuses)| {
                OutlierDetection {
                    consecutive_5xx: five,
                    consecutive_gateway_failure: gateway,
                    consecutive_local_origin_failure: local.filter(|_| split),
                    split_external_local_origin_errors: split,
                    interval,
                    base_ejection_time: base,
                    max_ejection_time: base + Duration::from_millis(more),
                    max_ejection_percent: Percent::from_millionths(percent * 10_000),
                    error_statuses,
                }
            },
        )
        .boxed()
}

fn health_check() -> BoxedStrategy<HealthCheck> {
    let ranges = |least| {
        vec(
            (100..599u16, 1..50u16).prop_map(|(from, more)| from..(from + more).min(600)),
            least..3,
        )
    };
    let question = prop_oneof![
        (
            maybe_empty(),
            "/[a-z?=&]{0,9}",
            any::<bool>(),
            ranges(1),
            ranges(0)
        )
            .prop_map(|(host, path, http2, expected, retriable)| HealthQuestion::Http {
                host,
                path: path.into(),
                http2,
                expected,
                retriable,
            }),
        Just(HealthQuestion::Tcp),
        (maybe_empty(), maybe_empty())
            .prop_map(|(service, authority)| HealthQuestion::Grpc { service, authority }),
    ];
    (millis(1), millis(1), millis(0), 1..100u32, 1..100u32, question)
        .prop_map(
            |(timeout, interval, interval_jitter, unhealthy_threshold, healthy_threshold, question)| {
                HealthCheck {
                    timeout,
                    interval,
                    interval_jitter,
                    unhealthy_threshold,
                    healthy_threshold,
                    question,
                }
            },
        )
        .boxed()
}

fn discovery() -> BoxedStrategy<Discovery> {
    prop_oneof![
        assignment(false).prop_map(Discovery::Static),
        assignment(true).prop_map(Discovery::StrictDns),
        name().prop_map(|service_name| Discovery::Eds { service_name }),
        Just(Discovery::OriginalDst),
    ]
    .boxed()
}

fn breakers() -> BoxedStrategy<CircuitBreakers> {
    let budget = (percent(), any::<u32>()).prop_map(|(percent, min_concurrency)| RetryBudget {
        percent,
        min_concurrency,
    });
    (any::<[u32; 4]>(), option::of(budget))
        .prop_map(|([a, b, c, d], retry_budget)| CircuitBreakers {
            max_connections: a,
            max_pending_requests: b,
            max_requests: c,
            max_retries: d,
            retry_budget,
        })
        .boxed()
}

fn keepalive() -> impl Strategy<Value = TcpKeepalive> {
    let seconds = || option::of((0..1000u64).prop_map(Duration::from_secs));
    (option::of(any::<u32>()), seconds(), seconds()).prop_map(|(probes, time, interval)| TcpKeepalive {
        probes,
        time,
        interval,
    })
}

fn bind() -> impl Strategy<Value = UpstreamBind> {
    let source =
        (1..=255u8, any::<u16>()).prop_map(|(host, port)| SocketAddr::from(([127, 0, 0, host], port)));
    prop_oneof![
        (source.clone(), option::of(name())).prop_map(|(source, netns)| UpstreamBind {
            source: Some(source),
            netns
        }),
        name().prop_map(|netns| UpstreamBind {
            source: None,
            netns: Some(netns)
        }),
    ]
}

pub(super) fn cluster() -> BoxedStrategy<Cluster> {
    let policy = prop_oneof![
        Just(LbPolicy::RoundRobin),
        (2..9u32).prop_map(|choices| LbPolicy::LeastRequest { choices }),
        Just(LbPolicy::Random),
        Just(LbPolicy::ClusterProvided),
        any::<u64>().prop_map(|minimum_ring_size| LbPolicy::RingHash { minimum_ring_size }),
        any::<u64>().prop_map(|table_size| LbPolicy::Maglev { table_size }),
    ];
    let protocol = prop_oneof![
        http1().prop_map(UpstreamProtocol::Http1),
        http2().prop_map(UpstreamProtocol::Http2),
        (http1(), http2()).prop_map(|(one, two)| UpstreamProtocol::UseDownstream(one, two)),
        (http1(), http2()).prop_map(|(one, two)| UpstreamProtocol::Auto(one, two)),
    ];
    let tls_match = (name(), labels(), option::of(upstream_tls())).prop_map(|(name, labels, tls)| TlsMatch {
        name,
        labels,
        tls,
    });
    let dns =
        (millis(1), any::<bool>(), any::<bool>()).prop_map(|(refresh, respect_ttl, v4_only)| DnsSettings {
            refresh,
            respect_ttl,
            v4_only,
        });
    let service = (name(), name(), name()).prop_map(|(host, name, namespace)| ServiceRef {
        host,
        name,
        namespace,
    });
    (
        (
            name(),
            maybe_empty(),
            discovery(),
            millis(1),
            policy,
            percent(),
            any::<bool>(),
        ),
        (
            breakers(),
            option::of(outlier()),
            option::of(health_check()),
            option::of(upstream_tls()),
            vec(tls_match, 0..3),
            any::<bool>(),
        ),
        (
            protocol,
            bound(),
            option::of(1..=u32::MAX),
            bound(),
            option::of(keepalive()),
            option::of(bind()),
        ),
        (
            option::of(any::<u32>()),
            any::<bool>(),
            dns,
            option::of(service),
            origin(),
        ),
    )
        .prop_map(
            |(
                (
                    name,
                    alt_stat_name,
                    discovery,
                    connect_timeout,
                    lb_policy,
                    panic_threshold,
                    locality_weighted,
                ),
                (circuit_breakers, outlier_detection, health_check, mut tls, mut tls_matches, auto_sni),
                (protocol, idle_timeout, max_requests, max_connection_duration, tcp_keepalive, bind),
                (per_connection_buffer_limit, close, dns, service, origin),
            )| {
                // One option of the cluster for all its sockets.
                for tls in tls
                    .iter_mut()
                    .chain(tls_matches.iter_mut().filter_map(|it| it.tls.as_mut()))
                {
                    tls.auto_sni = auto_sni;
                }
                Cluster {
                    name,
                    alt_stat_name,
                    discovery,
                    connect_timeout,
                    lb_policy,
                    panic_threshold,
                    locality_weighted,
                    circuit_breakers,
                    outlier_detection,
                    health_check,
                    tls,
                    tls_matches,
                    protocol,
                    idle_timeout,
                    max_requests_per_connection: max_requests,
                    max_connection_duration,
                    tcp_keepalive,
                    bind,
                    per_connection_buffer_limit,
                    close_connections_on_host_health_failure: close,
                    dns,
                    service,
                    origin,
                }
            },
        )
        .boxed()
}

// --- listeners ---

fn manager() -> BoxedStrategy<HttpConnectionManager> {
    let routes = prop_oneof![
        routes().prop_map(|it| RouteSource::Inline(Arc::new(it))),
        name().prop_map(RouteSource::Rds),
    ];
    let forward = select(vec![
        ForwardClientCert::Sanitize,
        ForwardClientCert::ForwardOnly,
        ForwardClientCert::AppendForward,
        ForwardClientCert::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly,
    ]);
    let details = (any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(subject, uri, dns)| ClientCertDetails { subject, uri, dns });
    (
        (
            select(vec![Codec::Auto, Codec::Http1, Codec::Http2]),
            maybe_empty(),
            routes,
            filters(),
            vec(filtered_log(), 0..2),
        ),
        (
            any::<bool>(),
            any::<u32>(),
            forward,
            details,
            bound(),
            bound(),
            bound(),
            bound(),
            bound(),
        ),
        (
            option::of(1..=u32::MAX),
            millis(0),
            1..=8192u32,
            any::<u32>(),
            any::<bool>(),
            any::<bool>(),
        ),
        (
            vec((name(), any::<bool>()), 0..2),
            any::<bool>(),
            any::<bool>(),
            name(),
        ),
        (
            select(vec![
                ServerHeader::Overwrite,
                ServerHeader::AppendIfAbsent,
                ServerHeader::PassThrough,
            ]),
            any::<bool>(),
            select(vec![HostPort::Keep, HostPort::StripMatching, HostPort::StripAny]),
            http1(),
            http2(),
            option::of(tracing()),
        ),
    )
        .prop_map(
            |(
                (codec, stat_prefix, routes, filters, access_logs),
                (
                    use_remote_address,
                    xff_num_trusted_hops,
                    forward_client_cert,
                    client_cert_details,
                    idle_timeout,
                    stream_idle_timeout,
                    request_timeout,
                    request_headers_timeout,
                    max_connection_duration,
                ),
                (max_requests, drain_timeout, head_kb, headers, generate_request_id, preserve),
                (upgrades, normalize_path, merge_slashes, server_name),
                (server_header, proxy_100_continue, strip_host_port, http1, http2, tracing),
            )| HttpConnectionManager {
                codec,
                stat_prefix,
                routes,
                filters,
                access_logs,
                use_remote_address,
                xff_num_trusted_hops,
                forward_client_cert,
                client_cert_details,
                idle_timeout,
                stream_idle_timeout,
                request_timeout,
                request_headers_timeout,
                max_connection_duration,
                max_requests_per_connection: max_requests,
                drain_timeout,
                max_request_headers_kb: head_kb,
                max_request_headers_count: headers,
                generate_request_id,
                preserve_external_request_id: preserve,
                upgrades,
                normalize_path,
                merge_slashes,
                unescape_slashes: merge_slashes && !normalize_path,
                server_name,
                server_header,
                proxy_100_continue,
                strip_host_port,
                http1,
                http2,
                tracing,
            },
        )
        .boxed()
}

fn tracing() -> BoxedStrategy<Tracing> {
    let tag = prop_oneof![
        name().prop_map(tracing::TagValue::Literal),
        (name(), maybe_empty())
            .prop_map(|(name, default)| tracing::TagValue::RequestHeader { name, default }),
    ];
    let tag = (name(), tag).prop_map(|(tag, value)| CustomTag { tag, value });
    let provider =
        (name(), maybe_empty(), bound(), name()).prop_map(|(cluster, authority, timeout, service_name)| {
            OpenTelemetry {
                cluster,
                authority,
                timeout,
                service_name,
            }
        });
    (
        (percent(), percent(), percent()),
        any::<u32>(),
        vec(tag, 0..2),
        option::of(provider),
    )
        .prop_map(
            |((client, random, overall), max_path_length, tags, provider)| Tracing {
                client,
                random,
                overall,
                max_path_length,
                tags,
                provider,
            },
        )
        .boxed()
}

fn chain_match() -> impl Strategy<Value = FilterChainMatch> {
    let nets = || {
        vec(
            select(vec!["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32"])
                .prop_map(|it| it.parse().expect("valid")),
            0..3,
        )
    };
    (
        option::of(1..=u16::MAX),
        nets(),
        vec("(\\*\\.)?[a-z]{1,4}\\.[a-z]{1,3}".prop_map(Text::from), 0..2),
        option::of(select(vec![TransportProtocol::Tls, TransportProtocol::RawBuffer])),
        vec(name(), 0..2),
        nets(),
        vec(any::<u16>(), 0..2),
    )
        .prop_map(
            |(port, prefix_ranges, names, transport, protocols, sources, source_ports)| FilterChainMatch {
                destination_port: port,
                prefix_ranges,
                server_names: names,
                transport_protocol: transport,
                application_protocols: protocols,
                source_prefix_ranges: sources,
                source_ports,
            },
        )
}

fn chain() -> BoxedStrategy<FilterChain> {
    let tcp = (
        maybe_empty(),
        vec((name(), 1..100u32), 1..3),
        bound(),
        option::of(millis(0)),
        1..9u32,
        vec(filtered_log(), 0..2),
        option::of(istio_stats().prop_map(Arc::new)),
    )
        .prop_map(
            |(stat_prefix, clusters, idle_timeout, longest, attempts, access_logs, stats)| {
                ChainAction::Tcp(Arc::new(TcpProxy {
                    stat_prefix,
                    clusters,
                    idle_timeout,
                    max_downstream_connection_duration: longest,
                    max_connect_attempts: attempts,
                    access_logs,
                    stats,
                }))
            },
        );
    let action = prop_oneof![tcp, manager().prop_map(|it| ChainAction::Http(Arc::new(it)))];
    (
        chain_match(),
        option::of(downstream_tls()),
        millis(0),
        vec(rbac(false).prop_map(Arc::new), 0..2),
        (
            option::of((0..3_usize, network_ext_authz().prop_map(Arc::new))),
            any::<bool>(),
        ),
        action,
        origin(),
    )
        .prop_map(
            |(matches, tls, transport_connect_timeout, rbac, (asked, judges_open), action, origin)| {
                FilterChain {
                    name: Text::default(),
                    matches,
                    tls,
                    transport_connect_timeout,
                    ext_authz: asked.map(|(after, authz)| (after.min(rbac.len()), authz)),
                    rbac,
                    judges_open,
                    action,
                    origin,
                }
            },
        )
        .boxed()
}

pub(super) fn listener() -> BoxedStrategy<Listener> {
    let inspectors =
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(original_dst, tls, http)| Inspectors {
            original_dst,
            tls,
            http,
        });
    (
        (
            name(),
            socket(),
            option::of(name()),
            any::<bool>(),
            any::<bool>(),
            inspectors,
            millis(0),
            any::<bool>(),
        ),
        (
            vec(chain(), 1..3),
            option::of(chain()),
            vec(access_log(Just(LogFilter::NoRoute)), 0..2),
            option::of(any::<u32>()),
        ),
        select(vec![
            Direction::Unspecified,
            Direction::Inbound,
            Direction::Outbound,
        ]),
        option::weighted(0.1, manager()),
        origin(),
    )
        .prop_map(
            |(
                (
                    name,
                    socket,
                    netns,
                    bind_to_port,
                    use_original_dst,
                    inspectors,
                    inspection_timeout,
                    goes_on,
                ),
                (chains, default, access_logs, per_connection_buffer_limit),
                direction,
                api,
                origin,
            )| Listener {
                name,
                address: ListenerAddress { socket, netns },
                bind_to_port,
                use_original_dst,
                inspectors,
                inspection_timeout,
                continue_on_inspection_timeout: goes_on,
                filter_chains: chains
                    .into_iter()
                    .enumerate()
                    .map(|(at, mut chain)| {
                        // Conditions and names are unique in a listener.
                        chain.name = format!("chain{at}").into();
                        chain
                            .matches
                            .source_ports
                            .push(u16::try_from(at).expect("few chains"));
                        Arc::new(chain)
                    })
                    .collect(),
                default_filter_chain: default.map(Arc::new),
                direction,
                access_logs,
                per_connection_buffer_limit,
                api_listener: api.map(Arc::new),
                origin,
            },
        )
        .boxed()
}

pub(super) fn names() -> impl Strategy<Value = NameTable> {
    prop::collection::btree_map(
        name().prop_map(|it| format!("{it}x").into()),
        vec(any::<IpAddr>(), 0..3).prop_map(Into::into),
        0..4,
    )
    .prop_map(NameTable::new)
}
