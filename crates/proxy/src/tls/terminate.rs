//! TLS of filter chains: the handshake and who the peer is.

use std::{fmt, io, rc::Rc, sync::Arc};

use rajut_platform::socket::TcpStream;
use rajut_types::Text;
use rustls::server::Acceptor;

use super::{ahead::Ahead, peer};
use crate::{connection::Peer, stream::Stream};

/// A server configuration for one filter chain, resolved against the secrets of one epoch.
#[derive(Clone)]
pub struct Terminator {
    config: Arc<rustls::ServerConfig>,
    /// For clients whose protocols are all unknown here: rustls would refuse them, Envoy goes on without a protocol, and
    /// a mesh certificate is welcome on an HTTP port whatever its client's ALPN.
    without_alpn: Arc<rustls::ServerConfig>,
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
        let mut without_alpn = rustls::ServerConfig::clone(&config);
        without_alpn.alpn_protocols.clear();
        Self {
            config,
            without_alpn: Arc::new(without_alpn),
            own_uri,
        }
    }

    /// The handshake; the caller bounds its time. The configuration's verifier has accepted whatever identity results.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Peer)> {
        let start = tokio_rustls::LazyConfigAcceptor::new(Acceptor::default(), Ahead::new(tcp)).await?;
        let known = match start.client_hello().alpn() {
            Some(mut offered) => {
                offered.any(|protocol| self.config.alpn_protocols.iter().any(|own| own == protocol))
            }
            None => true,
        };
        let config = if known { &self.config } else { &self.without_alpn };
        let tls = start.into_stream(config.clone()).await?;
        let peer = match tls.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Peer::Verified(Rc::new(peer::identity(certificate, &self.own_uri)?)),
            None => Peer::None,
        };
        Ok((Stream::Tls(Box::new(tls.into())), peer))
    }
}
