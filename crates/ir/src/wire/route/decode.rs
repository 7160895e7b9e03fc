//! `envoy.config.route.v3` → `ir`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rajut_proto::{
    core::{self, header_value_option::HeaderAppendAction},
    route::{
        self as pb,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        retry_policy::{retry_host_predicate, retry_priority},
        route::Action,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HashPolicy as HashPolicyMessage,
            HostRewriteSpecifier, RequestMirrorPolicy, hash_policy,
        },
        route_match::PathSpecifier,
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
    type_url,
};
use rajut_types::{Percent, Text};

use crate::{
    route::{
        AppendAction, DirectResponse, Forward, HashPolicy, HeaderMutations, HeaderValue, HostRewrite, Mirror,
        PathMatch, PathRewrite, Redirect, RedirectPath, RetryOn, RetryPolicy, Route, RouteActionKind,
        RouteConfiguration, RouteMatch, Target, VirtualHost, WeightedCluster,
    },
    tls::DataSource,
    wire::{
        Fault, filter, jwt,
        matcher::{self, lower},
        origin, rate_limit,
        read::{Place, Reader, is_true, number},
    },
};

/// Envoy: `RouteAction.timeout`.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy: `RetryBackOff.base_interval`.
const BASE_INTERVAL: Duration = Duration::from_millis(25);

pub(in crate::wire) fn from_message(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &pb::RouteConfiguration,
) -> RouteConfiguration {
    let hosts: Vec<_> = message
        .virtual_hosts
        .iter()
        .enumerate()
        .map(|(at, host)| Arc::new(decode_host(reader, &place.item("virtual_hosts", at), host)))
        .collect();
    unique_hosts(reader, place, &hosts);
    RouteConfiguration {
        name: message.name.as_str().into(),
        virtual_hosts: hosts,
        ignore_port_in_host_matching: message.ignore_port_in_host_matching,
        filters: filter::decode_overrides(reader, place, &message.typed_per_filter_config),
        headers: HeaderMutations {
            request_set: headers_to_add(
                reader,
                place,
                "request_headers_to_add",
                &message.request_headers_to_add,
            ),
            request_remove: names(&message.request_headers_to_remove),
            response_set: headers_to_add(
                reader,
                place,
                "response_headers_to_add",
                &message.response_headers_to_add,
            ),
            response_remove: names(&message.response_headers_to_remove),
        },
    }
}

/// Envoy refuses a domain, or a virtual host's name, that stands twice.
fn unique_hosts(reader: &mut Reader, place: &Place<'_>, hosts: &[Arc<VirtualHost>]) {
    let (mut domains, mut host_names) = (BTreeSet::new(), BTreeSet::new());
    for (at, host) in hosts.iter().enumerate() {
        let place = place.item("virtual_hosts", at);
        if !host_names.insert(&host.name) {
            reader.fault(&place.field("name"), Fault::Duplicate(host.name.to_string()));
        }
        for (index, domain) in host.domains.iter().enumerate() {
            if !domains.insert(domain) {
                reader.fault(
                    &place.item("domains", index),
                    Fault::Duplicate(domain.to_string()),
                );
            }
        }
    }
}

fn decode_host(reader: &mut Reader, place: &Place<'_>, host: &pb::VirtualHost) -> VirtualHost {
    if host.domains.is_empty() {
        reader.fault(&place.field("domains"), Fault::Missing("at least one domain"));
    }
    for (at, domain) in host.domains.iter().enumerate() {
        let rest = domain
            .strip_prefix('*')
            .or_else(|| domain.strip_suffix('*'))
            .unwrap_or(domain);
        if domain.is_empty() || rest.contains('*') {
            reader.bad_text(
                &place.item("domains", at),
                domain,
                "a host name, `*`, or one with a single `*` at its begin or end",
            );
        }
    }
    VirtualHost {
        name: reader.named(&place.field("name"), &host.name, "the virtual host's name"),
        domains: host
            .domains
            .iter()
            .map(|it| it.to_ascii_lowercase().into())
            .collect(),
        routes: host
            .routes
            .iter()
            .enumerate()
            .filter_map(|(at, route)| decode_route(reader, &place.item("routes", at), route))
            .map(Arc::new)
            .collect(),
        retry_policy: host
            .retry_policy
            .as_ref()
            .map(|retry| decode_retry(reader, &place.field("retry_policy"), retry)),
        headers: HeaderMutations {
            request_set: headers_to_add(
                reader,
                place,
                "request_headers_to_add",
                &host.request_headers_to_add,
            ),
            request_remove: names(&host.request_headers_to_remove),
            response_set: headers_to_add(
                reader,
                place,
                "response_headers_to_add",
                &host.response_headers_to_add,
            ),
            response_remove: names(&host.response_headers_to_remove),
        },
        include_request_attempt_count: host.include_request_attempt_count,
        filters: filter::decode_overrides(reader, place, &host.typed_per_filter_config),
        rate_limits: rate_limit::decode_limits(reader, place, &host.rate_limits),
        origin: origin::decode(host.metadata.as_ref(), "VirtualHost", &host.name),
    }
}

fn decode_route(reader: &mut Reader, place: &Place<'_>, route: &pb::Route) -> Option<Route> {
    let filters = filter::decode_overrides(reader, place, &route.typed_per_filter_config);
    let headers = HeaderMutations {
        request_set: headers_to_add(
            reader,
            place,
            "request_headers_to_add",
            &route.request_headers_to_add,
        ),
        request_remove: names(&route.request_headers_to_remove),
        response_set: headers_to_add(
            reader,
            place,
            "response_headers_to_add",
            &route.response_headers_to_add,
        ),
        response_remove: names(&route.response_headers_to_remove),
    };
    let match_place = place.field("match");
    let matches = reader
        .required(&match_place, route.r#match.as_ref(), "the route's conditions")
        .and_then(|matches| decode_match(reader, &match_place, matches));
    let action = match &route.action {
        Some(Action::Route(action)) => decode_forward(reader, &place.field("route"), action)
            .map(|forward| RouteActionKind::Forward(Box::new(forward))),
        Some(Action::Redirect(redirect)) => Some(RouteActionKind::Redirect(Box::new(decode_redirect(
            reader,
            &place.field("redirect"),
            redirect,
        )))),
        Some(Action::DirectResponse(response)) => {
            decode_response(reader, &place.field("direct_response"), response)
                .map(RouteActionKind::DirectResponse)
        }
        Some(Action::NonForwardingAction(_)) => Some(RouteActionKind::NonForwarding),
        // Refused by the list of supported fields.
        Some(Action::FilterAction(_)) => None,
        None => reader.required(
            place,
            None,
            "route, redirect, direct_response or non_forwarding_action",
        ),
    };
    Some(Route {
        name: route.name.as_str().into(),
        matches: matches?,
        action: action?,
        headers,
        filters,
        decorator: route.decorator.as_ref().map_or("", |it| &it.operation).into(),
        origin: origin::decode(route.metadata.as_ref(), "Route", &route.name),
    })
}

fn decode_match(reader: &mut Reader, place: &Place<'_>, matches: &pb::RouteMatch) -> Option<RouteMatch> {
    let mut headers = Vec::with_capacity(matches.headers.len());
    for (at, header) in matches.headers.iter().enumerate() {
        headers.extend(matcher::decode_header(reader, &place.item("headers", at), header));
    }
    let mut query = Vec::with_capacity(matches.query_parameters.len());
    for (at, parameter) in matches.query_parameters.iter().enumerate() {
        query.extend(matcher::decode_query(
            reader,
            &place.item("query_parameters", at),
            parameter,
        ));
    }
    let path = match &matches.path_specifier {
        Some(PathSpecifier::Prefix(text)) => PathMatch::Prefix(text.as_str().into()),
        Some(PathSpecifier::Path(text)) => PathMatch::Exact(text.as_str().into()),
        Some(PathSpecifier::SafeRegex(regex)) => PathMatch::Regex(matcher::decode_regex(
            reader,
            &place.field("safe_regex"),
            Some(regex),
        )?),
        Some(PathSpecifier::PathSeparatedPrefix(text)) => {
            if text.len() < 2 || !text.starts_with('/') || text.ends_with('/') {
                reader.bad_text(
                    &place.field("path_separated_prefix"),
                    text,
                    "a path that begins with `/` and does not end with it",
                );
            }
            PathMatch::SeparatedPrefix(text.as_str().into())
        }
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        // Refused by the list of supported fields.
        Some(PathSpecifier::PathMatchPolicy(_)) => return None,
        None => {
            return reader.required(
                place,
                None,
                "prefix, path, safe_regex, path_separated_prefix or connect_matcher",
            );
        }
    };
    let mut claims = Vec::with_capacity(matches.dynamic_metadata.len());
    for (at, claim) in matches.dynamic_metadata.iter().enumerate() {
        claims.extend(jwt::decode_route_claim(
            reader,
            &place.item("dynamic_metadata", at),
            claim,
        ));
    }
    Some(RouteMatch {
        claims,
        path,
        case_sensitive: matches.case_sensitive.as_ref().is_none_or(|it| it.value),
        headers,
        query,
        grpc: matches.grpc.is_some(),
        fraction: matches
            .runtime_fraction
            .as_ref()
            .map(|it| reader.runtime_fraction(&place.field("runtime_fraction"), it)),
    })
}

fn decode_forward(reader: &mut Reader, place: &Place<'_>, action: &pb::RouteAction) -> Option<Forward> {
    let target = decode_target(reader, place, action.cluster_specifier.as_ref());
    let code = place.field("cluster_not_found_response_code");
    let longest = action.max_stream_duration.unwrap_or_default();
    let longest_place = place.field("max_stream_duration");
    #[expect(deprecated, reason = "older control planes send the old field")]
    let include_virtual_host_limits = is_true(action.include_vh_rate_limits.as_ref());
    #[expect(deprecated, reason = "older control planes send the old field")]
    let grpc_max = longest
        .grpc_timeout_header_max
        .as_ref()
        .or(action.max_grpc_timeout.as_ref());
    Some(Forward {
        target: target?,
        cluster_not_found_status: match reader.enumerator(&code, action.cluster_not_found_response_code) {
            ClusterNotFoundResponseCode::ServiceUnavailable => 503,
            ClusterNotFoundResponseCode::NotFound => 404,
            ClusterNotFoundResponseCode::InternalServerError => 500,
        },
        timeout: reader.bound(&place.field("timeout"), action.timeout.as_ref(), Some(TIMEOUT)),
        idle_timeout: reader.duration(&place.field("idle_timeout"), action.idle_timeout.as_ref()),
        max_stream_duration: reader.bound(
            &longest_place.field("max_stream_duration"),
            longest.max_stream_duration.as_ref(),
            None,
        ),
        grpc_timeout_max: reader.duration(&longest_place.field("grpc_timeout_header_max"), grpc_max),
        retry: action
            .retry_policy
            .as_ref()
            .map(|retry| decode_retry(reader, &place.field("retry_policy"), retry)),
        path_rewrite: decode_path_rewrite(reader, place, action),
        host_rewrite: decode_host_rewrite(reader, place, action.host_rewrite_specifier.as_ref()),
        append_x_forwarded_host: action.append_x_forwarded_host,
        hash: action
            .hash_policy
            .iter()
            .enumerate()
            .filter_map(|(at, hash)| decode_hash(reader, &place.item("hash_policy", at), hash))
            .collect(),
        mirrors: action
            .request_mirror_policies
            .iter()
            .enumerate()
            .map(|(at, mirror)| decode_mirror(reader, &place.item("request_mirror_policies", at), mirror))
            .collect(),
        upgrades: action
            .upgrade_configs
            .iter()
            .map(|upgrade| {
                let enabled = upgrade.enabled.as_ref().is_none_or(|it| it.value);
                (upgrade.upgrade_type.to_ascii_lowercase().into(), enabled)
            })
            .collect(),
        rate_limits: rate_limit::decode_limits(reader, place, &action.rate_limits),
        include_virtual_host_limits,
    })
}

fn decode_target(
    reader: &mut Reader,
    place: &Place<'_>,
    target: Option<&ClusterSpecifier>,
) -> Option<Target> {
    match target {
        Some(ClusterSpecifier::Cluster(name)) => Some(Target::Cluster(reader.named(
            &place.field("cluster"),
            name,
            "the cluster's name",
        ))),
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            let name = reader.named(&place.field("cluster_header"), name, "the header's name");
            Some(Target::Header(lower(&name)))
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let place = place.field("weighted_clusters");
            let clusters: Vec<_> = weighted
                .clusters
                .iter()
                .enumerate()
                .map(|(at, cluster)| decode_weighted(reader, &place.item("clusters", at), cluster))
                .collect();
            let total: u64 = clusters.iter().map(|it| u64::from(it.weight)).sum();
            if total == 0 || total > u64::from(u32::MAX) {
                reader.out_of_range(
                    &place.field("clusters"),
                    format_args!("a sum of weights of {total}"),
                    "1 to 4294967295",
                );
            }
            Some(Target::Weighted(clusters))
        }
        // Refused by the list of supported fields.
        Some(
            ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        ) => None,
        None => reader.required(place, None, "cluster, cluster_header or weighted_clusters"),
    }
}

fn decode_weighted(reader: &mut Reader, place: &Place<'_>, cluster: &ClusterWeight) -> WeightedCluster {
    let filters = filter::decode_overrides(reader, place, &cluster.typed_per_filter_config);
    let headers = HeaderMutations {
        request_set: headers_to_add(
            reader,
            place,
            "request_headers_to_add",
            &cluster.request_headers_to_add,
        ),
        request_remove: names(&cluster.request_headers_to_remove),
        response_set: headers_to_add(
            reader,
            place,
            "response_headers_to_add",
            &cluster.response_headers_to_add,
        ),
        response_remove: names(&cluster.response_headers_to_remove),
    };
    WeightedCluster {
        name: reader.named(&place.field("name"), &cluster.name, "the cluster's name"),
        weight: number(cluster.weight.as_ref()).unwrap_or(0),
        headers,
        host_rewrite: cluster.host_rewrite_specifier.as_ref().map(|it| {
            let cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) = it;
            host.as_str().into()
        }),
        filters,
        origin: origin::decode(cluster.metadata_match.as_ref(), "WeightedCluster", &cluster.name),
    }
}

fn decode_path_rewrite(
    reader: &mut Reader,
    place: &Place<'_>,
    action: &pb::RouteAction,
) -> Option<PathRewrite> {
    match &action.regex_rewrite {
        None if action.prefix_rewrite.is_empty() => None,
        None => Some(PathRewrite::Prefix(action.prefix_rewrite.as_str().into())),
        Some(_) if !action.prefix_rewrite.is_empty() => {
            reader.value(
                &place.field("regex_rewrite"),
                "beside prefix_rewrite",
                "write one of the two",
            );
            None
        }
        Some(rewrite) => {
            let place = place.field("regex_rewrite");
            Some(PathRewrite::Regex {
                pattern: matcher::decode_regex(reader, &place.field("pattern"), rewrite.pattern.as_ref())?,
                substitution: rewrite.substitution.as_str().into(),
            })
        }
    }
}

fn decode_host_rewrite(
    reader: &mut Reader,
    place: &Place<'_>,
    rewrite: Option<&HostRewriteSpecifier>,
) -> Option<HostRewrite> {
    match rewrite? {
        HostRewriteSpecifier::HostRewriteLiteral(text) => Some(HostRewrite::Literal(text.as_str().into())),
        HostRewriteSpecifier::AutoHostRewrite(auto) => auto.value.then_some(HostRewrite::Auto),
        HostRewriteSpecifier::HostRewriteHeader(name) => {
            let name = reader.named(&place.field("host_rewrite_header"), name, "the header's name");
            Some(HostRewrite::Header(lower(&name)))
        }
        // Refused by the list of supported fields.
        HostRewriteSpecifier::HostRewritePathRegex(_) | HostRewriteSpecifier::HostRewrite(_) => None,
    }
}

fn decode_mirror(reader: &mut Reader, place: &Place<'_>, mirror: &RequestMirrorPolicy) -> Mirror {
    Mirror {
        cluster: reader.named(&place.field("cluster"), &mirror.cluster, "the cluster's name"),
        fraction: mirror.runtime_fraction.as_ref().map_or(Percent::ALL, |it| {
            reader.runtime_fraction(&place.field("runtime_fraction"), it)
        }),
        shadow_host_suffix: !mirror.disable_shadow_host_suffix_append,
        traced: mirror.trace_sampled.as_ref().is_none_or(|it| it.value),
    }
}

fn decode_hash(reader: &mut Reader, place: &Place<'_>, hash: &HashPolicyMessage) -> Option<HashPolicy> {
    use hash_policy::PolicySpecifier;
    match &hash.policy_specifier {
        Some(PolicySpecifier::Header(header)) => {
            let place = place.field("header");
            let name = reader.named(
                &place.field("header_name"),
                &header.header_name,
                "the header's name",
            );
            Some(HashPolicy::Header(lower(&name)))
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            let place = place.field("cookie");
            Some(HashPolicy::Cookie {
                name: reader.named(&place.field("name"), &cookie.name, "the cookie's name"),
                ttl: reader.duration(&place.field("ttl"), cookie.ttl.as_ref()),
                path: cookie.path.as_str().into(),
            })
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) => {
            properties.source_ip.then_some(HashPolicy::SourceIp)
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => {
            let place = place.field("query_parameter");
            Some(HashPolicy::QueryParameter(reader.named(
                &place.field("name"),
                &parameter.name,
                "the parameter's name",
            )))
        }
        // Refused by the list of supported fields.
        Some(PolicySpecifier::FilterState(_)) => None,
        None => reader.required(
            place,
            None,
            "header, cookie, connection_properties or query_parameter",
        ),
    }
}

/// `envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct PreviousPriorities {
    #[prost(int32, tag = "1")]
    pub(super) update_frequency: i32,
}

fn decode_retry(reader: &mut Reader, place: &Place<'_>, retry: &pb::RetryPolicy) -> RetryPolicy {
    let back_off = retry.retry_back_off.unwrap_or_default();
    let back_off_place = place.field("retry_back_off");
    let base_place = back_off_place.field("base_interval");
    let base = reader.bound(&base_place, back_off.base_interval.as_ref(), Some(BASE_INTERVAL));
    let base = base.unwrap_or(BASE_INTERVAL);
    let max_place = back_off_place.field("max_interval");
    let longest = reader.bound(&max_place, back_off.max_interval.as_ref(), None);
    let longest = longest.unwrap_or(base.saturating_mul(10));
    if longest < base {
        reader.out_of_range(&max_place, format_args!("{longest:?}"), "base_interval or more");
    }
    let avoids = decode_predicates(reader, place, retry);
    let attempts = place.field("host_selection_retry_max_attempts");
    let attempts = if let Ok(count) = u32::try_from(retry.host_selection_retry_max_attempts) {
        count
    } else {
        reader.out_of_range(
            &attempts,
            retry.host_selection_retry_max_attempts,
            "0 to 4294967295",
        );
        0
    };
    RetryPolicy {
        on: decode_retry_on(reader, &place.field("retry_on"), &retry.retry_on),
        num_retries: number(retry.num_retries.as_ref()).unwrap_or(1),
        per_try_timeout: reader.bound(
            &place.field("per_try_timeout"),
            retry.per_try_timeout.as_ref(),
            None,
        ),
        per_try_idle_timeout: reader.bound(
            &place.field("per_try_idle_timeout"),
            retry.per_try_idle_timeout.as_ref(),
            None,
        ),
        base_interval: base,
        max_interval: longest,
        status_codes: retry
            .retriable_status_codes
            .iter()
            .enumerate()
            .map(|(at, code)| status(reader, &place.item("retriable_status_codes", at), *code, 100))
            .collect(),
        // Envoy: one attempt where the number is left out.
        avoid_previous_hosts_attempts: if avoids { attempts.max(1) } else { 0 },
        previous_priorities_update: decode_priority(reader, place, retry),
    }
}

fn decode_retry_on(reader: &mut Reader, place: &Place<'_>, text: &str) -> RetryOn {
    let mut on = RetryOn::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match RetryOn::named(name) {
            Some(condition) => on = on.with(condition),
            None => reader.bad_text(
                place,
                name,
                "one of 5xx, gateway-error, reset, reset-before-request, connect-failure, refused-stream, \
                 retriable-4xx, retriable-status-codes, envoy-ratelimited, http3-post-connect-failure, cancelled, \
                 deadline-exceeded, internal, resource-exhausted, unavailable",
            ),
        }
    }
    on
}

/// Whether endpoints that were tried are avoided.
fn decode_predicates(reader: &mut Reader, place: &Place<'_>, retry: &pb::RetryPolicy) -> bool {
    const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
    let mut avoids = false;
    for (at, predicate) in retry.retry_host_predicate.iter().enumerate() {
        let config = predicate.config_type.as_ref().map(|it| {
            let retry_host_predicate::ConfigType::TypedConfig(config) = it;
            config
        });
        let known = config.map_or(predicate.name == PREVIOUS_HOSTS, |it| {
            it.type_url == type_url::PREVIOUS_HOSTS
        });
        if known {
            avoids = true;
        } else {
            let place = place.item("retry_host_predicate", at);
            reader.extension(
                &place,
                "retry host predicate",
                &predicate.name,
                config,
                PREVIOUS_HOSTS,
            );
        }
    }
    avoids
}

fn decode_priority(reader: &mut Reader, place: &Place<'_>, retry: &pb::RetryPolicy) -> Option<u32> {
    let priority = retry.retry_priority.as_ref()?;
    let place = place.field("retry_priority");
    let config = priority.config_type.as_ref().map(|it| {
        let retry_priority::ConfigType::TypedConfig(config) = it;
        config
    });
    match config {
        Some(config) if config.type_url == type_url::PREVIOUS_PRIORITIES => {
            let decoded: Result<PreviousPriorities, _> = prost::Message::decode(&*config.value);
            let frequency = decoded.map_or(0, |it| it.update_frequency);
            if frequency < 1 {
                reader.out_of_range(
                    &place.field("typed_config").field("update_frequency"),
                    frequency,
                    "1 or more",
                );
            }
            u32::try_from(frequency).ok()
        }
        _ => {
            reader.extension(
                &place,
                "retry priority",
                &priority.name,
                config,
                "envoy.retry_priorities.previous_priorities",
            );
            None
        }
    }
}

fn decode_redirect(reader: &mut Reader, place: &Place<'_>, redirect: &pb::RedirectAction) -> Redirect {
    let code = place.field("response_code");
    Redirect {
        scheme: match &redirect.scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
        },
        host: some_text(&redirect.host_redirect),
        port: Some(reader.port(&place.field("port_redirect"), redirect.port_redirect))
            .filter(|port| *port != 0),
        path: match &redirect.path_rewrite_specifier {
            Some(PathRewriteSpecifier::PathRedirect(path)) => Some(RedirectPath::Full(path.as_str().into())),
            Some(PathRewriteSpecifier::PrefixRewrite(path)) => {
                Some(RedirectPath::Prefix(path.as_str().into()))
            }
            // The others are refused by the list of supported fields.
            _ => None,
        },
        status: match reader.enumerator(&code, redirect.response_code) {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
        strip_query: redirect.strip_query,
    }
}

fn some_text(text: &str) -> Option<Text> {
    (!text.is_empty()).then(|| text.into())
}

fn decode_response(
    reader: &mut Reader,
    place: &Place<'_>,
    response: &pb::DirectResponseAction,
) -> Option<DirectResponse> {
    let body_place = place.field("body");
    let body = match reader.data_source(&body_place, response.body.as_ref()) {
        Some(DataSource::Inline(body)) => body,
        Some(DataSource::File(path)) => {
            reader.value(
                &body_place.field("filename"),
                path,
                "write the body with inline_string",
            );
            return None;
        }
        None => bytes::Bytes::new(),
    };
    Some(DirectResponse {
        status: status(reader, &place.field("status"), response.status, 200),
        body,
    })
}

fn status(reader: &mut Reader, place: &Place<'_>, value: u32, lowest: u16) -> u16 {
    match u16::try_from(value) {
        Ok(status) if (lowest..600).contains(&status) => status,
        _ => {
            let allowed = if lowest == 100 { "100 to 599" } else { "200 to 599" };
            reader.out_of_range(place, value, allowed);
            lowest
        }
    }
}

pub(in crate::wire) fn headers_to_add(
    reader: &mut Reader,
    place: &Place<'_>,
    field: &'static str,
    headers: &[core::HeaderValueOption],
) -> Vec<HeaderValue> {
    let mut decoded = Vec::with_capacity(headers.len());
    for (at, option) in headers.iter().enumerate() {
        let place = place.item(field, at);
        let header = reader.required(&place.field("header"), option.header.as_ref(), "the header");
        let Some(header) = header else { continue };
        let header_place = place.field("header");
        let name = reader.named(&header_place.field("key"), &header.key, "the header's name");
        if name.starts_with(':') {
            reader.bad_text(&header_place.field("key"), &name, "a header that may be set");
        }
        let value = match std::str::from_utf8(&header.raw_value) {
            Ok("") => header.value.as_str(),
            Ok(value) => value,
            Err(_) => {
                reader.bad_text(
                    &header_place.field("raw_value"),
                    &String::from_utf8_lossy(&header.raw_value),
                    "UTF-8",
                );
                ""
            }
        };
        // Envoy drops a header that is set to nothing unless told to keep it.
        if value.is_empty() && !option.keep_empty_value {
            continue;
        }
        #[expect(deprecated, reason = "older control planes send the old field")]
        let append = option.append.as_ref().map(|it| it.value);
        let action = place.field("append_action");
        decoded.push(HeaderValue {
            name: lower(&name),
            value: value.into(),
            append: match (reader.enumerator(&action, option.append_action), append) {
                (HeaderAppendAction::AppendIfExistsOrAdd, Some(false))
                | (HeaderAppendAction::OverwriteIfExistsOrAdd, _) => AppendAction::Overwrite,
                (HeaderAppendAction::AppendIfExistsOrAdd, _) => AppendAction::Append,
                (HeaderAppendAction::AddIfAbsent, _) => AppendAction::AddIfAbsent,
                (HeaderAppendAction::OverwriteIfExists, _) => AppendAction::OverwriteIfExists,
            },
        });
    }
    decoded
}

/// Names of headers, in lower case.
fn names(texts: &[String]) -> Vec<Text> {
    texts.iter().map(|it| it.to_ascii_lowercase().into()).collect()
}
