//! TLS of a filter chain (downstream) and of a cluster (upstream).

use rajut_types::Text;

use crate::matcher::StringMatcher;

/// A protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Key material in the configuration: given in place or fetched by name.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretSource<T> {
    /// By SDS name: `default` and `ROOTCA` are the workload's own identity and trust bundle.
    Sds(Text),
    /// In place.
    Inline(T),
}

/// A certificate chain and its key, PEM. Source: Envoy `tls.v3.TlsCertificate`.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// Leaf first.
    pub chain: DataSource,
    /// PKCS#8, SEC1 or PKCS#1.
    pub key: DataSource,
}

impl std::fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("chain", &self.chain)
            .field("key", &"(secret)")
            .finish()
    }
}

/// Bytes in place or in a file. Source: Envoy `core.v3.DataSource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A file's path, read when the resource is applied.
    File(Text),
    /// In place.
    Inline(bytes::Bytes),
}

/// How the other side's certificate is judged. Source: Envoy `tls.v3.CertificateValidationContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidationContext {
    /// Trusted roots, PEM; `None` with an SDS name on the side means "from there".
    pub trusted_ca: Option<DataSource>,
    /// Revocation lists, PEM.
    pub crl: Option<DataSource>,
    /// Only the peer's own certificate is looked up in them (Envoy `only_verify_leaf_cert_crl`).
    pub crl_of_leaf_only: bool,
    /// At least one of the certificate's subject alternative names must match one of these; empty asks nothing.
    pub subject_alt_names: Vec<SanMatcher>,
    /// The certificate itself must be one of these; empty asks nothing.
    pub pins: Vec<CertificatePin>,
    /// Any chain is taken (Envoy `trust_chain_verification: ACCEPT_UNTRUSTED`).
    pub accept_untrusted: bool,
}

/// One certificate that is taken, whoever signed it and whatever it says beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificatePin {
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`), in base64 (Envoy `verify_certificate_spki`).
    Key(Text),
    /// SHA-256 of the whole certificate, in hexadecimal, lower case, without colons (Envoy `verify_certificate_hash`).
    Certificate(Text),
}

impl CertificatePin {
    /// A pin of a key: 44 characters of base64.
    pub fn key(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('=')?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        (digits.len() == 43 && digits.bytes().all(good)).then(|| Self::Key(text.into()))
    }

    /// A pin of a certificate: 64 hexadecimal digits, with or without colons between bytes.
    pub fn certificate(text: &str) -> Option<Self> {
        let plain = if text.len() == 95 {
            let mut bytes = text.split(':');
            let whole = bytes.all(|byte| byte.len() == 2);
            whole.then(|| text.replace(':', ""))?
        } else {
            text.to_owned()
        };
        let good = plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Self::Certificate(plain.to_ascii_lowercase().into()))
    }
}

/// One accepted subject alternative name.
#[derive(Debug, Clone, PartialEq)]
pub struct SanMatcher {
    /// Which kind of name.
    pub kind: SanKind,
    /// The comparison.
    pub matcher: StringMatcher,
}

/// Kinds of subject alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// Any of them (Envoy's deprecated `match_subject_alt_names`).
    Any,
    /// DNS name.
    Dns,
    /// URI, as SPIFFE identities are.
    Uri,
    /// IP address.
    Ip,
}

/// What both directions share. Source: Envoy `tls.v3.CommonTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommonTls {
    /// The own certificates; the first that fits is used.
    pub certificates: Vec<SecretSource<TlsCertificate>>,
    /// How the peer is judged: `None` accepts any peer (and asks for no client certificate downstream).
    pub validation: Option<Validation>,
    /// Offered or accepted protocols, in order of preference.
    pub alpn: Vec<Text>,
    /// Lowest version; `None` is the library's (1.2).
    pub min_version: Option<TlsVersion>,
    /// Highest version; `None` is 1.3.
    pub max_version: Option<TlsVersion>,
    /// Key-exchange groups in order of preference, by their IANA names; empty is the library's order.
    pub groups: Vec<Text>,
    /// Proxyless gRPC only: own certificate and roots come from this certificate provider of the client's bootstrap
    /// (`tls_certificate_provider_instance` with `certificate_name` `default`, and inside the combined validation
    /// context's default context `ca_certificate_provider_instance` with `ROOTCA`). Refused by our proxy.
    pub certificate_provider: Option<Text>,
}

/// A validation context in place, by SDS, or both combined (Envoy `combined_validation_context`: SDS gives the roots,
/// the context the names).
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// SDS name of the roots.
    pub sds: Option<Text>,
    /// In place; with `sds` set, merged over what SDS gives.
    pub context: ValidationContext,
}

/// TLS of a filter chain. Source: Envoy `tls.v3.DownstreamTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DownstreamTls {
    /// Shared part.
    pub common: CommonTls,
    /// A client without a certificate is refused.
    pub require_client_certificate: bool,
    /// No tickets and no session cache: a resumed session would skip the check of the peer's identity.
    pub disable_resumption: bool,
}

/// TLS of a cluster. Source: Envoy `tls.v3.UpstreamTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamTls {
    /// Shared part.
    pub common: CommonTls,
    /// Server name; empty sends none (or the request's host with `auto_sni`).
    pub sni: Text,
    /// Take the request's host as server name (Envoy `auto_host_sni`/`auto_sni`).
    pub auto_sni: bool,
    /// Check that the certificate is valid for the server name.
    pub auto_san_validation: bool,
    /// Sessions kept for resumption per context; 0 keeps none.
    pub max_session_keys: Option<u32>,
}
