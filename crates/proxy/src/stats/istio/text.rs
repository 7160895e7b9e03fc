//! Series as Prometheus reads them: labels, buckets, sums.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write as _,
    sync::{PoisonError, atomic::Ordering},
};

use rajut_ir::stats::{Metric, MetricOverride};
use rajut_telemetry::{
    load::{BOUND_TEXTS, BUCKETS},
    names,
    workload::Workload,
};
use rajut_types::{Text, tag::TagValue};

use super::{Context, Counts, Histogram, Key, Protocol, Reporter, SEPARATOR, Store};
use crate::stats::{escape_label, type_line};

/// What is not known.
const UNKNOWN: &str = "unknown";
/// The canonical revision of those that have none.
const LATEST: &str = "latest";

/// A histogram added up.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Sums {
    fn take(&mut self, of: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&of.buckets) {
            *sum = sum.wrapping_add(bucket.load(Ordering::Relaxed));
        }
        self.sum = self.sum.wrapping_add(of.sum.load(Ordering::Relaxed));
    }

    fn add(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.wrapping_add(*bucket);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, one| sum.wrapping_add(*one))
    }
}

/// What a series has of a metric.
fn value(metric: Metric, protocol: Protocol, counts: &Counts) -> Option<Sums> {
    let mut sums = Sums::default();
    match (metric, counts) {
        (Metric::RequestMessages, Counts::Http(counts)) if protocol == Protocol::Grpc => {
            sums.sum = counts.request_messages.load(Ordering::Relaxed);
        }
        (Metric::ResponseMessages, Counts::Http(counts)) if protocol == Protocol::Grpc => {
            sums.sum = counts.response_messages.load(Ordering::Relaxed);
        }
        (Metric::Requests | Metric::Duration, Counts::Http(counts)) => sums.take(&counts.duration),
        (Metric::RequestBytes, Counts::Http(counts)) => sums.take(&counts.request),
        (Metric::ResponseBytes, Counts::Http(counts)) => sums.take(&counts.response),
        (Metric::TcpOpened, Counts::Tcp(counts)) => sums.sum = counts.opened.load(Ordering::Relaxed),
        (Metric::TcpClosed, Counts::Tcp(counts)) => sums.sum = counts.closed.load(Ordering::Relaxed),
        (Metric::TcpSent, Counts::Tcp(counts)) => sums.sum = counts.sent.load(Ordering::Relaxed),
        (Metric::TcpReceived, Counts::Tcp(counts)) => sums.sum = counts.received.load(Ordering::Relaxed),
        _ => return None,
    }
    Some(sums)
}

/// A metric's name and whether it is a histogram: what one of what is told is in what is counted.
fn shape(metric: Metric) -> (&'static str, Option<u64>) {
    match metric {
        Metric::Requests => (names::ISTIO_REQUESTS, None),
        Metric::Duration => (names::ISTIO_DURATION, Some(1000)),
        Metric::RequestBytes => (names::ISTIO_REQUEST_BYTES, Some(1)),
        Metric::ResponseBytes => (names::ISTIO_RESPONSE_BYTES, Some(1)),
        Metric::RequestMessages => (names::ISTIO_REQUEST_MESSAGES, None),
        Metric::ResponseMessages => (names::ISTIO_RESPONSE_MESSAGES, None),
        Metric::TcpOpened => (names::ISTIO_TCP_OPENED, None),
        Metric::TcpClosed => (names::ISTIO_TCP_CLOSED, None),
        Metric::TcpSent => (names::ISTIO_TCP_SENT, None),
        Metric::TcpReceived => (names::ISTIO_TCP_RECEIVED, None),
    }
}

impl Store {
    /// Appends all metrics. `open`: in the form of `OpenMetrics`.
    pub(crate) fn write(&self, out: &mut String, open: bool) {
        let own = self.own();
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = series
            .iter()
            .map(|series| (labels(&series.context, &series.key, &own), series))
            .collect();
        for metric in Metric::ALL {
            let mut told: BTreeMap<String, Sums> = BTreeMap::new();
            for (labels, series) in &all {
                if let Some(value) = value(metric, series.key.protocol, &series.counts)
                    && let Some(labels) = changed(labels, metric, &series.context, &series.key)
                {
                    told.entry(written(&labels)).or_default().add(&value);
                }
            }
            write_metric(out, metric, &told, open);
        }
    }
}

fn write_metric(out: &mut String, metric: Metric, told: &BTreeMap<String, Sums>, open: bool) {
    if told.is_empty() {
        return;
    }
    let (name, unit) = shape(metric);
    type_line(
        out,
        name,
        if unit.is_some() { "histogram" } else { "counter" },
        open,
    );
    for (labels, sums) in told {
        let value = match (unit, metric) {
            (Some(unit), _) => {
                write_histogram(out, (name, labels), sums, unit);
                continue;
            }
            (None, Metric::Requests) => sums.count(),
            (None, _) => sums.sum,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    }
}

/// Labels as they stand in a series: name and value.
type Labels = Vec<(Text, Text)>;

/// The labels of a metric, as its configuration changes them; `None` where it is not told.
fn changed<'l>(labels: &'l Labels, metric: Metric, context: &Context, key: &Key) -> Option<Cow<'l, Labels>> {
    let mut labels = Cow::Borrowed(labels);
    let of_it = |over: &&MetricOverride| over.metric.is_none_or(|only| only == metric);
    for over in context.ir.metrics.iter().filter(of_it) {
        if over.drop {
            return None;
        }
        let own = labels.to_mut();
        own.retain(|(name, _)| !over.remove.contains(name));
        for (name, value) in &over.set {
            let value = attribute(value, context, key);
            match own.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => own.push((name.clone(), value)),
            }
        }
    }
    Some(labels)
}

/// What an expression gave for a series.
fn attribute(value: &TagValue, context: &Context, key: &Key) -> Text {
    if let TagValue::Literal(text) = value {
        return text.clone();
    }
    let place = context.attributes.iter().position(|known| known == value);
    let told = key.extra.text();
    let told = place.and_then(|place| told.split(SEPARATOR).nth(place));
    first(&[told.unwrap_or_default()]).into()
}

/// Labels as they stand between braces. A name that is none is left out: it would end a reader's input.
fn written(labels: &Labels) -> String {
    let mut out = String::with_capacity(1024);
    let is_name = |name: &str| {
        !name.starts_with(|first: char| first.is_ascii_digit())
            && !["", "le"].contains(&name)
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    for (name, value) in labels.iter().filter(|(name, _)| is_name(name)) {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        escape_label(value, &mut out);
        out.push('"');
    }
    out
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

/// The standard labels of a series in Istio's order.
fn labels(context: &Context, key: &Key, own: &Workload) -> Labels {
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
    let mut out: Labels = Vec::with_capacity(26);
    let mut push = |name: &str, value: &str| out.push((name.into(), value.into()));
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
