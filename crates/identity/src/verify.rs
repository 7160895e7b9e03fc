//! Who the peer is. One verifier for both directions: the chain must lead to the bundle, and the leaf must carry the names
//! that the [`PeerRules`] ask for.
//!
//! Rejects (each with a certificate alert): no or several URI names, a URI that is no mesh principal, a foreign trust
//! domain, a name outside the expected ones, an unknown issuer, an expired or not yet valid certificate, a certificate
//! whose extended key usage does not fit, a certificate that is on one of the bundle's revocation lists.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rajut_ir::tls::{CertificatePin, SanKind, SanMatcher};
use rajut_types::{Principal, TrustDomain};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage, RevocationOptions};

use crate::{
    certificate::Facts,
    trust::{TrustBundle, base64},
};

/// What is asked of a peer beyond its chain.
#[derive(Debug, Clone, Default)]
pub struct PeerRules {
    /// The peer must be a mesh principal of one of these trust domains; empty asks for no principal at all.
    pub trust_domains: Vec<TrustDomain>,
    /// One of the peer's names must match one of these; empty asks nothing.
    pub names: Vec<SanMatcher>,
    /// The certificate must be one of these; empty asks nothing.
    pub pins: Vec<CertificatePin>,
    /// The certificate must be valid for the dialled server name (client side only).
    pub check_server_name: bool,
}

impl PeerRules {
    /// Any principal of these trust domains.
    pub fn mesh(trust_domains: impl IntoIterator<Item = TrustDomain>) -> Self {
        Self {
            trust_domains: trust_domains.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Adds expected names.
    #[must_use]
    pub fn with_names(mut self, names: Vec<SanMatcher>) -> Self {
        self.names = names;
        self
    }
}

/// Why a chain that verified is refused all the same; travels inside rustls's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// The certificate can't be read or is no mesh certificate.
    #[error(transparent)]
    Certificate(#[from] crate::certificate::InvalidCertificate),
    /// Another mesh's.
    #[error("{principal} belongs to trust domain {found}, which is not accepted here")]
    TrustDomain {
        /// The peer.
        principal: Principal,
        /// Its trust domain.
        found: TrustDomain,
    },
    /// None of the pinned certificates.
    #[error("the certificate is none of the {pins} pinned ones")]
    Pin {
        /// How many are.
        pins: usize,
    },
    /// None of the expected names.
    #[error("the peer is {found}, which is none of the expected names ({expected})")]
    Name {
        /// The peer's names.
        found: String,
        /// How many were accepted, and the first of them.
        expected: String,
    },
}

/// The principal of a peer that has passed a mesh verifier.
pub fn principal_of(chain: &[CertificateDer<'_>]) -> Option<Principal> {
    Facts::parse(chain.first()?).ok()?.principal().ok()
}

/// Whether a certificate leads to one of these roots, at the moment from which it is valid.
pub fn leads_to(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &TrustBundle,
) -> bool {
    let Ok(facts) = Facts::parse(leaf) else {
        return false;
    };
    let since_epoch = facts.not_before.duration_since(std::time::UNIX_EPOCH);
    let then = UnixTime::since_unix_epoch(since_epoch.unwrap_or_default());
    let verifier = PeerVerifier::new(
        crate::tls::mesh_provider(),
        Some(roots.clone()),
        PeerRules::default(),
    );
    verifier
        .judge(leaf, intermediates, then, KeyUsage::client_auth(), None)
        .is_ok()
}

/// Judges peers. The chain part is webpki's, the names are ours.
pub struct PeerVerifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any chain is taken (`accept_untrusted`, or no validation at all).
    roots: Option<TrustBundle>,
    rules: PeerRules,
    subjects: Vec<DistinguishedName>,
    /// A client without a certificate is refused.
    mandatory: bool,
}

impl PeerVerifier {
    /// A verifier; `roots` of `None` takes any chain, the rules still hold.
    pub fn new(provider: Arc<CryptoProvider>, roots: Option<TrustBundle>, rules: PeerRules) -> Self {
        let subjects = roots.as_ref().map(|roots| roots.anchors().subjects());
        Self {
            provider,
            roots,
            rules,
            subjects: subjects.unwrap_or_default(),
            mandatory: true,
        }
    }

    /// Lets clients without a certificate pass (PERMISSIVE and `require_client_certificate: false`).
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.mandatory = false;
        self
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        server_name: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        if let Some(roots) = &self.roots {
            let verify = |revoked: Option<RevocationOptions<'_>>| {
                let algorithms = self.provider.signature_verification_algorithms.all;
                let anchors = &roots.anchors().roots;
                certificate
                    .verify_for_usage(algorithms, anchors, intermediates, now, usage, revoked, None)
                    .map(drop)
            };
            match roots.revoked() {
                Some(revoked) => revoked.judge(verify),
                None => verify(None),
            }
            .map_err(chain_error)?;
        }
        if self.rules.check_server_name
            && let Some(name) = server_name
        {
            certificate
                .verify_is_valid_for_subject_name(name)
                .map_err(|_| CertificateError::NotValidForName)?;
        }
        let pinned = self.judge_pins(leaf, &certificate);
        pinned.and_then(|()| self.judge_names(leaf)).map_err(|refused| {
            tracing::debug!(reason = %refused, "peer refused");
            CertificateError::Other(OtherError(Arc::new(refused))).into()
        })
    }

    fn judge_pins(
        &self,
        leaf: &CertificateDer<'_>,
        certificate: &EndEntityCert<'_>,
    ) -> Result<(), PeerRefused> {
        let pins = &self.rules.pins;
        if pins.is_empty() {
            return Ok(());
        }
        let digest = |bytes: &[u8]| digest(&SHA256, bytes);
        let is_it = |pin: &CertificatePin| match pin {
            CertificatePin::Key(text) => {
                let key = certificate.subject_public_key_info();
                base64(digest(key.as_ref()).as_ref()) == **text
            }
            CertificatePin::Certificate(text) => {
                let hash = digest(leaf.as_ref());
                let bytes = hash.as_ref().iter();
                let digits = bytes.flat_map(|byte| [byte >> 4, byte & 15]);
                // Lower case, as the pin is.
                let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
                digits.eq(text.chars())
            }
        };
        if pins.iter().any(is_it) {
            return Ok(());
        }
        Err(PeerRefused::Pin { pins: pins.len() })
    }

    fn judge_names(&self, leaf: &CertificateDer<'_>) -> Result<(), PeerRefused> {
        let PeerRules {
            trust_domains,
            names,
            pins: _,
            check_server_name: _,
        } = &self.rules;
        if trust_domains.is_empty() && names.is_empty() {
            return Ok(());
        }
        let facts = Facts::parse(leaf)?;
        if !trust_domains.is_empty() {
            let principal = facts.principal()?;
            if !trust_domains.contains(principal.trust_domain()) {
                let found = principal.trust_domain().clone();
                return Err(PeerRefused::TrustDomain { principal, found });
            }
        }
        if names.is_empty() || names.iter().any(|wanted| matches(wanted, &facts)) {
            return Ok(());
        }
        let found: Vec<&str> = facts.uris.iter().chain(&facts.dns).map(String::as_str).collect();
        Err(PeerRefused::Name {
            found: found.join(", "),
            expected: format!(
                "{}: {:?}",
                names.len(),
                names.first().map(|name| &name.matcher.pattern)
            ),
        })
    }
}

fn matches(wanted: &SanMatcher, facts: &Facts) -> bool {
    let text = |name: &String| wanted.matcher.matches(name.as_bytes());
    let ip = || {
        facts
            .ips
            .iter()
            .any(|ip| wanted.matcher.matches(ip.to_string().as_bytes()))
    };
    match wanted.kind {
        SanKind::Uri => facts.uris.iter().any(text),
        SanKind::Dns => facts.dns.iter().any(text),
        SanKind::Ip => ip(),
        SanKind::Any => facts.uris.iter().chain(&facts.dns).any(text) || ip(),
    }
}

fn chain_error(error: webpki::Error) -> Error {
    let reason = match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    reason.into()
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("roots", &self.roots)
            .field("rules", &self.rules)
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(
            end_entity,
            intermediates,
            now,
            KeyUsage::server_auth(),
            Some(server_name),
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now, KeyUsage::client_auth(), None)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
