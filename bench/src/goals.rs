//! The goals, each with what was measured and whether it is met: ratios to the peers in the same run, and absolute figures.

use serde_json::Value;

use crate::stats::median;

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// At most so much of this peer's.
    Peer(&'static str),
    /// At most so much.
    Absolute,
}

/// One goal.
#[derive(Debug)]
struct Goal {
    what: &'static str,
    set: &'static str,
    /// The column's key; `added_` before it where the direct way is taken off.
    key: &'static str,
    against: Against,
    most: f64,
}

const fn goal(
    what: &'static str,
    set: &'static str,
    key: &'static str,
    peer: &'static str,
    most: f64,
) -> Goal {
    Goal {
        what,
        set,
        key,
        against: Against::Peer(peer),
        most,
    }
}

const fn absolute(what: &'static str, set: &'static str, key: &'static str, most: f64) -> Goal {
    Goal {
        what,
        set,
        key,
        against: Against::Absolute,
        most,
    }
}

const GOALS: &[Goal] = &[
    goal("HTTP/1.1 one hop, CPU", "http1", "cpu_us", "envoy", 0.30),
    goal("HTTP/1.1 one hop, CPU", "http1", "cpu_us", "haproxy", 1.0),
    goal(
        "the same at the fixed rate",
        "http1",
        "rate_cpu_us",
        "envoy",
        0.30,
    ),
    goal(
        "the same at the fixed rate",
        "http1",
        "rate_cpu_us",
        "haproxy",
        1.0,
    ),
    goal(
        "with 16 request headers, CPU",
        "http1-16",
        "cpu_us",
        "envoy",
        0.30,
    ),
    goal(
        "with 16 request headers, CPU",
        "http1-16",
        "cpu_us",
        "haproxy",
        1.0,
    ),
    goal(
        "the same at the fixed rate",
        "http1-16",
        "rate_cpu_us",
        "envoy",
        0.30,
    ),
    goal(
        "the same at the fixed rate",
        "http1-16",
        "rate_cpu_us",
        "haproxy",
        1.0,
    ),
    goal("empty answers, CPU", "http1-0", "cpu_us", "envoy", 0.30),
    goal("empty answers, CPU", "http1-0", "cpu_us", "haproxy", 1.0),
    goal("64 KiB answers, CPU", "http1-64k", "cpu_us", "envoy", 0.30),
    goal("64 KiB answers, CPU", "http1-64k", "cpu_us", "haproxy", 1.0),
    goal("everything on, CPU", "all-on", "cpu_us", "envoy", 0.27),
    goal(
        "everything on, CPU against a plain hop",
        "all-on",
        "cpu_us",
        "haproxy",
        1.0,
    ),
    goal(
        "everything on with 500 policies, CPU",
        "all-on-500",
        "cpu_us",
        "envoy",
        0.27,
    ),
    goal(
        "two hops with mutual TLS, HTTP/1.1, CPU",
        "tls2",
        "cpu_us",
        "envoy",
        0.35,
    ),
    goal(
        "two hops with mutual TLS, HTTP/1.1, CPU",
        "tls2",
        "cpu_us",
        "haproxy",
        1.1,
    ),
    goal(
        "two hops with mutual TLS, HTTP/2, CPU",
        "tls2-h2",
        "cpu_us",
        "envoy",
        0.35,
    ),
    goal(
        "two hops with mutual TLS, HTTP/2, CPU",
        "tls2-h2",
        "cpu_us",
        "haproxy",
        1.1,
    ),
    goal("HTTP/2 one hop, CPU", "http2", "cpu_us", "envoy", 0.40),
    goal("HTTP/2 one hop, CPU", "http2", "cpu_us", "haproxy", 1.1),
    goal("gRPC calls, CPU", "grpc", "cpu_us", "envoy", 0.40),
    goal("gRPC calls, CPU", "grpc", "cpu_us", "haproxy", 1.1),
    goal("gRPC streams, CPU", "grpc-stream", "cpu_us", "envoy", 0.40),
    goal("gRPC streams, CPU", "grpc-stream", "cpu_us", "haproxy", 1.1),
    goal(
        "opaque TCP, bulk, CPU",
        "tcp",
        "bulk_cpu_ms_per_gib",
        "envoy",
        0.30,
    ),
    goal(
        "opaque TCP, bulk, CPU",
        "tcp",
        "bulk_cpu_ms_per_gib",
        "haproxy",
        0.70,
    ),
    goal(
        "opaque TCP in mutual TLS, bulk, CPU",
        "tcp-mtls",
        "bulk_cpu_ms_per_gib",
        "envoy",
        0.80,
    ),
    goal(
        "HTTP/1.1 one hop, added p50",
        "http1",
        "added_rate_p50_us",
        "envoy",
        0.40,
    ),
    goal(
        "HTTP/1.1 one hop, added p50",
        "http1",
        "added_rate_p50_us",
        "haproxy",
        1.1,
    ),
    goal(
        "HTTP/1.1 one hop, added p99",
        "http1",
        "added_rate_p99_us",
        "envoy",
        0.40,
    ),
    goal(
        "HTTP/1.1 one hop, added p99",
        "http1",
        "added_rate_p99_us",
        "haproxy",
        1.1,
    ),
    goal(
        "memory idle, one listener",
        "idle-memory",
        "pss_idle_mib",
        "envoy",
        0.15,
    ),
    goal(
        "memory idle, one listener",
        "idle-memory",
        "pss_idle_mib",
        "haproxy",
        1.0,
    ),
    absolute(
        "memory idle, one listener, MiB",
        "idle-memory",
        "pss_idle_mib",
        10.0,
    ),
    absolute(
        "first answer after its start, ms",
        "idle-memory",
        "start_ms",
        100.0,
    ),
    goal(
        "memory, 1,000 services known, 10 used",
        "large",
        "pss_load_mib",
        "envoy",
        0.17,
    ),
    absolute(
        "memory, 1,000 services known, 10 used, MiB",
        "large",
        "pss_load_mib",
        25.0,
    ),
    absolute(
        "first request to an unused service, ms",
        "large",
        "unused_first_ms",
        100.0,
    ),
    absolute("an idle HTTP/1.1 connection, KiB", "held", "held_kib_each", 8.0),
    absolute("the same under TLS, KiB", "held-tls", "held_kib_each", 24.0),
    absolute(
        "sidecar's share of its Node application's CPU, the largest",
        "node",
        "sidecar_cpu_share",
        0.10,
    ),
];

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) goal: String,
    pub(crate) measured: Option<f64>,
    pub(crate) met: Option<bool>,
}

/// Every goal against these results.
pub(crate) fn judge(results: &[Value]) -> Vec<Line> {
    GOALS.iter().map(|goal| line(goal, results)).collect()
}

fn line(goal: &Goal, results: &[Value]) -> Line {
    let result = results.iter().find(|result| result["set"] == goal.set);
    let measured = result.and_then(|result| match goal.against {
        Against::Absolute => middle(result, "rajut", goal.key),
        Against::Peer(peer) => {
            let (ours, theirs) = rounds(result, "rajut", goal.key).zip(rounds(result, peer, goal.key))?;
            // Of one round: interleaved, so that what disturbed one disturbed the other.
            let ratios: Vec<f64> = ours
                .iter()
                .zip(&theirs)
                .filter(|(ours, theirs)| **ours > 0.0 && **theirs > 0.0)
                .map(|(ours, theirs)| ours / theirs)
                .collect();
            median(&ratios)
        }
    });
    Line {
        what: format!("{} (`{}`)", goal.what, goal.set),
        goal: match goal.against {
            Against::Absolute => format!("≤ {}", goal.most),
            Against::Peer(peer) => format!("≤ {:.2} of {peer}", goal.most),
        },
        measured,
        met: measured.map(|measured| measured <= goal.most),
    }
}

fn middle(result: &Value, peer: &str, key: &str) -> Option<f64> {
    let about = &result["peers"][peer];
    about["failed"]
        .is_null()
        .then(|| about["figures"][key]["median"].as_f64())?
}

fn rounds(result: &Value, peer: &str, key: &str) -> Option<Vec<f64>> {
    let about = &result["peers"][peer];
    let rounds = about["figures"][key]["rounds"].as_array()?;
    (about["failed"].is_null() && !rounds.is_empty())
        .then(|| rounds.iter().filter_map(Value::as_f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_goal_is_met_by_the_median_of_the_rounds_ratios() {
        let figure = |values: [f64; 3]| json!({ "figures": { "cpu_us": { "median": 0, "rounds": values } } });
        let results = [json!({ "set": "http1", "peers": {
            "rajut": figure([10.0, 30.0, 10.0]),
            "envoy": figure([50.0, 100.0, 20.0]),
            "haproxy": { "failed": "it ended", "figures": {} },
        } })];
        let lines = judge(&results);
        assert_eq!(
            (lines[0].measured, lines[0].met),
            (Some(0.3), Some(true)),
            "0.2, 0.3, 0.5"
        );
        assert_eq!(
            (lines[1].measured, lines[1].met),
            (None, None),
            "a peer that failed shows nothing"
        );
        assert_eq!(lines.len(), GOALS.len());
    }
}
