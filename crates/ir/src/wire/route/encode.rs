//! `ir` → `envoy.config.route.v3`.

use rajut_proto::{
    core::{self, header_value_option::HeaderAppendAction},
    matcher as matcher_pb,
    route::{
        self as pb,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        retry_policy::{
            RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
        },
        route::Action,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HashPolicy as HashPolicyMessage,
            HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy, UpgradeConfig, hash_policy,
        },
        route_match::{ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier},
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
    type_url,
};
use rajut_types::Text;

use crate::{
    route::{
        AppendAction, DirectResponse, Forward, HashPolicy, HeaderMutations, HeaderValue, HostRewrite, Mirror,
        PathMatch, PathRewrite, Redirect, RedirectPath, RetryPolicy, Route, RouteActionKind,
        RouteConfiguration, RouteMatch, Target, VirtualHost, WeightedCluster,
    },
    tls::DataSource,
    wire::{filter, jwt, matcher, origin, rate_limit, write},
};

pub(in crate::wire) fn to_message(routes: &RouteConfiguration) -> pb::RouteConfiguration {
    let headers = &routes.headers;
    pb::RouteConfiguration {
        name: routes.name.to_string(),
        virtual_hosts: routes.virtual_hosts.iter().map(|it| encode_host(it)).collect(),
        ignore_port_in_host_matching: routes.ignore_port_in_host_matching,
        request_headers_to_add: headers_to_add(&headers.request_set),
        request_headers_to_remove: names(&headers.request_remove),
        response_headers_to_add: headers_to_add(&headers.response_set),
        response_headers_to_remove: names(&headers.response_remove),
        typed_per_filter_config: filter::encode_overrides(&routes.filters),
        // A cluster may arrive after the route that names it.
        validate_clusters: Some(write::boolean(false)),
        ..Default::default()
    }
}

pub(super) fn encode_host(host: &VirtualHost) -> pb::VirtualHost {
    let HeaderMutations {
        request_set,
        request_remove,
        response_set,
        response_remove,
    } = &host.headers;
    pb::VirtualHost {
        name: host.name.to_string(),
        domains: names(&host.domains),
        routes: host.routes.iter().map(|it| encode_route(it)).collect(),
        retry_policy: host.retry_policy.as_ref().map(encode_retry),
        request_headers_to_add: headers_to_add(request_set),
        request_headers_to_remove: names(request_remove),
        response_headers_to_add: headers_to_add(response_set),
        response_headers_to_remove: names(response_remove),
        include_request_attempt_count: host.include_request_attempt_count,
        typed_per_filter_config: filter::encode_overrides(&host.filters),
        rate_limits: rate_limit::encode_limits(&host.rate_limits),
        metadata: write::metadata([Some(origin::encode(&host.origin))]),
        ..Default::default()
    }
}

fn encode_route(route: &Route) -> pb::Route {
    let headers = &route.headers;
    pb::Route {
        name: route.name.to_string(),
        r#match: Some(encode_match(&route.matches)),
        action: Some(match &route.action {
            RouteActionKind::Forward(forward) => Action::Route(encode_forward(forward)),
            RouteActionKind::Redirect(redirect) => Action::Redirect(encode_redirect(redirect)),
            RouteActionKind::DirectResponse(response) => Action::DirectResponse(encode_response(response)),
            RouteActionKind::NonForwarding => Action::NonForwardingAction(pb::NonForwardingAction {}),
        }),
        metadata: write::metadata([Some(origin::encode(&route.origin))]),
        decorator: (!route.decorator.is_empty()).then(|| pb::Decorator {
            operation: route.decorator.to_string(),
            propagate: None,
        }),
        request_headers_to_add: headers_to_add(&headers.request_set),
        request_headers_to_remove: names(&headers.request_remove),
        response_headers_to_add: headers_to_add(&headers.response_set),
        response_headers_to_remove: names(&headers.response_remove),
        typed_per_filter_config: filter::encode_overrides(&route.filters),
        ..Default::default()
    }
}

fn encode_match(matches: &RouteMatch) -> pb::RouteMatch {
    pb::RouteMatch {
        path_specifier: Some(match &matches.path {
            PathMatch::Prefix(text) => PathSpecifier::Prefix(text.to_string()),
            PathMatch::Exact(text) => PathSpecifier::Path(text.to_string()),
            PathMatch::Regex(regex) => PathSpecifier::SafeRegex(matcher::encode_regex(regex)),
            PathMatch::SeparatedPrefix(text) => PathSpecifier::PathSeparatedPrefix(text.to_string()),
            PathMatch::Connect => PathSpecifier::ConnectMatcher(ConnectMatcher {}),
        }),
        case_sensitive: (!matches.case_sensitive).then(|| write::boolean(false)),
        runtime_fraction: matches.fraction.map(write::runtime_fraction),
        headers: matches.headers.iter().map(matcher::encode_header).collect(),
        query_parameters: matches.query.iter().map(matcher::encode_query).collect(),
        grpc: matches.grpc.then_some(GrpcRouteMatchOptions {}),
        dynamic_metadata: matches.claims.iter().map(jwt::encode_route_claim).collect(),
        ..Default::default()
    }
}

#[expect(
    deprecated,
    reason = "what Envoy deprecates is the only way to say it per route"
)]
fn encode_forward(forward: &Forward) -> pb::RouteAction {
    let (prefix_rewrite, regex_rewrite) = match &forward.path_rewrite {
        None => (String::new(), None),
        Some(PathRewrite::Prefix(text)) => (text.to_string(), None),
        Some(PathRewrite::Regex {
            pattern,
            substitution,
        }) => {
            let rewrite = matcher_pb::RegexMatchAndSubstitute {
                pattern: Some(matcher::encode_regex(pattern)),
                substitution: substitution.to_string(),
            };
            (String::new(), Some(rewrite))
        }
    };
    let longest = forward.max_stream_duration.is_some() || forward.grpc_timeout_max.is_some();
    pb::RouteAction {
        cluster_specifier: Some(match &forward.target {
            Target::Cluster(name) => ClusterSpecifier::Cluster(name.to_string()),
            Target::Header(name) => ClusterSpecifier::ClusterHeader(name.to_string()),
            Target::Weighted(clusters) => ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
                clusters: clusters.iter().map(encode_weighted).collect(),
                ..Default::default()
            }),
        }),
        cluster_not_found_response_code: match forward.cluster_not_found_status {
            404 => ClusterNotFoundResponseCode::NotFound,
            500 => ClusterNotFoundResponseCode::InternalServerError,
            _ => ClusterNotFoundResponseCode::ServiceUnavailable,
        }
        .into(),
        prefix_rewrite,
        regex_rewrite,
        host_rewrite_specifier: forward.host_rewrite.as_ref().map(|rewrite| match rewrite {
            HostRewrite::Literal(text) => HostRewriteSpecifier::HostRewriteLiteral(text.to_string()),
            HostRewrite::Auto => HostRewriteSpecifier::AutoHostRewrite(write::boolean(true)),
            HostRewrite::Header(name) => HostRewriteSpecifier::HostRewriteHeader(name.to_string()),
        }),
        append_x_forwarded_host: forward.append_x_forwarded_host,
        timeout: Some(write::bound(forward.timeout)),
        idle_timeout: forward.idle_timeout.map(write::duration),
        retry_policy: forward.retry.as_ref().map(encode_retry),
        request_mirror_policies: forward.mirrors.iter().map(encode_mirror).collect(),
        hash_policy: forward.hash.iter().map(encode_hash).collect(),
        upgrade_configs: forward
            .upgrades
            .iter()
            .map(|(kind, enabled)| UpgradeConfig {
                upgrade_type: kind.to_string(),
                enabled: (!enabled).then(|| write::boolean(false)),
                connect_config: None,
            })
            .collect(),
        max_stream_duration: longest.then(|| MaxStreamDuration {
            max_stream_duration: forward.max_stream_duration.map(write::duration),
            grpc_timeout_header_max: forward.grpc_timeout_max.map(write::duration),
            grpc_timeout_header_offset: None,
        }),
        rate_limits: rate_limit::encode_limits(&forward.rate_limits),
        include_vh_rate_limits: write::set(forward.include_virtual_host_limits),
        ..Default::default()
    }
}

fn encode_weighted(cluster: &WeightedCluster) -> ClusterWeight {
    let headers = &cluster.headers;
    ClusterWeight {
        name: cluster.name.to_string(),
        weight: Some(write::number(cluster.weight)),
        metadata_match: write::metadata([Some(origin::encode(&cluster.origin))]),
        request_headers_to_add: headers_to_add(&headers.request_set),
        request_headers_to_remove: names(&headers.request_remove),
        response_headers_to_add: headers_to_add(&headers.response_set),
        response_headers_to_remove: names(&headers.response_remove),
        host_rewrite_specifier: cluster
            .host_rewrite
            .as_ref()
            .map(|host| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
        typed_per_filter_config: filter::encode_overrides(&cluster.filters),
        ..Default::default()
    }
}

fn encode_mirror(mirror: &Mirror) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: mirror.cluster.to_string(),
        runtime_fraction: Some(write::runtime_fraction(mirror.fraction)),
        trace_sampled: (!mirror.traced).then(|| write::boolean(false)),
        disable_shadow_host_suffix_append: !mirror.shadow_host_suffix,
        ..Default::default()
    }
}

fn encode_hash(hash: &HashPolicy) -> HashPolicyMessage {
    use hash_policy::PolicySpecifier;
    HashPolicyMessage {
        terminal: false,
        policy_specifier: Some(match hash {
            HashPolicy::Header(name) => PolicySpecifier::Header(hash_policy::Header {
                header_name: name.to_string(),
                regex_rewrite: None,
            }),
            HashPolicy::Cookie { name, ttl, path } => PolicySpecifier::Cookie(hash_policy::Cookie {
                name: name.to_string(),
                ttl: ttl.map(write::duration),
                path: path.to_string(),
                attributes: Vec::new(),
            }),
            HashPolicy::SourceIp => {
                PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
            }
            HashPolicy::QueryParameter(name) => {
                PolicySpecifier::QueryParameter(hash_policy::QueryParameter {
                    name: name.to_string(),
                })
            }
        }),
    }
}

fn encode_retry(retry: &RetryPolicy) -> pb::RetryPolicy {
    let avoids = retry.avoid_previous_hosts_attempts > 0;
    pb::RetryPolicy {
        // Envoy keeps the gRPC conditions in the same list.
        retry_on: retry.on.to_string(),
        num_retries: Some(write::number(retry.num_retries)),
        per_try_timeout: retry.per_try_timeout.map(write::duration),
        per_try_idle_timeout: retry.per_try_idle_timeout.map(write::duration),
        retry_priority: retry
            .previous_priorities_update
            .map(|update_frequency| RetryPriority {
                name: "envoy.retry_priorities.previous_priorities".to_owned(),
                config_type: Some(retry_priority::ConfigType::TypedConfig(write::any(
                    type_url::PREVIOUS_PRIORITIES,
                    &super::decode::PreviousPriorities {
                        update_frequency: i32::try_from(update_frequency).unwrap_or(i32::MAX),
                    },
                ))),
            }),
        retry_host_predicate: avoids
            .then(|| RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
                config_type: Some(retry_host_predicate::ConfigType::TypedConfig(write::empty_any(
                    type_url::PREVIOUS_HOSTS,
                ))),
            })
            .into_iter()
            .collect(),
        host_selection_retry_max_attempts: retry.avoid_previous_hosts_attempts.into(),
        retriable_status_codes: retry.status_codes.iter().map(|code| u32::from(*code)).collect(),
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(write::duration(retry.base_interval)),
            max_interval: Some(write::duration(retry.max_interval)),
        }),
        ..Default::default()
    }
}

fn encode_redirect(redirect: &Redirect) -> pb::RedirectAction {
    pb::RedirectAction {
        scheme_rewrite_specifier: redirect
            .scheme
            .as_ref()
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        host_redirect: redirect.host.as_deref().unwrap_or_default().to_owned(),
        port_redirect: redirect.port.unwrap_or(0).into(),
        path_rewrite_specifier: redirect.path.as_ref().map(|path| match path {
            RedirectPath::Full(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
            RedirectPath::Prefix(path) => PathRewriteSpecifier::PrefixRewrite(path.to_string()),
        }),
        response_code: match redirect.status {
            302 => RedirectResponseCode::Found,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::MovedPermanently,
        }
        .into(),
        strip_query: redirect.strip_query,
    }
}

fn encode_response(response: &DirectResponse) -> pb::DirectResponseAction {
    let body = || write::data_source(&DataSource::Inline(response.body.clone()));
    pb::DirectResponseAction {
        status: response.status.into(),
        body: (!response.body.is_empty()).then(body),
        body_format: None,
    }
}

pub(in crate::wire) fn headers_to_add(headers: &[HeaderValue]) -> Vec<core::HeaderValueOption> {
    headers
        .iter()
        .map(|header| core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: header.name.to_string(),
                value: header.value.to_string(),
                raw_value: Vec::new(),
            }),
            append_action: match header.append {
                AppendAction::Append => HeaderAppendAction::AppendIfExistsOrAdd,
                AppendAction::AddIfAbsent => HeaderAppendAction::AddIfAbsent,
                AppendAction::Overwrite => HeaderAppendAction::OverwriteIfExistsOrAdd,
                AppendAction::OverwriteIfExists => HeaderAppendAction::OverwriteIfExists,
            }
            .into(),
            // Envoy drops a header that is set to nothing unless told to keep it.
            keep_empty_value: header.value.is_empty(),
            ..Default::default()
        })
        .collect()
}

fn names(texts: &[Text]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
