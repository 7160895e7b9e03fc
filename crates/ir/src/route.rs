//! Route configurations: from a request's host and head to a cluster.

use std::{sync::Arc, time::Duration};

use rajut_types::{Origin, Percent, Text};

use crate::{
    filter::FilterOverrides,
    jwt::ClaimMatcher,
    matcher::{HeaderMatcher, QueryMatcher, Regex},
    rate_limit::RateLimit,
};

/// Virtual hosts under a name. Source: Envoy `route.v3.RouteConfiguration`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfiguration {
    /// Its name: the port for sidecars (`8080`), or `<fqdn>:<port>`.
    pub name: Text,
    /// One is chosen by host: exact, then longest suffix wildcard, then longest prefix wildcard, then `*`.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// The port of the request's host is ignored when a virtual host is chosen.
    pub ignore_port_in_host_matching: bool,
    /// What is said here about HTTP filters.
    pub filters: FilterOverrides,
    /// Applied to every request and response after those of the route and the virtual host.
    pub headers: HeaderMutations,
}

/// A group of domains with its routes. Source: Envoy `route.v3.VirtualHost`.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Its name, e.g. `api-gateway.clinic.svc.cluster.local:8080`.
    pub name: Text,
    /// Lower case; `*.x` and `x.*` are wildcards, `*` is everything.
    pub domains: Vec<Text>,
    /// The first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// For routes without one of their own.
    pub retry_policy: Option<RetryPolicy>,
    /// Applied after those of the route.
    pub headers: HeaderMutations,
    /// `x-envoy-attempt-count` is added to requests.
    pub include_request_attempt_count: bool,
    /// What is said here about HTTP filters.
    pub filters: FilterOverrides,
    /// Makes descriptors for rate limits.
    pub rate_limits: Vec<RateLimit>,
    /// Who wrote it.
    pub origin: Origin,
}

/// One route. Source: Envoy `route.v3.Route`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Shown as `%ROUTE_NAME%`.
    pub name: Text,
    /// All conditions must hold.
    pub matches: RouteMatch,
    /// What is done.
    pub action: RouteActionKind,
    /// Applied first.
    pub headers: HeaderMutations,
    /// Istio's decorator: the name of the operation in traces; may be empty.
    pub decorator: Text,
    /// What is said here about HTTP filters.
    pub filters: FilterOverrides,
    /// Who wrote it.
    pub origin: Origin,
}

/// The conditions of a route. Source: Envoy `route.v3.RouteMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// On the path without the query.
    pub path: PathMatch,
    /// Letter case of the path counts (not for `Regex`).
    pub case_sensitive: bool,
    /// All must hold.
    pub headers: Vec<HeaderMatcher>,
    /// All must hold.
    pub query: Vec<QueryMatcher>,
    /// Only `application/grpc` requests.
    pub grpc: bool,
    /// A share of the requests; `None` is all.
    pub fraction: Option<Percent>,
    /// All must hold of what a verified token says. Known once a filter has verified it and has the route chosen anew.
    pub claims: Vec<RouteClaim>,
}

/// A condition on a claim. Source: Envoy `RouteMatch.dynamic_metadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteClaim {
    /// Without a token, or without that claim, it does not hold.
    pub matcher: ClaimMatcher,
    /// It must not hold.
    pub invert: bool,
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// Begins with, as plain text; `/` is everything.
    Prefix(Text),
    /// Equal.
    Exact(Text),
    /// The whole path matches.
    Regex(Regex),
    /// Equal, or begins with this and then `/` (Gateway API).
    SeparatedPrefix(Text),
    /// Any CONNECT request.
    Connect,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteActionKind {
    /// Sends the request to a cluster.
    Forward(Box<Forward>),
    /// Answers with a redirection.
    Redirect(Box<Redirect>),
    /// Answers in place.
    DirectResponse(DirectResponse),
    /// The workload itself answers (proxyless gRPC servers).
    NonForwarding,
}

/// Sends a request on. Source: Envoy `route.v3.RouteAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Where to.
    pub target: Target,
    /// Answer when the named cluster is unknown; Envoy's default is 503.
    pub cluster_not_found_status: u16,
    /// For the whole request with its retries; `None` is no bound. The decoder puts Envoy's 15 s where the field is left out.
    pub timeout: Option<Duration>,
    /// Idle time of the stream; `None` takes the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// Longest life of the stream; `None` is no bound.
    pub max_stream_duration: Option<Duration>,
    /// `grpc-timeout` of the request is honoured up to this; zero is "no upper bound", `None` ignores the header.
    pub grpc_timeout_max: Option<Duration>,
    /// Retries; `None` takes the virtual host's.
    pub retry: Option<RetryPolicy>,
    /// What the path becomes.
    pub path_rewrite: Option<PathRewrite>,
    /// What the host becomes.
    pub host_rewrite: Option<HostRewrite>,
    /// The host before the rewrite goes to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// What consistent hashing hashes.
    pub hash: Vec<HashPolicy>,
    /// Copies sent elsewhere.
    pub mirrors: Vec<Mirror>,
    /// Upgrades (`websocket`), in place of the connection manager's; the flag tells whether it is on.
    pub upgrades: Vec<(Text, bool)>,
    /// Makes descriptors for rate limits.
    pub rate_limits: Vec<RateLimit>,
    /// The virtual host's count too.
    pub include_virtual_host_limits: bool,
}

/// Where a route sends requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One cluster.
    Cluster(Text),
    /// One of several by weight; the weights' sum is at least 1.
    Weighted(Vec<WeightedCluster>),
    /// The cluster that a request header names.
    Header(Text),
}

/// One of several clusters. Source: Envoy `route.v3.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Text,
    /// Relative.
    pub weight: u32,
    /// Applied before those of the route.
    pub headers: HeaderMutations,
    /// What the host becomes.
    pub host_rewrite: Option<Text>,
    /// What is said here about HTTP filters.
    pub filters: FilterOverrides,
    /// Who wrote it.
    pub origin: Origin,
}

/// What the path becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// The part that matched (prefix, or the whole exact path) is replaced.
    Prefix(Text),
    /// The path (without query) is replaced where the expression matches, `\1` are groups.
    Regex {
        /// What is looked for (not a full match here).
        pattern: Regex,
        /// With `\1` for groups.
        substitution: Text,
    },
}

impl PathRewrite {
    /// The target (path and query) of a request that a route took by `matched`; `None`: it stays as it is.
    pub fn apply(&self, target: &[u8], matched: &PathMatch) -> Option<Vec<u8>> {
        let end = target.iter().position(|byte| *byte == b'?');
        let (path, query) = target.split_at(end.unwrap_or(target.len()));
        let mut out = match self {
            Self::Prefix(replacement) => {
                let length = match matched {
                    PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len(),
                    PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
                };
                let rest = path.get(length..)?;
                let mut out = replacement.as_bytes().to_vec();
                // Gateway API: `/a` → `/` on `/a/b` gives `/b`, not `//b`.
                let doubled = matches!(matched, PathMatch::SeparatedPrefix(_))
                    && out.ends_with(b"/")
                    && rest.starts_with(b"/");
                if doubled {
                    out.pop();
                }
                out.extend_from_slice(rest);
                if out.is_empty() {
                    out.push(b'/');
                }
                out
            }
            Self::Regex {
                pattern,
                substitution,
            } => pattern.replace_all(path, substitution),
        };
        out.extend_from_slice(query);
        (out != target).then_some(out)
    }
}

/// What the host becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRewrite {
    /// This text.
    Literal(Text),
    /// The endpoint's host name (`auto_host_rewrite`).
    Auto,
    /// The value of a request header.
    Header(Text),
}

/// What consistent hashing hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashPolicy {
    /// A request header's value.
    Header(Text),
    /// A cookie, made where it is missing and `ttl` is set (zero: a session cookie).
    Cookie {
        /// Its name.
        name: Text,
        /// Its life.
        ttl: Option<Duration>,
        /// Its path.
        path: Text,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter's value.
    QueryParameter(Text),
}

/// A copy of requests for another cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub cluster: Text,
    /// Share of requests.
    pub fraction: Percent,
    /// `-shadow` is appended to the host.
    pub shadow_host_suffix: bool,
    /// Copies of traced requests are traced.
    pub traced: bool,
}

/// Retries. Source: Envoy `route.v3.RetryPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// When.
    pub on: RetryOn,
    /// Retries at most (not tries).
    pub num_retries: u32,
    /// For each try; `None` is no bound of its own.
    pub per_try_timeout: Option<Duration>,
    /// For each try without a byte.
    pub per_try_idle_timeout: Option<Duration>,
    /// First pause; Envoy's default is 25 ms, doubled each time, with full jitter.
    pub base_interval: Duration,
    /// Longest pause; Envoy's default is ten times the first.
    pub max_interval: Duration,
    /// Statuses that are retried with [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub status_codes: Vec<u16>,
    /// Endpoints that were tried are avoided, so many draws at most; 0 avoids none.
    pub avoid_previous_hosts_attempts: u32,
    /// Another priority is tried after so many failures (`previous_priorities`), `None` stays.
    pub previous_priorities_update: Option<u32>,
}

/// A set of retry conditions. Source: Envoy `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn(pub u32);

macro_rules! retry_conditions {
    ($($name:ident = $bit:literal, $text:literal, $doc:literal;)*) => {
        impl RetryOn {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*

            /// Names as Envoy and Istio write them.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$name)),*];
        }
    };
}

retry_conditions! {
    FIVE_XX = 0, "5xx", "Any 5xx answer, or none (disconnect, reset, timeout).";
    GATEWAY_ERROR = 1, "gateway-error", "502, 503, 504, or no answer.";
    RESET = 2, "reset", "No answer: disconnect, reset, timeout.";
    CONNECT_FAILURE = 3, "connect-failure", "The connection could not be made.";
    REFUSED_STREAM = 4, "refused-stream", "HTTP/2 `REFUSED_STREAM`.";
    RETRIABLE_4XX = 5, "retriable-4xx", "409.";
    RETRIABLE_STATUS_CODES = 6, "retriable-status-codes", "One of the listed statuses.";
    RESET_BEFORE_REQUEST = 7, "reset-before-request", "Reset before any byte of the request was sent.";
    ENVOY_RATELIMITED = 8, "envoy-ratelimited", "The answer carries `x-envoy-ratelimited`.";
    HTTP3_POST_CONNECT_FAILURE = 9, "http3-post-connect-failure", "HTTP/3 only; never true here.";
    CANCELLED = 16, "cancelled", "gRPC status 1 in the head.";
    DEADLINE_EXCEEDED = 17, "deadline-exceeded", "gRPC status 4 in the head.";
    INTERNAL = 18, "internal", "gRPC status 13 in the head.";
    RESOURCE_EXHAUSTED = 19, "resource-exhausted", "gRPC status 8 in the head.";
    UNAVAILABLE = 20, "unavailable", "gRPC status 14 in the head.";
}

impl RetryOn {
    /// Whether one of `other`'s conditions is in the set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The condition of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(text, _)| *text == name)
            .map(|(_, on)| *on)
    }
}

impl std::fmt::Display for RetryOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = Self::NAMES
            .iter()
            .filter(|(_, on)| self.has(*on))
            .map(|(name, _)| *name)
            .collect();
        f.write_str(&names.join(","))
    }
}

/// Answers with a redirection. Source: Envoy `route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// New scheme.
    pub scheme: Option<Text>,
    /// New host.
    pub host: Option<Text>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<RedirectPath>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The query is dropped.
    pub strip_query: bool,
}

/// The path of a redirection.
#[derive(Debug, Clone, PartialEq)]
pub enum RedirectPath {
    /// The whole path.
    Full(Text),
    /// The part that the prefix matched.
    Prefix(Text),
}

/// Answers in place. Source: Envoy `route.v3.DirectResponseAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// Empty sends none.
    pub body: bytes::Bytes,
}

/// Changes to headers, removals first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderMutations {
    /// Set on or appended to requests.
    pub request_set: Vec<HeaderValue>,
    /// Removed from requests, lower case.
    pub request_remove: Vec<Text>,
    /// Set on or appended to responses.
    pub response_set: Vec<HeaderValue>,
    /// Removed from responses, lower case.
    pub response_remove: Vec<Text>,
}

impl HeaderMutations {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request_set.is_empty()
            && self.request_remove.is_empty()
            && self.response_set.is_empty()
            && self.response_remove.is_empty()
    }
}

/// A header to set. Source: Envoy `core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue {
    /// Lower case.
    pub name: Text,
    /// May hold Envoy's `%VAR%` operators, `%%` is a percent sign.
    pub value: Text,
    /// How it meets what is there.
    pub append: AppendAction,
}

/// How a header meets one of the same name. Source: Envoy `HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Both stay.
    Append,
    /// Only where there is none.
    AddIfAbsent,
    /// Replaces, or is added.
    Overwrite,
    /// Only where there is one.
    OverwriteIfExists,
}
