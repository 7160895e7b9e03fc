//! HTTP filters: what stands in a connection manager's chain, and what routes say about it.
//!
//! A request is routed first; then it meets the filters in the listener's order, and the router comes last. What a
//! filter does is its own configuration, or the most specific one that the route, its virtual host or the route
//! configuration has under the filter's name.

use std::sync::Arc;

use rajut_types::Text;

use crate::{
    cors::Cors, ext_authz::ExtAuthz, fault::FaultInjection, http::RouterFilter, jwt::JwtAuthn,
    rate_limit::LocalRateLimit, rbac::Rbac, stats::IstioStats,
};

/// An HTTP filter under its name.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// By which routes and logs name it.
    pub name: Text,
    /// It does nothing unless a route gives it a configuration.
    pub disabled: bool,
    /// What it is.
    pub kind: HttpFilterKind,
}

/// The filters that there are. A closed set: what is not here is refused by name.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpFilterKind {
    /// Refuses requests with bad tokens, and tells those that follow what good ones say.
    JwtAuthn(Arc<JwtAuthn>),
    /// Refuses calls by policy.
    Rbac(Arc<Rbac>),
    /// Asks somebody else whether calls may pass.
    ExtAuthz(Arc<ExtAuthz>),
    /// Refuses calls over a rate.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Lets requests wait or fail on purpose.
    Fault(Arc<FaultInjection>),
    /// Answers preflights and tells browsers what routes say about other origins; has nothing to say itself.
    Cors,
    /// Counts requests by Istio's standard metrics.
    IstioStats(Arc<IstioStats>),
    /// Sends the request on. Always last.
    Router(RouterFilter),
}

impl HttpFilter {
    /// The router, under the name that everybody gives it.
    pub fn router(router: RouterFilter) -> Self {
        Self {
            name: ROUTER.into(),
            disabled: false,
            kind: HttpFilterKind::Router(router),
        }
    }

    /// Access control, under the name that everybody gives it.
    pub fn rbac(rbac: Rbac) -> Self {
        Self {
            name: RBAC.into(),
            disabled: false,
            kind: HttpFilterKind::Rbac(Arc::new(rbac)),
        }
    }
}

impl HttpFilter {
    /// Tokens, under the name that everybody gives it.
    pub fn jwt_authn(jwt: JwtAuthn) -> Self {
        Self {
            name: JWT_AUTHN.into(),
            disabled: false,
            kind: HttpFilterKind::JwtAuthn(Arc::new(jwt)),
        }
    }

    /// Faults that routes configure, under the name that everybody gives them.
    pub fn fault() -> Self {
        Self {
            name: FAULT.into(),
            disabled: false,
            kind: HttpFilterKind::Fault(Arc::default()),
        }
    }

    /// Cross-origin rules that routes have, under the name that everybody gives them.
    pub fn cors() -> Self {
        Self {
            name: CORS.into(),
            disabled: false,
            kind: HttpFilterKind::Cors,
        }
    }

    /// Istio's standard metrics, under the name that everybody gives them.
    pub fn istio_stats(stats: Arc<IstioStats>) -> Self {
        Self {
            name: ISTIO_STATS.into(),
            disabled: false,
            kind: HttpFilterKind::IstioStats(stats),
        }
    }
}

/// The usual name of Istio's standard metrics.
pub const ISTIO_STATS: &str = "istio.stats";
/// The usual name of the router.
pub const ROUTER: &str = "envoy.filters.http.router";
/// The usual name of access control.
pub const RBAC: &str = "envoy.filters.http.rbac";
/// The usual name of tokens; also the one under which access control finds their claims.
pub const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
/// The usual name of external authorization.
pub const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// The usual name of local rate limits.
pub const LOCAL_RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
/// The usual name of faults on purpose.
pub const FAULT: &str = "envoy.filters.http.fault";
/// The usual name of cross-origin rules.
pub const CORS: &str = "envoy.filters.http.cors";

/// What a route (virtual host, route configuration, weighted cluster) says about filters, sorted by the filters' names.
pub type FilterOverrides = Vec<(Text, FilterOverride)>;

/// What is said about one filter. Source: Envoy `typed_per_filter_config`.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOverride {
    /// It does nothing here.
    Disabled,
    /// It does here what it is configured to do, also where it is disabled (Envoy `FilterConfig` without both).
    Enabled,
    /// Access control as this says.
    Rbac(Arc<Rbac>),
    /// A local rate limit with buckets of its own.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// These faults, and not the filter's own.
    Fault(Arc<FaultInjection>),
    /// Which pages of other origins may call.
    Cors(Arc<Cors>),
}
