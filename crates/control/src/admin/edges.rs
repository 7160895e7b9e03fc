//! `GET /v1/edges?windowSeconds=60`: who calls whom, how much, how well and how fast. `GET /v1/history?host=H&windowSeconds=300`:
//! the same for one service, or for all, slot by slot.
//!
//! What is not known is `null`, never 0: response times and mTLS where the caller's proxy does not tell them (Envoy), rates
//! where nobody reported in the window, shares of nothing.

use serde_json::{Value, json};

use super::{Admin, answer::Refused, route::Query};
use crate::{
    observe::{
        Observer,
        edge::{Caller, Target},
        series::Amounts,
        store::{EdgeView, Point},
    },
    time::rfc3339_of,
};

/// The window where the caller says none.
const WINDOW: u32 = 60;
/// The same of a history.
const HISTORY: u32 = 300;
/// Points of a history, or one more; slots are put together until there are no more.
const HISTORY_POINTS: usize = 60;

pub(super) fn edges(admin: &Admin, query: &Query) -> Result<Value, Refused> {
    Ok(to_json(&admin.observer, window(query, WINDOW)?))
}

fn window(query: &Query, otherwise: u32) -> Result<u32, Refused> {
    match query.get("windowSeconds") {
        None => Ok(otherwise),
        Some(text) => text
            .parse()
            .ok()
            .filter(|window| *window > 0)
            .ok_or_else(|| Refused::bad("windowSeconds must be a whole number above 0")),
    }
}

/// A service's history by subset, and all of them together: at most [`HISTORY_POINTS`] points and one.
pub(super) fn history(admin: &Admin, query: &Query) -> Result<Value, Refused> {
    let host = query
        .get("host")
        .map(String::as_str)
        .filter(|host| !host.is_empty());
    let (now, history) = admin.observer.history(host, window(query, HISTORY)?);
    let slots = history.subsets.values().map(Vec::len).max().unwrap_or(0);
    // Points begin at multiples of their width, so that they stand still while time goes on.
    let group = u32::try_from(slots.div_ceil(HISTORY_POINTS))
        .unwrap_or(u32::MAX)
        .max(1);
    // When a report comes differs by parts of a second: one second alone says little of a rate.
    let group = if history.width == 1 { group.max(2) } else { group };
    let width = history.width.saturating_mul(group);
    let first = history.begin / width;
    let place = |slot: u32| (history.begin + slot * history.width) / width - first;
    let last = u32::try_from(slots).unwrap_or(u32::MAX).checked_sub(1);
    let count = last.map_or(0, |last| place(last) as usize + 1);
    let times = (0..).take(count).map(|at: u32| {
        let begin = ((first + at) * width).max(history.begin);
        rfc3339_of(admin.observer.wall(begin))
    });
    let mut all = vec![Point::default(); count];
    let subsets = history.subsets.iter().map(|(subset, slots)| {
        let mut points = vec![Point::default(); count];
        for (slot, told) in (0..).zip(slots) {
            if let Some(point) = points.get_mut(place(slot) as usize) {
                point.covered = point.covered.saturating_add(told.covered);
                point.amounts.add(&told.amounts);
            }
        }
        // Reports tell of the second before: of the one that runs nothing is known yet.
        if let Some(newest) = points.last_mut() {
            newest.covered = newest.covered.saturating_sub(1);
        }
        for (sum, point) in all.iter_mut().zip(&points) {
            sum.covered = sum.covered.max(point.covered);
            sum.amounts.add(&point.amounts);
        }
        let subset = (!subset.is_empty()).then_some(&**subset);
        json!({"subset": subset, "points": points.iter().map(point_json).collect::<Vec<_>>()})
    });
    let subsets: Vec<Value> = subsets.collect();
    Ok(json!({
        "now": rfc3339_of(now),
        "host": host,
        "resolutionSeconds": width,
        "times": times.collect::<Vec<_>>(),
        "all": all.iter().map(point_json).collect::<Vec<_>>(),
        "subsets": subsets,
    }))
}

/// `null` where nothing is known.
fn point_json(point: &Point) -> Value {
    let Point { covered, amounts } = point;
    if *covered == 0 && *amounts == Amounts::default() {
        return Value::Null;
    }
    // What was told without a stream that is still known counts as of one second.
    let seconds = f64::from((*covered).max(1));
    let of = |amount: u32| f64::from(amount) / seconds;
    json!({
        "requests": amounts.requests(),
        "failed": amounts.failed,
        "rate": of(amounts.requests()),
        "errorShare": share(amounts.failed, amounts.requests()),
        "latencyMs": latency(amounts),
        "connectionRate": (amounts.detailed > 0 || amounts.connections > 0).then(|| of(amounts.connections)),
        "mtlsShare": share(amounts.mtls, amounts.detailed),
    })
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

pub(super) fn source(caller: &Caller) -> Value {
    json!({
        "namespace": &*caller.namespace,
        "workload": &*caller.workload,
        "principal": &*caller.principal,
    })
}

pub(super) fn destination(target: &Target) -> Value {
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
    let told = |amount: u64| (amounts.detailed > 0 || amounts.connections > 0).then_some(amount);
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
