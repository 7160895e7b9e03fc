//! Istio's filter of standard metrics, of connection managers and of chains alike.
//!
//! Rejected: metrics of one's own, the reporter of shared gateways, values of labels beyond
//! [`TagValue`](rajut_types::tag::TagValue). Left out: changes of metrics that are not there.

use rajut_proto::{Any, stats as pb, type_url};
use rajut_types::tag::{TAG_VALUES, TagValue};

use super::{
    read::{Place, Reader},
    write,
};
use crate::stats::{IstioStats, Metric, MetricOverride, TCP_REPORTING, TCP_REPORTING_MIN};

/// The filter's name in Istio's configuration.
pub(super) const NAME: &str = "istio.stats";

pub(super) fn encode(stats: &IstioStats) -> Any {
    let config = pb::PluginConfig {
        disable_host_header_fallback: !stats.host_fallback,
        tcp_reporting_duration: (stats.tcp_reporting != TCP_REPORTING)
            .then(|| write::duration(stats.tcp_reporting)),
        metrics: stats.metrics.iter().map(encode_metric).collect(),
        ..Default::default()
    };
    write::any(type_url::ISTIO_STATS, &config)
}

fn encode_metric(over: &MetricOverride) -> pb::MetricConfig {
    pb::MetricConfig {
        dimensions: over
            .set
            .iter()
            .map(|(name, value)| (name.to_string(), value.expression()))
            .collect(),
        name: over
            .metric
            .map(|metric| metric.name().to_owned())
            .unwrap_or_default(),
        tags_to_remove: over.remove.iter().map(ToString::to_string).collect(),
        drop: over.drop,
        ..Default::default()
    }
}

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, config: &Any) -> Option<IstioStats> {
    let message: pb::PluginConfig = reader.unpack(place, config)?;
    let reporting = reader.duration(
        &place.field("tcp_reporting_duration"),
        message.tcp_reporting_duration.as_ref(),
    );
    let metrics = message.metrics.iter().enumerate();
    Some(IstioStats {
        host_fallback: !message.disable_host_header_fallback,
        tcp_reporting: reporting.unwrap_or(TCP_REPORTING).max(TCP_REPORTING_MIN),
        metrics: metrics
            .filter_map(|(at, metric)| decode_metric(reader, &place.item("metrics", at), metric))
            .collect(),
    })
}

fn decode_metric(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &pb::MetricConfig,
) -> Option<MetricOverride> {
    let metric = match &*message.name {
        "" => None,
        name => {
            let Some(metric) = Metric::named(name) else {
                reader.ignore(place.to_string(), "stats.MetricConfig");
                return None;
            };
            Some(metric)
        }
    };
    let mut set = Vec::with_capacity(message.dimensions.len());
    for (name, expression) in &message.dimensions {
        match TagValue::parse(expression) {
            Some(value) => set.push((name.as_str().into(), value)),
            None => reader.bad_text(&place.key("dimensions", name), expression, TAG_VALUES),
        }
    }
    Some(MetricOverride {
        metric,
        drop: message.drop,
        remove: message
            .tags_to_remove
            .iter()
            .map(|tag| tag.as_str().into())
            .collect(),
        set,
    })
}
