//! Virtual services: how requests to a host are routed.

use std::time::Duration;

use rajut_types::{Hostname, Labels, Origin, Percent, Text};

use super::Visibility;

/// How requests to hosts are routed. Source: Istio `VirtualService`, delegates inlined.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualService {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Fully qualified, possibly wildcards.
    pub hosts: Vec<Hostname>,
    /// `mesh`, or `namespace/name` of gateways.
    pub gateways: Vec<Text>,
    /// In order; the first match wins.
    pub http: Vec<HttpRoute>,
    /// In order, for TLS that is not terminated.
    pub tls: Vec<TlsRoute>,
    /// In order.
    pub tcp: Vec<TcpRoute>,
    /// Whose clients use it.
    pub export_to: Visibility,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// One HTTP route.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// May be empty.
    pub name: Text,
    /// Any must hold; empty is everything.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: HttpAction,
    /// Path and host towards the upstream.
    pub rewrite: Option<Rewrite>,
    /// For the whole request with its retries; `None` is no bound.
    pub timeout: Option<Duration>,
    /// `None`: the mesh's default.
    pub retries: Option<Retries>,
    /// At the level of the route.
    pub headers: HeaderOperations,
    /// Copies for others; those of no request are left out.
    pub mirrors: Vec<HttpMirror>,
    /// Failures made on purpose.
    pub fault: Option<HttpFault>,
    /// Which pages of other origins may call.
    pub cors: Option<CorsPolicy>,
    /// Where.
    pub origin: Origin,
}

impl VirtualService {
    /// Every destination of its routes.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let tls = self.tls.iter().flat_map(|route| &route.destinations);
        let tcp = self.tcp.iter().flat_map(|route| &route.destinations);
        let opaque = tls.chain(tcp).map(|to| &to.destination);
        self.http.iter().flat_map(HttpRoute::destinations).chain(opaque)
    }
}

impl HttpRoute {
    /// Every destination that requests or copies of them are sent to.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let routed: &[RouteDestination] = match &self.action {
            HttpAction::Route(all) => all,
            HttpAction::Redirect(_) | HttpAction::Direct { .. } => &[],
        };
        let mirrors = self.mirrors.iter().map(|mirror| &mirror.destination);
        routed.iter().map(|to| &to.destination).chain(mirrors)
    }
}

/// Copies of requests for another destination. Source: Istio `HTTPMirrorPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpMirror {
    /// Where to.
    pub destination: Destination,
    /// Of how many requests; never none.
    pub share: Percent,
}

/// Failures made on purpose: first the delay, then the refusal. Source: Istio `HTTPFaultInjection`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFault {
    /// Requests wait.
    pub delay: Option<FaultDelay>,
    /// Requests are answered in place.
    pub abort: Option<FaultAbort>,
    /// Where.
    pub origin: Origin,
}

/// Requests wait before they are sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultDelay {
    /// How long; at least 1 ms.
    pub fixed: Duration,
    /// How many.
    pub share: Percent,
}

/// Requests are answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAbort {
    /// The answer.
    pub status: AbortStatus,
    /// How many.
    pub share: Percent,
}

/// The answer of a request that is refused on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status, 200 to 599.
    Http(u16),
    /// A gRPC status, 0 to 16.
    Grpc(u8),
}

/// Which pages of other origins may call, and what browsers let them see. Source: Istio `CorsPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct CorsPolicy {
    /// Origins; `*` as an exact text is any.
    pub origins: Vec<StringMatch>,
    /// Methods, or `*`.
    pub methods: Vec<Text>,
    /// Fields of requests, or `*`.
    pub headers: Vec<Text>,
    /// Fields of responses that pages may read.
    pub expose: Vec<Text>,
    /// How long a browser keeps the answer to a preflight; whole seconds.
    pub max_age: Option<Duration>,
    /// Cookies and the like may come along; `None` says nothing.
    pub credentials: Option<bool>,
    /// Preflights of other origins go to the application; otherwise they are answered in place.
    pub forward_unmatched: bool,
    /// Where.
    pub origin: Origin,
}

/// What an HTTP route does.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpAction {
    /// To destinations by weight; a single one takes all. Entries of weight 0 among many are left out.
    Route(Vec<RouteDestination>),
    /// A redirection.
    Redirect(HttpRedirect),
    /// An answer in place.
    Direct {
        /// 200 to 599.
        status: u16,
        /// May be empty.
        body: Box<[u8]>,
    },
}

/// A destination with its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative.
    pub weight: u32,
    /// At the level of the destination.
    pub headers: HeaderOperations,
    /// Where.
    pub origin: Origin,
}

/// A host, perhaps a subset and port of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Fully qualified.
    pub host: Hostname,
    /// Empty: all endpoints.
    pub subset: Text,
    /// `None`: the only port of the service, or the listener's.
    pub port: Option<u16>,
    /// Where.
    pub origin: Origin,
}

/// One alternative of a route's match; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMatch {
    /// May be empty.
    pub name: Text,
    /// On the path.
    pub uri: Option<StringMatch>,
    /// Letter case of the path does not count (exact and prefix only).
    pub ignore_uri_case: bool,
    /// On `:scheme`.
    pub scheme: Option<StringMatch>,
    /// On `:method`.
    pub method: Option<StringMatch>,
    /// On `:authority`.
    pub authority: Option<StringMatch>,
    /// Lower-case name → condition; `None` is presence.
    pub headers: Vec<(Text, Option<StringMatch>)>,
    /// The same, turned round.
    pub without_headers: Vec<(Text, Option<StringMatch>)>,
    /// On claims of a verified token; at gateways only.
    pub claims: Vec<ClaimMatch>,
    /// Name → condition; `None` is presence.
    pub query: Vec<(Text, Option<StringMatch>)>,
    /// The port that the client dialled.
    pub port: Option<u16>,
    /// Of the client workload.
    pub source_labels: Labels,
    /// Of the client workload.
    pub source_namespace: Option<Text>,
    /// In place of those of the resource; empty inherits.
    pub gateways: Vec<Text>,
}

/// A condition on a claim: it is a text that matches, or a list with such a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMatch {
    /// The names that lead to it; at least one.
    pub path: Vec<Text>,
    /// What must hold of it.
    pub condition: StringMatch,
    /// It must not hold (`withoutHeaders`), as without a token or without that claim.
    pub invert: bool,
}

/// Istio's `StringMatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Text),
    /// Begins with.
    Prefix(Text),
    /// The whole text matches (checked to compile).
    Regex(Text),
}

/// Path and host towards the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Replaces what the match covered.
    pub uri: Option<Text>,
    /// Expression and substitution with `\1`.
    pub uri_regex: Option<(Text, Text)>,
    /// New host.
    pub authority: Option<Text>,
}

/// A redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRedirect {
    /// Whole new path.
    pub uri: Option<Text>,
    /// New text for the matched prefix.
    pub prefix: Option<Text>,
    /// New host.
    pub authority: Option<Text>,
    /// New scheme.
    pub scheme: Option<Text>,
    /// New port.
    pub port: RedirectPort,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The port of a redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// Nothing said.
    Unset,
    /// This one.
    Number(u16),
    /// 80 or 443 by scheme.
    ProtocolDefault,
    /// The request's.
    FromRequest,
}

/// Retries of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Retries, not tries; 0 is off.
    pub attempts: u32,
    /// For each try.
    pub per_try_timeout: Option<Duration>,
    /// Istio's list; `None`: the default list.
    pub retry_on: Option<Text>,
    /// First pause.
    pub backoff: Option<Duration>,
    /// Other localities are tried (`previous_priorities`).
    pub remote_localities: bool,
    /// Endpoints that were tried are avoided; default true.
    pub ignore_previous_hosts: bool,
}

/// Header operations of requests and responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// On requests.
    pub request: HeaderChange,
    /// On responses.
    pub response: HeaderChange,
}

/// Header operations in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Overwritten.
    pub set: Vec<(Text, Text)>,
    /// Appended.
    pub add: Vec<(Text, Text)>,
    /// Removed.
    pub remove: Vec<Text>,
}

/// A route for TLS that is not terminated.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsRoute {
    /// Any must hold; at least one.
    pub matches: Vec<TlsMatch>,
    /// By weight.
    pub destinations: Vec<RouteDestination>,
    /// Where.
    pub origin: Origin,
}

/// A condition on a TLS connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsMatch {
    /// At least one.
    pub sni_hosts: Vec<Hostname>,
    /// What all conditions on connections share.
    pub l4: L4Match,
}

/// A route for bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRoute {
    /// Any must hold; empty is everything.
    pub matches: Vec<L4Match>,
    /// By weight.
    pub destinations: Vec<RouteDestination>,
    /// Where.
    pub origin: Origin,
}

/// A condition on a connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct L4Match {
    /// The dialled address.
    pub destination_subnets: Vec<ipnet::IpNet>,
    /// The dialled port.
    pub port: Option<u16>,
    /// Of the client workload.
    pub source_labels: Labels,
    /// Of the client workload.
    pub source_namespace: Option<Text>,
    /// In place of those of the resource; empty inherits.
    pub gateways: Vec<Text>,
}
