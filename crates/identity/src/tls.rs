//! rustls configurations inside the mesh: TLS 1.3 only, X25519MLKEM768 first (what is recorded today stays secret when
//! elliptic curves fall), no tickets and no session cache (a resumed session would skip the check of the peer), no early
//! data. Build one per identity and rule set, not per connection; both are cheap to clone by counting.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig, SupportedCipherSuite,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{
    store::Identity,
    verify::{PeerRules, PeerVerifier},
};

/// Bytes that rustls may buffer per connection and direction (`set_buffer_limit`): four full records.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Algorithms inside the mesh.
pub fn mesh_provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    let build = || {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ];
        provider
            .cipher_suites
            .retain(|suite| matches!(suite, SupportedCipherSuite::Tls13(_)));
        Arc::new(provider)
    };
    Arc::clone(PROVIDER.get_or_init(build))
}

/// The accepting side of a mesh connection. `strict` refuses clients without a certificate; otherwise they are `None`
/// peers (the control plane's own port, where a token may stand in).
pub fn mesh_server_config(
    identity: &Identity,
    rules: PeerRules,
    alpn: &[&str],
    strict: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = mesh_provider();
    let verifier = PeerVerifier::new(Arc::clone(&provider), Some(identity.roots.clone()), rules);
    let verifier = if strict { verifier } else { verifier.optional() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(OneCertificate(Arc::clone(identity.certified_key()))));
    forbid_resumption(&mut config);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The connecting side of a mesh connection.
pub fn mesh_client_config(
    identity: &Identity,
    rules: PeerRules,
    alpn: &[&str],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = mesh_provider();
    let verifier = PeerVerifier::new(Arc::clone(&provider), Some(identity.roots.clone()), rules);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
            identity.certified_key(),
        ))));
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

pub(crate) fn forbid_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}

/// Presents one certificate whatever the server name.
#[derive(Debug)]
pub(crate) struct OneCertificate(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
