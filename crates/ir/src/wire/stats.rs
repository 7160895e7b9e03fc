//! Istio's filter of standard metrics, of connection managers and of chains alike.
//!
//! Rejected: metrics of one's own, the reporter of shared gateways.

use rajut_proto::{Any, stats as pb, type_url};

use super::{
    read::{Place, Reader},
    write,
};
use crate::stats::{IstioStats, TCP_REPORTING, TCP_REPORTING_MIN};

/// The filter's name in Istio's configuration.
pub(super) const NAME: &str = "istio.stats";

pub(super) fn encode(stats: &IstioStats) -> Any {
    let config = pb::PluginConfig {
        disable_host_header_fallback: !stats.host_fallback,
        tcp_reporting_duration: (stats.tcp_reporting != TCP_REPORTING)
            .then(|| write::duration(stats.tcp_reporting)),
        ..Default::default()
    };
    write::any(type_url::ISTIO_STATS, &config)
}

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, config: &Any) -> Option<IstioStats> {
    let message: pb::PluginConfig = reader.unpack(place, config)?;
    let reporting = reader.duration(
        &place.field("tcp_reporting_duration"),
        message.tcp_reporting_duration.as_ref(),
    );
    Some(IstioStats {
        host_fallback: !message.disable_host_header_fallback,
        tcp_reporting: reporting.unwrap_or(TCP_REPORTING).max(TCP_REPORTING_MIN),
    })
}
