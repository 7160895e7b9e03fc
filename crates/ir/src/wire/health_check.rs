//! Active health checks of a cluster.
//!
//! Rejected: more than one, payloads, other methods than GET, intervals of their own for endpoints that are out, TLS of their
//! own. A check has a connection of its own, so `reuse_connection` changes nothing; a cluster that nobody uses is not
//! checked, so the intervals without traffic change nothing.

use std::{ops::Range, time::Duration};

use rajut_proto::{
    core::{
        self as pb,
        health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck},
    },
    types::{CodecClientType, Int64Range},
};

use super::{
    read::{Place, Reader, number},
    write,
};
use crate::cluster::{HealthCheck, HealthQuestion};

/// What answers Envoy takes for good where nothing is written.
const EXPECTED: Range<u16> = 200..201;

pub(super) fn to_message(check: &HealthCheck) -> pb::HealthCheck {
    let checker = match &check.question {
        HealthQuestion::Http {
            host,
            path,
            http2,
            expected,
            retriable,
        } => {
            let codec = if *http2 {
                CodecClientType::Http2
            } else {
                CodecClientType::Http1
            };
            HealthChecker::HttpHealthCheck(HttpHealthCheck {
                host: host.to_string(),
                path: path.to_string(),
                expected_statuses: expected.iter().map(encode_range).collect(),
                retriable_statuses: retriable.iter().map(encode_range).collect(),
                codec_client_type: codec.into(),
                ..Default::default()
            })
        }
        HealthQuestion::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
        HealthQuestion::Grpc { service, authority } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.to_string(),
            authority: authority.to_string(),
            ..Default::default()
        }),
    };
    pb::HealthCheck {
        timeout: Some(write::duration(check.timeout)),
        interval: Some(write::duration(check.interval)),
        interval_jitter: (!check.interval_jitter.is_zero()).then(|| write::duration(check.interval_jitter)),
        // Left out it would be a minute.
        no_traffic_interval: Some(write::duration(check.interval)),
        unhealthy_threshold: Some(write::number(check.unhealthy_threshold)),
        healthy_threshold: Some(write::number(check.healthy_threshold)),
        reuse_connection: Some(write::boolean(false)),
        health_checker: Some(checker),
        ..Default::default()
    }
}

fn encode_range(range: &Range<u16>) -> Int64Range {
    Int64Range {
        start: range.start.into(),
        end: range.end.into(),
    }
}

pub(super) fn from_messages(
    reader: &mut Reader,
    place: &Place<'_>,
    messages: &[pb::HealthCheck],
) -> Option<HealthCheck> {
    if messages.len() > 1 {
        // Envoy refuses them, too.
        reader.value(&place.item("health_checks", 1), "a second check", "write one");
    }
    from_message(reader, &place.item("health_checks", 0), messages.first()?)
}

fn from_message(reader: &mut Reader, place: &Place<'_>, message: &pb::HealthCheck) -> Option<HealthCheck> {
    let mut time = |name, value: Option<&_>| {
        let place = place.field(name);
        let value = reader.required(&place, value, "a duration")?;
        let time = reader.duration(&place, Some(value))?;
        if time.is_zero() {
            reader.out_of_range(&place, "0s", "more than 0s");
        }
        Some(time)
    };
    let timeout = time("timeout", message.timeout.as_ref());
    let interval = time("interval", message.interval.as_ref());
    let mut count = |name, value| {
        let place = place.field(name);
        let count = reader.required(&place, number(value), "a number")?;
        if count == 0 {
            reader.out_of_range(&place, count, "1 or more");
        }
        Some(count)
    };
    let unhealthy_threshold = count("unhealthy_threshold", message.unhealthy_threshold.as_ref());
    let healthy_threshold = count("healthy_threshold", message.healthy_threshold.as_ref());
    let jitter = reader.duration(&place.field("interval_jitter"), message.interval_jitter.as_ref());
    let question = match &message.health_checker {
        Some(HealthChecker::HttpHealthCheck(http)) => {
            Some(decode_http(reader, &place.field("http_health_check"), http))
        }
        Some(HealthChecker::TcpHealthCheck(_)) => Some(HealthQuestion::Tcp),
        Some(HealthChecker::GrpcHealthCheck(grpc)) => Some(HealthQuestion::Grpc {
            service: grpc.service_name.as_str().into(),
            authority: grpc.authority.as_str().into(),
        }),
        // Refused by the list of supported fields.
        Some(HealthChecker::CustomHealthCheck(_)) => None,
        None => reader.required(
            place,
            None,
            "http_health_check, tcp_health_check or grpc_health_check",
        ),
    };
    Some(HealthCheck {
        timeout: timeout?,
        interval: interval?,
        interval_jitter: jitter.unwrap_or(Duration::ZERO),
        unhealthy_threshold: unhealthy_threshold?,
        healthy_threshold: healthy_threshold?,
        question: question?,
    })
}

fn decode_http(reader: &mut Reader, place: &Place<'_>, http: &HttpHealthCheck) -> HealthQuestion {
    let codec_place = place.field("codec_client_type");
    let codec: CodecClientType = reader.enumerator(&codec_place, http.codec_client_type);
    if codec == CodecClientType::Http3 {
        reader.value(&codec_place, "HTTP3", "write HTTP1 or HTTP2");
    }
    let path_place = place.field("path");
    let path = reader.named(&path_place, &http.path, "the path that is asked for");
    let is_path = path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte > b' ' && byte < 0x7f && byte != b'#');
    if !path.is_empty() && !is_path {
        reader.bad_text(&path_place, &http.path, "a path that begins with `/`");
    }
    let mut ranges = |name, ranges: &[Int64Range]| {
        let decoded = ranges.iter().enumerate().filter_map(|(at, range)| {
            let place = place.item(name, at);
            let status = |number: i64| u16::try_from(number).ok().filter(|it| (100..=600).contains(it));
            match (status(range.start), status(range.end)) {
                (Some(start), Some(end)) if start < end => Some(start..end),
                _ => {
                    let shown = format!("{} to {}", range.start, range.end);
                    reader.out_of_range(&place, shown, "100 to 600, the start below the end");
                    None
                }
            }
        });
        decoded.collect::<Vec<_>>()
    };
    let mut expected = ranges("expected_statuses", &http.expected_statuses);
    let retriable = ranges("retriable_statuses", &http.retriable_statuses);
    if expected.is_empty() {
        expected.push(EXPECTED);
    }
    HealthQuestion::Http {
        host: http.host.as_str().into(),
        path,
        http2: codec == CodecClientType::Http2,
        expected,
        retriable,
    }
}
