//! Who else is asked about calls: providers of external authorization.

use std::time::Duration;

use rajut_types::{Hostname, Text};

use super::Wild;

/// The most of a request's body that a provider may be shown, in bytes.
pub const BODY_TO_CHECK_MAX: u32 = 16 << 20;

/// A provider of external authorization. Source: Istio `envoyExtAuthzHttp`, `envoyExtAuthzGrpc`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authorizer {
    /// The service's full name.
    pub host: Hostname,
    /// Its port.
    pub port: u16,
    /// For one question; `None`: Istio's default of ten minutes.
    pub timeout: Option<Duration>,
    /// Calls pass that it does not answer about.
    pub fail_open: bool,
    /// A request that it changes is routed anew.
    pub clear_route_cache: bool,
    /// The answer to requests that it does not answer about; `None`: 403.
    pub status_on_error: Option<u16>,
    /// What of bodies it is shown; `None`: nothing.
    pub body: Option<BodyToCheck>,
    /// How it is asked.
    pub kind: AuthorizerKind,
}

/// How a provider is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthorizerKind {
    /// By `envoy.service.auth.v3.Authorization/Check`. It is shown all headers.
    Grpc,
    /// By the request's head as a request of its own.
    Http(HttpAuthorizer),
}

/// What is special to providers that are asked over HTTP. Names of headers are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpAuthorizer {
    /// Stands before the request's path.
    pub path_prefix: Text,
    /// Headers that it is shown besides `authorization`.
    pub request_headers: Vec<Wild>,
    /// Headers that questions carry.
    pub additional_headers: Vec<(Text, Text)>,
    /// Headers of its yes that the workload gets.
    pub upstream_on_allow: Vec<Wild>,
    /// Headers of its no that the caller gets; empty: all.
    pub downstream_on_deny: Vec<Wild>,
    /// Headers of its yes that the caller gets.
    pub downstream_on_allow: Vec<Wild>,
}

/// What of a request's body is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyToCheck {
    /// Bytes, 1 to [`BODY_TO_CHECK_MAX`].
    pub max_bytes: u32,
    /// Of a larger one that many are shown; otherwise its request is refused.
    pub allow_partial: bool,
    /// Over gRPC it is sent as bytes and not as text.
    pub as_bytes: bool,
}
