//! TLS of filter chains: the handshake and who the peer is.

use std::{fmt, io, rc::Rc, sync::Arc};

use rajut_platform::socket::TcpStream;
use rajut_types::Text;

use super::peer;
use crate::{connection::Peer, stream::Stream};

/// A server configuration for one filter chain, resolved against the secrets of one epoch.
#[derive(Clone)]
pub struct Terminator {
    config: Arc<rustls::ServerConfig>,
    own_uri: Text,
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminator")
            .field("own_uri", &self.own_uri)
            .finish_non_exhaustive()
    }
}

impl Terminator {
    /// A configuration and the URI SAN of the certificate that it shows (`By=` of `x-forwarded-client-cert`).
    pub fn new(config: Arc<rustls::ServerConfig>, own_uri: Text) -> Self {
        Self { config, own_uri }
    }

    /// The handshake; the caller bounds its time. The configuration's verifier has accepted whatever identity results.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Peer)> {
        let tls = tokio_rustls::TlsAcceptor::from(self.config.clone())
            .accept(tcp)
            .await?;
        let peer = match tls.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Peer::Verified(Rc::new(peer::identity(certificate, &self.own_uri)?)),
            None => Peer::None,
        };
        Ok((Stream::Tls(Box::new(tls.into())), peer))
    }
}
