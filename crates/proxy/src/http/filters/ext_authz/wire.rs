//! The messages of `envoy.service.auth.v3`.

use std::{net::SocketAddr, time::SystemTime};

use prost::Message;
use rajut_codec::{Fields, Known, Version};
use rajut_ir::{decide::RequestView as _, ext_authz::ExtAuthz};
use rajut_proto::{
    core::{
        Address, HeaderValueOption, SocketAddress, address, header_value_option::HeaderAppendAction,
        socket_address,
    },
    envoy::service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
        attribute_context::{HttpRequest, Peer as PeerMessage, Request, TlsSession},
        check_response::HttpResponse,
    },
    google::protobuf::Timestamp,
};

use super::{
    Answer, NoAnswer, Refusal, Shown,
    answer::{Allowed, Edits, Mode},
    is_guarded, path_of, shown_name,
};
use crate::{
    connection::{Connection, Peer},
    http::{
        record::Record,
        view::{View, client_address},
    },
};

/// A provider's yes.
const OK: i32 = 0;

/// The question about a request.
pub(super) fn check(ir: &ExtAuthz, record: &Record, shown: Shown) -> Vec<u8> {
    let connection = &record.shared.connection;
    let mut context = of_connection(
        connection,
        client_address(record),
        ir.include_peer_certificate,
        ir.include_tls_session,
    );
    context.request = Some(Request {
        time: now(),
        http: Some(request(ir, record, shown)),
    });
    let check = CheckRequest {
        attributes: Some(context),
    };
    check.encode_to_vec()
}

/// The question about a connection.
pub(crate) fn check_connection(connection: &Connection, certificate: bool, session: bool) -> Vec<u8> {
    let mut context = of_connection(connection, connection.remote, certificate, session);
    context.request = Some(Request {
        time: now(),
        http: None,
    });
    let check = CheckRequest {
        attributes: Some(context),
    };
    check.encode_to_vec()
}

fn of_connection(
    connection: &Connection,
    client: SocketAddr,
    certificate: bool,
    session: bool,
) -> AttributeContext {
    let (mut principal, mut own) = (String::new(), String::new());
    if let Peer::Verified(peer) = &connection.peer {
        let name = peer.uris.first().or_else(|| peer.dns_names.first());
        principal = name.unwrap_or(&peer.subject).to_string();
        own = peer.own_uri.to_string();
    }
    let shown = connection.certificate.as_deref().filter(|_| certificate);
    AttributeContext {
        source: Some(PeerMessage {
            address: Some(address(client)),
            principal,
            certificate: shown.map(pem).unwrap_or_default(),
            ..Default::default()
        }),
        destination: Some(PeerMessage {
            address: Some(address(connection.local)),
            principal: own,
            ..Default::default()
        }),
        tls_session: session.then(|| TlsSession {
            sni: connection.sni.as_deref().unwrap_or_default().to_owned(),
        }),
        ..Default::default()
    }
}

/// As PEM, with what no URL may hold encoded. Source: Envoy `urlEncodedPemEncodedPeerCertificate`.
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, byte) in text.bytes().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push_str("%0A");
        }
        match byte {
            b'+' => out.push_str("%2B"),
            b'/' => out.push_str("%2F"),
            b'=' => out.push_str("%3D"),
            other => out.push(char::from(other)),
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
    out
}

fn address(of: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: of.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(of.port().into())),
            ..Default::default()
        })),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a provider is told the time of the calendar, and only a request that it is asked about needs it"
)]
fn now() -> Option<Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp {
        seconds: i64::try_from(since.as_secs()).ok()?,
        nanos: i32::try_from(since.subsec_nanos()).ok()?,
    })
}

fn request(ir: &ExtAuthz, record: &Record, shown: Shown) -> HttpRequest {
    let head = &record.head;
    let view = View { record };
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, scheme) = (lossy(view.method()), lossy(view.scheme()));
    let (path, host) = (path_of(record), lossy(view.authority()));
    let mut message = HttpRequest {
        id: head
            .fields
            .get_str(Known::XRequestId)
            .unwrap_or_default()
            .to_owned(),
        size: head
            .fields
            .get_str(Known::ContentLength)
            .and_then(|length| length.parse().ok())
            .unwrap_or(-1),
        protocol: match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
        .to_owned(),
        ..Default::default()
    };
    let pseudo = [
        (":method", &method),
        (":scheme", &scheme),
        (":authority", &host),
        (":path", &path),
    ];
    for (name, value) in pseudo {
        if ir.shows(name) {
            message.headers.insert(name.to_owned(), value.clone());
        }
    }
    for field in head.fields.iter() {
        if field.known == Some(Known::Host) {
            continue;
        }
        let Some(name) = shown_name(ir, field.name) else {
            continue;
        };
        let value = lossy(field.value);
        let known = message.headers.entry(name);
        known
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert(value);
    }
    if let Some(body) = &ir.body {
        let partial = if shown.partial { "true" } else { "false" };
        message
            .headers
            .insert("x-envoy-auth-partial-body".to_owned(), partial.to_owned());
        if body.as_bytes {
            message.raw_body = shown.bytes.into();
        } else {
            message.body = lossy(&shown.bytes);
        }
    }
    HttpRequest {
        method,
        path,
        host,
        scheme,
        ..message
    }
}

/// What a provider says.
pub(super) fn answer(bytes: &[u8]) -> Result<Answer, NoAnswer> {
    let response = CheckResponse::decode(bytes)
        .map_err(|error| NoAnswer::Failed(format!("the answer is no CheckResponse: {error}").into()))?;
    let allows = response.status.is_none_or(|status| status.code == OK);
    match response.http_response {
        Some(HttpResponse::ErrorResponse(error)) => Err(NoAnswer::Refused(refused(error)?)),
        Some(HttpResponse::OkResponse(ok)) if allows => Ok(Answer::Allowed(Box::new(allowed(ok)))),
        Some(HttpResponse::DeniedResponse(denied)) if !allows => Ok(Answer::Refused(refused(denied)?)),
        _ if allows => Ok(Answer::Allowed(Box::default())),
        _ => Ok(Answer::Refused(refused(DeniedHttpResponse::default())?)),
    }
}

fn refused(denied: DeniedHttpResponse) -> Result<Box<Refusal>, NoAnswer> {
    let status = denied.status.map_or(0, |status| status.code);
    let status = match u16::try_from(status) {
        Ok(0) => 403,
        Ok(status @ 200..=599) => status,
        _ => return Err(NoAnswer::Invalid(format!("no status: {status}").into())),
    };
    let mut edits = Edits::default();
    for option in denied.headers {
        push(&mut edits, option, false);
    }
    let mut fields = Fields::new();
    edits.apply(&mut fields).map_err(NoAnswer::Invalid)?;
    Ok(Box::new(Refusal {
        status,
        fields,
        body: denied.body.into(),
    }))
}

#[expect(
    deprecated,
    reason = "what Envoy deprecates is still what many providers write"
)]
fn push(edits: &mut Edits, option: HeaderValueOption, by_action: bool) {
    let Some(header) = option.header else { return };
    let value = if header.raw_value.is_empty() {
        header.value.into_bytes()
    } else {
        header.raw_value
    };
    let action = HeaderAppendAction::try_from(option.append_action).unwrap_or_default();
    let mode = match (option.append, action) {
        (Some(append), _) if append.value => Mode::Append,
        (None, HeaderAppendAction::AddIfAbsent) => Mode::IfAbsent,
        (None, HeaderAppendAction::OverwriteIfExists) => Mode::IfPresent,
        // The enumerator's default: of requests and refusals Envoy takes it for "set".
        (None, HeaderAppendAction::AppendIfExistsOrAdd) if by_action => Mode::Append,
        _ => Mode::Set,
    };
    edits.push(&header.key, value, mode);
}

fn allowed(ok: OkHttpResponse) -> Allowed {
    let mut allowed = Allowed::default();
    for option in ok.headers {
        push(&mut allowed.request, option, false);
    }
    for option in ok.response_headers_to_add {
        push(&mut allowed.response, option, true);
    }
    allowed.remove = ok
        .headers_to_remove
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .filter(|name| !is_guarded(name))
        .collect();
    allowed.set_query = ok
        .query_parameters_to_set
        .into_iter()
        .map(|it| (it.key, it.value))
        .collect();
    allowed.remove_query = ok.query_parameters_to_remove;
    allowed
}

#[cfg(test)]
mod tests {
    use rajut_proto::{
        core::HeaderValue, envoy::service::auth::v3::check_response::HttpResponse as Http,
        google::rpc::Status,
    };

    use super::*;

    fn response(code: i32, http: Option<Http>) -> Result<Answer, NoAnswer> {
        let message = CheckResponse {
            status: Some(Status {
                code,
                ..Default::default()
            }),
            http_response: http,
            dynamic_metadata: None,
        };
        answer(&message.encode_to_vec())
    }

    fn header(key: &str, value: &str) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(HeaderValue {
                key: key.to_owned(),
                value: value.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_status_decides_whatever_stands_beside_it() {
        assert!(matches!(response(0, None), Ok(Answer::Allowed(_))));
        let ok = || Some(Http::OkResponse(OkHttpResponse::default()));
        let denied = || Some(Http::DeniedResponse(DeniedHttpResponse::default()));
        assert!(matches!(response(0, ok()), Ok(Answer::Allowed(_))));
        assert!(matches!(response(0, denied()), Ok(Answer::Allowed(_))));
        for http in [None, ok(), denied()] {
            let Ok(Answer::Refused(refusal)) = response(7, http) else {
                panic!("a status that is not OK refuses");
            };
            assert_eq!(refusal.status, 403);
        }
        let error = Some(Http::ErrorResponse(DeniedHttpResponse::default()));
        assert!(matches!(response(0, error), Err(NoAnswer::Refused(_))));
    }

    #[test]
    fn an_answer_that_is_none_or_wants_what_no_head_can_hold_is_no_yes() {
        assert!(matches!(answer(b"\xff\xff\xff"), Err(NoAnswer::Failed(_))));
        let refusal = |status: i32, header| {
            let denied = DeniedHttpResponse {
                status: Some(rajut_proto::types::HttpStatus { code: status }),
                headers: vec![header],
                ..Default::default()
            };
            response(7, Some(Http::DeniedResponse(denied)))
        };
        assert!(matches!(
            refusal(1000, header("a", "b")),
            Err(NoAnswer::Invalid(_))
        ));
        assert!(matches!(
            refusal(401, header("a", "b\r\nc: d")),
            Err(NoAnswer::Invalid(_))
        ));
        let Ok(Answer::Refused(refused)) = refusal(401, header("content-length", "7")) else {
            panic!("what frames a message is left out");
        };
        assert_eq!((refused.status, refused.fields.len()), (401, 0));
    }
}
