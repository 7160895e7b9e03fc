//! TLS contexts: the mesh's own (SPIFFE identities by SDS, TLS 1.3, post-quantum group first, never resumed) and those
//! that a destination rule asks for.

use rajut_config::{
    model::{ClientTls, ClientTlsMode, MeshConfig},
    snapshot::Trust,
};
use rajut_ir::{
    matcher::{StringMatch, StringMatcher},
    secret::{Secret, SecretValue},
    tls::{
        CommonTls, DataSource, DownstreamTls, SanKind, SanMatcher, SecretSource, TlsCertificate, TlsVersion,
        UpstreamTls, Validation, ValidationContext,
    },
};
use rajut_types::{Principal, Text};

use crate::names::{MESH_ROOTS, OWN_CERTIFICATE};

/// SDS name of the system's roots, as Istio's agent knows them.
const SYSTEM_ROOTS: &str = "file-root:system";

/// Key-exchange groups inside the mesh, as Envoy names them. Data about people stays secret for decades, so the hybrid
/// group comes first; the others are for peers without it.
const GROUPS: [&str; 3] = ["X25519MLKEM768", "X25519", "P-256"];

/// What a mesh client's TLS connection will carry, which settles the protocols that it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Payload {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
    /// Opaque bytes alone.
    Tcp,
    /// Told by each connection: nothing is offered here, so that the proxy offers what the pool speaks (`http/1.1` or
    /// `h2`; nothing for bytes), as Envoy does for a context without protocols.
    Any,
}

impl Payload {
    /// Istio's names in front, the standard one behind: a server selects the standard one, filter chains see them all.
    fn alpn(self) -> Vec<Text> {
        let names: &[&str] = match self {
            Self::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
            Self::Http2 => &["istio-h2", "istio", "h2"],
            Self::Tcp => &["istio-peer-exchange", "istio"],
            Self::Any => &[],
        };
        names.iter().map(|name| Text::from(*name)).collect()
    }
}

fn mesh_common(alpn: Vec<Text>, subject_alt_names: Vec<SanMatcher>) -> CommonTls {
    CommonTls {
        certificates: vec![SecretSource::Sds(OWN_CERTIFICATE.into())],
        validation: Some(Validation {
            sds: Some(MESH_ROOTS.into()),
            context: ValidationContext {
                subject_alt_names,
                ..ValidationContext::default()
            },
        }),
        alpn,
        min_version: Some(TlsVersion::V1_3),
        max_version: Some(TlsVersion::V1_3),
        groups: GROUPS.iter().map(|group| Text::from(*group)).collect(),
        certificate_provider: None,
    }
}

/// Whom the mesh believes, as the secret that every context of the mesh names.
pub(crate) fn mesh_roots(trust: &Trust) -> Secret {
    let Trust { roots, crl, since: _ } = trust;
    let inline = |text: &Text| DataSource::Inline(text.as_bytes().to_vec().into());
    Secret {
        name: MESH_ROOTS.into(),
        value: SecretValue::Validation(ValidationContext {
            trusted_ca: Some(inline(roots)),
            crl: (!crl.is_empty()).then(|| inline(crl)),
            // The mesh's issuer gives a list; a root of the operator's above it need not.
            crl_of_leaf_only: !crl.is_empty(),
            ..ValidationContext::default()
        }),
    }
}

/// `spiffe://<domain>/` for the mesh's trust domain and its aliases.
fn any_of_the_mesh(mesh: &MeshConfig) -> Vec<SanMatcher> {
    std::iter::once(&mesh.trust_domain)
        .chain(&mesh.trust_domain_aliases)
        .map(|domain| SanMatcher {
            kind: SanKind::Uri,
            matcher: StringMatcher {
                pattern: StringMatch::Prefix(format!("spiffe://{domain}/").into()),
                ignore_case: false,
            },
        })
        .collect()
}

/// The identities that a service's endpoints may show; where none is known, anybody of the mesh.
pub(crate) fn expected_identities(mesh: &MeshConfig, principals: &[Principal]) -> Vec<SanMatcher> {
    if principals.is_empty() {
        return any_of_the_mesh(mesh);
    }
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    domains
        .flat_map(|domain| {
            principals.iter().map(move |principal| {
                Principal::new(domain, principal.namespace(), principal.service_account())
            })
        })
        .map(|principal| SanMatcher {
            kind: SanKind::Uri,
            matcher: StringMatcher::exact(principal.spiffe_id()),
        })
        .collect()
}

/// mTLS towards workloads of the mesh.
pub(crate) fn mesh_client(subject_alt_names: Vec<SanMatcher>, sni: Text, payload: Payload) -> UpstreamTls {
    UpstreamTls {
        common: mesh_common(payload.alpn(), subject_alt_names),
        sni,
        auto_sni: false,
        auto_san_validation: false,
        max_session_keys: Some(0),
    }
}

/// mTLS of a sidecar's inbound chains; `http` selects an HTTP version, bytes select nothing.
pub(crate) fn mesh_server(mesh: &MeshConfig, http: bool) -> DownstreamTls {
    let alpn = if http {
        vec!["h2".into(), "http/1.1".into()]
    } else {
        Vec::new()
    };
    DownstreamTls {
        common: mesh_common(alpn, any_of_the_mesh(mesh)),
        require_client_certificate: true,
        disable_resumption: true,
    }
}

/// TLS as a destination rule asks for it; `None` is plaintext. `sans` and `sni` are the mesh's own values for
/// `ISTIO_MUTUAL`, `service_sans` the names that a `ServiceEntry` gives.
pub(crate) fn from_rule(
    tls: &ClientTls,
    sans: Vec<SanMatcher>,
    sni: Text,
    service_sans: &[Text],
    payload: Payload,
) -> Option<UpstreamTls> {
    let given: Vec<SanMatcher> = if tls.subject_alt_names.is_empty() {
        service_sans
    } else {
        &tls.subject_alt_names
    }
    .iter()
    .map(|name| SanMatcher {
        kind: SanKind::Any,
        matcher: StringMatcher::exact(name.clone()),
    })
    .collect();
    match tls.mode {
        ClientTlsMode::Disable => None,
        ClientTlsMode::IstioMutual => {
            let expected = if given.is_empty() { sans } else { given };
            Some(mesh_client(expected, tls.sni.clone().unwrap_or(sni), payload))
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => Some(towards_others(tls, given, payload)),
    }
}

/// TLS towards servers outside the mesh.
fn towards_others(tls: &ClientTls, given: Vec<SanMatcher>, payload: Payload) -> UpstreamTls {
    let certificates = match (&tls.client_certificate, tls.mode) {
        (Some((chain, key)), ClientTlsMode::Mutual) => vec![SecretSource::Inline(TlsCertificate {
            chain: DataSource::File(chain.clone()),
            key: DataSource::File(key.clone()),
        })],
        _ => Vec::new(),
    };
    let auto_san_validation = given.is_empty() && !tls.insecure_skip_verify;
    let validation = (!tls.insecure_skip_verify).then(|| Validation {
        sds: tls.ca_certificates.is_none().then(|| SYSTEM_ROOTS.into()),
        context: ValidationContext {
            trusted_ca: tls.ca_certificates.clone().map(DataSource::File),
            subject_alt_names: given,
            ..ValidationContext::default()
        },
    });
    let alpn = match payload {
        Payload::Http2 => vec!["h2".into()],
        Payload::Http1 => vec!["http/1.1".into()],
        Payload::Tcp | Payload::Any => Vec::new(),
    };
    UpstreamTls {
        common: CommonTls {
            certificates,
            validation,
            alpn,
            ..CommonTls::default()
        },
        auto_sni: tls.sni.is_none(),
        sni: tls.sni.clone().unwrap_or_default(),
        auto_san_validation,
        max_session_keys: None,
    }
}
