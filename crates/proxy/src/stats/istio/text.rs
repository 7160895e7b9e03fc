//! Series as Prometheus reads them: labels, buckets, sums.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{PoisonError, atomic::Ordering},
};

use rajut_telemetry::{names, workload::Workload};
use rajut_types::Text;

use super::{BOUND_TEXTS, Context, Counts, Histogram, Key, Protocol, Reporter, Store};
use crate::stats::{escape_label, type_line};

/// What is not known.
const UNKNOWN: &str = "unknown";
/// The canonical revision of those that have none.
const LATEST: &str = "latest";

/// A histogram added up.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    buckets: [u64; 20],
    sum: u64,
}

impl Sums {
    fn take(&mut self, of: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&of.buckets) {
            *sum = sum.wrapping_add(bucket.load(Ordering::Relaxed));
        }
        self.sum = self.sum.wrapping_add(of.sum.load(Ordering::Relaxed));
    }

    fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, one| sum.wrapping_add(*one))
    }
}

/// The values of one set of labels.
#[derive(Debug, Default)]
struct Http {
    duration: Sums,
    request: Sums,
    response: Sums,
}

/// Opened, closed, sent, received.
type Tcp = [u64; 4];

impl Store {
    /// Appends all metrics. `open`: in the form of `OpenMetrics`.
    pub(crate) fn write(&self, out: &mut String, open: bool) {
        let mut http: BTreeMap<String, Http> = BTreeMap::new();
        let mut tcp: BTreeMap<String, Tcp> = BTreeMap::new();
        let own = self.own();
        for series in self.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = labels(&series.context, &series.key, &own);
            match &*series.counts {
                Counts::Http(counts) => {
                    let sums = http.entry(labels).or_default();
                    sums.duration.take(&counts.duration);
                    sums.request.take(&counts.request);
                    sums.response.take(&counts.response);
                }
                Counts::Tcp(counts) => {
                    let sums = tcp.entry(labels).or_default();
                    let counters = [&counts.opened, &counts.closed, &counts.sent, &counts.received];
                    for (sum, counter) in sums.iter_mut().zip(counters) {
                        *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
                    }
                }
            }
        }
        if !http.is_empty() {
            write_http(out, &http, open);
        }
        let counters = [
            names::ISTIO_TCP_OPENED,
            names::ISTIO_TCP_CLOSED,
            names::ISTIO_TCP_SENT,
            names::ISTIO_TCP_RECEIVED,
        ];
        for (place, name) in counters.into_iter().enumerate().filter(|_| !tcp.is_empty()) {
            type_line(out, name, "counter", open);
            for (labels, sums) in &tcp {
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{name}{{{labels}}} {}", sums[place]);
            }
        }
    }
}

/// Takes one histogram out of a request's.
type Of = fn(&Http) -> &Sums;

fn write_http(out: &mut String, all: &BTreeMap<String, Http>, open: bool) {
    let name = names::ISTIO_REQUESTS;
    type_line(out, name, "counter", open);
    for (labels, sums) in all {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}{{{labels}}} {}", sums.duration.count());
    }
    let histograms: [(&str, Of, u64); 3] = [
        (names::ISTIO_DURATION, |of| &of.duration, 1000),
        (names::ISTIO_REQUEST_BYTES, |of| &of.request, 1),
        (names::ISTIO_RESPONSE_BYTES, |of| &of.response, 1),
    ];
    for (name, of, unit) in histograms {
        type_line(out, name, "histogram", open);
        for (labels, sums) in all {
            write_histogram(out, (name, labels), of(sums), unit);
        }
    }
}

/// `unit`: what one of what is told is in what is counted.
fn write_histogram(out: &mut String, (name, labels): (&str, &str), sums: &Sums, unit: u64) {
    let mut so_far = 0_u64;
    for (bound, bucket) in BOUND_TEXTS.iter().zip(&sums.buckets) {
        so_far = so_far.wrapping_add(*bucket);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {so_far}");
    }
    let (whole, rest) = (sums.sum / unit, sums.sum % unit);
    let _ = match rest {
        0 => writeln!(out, "{name}_sum{{{labels}}} {whole}"),
        rest => writeln!(out, "{name}_sum{{{labels}}} {whole}.{rest:03}"),
    };
    let _ = writeln!(out, "{name}_count{{{labels}}} {so_far}");
}

/// The first that is not empty.
fn first<'a>(candidates: &[&'a str]) -> &'a str {
    candidates
        .iter()
        .copied()
        .find(|candidate| !candidate.is_empty())
        .unwrap_or(UNKNOWN)
}

/// The namespace of a SPIFFE identity; empty where it has none.
fn namespace_of(principal: &str) -> &str {
    principal
        .split_once("/ns/")
        .and_then(|(_, rest)| rest.split_once("/sa/"))
        .map_or("", |(namespace, _)| namespace)
}

/// One end of a call, with what its certificate proves before what it says of itself.
struct End {
    workload: Workload,
    principal: Text,
}

impl End {
    fn namespace(&self) -> &str {
        first(&[namespace_of(&self.principal), &self.workload.namespace])
    }
}

/// The service that was called: host, name, namespace.
fn service<'a>(
    context: &Context,
    told: &'a str,
    host: &'a str,
    destination: &'a End,
) -> (&'a str, &'a str, &'a str) {
    let mut fields = told.split(';');
    let mut next = || fields.next().unwrap_or_default();
    let (service, name, namespace) = (next(), next(), next());
    // A server that knows no service has at least its own name.
    let own: &str = match context.reporter {
        Reporter::Destination => &destination.workload.canonical_service,
        Reporter::Source => "",
    };
    let known_namespace = match context.reporter {
        Reporter::Destination => destination.namespace(),
        Reporter::Source => first(&[namespace, destination.namespace()]),
    };
    (
        first(&[service, host, own]),
        first(&[name, host, own]),
        known_namespace,
    )
}

/// The labels of a series in Istio's order, as they stand between braces.
fn labels(context: &Context, key: &Key, own: &Workload) -> String {
    let peer = End {
        workload: Workload::from_text(&key.peer.text()),
        principal: key.ends.peer.text(),
    };
    let own = End {
        workload: own.clone(),
        principal: key.ends.own.text(),
    };
    let is_secured = !peer.principal.is_empty() && !own.principal.is_empty();
    let (reporter, source, destination, security) = match context.reporter {
        Reporter::Source => ("source", &own, &peer, UNKNOWN),
        Reporter::Destination if is_secured => ("destination", &peer, &own, "mutual_tls"),
        Reporter::Destination => ("destination", &peer, &own, "none"),
    };
    let (told, host) = (key.service.text(), key.host.text());
    let service = service(context, &told, &host, destination);
    let mut out = String::with_capacity(1024);
    let mut push = |name: &str, value: &str| {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        escape_label(value, &mut out);
        out.push('"');
    };
    push(names::ISTIO_REPORTER, reporter);
    push_end(&mut push, &names::ISTIO_SOURCE, source);
    push_end(&mut push, &names::ISTIO_DESTINATION, destination);
    push(names::ISTIO_SERVICE, service.0);
    push(names::ISTIO_SERVICE_NAME, service.1);
    push(names::ISTIO_SERVICE_NAMESPACE, service.2);
    let protocol = match key.protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    };
    push(names::ISTIO_PROTOCOL, protocol);
    if key.protocol != Protocol::Tcp {
        push(names::ISTIO_CODE, &key.code.to_string());
        let grpc = key.grpc.map_or_else(String::new, |status| status.to_string());
        push(names::ISTIO_GRPC_STATUS, &grpc);
    }
    let mut flags = Vec::new();
    key.flags.write_short(&mut flags);
    push(names::ISTIO_FLAGS, &String::from_utf8_lossy(&flags));
    push(names::ISTIO_SECURITY, security);
    out
}

fn push_end(push: &mut impl FnMut(&str, &str), names: &[&str; 8], end: &End) {
    let workload = &end.workload;
    let values = [
        first(&[&workload.name]),
        end.namespace(),
        first(&[&end.principal]),
        first(&[&workload.app]),
        first(&[&workload.version]),
        first(&[&workload.cluster]),
        first(&[&workload.canonical_service]),
        first(&[&workload.canonical_revision, LATEST]),
    ];
    for (name, value) in names.iter().zip(values) {
        push(name, value);
    }
}
