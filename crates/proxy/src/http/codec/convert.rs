//! Heads to and from HTTP/2 (RFC 9113 §8): pseudo header fields, cookie crumbs, extended CONNECT (RFC 8441).
//!
//! An extended CONNECT for a protocol is the same thing as an HTTP/1 upgrade to it; inside the proxy it is a GET with
//! an `upgrade` field, whichever version carried it. What it does not do: judge values (`h2` has, and `Fields` does).
//!
//! ```text
//!  h2 ─► HeaderMap ─┬─ names and values ─► Fields ─ read, edited ─┬─ HTTP/1: the block and the edits
//!                   └─ carried, unread ──────────────────────────┴─ h2: the same map with the edits applied
//! ```
//!
//! A map is carried once: who sends the message a second time (a retry, a mirror) builds one from the block.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri};
use rajut_codec::{
    Change, Fields, Known, KnownSet, Method, Received, RequestHead, ResponseHead, Scheme, Version,
    h1::BodyLength,
};

use crate::http::message::Request;

/// Header fields as `h2` has them, for those who only pass them on.
pub(crate) type FieldMap = HeaderMap;

/// A head that can't be carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unrepresentable;

/// A request as `h2` received it. `is_end`: no body follows.
pub(crate) fn request_from_h2(parts: http::request::Parts, is_end: bool) -> Result<Request, Unrepresentable> {
    let authority = parts.uri.authority().map(uri::Authority::as_str);
    let path = parts.uri.path_and_query().map_or("", uri::PathAndQuery::as_str);
    let (mut fields, [named, path_and_query]) =
        section(parts.headers, [authority.unwrap_or_default(), path])?;
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let mut method = Method::from_bytes(parts.method.as_str().as_bytes()).ok_or(Unrepresentable)?;
    let mut upgrade = false;
    if let Some(protocol) = protocol {
        method = Method::Get;
        upgrade = true;
        fields
            .set(Known::Upgrade, protocol.as_str())
            .map_err(|_| Unrepresentable)?;
    }
    let authority = match authority {
        Some(_) => named,
        // RFC 9113 §8.3.1: a request translated from HTTP/1 may carry `host` instead.
        None => fields.get_shared(Known::Host).unwrap_or_default(),
    };
    fields.remove(Known::Host);
    let body = if is_end || upgrade {
        BodyLength::Empty
    } else {
        declared_length(&fields)
    };
    let expect_continue = fields
        .get(Known::Expect)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    Ok(Request {
        head: RequestHead {
            method,
            scheme: parts
                .uri
                .scheme_str()
                .and_then(|scheme| Scheme::from_bytes(scheme.as_bytes())),
            authority,
            path_and_query,
            version: Version::Http2,
            fields,
            ..RequestHead::default()
        },
        body,
        expect_continue,
        upgrade,
    })
}

/// A response as `h2` received it.
pub(crate) fn response_from_h2(
    parts: http::response::Parts,
    is_end: bool,
) -> Result<(ResponseHead, BodyLength), Unrepresentable> {
    let fields = fields_from(parts.headers)?;
    let length = if is_end {
        BodyLength::Empty
    } else {
        declared_length(&fields)
    };
    let head = ResponseHead {
        status: parts.status.as_u16(),
        version: Version::Http2,
        fields,
        ..ResponseHead::default()
    };
    Ok((head, length))
}

fn declared_length(fields: &Fields) -> BodyLength {
    // `h2` checks the length against what arrives.
    fields
        .get_str(Known::ContentLength)
        .and_then(|text| text.parse().ok())
        .map_or(BodyLength::Unknown, |length| match length {
            0 => BodyLength::Unknown,
            length => BodyLength::Exact(length),
        })
}

/// Header fields as `h2` received them, which are carried along; cookie crumbs become one field (RFC 9113 §8.2.3).
pub(crate) fn fields_from(map: HeaderMap) -> Result<Fields, Unrepresentable> {
    section(map, []).map(|(fields, [])| fields)
}

/// As [`fields_from`], with copies of other texts of the head in the same block.
fn section<const N: usize>(
    mut map: HeaderMap,
    texts: [&str; N],
) -> Result<(Fields, [Bytes; N]), Unrepresentable> {
    if map.len() > map.keys_len() {
        join_crumbs(&mut map)?;
    }
    let lines: usize = map
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let bytes = lines + texts.iter().map(|text| text.len()).sum::<usize>();
    let mut received = Received::with_capacity(map.len() + ADDED, bytes);
    let places = texts.map(|text| received.aside(text.as_bytes()));
    let mut is_as_sent = true;
    for (name, value) in &mut map {
        let known = received
            .push(name.as_str().as_bytes(), value.as_bytes())
            .map_err(|_| Unrepresentable)?;
        if let Some(known) = known {
            value.set_sensitive(NEVER_INDEXED.contains(known));
            is_as_sent &= !NOT_IN_H2.contains(known);
        }
        // What is read here without the space around it is not sent with it.
        is_as_sent &= value.as_bytes().trim_ascii().len() == value.len();
    }
    let mut fields = received.finish();
    if is_as_sent {
        fields.carry(Box::new(map));
    }
    let texts = places.map(|place| fields.part(place));
    Ok((fields, texts))
}

fn join_crumbs(map: &mut HeaderMap) -> Result<(), Unrepresentable> {
    let mut crumbs = map.get_all(http::header::COOKIE).iter();
    let Some(first) = crumbs.next() else { return Ok(()) };
    let mut joined = first.as_bytes().to_vec();
    for crumb in crumbs {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(Bytes::from(joined)).map_err(|_| Unrepresentable)?;
    map.insert(http::header::COOKIE, joined);
    Ok(())
}

/// Room in a section for the lines that are added on the way.
const ADDED: usize = 8;

/// Fields that HTTP/2 does not carry (RFC 9113 §8.2.2) or carries as pseudo fields.
const NOT_IN_H2: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::Host,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// Fields whose values are new with every message, or with most. Put into HPACK's dynamic table they would push out all
/// that repeats, and `h2` compares a new value with every older one of its name; so they are sent as literals
/// (RFC 7541 §6.2.3). Credentials have a second reason: what is in the table can be guessed (§7.1).
const NEVER_INDEXED: KnownSet = KnownSet::of(&[
    Known::Authorization,
    Known::B3,
    Known::Baggage,
    Known::Cookie,
    Known::GrpcMessage,
    Known::GrpcTimeout,
    Known::ProxyAuthorization,
    Known::SetCookie,
    Known::Traceparent,
    Known::Tracestate,
    Known::XForwardedFor,
    Known::XRequestId,
]);

/// The known names as `http` has them, by their number.
static NAMES: LazyLock<Vec<HeaderName>> = LazyLock::new(|| {
    Known::all()
        .iter()
        .map(|known| HeaderName::from_static(known.as_str()))
        .collect()
});

/// Header fields for `h2`: the map in which they arrived with what was changed since, or a new one.
pub(crate) fn map_from(fields: &Fields) -> Result<HeaderMap, Unrepresentable> {
    if let Some(mut map) = fields.take_carried::<HeaderMap>() {
        for change in fields.changes() {
            apply(change, &mut map)?;
        }
        return Ok(*map);
    }
    let mut map = HeaderMap::with_capacity(fields.len());
    for (field, value) in fields.iter_shared() {
        apply(Change::Added(field, value), &mut map)?;
    }
    Ok(map)
}

fn apply(change: Change<'_>, map: &mut HeaderMap) -> Result<(), Unrepresentable> {
    let (Change::Added(field, _) | Change::Replaced(field, _) | Change::Removed(field)) = &change;
    let name = match field.known {
        Some(known) => NAMES[known as usize].clone(),
        None => HeaderName::from_bytes(field.name).map_err(|_| Unrepresentable)?,
    };
    let is_known_in = |set: KnownSet| field.known.is_some_and(|known| set.contains(known));
    let (never_indexed, not_in_h2) = (is_known_in(NEVER_INDEXED), is_known_in(NOT_IN_H2));
    let made = |value: Bytes| {
        let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| Unrepresentable)?;
        value.set_sensitive(never_indexed);
        Ok(value)
    };
    match change {
        Change::Removed(_) => {
            map.remove(name);
        }
        // What is carried has none of them.
        _ if not_in_h2 => {}
        Change::Replaced(_, value) => {
            map.insert(name, made(value)?);
        }
        Change::Added(_, value) => {
            map.append(name, made(value)?);
        }
    }
    Ok(())
}

/// A request for `h2`. An upgrade becomes an extended CONNECT.
pub(crate) fn request_to_h2(
    head: &RequestHead,
    scheme: Scheme,
) -> Result<http::Request<()>, Unrepresentable> {
    let protocol = head.fields.get_str(Known::Upgrade).map(h2::ext::Protocol::from);
    let mut uri = uri::Parts::default();
    let plain_connect = head.method == Method::Connect && protocol.is_none();
    if !head.authority.is_empty() {
        let authority = uri::Authority::from_maybe_shared(head.authority.clone());
        uri.authority = Some(authority.map_err(|_| Unrepresentable)?);
    }
    if !plain_connect {
        uri.scheme = Some(match head.scheme.unwrap_or(scheme) {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
        uri.path_and_query = Some(if head.path_and_query.is_empty() {
            uri::PathAndQuery::from_static("/")
        } else {
            let path = uri::PathAndQuery::from_maybe_shared(head.path_and_query.clone());
            path.map_err(|_| Unrepresentable)?
        });
    }
    let mut request = http::Request::new(());
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unrepresentable)?;
    *request.method_mut() = match (&head.method, &protocol) {
        (_, Some(_)) => http::Method::CONNECT,
        (Method::Get, None) => http::Method::GET,
        (Method::Post, None) => http::Method::POST,
        (method, None) => {
            http::Method::from_bytes(method.as_str().as_bytes()).map_err(|_| Unrepresentable)?
        }
    };
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = map_from(&head.fields)?;
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(protocol);
    }
    Ok(request)
}

/// A response for `h2`.
pub(crate) fn response_to_h2(head: &ResponseHead) -> Result<http::Response<()>, Unrepresentable> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(head.status).map_err(|_| Unrepresentable)?;
    *response.version_mut() = http::Version::HTTP_2;
    *response.headers_mut() = map_from(&head.fields)?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_both_directions_and_cookies_become_one() {
        let mut request = http::Request::builder()
            .method("POST")
            .uri("https://clinic:8080/visits?day=1")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("content-length", "3")
            .body(())
            .unwrap();
        let (parts, ()) = std::mem::replace(&mut request, http::Request::new(())).into_parts();
        let received = request_from_h2(parts, false).unwrap();
        assert_eq!(received.body, BodyLength::Exact(3));
        assert_eq!(
            received.head.fields.get(Known::Cookie),
            Some(b"a=1; b=2".as_slice())
        );
        assert_eq!(received.head.authority_str(), "clinic:8080");
        let sent = request_to_h2(&received.head, Scheme::Http).unwrap();
        assert_eq!(sent.uri(), "https://clinic:8080/visits?day=1");
        assert_eq!(sent.headers()["cookie"], "a=1; b=2");
    }

    #[test]
    fn values_that_do_not_repeat_stay_out_of_the_compression_table() {
        let mut fields = Fields::new();
        fields.append("x-request-id", "6f1d0c9a").unwrap();
        fields.append("authorization", "Bearer secret").unwrap();
        fields.append("content-type", "text/plain").unwrap();
        fields.append("x-own", "kept").unwrap();
        let map = map_from(&fields).unwrap();
        let sensitive = |name: &str| map[name].is_sensitive();
        assert!(sensitive("x-request-id") && sensitive("authorization"));
        assert!(!sensitive("content-type") && !sensitive("x-own"));
        for known in Known::all() {
            assert_eq!(NAMES[*known as usize].as_str(), known.as_str());
        }
    }

    #[test]
    fn an_upgrade_becomes_an_extended_connect_and_back() {
        let mut head = RequestHead::new(Method::Get, "/chat");
        head.authority = "clinic".into();
        head.fields.set(Known::Upgrade, "websocket").unwrap();
        let sent = request_to_h2(&head, Scheme::Http).unwrap();
        assert_eq!(sent.method(), http::Method::CONNECT);
        assert!(!sent.headers().contains_key("upgrade"));
        let received = request_from_h2(sent.into_parts().0, false).unwrap();
        assert!(received.upgrade);
        assert_eq!(received.head.method, Method::Get);
        assert_eq!(
            received.head.fields.get(Known::Upgrade),
            Some(b"websocket".as_slice())
        );
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    /// The map that is handed on must be the one that would be built from the section.
    #[track_caller]
    fn agrees(received: &[(&'static str, &'static str)], edit: impl Fn(&mut Fields)) {
        let mut fields = fields_from(map(received)).unwrap();
        edit(&mut fields);
        let built = map_from(&fields.clone()).unwrap();
        let handed_on = map_from(&fields).unwrap();
        assert_eq!(handed_on, built);
        for (name, value) in &built {
            let all = |map: &HeaderMap| {
                let values = map.get_all(name).iter();
                values
                    .map(|value| (value.clone(), value.is_sensitive()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(all(&handed_on), all(&built), "{name}: {value:?}");
        }
    }

    #[test]
    fn a_map_that_is_handed_on_is_as_one_that_is_built() {
        let received = [
            ("host", "clinic"),
            ("te", "trailers"),
            ("x-request-id", "17"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-own", "c"),
            ("x-own", "d"),
            ("set-cookie", "e"),
            ("set-cookie", "f"),
            ("via", "g"),
        ];
        agrees(&received, |_| {});
        agrees(&received, |fields| {
            fields.remove(Known::Host);
            fields.set(Known::XRequestId, "18").unwrap();
            fields.set(Known::Cookie, "h=3").unwrap();
            fields.join(Known::Via, "i").unwrap();
            fields.append("x-own", "j").unwrap();
            fields.append(Known::Upgrade, "websocket").unwrap();
            fields.append(Known::Traceparent, "k").unwrap();
        });
        agrees(&received, |fields| {
            fields.remove(Known::Te);
            fields.append(Known::Te, "l").unwrap();
        });
        agrees(&received, |fields| {
            fields.remove(Known::Te);
            fields.append(Known::Te, "m").unwrap();
            fields.append(Known::Te, "n").unwrap();
        });
        agrees(&received, |fields| fields.set("x-own", "o").unwrap());
        agrees(&received, |fields| assert_eq!(fields.remove(Known::SetCookie), 2));
        agrees(&received, |fields| fields.retain(|field| field.value != b"f"));
        agrees(&[("http2-settings", "p"), ("te", "trailers")], |_| {});
    }

    #[test]
    fn what_is_handed_on_is_what_was_judged() {
        let fields = fields_from(map(&[("x-role", " nurse ")])).unwrap();
        assert_eq!(fields.get_str("x-role"), Some("nurse"));
        assert_eq!(map_from(&fields).unwrap()["x-role"], "nurse");
    }
}
