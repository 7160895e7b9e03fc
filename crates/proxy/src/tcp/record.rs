//! The record of one opaque connection: what the lines of its access logs are made of.
//!
//! Made when the connection is over, for logs alone. What only requests have is missing in it.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use rajut_telemetry::format::{self, Section, Value, write_number};
use rajut_types::condition::{Attribute, Facts};

use super::serve::Reached;
use crate::{
    connection::{Connection, Peer},
    failure::{Failure, Flags},
    http::record::peer_value,
};

/// A connection that is over.
#[derive(Debug)]
pub(crate) struct Record<'c> {
    pub(crate) connection: &'c Connection,
    /// How far it got.
    pub(crate) reached: &'c Reached,
    /// Why it got no further, in Envoy's word.
    pub(crate) details: Option<&'c str>,
    /// What TLS or the system said to it.
    pub(crate) reason: Option<&'c str>,
    pub(crate) flags: Flags,
    pub(crate) upstream_local: Option<SocketAddr>,
    /// From the client.
    pub(crate) received: u64,
    /// To the client.
    pub(crate) sent: u64,
}

fn shown(out: &mut Vec<u8>, value: Option<impl std::fmt::Display>) -> bool {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    value.is_some_and(|value| write!(out, "{value}").is_ok())
}

impl<'c> Record<'c> {
    /// A connection of which no more is known.
    pub(crate) const fn of(connection: &'c Connection, reached: &'c Reached) -> Self {
        Self {
            connection,
            reached,
            details: None,
            reason: None,
            flags: Flags::NONE,
            upstream_local: None,
            received: 0,
            sent: 0,
        }
    }

    /// A connection that nobody serves.
    pub(crate) fn failed(connection: &'c Connection, reached: &'c Reached, failure: &'c Failure) -> Self {
        let spec = failure.spec();
        let details = failure.details.as_deref().unwrap_or(spec.details);
        Self {
            details: Some(details).filter(|text| !text.is_empty()),
            reason: failure.reason.as_deref(),
            flags: spec.flag,
            ..Self::of(connection, reached)
        }
    }
}

impl format::Record for Record<'_> {
    fn value(&self, value: Value, out: &mut Vec<u8>) -> bool {
        let connection = self.connection;
        match value {
            Value::ResponseCode => shown(out, Some(0)),
            Value::ResponseCodeDetails => shown(out, self.details),
            Value::ResponseFlags => {
                self.flags.write_short(out);
                true
            }
            Value::ResponseFlagsLong => {
                self.flags.write_long(out);
                true
            }
            Value::UpstreamTransportFailureReason => shown(out, self.reason),
            Value::BytesReceived | Value::UpstreamWireBytesSent => {
                write_number(self.received, out);
                true
            }
            Value::BytesSent | Value::UpstreamWireBytesReceived => {
                write_number(self.sent, out);
                true
            }
            Value::Duration => shown(out, Some(connection.opened.elapsed().as_millis())),
            Value::UpstreamCluster => shown(out, self.reached.cluster.as_ref().map(|it| it.name())),
            Value::UpstreamHost => shown(out, self.reached.host.as_ref().map(|host| &host.address)),
            Value::UpstreamLocalAddress => shown(out, self.upstream_local),
            Value::DownstreamLocalAddress => shown(out, Some(connection.local)),
            Value::DownstreamLocalAddressWithoutPort => shown(out, Some(connection.local.ip())),
            Value::DownstreamLocalPort => shown(out, Some(connection.local.port())),
            Value::DownstreamRemoteAddress | Value::DownstreamDirectRemoteAddress => {
                shown(out, Some(connection.remote))
            }
            Value::DownstreamRemoteAddressWithoutPort | Value::DownstreamDirectRemoteAddressWithoutPort => {
                shown(out, Some(connection.remote.ip()))
            }
            Value::DownstreamRemotePort => shown(out, Some(connection.remote.port())),
            Value::RequestedServerName => shown(out, connection.sni.as_ref()),
            Value::ConnectionId => shown(out, Some(connection.id)),
            Value::Hostname => shown(out, Some(rajut_platform::host::hostname())),
            value => peer_value(&connection.peer, value, out),
        }
    }

    fn header(&self, _: Section, _: &str, _: &mut Vec<u8>) -> bool {
        false
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "only a log that is written asks, and pays for the calendar"
    )]
    fn start(&self) -> SystemTime {
        SystemTime::now() - self.connection.opened.elapsed()
    }
}

impl Facts for Record<'_> {
    fn text(&self, attribute: &Attribute, out: &mut Vec<u8>) -> bool {
        let value = match attribute {
            Attribute::ResponseCodeDetails => Value::ResponseCodeDetails,
            Attribute::UpstreamAddress => Value::UpstreamHost,
            Attribute::ClusterName => Value::UpstreamCluster,
            Attribute::SourceAddress => Value::DownstreamRemoteAddress,
            Attribute::DestinationAddress => Value::DownstreamLocalAddress,
            Attribute::ConnectionServerName => Value::RequestedServerName,
            Attribute::ConnectionPeerUri => return self.connection.peer.first_uri(out),
            _ => return false,
        };
        format::Record::value(self, value, out)
    }

    fn number(&self, attribute: &Attribute) -> Option<i64> {
        match attribute {
            Attribute::ResponseFlags => Some(self.flags.envoy_bits().into()),
            Attribute::SourcePort => Some(self.connection.remote.port().into()),
            Attribute::DestinationPort => Some(self.connection.local.port().into()),
            _ => None,
        }
    }

    fn truth(&self, attribute: &Attribute) -> Option<bool> {
        let is_mtls = *attribute == Attribute::ConnectionMtls;
        is_mtls.then_some(matches!(self.connection.peer, Peer::Verified(_)))
    }

    fn duration(&self, attribute: &Attribute) -> Option<Duration> {
        (*attribute == Attribute::RequestDuration).then(|| self.connection.opened.elapsed())
    }
}

#[cfg(test)]
mod tests;
