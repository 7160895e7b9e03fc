//! rustls configurations from `ir`'s TLS contexts: egress (`SIMPLE`, `MUTUAL`, `ISTIO_MUTUAL`), gateways, foreign
//! bootstraps. Secrets come by SDS name, in place, or from files that are read when the configuration is built.
//!
//! SDS names with a meaning of their own, as in Istio: `default` (the workload's identity), `ROOTCA` (its trust bundle),
//! `file-root:PATH`, `file-cert:CHAIN~KEY`, `file-root:system` (the machine's own roots).
//!
//! Rejects: unknown SDS names, files that can't be read, keys that are not the certificate's, versions and groups that
//! rustls does not have, revocation lists without roots.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rajut_ir::{
    secret::{Secret, SecretValue},
    tls::{
        CommonTls, DataSource, DownstreamTls, SecretSource, TlsCertificate, TlsVersion, UpstreamTls,
        Validation, ValidationContext,
    },
};
use rajut_types::{Text, TrustDomain};
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::{
    store::{Identity, InvalidIdentity, Key, certified_key},
    tls::{OneCertificate, forbid_resumption},
    trust::{InvalidBundle, Revoked, TrustBundle},
    verify::{PeerRules, PeerVerifier},
};

/// The SDS name of the workload's trust bundle, as in Istio.
pub const MESH_ROOTS: &str = "ROOTCA";

/// What secrets can be found in.
#[derive(Debug, Clone, Copy)]
pub struct Secrets<'a> {
    /// Answers `default` and `ROOTCA`.
    pub identity: Option<&'a Identity>,
    /// What SDS delivered, by name.
    pub named: &'a BTreeMap<Text, Arc<Secret>>,
    /// With identities of the mesh: the accepted trust domains; empty does not ask for a principal.
    pub trust_domains: &'a [TrustDomain],
}

/// Why a TLS context can't be used (yet).
#[derive(Debug, thiserror::Error)]
pub enum TlsContextError {
    /// Not delivered yet: the cluster or chain waits for it.
    #[error("secret `{0}` is not known")]
    UnknownSecret(Text),
    /// The secret is of the other kind.
    #[error("secret `{name}` holds no {wanted}")]
    WrongKind {
        /// Its name.
        name: Text,
        /// What was needed.
        wanted: &'static str,
    },
    /// A file can't be read.
    #[error("`{path}` can't be read")]
    File {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key can't be used.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// Roots can't be used.
    #[error(transparent)]
    Roots(#[from] InvalidBundle),
    /// A group that the library does not have.
    #[error("key-exchange group `{0}` is not available")]
    Group(Text),
    /// The versions exclude each other.
    #[error("the lowest TLS version is above the highest")]
    Versions,
    /// A server side without a certificate.
    #[error("a listener with TLS needs a certificate")]
    NoCertificate,
    /// Lists say what is revoked of what is under roots.
    #[error("`crl` needs `trusted_ca`")]
    RevocationList,
    /// rustls refused the combination.
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

/// The accepting side.
pub fn server_config(
    tls: &DownstreamTls,
    secrets: Secrets<'_>,
) -> Result<Arc<ServerConfig>, TlsContextError> {
    let DownstreamTls {
        common,
        require_client_certificate,
        disable_resumption,
    } = tls;
    let provider = provider(common)?;
    let certificate = own_certificate(common, secrets, &provider)?.ok_or(TlsContextError::NoCertificate)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(common)?)?;
    let builder = match verifier(common, secrets, &provider, false)? {
        Some(verifier) => {
            let verifier = if *require_client_certificate {
                verifier
            } else {
                verifier.optional()
            };
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
        None if *require_client_certificate => {
            let any = PeerVerifier::new(Arc::clone(&provider), None, PeerRules::default());
            builder.with_client_cert_verifier(Arc::new(any))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(OneCertificate(certificate)));
    config.alpn_protocols = alpn(common);
    if *disable_resumption || *require_client_certificate {
        forbid_resumption(&mut config);
    }
    Ok(Arc::new(config))
}

/// The connecting side.
pub fn client_config(tls: &UpstreamTls, secrets: Secrets<'_>) -> Result<Arc<ClientConfig>, TlsContextError> {
    let UpstreamTls {
        common,
        sni: _,
        auto_sni: _,
        auto_san_validation,
        max_session_keys,
    } = tls;
    let provider = provider(common)?;
    let certificate = own_certificate(common, secrets, &provider)?;
    let verifier = match verifier(common, secrets, &provider, *auto_san_validation)? {
        Some(verifier) => verifier,
        // Envoy: without a validation context any server is taken.
        None => PeerVerifier::new(Arc::clone(&provider), None, PeerRules::default()),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(common)?)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificate {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(common);
    config.resumption = match max_session_keys {
        Some(0) => Resumption::disabled(),
        // Envoy's default is one session per context.
        keys => Resumption::in_memory_sessions(usize::try_from(keys.unwrap_or(1)).unwrap_or(1)),
    };
    Ok(Arc::new(config))
}

fn provider(common: &CommonTls) -> Result<Arc<CryptoProvider>, TlsContextError> {
    let mut provider = aws_lc_rs::default_provider();
    if !common.groups.is_empty() {
        let find = |name: &Text| {
            let group = match &**name {
                "X25519MLKEM768" => aws_lc_rs::kx_group::X25519MLKEM768,
                "X25519" => aws_lc_rs::kx_group::X25519,
                "P-256" | "secp256r1" | "prime256v1" => aws_lc_rs::kx_group::SECP256R1,
                "P-384" | "secp384r1" => aws_lc_rs::kx_group::SECP384R1,
                _ => return Err(TlsContextError::Group(name.clone())),
            };
            Ok(group)
        };
        provider.kx_groups = common.groups.iter().map(find).collect::<Result<_, _>>()?;
    }
    Ok(Arc::new(provider))
}

static ONLY_1_2: &[&SupportedProtocolVersion] = &[&TLS12];
static ONLY_1_3: &[&SupportedProtocolVersion] = &[&TLS13];
static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn versions(common: &CommonTls) -> Result<&'static [&'static SupportedProtocolVersion], TlsContextError> {
    match (
        common.min_version.unwrap_or(TlsVersion::V1_2),
        common.max_version.unwrap_or(TlsVersion::V1_3),
    ) {
        (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(ONLY_1_2),
        (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(BOTH),
        (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(ONLY_1_3),
        (TlsVersion::V1_3, TlsVersion::V1_2) => Err(TlsContextError::Versions),
    }
}

fn alpn(common: &CommonTls) -> Vec<Vec<u8>> {
    common
        .alpn
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect()
}

fn own_certificate(
    common: &CommonTls,
    secrets: Secrets<'_>,
    provider: &CryptoProvider,
) -> Result<Option<Arc<CertifiedKey>>, TlsContextError> {
    let Some(source) = common.certificates.first() else {
        return Ok(None);
    };
    let certificate = match source {
        SecretSource::Inline(certificate) => certificate.clone(),
        SecretSource::Sds(name) => match (secrets.named.get(name), secrets.identity) {
            (Some(secret), _) => match &secret.value {
                SecretValue::Certificate(certificate) => certificate.clone(),
                SecretValue::Validation(_) => {
                    return Err(TlsContextError::WrongKind {
                        name: name.clone(),
                        wanted: "certificate",
                    });
                }
            },
            (None, Some(identity)) if &**name == "default" => {
                return Ok(Some(Arc::clone(identity.certified_key())));
            }
            (None, _) => {
                let files = name
                    .strip_prefix("file-cert:")
                    .and_then(|files| files.split_once('~'));
                let (chain, key) = files.ok_or_else(|| TlsContextError::UnknownSecret(name.clone()))?;
                TlsCertificate {
                    chain: DataSource::File(chain.into()),
                    key: DataSource::File(key.into()),
                }
            }
        },
    };
    let chain = CertificateDer::pem_slice_iter(&read(&certificate.chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| InvalidBundle::Malformed(error.to_string()))?;
    let key = Key::from_pem(&read(&certificate.key)?)?;
    Ok(Some(certified_key(provider, chain, &key)?))
}

fn verifier(
    common: &CommonTls,
    secrets: Secrets<'_>,
    provider: &Arc<CryptoProvider>,
    check_server_name: bool,
) -> Result<Option<PeerVerifier>, TlsContextError> {
    let Some(Validation { sds, context }) = &common.validation else {
        return Ok(None);
    };
    let mut context = context.clone();
    let mut roots = None;
    let mut rules = PeerRules {
        check_server_name,
        ..PeerRules::default()
    };
    if let Some(name) = sds {
        match (secrets.named.get(name), secrets.identity) {
            (Some(secret), _) => match &secret.value {
                SecretValue::Validation(given) => merge(&mut context, given),
                SecretValue::Certificate(_) => {
                    return Err(TlsContextError::WrongKind {
                        name: name.clone(),
                        wanted: "validation context",
                    });
                }
            },
            (None, Some(identity)) if &**name == MESH_ROOTS => {
                roots = Some(identity.roots.clone());
                rules.trust_domains = secrets.trust_domains.to_vec();
            }
            (None, _) => match name.strip_prefix("file-root:") {
                Some("system") => roots = Some(system_roots()?),
                Some(path) => context.trusted_ca = Some(DataSource::File(path.into())),
                None => return Err(TlsContextError::UnknownSecret(name.clone())),
            },
        }
    }
    let ValidationContext {
        trusted_ca,
        crl,
        crl_of_leaf_only,
        subject_alt_names,
        pins,
        accept_untrusted,
    } = context;
    if let Some(source) = trusted_ca {
        roots = Some(TrustBundle::from_pem(&read(&source)?)?);
    }
    if let Some(source) = crl {
        let revoked = Revoked::from_pem(&read(&source)?, crl_of_leaf_only)?;
        // Something was meant.
        let none = || InvalidBundle::Revoked("there is none in it".to_owned());
        let revoked = revoked.ok_or_else(none)?;
        let bundle = roots.ok_or(TlsContextError::RevocationList)?;
        roots = Some(bundle.with_revoked(Some(revoked)));
    }
    rules.names = subject_alt_names;
    rules.pins = pins;
    let roots = roots.filter(|_| !accept_untrusted);
    Ok(Some(PeerVerifier::new(Arc::clone(provider), roots, rules)))
}

/// What SDS gives stands under what the context says itself. Source: Envoy `CombinedCertificateValidationContext`.
fn merge(context: &mut ValidationContext, given: &ValidationContext) {
    let ValidationContext {
        trusted_ca,
        crl,
        crl_of_leaf_only,
        subject_alt_names,
        pins,
        accept_untrusted,
    } = given;
    if context.trusted_ca.is_none() {
        context.trusted_ca.clone_from(trusted_ca);
    }
    if context.crl.is_none() {
        context.crl.clone_from(crl);
    }
    context.crl_of_leaf_only |= crl_of_leaf_only;
    context.subject_alt_names.extend_from_slice(subject_alt_names);
    context.pins.extend_from_slice(pins);
    context.accept_untrusted |= accept_untrusted;
}

fn read(source: &DataSource) -> Result<bytes::Bytes, TlsContextError> {
    match source {
        DataSource::Inline(bytes) => Ok(bytes.clone()),
        DataSource::File(path) => read_file(path).map(bytes::Bytes::from),
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, TlsContextError> {
    std::fs::read(path).map_err(|source| TlsContextError::File {
        path: path.to_owned(),
        source,
    })
}

/// Where the distributions keep their roots, most common first.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client of servers that the machine's own roots vouch for, by their names, as browsers are.
pub fn system_client(alpn: &[&str]) -> Result<Arc<ClientConfig>, TlsContextError> {
    client_that_believes(&system_roots()?, alpn)
}

/// The same of servers that the roots of a file (PEM) vouch for, and no others.
pub fn client_of(roots: &Path, alpn: &[&str]) -> Result<Arc<ClientConfig>, TlsContextError> {
    let roots = TrustBundle::from_pem(&read_file(&roots.to_string_lossy())?)?;
    client_that_believes(&roots, alpn)
}

fn client_that_believes(roots: &TrustBundle, alpn: &[&str]) -> Result<Arc<ClientConfig>, TlsContextError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(Arc::clone(roots.anchors()))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The machine's own roots; certificates that webpki can't use are left out, as browsers do.
fn system_roots() -> Result<TrustBundle, TlsContextError> {
    let path = SYSTEM_BUNDLES
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or(SYSTEM_BUNDLES[0]);
    let usable = CertificateDer::pem_slice_iter(&read_file(path)?)
        .filter_map(Result::ok)
        .filter(|root| TrustBundle::new([root.clone()]).is_ok())
        .collect::<Vec<_>>();
    Ok(TrustBundle::new(usable)?)
}
