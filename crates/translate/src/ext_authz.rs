//! Providers of external authorization as the filters that ask them.
//!
//! Which calls a provider is asked about is said by shadow rules of an access control before it, whose policies have names that begin
//! with [`POLICY_PREFIX`] (`authorization.rs`). Source: Istio `pilot/pkg/security/authz/builder/extauthz.go`.
//!
//! A TCP port has no requests: a provider over HTTP is not asked there, as in Istio.

use std::{sync::Arc, time::Duration};

use rajut_config::model::{Authorizer, AuthorizerKind, HttpAuthorizer, MeshConfig, ProviderKind, Wild};
use rajut_ir::{
    ext_authz::{Asked, BodyToCheck, ExtAuthz, HttpProvider, NetworkExtAuthz, Provider},
    filter::{EXT_AUTHZ, HttpFilter, HttpFilterKind},
    matcher::{Regex, StringMatch, StringMatcher},
};
use rajut_types::Text;

use crate::names;

/// Before the counters and notes of the rules that say about which calls is asked. Source: Istio.
pub const SHADOW_PREFIX: &str = "istio_ext_authz_";
/// Before the names of those rules. Source: Istio.
pub const POLICY_PREFIX: &str = "istio-ext-authz";
/// Where a provider names none. Source: Istio.
const TIMEOUT: Duration = Duration::from_mins(10);
/// Before the counters of TCP ports.
const TCP_PREFIX: &str = "tcp.";

/// The provider of that name, if it is one that can be asked.
pub(crate) fn provider<'m>(mesh: &'m MeshConfig, name: &str) -> Option<&'m Authorizer> {
    let found = mesh.providers.iter().find(|known| &*known.name == name)?;
    match &found.kind {
        ProviderKind::ExtAuthz(authorizer) => Some(authorizer),
        _ => None,
    }
}

fn asked() -> Asked {
    Asked {
        shadow_prefix: SHADOW_PREFIX.into(),
        policy: StringMatcher {
            pattern: StringMatch::Prefix(POLICY_PREFIX.into()),
            ignore_case: false,
        },
    }
}

fn cluster(authorizer: &Authorizer) -> Text {
    names::outbound_cluster(authorizer.port, "", &authorizer.host)
}

/// The filter of HTTP ports.
pub(crate) fn http_filter(authorizer: &Authorizer) -> HttpFilter {
    let (provider, allowed_headers) = match &authorizer.kind {
        AuthorizerKind::Grpc => {
            let grpc = Provider::Grpc {
                cluster: cluster(authorizer),
                authority: authorizer.host.as_str().into(),
            };
            (grpc, None)
        }
        AuthorizerKind::Http(http) => {
            let shown = (!http.request_headers.is_empty()).then(|| matchers(&http.request_headers));
            (Provider::Http(http_provider(authorizer, http)), shown)
        }
    };
    let authz = ExtAuthz {
        include_peer_certificate: matches!(provider, Provider::Grpc { .. }),
        provider,
        timeout: Some(authorizer.timeout.unwrap_or(TIMEOUT)),
        failure_mode_allow: authorizer.fail_open,
        failure_mode_header: false,
        status_on_error: authorizer.status_on_error.unwrap_or(403),
        clear_route_cache: authorizer.clear_route_cache,
        body: authorizer.body.map(|body| BodyToCheck {
            max_bytes: body.max_bytes,
            allow_partial: body.allow_partial,
            as_bytes: body.as_bytes,
        }),
        allowed_headers,
        disallowed_headers: Vec::new(),
        include_tls_session: false,
        stat_prefix: Text::default(),
        asked: Some(asked()),
    };
    HttpFilter {
        name: EXT_AUTHZ.into(),
        disabled: false,
        kind: HttpFilterKind::ExtAuthz(Arc::new(authz)),
    }
}

fn http_provider(authorizer: &Authorizer, http: &HttpAuthorizer) -> HttpProvider {
    HttpProvider {
        cluster: cluster(authorizer),
        uri: format!("http://{}", authorizer.host).into(),
        path_prefix: http.path_prefix.clone(),
        headers_to_add: http.additional_headers.clone(),
        upstream_headers: matchers(&http.upstream_on_allow),
        upstream_headers_to_append: Vec::new(),
        client_headers: matchers(&http.downstream_on_deny),
        client_headers_on_success: matchers(&http.downstream_on_allow),
    }
}

/// The filter of TCP ports; `None` where the provider can't be asked there.
pub(crate) fn network_filter(authorizer: &Authorizer) -> Option<NetworkExtAuthz> {
    matches!(authorizer.kind, AuthorizerKind::Grpc).then(|| NetworkExtAuthz {
        cluster: cluster(authorizer),
        authority: authorizer.host.as_str().into(),
        timeout: Some(authorizer.timeout.unwrap_or(TIMEOUT)),
        failure_mode_allow: authorizer.fail_open,
        include_peer_certificate: true,
        include_tls_session: false,
        stat_prefix: TCP_PREFIX.into(),
        asked: Some(asked()),
    })
}

/// Names of headers.
fn matchers(names: &[Wild]) -> Vec<StringMatcher> {
    let pattern = |name: &Wild| {
        Some(match name {
            Wild::Exact(text) => StringMatch::Exact(text.clone()),
            Wild::Prefix(text) => StringMatch::Prefix(text.clone()),
            Wild::Suffix(text) => StringMatch::Suffix(text.clone()),
            Wild::Present => StringMatch::Regex(Regex::new(".+").ok()?),
        })
    };
    let patterns = names.iter().filter_map(pattern);
    patterns
        .map(|pattern| StringMatcher {
            ignore_case: !matches!(pattern, StringMatch::Regex(_)),
            pattern,
        })
        .collect()
}
