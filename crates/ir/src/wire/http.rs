//! The HTTP connection manager, and the HTTP options of a cluster.
//!
//! Rejected: scoped routes, HTTP/3, everything that would change requests in ways this proxy does not.

use std::{sync::Arc, time::Duration};

use rajut_proto::{
    Any, cluster as cluster_pb,
    core::{
        Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings,
        TypedExtensionConfig, UpstreamHttpProtocolOptions, http1_protocol_options,
    },
    envoy::extensions::upstreams::http::v3::{
        HttpProtocolOptions as UpstreamOptionsMessage,
        http_protocol_options::{
            AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
            explicit_http_config::ProtocolConfig,
        },
    },
    hcm::{self as pb, http_connection_manager as nested, http_connection_manager::RouteSpecifier},
    type_url,
};
use rajut_types::Text;

use super::{
    access_log, error_statuses, filter,
    matcher::lower,
    read::{Place, Reader, is_true, number},
    route, tracing, write,
};
use crate::{
    cluster::{Cluster, Http1Options, Http2Options, UpstreamProtocol},
    http::{
        ClientCertDetails, Codec, ForwardClientCert, HostPort, HttpConnectionManager, RouteSource,
        ServerHeader,
    },
};

const HOUR: Duration = Duration::from_hours(1);
const STREAM_IDLE: Duration = Duration::from_mins(5);
const DRAIN: Duration = Duration::from_secs(5);

// --- encode ---

pub(super) fn to_message(manager: &HttpConnectionManager) -> pb::HttpConnectionManager {
    let details = manager.client_cert_details;
    pb::HttpConnectionManager {
        codec_type: match manager.codec {
            Codec::Auto => nested::CodecType::Auto,
            Codec::Http1 => nested::CodecType::Http1,
            Codec::Http2 => nested::CodecType::Http2,
        }
        .into(),
        stat_prefix: manager.stat_prefix.to_string(),
        route_specifier: Some(match &manager.routes {
            RouteSource::Inline(routes) => RouteSpecifier::RouteConfig(route::to_message(routes)),
            RouteSource::Rds(name) => RouteSpecifier::Rds(pb::Rds {
                config_source: Some(write::ads()),
                route_config_name: name.to_string(),
            }),
        }),
        http_filters: manager.filters.iter().map(filter::encode_filter).collect(),
        access_log: access_log::encode(&manager.access_logs),
        use_remote_address: Some(write::boolean(manager.use_remote_address)),
        xff_num_trusted_hops: manager.xff_num_trusted_hops,
        forward_client_cert_details: encode_forward(manager.forward_client_cert),
        set_current_client_cert_details: (details != ClientCertDetails::default()).then(|| {
            nested::SetCurrentClientCertDetails {
                subject: write::set(details.subject),
                uri: details.uri,
                dns: details.dns,
                ..Default::default()
            }
        }),
        common_http_protocol_options: Some(CommonOptions {
            idle_timeout: Some(write::bound(manager.idle_timeout)),
            max_connection_duration: manager.max_connection_duration.map(write::duration),
            max_requests_per_connection: manager.max_requests_per_connection.map(write::number),
            max_headers_count: Some(write::number(manager.max_request_headers_count)),
            ..Default::default()
        }),
        stream_idle_timeout: Some(write::bound(manager.stream_idle_timeout)),
        request_timeout: manager.request_timeout.map(write::duration),
        request_headers_timeout: manager.request_headers_timeout.map(write::duration),
        drain_timeout: Some(write::duration(manager.drain_timeout)),
        max_request_headers_kb: Some(write::number(manager.max_request_headers_kb)),
        generate_request_id: Some(write::boolean(manager.generate_request_id)),
        preserve_external_request_id: manager.preserve_external_request_id,
        upgrade_configs: encode_upgrades(manager),
        normalize_path: Some(write::boolean(manager.normalize_path)),
        merge_slashes: manager.merge_slashes,
        path_with_escaped_slashes_action: i32::from(if manager.unescape_slashes {
            nested::PathWithEscapedSlashesAction::UnescapeAndForward
        } else {
            nested::PathWithEscapedSlashesAction::ImplementationSpecificDefault
        }),
        server_name: manager.server_name.to_string(),
        server_header_transformation: match manager.server_header {
            ServerHeader::Overwrite => nested::ServerHeaderTransformation::Overwrite,
            ServerHeader::AppendIfAbsent => nested::ServerHeaderTransformation::AppendIfAbsent,
            ServerHeader::PassThrough => nested::ServerHeaderTransformation::PassThrough,
        }
        .into(),
        proxy_100_continue: manager.proxy_100_continue,
        strip_matching_host_port: manager.strip_host_port == HostPort::StripMatching,
        strip_port_mode: (manager.strip_host_port == HostPort::StripAny)
            .then_some(nested::StripPortMode::StripAnyHostPort(true)),
        http_protocol_options: encode_http1(&manager.http1),
        http2_protocol_options: encode_http2(&manager.http2),
        tracing: manager.tracing.as_ref().map(tracing::encode),
        ..Default::default()
    }
}

fn encode_forward(forward: ForwardClientCert) -> i32 {
    match forward {
        ForwardClientCert::Sanitize => nested::ForwardClientCertDetails::Sanitize,
        ForwardClientCert::ForwardOnly => nested::ForwardClientCertDetails::ForwardOnly,
        ForwardClientCert::AppendForward => nested::ForwardClientCertDetails::AppendForward,
        ForwardClientCert::SanitizeSet => nested::ForwardClientCertDetails::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly => nested::ForwardClientCertDetails::AlwaysForwardOnly,
    }
    .into()
}

fn encode_upgrades(manager: &HttpConnectionManager) -> Vec<nested::UpgradeConfig> {
    manager
        .upgrades
        .iter()
        .map(|(kind, enabled)| nested::UpgradeConfig {
            upgrade_type: kind.to_string(),
            filters: Vec::new(),
            enabled: (!enabled).then(|| write::boolean(false)),
        })
        .collect()
}

/// Options of HTTP/1, left out where all are the defaults.
fn encode_http1(options: &Http1Options) -> Option<Http1ProtocolOptions> {
    (*options != Http1Options::default()).then(|| http1(options))
}

fn http1(options: &Http1Options) -> Http1ProtocolOptions {
    use http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat};
    Http1ProtocolOptions {
        accept_http_10: options.accept_http_10,
        enable_trailers: options.enable_trailers,
        header_key_format: options.preserve_case.then(|| HeaderKeyFormat {
            header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
                name: "preserve_case".to_owned(),
                typed_config: Some(write::empty_any(type_url::PRESERVE_CASE)),
            })),
        }),
        ..Default::default()
    }
}

fn encode_http2(options: &Http2Options) -> Option<Http2ProtocolOptions> {
    (*options != Http2Options::default()).then(|| http2(options))
}

fn http2(options: &Http2Options) -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        max_concurrent_streams: options.max_concurrent_streams.map(write::number),
        initial_stream_window_size: options.initial_stream_window_size.map(write::number),
        initial_connection_window_size: options.initial_connection_window_size.map(write::number),
        allow_connect: options.allow_connect,
        connection_keepalive: options.keepalive.map(|(interval, timeout)| KeepaliveSettings {
            interval: Some(write::duration(interval)),
            timeout: Some(write::duration(timeout)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The HTTP options of a cluster.
pub(super) fn encode_upstream_options(cluster: &Cluster) -> UpstreamOptionsMessage {
    let sockets = || {
        cluster
            .tls
            .iter()
            .chain(cluster.tls_matches.iter().filter_map(|it| it.tls.as_ref()))
    };
    let protocol = match &cluster.protocol {
        UpstreamProtocol::Http1(options) => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::HttpProtocolOptions(http1(options))),
        }),
        UpstreamProtocol::Http2(options) => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2(options))),
        }),
        UpstreamProtocol::UseDownstream(one, two) => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1(one)),
                http2_protocol_options: Some(http2(two)),
                ..Default::default()
            })
        }
        UpstreamProtocol::Auto(one, two) => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options: Some(http1(one)),
            http2_protocol_options: Some(http2(two)),
            ..Default::default()
        }),
    };
    UpstreamOptionsMessage {
        common_http_protocol_options: Some(CommonOptions {
            idle_timeout: Some(write::bound(cluster.idle_timeout)),
            max_connection_duration: cluster.max_connection_duration.map(write::duration),
            max_requests_per_connection: cluster.max_requests_per_connection.map(write::number),
            ..Default::default()
        }),
        upstream_http_protocol_options: sockets().any(|tls| tls.auto_sni).then(|| {
            UpstreamHttpProtocolOptions {
                auto_sni: true,
                ..Default::default()
            }
        }),
        upstream_protocol_options: Some(protocol),
        outlier_detection: cluster
            .outlier_detection
            .as_ref()
            .and_then(|outlier| error_statuses::to_message(&outlier.error_statuses)),
        ..Default::default()
    }
}

// --- decode: the connection manager ---

/// Decodes a connection manager; its fields have been compared with the lists already.
pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, config: &Any) -> Option<HttpConnectionManager> {
    let message: pb::HttpConnectionManager = reader.unpack(place, config)?;
    let common_place = place.field("common_http_protocol_options");
    let common = message.common_http_protocol_options.unwrap_or_default();
    let filters = filter::decode_filters(reader, place, &message.http_filters);
    let routes = decode_routes(reader, place, message.route_specifier.as_ref());
    let access_logs = access_log::decode(reader, place, &message.access_log, false);
    refuse_values(reader, place, &message);
    let head_kb = number(message.max_request_headers_kb.as_ref()).unwrap_or(60);
    if !(1..=8192).contains(&head_kb) {
        reader.out_of_range(&place.field("max_request_headers_kb"), head_kb, "1 to 8192");
    }
    let times = decode_times(reader, place, &message);
    let details = message.set_current_client_cert_details.unwrap_or_default();
    Some(HttpConnectionManager {
        codec: decode_codec(reader, place, message.codec_type),
        stat_prefix: message.stat_prefix.as_str().into(),
        routes: routes?,
        filters,
        access_logs,
        use_remote_address: is_true(message.use_remote_address.as_ref()),
        xff_num_trusted_hops: message.xff_num_trusted_hops,
        forward_client_cert: decode_forward(reader, place, message.forward_client_cert_details),
        client_cert_details: ClientCertDetails {
            subject: is_true(details.subject.as_ref()),
            uri: details.uri,
            dns: details.dns,
        },
        idle_timeout: reader.bound(
            &common_place.field("idle_timeout"),
            common.idle_timeout.as_ref(),
            Some(HOUR),
        ),
        stream_idle_timeout: times.stream_idle,
        request_timeout: times.request,
        request_headers_timeout: times.request_headers,
        max_connection_duration: reader.bound(
            &common_place.field("max_connection_duration"),
            common.max_connection_duration.as_ref(),
            None,
        ),
        max_requests_per_connection: number(common.max_requests_per_connection.as_ref())
            .filter(|count| *count > 0),
        drain_timeout: times.drain,
        max_request_headers_kb: head_kb,
        max_request_headers_count: number(common.max_headers_count.as_ref()).unwrap_or(100),
        generate_request_id: message.generate_request_id.as_ref().is_none_or(|it| it.value),
        preserve_external_request_id: message.preserve_external_request_id,
        upgrades: decode_upgrades(reader, place, &message.upgrade_configs),
        normalize_path: is_true(message.normalize_path.as_ref()),
        merge_slashes: message.merge_slashes,
        unescape_slashes: unescapes(&message),
        server_name: some_or(&message.server_name, "envoy"),
        server_header: decode_server_header(reader, place, message.server_header_transformation),
        proxy_100_continue: message.proxy_100_continue,
        strip_host_port: decode_strip_port(&message),
        http1: decode_http1(
            reader,
            &place.field("http_protocol_options"),
            message.http_protocol_options.as_ref(),
        ),
        http2: decode_http2(
            reader,
            &place.field("http2_protocol_options"),
            message.http2_protocol_options.as_ref(),
        ),
        tracing: message
            .tracing
            .as_ref()
            .map(|it| tracing::decode(reader, &place.field("tracing"), it)),
    })
}

fn some_or(text: &str, default: &str) -> Text {
    if text.is_empty() {
        default.into()
    } else {
        text.into()
    }
}

fn decode_strip_port(message: &pb::HttpConnectionManager) -> HostPort {
    match &message.strip_port_mode {
        Some(nested::StripPortMode::StripAnyHostPort(true)) => HostPort::StripAny,
        _ if message.strip_matching_host_port => HostPort::StripMatching,
        _ => HostPort::Keep,
    }
}

struct Times {
    stream_idle: Option<Duration>,
    request: Option<Duration>,
    request_headers: Option<Duration>,
    drain: Duration,
}

fn decode_times(reader: &mut Reader, place: &Place<'_>, message: &pb::HttpConnectionManager) -> Times {
    let mut bound = |name, value, default| reader.bound(&place.field(name), value, default);
    Times {
        stream_idle: bound(
            "stream_idle_timeout",
            message.stream_idle_timeout.as_ref(),
            Some(STREAM_IDLE),
        ),
        request: bound("request_timeout", message.request_timeout.as_ref(), None),
        request_headers: bound(
            "request_headers_timeout",
            message.request_headers_timeout.as_ref(),
            None,
        ),
        drain: reader
            .duration(&place.field("drain_timeout"), message.drain_timeout.as_ref())
            .unwrap_or(DRAIN),
    }
}

/// Whether `path_with_escaped_slashes_action` asks for it; what we don't follow was refused.
fn unescapes(message: &pb::HttpConnectionManager) -> bool {
    message.path_with_escaped_slashes_action
        == i32::from(nested::PathWithEscapedSlashesAction::UnescapeAndForward)
}

/// Fields of which only some values are taken.
fn refuse_values(reader: &mut Reader, place: &Place<'_>, message: &pb::HttpConnectionManager) {
    use nested::PathWithEscapedSlashesAction as Slashes;
    let slashes = place.field("path_with_escaped_slashes_action");
    match reader.enumerator(&slashes, message.path_with_escaped_slashes_action) {
        Slashes::ImplementationSpecificDefault | Slashes::KeepUnchanged | Slashes::UnescapeAndForward => {}
        other @ (Slashes::RejectRequest | Slashes::UnescapeAndRedirect) => {
            reader.value(
                &slashes,
                other.as_str_name(),
                "write KEEP_UNCHANGED or UNESCAPE_AND_FORWARD",
            );
        }
    }
    if let Some(extension) = &message.request_id_extension {
        let place = place.field("request_id_extension");
        let config = extension.typed_config.as_ref();
        let name = config.map_or("", |it| type_url::message_name(&it.type_url));
        if name == "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
            reader.ignore(place.to_string(), name);
        } else {
            reader.extension(
                &place,
                "request id extension",
                "",
                config,
                "envoy.request_id.uuid",
            );
        }
    }
}

fn decode_codec(reader: &mut Reader, place: &Place<'_>, value: i32) -> Codec {
    let place = place.field("codec_type");
    match reader.enumerator(&place, value) {
        nested::CodecType::Auto => Codec::Auto,
        nested::CodecType::Http1 => Codec::Http1,
        nested::CodecType::Http2 => Codec::Http2,
        nested::CodecType::Http3 => {
            reader.value(&place, "HTTP3", "write AUTO, HTTP1 or HTTP2");
            Codec::Auto
        }
    }
}

fn decode_forward(reader: &mut Reader, place: &Place<'_>, value: i32) -> ForwardClientCert {
    use nested::ForwardClientCertDetails as Details;
    match reader.enumerator(&place.field("forward_client_cert_details"), value) {
        Details::Sanitize => ForwardClientCert::Sanitize,
        Details::ForwardOnly => ForwardClientCert::ForwardOnly,
        Details::AppendForward => ForwardClientCert::AppendForward,
        Details::SanitizeSet => ForwardClientCert::SanitizeSet,
        Details::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    }
}

fn decode_server_header(reader: &mut Reader, place: &Place<'_>, value: i32) -> ServerHeader {
    match reader.enumerator(&place.field("server_header_transformation"), value) {
        nested::ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        nested::ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        nested::ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    }
}

fn decode_routes(
    reader: &mut Reader,
    place: &Place<'_>,
    routes: Option<&RouteSpecifier>,
) -> Option<RouteSource> {
    match routes {
        Some(RouteSpecifier::RouteConfig(routes)) => {
            let routes = route::from_message(reader, &place.field("route_config"), routes);
            Some(RouteSource::Inline(Arc::new(routes)))
        }
        Some(RouteSpecifier::Rds(rds)) => {
            let place = place.field("rds");
            reader.config_source(&place.field("config_source"), rds.config_source.as_ref());
            let name = place.field("route_config_name");
            let name = reader.named(&name, &rds.route_config_name, "the route configuration's name");
            Some(RouteSource::Rds(name))
        }
        // Refused by the list of supported fields.
        Some(RouteSpecifier::ScopedRoutes(_)) => None,
        None => reader.required(place, None, "route_config or rds"),
    }
}

fn decode_upgrades(
    reader: &mut Reader,
    place: &Place<'_>,
    upgrades: &[nested::UpgradeConfig],
) -> Vec<(Text, bool)> {
    let mut decoded = Vec::with_capacity(upgrades.len());
    for (at, upgrade) in upgrades.iter().enumerate() {
        let place = place.item("upgrade_configs", at);
        let kind = reader.named(
            &place.field("upgrade_type"),
            &upgrade.upgrade_type,
            "the protocol",
        );
        decoded.push((lower(&kind), upgrade.enabled.as_ref().is_none_or(|it| it.value)));
    }
    decoded
}

// --- decode: options of a side ---

fn decode_http1(
    reader: &mut Reader,
    place: &Place<'_>,
    options: Option<&Http1ProtocolOptions>,
) -> Http1Options {
    use http1_protocol_options::header_key_format::HeaderFormat;
    let Some(options) = options else {
        return Http1Options::default();
    };
    let format_place = place.field("header_key_format");
    let format = options
        .header_key_format
        .as_ref()
        .and_then(|it| it.header_format.as_ref());
    let preserve_case = match format {
        Some(HeaderFormat::StatefulFormatter(formatter))
            if formatter
                .typed_config
                .as_ref()
                .is_some_and(|it| it.type_url == type_url::PRESERVE_CASE) =>
        {
            true
        }
        Some(HeaderFormat::StatefulFormatter(formatter)) => {
            reader.extension(
                &format_place,
                "header formatter",
                &formatter.name,
                formatter.typed_config.as_ref(),
                "preserve_case",
            );
            false
        }
        Some(HeaderFormat::ProperCaseWords(_)) => {
            reader.value(
                &format_place,
                "proper_case_words",
                "use the formatter preserve_case",
            );
            false
        }
        None => false,
    };
    Http1Options {
        accept_http_10: options.accept_http_10,
        preserve_case,
        enable_trailers: options.enable_trailers,
    }
}

fn decode_http2(
    reader: &mut Reader,
    place: &Place<'_>,
    options: Option<&Http2ProtocolOptions>,
) -> Http2Options {
    let Some(options) = options else {
        return Http2Options::default();
    };
    let mut window = |name, value| {
        let value = number(value);
        if value.is_some_and(|size| !(65_535..=2_147_483_647).contains(&size)) {
            reader.out_of_range(&place.field(name), value.unwrap_or(0), "65535 to 2147483647");
        }
        value
    };
    let stream = window(
        "initial_stream_window_size",
        options.initial_stream_window_size.as_ref(),
    );
    let connection = window(
        "initial_connection_window_size",
        options.initial_connection_window_size.as_ref(),
    );
    let streams = number(options.max_concurrent_streams.as_ref());
    if streams == Some(0) {
        reader.out_of_range(&place.field("max_concurrent_streams"), 0, "1 to 2147483647");
    }
    let keepalive_place = place.field("connection_keepalive");
    let keepalive = options.connection_keepalive.as_ref().and_then(|it| {
        let interval = reader.bound(&keepalive_place.field("interval"), it.interval.as_ref(), None)?;
        let place = keepalive_place.field("timeout");
        let timeout = reader.duration(&place, it.timeout.as_ref());
        Some((
            interval,
            reader.required(&place, timeout, "the time to wait for an answer")?,
        ))
    });
    Http2Options {
        max_concurrent_streams: streams,
        initial_stream_window_size: stream,
        initial_connection_window_size: connection,
        allow_connect: options.allow_connect,
        keepalive,
    }
}

/// What a cluster's HTTP options hold.
pub(super) struct UpstreamOptions {
    pub(super) protocol: UpstreamProtocol,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) auto_sni: bool,
    pub(super) auto_san_validation: bool,
    /// What outlier detection takes for errors; empty: 5xx.
    pub(super) error_statuses: Vec<u16>,
}

/// Reads `typed_extension_protocol_options`, and the deprecated fields that stood for them before.
#[expect(deprecated, reason = "hand-written bootstraps still use the old fields")]
pub(super) fn decode_upstream_options(
    reader: &mut Reader,
    place: &Place<'_>,
    cluster: &cluster_pb::Cluster,
) -> UpstreamOptions {
    let key = type_url::message_name(type_url::HTTP_PROTOCOL_OPTIONS);
    let mut message = UpstreamOptionsMessage {
        common_http_protocol_options: cluster.common_http_protocol_options,
        upstream_http_protocol_options: cluster.upstream_http_protocol_options.clone(),
        upstream_protocol_options: match (&cluster.http2_protocol_options, &cluster.http_protocol_options) {
            (Some(two), _) => Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(two.clone())),
            })),
            (None, Some(one)) => Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::HttpProtocolOptions(one.clone())),
            })),
            (None, None) => None,
        },
        ..Default::default()
    };
    let mut names: Vec<_> = cluster.typed_extension_protocol_options.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    for (name, config) in names {
        let place = place.key("typed_extension_protocol_options", name);
        if name == key && config.type_url == type_url::HTTP_PROTOCOL_OPTIONS {
            if let Some(options) = reader.unpack(&place, config) {
                message = options;
            }
        } else {
            reader.extension(&place, "protocol options", name, Some(config), key);
        }
    }
    let deprecated = number(cluster.max_requests_per_connection.as_ref());
    let place = place.key("typed_extension_protocol_options", key);
    read_upstream_options(reader, &place, &message, deprecated)
}

fn read_upstream_options(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &UpstreamOptionsMessage,
    max_requests: Option<u32>,
) -> UpstreamOptions {
    let common = message.common_http_protocol_options.unwrap_or_default();
    let common_place = place.field("common_http_protocol_options");
    let upstream = message.upstream_http_protocol_options.clone().unwrap_or_default();
    UpstreamOptions {
        protocol: decode_protocol(reader, place, message.upstream_protocol_options.as_ref()),
        idle_timeout: reader.bound(
            &common_place.field("idle_timeout"),
            common.idle_timeout.as_ref(),
            Some(HOUR),
        ),
        max_requests_per_connection: number(common.max_requests_per_connection.as_ref())
            .or(max_requests)
            .filter(|count| *count > 0),
        max_connection_duration: reader.bound(
            &common_place.field("max_connection_duration"),
            common.max_connection_duration.as_ref(),
            None,
        ),
        auto_sni: upstream.auto_sni,
        auto_san_validation: upstream.auto_san_validation,
        error_statuses: error_statuses::from_message(reader, place, message.outlier_detection.as_ref()),
    }
}

fn decode_protocol(
    reader: &mut Reader,
    place: &Place<'_>,
    options: Option<&UpstreamProtocolOptions>,
) -> UpstreamProtocol {
    let mut both = |name, one: Option<&Http1ProtocolOptions>, two: Option<&Http2ProtocolOptions>| {
        let place = place.field(name);
        (
            decode_http1(reader, &place.field("http_protocol_options"), one),
            decode_http2(reader, &place.field("http2_protocol_options"), two),
        )
    };
    match options {
        None => UpstreamProtocol::default(),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match &config.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(two)) => {
                UpstreamProtocol::Http2(both("explicit_http_config", None, Some(two)).1)
            }
            Some(ProtocolConfig::HttpProtocolOptions(one)) => {
                UpstreamProtocol::Http1(both("explicit_http_config", Some(one), None).0)
            }
            // HTTP/3 is refused by the list of supported fields.
            Some(ProtocolConfig::Http3ProtocolOptions(_)) | None => UpstreamProtocol::default(),
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            let (one, two) = both(
                "use_downstream_protocol_config",
                config.http_protocol_options.as_ref(),
                config.http2_protocol_options.as_ref(),
            );
            UpstreamProtocol::UseDownstream(one, two)
        }
        Some(UpstreamProtocolOptions::AutoConfig(config)) => {
            let (one, two) = both(
                "auto_config",
                config.http_protocol_options.as_ref(),
                config.http2_protocol_options.as_ref(),
            );
            UpstreamProtocol::Auto(one, two)
        }
    }
}
