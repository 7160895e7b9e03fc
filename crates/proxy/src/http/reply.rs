//! Answers that are made here: failures, redirections, direct responses. Plain text as Envoy words it; a gRPC client
//! gets a gRPC status.

use bytes::Bytes;
use rajut_codec::{Fields, Known, Method, ResponseHead, h1::BodyLength};
use rajut_ir::route::{PathMatch, Redirect, RedirectPath};

use super::{
    downstream::Downstream,
    filters::Chain,
    headers::{self, Half},
    message::{DownstreamError, Piece},
    record::Record,
};
use crate::{
    connection::Peer,
    failure::{Failure, FailureKind, Fault, TokenFault, grpc_status_of},
};

/// In an answer of one proxy of the mesh to another: its application could not be connected to, so nothing has seen the
/// request, and it may go to another copy whatever its method. The proxy that reads it takes it out, so that no
/// application passes it on.
pub(crate) const UNDELIVERED: Known = Known::XRajutUndelivered;

/// Answers for a failure before the response's head; `retried`: tries went before.
pub(crate) fn failure(
    record: &mut Record,
    downstream: &mut Downstream<'_>,
    failure: &Failure,
    retried: bool,
) -> Result<(), DownstreamError> {
    let spec = failure.spec();
    if spec.status == 0 {
        downstream.abort();
        return Err(DownstreamError::Gone);
    }
    if spec.fault == Fault::Downstream {
        // Nobody knows what else this client gets wrong, or how much of its request is still to come.
        downstream.close_after();
    }
    let mut fields = Fields::new();
    if matches!(
        failure.kind,
        FailureKind::PendingOverflow | FailureKind::RequestOverflow
    ) {
        // A fresh section takes any edit.
        let _ = fields.set("x-envoy-overloaded", "true");
    }
    if let FailureKind::TokenRefused { fault, in_query } = failure.kind {
        let _ = fields.set("www-authenticate", challenge(record, fault, in_query));
    }
    if matches!(
        failure.kind,
        FailureKind::ConnectFailure | FailureKind::ConnectTimeout
    ) && matches!(record.shared.connection.peer, Peer::Verified(_))
    {
        let _ = fields.set(UNDELIVERED, "1");
    }
    send(
        record,
        downstream,
        spec.status,
        Some(spec.grpc),
        failure.body(retried).into(),
        fields,
    )
}

/// What of a request's path the challenge repeats. Source: Envoy `jwt_authn`.
const REALM_PATH_MAX: usize = 256;

/// `www-authenticate` of a refused token (RFC 6750 §3): as Envoy writes it, but without a query in which a token stood.
fn challenge(record: &Record, fault: TokenFault, in_query: bool) -> Vec<u8> {
    let head = &record.head;
    let mut path = &head.path_and_query[..];
    if in_query {
        path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    }
    let path = &path[..path.len().min(REALM_PATH_MAX)];
    let scheme = head.fields.get(Known::XForwardedProto).unwrap_or(b"http");
    let mut out = b"Bearer realm=\"".to_vec();
    for part in [scheme, b"://", &head.authority, path] {
        // A quote would end the text.
        out.extend(part.iter().filter(|byte| !matches!(byte, b'"' | b'\\')));
    }
    out.push(b'"');
    if fault != TokenFault::Missing {
        out.extend_from_slice(b", error=\"invalid_token\"");
    }
    out
}

/// Sends an answer. `grpc`: the status for a gRPC client, where it is not the one that follows from `status`.
pub(crate) fn send(
    record: &mut Record,
    downstream: &mut Downstream<'_>,
    status: u16,
    grpc: Option<u8>,
    body: Bytes,
    mut fields: Fields,
) -> Result<(), DownstreamError> {
    let is_grpc = headers::is_grpc(&record.head.fields);
    let body = if is_grpc {
        // A fresh section takes any edit; a message that holds control characters is escaped.
        let _ = fields.set(Known::ContentType, "application/grpc");
        let _ = fields.set_number(
            Known::GrpcStatus,
            grpc.unwrap_or_else(|| grpc_status_of(status)).into(),
        );
        if !body.is_empty() {
            let _ = fields.set(Known::GrpcMessage, percent_encoded(&body));
        }
        Bytes::new()
    } else {
        if !body.is_empty() && !fields.contains(Known::ContentType) {
            let _ = fields.set(Known::ContentType, "text/plain");
        }
        body
    };
    record.response = ResponseHead {
        status: if is_grpc { 200 } else { status },
        fields,
        ..ResponseHead::default()
    };
    record.has_response = true;
    for mutations in std::mem::take(&mut record.edits) {
        headers::mutate(record, &mutations, Half::Response);
    }
    Chain::on_response(record);
    if headers::finish_response(record, false).is_err() {
        return Err(DownstreamError::Malformed(500));
    }
    if record.worker().draining() {
        downstream.close_after();
    }
    let length = match body.len() as u64 {
        0 => BodyLength::Empty,
        length => BodyLength::Exact(length),
    };
    downstream.push_head(&record.response, length)?;
    if !body.is_empty() {
        if record.head.method != Method::Head {
            record.bytes_sent += body.len() as u64;
        }
        downstream.push(Piece::Data(body))?;
    }
    downstream.push(Piece::End)
}

/// `grpc-message`: what is no printable ASCII, and `%`, percent-encoded (gRPC over HTTP/2).
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        if (b' '..=b'~').contains(byte) && *byte != b'%' {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// The `location` of a redirection.
pub(crate) fn location(record: &Record, redirect: &Redirect, matched: &PathMatch) -> Vec<u8> {
    let head = &record.head;
    let scheme = match &redirect.scheme {
        Some(scheme) => scheme.as_bytes(),
        None => head.fields.get(Known::XForwardedProto).unwrap_or(b"http"),
    };
    let default_of = |scheme: &[u8]| if scheme == b"https" { 443 } else { 80 };
    // Envoy: the port that belonged to the scheme before goes with it, any other stays.
    let own_port = || {
        let before = head.fields.get(Known::XForwardedProto).unwrap_or(b"http");
        head.port()
            .filter(|port| before == scheme || *port != default_of(before))
    };
    let (host, port) = match &redirect.host {
        Some(host) => (host.as_bytes(), redirect.port),
        None => (head.host(), redirect.port.or_else(own_port)),
    };
    let port = port.filter(|port| *port != default_of(scheme));
    let target = &head.path_and_query;
    let query_at = target
        .iter()
        .position(|byte| *byte == b'?')
        .unwrap_or(target.len());
    let (path, query) = target.split_at(query_at);
    let mut out = Vec::with_capacity(host.len() + target.len() + 16);
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"://");
    out.extend_from_slice(host);
    if let Some(port) = port {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    match &redirect.path {
        Some(RedirectPath::Full(full)) => {
            out.extend_from_slice(full.as_bytes());
            if full.contains('?') {
                return out;
            }
        }
        Some(RedirectPath::Prefix(prefix)) => {
            let rewrite = rajut_ir::route::PathRewrite::Prefix(prefix.clone());
            let whole = Bytes::copy_from_slice(path);
            let changed = headers::rewritten(&whole, &rewrite, matched);
            out.extend_from_slice(&changed.unwrap_or(whole));
        }
        None => out.extend_from_slice(path),
    }
    if !redirect.strip_query {
        out.extend_from_slice(query);
    }
    out
}
