//! Connection pools and outlier detection, shared by `DestinationRule` and the mesh configuration.

use std::{collections::BTreeSet, time::Duration};

use rajut_types::{Percent, Severity};

use crate::{
    codes,
    model::{ConnectionPool, OutlierDetection},
    read::{Field, Object},
};

pub(crate) fn connection_pool(object: &Object<'_>) -> ConnectionPool {
    let mut pool = ConnectionPool::default();
    if let Some(tcp) = object.object("tcp") {
        pool.max_connections = limit(&tcp, "maxConnections");
        pool.connect_timeout = tcp.positive_duration("connectTimeout");
        pool.max_connection_duration = tcp.positive_duration("maxConnectionDuration");
        pool.tcp_idle_timeout = tcp.positive_duration("idleTimeout");
        pool.tcp_keepalive = tcp.object("tcpKeepalive").map(|o| {
            (
                limit(&o, "probes"),
                o.positive_duration("time"),
                o.positive_duration("interval"),
            )
        });
    }
    if let Some(http) = object.object("http") {
        pool.http1_max_pending_requests = limit(&http, "http1MaxPendingRequests");
        pool.http2_max_requests = limit(&http, "http2MaxRequests");
        pool.max_requests_per_connection = limit(&http, "maxRequestsPerConnection");
        pool.max_retries = limit(&http, "maxRetries");
        pool.http_idle_timeout = http.positive_duration("idleTimeout");
        pool.max_concurrent_streams = limit(&http, "maxConcurrentStreams");
        pool.h2_upgrade = http.get("h2UpgradePolicy").and_then(|f| h2_upgrade(&f));
        let client = http.get("useClientProtocol");
        pool.use_client_protocol = client.as_ref().and_then(Field::bool).unwrap_or(false);
        if let (Some(field), true, Some(true)) = (client, pool.use_client_protocol, pool.h2_upgrade) {
            field.error(
                codes::EXCLUSIVE,
                "`useClientProtocol: true` and `h2UpgradePolicy: UPGRADE` contradict each other",
                "keep one of the two",
            );
        }
        pool.http2_keepalive = http.object("http2KeepAlive").and_then(|o| {
            let interval = o.required("interval", "e.g. `interval: 30s`");
            let timeout = o.required("timeout", "e.g. `timeout: 5s`");
            Some((interval?.positive_duration()?, timeout?.positive_duration()?))
        });
    }
    pool
}

/// A limit; 0 means that nothing is said.
fn limit(object: &Object<'_>, name: &'static str) -> Option<u32> {
    object.count(name).filter(|n| *n > 0)
}

pub(crate) fn h2_upgrade(field: &Field<'_>) -> Option<bool> {
    field.choice(&[
        ("DEFAULT", None),
        ("DO_NOT_UPGRADE", Some(false)),
        ("UPGRADE", Some(true)),
    ])?
}

pub(crate) fn outlier_detection(object: &Object<'_>) -> OutlierDetection {
    let statuses = object.values("outlierDetectionHttpErrorCodes");
    let statuses: BTreeSet<u16> = statuses
        .iter()
        .filter_map(|item| u16::try_from(item.integer(100..=599)?).ok())
        .collect();
    let old = object.get("consecutiveErrors");
    let old_count = old.as_ref().and_then(Field::count);
    let gateway = object.count("consecutiveGatewayErrors");
    let all = object.count("consecutive5xxErrors");
    if let (Some(field), Some(count)) = (&old, old_count) {
        warn_consecutive_errors(field, count, gateway.is_some() || all.is_some());
    }
    let old_count = old_count.filter(|_| gateway.is_none() && all.is_none());
    let (gateway, all) = match old_count {
        Some(count) => (Some(count), Some(0)),
        None => (gateway, all),
    };
    let split = object.bool("splitExternalLocalOriginErrors").unwrap_or(false);
    let local_field = object.get("consecutiveLocalOriginFailures");
    let local = local_field.as_ref().and_then(Field::count);
    if let (Some(field), false) = (&local_field, split) {
        field.say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "`consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`",
            "add it, or take this out",
        );
    }
    let positive = |count: Option<u32>| count.filter(|n| *n > 0);
    OutlierDetection {
        consecutive_5xx: positive(Some(all.unwrap_or(5))),
        consecutive_gateway: positive(gateway),
        consecutive_local_origin: positive(if split { Some(local.unwrap_or(5)) } else { None }),
        split_local_origin: split,
        interval: object
            .positive_duration("interval")
            .unwrap_or(Duration::from_secs(10)),
        base_ejection_time: object
            .positive_duration("baseEjectionTime")
            .unwrap_or(Duration::from_secs(30)),
        max_ejection_percent: share(object, "maxEjectionPercent")
            .unwrap_or(Percent::from_millionths(100_000)),
        min_health_percent: share(object, "minHealthPercent").unwrap_or_default(),
        error_statuses: statuses.into_iter().collect(),
    }
}

/// A whole number of per cent.
fn share(object: &Object<'_>, name: &'static str) -> Option<Percent> {
    let number = object.get(name)?.integer(0..=100)?;
    u32::try_from(number)
        .ok()
        .map(|n| Percent::from_millionths(n * 10_000))
}

fn warn_consecutive_errors(field: &Field<'_>, count: u32, overridden: bool) {
    if overridden {
        field.say_key(
            Severity::Warning,
            codes::CONSECUTIVE_ERRORS,
            "`consecutiveErrors` is not used: the newer fields beside it win",
            "take it out",
        );
    } else {
        field.say_key(
            Severity::Warning,
            codes::CONSECUTIVE_ERRORS,
            format!(
                "`consecutiveErrors` left Istio with 1.7, where it now has no effect; it is read here as what it \
                 meant: {count} answers 502, 503 or 504 in a row"
            ),
            format!("write `consecutiveGatewayErrors: {count}` and `consecutive5xxErrors: 0`"),
        );
    }
}
