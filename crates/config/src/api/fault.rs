//! Injected faults of a route: `delay` and `abort`.
//!
//! **A missing percentage is none**, as in Istio (many write-ups say all): a warning tells so.

use std::time::Duration;

use rajut_types::{Percent, Severity};

use super::mirror;
use crate::{
    codes,
    model::{AbortStatus, FaultAbort, FaultDelay, HttpFault},
    read::{Field, Object},
};

/// gRPC's names for statuses, as Istio takes them.
const GRPC: &[(&str, u8)] = &[
    ("OK", 0),
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("UNAUTHENTICATED", 16),
];

/// The faults of a route.
pub(crate) fn read(object: &Object<'_>) -> Option<HttpFault> {
    if !object.has("delay") && !object.has("abort") {
        object.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "a fault needs `delay` or `abort`",
            "add one, or take `fault` out",
        );
    }
    let delay = object.object("delay").and_then(|o| delay(&o));
    let abort = object.object("abort").and_then(|o| abort(&o));
    (delay.is_some() || abort.is_some()).then(|| HttpFault {
        delay,
        abort,
        origin: object.field().origin(),
    })
}

fn delay(object: &Object<'_>) -> Option<FaultDelay> {
    object.refused(&["exponentialDelay"], "no request would be delayed");
    let (new, old) = (object.get("percentage"), object.get("percent"));
    if let Some(field) = &old {
        mirror::deprecated_percent(field, new.is_some(), "percentage");
    }
    let share = match (new, old) {
        (Some(field), _) => share(&field),
        (None, Some(field)) => mirror::whole_percent(&field),
        (None, None) => Some(none(object, "delayed")),
    };
    let fixed = if object.has("exponentialDelay") {
        None
    } else {
        object
            .required("fixedDelay", "add the time to wait, e.g. `fixedDelay: 2s`")
            .and_then(|field| at_least_a_millisecond(&field))
    };
    Some(FaultDelay {
        fixed: fixed?,
        share: share?,
    })
}

fn at_least_a_millisecond(field: &Field<'_>) -> Option<Duration> {
    let fixed = field.duration()?;
    if fixed < Duration::from_millis(1) {
        field.error(
            codes::BAD_DURATION,
            "the delay must be at least 1 ms",
            "take `delay` out if no request should wait",
        );
        return None;
    }
    Some(fixed)
}

fn abort(object: &Object<'_>) -> Option<FaultAbort> {
    object.refused(&["http2Error"], "no request would be refused");
    let set = object.one_of(&["httpStatus", "grpcStatus", "http2Error"]);
    if set.is_empty() {
        object.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "an abort needs `httpStatus` or `grpcStatus`",
            "e.g. `httpStatus: 503` or `grpcStatus: UNAVAILABLE`",
        );
    }
    let share = match object.get("percentage") {
        Some(field) => share(&field),
        None => Some(none(object, "refused")),
    };
    let http = object
        .get("httpStatus")
        .and_then(|field| field.integer(200..=599))
        .and_then(|status| u16::try_from(status).ok());
    let grpc = object.get("grpcStatus").and_then(|field| field.choice(GRPC));
    let status = http.map(AbortStatus::Http).or(grpc.map(AbortStatus::Grpc));
    Some(FaultAbort {
        status: status?,
        share: share?,
    })
}

fn none(object: &Object<'_>, done: &str) -> Percent {
    object.field().say_key(
        Severity::Warning,
        codes::NO_EFFECT,
        format!("without `percentage` no request is {done}"),
        "add `percentage: {value: 100}`",
    );
    Percent::NONE
}

/// Istio's `Percent`; without `value` it is none.
pub(super) fn share(field: &Field<'_>) -> Option<Percent> {
    let object = field.clone().object()?;
    if let Some(value) = object.get("value") {
        return value.percent();
    }
    object.field().say_key(
        Severity::Warning,
        codes::NO_EFFECT,
        "a percentage without `value` is 0",
        "write `{value: 100}`",
    );
    Some(Percent::NONE)
}
