//! What a proxy does to heads: hop-by-hop fields, forwarding fields, request ids, mutations, rewrites.
//!
//! Everything is done in place on the received block; a head that needs no change is forwarded as one copy.

use std::{
    cell::RefCell,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rajut_codec::{Fields, Known, Method, RequestHead, Version, forward, split_authority};
use rajut_ir::{
    decide::{Chosen, ChosenCluster, RouteTable},
    http::{ForwardClientCert, HostPort, HttpConnectionManager, ServerHeader},
    path,
    route::{AppendAction, HeaderMutations, HeaderValue, PathMatch, PathRewrite},
};
use rajut_telemetry::workload::Workload;
use tokio::time::Instant;

use super::record::{Record, Shared};
use crate::{
    clock,
    connection::{Peer, PeerIdentity},
    failure::FailureKind,
    stats::{istio::Meter, texts::TextId},
};

const BAD_REQUEST: FailureKind = FailureKind::MalformedRequest { status: 400 };

/// Fields that only proxies inside the mesh may set; taken out of requests from outside (Envoy: edge requests).
const INTERNAL: [&str; 12] = [
    "x-envoy-internal",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-decorator-operation",
];

/// Step 4: brings a received head into the form in which it is judged and routed.
pub(crate) fn accept_request(record: &mut Record, upgrade: bool) -> Result<(), FailureKind> {
    let keep = if upgrade {
        forward::Upgrade::Keep
    } else {
        forward::Upgrade::Drop
    };
    forward::strip_request(&mut record.head.fields, keep).map_err(|_| BAD_REQUEST)?;
    let (shared, manager) = (record.shared.clone(), record.manager.clone());
    let ir = manager.ir();
    if let Some(meter) = manager.meter() {
        take_peer(record, meter);
    }
    normalize_target(&mut record.head, ir, shared.connection.local.port())?;
    edit(|| forwarding_fields(&mut record.head.fields, &shared, ir))
}

/// Takes out what the client says of itself, and believes what a client of the mesh says first on a connection.
fn take_peer(record: &mut Record, meter: &Meter) {
    let fields = &mut record.head.fields;
    if !fields.contains(Known::XEnvoyPeerMetadata) && !fields.contains(Known::XEnvoyPeerMetadataId) {
        return;
    }
    let shared = &record.shared;
    if !meter.is_client()
        && shared.client.get() == TextId::UNKNOWN
        && shared.ends.peer != TextId::UNKNOWN
        && let Some(value) = fields.get(Known::XEnvoyPeerMetadata)
        && let Some(workload) = Workload::from_header(value)
    {
        shared.client.set(TextId::of(&workload.to_text()));
    }
    fields.remove(Known::XEnvoyPeerMetadata);
    fields.remove(Known::XEnvoyPeerMetadataId);
}

/// Edits fail only when a head's bound on edits is reached, which is the sender's doing.
fn edit(edits: impl FnOnce() -> Result<(), rajut_codec::FieldError>) -> Result<(), FailureKind> {
    edits().map_err(|_| FailureKind::MalformedRequest { status: 431 })
}

fn normalize_target(
    head: &mut RequestHead,
    ir: &HttpConnectionManager,
    listener_port: u16,
) -> Result<(), FailureKind> {
    let authority_is_odd =
        head.authority.is_empty() && (head.version != Version::Http10 || head.method == Method::Connect);
    if authority_is_odd {
        return Err(BAD_REQUEST);
    }
    // Envoy: only CONNECT is about something else than a path.
    if *head.path_and_query == *b"*" {
        return Err(FailureKind::NoPath);
    }
    if ir.strip_host_port != HostPort::Keep {
        strip_port(head, ir.strip_host_port, listener_port)?;
    }
    match path::normalize(ir, &head.path_and_query) {
        Ok(None) => {}
        Ok(Some(path)) => head.path_and_query = path.into(),
        Err(path::BadPath) => return Err(FailureKind::BadPath),
    }
    Ok(())
}

fn strip_port(head: &mut RequestHead, how: HostPort, listener_port: u16) -> Result<(), FailureKind> {
    let (_, port) = split_authority(&head.authority);
    let strip = match (how, port) {
        (HostPort::StripAny, Some(_)) => true,
        (HostPort::StripMatching, Some(port)) => port == listener_port,
        _ => false,
    };
    if !strip || head.method == Method::Connect {
        return Ok(());
    }
    let end = head
        .authority
        .iter()
        .rposition(|byte| *byte == b':')
        .unwrap_or(head.authority.len());
    let authority = head.authority.slice(..end);
    head.set_authority(authority).map_err(|_| BAD_REQUEST)
}

fn forwarding_fields(
    fields: &mut Fields,
    shared: &Shared,
    ir: &HttpConnectionManager,
) -> Result<(), rajut_codec::FieldError> {
    let remote = shared.connection.remote.ip();
    // Envoy's edge: the client's address is taken from the connection, and it is not a private one.
    let edge = ir.use_remote_address && !is_private(remote);
    let proto = if shared.is_tls { "https" } else { "http" };
    if ir.use_remote_address {
        if ir.xff_num_trusted_hops == 0 {
            fields.set(Known::XForwardedProto, proto)?;
        } else {
            fields.set_default(Known::XForwardedProto, proto)?;
        }
        fields.join(Known::XForwardedFor, remote.to_string())?;
    } else {
        fields.set_default(Known::XForwardedProto, proto)?;
    }
    if edge {
        for name in INTERNAL {
            fields.remove(name);
        }
    }
    client_certificate(fields, shared, ir)?;
    if ir.generate_request_id {
        let keep = !edge || ir.preserve_external_request_id;
        if !(keep && fields.contains(Known::XRequestId)) {
            let id = request_id(shared.worker.random(), shared.worker.random());
            fields.set(Known::XRequestId, id)?;
        }
    }
    Ok(())
}

/// Private, loopback and link-local addresses are inside (Envoy's default of `internal_address_config`).
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

fn client_certificate(
    fields: &mut Fields,
    shared: &Shared,
    ir: &HttpConnectionManager,
) -> Result<(), rajut_codec::FieldError> {
    let peer = match &shared.connection.peer {
        Peer::Verified(peer) => Some(peer),
        Peer::None => None,
    };
    match (ir.forward_client_cert, peer) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::AppendForward, Some(peer)) => {
            let element = certificate_element(peer, ir);
            match fields.get(Known::XForwardedClientCert) {
                Some(before) => {
                    let mut joined = before.to_vec();
                    joined.push(b',');
                    joined.extend_from_slice(&element);
                    fields.set(Known::XForwardedClientCert, joined)?;
                }
                None => fields.append(Known::XForwardedClientCert, element)?,
            }
        }
        (ForwardClientCert::SanitizeSet, Some(peer)) => {
            fields.set(Known::XForwardedClientCert, certificate_element(peer, ir))?;
        }
        (ForwardClientCert::Sanitize, _)
        | (
            ForwardClientCert::ForwardOnly
            | ForwardClientCert::AppendForward
            | ForwardClientCert::SanitizeSet,
            None,
        ) => {
            fields.remove(Known::XForwardedClientCert);
        }
    }
    Ok(())
}

/// `By=…;Hash=…;Subject="…";URI=…;DNS=…`
fn certificate_element(peer: &PeerIdentity, ir: &HttpConnectionManager) -> Vec<u8> {
    let details = &ir.client_cert_details;
    let mut out = Vec::with_capacity(256);
    let mut push = |key: &str, value: &str| {
        if !out.is_empty() {
            out.push(b';');
        }
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value.as_bytes());
    };
    if !peer.own_uri.is_empty() {
        push("By=", &peer.own_uri);
    }
    push("Hash=", &peer.sha256);
    if details.subject {
        push("Subject=", &format!("\"{}\"", peer.subject.replace('"', "\\\"")));
    }
    if details.uri {
        for uri in &peer.uris {
            push("URI=", uri);
        }
    }
    if details.dns {
        for name in &peer.dns_names {
            push("DNS=", name);
        }
    }
    out
}

/// A random UUID (version 4).
fn request_id(high: u64, low: u64) -> [u8; 36] {
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf000 << 64) & !(0b11 << 62)
        | 0x4000 << 64
        | 0b10 << 62;
    let mut out = [b'-'; 36];
    for (byte, place) in bits.to_be_bytes().into_iter().zip(PLACES) {
        out[place] = HEX[usize::from(byte >> 4)];
        out[place + 1] = HEX[usize::from(byte & 15)];
    }
    out
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Where the two digits of each byte stand between the hyphens.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// Which half of a set of mutations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Request,
    Response,
}

/// Removals, then what is set; values may hold operators.
pub(crate) fn mutate(record: &mut Record, mutations: &HeaderMutations, half: Half) {
    let (add, remove) = match half {
        Half::Request => (&mutations.request_set, &mutations.request_remove),
        Half::Response => (&mutations.response_set, &mutations.response_remove),
    };
    if add.is_empty() && remove.is_empty() {
        return;
    }
    for name in remove {
        section(record, half).remove(&**name);
    }
    for header in add {
        set(record, header, half);
    }
}

/// What a route, its virtual host and the whole table change in the answers of its requests, whoever makes them.
pub(crate) fn response_edits(table: &RouteTable, chosen: &Chosen<'_>) -> Box<[HeaderMutations]> {
    let weighted = match &chosen.cluster {
        ChosenCluster::Weighted(cluster) => Some(&cluster.headers),
        ChosenCluster::Named(_) | ChosenCluster::Header(_) | ChosenCluster::None => None,
    };
    let others = [
        &chosen.route.headers,
        &chosen.virtual_host.headers,
        &table.configuration().headers,
    ];
    weighted
        .into_iter()
        .chain(others)
        .filter(|all| !(all.response_set.is_empty() && all.response_remove.is_empty()))
        .map(|all| HeaderMutations {
            response_set: all.response_set.clone(),
            response_remove: all.response_remove.clone(),
            ..HeaderMutations::default()
        })
        .collect()
}

/// Sets one header, whose value may hold operators; one that comes out unusable (a control character from a variable)
/// is left out.
pub(crate) fn set(record: &mut Record, header: &HeaderValue, half: Half) {
    let value = record.expand(&header.value);
    let _ = set_header(record, header, &value, half);
}

fn section(record: &mut Record, half: Half) -> &mut Fields {
    match half {
        Half::Request => &mut record.head.fields,
        Half::Response => &mut record.response.fields,
    }
}

fn set_header(
    record: &mut Record,
    header: &HeaderValue,
    value: &[u8],
    half: Half,
) -> Result<(), rajut_codec::FieldError> {
    if half == Half::Request {
        match &*header.name {
            "host" | ":authority" => return record.head.set_authority(Bytes::copy_from_slice(value)),
            ":path" => {
                record.head.path_and_query = Bytes::copy_from_slice(value);
                return Ok(());
            }
            _ => {}
        }
    }
    let fields = section(record, half);
    let name = &*header.name;
    match header.append {
        AppendAction::Append if value.is_empty() => Ok(()),
        AppendAction::Append => fields.append(name, value),
        AppendAction::AddIfAbsent => fields.set_default(name, value).map(drop),
        AppendAction::Overwrite => fields.set(name, value),
        AppendAction::OverwriteIfExists if fields.contains(name) => fields.set(name, value),
        AppendAction::OverwriteIfExists => Ok(()),
    }
}

/// The path after a route's rewrite, or `None` where it stays. `matched`: what the route's path condition was.
pub(crate) fn rewritten(target: &Bytes, rewrite: &PathRewrite, matched: &PathMatch) -> Option<Bytes> {
    rewrite.apply(target, matched).map(Bytes::from)
}

/// What every response gets: `server`, `date`, and no hop-by-hop fields.
pub(crate) fn finish_response(record: &mut Record, tunnel: bool) -> Result<(), FailureKind> {
    let keep = if tunnel {
        forward::Upgrade::Keep
    } else {
        forward::Upgrade::Drop
    };
    let fields = &mut record.response.fields;
    forward::strip_response(fields, keep).map_err(|_| FailureKind::UpstreamProtocol)?;
    let ir = record.manager.ir();
    // These edits can't fail on a head that a decoder let through: its bounds leave room for them.
    let _ = match ir.server_header {
        ServerHeader::Overwrite => fields.set(Known::Server, ir.server_name.as_bytes()),
        ServerHeader::AppendIfAbsent => fields
            .set_default(Known::Server, ir.server_name.as_bytes())
            .map(drop),
        ServerHeader::PassThrough => Ok(()),
    };
    if !fields.contains(Known::Date) {
        let _ = with_date(|date| fields.append(Known::Date, date));
    }
    Ok(())
}

thread_local! {
    // Until when the text holds, and the text.
    static DATE: RefCell<(Option<Instant>, [u8; 29])> = const { RefCell::new((None, [0; 29])) };
}

/// The time of now as `date` has it, written (and the calendar's clock read) once a second.
fn with_date<R>(use_it: impl FnOnce(&[u8]) -> R) -> R {
    let now = clock::now();
    DATE.with_borrow_mut(|(until, text)| {
        if until.is_none_or(|until| until <= now) {
            #[expect(
                clippy::disallowed_methods,
                reason = "a worker reads the calendar here, once a second"
            )]
            let time = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO);
            *text = http_date(time.as_secs());
            let left = Duration::from_nanos((1_000_000_000 - time.subsec_nanos()).into());
            *until = now.checked_add(left);
        }
        use_it(text.as_slice())
    })
}

/// `Sat, 21 Nov 2026 18:00:00 GMT` (RFC 9110 §5.6.7).
fn http_date(seconds: u64) -> [u8; 29] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    let days = seconds / 86_400;
    let (year, month, day) = rajut_telemetry::format::civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let index = |number: u64| usize::try_from(number).unwrap_or(0);
    out[..3].copy_from_slice(DAYS[index(days % 7)]);
    out[8..11].copy_from_slice(MONTHS[index(month - 1) % 12]);
    let mut digits = |at: usize, width: usize, mut number: u64| {
        for position in (at..at + width).rev() {
            out[position] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    };
    digits(5, 2, day);
    digits(12, 4, year);
    digits(17, 2, seconds / 3600 % 24);
    digits(20, 2, seconds / 60 % 60);
    digits(23, 2, seconds % 60);
    out
}

/// The value of `grpc-timeout` (at most eight digits and a unit).
pub(crate) fn grpc_timeout(fields: &Fields) -> Option<Duration> {
    let text = fields.get_str(Known::GrpcTimeout)?;
    let unit = text.len().checked_sub(1)?;
    let (digits, unit) = (text.get(..unit)?, text.get(unit..)?);
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Whether it is a gRPC request.
pub(crate) fn is_grpc(fields: &Fields) -> bool {
    fields
        .get(Known::ContentType)
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids_of_version_four() {
        let id = request_id(u64::MAX, 0);
        assert_eq!(&id, b"ffffffff-ffff-4fff-8000-000000000000");
    }

    #[test]
    fn dates_read_as_http_wants_them() {
        assert_eq!(&http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn prefixes_are_replaced_and_the_query_is_kept() {
        let rewrite = |target: &'static str, to: &str, matched| {
            rewritten(
                &Bytes::from_static(target.as_bytes()),
                &PathRewrite::Prefix(to.into()),
                &matched,
            )
            .map(|path| String::from_utf8(path.to_vec()).unwrap())
        };
        assert_eq!(
            rewrite("/api/v1?x", "/", PathMatch::Prefix("/api/".into())),
            Some("/v1?x".into())
        );
        assert_eq!(
            rewrite("/api/v1", "/", PathMatch::SeparatedPrefix("/api".into())),
            Some("/v1".into())
        );
        assert_eq!(
            rewrite("/api", "/new", PathMatch::Exact("/api".into())),
            Some("/new".into())
        );
        assert_eq!(rewrite("/api", "/api", PathMatch::Prefix("/api".into())), None);
    }

    #[test]
    fn grpc_timeouts_have_units() {
        let mut fields = Fields::new();
        fields.set(Known::GrpcTimeout, "100m").unwrap();
        assert_eq!(grpc_timeout(&fields), Some(Duration::from_millis(100)));
        fields.set(Known::GrpcTimeout, "999999999S").unwrap();
        assert_eq!(grpc_timeout(&fields), None);
    }
}
