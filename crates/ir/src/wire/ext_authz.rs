//! External authorization: the filters' configurations for HTTP and TCP.
//!
//! Rejected: runtime keys and shares (`filter_enabled`, `deny_at_disable`), metadata for and of the provider but for the note of access
//! control that says which requests are meant, rules about what a provider may change, retries of questions.

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use std::time::Duration;

use rajut_proto::{
    core::{
        ApiVersion, GrpcService, HeaderValue, HttpUri, grpc_service, grpc_service::TargetSpecifier,
        http_uri::HttpUpstreamType,
    },
    envoy::extensions::filters::{
        http::ext_authz::v3::{
            AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz as Message,
            ExtAuthzPerRoute, HttpService, ext_authz::Services, ext_authz_per_route::Override,
        },
        network::ext_authz::v3::ExtAuthz as NetworkMessage,
    },
    matcher::{
        ListStringMatcher, MetadataMatcher, ValueMatcher, metadata_matcher, value_matcher::MatchPattern,
    },
    types,
};
use rajut_types::Text;

use super::{
    Fault,
    matcher::{self, lower},
    read::{Place, Reader},
    write,
};
use crate::{
    ext_authz::{
        Asked, BODY_MAX, BodyToCheck, ExtAuthz, HttpProvider, NetworkExtAuthz, Provider, SHADOW_POLICY,
        TIMEOUT_DEFAULT,
    },
    matcher::StringMatcher,
};

/// Where access control notes which policy applies. Source: Envoy.
const HTTP_NOTES: &str = "envoy.filters.http.rbac";
const NETWORK_NOTES: &str = "envoy.filters.network.rbac";
/// The answer where nobody has answered. Source: Envoy.
const STATUS_ON_ERROR: u16 = 403;

// --- encode ---

pub(super) fn encode(authz: &ExtAuthz) -> Message {
    let services = match &authz.provider {
        Provider::Grpc { cluster, authority } => {
            Services::GrpcService(encode_grpc(cluster, authority, authz.timeout))
        }
        Provider::Http(http) => Services::HttpService(encode_http(http, authz.timeout)),
    };
    Message {
        transport_api_version: ApiVersion::V3.into(),
        failure_mode_allow: authz.failure_mode_allow,
        failure_mode_allow_header_add: authz.failure_mode_header,
        with_request_body: authz.body.map(|body| BufferSettings {
            max_request_bytes: body.max_bytes,
            allow_partial_message: body.allow_partial,
            pack_as_bytes: body.as_bytes,
        }),
        clear_route_cache: authz.clear_route_cache,
        status_on_error: (authz.status_on_error != STATUS_ON_ERROR).then(|| types::HttpStatus {
            code: authz.status_on_error.into(),
        }),
        filter_enabled_metadata: authz.asked.as_ref().map(|it| encode_asked(it, HTTP_NOTES)),
        include_peer_certificate: authz.include_peer_certificate,
        stat_prefix: authz.stat_prefix.to_string(),
        allowed_headers: authz.allowed_headers.as_deref().map(encode_names),
        disallowed_headers: some_names(&authz.disallowed_headers),
        include_tls_session: authz.include_tls_session,
        services: Some(services),
        ..Default::default()
    }
}

pub(super) fn encode_network(authz: &NetworkExtAuthz) -> NetworkMessage {
    NetworkMessage {
        stat_prefix: authz.stat_prefix.to_string(),
        grpc_service: Some(encode_grpc(&authz.cluster, &authz.authority, authz.timeout)),
        failure_mode_allow: authz.failure_mode_allow,
        include_peer_certificate: authz.include_peer_certificate,
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled_metadata: authz.asked.as_ref().map(|it| encode_asked(it, NETWORK_NOTES)),
        include_tls_session: authz.include_tls_session,
        ..Default::default()
    }
}

/// No bound is zero, as Envoy has it for gRPC.
fn encode_grpc(cluster: &Text, authority: &Text, timeout: Option<Duration>) -> GrpcService {
    GrpcService {
        timeout: Some(write::bound(timeout)),
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: cluster.to_string(),
            authority: authority.to_string(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn encode_http(http: &HttpProvider, timeout: Option<Duration>) -> HttpService {
    let add = |(key, value): &(Text, Text)| HeaderValue {
        key: key.to_string(),
        value: value.to_string(),
        ..Default::default()
    };
    let response = AuthorizationResponse {
        allowed_upstream_headers: some_names(&http.upstream_headers),
        allowed_upstream_headers_to_append: some_names(&http.upstream_headers_to_append),
        allowed_client_headers: some_names(&http.client_headers),
        allowed_client_headers_on_success: some_names(&http.client_headers_on_success),
        ..Default::default()
    };
    HttpService {
        server_uri: Some(HttpUri {
            uri: http.uri.to_string(),
            timeout: Some(write::bound(timeout)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(http.cluster.to_string())),
        }),
        path_prefix: http.path_prefix.to_string(),
        authorization_request: (!http.headers_to_add.is_empty()).then(|| AuthorizationRequest {
            headers_to_add: http.headers_to_add.iter().map(add).collect(),
            ..Default::default()
        }),
        authorization_response: (response != AuthorizationResponse::default()).then_some(response),
        ..Default::default()
    }
}

fn encode_names(names: &[StringMatcher]) -> ListStringMatcher {
    ListStringMatcher {
        patterns: names.iter().map(matcher::encode_string).collect(),
    }
}

fn some_names(names: &[StringMatcher]) -> Option<ListStringMatcher> {
    (!names.is_empty()).then(|| encode_names(names))
}

fn encode_asked(asked: &Asked, notes: &str) -> MetadataMatcher {
    let key = format!("{}{SHADOW_POLICY}", asked.shadow_prefix);
    MetadataMatcher {
        filter: notes.to_owned(),
        path: vec![metadata_matcher::PathSegment {
            segment: Some(metadata_matcher::path_segment::Segment::Key(key)),
        }],
        value: Some(ValueMatcher {
            match_pattern: Some(MatchPattern::StringMatch(matcher::encode_string(&asked.policy))),
        }),
        invert: false,
    }
}

// --- decode ---

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, message: &Message) -> Option<ExtAuthz> {
    version(reader, place, message.transport_api_version);
    let (provider, timeout) = match &message.services {
        Some(Services::GrpcService(service)) => {
            let (cluster, authority, timeout) = decode_grpc(reader, &place.field("grpc_service"), service)?;
            (Provider::Grpc { cluster, authority }, timeout)
        }
        Some(Services::HttpService(service)) => {
            let (http, timeout) = decode_http(reader, &place.field("http_service"), service)?;
            (Provider::Http(http), timeout)
        }
        None => return reader.required(place, None, "grpc_service or http_service"),
    };
    let of_service = match &message.services {
        Some(Services::HttpService(service)) => service.authorization_request.as_ref(),
        _ => None,
    };
    let allowed = message
        .allowed_headers
        .as_ref()
        .or_else(|| of_service.and_then(|it| it.allowed_headers.as_ref()));
    let status = message.status_on_error.as_ref().map(|status| status.code);
    Some(ExtAuthz {
        provider,
        timeout,
        failure_mode_allow: message.failure_mode_allow,
        failure_mode_header: message.failure_mode_allow_header_add,
        status_on_error: match status {
            Some(code) => status_code(reader, &place.field("status_on_error"), code),
            None => STATUS_ON_ERROR,
        },
        clear_route_cache: message.clear_route_cache,
        body: message
            .with_request_body
            .and_then(|body| decode_body(reader, &place.field("with_request_body"), body)),
        allowed_headers: allowed
            .map(|names| decode_names(reader, &place.field("allowed_headers"), Some(names))),
        disallowed_headers: decode_names(
            reader,
            &place.field("disallowed_headers"),
            message.disallowed_headers.as_ref(),
        ),
        include_peer_certificate: message.include_peer_certificate,
        include_tls_session: message.include_tls_session,
        stat_prefix: message.stat_prefix.as_str().into(),
        asked: decode_asked(
            reader,
            place,
            message.filter_enabled_metadata.as_ref(),
            HTTP_NOTES,
        ),
    })
}

pub(super) fn decode_network(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &NetworkMessage,
) -> Option<NetworkExtAuthz> {
    version(reader, place, message.transport_api_version);
    let service_place = place.field("grpc_service");
    let service = reader.required(&service_place, message.grpc_service.as_ref(), "the provider")?;
    let (cluster, authority, timeout) = decode_grpc(reader, &service_place, service)?;
    Some(NetworkExtAuthz {
        cluster,
        authority,
        timeout,
        failure_mode_allow: message.failure_mode_allow,
        include_peer_certificate: message.include_peer_certificate,
        include_tls_session: message.include_tls_session,
        stat_prefix: reader.named(
            &place.field("stat_prefix"),
            &message.stat_prefix,
            "a prefix of statistics",
        ),
        asked: decode_asked(
            reader,
            place,
            message.filter_enabled_metadata.as_ref(),
            NETWORK_NOTES,
        ),
    })
}

/// What a route says: only that nobody is asked. `false`: it is refused.
pub(super) fn decode_per_route(reader: &mut Reader, place: &Place<'_>, message: &ExtAuthzPerRoute) -> bool {
    match &message.r#override {
        Some(Override::Disabled(true)) => true,
        Some(Override::Disabled(false)) => {
            reader.value(&place.field("disabled"), "false", "leave the configuration out");
            false
        }
        // Refused by the list of supported fields.
        Some(Override::CheckSettings(_)) => false,
        None => {
            reader.fault(place, Fault::Missing("disabled"));
            false
        }
    }
}

fn version(reader: &mut Reader, place: &Place<'_>, version: i32) {
    let place = place.field("transport_api_version");
    let version: ApiVersion = reader.enumerator(&place, version);
    if version == ApiVersion::V2 {
        reader.value(&place, "V2", "write V3");
    }
}

fn status_code(reader: &mut Reader, place: &Place<'_>, code: i32) -> u16 {
    match u16::try_from(code) {
        Ok(code) if (200..=599).contains(&code) => code,
        _ => {
            reader.out_of_range(&place.field("code"), code, "200 to 599");
            STATUS_ON_ERROR
        }
    }
}

fn decode_body(reader: &mut Reader, place: &Place<'_>, body: BufferSettings) -> Option<BodyToCheck> {
    if !(1..=BODY_MAX).contains(&body.max_request_bytes) {
        let place = place.field("max_request_bytes");
        reader.out_of_range(&place, body.max_request_bytes, "1 to 16777216");
        return None;
    }
    Some(BodyToCheck {
        max_bytes: body.max_request_bytes,
        allow_partial: body.allow_partial_message,
        as_bytes: body.pack_as_bytes,
    })
}

fn decode_grpc(
    reader: &mut Reader,
    place: &Place<'_>,
    service: &GrpcService,
) -> Option<(Text, Text, Option<Duration>)> {
    let timeout = reader.bound(
        &place.field("timeout"),
        service.timeout.as_ref(),
        Some(TIMEOUT_DEFAULT),
    );
    let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &service.target_specifier else {
        reader.fault(
            place,
            Fault::Missing("envoy_grpc with the name of the provider's cluster"),
        );
        return None;
    };
    let name_place = place.field("envoy_grpc");
    let name_place = name_place.field("cluster_name");
    let cluster = reader.named(&name_place, &envoy.cluster_name, "the provider's cluster");
    Some((cluster, envoy.authority.as_str().into(), timeout))
}

fn decode_http(
    reader: &mut Reader,
    place: &Place<'_>,
    service: &HttpService,
) -> Option<(HttpProvider, Option<Duration>)> {
    let uri_place = place.field("server_uri");
    let uri = reader.required(&uri_place, service.server_uri.as_ref(), "the provider")?;
    let timeout = reader.bound(
        &uri_place.field("timeout"),
        uri.timeout.as_ref(),
        Some(TIMEOUT_DEFAULT),
    );
    let Some(HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
        return reader.required(
            &uri_place,
            None,
            "cluster, with the name of the provider's cluster",
        );
    };
    let prefix = &service.path_prefix;
    if !prefix.is_empty() && !prefix.starts_with('/') {
        reader.bad_text(
            &place.field("path_prefix"),
            prefix,
            "a path, which begins with `/`",
        );
    }
    let add = service
        .authorization_request
        .iter()
        .flat_map(|it| &it.headers_to_add);
    let response_place = place.field("authorization_response");
    let response = service.authorization_response.clone().unwrap_or_default();
    let mut names =
        |name, list: Option<&ListStringMatcher>| decode_names(reader, &response_place.field(name), list);
    let http = HttpProvider {
        upstream_headers: names(
            "allowed_upstream_headers",
            response.allowed_upstream_headers.as_ref(),
        ),
        upstream_headers_to_append: names(
            "allowed_upstream_headers_to_append",
            response.allowed_upstream_headers_to_append.as_ref(),
        ),
        client_headers: names("allowed_client_headers", response.allowed_client_headers.as_ref()),
        client_headers_on_success: names(
            "allowed_client_headers_on_success",
            response.allowed_client_headers_on_success.as_ref(),
        ),
        cluster: reader.named(&uri_place.field("cluster"), cluster, "the provider's cluster"),
        uri: uri.uri.as_str().into(),
        path_prefix: prefix.as_str().into(),
        headers_to_add: add
            .map(|header| (lower(&header.key.as_str().into()), header.value.as_str().into()))
            .collect(),
    };
    Some((http, timeout))
}

fn decode_names(
    reader: &mut Reader,
    place: &Place<'_>,
    list: Option<&ListStringMatcher>,
) -> Vec<StringMatcher> {
    let patterns = list.map_or(&[][..], |list| &list.patterns);
    let patterns = patterns.iter().enumerate();
    patterns
        .filter_map(|(at, one)| matcher::decode_string(reader, &place.item("patterns", at), one))
        .collect()
}

fn decode_asked(
    reader: &mut Reader,
    place: &Place<'_>,
    message: Option<&MetadataMatcher>,
    notes: &str,
) -> Option<Asked> {
    let message = message?;
    let place = place.field("filter_enabled_metadata");
    if message.filter != notes || message.invert {
        reader.value(
            &place.field("filter"),
            &message.filter,
            "only what the filter of access control notes can be asked for, and not inverted",
        );
        return None;
    }
    let prefix = match &*message.path {
        [
            metadata_matcher::PathSegment {
                segment: Some(metadata_matcher::path_segment::Segment::Key(key)),
            },
        ] => key.strip_suffix(SHADOW_POLICY),
        _ => None,
    };
    let Some(prefix) = prefix else {
        let place = place.field("path");
        reader.bad_text(&place, "", "one key that ends with `shadow_effective_policy_id`");
        return None;
    };
    let value_place = place.field("value");
    let Some(ValueMatcher {
        match_pattern: Some(MatchPattern::StringMatch(policy)),
    }) = &message.value
    else {
        return reader.required(&value_place, None, "string_match");
    };
    Some(Asked {
        shadow_prefix: prefix.into(),
        policy: matcher::decode_string(reader, &value_place.field("string_match"), policy)?,
    })
}
