//! What is known of a downstream connection once its filter chain is chosen. Step 1 to 3 of walk one fill it.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use rajut_ir::listener::{Direction, FilterChain};
use rajut_types::Text;

use crate::stats::{istio::Ends, texts::TextId};

/// A downstream connection. Shared by its streams.
#[derive(Debug)]
pub struct Connection {
    /// Unique in the process (worker number in the upper bits).
    pub id: u64,
    /// Name of the listener whose chain serves it.
    pub listener: Text,
    /// That chain as it was then; `None`: it is the default one.
    pub chain: Option<Arc<FilterChain>>,
    /// Whose traffic that listener takes.
    pub direction: Direction,
    /// The address that the client dialled (before redirection).
    pub local: SocketAddr,
    /// The client's address.
    pub remote: SocketAddr,
    /// The server name of its TLS client hello.
    pub sni: Option<Text>,
    /// Who the peer is; decided before any filter runs.
    pub peer: Peer,
    /// The certificate that the peer has shown, where somebody is to see it.
    pub certificate: Option<bytes::Bytes>,
    /// The configuration by which it was let in.
    pub version: u64,
    /// When it was accepted.
    pub opened: Instant,
}

/// The identity of a downstream peer.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Plaintext, or TLS without a client certificate.
    None,
    /// mTLS with a certificate that the validation context accepted.
    Verified(Rc<PeerIdentity>),
}

impl Peer {
    /// Who the two ends have proven to be, for metrics.
    pub(crate) fn ends(&self) -> Ends {
        match self {
            Self::None => Ends::default(),
            Self::Verified(identity) => Ends {
                peer: identity
                    .uris
                    .first()
                    .map(|uri| TextId::of(uri))
                    .unwrap_or_default(),
                own: TextId::of(&identity.own_uri),
            },
        }
    }
}

impl Peer {
    /// Appends the identity that its certificate proves; `false` where there is none.
    pub(crate) fn first_uri(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Verified(identity) => identity.uris.first().is_some_and(|uri| {
                out.extend_from_slice(uri.as_bytes());
                true
            }),
            Self::None => false,
        }
    }
}

/// What a verified certificate says, and what `x-forwarded-client-cert` tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// URI SANs; the first is the SPIFFE identity.
    pub uris: Vec<Text>,
    /// DNS SANs.
    pub dns_names: Vec<Text>,
    /// Subject as RFC 4514 text.
    pub subject: Text,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: Text,
    /// Its serial number, lower-case hex.
    pub serial: Text,
    /// URI SAN of the own certificate that was shown (`By=`).
    pub own_uri: Text,
}
