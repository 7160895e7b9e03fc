//! TLS towards upstreams.

use std::{fmt, io, sync::Arc};

use rajut_platform::socket::TcpStream;
use rajut_types::Text;
use rustls::pki_types::ServerName;

use super::ahead::Ahead;
use crate::stream::Stream;

/// A client configuration for one upstream TLS context, resolved against the secrets of one epoch.
#[derive(Clone)]
pub struct Originator {
    config: Arc<rustls::ClientConfig>,
    sni: Option<Box<str>>,
    auto_sni: bool,
    /// Who answers has shown a certificate of the mesh's own authority.
    verifies_mesh: bool,
    /// The identity of the certificate that is shown where one is asked for; may be empty.
    own_uri: Text,
}

impl fmt::Debug for Originator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Originator")
            .field("sni", &self.sni)
            .finish_non_exhaustive()
    }
}

impl Originator {
    /// A configuration and the server name that it sends; with `auto_sni` the request's host is sent instead.
    pub fn new(config: Arc<rustls::ClientConfig>, sni: Option<&str>, auto_sni: bool) -> Self {
        Self {
            config,
            sni: sni.map(Into::into),
            auto_sni,
            verifies_mesh: false,
            own_uri: Text::default(),
        }
    }

    /// Says that the configuration takes nobody but holders of a mesh identity.
    #[must_use]
    pub fn verifying_mesh(mut self, verifies_mesh: bool) -> Self {
        self.verifies_mesh = verifies_mesh;
        self
    }

    /// Says whose certificate is shown.
    #[must_use]
    pub fn showing(mut self, own_uri: Text) -> Self {
        self.own_uri = own_uri;
        self
    }

    /// Whose certificate is shown, may be empty.
    pub const fn own_uri(&self) -> &Text {
        &self.own_uri
    }

    /// Whether a peer, once the handshake is done, is known to be of the mesh.
    pub const fn verifies_mesh(&self) -> bool {
        self.verifies_mesh
    }

    /// The handshake on a connected socket. `host` is the request's host, for `auto_sni`; the caller bounds the time.
    pub async fn connect(&self, tcp: TcpStream, host: Option<&str>) -> io::Result<Stream> {
        let wanted = if self.auto_sni {
            host.or(self.sni.as_deref())
        } else {
            self.sni.as_deref()
        };
        let name = match wanted {
            // Istio's server names (`outbound_.8080_.v1_.host`) hold underscores, which rustls' type allows.
            Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
            None => ServerName::IpAddress(tcp.peer_addr()?.ip().into()),
        };
        let tls = tokio_rustls::TlsConnector::from(self.config.clone())
            .connect(name, Ahead::new(tcp))
            .await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }
}
