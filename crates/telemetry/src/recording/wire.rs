//! Tuples to and from bytes: the same on the wire and on disk.

use prost::Message as _;
use rajut_proto::recorder as pb;
use rajut_types::Text;

use super::{HEADERS_MAX, Header, ISSUERS_MAX, PATH_MAX, TUPLE_BYTES_MAX, Token, Tuple, bounded};

/// Numbers of [`Token`].
const NONE: u32 = 1;
const REFUSED: u32 = 2;
const GOOD: u32 = 3;

impl Tuple {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (token, issuers) = match &self.token {
            Token::Unknown => (0, &[][..]),
            Token::None => (NONE, &[][..]),
            Token::Refused => (REFUSED, &[][..]),
            Token::Good(issuers) => (GOOD, &issuers[..]),
        };
        let header = |header: &Header| pb::Header {
            name: header.name.to_string(),
            count: header.count,
            digest: header.digest,
        };
        pb::Tuple {
            id: self.id,
            time_ms: self.time_ms,
            namespace: self.namespace.to_string(),
            workload: self.workload.to_string(),
            source: self.source.to_string(),
            tls: self.tls,
            remote: self.remote.map(|it| it.to_string()).unwrap_or_default(),
            forwarded: self.forwarded,
            local: self.local.map(|it| it.to_string()).unwrap_or_default(),
            server_name: self.server_name.to_string(),
            listener: self.listener.to_string(),
            route: self.route.to_string(),
            method: self.method.to_string(),
            authority: self.authority.to_string(),
            path: self.path.as_ref().map(ToString::to_string),
            headers: self.headers.iter().map(header).collect(),
            token,
            issuers: issuers.iter().map(ToString::to_string).collect(),
            refused: self.refused,
            reason: self.reason.to_string(),
            status: self.status.into(),
            received: self.received,
            sent: self.sent,
            micros: self.micros,
        }
        .encode_to_vec()
    }

    /// From bytes, held to the bounds; `None`: they are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let within = bytes.len() <= TUPLE_BYTES_MAX;
        let tuple = pb::Tuple::decode(bytes).ok().filter(|_| within)?;
        let issuers = tuple.issuers.iter().take(ISSUERS_MAX);
        let header = |header: &pb::Header| Header {
            name: bounded(&header.name),
            count: header.count,
            digest: header.digest,
        };
        Some(Self {
            id: tuple.id,
            time_ms: tuple.time_ms,
            namespace: bounded(&tuple.namespace),
            workload: bounded(&tuple.workload),
            source: bounded(&tuple.source),
            tls: tuple.tls,
            remote: tuple.remote.parse().ok(),
            forwarded: tuple.forwarded,
            local: tuple.local.parse().ok(),
            server_name: bounded(&tuple.server_name),
            listener: bounded(&tuple.listener),
            route: bounded(&tuple.route),
            method: bounded(&tuple.method),
            authority: bounded(&tuple.authority),
            path: tuple.path.and_then(|path| path_of(&path)),
            headers: tuple.headers.iter().take(HEADERS_MAX).map(header).collect(),
            token: match tuple.token {
                NONE => Token::None,
                REFUSED => Token::Refused,
                GOOD => Token::Good(issuers.map(|it| bounded(it)).collect()),
                _ => Token::Unknown,
            },
            refused: tuple.refused,
            reason: bounded(&tuple.reason),
            status: u16::try_from(tuple.status).unwrap_or_default(),
            received: tuple.received,
            sent: tuple.sent,
            micros: tuple.micros,
        })
    }
}

/// Digests are longer than what they stand for: a path of single digits grows to ten times its length.
fn path_of(path: &str) -> Option<Text> {
    let is_path = path.len() <= 10 * PATH_MAX && path.bytes().all(|byte| byte.is_ascii_graphic());
    is_path.then(|| path.into())
}
