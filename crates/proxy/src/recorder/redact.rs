//! From a request as it was to what is told of it: identifiers of the path and values of headers become digests.

use rajut_ir::matcher::Regex;
use rajut_telemetry::recording::{self, Digester, Header, KEY_BYTES, Kind, Tuple, bounded, has_digits};
use rajut_types::Text;
use rajut_xds::recording::Wanted;
use tokio::time::Instant;

use super::{Seen, Value};

/// How requests are told.
#[derive(Debug)]
pub(super) struct Redactor {
    digester: Digester,
    /// Empty: what has a digit is an identifier.
    identifiers: Vec<Regex>,
}

impl Redactor {
    /// As the control plane wants it; `None`: without a key, or with an expression that this proxy can't follow, nothing is told.
    pub(super) fn new(wanted: &Wanted) -> Option<Self> {
        if wanted.key.len() != KEY_BYTES {
            return None;
        }
        let compile = |source: &String| match Regex::new(source) {
            Ok(regex) => Some(regex),
            Err(error) => {
                tracing::warn!(%error, "nothing is recorded: what identifiers are can't be followed");
                None
            }
        };
        Some(Self {
            digester: Digester::new(&wanted.key),
            identifiers: wanted.identifiers.iter().map(compile).collect::<Option<_>>()?,
        })
    }

    fn is_identifier(&self, segment: &str) -> bool {
        if self.identifiers.is_empty() {
            return has_digits(segment);
        }
        self.identifiers
            .iter()
            .any(|regex| regex.is_full_match(segment.as_bytes()))
    }

    /// What is told.
    pub(super) fn tuple(&self, seen: Seen, time_of: impl Fn(Instant) -> u64) -> Tuple {
        let header = |(name, count, value): Value| Header {
            digest: value.map_or(0, |value| self.digester.digest(Kind::Header(&name), &value)),
            name,
            count,
        };
        let path = seen
            .path
            .and_then(|path| recording::redact(&path, &self.digester, |segment| self.is_identifier(segment)));
        Tuple {
            id: seen.id,
            time_ms: time_of(seen.start),
            namespace: Text::default(),
            workload: Text::default(),
            source: seen.source.unwrap_or_default(),
            tls: seen.tls,
            remote: Some(seen.remote),
            forwarded: seen.forwarded,
            local: Some(seen.local),
            server_name: bounded(seen.server_name.as_deref().unwrap_or_default()),
            listener: seen.listener,
            route: bounded(&seen.route),
            method: bounded(seen.method.as_str()),
            authority: bounded(&String::from_utf8_lossy(&seen.authority)),
            path,
            headers: seen.headers.into_iter().map(header).collect(),
            token: seen.token,
            refused: seen.refused,
            reason: bounded(&seen.reason),
            status: seen.status,
            received: seen.received,
            sent: seen.sent,
            micros: u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
