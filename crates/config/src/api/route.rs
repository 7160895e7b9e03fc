//! One route of a `VirtualService`.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use rajut_types::{Severity, Text};

use super::{cors, fault, matches, mirror};
use crate::{
    codes,
    merge::Defaults,
    model::{
        Destination, HeaderChange, HeaderOperations, HttpAction, HttpRedirect, HttpRoute, RedirectPort,
        Retries, Rewrite, RouteDestination, StringMatch,
    },
    read::{Field, Object, shown},
};

/// The largest body of an answer in place: 1 MB, above 100 kB a warning. Source: Istio's validation.
const MAX_BODY: usize = 1_000_000;
const LARGE_BODY: usize = 100_000;

/// A route that may still have to be replaced by those of a delegate.
#[derive(Debug, Clone)]
pub(crate) struct RawRoute {
    /// Its action is an empty list of destinations where there is a delegate.
    pub(crate) route: HttpRoute,
    pub(crate) delegate: Option<Delegate>,
}

/// The `VirtualService` whose routes stand in for this one.
#[derive(Debug, Clone)]
pub(crate) struct Delegate {
    pub(crate) name: Text,
    pub(crate) namespace: Text,
    pub(crate) origin: rajut_types::Origin,
}

/// `known`: at which gateways the resource holds; `None` for a delegate, where its parents say so.
pub(crate) fn http(field: &Field<'_>, defaults: &Defaults, known: Option<&[Text]>) -> Option<RawRoute> {
    let object = field.clone().object()?;
    matches::claims_are_known(&object, known);
    let matches: Vec<_> = object.list("match").iter().filter_map(matches::http).collect();
    let headers = object
        .object("headers")
        .map(|o| header_operations(&o))
        .unwrap_or_default();
    let rewrite = object.object("rewrite").and_then(|o| rewrite(&o, &matches));
    if rewrite.as_ref().is_some_and(|r| r.authority.is_some())
        && headers
            .request
            .set
            .iter()
            .chain(&headers.request.add)
            .any(|(name, _)| is_authority(name))
    {
        object.field().error(
            codes::EXCLUSIVE,
            "the host is rewritten twice: by `rewrite.authority` and by `headers`",
            "keep `rewrite.authority`",
        );
    }
    let timeout = object.positive_duration("timeout");
    let retries = object.object("retries").and_then(|o| retry_policy(&o));
    let mirrors = mirror::read(&object, defaults);
    let fault = object.object("fault").and_then(|o| fault::read(&o));
    let cors = object.object("corsPolicy").map(|o| cors::read(&o));
    let (action, delegate) = action(&object, &matches, defaults)?;
    if !matches!(action, HttpAction::Route(_)) {
        for name in ["mirror", "mirrors", "corsPolicy"] {
            if let Some(field) = object.get(name) {
                field.say_key(
                    Severity::Warning,
                    codes::NO_EFFECT,
                    format!("`{name}` has no effect: the route sends no request on"),
                    "take it out",
                );
            }
        }
    }
    Some(RawRoute {
        route: HttpRoute {
            name: object.text("name").unwrap_or_default(),
            matches,
            action,
            rewrite,
            timeout,
            retries,
            headers,
            mirrors,
            fault,
            cors,
            origin: field.origin(),
        },
        delegate,
    })
}

fn action(
    object: &Object<'_>,
    matches: &[crate::model::HttpMatch],
    defaults: &Defaults,
) -> Option<(HttpAction, Option<Delegate>)> {
    let set = object.one_of(&["route", "redirect", "directResponse", "delegate"]);
    let kind = set.first().copied();
    match kind {
        Some("route") => {
            let destinations = destinations(&object.get("route")?, defaults);
            Some((HttpAction::Route(destinations), None))
        }
        Some("redirect") => {
            let redirect = redirect(&object.object("redirect")?, matches)?;
            for name in ["rewrite", "retries", "timeout"] {
                if let Some(field) = object.get(name) {
                    field.say_key(
                        Severity::Error,
                        codes::EXCLUSIVE,
                        format!("`{name}` can't stand beside `redirect`: nothing is sent on"),
                        "take it out",
                    );
                }
            }
            Some((HttpAction::Redirect(redirect), None))
        }
        Some("directResponse") => {
            let direct = direct_response(&object.object("directResponse")?)?;
            Some((direct, None))
        }
        Some("delegate") => {
            let field = object.get("delegate")?;
            let delegate = field.clone().object()?;
            // Every field is read before anything is given up: one that was not looked at counts as unknown.
            let name = delegate
                .required("name", "the VirtualService that has the routes")
                .and_then(|field| field.non_empty_text());
            let namespace = delegate.text("namespace").filter(|n| !n.is_empty());
            Some((
                HttpAction::Route(Vec::new()),
                Some(Delegate {
                    name: name?,
                    namespace: namespace.unwrap_or_else(|| field.scope().namespace().clone()),
                    origin: field.origin(),
                }),
            ))
        }
        _ => {
            object.field().say_key(
                Severity::Error,
                codes::ROUTE_ACTION,
                "the route says where nothing goes to",
                "add `route:`, `redirect:`, `directResponse:` or `delegate:`",
            );
            None
        }
    }
}

/// Weighted destinations: one takes all; among several those of weight 0 are left out.
pub(crate) fn destinations(field: &Field<'_>, defaults: &Defaults) -> Vec<RouteDestination> {
    let items = field.list();
    let several = items.len() > 1;
    let mut all = Vec::with_capacity(items.len());
    let mut sum = 0u64;
    for item in &items {
        let Some(object) = item.clone().object() else {
            continue;
        };
        let weight = match object.get("weight") {
            Some(field) => field
                .integer(0..=i64::from(i32::MAX))
                .and_then(|w| u32::try_from(w).ok()),
            None => Some(0),
        };
        let headers = object
            .object("headers")
            .map(|o| header_operations(&o))
            .unwrap_or_default();
        let destination = object
            .required("destination", "add `destination: {host: …}`")
            .and_then(|field| destination(&field, defaults));
        let weight = weight.unwrap_or(1);
        sum += u64::from(weight);
        if let Some(destination) = destination {
            all.push(RouteDestination {
                destination,
                weight,
                headers,
                origin: item.origin(),
            });
        }
    }
    if items.is_empty() {
        field.error(
            codes::ROUTE_ACTION,
            "the route needs at least one destination",
            "",
        );
    }
    if several && sum == 0 {
        field.say_key(
            Severity::Error,
            codes::WEIGHTS,
            "no destination has a weight, so no request could go anywhere",
            "give at least one a `weight` above 0; a missing weight among several is 0",
        );
    }
    if several {
        all.retain(|destination| destination.weight > 0);
    } else if let Some(only) = all.first_mut() {
        only.weight = 1;
    }
    all
}

pub(crate) fn destination(field: &Field<'_>, defaults: &Defaults) -> Option<Destination> {
    let object = field.clone().object()?;
    let host_field = object.required("host", "add the service's name");
    let host = host_field.as_ref().and_then(Field::hostname);
    let subset = object.text("subset").unwrap_or_default();
    let port = object
        .object("port")
        .and_then(|port| port.required("number", "add the service port's number"))
        .and_then(|field| field.port());
    let host = host?;
    if host.is_wildcard() {
        host_field?.error(
            codes::BAD_HOSTNAME,
            format!("requests can't be sent to the wildcard `{host}`"),
            "name the service",
        );
        return None;
    }
    Some(Destination {
        host: host.qualify(field.scope().namespace(), &defaults.mesh.domain),
        subset,
        port,
        origin: host_field?.origin(),
    })
}

fn rewrite(object: &Object<'_>, matches: &[crate::model::HttpMatch]) -> Option<Rewrite> {
    object.one_of(&["uri", "uriRegexRewrite"]);
    let uri_field = object.get("uri");
    let uri = uri_field.as_ref().and_then(Field::text);
    if let Some(field) = &uri_field
        && matches
            .iter()
            .any(|m| matches!(m.uri, Some(StringMatch::Regex(_))))
    {
        field.error(
            codes::EXCLUSIVE,
            "`rewrite.uri` can't replace what a regular expression matched",
            "write `rewrite.uriRegexRewrite: {match: …, rewrite: …}`",
        );
    }
    let uri_regex = object.object("uriRegexRewrite").and_then(|o| {
        let expression = o
            .required("match", "the part of the path to replace")
            .and_then(|f| matches::regex(&f));
        let substitution = o
            .required("rewrite", "what to put there, with `\\1` for groups")
            .and_then(|f| f.text());
        Some((expression?, substitution?))
    });
    let authority = object.text("authority").filter(|a| !a.is_empty());
    let rewrite = Rewrite {
        uri,
        uri_regex,
        authority,
    };
    if rewrite.uri.is_none() && rewrite.uri_regex.is_none() && rewrite.authority.is_none() {
        object.field().warn(
            codes::NO_EFFECT,
            "the rewrite changes nothing",
            "add `uri` or `authority`",
        );
        return None;
    }
    Some(rewrite)
}

fn redirect(object: &Object<'_>, matches: &[crate::model::HttpMatch]) -> Option<HttpRedirect> {
    object.one_of(&["uri", "prefixRewrite"]);
    object.one_of(&["port", "derivePort"]);
    let prefix_field = object.get("prefixRewrite");
    if let Some(field) = &prefix_field
        && matches
            .iter()
            .any(|m| !matches!(m.uri, None | Some(StringMatch::Prefix(_))))
    {
        field.error(
            codes::EXCLUSIVE,
            "`prefixRewrite` needs a match on a prefix",
            "write `uri`",
        );
    }
    let port = match (object.get("port"), object.get("derivePort")) {
        (Some(field), _) => RedirectPort::Number(field.port()?),
        (None, Some(field)) => field.choice(&[
            ("FROM_PROTOCOL_DEFAULT", RedirectPort::ProtocolDefault),
            ("FROM_REQUEST_PORT", RedirectPort::FromRequest),
        ])?,
        (None, None) => RedirectPort::Unset,
    };
    let status = match object.get("redirectCode") {
        None => 301,
        Some(field) => {
            let code = field.u32()?;
            if let Ok(code @ (301 | 302 | 303 | 307 | 308)) = u16::try_from(code) {
                code
            } else {
                field.error(
                    codes::OUT_OF_RANGE,
                    format!("{code} is not a status of a redirection"),
                    "write 301, 302, 303, 307 or 308",
                );
                return None;
            }
        }
    };
    Some(HttpRedirect {
        uri: object.text("uri"),
        prefix: prefix_field.as_ref().and_then(Field::text),
        authority: object.text("authority"),
        scheme: object.text("scheme"),
        port,
        status,
    })
}

fn direct_response(object: &Object<'_>) -> Option<HttpAction> {
    let status = object
        .required("status", "add the status, e.g. `status: 503`")
        .and_then(|field| field.integer(200..=599));
    let body = match object.object("body") {
        None => Box::default(),
        Some(body) => direct_body(&body)?,
    };
    Some(HttpAction::Direct {
        status: u16::try_from(status?).ok()?,
        body,
    })
}

/// `string`, or `bytes` in base64; neither is no body.
fn direct_body(object: &Object<'_>) -> Option<Box<[u8]>> {
    object.one_of(&["string", "bytes"]);
    let (string, bytes) = (object.get("string"), object.get("bytes"));
    let (field, body) = match (string, bytes) {
        (Some(field), _) => {
            let text = field.text()?;
            (field, text.as_bytes().to_vec())
        }
        (None, Some(field)) => {
            let body = base64(&field)?;
            (field, body)
        }
        (None, None) => return Some(Box::default()),
    };
    if body.len() > MAX_BODY {
        field.error(codes::OUT_OF_RANGE, "the body has more than 1 MB", "");
    } else if body.len() > LARGE_BODY {
        field.warn(
            codes::OUT_OF_RANGE,
            "the body has more than 100 kB, which every proxy keeps",
            "",
        );
    }
    Some(body.into())
}

/// Bytes as protobuf's JSON has them: base64 of either alphabet, padded or not.
fn base64(field: &Field<'_>) -> Option<Vec<u8>> {
    let text = field.text()?;
    let standard = text.replace('-', "+").replace('_', "/");
    let decoded = STANDARD_NO_PAD.decode(standard.trim_end_matches('='));
    if decoded.is_err() {
        field.error(
            codes::WRONG_TYPE,
            "these are no bytes in base64",
            "or write `string`",
        );
    }
    decoded.ok()
}

pub(crate) fn retry_policy(object: &Object<'_>) -> Option<Retries> {
    let attempts_field = object.get("attempts");
    let attempts = match &attempts_field {
        Some(field) => field.count()?,
        None => 0,
    };
    let per_try_timeout = object.positive_duration("perTryTimeout");
    let retry_on_field = object.get("retryOn");
    let retry_on = retry_on_field
        .as_ref()
        .and_then(Field::text)
        .filter(|t| !t.is_empty());
    if let (Some(field), Some(text)) = (&retry_on_field, &retry_on) {
        check_retry_on(field, text);
    }
    let remote = object.bool("retryRemoteLocalities");
    let backoff = object.positive_duration("backoff");
    let ignore_previous = object.bool("retryIgnorePreviousHosts");
    if attempts == 0 && (per_try_timeout.is_some() || retry_on.is_some() || remote.is_some()) {
        object.field().say_key(
            Severity::Error,
            codes::EXCLUSIVE,
            "`attempts: 0` turns retries off, yet other settings for them are here",
            "write `attempts: 2`, or take the other settings out",
        );
    }
    Some(Retries {
        attempts,
        per_try_timeout,
        retry_on,
        backoff,
        remote_localities: remote.unwrap_or(false),
        ignore_previous_hosts: ignore_previous.unwrap_or(true),
    })
}

/// Envoy's names for conditions of retries.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn check_retry_on(field: &Field<'_>, text: &str) {
    for part in text.split(',').map(str::trim) {
        let status = part.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !status && !RETRY_ON.contains(&part) {
            let hint = match crate::read::nearest(part, RETRY_ON.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "e.g. `connect-failure,refused-stream,503`".to_owned(),
            };
            field.error(
                codes::UNKNOWN_VALUE,
                format!("`{}` is not a condition for retries", shown(part)),
                hint,
            );
        }
    }
}

pub(crate) fn header_operations(object: &Object<'_>) -> HeaderOperations {
    let change = |name| {
        object
            .object(name)
            .map_or_else(HeaderChange::default, |o| HeaderChange {
                set: o.get("set").map_or_else(Vec::new, |f| pairs(&f)),
                add: o.get("add").map_or_else(Vec::new, |f| pairs(&f)),
                remove: o
                    .list("remove")
                    .iter()
                    .filter_map(|f| f.text().filter(|name| header_name(f, name, false)))
                    .collect(),
            })
    };
    HeaderOperations {
        request: change("request"),
        response: change("response"),
    }
}

fn pairs(field: &Field<'_>) -> Vec<(Text, Text)> {
    let mut all = Vec::new();
    for (name, value) in field.map() {
        if !header_name(&value, &name, true) {
            continue;
        }
        let Some(text) = value.text() else { continue };
        if text.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            value.error(
                codes::BAD_HEADER,
                "a header's value can't hold line breaks or other control characters",
                "",
            );
        } else if !percents_pair(&text) {
            value.error(
                codes::BAD_HEADER,
                "`%` begins a variable such as `%REQ(x-name)%` and needs its end",
                "write `%%` for a percent sign",
            );
        } else {
            all.push((name, text));
        }
    }
    all
}

/// Whether each `%` is doubled or closes another.
fn percents_pair(text: &str) -> bool {
    text.replace("%%", "").matches('%').count().is_multiple_of(2)
}

fn header_name(field: &Field<'_>, name: &str, set: bool) -> bool {
    if matches::is_header_name(name) || (set && is_authority(name)) {
        return true;
    }
    field.say_key(
        Severity::Error,
        codes::BAD_HEADER,
        format!("`{}` can't be a header's name here", shown(name)),
        if name.starts_with(':') {
            "only `:authority` may be set; the path is changed with `rewrite`"
        } else {
            ""
        },
    );
    false
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests;
