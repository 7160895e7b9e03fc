//! `GET /v1/edges?windowSeconds=60`: who calls whom, how much, how well and how fast. `GET /v1/alarms`: who called what it had
//! not called before.
//!
//! What is not known is `null`, never 0: response times and mTLS where the caller's proxy does not tell them (Envoy), rates
//! where nobody reported in the window, shares of nothing.

use serde_json::{Value, json};

use super::{Admin, answer::Refused, route::Query};
use crate::{
    observe::{
        Observer,
        alarm::Alarm,
        edge::{Caller, Target},
        series::Amounts,
        store::EdgeView,
    },
    time::rfc3339_of,
};

/// The window where the caller says none.
const WINDOW: u32 = 60;

pub(super) fn edges(admin: &Admin, query: &Query) -> Result<Value, Refused> {
    let window = match query.get("windowSeconds") {
        None => WINDOW,
        Some(text) => text
            .parse()
            .ok()
            .filter(|window| *window > 0)
            .ok_or_else(|| Refused::bad("windowSeconds must be a whole number above 0"))?,
    };
    Ok(to_json(&admin.observer, window))
}

fn to_json(observer: &Observer, window: u32) -> Value {
    let view = observer.view(window);
    let counts = view.counts;
    let edges: Vec<Value> = view.edges.iter().map(|edge| edge_json(observer, edge)).collect();
    json!({
        "now": rfc3339_of(view.now),
        "since": rfc3339_of(view.since),
        "windowSeconds": view.window,
        "resolutionSeconds": view.resolution,
        "reporters": counts.reporters,
        "unplacedRequests": counts.unplaced,
        "edges": edges,
    })
}

pub(super) fn alarms(observer: &Observer) -> Value {
    let (learned, alarms) = observer.first_calls();
    let one = |alarm: &Alarm| {
        json!({
            "number": alarm.number,
            "kind": "first-call",
            "at": rfc3339_of(observer.wall(alarm.at)),
            "source": source(&alarm.caller),
            "destination": destination(&alarm.target),
            "runbook": "docs/runbooks/first-call.md",
        })
    };
    json!({
        "now": rfc3339_of(observer.view(1).now),
        "learningUntil": rfc3339_of(learned),
        "raised": observer.counts().first_calls,
        "alarms": alarms.iter().map(one).collect::<Vec<_>>(),
    })
}

fn source(caller: &Caller) -> Value {
    json!({
        "namespace": &*caller.namespace,
        "workload": &*caller.workload,
        "principal": &*caller.principal,
    })
}

fn destination(target: &Target) -> Value {
    json!({
        "host": &*target.host,
        "namespace": target.namespace(),
        "port": (target.port != 0).then_some(target.port),
        "subset": (!target.subset.is_empty()).then_some(&*target.subset),
    })
}

fn edge_json(observer: &Observer, edge: &EdgeView) -> Value {
    let (caller, target) = (&edge.key.caller, &edge.key.target);
    let amounts = &edge.amounts;
    // Requests of the window are known where somebody reported in it.
    let known = |amount: u64| (edge.covered > 0).then_some(amount);
    let rate = |amount: u32| (edge.covered > 0).then(|| f64::from(amount) / f64::from(edge.covered));
    let told = |amount: u64| (amounts.detailed > 0).then_some(amount);
    json!({
        "source": source(caller),
        "destination": destination(target),
        "firstSeen": rfc3339_of(observer.wall(edge.first_seen)),
        "lastSeen": rfc3339_of(observer.wall(edge.last_seen)),
        "reporting": edge.reporting,
        "coveredSeconds": edge.covered,
        "requests": known(amounts.requests().into()),
        "failed": known(amounts.failed.into()),
        "rate": rate(amounts.requests()),
        "errorShare": share(amounts.failed, amounts.requests()),
        "latencyMs": latency(amounts),
        // Beside the quantiles, so that a reader can add edges up.
        "latencyBuckets": (latency(amounts) != Value::Null).then_some(amounts.times),
        "inProgress": edge.under_way,
        "connections": told(amounts.connections.into()),
        "connectionsFailed": told(amounts.connections_failed.into()),
        "connectionRate": told(0).and(rate(amounts.connections)),
        "requestBytes": told(amounts.request_bytes),
        "responseBytes": told(amounts.response_bytes),
        "mtlsShare": share(amounts.mtls, amounts.detailed),
    })
}

/// `None`: of nothing.
fn share(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

fn latency(amounts: &Amounts) -> Value {
    let quantiles = [500, 900, 990].map(|thousandths| amounts.quantile(thousandths));
    let [Some(p50), Some(p90), Some(p99)] = quantiles else {
        return Value::Null;
    };
    json!({"p50": p50, "p90": p90, "p99": p99})
}
