//! Cross-origin rules of routes: preflights are answered here, answers to pages of allowed origins say so.
//!
//! As Envoy has it: a request of another origin is not refused (the browser does that), an answer's own fields of these
//! names are replaced, and a route that answers by itself has no rules. Without a policy nothing is looked at.

use std::sync::Arc;

use bytes::Bytes;
use rajut_codec::{Fields, Method};
use rajut_ir::{cors::Cors, decide::Chosen, route::RouteActionKind};

use super::drawn;
use crate::{
    http::record::Record,
    stats::{LateStats, OnRouteCounter},
};

const ORIGIN: &str = "origin";
const REQUEST_METHOD: &str = "access-control-request-method";
const REQUEST_HEADERS: &str = "access-control-request-headers";
const REQUEST_PRIVATE_NETWORK: &str = "access-control-request-private-network";
const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const ALLOW_METHODS: &str = "access-control-allow-methods";
const ALLOW_HEADERS: &str = "access-control-allow-headers";
const ALLOW_PRIVATE_NETWORK: &str = "access-control-allow-private-network";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const MAX_AGE: &str = "access-control-max-age";

/// What the answer to a page of an allowed origin says.
#[derive(Debug)]
pub(crate) struct Allowed {
    origin: Bytes,
    policy: Arc<Cors>,
}

/// Looks at a request; `Some` is the answer to a preflight, to which [`tell`] adds the rest.
pub(super) fn on_request(
    stats: &LateStats,
    policy: &Arc<Cors>,
    record: &mut Record,
    chosen: &Chosen<'_>,
) -> Option<Fields> {
    if !matches!(chosen.route.action, RouteActionKind::Forward(_)) {
        return None;
    }
    let (enabled, shadow) = (drawn(policy.enabled, record), drawn(policy.shadow, record));
    let origin = record.head.fields.get_shared(ORIGIN);
    let origin = origin.filter(|origin| !origin.is_empty() && (enabled || shadow))?;
    let allowed = policy.allows(&origin);
    let counter = if allowed {
        OnRouteCounter::OriginValid
    } else {
        OnRouteCounter::OriginInvalid
    };
    stats.get().add(record.shared.worker.index, counter);
    if !enabled {
        return None;
    }
    let fields = &record.head.fields;
    let asked = fields.get(REQUEST_METHOD).filter(|method| !method.is_empty());
    let forwards = !allowed && policy.forward_not_matching.unwrap_or(true);
    let answer = asked
        .filter(|_| record.head.method == Method::Options && !forwards)
        .map(|asked| preflight(policy, fields, asked));
    if allowed {
        let policy = policy.clone();
        record.filters.cors = Some(Box::new(Allowed { origin, policy }));
    }
    answer
}

/// What a preflight is told, whatever its origin; `asked` is the method.
fn preflight(policy: &Cors, request: &Fields, asked: &[u8]) -> Fields {
    let mut fields = Fields::new();
    // A fresh section takes any edit; what is no field value is left out.
    let mut say = |name: &'static str, value: &[u8]| {
        let _ = fields.set(name, value);
    };
    if policy.allow_credentials == Some(true) {
        say(ALLOW_CREDENTIALS, b"true");
    }
    match &*policy.allow_methods {
        "" => {}
        "*" => say(ALLOW_METHODS, asked),
        methods => say(ALLOW_METHODS, methods.as_bytes()),
    }
    match &*policy.allow_headers {
        "" => {}
        // Empty where none are asked for, as Envoy has it.
        "*" => say(ALLOW_HEADERS, request.get(REQUEST_HEADERS).unwrap_or_default()),
        headers => say(ALLOW_HEADERS, headers.as_bytes()),
    }
    if !policy.max_age.is_empty() {
        say(MAX_AGE, policy.max_age.as_bytes());
    }
    let wants_private = request.get(REQUEST_PRIVATE_NETWORK) == Some(&b"true"[..]);
    if policy.allow_private_network == Some(true) && wants_private {
        say(ALLOW_PRIVATE_NETWORK, b"true");
    }
    fields
}

/// Tells a page of an allowed origin that it may read the answer.
pub(super) fn tell(record: &mut Record) {
    let Some(allowed) = record.filters.cors.take() else {
        return;
    };
    let fields = &mut record.response.fields;
    // Only a head at its bound refuses them.
    let _ = fields.set(ALLOW_ORIGIN, &allowed.origin);
    if allowed.policy.allow_credentials == Some(true) {
        let _ = fields.set(ALLOW_CREDENTIALS, "true");
    }
    if !allowed.policy.expose_headers.is_empty() {
        let _ = fields.set(EXPOSE_HEADERS, allowed.policy.expose_headers.as_bytes());
    }
}
