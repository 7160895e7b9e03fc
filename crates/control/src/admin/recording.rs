//! `GET /v1/records?sinceSeconds=S&after=N`: what was recorded of requests since `S` seconds ago, a part at a time: `next` is the
//! `after` of the next part, `null` behind the last. Requests that no policy could tell apart stand there once, with their `count`.
//!
//! A request comes encoded (`telemetry`'s `recording`, base64), with the key of its digests: this is for `rajut policy replay`, not
//! for people. The door is the operator's own.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use rajut_config::model::Recording;
use serde_json::{Value, json};

use super::{answer::Refused, route::Query};
use crate::{
    recorder::{Alike, Recorder},
    time::rfc3339_of,
};

pub(super) fn records(
    recorder: &Recorder,
    recording: &Recording,
    now: SystemTime,
    query: &Query,
) -> Result<Value, Refused> {
    let number = |name: &str, otherwise: u64| match query.get(name) {
        None => Ok(otherwise),
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| Refused::bad(format!("{name} must be a whole number"))),
    };
    let window = Duration::from_secs(number("sinceSeconds", u64::from(u32::MAX))?);
    let since = now.checked_sub(window).unwrap_or(SystemTime::UNIX_EPOCH);
    let part = recorder
        .part(number("after", 0)?, since)
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let one = |alike: &Alike| {
        json!({
            "request": STANDARD.encode(alike.example.encode()),
            "count": alike.count,
            "firstMilliseconds": alike.first_ms,
        })
    };
    let stopped = recorder.stopped();
    Ok(json!({
        "now": rfc3339_of(now),
        "oldest": recorder.oldest().map(rfc3339_of),
        "recording": {
            "refused": recording.refused,
            "allowedShare": f64::from(recording.share.millionths()) / 1e6,
        },
        "stopped": stopped.map(|(_, why)| why),
        "key": recorder.key().map(|key| STANDARD.encode(key)),
        "records": part.alike.iter().map(one).collect::<Vec<_>>(),
        "damagedBytes": part.damaged,
        "next": part.next,
    }))
}
