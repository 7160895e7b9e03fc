//! Istio `Telemetry`, its part about metrics.
//!
//! Rejected: values of labels that are not followed ([`TAG_VALUES`]). Degraded, with a warning at the place: tracing and
//! access logs, providers other than Prometheus, metrics that are not there.

use rajut_types::{
    Text,
    tag::{TAG_VALUES, TagValue},
};

use super::{
    meta::{self, NameForm},
    peer_authentication::match_labels,
};
use crate::{
    codes,
    model::{Ends, MetricChange, Telemetry},
    read::{Field, Object, shown},
};

/// The one provider of metrics that there is.
const PROMETHEUS: &str = "prometheus";

/// Istio's names of metrics, and theirs without `istio_`; empty is all, `None` is not there.
const METRICS: [(&str, Option<&str>); 11] = [
    ("ALL_METRICS", Some("")),
    ("REQUEST_COUNT", Some("requests_total")),
    ("REQUEST_DURATION", Some("request_duration_milliseconds")),
    ("REQUEST_SIZE", Some("request_bytes")),
    ("RESPONSE_SIZE", Some("response_bytes")),
    ("TCP_OPENED_CONNECTIONS", Some("tcp_connections_opened_total")),
    ("TCP_CLOSED_CONNECTIONS", Some("tcp_connections_closed_total")),
    ("TCP_SENT_BYTES", Some("tcp_sent_bytes_total")),
    ("TCP_RECEIVED_BYTES", Some("tcp_received_bytes_total")),
    ("GRPC_REQUEST_MESSAGES", None),
    ("GRPC_RESPONSE_MESSAGES", None),
];

pub(crate) fn read(root: &Object<'_>) -> Option<Telemetry> {
    let meta = meta::read(root, NameForm::Subdomain);
    let (mut selector, mut overrides, mut targeted) = (None, Vec::new(), false);
    if let Some(spec) = root.object("spec") {
        selector = spec.object("selector").and_then(|object| match_labels(&object));
        let targets = ["targetRef", "targetRefs"];
        spec.unsupported(&targets, "the object is not used");
        spec.unsupported(&["tracing"], "nothing of it is traced");
        spec.unsupported(
            &["accessLogging"],
            "access logs are those of `meshConfig.accessLogFile`",
        );
        for metrics in spec.list("metrics") {
            if let Some(metrics) = metrics.object() {
                read_metrics(&metrics, &mut overrides);
            }
        }
        targeted = targets.iter().any(|name| spec.has(name));
    }
    let meta = meta?;
    Some(Telemetry {
        name: meta.name,
        namespace: meta.namespace,
        selector,
        targeted,
        overrides,
        origin: root.field().origin(),
        age: meta.age,
    })
}

fn read_metrics(metrics: &Object<'_>, overrides: &mut Vec<MetricChange>) {
    metrics.unsupported(&["reportingInterval"], "open connections are reported every 15 s");
    let mut for_prometheus = true;
    for provider in metrics.list("providers") {
        let Some(provider) = provider.object() else {
            continue;
        };
        let Some(name) = provider.get("name") else {
            continue;
        };
        if name.text().is_some_and(|text| *text != *PROMETHEUS) {
            name.warn(
                codes::NOT_SUPPORTED,
                format!(
                    "the provider `{}` is not supported yet: metrics are there for Prometheus to fetch",
                    shown(&name.text().unwrap_or_default())
                ),
                "write `prometheus`",
            );
            for_prometheus = false;
        }
    }
    let all = metrics.list("overrides");
    let all = all.into_iter().filter_map(Field::object);
    let read: Vec<_> = all.filter_map(|over| read_override(&over)).collect();
    // What is meant for somebody else changes nothing here.
    if for_prometheus {
        overrides.extend(read);
    }
}

fn read_override(over: &Object<'_>) -> Option<MetricChange> {
    let (mut metric, mut ends, mut is_there) = (None, Ends::Both, true);
    if let Some(matches) = over.object("match") {
        matches.unsupported(&["customMetric"], "there are the standard metrics only");
        is_there &= !matches.has("customMetric");
        if let Some(field) = matches.get("metric") {
            match field.choice(&METRICS) {
                Some(Some("")) | None => {}
                Some(Some(name)) => metric = Some(name.into()),
                Some(None) => {
                    field.warn(
                        codes::NOT_SUPPORTED,
                        "messages of gRPC are not counted yet",
                        "leave the entry out",
                    );
                    is_there = false;
                }
            }
        }
        ends = matches
            .get("mode")
            .and_then(|field| {
                field.choice(&[
                    ("CLIENT_AND_SERVER", Ends::Both),
                    ("CLIENT", Ends::Client),
                    ("SERVER", Ends::Server),
                ])
            })
            .unwrap_or(Ends::Both);
    }
    let disabled = over.bool("disabled");
    let tags = over
        .get("tagOverrides")
        .map(|field| field.map())
        .unwrap_or_default();
    let tags = tags
        .into_iter()
        .filter_map(|(name, field)| read_tag(name, field))
        .collect();
    is_there.then_some(MetricChange {
        ends,
        metric,
        disabled,
        tags,
    })
}

/// A label and its value; `None` in its place takes the label out.
fn read_tag(name: Text, field: Field<'_>) -> Option<(Text, Option<TagValue>)> {
    let tag = field.object()?;
    let removes = tag
        .get("operation")
        .and_then(|field| field.choice(&[("UPSERT", false), ("REMOVE", true)]))
        .unwrap_or(false);
    let value = tag.get("value");
    if removes {
        if let Some(value) = value {
            value.error(
                codes::EXCLUSIVE,
                "a label that is removed has no value",
                "take one of the two out",
            );
        }
        return Some((name, None));
    }
    let Some(value) = value else {
        tag.required("value", "for example `value: request.host`");
        return None;
    };
    let text = value.text()?;
    let parsed = TagValue::parse(&text);
    if parsed.is_none() {
        value.error(
            codes::NOT_SUPPORTED,
            format!("the expression `{}` is not supported yet", shown(&text)),
            format!("write one of: {TAG_VALUES}"),
        );
    }
    parsed.map(|value| (name, Some(value)))
}
