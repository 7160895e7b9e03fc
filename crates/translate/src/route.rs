//! HTTP routes of one virtual service for one kind of client: matches, destinations, rewrites, headers, retries.
//!
//! What a match asks about the client (labels, namespace, gateway, dialled port) is settled here; what it asks about the
//! request goes into the route. Order is kept, and the first alternative that takes everything ends the list.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rajut_config::{
    model::{
        self as config, ClaimMatch, CorsPolicy, Destination, DestinationRule, HeaderChange, HeaderOperations,
        HttpAction, HttpFault, HttpMatch, HttpMirror, HttpRedirect, HttpRoute, MeshConfig, RedirectPort,
        Retries, RouteDestination, Service, StringMatch, VirtualService,
    },
    snapshot::Shared,
};
use rajut_ir::{
    cors::Cors,
    fault::{Abort, AbortStatus, Delay, FaultInjection},
    filter::{CORS, FAULT, FilterOverride, FilterOverrides},
    jwt::{ClaimCondition, ClaimMatcher},
    matcher::{self, HeaderMatcher, QueryMatcher, Regex, StringMatcher, ValueCondition},
    route::{
        AppendAction, DirectResponse, Forward, HeaderMutations, HeaderValue, HostRewrite, Mirror, PathMatch,
        PathRewrite, Redirect, RedirectPath, RetryPolicy, Route, RouteActionKind, RouteClaim, RouteMatch,
        Target, WeightedCluster,
    },
};
use rajut_types::{Hostname, Labels, Origin, Text};

use crate::{names, policy::Effective, retry, tokens::PAYLOAD};

/// The services that a virtual service sends to, as the client sees them; an unknown host is absent.
pub(crate) type Destinations = BTreeMap<Hostname, (Shared<Service>, Option<Shared<DestinationRule>>)>;

/// What routes are made from, besides the virtual service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteContext<'a> {
    pub(crate) mesh: &'a MeshConfig,
    /// The port that the client dialled.
    pub(crate) port: u16,
    /// The port that clients see it under, which redirections may name.
    pub(crate) seen_port: u16,
    pub(crate) client_namespace: &'a str,
    pub(crate) client_labels: &'a Labels,
    /// Where the routes stand: `mesh`, or `namespace/name` of gateways.
    pub(crate) gateways: &'a [Text],
    pub(crate) destinations: &'a Destinations,
    /// Set on requests whose route rewrites no host: explicit ports, where clients dial a local address.
    pub(crate) host: Option<&'a Text>,
    /// Whether routes without retries get the default ones.
    pub(crate) default_retries: bool,
}

impl RouteContext<'_> {
    fn retry(&self, own: Option<&Retries>, avoid_tried: bool) -> Option<RetryPolicy> {
        if own.is_none() && !self.default_retries {
            return None;
        }
        retry::outbound(own, self.mesh, avoid_tried)
    }
}

/// The routes of a virtual service. Empty where none applies to this client: its requests are answered 404.
pub(crate) fn of_virtual_service(vs: &VirtualService, context: RouteContext<'_>) -> Vec<Arc<Route>> {
    let mut routes = Vec::new();
    for route in &vs.http {
        if route.matches.is_empty() {
            routes.push(Arc::new(build(route, None, context)));
            return routes;
        }
        for alternative in &route.matches {
            if !applies(alternative, context) {
                continue;
            }
            let Some(built) = try_build(route, alternative, context) else {
                continue;
            };
            let takes_everything = is_everything(&built.matches);
            routes.push(Arc::new(built));
            if takes_everything {
                return routes;
            }
        }
    }
    routes
}

/// The route of a service without a virtual service.
pub(crate) fn default(
    service: &Service,
    rule: Option<&DestinationRule>,
    origin: &Origin,
    context: RouteContext<'_>,
) -> Arc<Route> {
    let policy = Effective::new(context.mesh, rule, None, context.port);
    let cluster = names::outbound_cluster(context.port, "", &service.host);
    let forward = Forward {
        hash: policy.hash_policy().into_iter().collect(),
        host_rewrite: context.host.cloned().map(HostRewrite::Literal),
        append_x_forwarded_host: context.host.is_some(),
        ..forward(Target::Cluster(cluster), None, context.retry(None, true))
    };
    Arc::new(Route {
        filters: Vec::new(),
        name: "default".into(),
        matches: everything(),
        action: RouteActionKind::Forward(Box::new(forward)),
        headers: HeaderMutations::default(),
        decorator: format!("{}:{}/*", service.host, context.port).into(),
        origin: origin.clone(),
    })
}

/// A forwarding action without rewrites. No timeout means no bound, and `grpc-timeout` is honoured in any case.
pub(crate) fn forward(target: Target, timeout: Option<Duration>, retry: Option<RetryPolicy>) -> Forward {
    Forward {
        include_virtual_host_limits: false,
        rate_limits: Vec::new(),
        target,
        cluster_not_found_status: 503,
        timeout,
        idle_timeout: None,
        max_stream_duration: None,
        grpc_timeout_max: Some(timeout.unwrap_or(Duration::ZERO)),
        retry,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        hash: Vec::new(),
        mirrors: Vec::new(),
        upgrades: Vec::new(),
    }
}

/// Takes every request.
pub(crate) fn everything() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("/".into()),
        case_sensitive: true,
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        fraction: None,
        claims: Vec::new(),
    }
}

/// Whether nothing is asked of a request.
pub(crate) fn is_everything(matches: &RouteMatch) -> bool {
    let any_path = match &matches.path {
        PathMatch::Prefix(prefix) => &**prefix == "/",
        PathMatch::Regex(regex) => matches!(regex.source(), ".*" | "/.*"),
        PathMatch::Exact(_) | PathMatch::SeparatedPrefix(_) | PathMatch::Connect => false,
    };
    any_path && matches.headers.is_empty() && matches.query.is_empty() && matches.claims.is_empty()
}

/// Whether an alternative concerns this client. With its own gateways, what it asks about the source does not count.
fn applies(alternative: &HttpMatch, context: RouteContext<'_>) -> bool {
    if alternative.port.is_some_and(|port| port != context.port) {
        return false;
    }
    is_for_client(
        &alternative.gateways,
        &alternative.source_labels,
        alternative.source_namespace.as_ref(),
        (context.client_namespace, context.client_labels),
        context.gateways,
    )
}

/// The part of a match that asks who the client is.
pub(crate) fn is_for_client(
    gateways: &[Text],
    source_labels: &Labels,
    source_namespace: Option<&Text>,
    (client_namespace, client_labels): (&str, &Labels),
    here: &[Text],
) -> bool {
    if !gateways.is_empty() {
        return gateways.iter().any(|gateway| here.contains(gateway));
    }
    client_labels.matches(source_labels)
        && source_namespace.is_none_or(|namespace| &**namespace == client_namespace)
}

fn try_build(route: &HttpRoute, alternative: &HttpMatch, context: RouteContext<'_>) -> Option<Route> {
    // Only a gateway verifies tokens before it chooses a route.
    if !alternative.claims.is_empty() && context.gateways.iter().any(|gateway| **gateway == *names::MESH) {
        return None;
    }
    let matches = route_match(alternative)?;
    let mut built = build(route, Some(alternative), context);
    built.matches = matches;
    Some(built)
}

fn build(route: &HttpRoute, alternative: Option<&HttpMatch>, context: RouteContext<'_>) -> Route {
    let name = match alternative.filter(|alternative| !alternative.name.is_empty()) {
        Some(alternative) if route.name.is_empty() => alternative.name.clone(),
        Some(alternative) => format!("{}.{}", route.name, alternative.name).into(),
        None => route.name.clone(),
    };
    let mut headers = mutations(&route.headers);
    let (action, decorator) = match &route.action {
        HttpAction::Route(destinations) => {
            let decorator = destinations.first().map(|first| {
                let (host, port) = (&first.destination.host, resolve_port(&first.destination, context));
                Text::from(format!("{host}:{port}/*"))
            });
            let forward = to_destinations(route, destinations, &mut headers, context);
            (
                RouteActionKind::Forward(Box::new(forward)),
                decorator.unwrap_or_default(),
            )
        }
        HttpAction::Redirect(redirect) => (
            RouteActionKind::Redirect(Box::new(redirection(redirect, context.seen_port))),
            Text::default(),
        ),
        HttpAction::Direct { status, body } => (
            RouteActionKind::DirectResponse(DirectResponse {
                status: *status,
                body: body.to_vec().into(),
            }),
            Text::default(),
        ),
    };
    Route {
        filters: filters(route),
        name,
        matches: everything(),
        action,
        headers,
        decorator,
        origin: route.origin.clone(),
    }
}

/// What the route says about filters, by their names.
fn filters(route: &HttpRoute) -> FilterOverrides {
    let cors = route
        .cors
        .as_ref()
        .map(|it| FilterOverride::Cors(Arc::new(cors(it))));
    let fault = route
        .fault
        .as_ref()
        .map(|it| FilterOverride::Fault(Arc::new(fault(it))));
    let cors = cors.map(|over| (CORS.into(), over));
    cors.into_iter()
        .chain(fault.map(|over| (FAULT.into(), over)))
        .collect()
}

fn fault(fault: &HttpFault) -> FaultInjection {
    FaultInjection {
        delay: fault.delay.map(|delay| Delay {
            fixed: delay.fixed,
            share: delay.share,
        }),
        abort: fault.abort.map(|abort| Abort {
            status: match abort.status {
                config::AbortStatus::Http(status) => AbortStatus::Http(status),
                config::AbortStatus::Grpc(status) => AbortStatus::Grpc(status),
            },
            share: abort.share,
        }),
        ..FaultInjection::default()
    }
}

/// An expression that does not compile, which validation refuses, allows nobody.
fn cors(policy: &CorsPolicy) -> Cors {
    let seconds = |age: Duration| Text::from(age.as_secs().to_string());
    Cors {
        allow_origins: policy.origins.iter().filter_map(string_matcher).collect(),
        allow_methods: policy.methods.join(",").into(),
        allow_headers: policy.headers.join(",").into(),
        expose_headers: policy.expose.join(",").into(),
        max_age: policy.max_age.map(seconds).unwrap_or_default(),
        allow_credentials: policy.credentials,
        forward_not_matching: Some(policy.forward_unmatched),
        ..Cors::default()
    }
}

fn to_destinations(
    route: &HttpRoute,
    destinations: &[RouteDestination],
    headers: &mut HeaderMutations,
    context: RouteContext<'_>,
) -> Forward {
    let weighted: Vec<&RouteDestination> = if destinations.len() > 1 {
        destinations.iter().filter(|entry| entry.weight > 0).collect()
    } else {
        destinations.iter().collect()
    };
    let own_host = route
        .rewrite
        .as_ref()
        .and_then(|rewrite| rewrite.authority.clone())
        .or_else(|| authority(&route.headers.request));
    let mut single_host = None;
    let hash: Vec<_> = weighted
        .iter()
        .filter_map(|entry| effective(&entry.destination, context).hash_policy())
        .collect();
    let target = match weighted[..] {
        // All weights are zero, which validation refuses.
        [] => Target::Cluster(names::BLACK_HOLE.into()),
        [only] => {
            // The destination's operations follow the route's, so that they win.
            append(headers, mutations(&only.headers));
            single_host = authority(&only.headers.request);
            Target::Cluster(cluster_of(&only.destination, context))
        }
        _ => Target::Weighted(
            weighted
                .iter()
                .map(|entry| WeightedCluster {
                    filters: Vec::new(),
                    name: cluster_of(&entry.destination, context),
                    weight: entry.weight,
                    headers: mutations(&entry.headers),
                    host_rewrite: authority(&entry.headers.request).filter(|_| own_host.is_none()),
                    origin: entry.origin.clone(),
                })
                .collect(),
        ),
    };
    let avoid_tried = weighted.len() != 1 || hash.is_empty();
    let rewritten = own_host.or(single_host);
    let dialled = context.host.filter(|_| rewritten.is_none());
    Forward {
        path_rewrite: route.rewrite.as_ref().and_then(path_rewrite),
        append_x_forwarded_host: dialled.is_some(),
        host_rewrite: rewritten.or_else(|| dialled.cloned()).map(HostRewrite::Literal),
        hash,
        mirrors: route.mirrors.iter().map(|it| mirror(it, context)).collect(),
        ..forward(
            target,
            route.timeout,
            context.retry(route.retries.as_ref(), avoid_tried),
        )
    }
}

/// Copies keep the host (Istio adds no `-shadow`) and are not traced.
fn mirror(mirror: &HttpMirror, context: RouteContext<'_>) -> Mirror {
    Mirror {
        cluster: cluster_of(&mirror.destination, context),
        fraction: mirror.share,
        shadow_host_suffix: false,
        traced: false,
    }
}

fn effective(destination: &Destination, context: RouteContext<'_>) -> Effective {
    let rule = context
        .destinations
        .get(&destination.host)
        .and_then(|(_, rule)| rule.as_deref());
    let subset = rule.and_then(|rule| {
        rule.subsets
            .iter()
            .find(|subset| subset.name == destination.subset)
    });
    Effective::new(context.mesh, rule, subset, resolve_port(destination, context))
}

/// The port of a destination: its own, the service's only one, or the one that the client dialled.
fn resolve_port(destination: &Destination, context: RouteContext<'_>) -> u16 {
    destination_port(
        destination,
        context
            .destinations
            .get(&destination.host)
            .map(|(service, _)| &**service),
        context.port,
    )
}

/// See [`resolve_port`]; also for bytes.
pub(crate) fn destination_port(destination: &Destination, service: Option<&Service>, dialled: u16) -> u16 {
    destination.port.unwrap_or_else(|| match service {
        Some(service) if service.ports.len() == 1 => service.ports[0].number,
        _ => dialled,
    })
}

/// The name is emitted whether or not the service or the subset exists: such requests are answered 503, flag `NC`.
fn cluster_of(destination: &Destination, context: RouteContext<'_>) -> Text {
    names::outbound_cluster(
        resolve_port(destination, context),
        &destination.subset,
        &destination.host,
    )
}

fn path_rewrite(rewrite: &rajut_config::model::Rewrite) -> Option<PathRewrite> {
    if let Some((pattern, substitution)) = &rewrite.uri_regex {
        return Some(PathRewrite::Regex {
            pattern: Regex::new(pattern).ok()?,
            substitution: substitution.clone(),
        });
    }
    rewrite.uri.clone().map(PathRewrite::Prefix)
}

fn redirection(redirect: &HttpRedirect, dialled: u16) -> Redirect {
    let path = match (&redirect.uri, &redirect.prefix) {
        (Some(full), _) => Some(RedirectPath::Full(full.clone())),
        (None, Some(prefix)) => Some(RedirectPath::Prefix(prefix.clone())),
        (None, None) => None,
    };
    let scheme_port = match redirect.scheme.as_deref() {
        Some("https") => 443,
        _ => 80,
    };
    Redirect {
        scheme: redirect.scheme.clone(),
        host: redirect.authority.clone(),
        port: match redirect.port {
            RedirectPort::Unset => None,
            RedirectPort::Number(number) => Some(number),
            RedirectPort::ProtocolDefault => Some(scheme_port),
            RedirectPort::FromRequest => Some(dialled),
        },
        path,
        status: redirect.status,
        strip_query: false,
    }
}

/// `None` where an expression does not compile: validation refuses those, and a match that can't be asked never holds.
fn route_match(alternative: &HttpMatch) -> Option<RouteMatch> {
    let path = match &alternative.uri {
        None => PathMatch::Prefix("/".into()),
        Some(StringMatch::Exact(text)) => PathMatch::Exact(text.clone()),
        Some(StringMatch::Prefix(text)) => PathMatch::Prefix(text.clone()),
        Some(StringMatch::Regex(text)) => PathMatch::Regex(Regex::new(text).ok()?),
    };
    let mut headers = Vec::new();
    for (pseudo, condition) in [
        (":scheme", &alternative.scheme),
        (":method", &alternative.method),
        (":authority", &alternative.authority),
    ] {
        if let Some(condition) = condition {
            headers.push(header_matcher(&pseudo.into(), Some(condition), false)?);
        }
    }
    for (name, condition) in &alternative.headers {
        headers.push(header_matcher(name, condition.as_ref(), false)?);
    }
    for (name, condition) in &alternative.without_headers {
        headers.push(header_matcher(name, condition.as_ref(), true)?);
    }
    let mut query = Vec::new();
    for (name, condition) in &alternative.query {
        query.push(QueryMatcher {
            name: name.clone(),
            condition: value_condition(condition.as_ref())?,
        });
    }
    Some(RouteMatch {
        path,
        case_sensitive: !alternative.ignore_uri_case,
        headers,
        query,
        claims: alternative
            .claims
            .iter()
            .map(route_claim)
            .collect::<Option<_>>()?,
        ..everything()
    })
}

/// The claim is a text that matches, or a list with such a text.
fn route_claim(claim: &ClaimMatch) -> Option<RouteClaim> {
    let text = || string_matcher(&claim.condition).map(ClaimCondition::Text);
    let value = ClaimCondition::Any(vec![text()?, ClaimCondition::Element(Box::new(text()?))]);
    let path = std::iter::once(Text::from(PAYLOAD)).chain(claim.path.iter().cloned());
    Some(RouteClaim {
        matcher: ClaimMatcher {
            path: path.collect(),
            value,
        },
        invert: claim.invert,
    })
}

fn header_matcher(name: &Text, condition: Option<&StringMatch>, invert: bool) -> Option<HeaderMatcher> {
    Some(HeaderMatcher {
        name: name.to_ascii_lowercase().into(),
        condition: value_condition(condition)?,
        invert,
        missing_is_empty: invert && condition.is_some(),
    })
}

fn value_condition(condition: Option<&StringMatch>) -> Option<ValueCondition> {
    let Some(condition) = condition else {
        return Some(ValueCondition::Present(true));
    };
    string_matcher(condition).map(ValueCondition::Matches)
}

/// `None` where an expression does not compile.
fn string_matcher(condition: &StringMatch) -> Option<StringMatcher> {
    let pattern = match condition {
        StringMatch::Exact(text) => matcher::StringMatch::Exact(text.clone()),
        StringMatch::Prefix(text) => matcher::StringMatch::Prefix(text.clone()),
        StringMatch::Regex(text) => matcher::StringMatch::Regex(Regex::new(text).ok()?),
    };
    Some(StringMatcher {
        pattern,
        ignore_case: false,
    })
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// The host that header operations set: an operation on `Host` is a rewrite of the authority.
fn authority(change: &HeaderChange) -> Option<Text> {
    change
        .set
        .iter()
        .chain(&change.add)
        .find(|(name, _)| is_host(name))
        .map(|(_, value)| value.clone())
}

fn mutations(operations: &HeaderOperations) -> HeaderMutations {
    let values = |change: &HeaderChange| {
        let of = |list: &[(Text, Text)], append: AppendAction| -> Vec<HeaderValue> {
            list.iter()
                .filter(|(name, _)| !is_host(name) && !name.starts_with(':'))
                .map(|(name, value)| HeaderValue {
                    name: name.to_ascii_lowercase().into(),
                    value: value.clone(),
                    append,
                })
                .collect()
        };
        let mut all = of(&change.set, AppendAction::Overwrite);
        all.extend(of(&change.add, AppendAction::Append));
        all
    };
    let removals = |change: &HeaderChange| -> Vec<Text> {
        change
            .remove
            .iter()
            .filter(|name| !is_host(name) && !name.starts_with(':'))
            .map(|name| name.to_ascii_lowercase().into())
            .collect()
    };
    HeaderMutations {
        request_set: values(&operations.request),
        request_remove: removals(&operations.request),
        response_set: values(&operations.response),
        response_remove: removals(&operations.response),
    }
}

fn append(headers: &mut HeaderMutations, more: HeaderMutations) {
    headers.request_set.extend(more.request_set);
    headers.request_remove.extend(more.request_remove);
    headers.response_set.extend(more.response_set);
    headers.response_remove.extend(more.response_remove);
}
