//! Istio `Telemetry`: metrics, access logs, traces.
//!
//! Rejected: values of labels that are not followed ([`TAG_VALUES`]), filters that [`Condition`] does not read. Degraded,
//! with a warning at the place: providers of metrics other than Prometheus, metrics that are not there, attributes of spans
//! from the environment and from formats.

use rajut_types::{
    Text,
    condition::Condition,
    tag::{TAG_VALUES, TagValue},
};

use super::{
    meta::{self, NameForm},
    peer_authentication::match_labels,
};
use crate::{
    codes,
    model::{Ends, LogRule, MetricChange, SpanTag, Telemetry, TraceRule},
    read::{Field, Object, shown},
};

/// The one provider of metrics that there is.
const PROMETHEUS: &str = "prometheus";

/// Istio's names of metrics, and theirs without `istio_`; empty is all.
const METRICS: [(&str, &str); 11] = [
    ("ALL_METRICS", ""),
    ("REQUEST_COUNT", "requests_total"),
    ("REQUEST_DURATION", "request_duration_milliseconds"),
    ("REQUEST_SIZE", "request_bytes"),
    ("RESPONSE_SIZE", "response_bytes"),
    ("TCP_OPENED_CONNECTIONS", "tcp_connections_opened_total"),
    ("TCP_CLOSED_CONNECTIONS", "tcp_connections_closed_total"),
    ("TCP_SENT_BYTES", "tcp_sent_bytes_total"),
    ("TCP_RECEIVED_BYTES", "tcp_received_bytes_total"),
    ("GRPC_REQUEST_MESSAGES", "request_messages_total"),
    ("GRPC_RESPONSE_MESSAGES", "response_messages_total"),
];

pub(crate) fn read(root: &Object<'_>) -> Option<Telemetry> {
    let meta = meta::read(root, NameForm::Subdomain);
    let (mut selector, mut overrides, mut targeted) = (None, Vec::new(), false);
    let (mut logging, mut tracing) = (Vec::new(), Vec::new());
    if let Some(spec) = root.object("spec") {
        selector = spec.object("selector").and_then(|object| match_labels(&object));
        let targets = ["targetRef", "targetRefs"];
        spec.unsupported(&targets, "the object is not used");
        let items = |name| spec.list(name).into_iter().filter_map(Field::object);
        logging.extend(items("accessLogging").map(|log| read_logging(&log)));
        tracing.extend(items("tracing").map(|trace| read_tracing(&trace)));
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
        logging,
        tracing,
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
        for_prometheus &= only_prometheus(&name);
    }
    let all = metrics.list("overrides");
    let all = all.into_iter().filter_map(Field::object);
    let read: Vec<_> = all.filter_map(|over| read_override(&over)).collect();
    // What is meant for somebody else changes nothing here.
    if for_prometheus {
        overrides.extend(read);
    }
}

/// Whether a provider of metrics is the one that there is; says so where it is not.
pub(super) fn only_prometheus(name: &Field<'_>) -> bool {
    let is_other = name.text().is_some_and(|text| *text != *PROMETHEUS);
    if is_other {
        name.warn(
            codes::NOT_SUPPORTED,
            format!(
                "the provider `{}` is not supported yet: metrics are there for Prometheus to fetch",
                shown(&name.text().unwrap_or_default())
            ),
            "write `prometheus`",
        );
    }
    !is_other
}

/// `match.mode`.
fn read_ends(owner: &Object<'_>) -> Ends {
    let mode = owner.object("match").and_then(|matches| {
        matches.get("mode")?.choice(&[
            ("CLIENT_AND_SERVER", Ends::Both),
            ("CLIENT", Ends::Client),
            ("SERVER", Ends::Server),
        ])
    });
    mode.unwrap_or(Ends::Both)
}

fn read_providers(owner: &Object<'_>) -> Vec<Text> {
    let providers = owner.list("providers").into_iter().filter_map(Field::object);
    providers
        .filter_map(|provider| provider.required("name", "")?.non_empty_text())
        .collect()
}

fn read_logging(log: &Object<'_>) -> LogRule {
    let filter = log.object("filter").and_then(|filter| {
        let field = filter.required("expression", "for example `response.code >= 400`")?;
        match Condition::parse(&field.text()?) {
            Ok(condition) => Some(condition),
            Err(error) => {
                field.error(
                    codes::NOT_SUPPORTED,
                    format!("the expression is not supported yet: {}", shown(&error.to_string())),
                    "write comparisons of request.*, response.*, connection.mtls, source.*, destination.*, combined with \
                     &&, || and !",
                );
                None
            }
        }
    });
    LogRule {
        ends: read_ends(log),
        providers: read_providers(log),
        disabled: log.bool("disabled").unwrap_or(false),
        filter,
        origin: log.field().origin(),
    }
}

fn read_tracing(trace: &Object<'_>) -> TraceRule {
    trace.unsupported(
        &["disableContextPropagation"],
        "headers of traces are sent on as they are where nothing is traced",
    );
    let providers = read_providers(trace);
    if let Some(second) = trace.list("providers").get(1) {
        second.warn(
            codes::NO_EFFECT,
            "spans go to one provider: the first",
            "keep one provider",
        );
    }
    if let Some(field) = trace.get("useRequestIdForTraceSampling")
        && field.bool() == Some(false)
    {
        field.warn(
            codes::NOT_SUPPORTED,
            "`useRequestIdForTraceSampling: false` is not supported yet: `x-request-id` carries the decision",
            "take it out",
        );
    }
    let sampling = trace.get("randomSamplingPercentage");
    TraceRule {
        ends: read_ends(trace),
        provider: providers.into_iter().next(),
        sampling: sampling.and_then(|field| field.percent()),
        disabled: trace.bool("disableSpanReporting"),
        tags: trace
            .get("customTags")
            .map(|field| read_tags(&field))
            .unwrap_or_default(),
        has_istio_tags: trace.bool("enableIstioTags"),
        origin: trace.field().origin(),
    }
}

/// Attributes of spans, in the order of their names.
pub(super) fn read_tags(field: &Field<'_>) -> Vec<(Text, SpanTag)> {
    let mut tags: Vec<_> = field
        .map()
        .into_iter()
        .filter_map(|(name, field)| Some((name, read_span_tag(field)?)))
        .collect();
    tags.sort_by(|(a, _), (b, _)| a.cmp(b));
    tags
}

fn read_span_tag(field: Field<'_>) -> Option<SpanTag> {
    let tag = field.object()?;
    tag.unsupported(&["formatter", "environment"], "the attribute is left out");
    tag.one_of(&["literal", "environment", "header", "formatter"]);
    let named = |object: &Object<'_>| {
        let name = object.required("name", "")?.non_empty_text()?;
        Some((name, object.text("defaultValue").unwrap_or_default()))
    };
    if let Some(literal) = tag.object("literal") {
        return Some(SpanTag::Literal(literal.required("value", "")?.non_empty_text()?));
    }
    if let Some(header) = tag.object("header") {
        let (name, default) = named(&header)?;
        let name = name.to_ascii_lowercase().into();
        return Some(SpanTag::Header { name, default });
    }
    if !tag.has("formatter") && !tag.has("environment") {
        tag.required("literal", "or `header`: the attribute's value");
    }
    None
}

fn read_override(over: &Object<'_>) -> Option<MetricChange> {
    let (mut metric, mut ends, mut is_there) = (None, Ends::Both, true);
    if let Some(matches) = over.object("match") {
        matches.unsupported(&["customMetric"], "there are the standard metrics only");
        is_there &= !matches.has("customMetric");
        if let Some(field) = matches.get("metric") {
            metric = field
                .choice(&METRICS)
                .filter(|name| !name.is_empty())
                .map(Into::into);
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
