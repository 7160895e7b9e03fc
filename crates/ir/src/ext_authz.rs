//! External authorization: who else is asked about a request, what it is shown, and what may come of its answer.
//!
//! **What is decided.** The filter asks about every request, or about those of which a filter of access control before it has noted
//! ([`crate::rbac::Rbac::shadow`]) that a policy of a certain name applies ([`Asked`]). Source: Envoy
//! `envoy.extensions.filters.http.ext_authz.v3`, `filter_enabled_metadata`; it is how Istio's policies of the action `CUSTOM` say which
//! requests they are about.
//!
//! Bounds: [`BODY_MAX`] bytes of a request's body are held for a question. Pure: the call itself is the proxy's business
//! (`http/filters/ext_authz.rs`).
//!
//! Does not: say other things on routes than that the filter is off, pass on metadata, change what is asked by runtime keys.

use std::time::Duration;

use rajut_types::Text;

use crate::matcher::StringMatcher;

/// The most of a request's body that may be shown to a provider.
pub const BODY_MAX: u32 = 16 << 20;
/// How long an answer may take where nothing is said. Source: Envoy `ext_authz`.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);
/// How access control's notes end that say which shadow policy applied. Source: Envoy `shadow_effective_policy_id`.
pub const SHADOW_POLICY: &str = "shadow_effective_policy_id";

/// The filter's configuration.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent settings, as on the wire"
)]
pub struct ExtAuthz {
    /// Who is asked.
    pub provider: Provider,
    /// How long an answer may take; `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// Requests pass that nobody has answered about.
    pub failure_mode_allow: bool,
    /// Such requests say so in a header.
    pub failure_mode_header: bool,
    /// The answer to requests that nobody has answered about.
    pub status_on_error: u16,
    /// A request whose head was changed by an answer is routed anew.
    pub clear_route_cache: bool,
    /// What of bodies is shown; `None`: nothing.
    pub body: Option<BodyToCheck>,
    /// Headers that are shown. `None`: over gRPC all, over HTTP those of [`ALWAYS_SHOWN`].
    pub allowed_headers: Option<Vec<StringMatcher>>,
    /// Headers that are never shown.
    pub disallowed_headers: Vec<StringMatcher>,
    /// The caller's certificate is shown.
    pub include_peer_certificate: bool,
    /// The server name of the TLS client hello is shown.
    pub include_tls_session: bool,
    /// Stands in the names of the counters. May be empty.
    pub stat_prefix: Text,
    /// About which requests is asked; `None`: about all.
    pub asked: Option<Asked>,
}

/// Headers that a provider over HTTP is shown in any case, beside method, path and host. Source: Envoy.
pub const ALWAYS_SHOWN: [&str; 1] = ["authorization"];

/// Who is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Provider {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// Its cluster.
        cluster: Text,
        /// `:authority`; empty: the cluster's name.
        authority: Text,
    },
    /// The request's head, sent as a request of its own: 200 lets it pass.
    Http(HttpProvider),
}

/// A provider that is asked over HTTP.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HttpProvider {
    /// Its cluster.
    pub cluster: Text,
    /// `http://HOST`, as configured. Questions carry the request's own host.
    pub uri: Text,
    /// Stands before the request's path.
    pub path_prefix: Text,
    /// Headers that questions carry besides; they replace the request's.
    pub headers_to_add: Vec<(Text, Text)>,
    /// Headers of an answer that allows, which replace the request's.
    pub upstream_headers: Vec<StringMatcher>,
    /// Headers of an answer that allows, which are appended to the request's.
    pub upstream_headers_to_append: Vec<StringMatcher>,
    /// Headers of an answer that refuses, which the client gets; empty: all.
    pub client_headers: Vec<StringMatcher>,
    /// Headers of an answer that allows, which the client gets.
    pub client_headers_on_success: Vec<StringMatcher>,
}

/// What of a request's body is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyToCheck {
    /// Bytes, 1 to [`BODY_MAX`].
    pub max_bytes: u32,
    /// Of a larger body that many are shown; otherwise its request is refused (413).
    pub allow_partial: bool,
    /// Over gRPC it is sent as bytes and not as text.
    pub as_bytes: bool,
}

/// Which requests are meant: those to which a shadow policy of access control applies.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// [`crate::rbac::Rbac::shadow_stat_prefix`] of that access control.
    pub shadow_prefix: Text,
    /// What the policy's name must be.
    pub policy: StringMatcher,
}

/// The configuration of the filter of TCP ports, which can ask over gRPC only.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkExtAuthz {
    /// The provider's cluster.
    pub cluster: Text,
    /// `:authority`; empty: the cluster's name.
    pub authority: Text,
    /// How long an answer may take; `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// Connections pass that nobody has answered about.
    pub failure_mode_allow: bool,
    /// The caller's certificate is shown.
    pub include_peer_certificate: bool,
    /// The server name of the TLS client hello is shown.
    pub include_tls_session: bool,
    /// Stands before the counters.
    pub stat_prefix: Text,
    /// About which connections is asked; `None`: about all.
    pub asked: Option<Asked>,
}

impl Provider {
    /// Its cluster.
    pub const fn cluster(&self) -> &Text {
        match self {
            Self::Grpc { cluster, .. } => cluster,
            Self::Http(http) => &http.cluster,
        }
    }
}

impl ExtAuthz {
    /// Whether the provider is shown a header (in lower case).
    pub fn shows(&self, header: &str) -> bool {
        if self
            .disallowed_headers
            .iter()
            .any(|it| it.matches(header.as_bytes()))
        {
            return false;
        }
        let is_http = matches!(self.provider, Provider::Http(_));
        if is_http && ALWAYS_SHOWN.contains(&header) {
            return true;
        }
        match &self.allowed_headers {
            Some(allowed) => allowed.iter().any(|it| it.matches(header.as_bytes())),
            None => !is_http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::StringMatch;

    fn authz(provider: Provider) -> ExtAuthz {
        ExtAuthz {
            provider,
            timeout: None,
            failure_mode_allow: false,
            failure_mode_header: false,
            status_on_error: 403,
            clear_route_cache: false,
            body: None,
            allowed_headers: None,
            disallowed_headers: Vec::new(),
            include_peer_certificate: false,
            include_tls_session: false,
            stat_prefix: Text::default(),
            asked: None,
        }
    }

    fn named(pattern: StringMatch) -> Vec<StringMatcher> {
        vec![StringMatcher {
            pattern,
            ignore_case: true,
        }]
    }

    #[test]
    fn over_http_a_provider_is_shown_what_is_named_over_grpc_all_that_is_not_forbidden() {
        let mut http = authz(Provider::Http(HttpProvider::default()));
        assert!(http.shows("authorization") && !http.shows("cookie"));
        http.allowed_headers = Some(named(StringMatch::Prefix("x-team".into())));
        assert!(http.shows("authorization") && http.shows("x-team-a") && !http.shows("cookie"));
        http.disallowed_headers = named(StringMatch::Exact("authorization".into()));
        assert!(!http.shows("authorization"), "what is forbidden is not shown");

        let mut grpc = authz(Provider::Grpc {
            cluster: "c".into(),
            authority: Text::default(),
        });
        assert!(grpc.shows("cookie"));
        grpc.disallowed_headers = named(StringMatch::Exact("cookie".into()));
        assert!(!grpc.shows("cookie") && grpc.shows("x"));
        grpc.allowed_headers = Some(named(StringMatch::Exact("x-a".into())));
        assert!(grpc.shows("x-a") && !grpc.shows("x"));
    }
}
