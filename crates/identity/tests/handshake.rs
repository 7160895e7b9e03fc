//! Who is let in: handshakes in memory between configurations of this crate.
#![expect(clippy::disallowed_methods, reason = "a test dates its certificates itself")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rajut_identity::{
    Identity, Key, PeerRules, Revoked, TrustBundle,
    context::{Secrets, TlsContextError, client_config, server_config},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    principal_of,
    rustls::{
        ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
        ServerConnection,
    },
    tls::{mesh_client_config, mesh_server_config},
    trust::InvalidBundle,
};
use rajut_ir::{
    matcher::StringMatcher,
    tls::{
        CertificatePin, CommonTls, DataSource, DownstreamTls, SanKind, SanMatcher, SecretSource,
        TlsCertificate, TlsVersion, UpstreamTls, Validation, ValidationContext,
    },
};
use rajut_types::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::new([self.0.der().clone()]).expect("a root")
    }

    /// A leaf with these URI names, valid until `until` from now.
    fn issue(&self, uris: &[&str], until: i64) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("ASCII")))
            .collect();
        params
            .subject_alt_names
            .push(SanType::DnsName("server.example".try_into().expect("ASCII")));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_hours(2)).into();
        let seconds = Duration::from_secs(until.unsigned_abs());
        params.not_after = if until < 0 { now - seconds } else { now + seconds }.into();
        let leaf = params.signed_by(&key, &self.0).expect("signed");
        (leaf.der().clone(), key)
    }

    fn identity(&self, uri: &str) -> Identity {
        self.identity_until(uri, 3_600)
    }

    fn identity_until(&self, uri: &str, until: i64) -> Identity {
        let (leaf, key) = self.issue(&[uri], until);
        Identity::new(vec![leaf], secret(&key), self.bundle(), 1).expect("belong together")
    }
}

fn secret(key: &KeyPair) -> Key {
    Key::new(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

const SIGNER: &str = "spiffe://cluster.local/ns/clinic/sa/signer";
const API: &str = "spiffe://cluster.local/ns/clinic/sa/api";

fn mesh() -> PeerRules {
    PeerRules::mesh([TrustDomain::default()])
}

/// Runs a handshake to its end; the server's error where it has one (a TLS 1.3 client finishes before it is refused).
fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), String> {
    let name = ServerName::try_from("server.example").expect("a name");
    let mut client = ClientConnection::new(client, name).map_err(|error| error.to_string())?;
    let mut server = ServerConnection::new(server).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    for _ in 0..10 {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).map_err(|error| error.to_string())?;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).map_err(|error| error.to_string())?;
            server
                .process_new_packets()
                .map_err(|error| format!("server: {error:?}"))?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).map_err(|error| error.to_string())?;
        }
        let mut rest = &answer[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).map_err(|error| error.to_string())?;
            client
                .process_new_packets()
                .map_err(|error| format!("client: {error:?}"))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn between(
    client: &Identity,
    server: &Identity,
    client_rules: PeerRules,
) -> Result<(ClientConnection, ServerConnection), String> {
    shake(
        mesh_client_config(client, client_rules, &["istio"]).expect("a configuration"),
        mesh_server_config(server, mesh(), &["istio"], true).expect("a configuration"),
    )
}

#[test]
fn members_meet_with_tls_1_3_and_the_hybrid_group_and_know_each_other() {
    let root = Root::new();
    let (client, server) =
        between(&root.identity(SIGNER), &root.identity(API), mesh()).expect("both are members");
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = server.negotiated_key_exchange_group().expect("negotiated");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    let who =
        |chain: Option<&[CertificateDer<'static>]>| principal_of(chain.expect("shown")).expect("a principal");
    assert_eq!(who(server.peer_certificates()).spiffe_id(), SIGNER);
    assert_eq!(who(client.peer_certificates()).spiffe_id(), API);
    assert_eq!(server.alpn_protocol(), Some(&b"istio"[..]));
}

#[test]
fn nothing_is_resumed_inside_the_mesh() {
    let root = Root::new();
    let (signer, api) = (root.identity(SIGNER), root.identity(API));
    let client = mesh_client_config(&signer, mesh(), &[]).expect("a configuration");
    let server = mesh_server_config(&api, mesh(), &[], true).expect("a configuration");
    for _ in 0..3 {
        let (_, server) = shake(Arc::clone(&client), Arc::clone(&server)).expect("both are members");
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn who_is_on_a_revocation_list_is_refused_in_both_directions_and_nobody_else() {
    let (root, other) = (Root::new(), Root::new());
    let (signer, api) = (root.identity(SIGNER), root.identity(API));
    let list = |issuer: &Root, serials: &[&str]| {
        let now = SystemTime::now();
        let one = |serial: &&str| {
            let digits: Vec<u32> = serial.chars().filter_map(|digit| digit.to_digit(16)).collect();
            let padded = if digits.len().is_multiple_of(2) {
                digits
            } else {
                [vec![0], digits].concat()
            };
            let pairs = padded
                .chunks(2)
                .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte"));
            rcgen::RevokedCertParams {
                serial_number: rcgen::SerialNumber::from(pairs.collect::<Vec<u8>>()),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: (now - Duration::from_hours(2)).into(),
            // Out of date: it holds until there is a newer one.
            next_update: (now - Duration::from_hours(1)).into(),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(one).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&issuer.0).expect("signed").pem().expect("PEM")
    };
    let believing = |identity: &Identity, lists: &str| {
        let revoked = Revoked::from_pem(lists.as_bytes(), true).expect("lists");
        identity.trusting(identity.roots.clone().with_revoked(revoked))
    };
    let lists = list(&root, &[&signer.serial]);
    assert!(believing(&api, &lists).roots.revokes(&signer.serial));
    assert!(!believing(&api, &lists).roots.revokes(&api.serial));
    for (client, server) in [
        (&signer, &believing(&api, &lists)),
        (&believing(&api, &lists), &signer),
    ] {
        let refused = between(client, server, mesh()).expect_err("refused");
        assert!(refused.contains("Revoked"), "{refused}");
    }
    let (third, fourth) = (root.identity(SIGNER), believing(&api, &lists));
    assert!(
        between(&third, &fourth, mesh()).is_ok(),
        "another certificate of the same identity"
    );
    // A list in the issuer's name that somebody else has signed is no list: nobody is let in on its word.
    let foreign = list(&other, &[&third.serial]);
    assert!(between(&signer, &believing(&api, &foreign), mesh()).is_err());
    assert!(Revoked::from_pem(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", true).is_err());
    assert!(Revoked::from_pem(b"", true).expect("nothing").is_none());
}

#[test]
fn strangers_are_refused_in_both_directions() {
    let (root, other) = (Root::new(), Root::new());
    let (signer, api) = (root.identity(SIGNER), root.identity(API));
    // Another issuer's, with our name in it; it believes our root.
    let mut forged = other.identity(SIGNER);
    forged.roots = root.bundle();
    assert!(
        between(&forged, &api, mesh())
            .expect_err("refused")
            .contains("InvalidCertificate")
    );
    assert!(
        between(&signer, &forged, mesh())
            .expect_err("refused")
            .contains("InvalidCertificate")
    );
    // Another trust domain under the same root.
    let foreign = root.identity("spiffe://elsewhere/ns/clinic/sa/signer");
    assert!(
        between(&foreign, &api, mesh())
            .expect_err("refused")
            .contains("TrustDomain")
    );
    // Expired, by an hour.
    let late = root.identity_until(SIGNER, -3_600);
    assert!(
        between(&late, &api, mesh())
            .expect_err("refused")
            .contains("Expired")
    );
    // No certificate at all.
    let anonymous = UpstreamTls {
        common: CommonTls {
            min_version: Some(TlsVersion::V1_3),
            ..CommonTls::default()
        },
        ..UpstreamTls::default()
    };
    let named = BTreeMap::new();
    let client = client_config(&anonymous, secrets(&signer, &named)).expect("a configuration");
    let server = mesh_server_config(&api, mesh(), &[], true).expect("a configuration");
    assert!(
        shake(Arc::clone(&client), server)
            .expect_err("refused")
            .contains("NoCertificates")
    );
    let permissive = mesh_server_config(&api, mesh(), &[], false).expect("a configuration");
    assert!(shake(client, permissive).is_ok());
}

#[test]
fn a_certificate_with_no_or_two_spiffe_names_is_nobody() {
    let root = Root::new();
    let api = root.identity(API);
    for uris in [
        &[][..],
        &[SIGNER, API],
        &["https://cluster.local/ns/clinic/sa/signer"],
    ] {
        let (leaf, key) = root.issue(uris, 3_600);
        assert!(Identity::new(vec![leaf.clone()], secret(&key), root.bundle(), 1).is_err());
        let tls = UpstreamTls {
            common: CommonTls {
                certificates: vec![SecretSource::Inline(pem_of(&leaf, &key))],
                ..CommonTls::default()
            },
            ..UpstreamTls::default()
        };
        let named = BTreeMap::new();
        let client = client_config(&tls, secrets(&api, &named)).expect("a configuration");
        let server = mesh_server_config(&api, mesh(), &[], true).expect("a configuration");
        assert!(shake(client, server).is_err(), "{uris:?}");
    }
}

#[test]
fn a_client_takes_only_the_server_that_it_expects() {
    let root = Root::new();
    let (signer, api) = (root.identity(SIGNER), root.identity(API));
    let expecting = |name: &str| {
        mesh().with_names(vec![SanMatcher {
            kind: SanKind::Uri,
            matcher: StringMatcher::exact(name),
        }])
    };
    assert!(between(&signer, &api, expecting(API)).is_ok());
    assert!(
        between(&signer, &api, expecting(SIGNER))
            .expect_err("refused")
            .contains("Name")
    );
}

#[test]
fn contexts_of_the_configuration_become_the_same_handshakes() {
    let root = Root::new();
    let (signer, api) = (root.identity(SIGNER), root.identity(API));
    let named = BTreeMap::new();
    let common = |names: &[&str]| CommonTls {
        certificates: vec![SecretSource::Sds("default".into())],
        validation: Some(Validation {
            sds: Some("ROOTCA".into()),
            context: ValidationContext {
                subject_alt_names: names
                    .iter()
                    .map(|name| SanMatcher {
                        kind: SanKind::Uri,
                        matcher: StringMatcher::exact(*name),
                    })
                    .collect(),
                ..ValidationContext::default()
            },
        }),
        min_version: Some(TlsVersion::V1_3),
        alpn: vec!["istio".into()],
        ..CommonTls::default()
    };
    let downstream = DownstreamTls {
        common: common(&[]),
        require_client_certificate: true,
        disable_resumption: true,
    };
    let server = server_config(&downstream, secrets(&api, &named)).expect("a configuration");
    let upstream = |names: &[&str]| {
        let tls = UpstreamTls {
            common: common(names),
            ..UpstreamTls::default()
        };
        client_config(&tls, secrets(&signer, &named)).expect("a configuration")
    };
    assert!(shake(upstream(&[API]), Arc::clone(&server)).is_ok());
    assert!(shake(upstream(&[SIGNER]), server).is_err());
}

#[test]
fn a_simple_client_checks_the_name_and_the_given_root() {
    let (root, other) = (Root::new(), Root::new());
    let (leaf, key) = root.issue(&[], 3_600);
    let downstream = DownstreamTls {
        common: CommonTls {
            certificates: vec![SecretSource::Inline(pem_of(&leaf, &key))],
            ..CommonTls::default()
        },
        ..DownstreamTls::default()
    };
    let api = root.identity(API);
    let named = BTreeMap::new();
    let server = server_config(&downstream, secrets(&api, &named)).expect("a configuration");
    let client = |bundle: &TrustBundle, dns: &str| {
        let tls = UpstreamTls {
            common: CommonTls {
                validation: Some(Validation {
                    sds: None,
                    context: ValidationContext {
                        trusted_ca: Some(DataSource::Inline(bundle.to_pem().into())),
                        subject_alt_names: vec![SanMatcher {
                            kind: SanKind::Dns,
                            matcher: StringMatcher::exact(dns),
                        }],
                        ..ValidationContext::default()
                    },
                }),
                ..CommonTls::default()
            },
            auto_san_validation: true,
            ..UpstreamTls::default()
        };
        client_config(&tls, secrets(&api, &named)).expect("a configuration")
    };
    assert!(shake(client(&root.bundle(), "server.example"), Arc::clone(&server)).is_ok());
    assert!(shake(client(&other.bundle(), "server.example"), Arc::clone(&server)).is_err());
    assert!(shake(client(&root.bundle(), "another.example"), server).is_err());
}

#[test]
fn what_can_not_be_honoured_is_refused_and_keys_are_not_printed() {
    let root = Root::new();
    let api = root.identity(API);
    let named = BTreeMap::new();
    let unknown = UpstreamTls {
        common: CommonTls {
            certificates: vec![SecretSource::Sds("elsewhere".into())],
            ..CommonTls::default()
        },
        ..UpstreamTls::default()
    };
    let refused = client_config(&unknown, secrets(&api, &named));
    assert!(matches!(refused, Err(TlsContextError::UnknownSecret(name)) if &*name == "elsewhere"));
    let revoking = UpstreamTls {
        common: CommonTls {
            validation: Some(Validation {
                sds: Some("ROOTCA".into()),
                context: ValidationContext {
                    crl: Some(DataSource::Inline("x".into())),
                    ..ValidationContext::default()
                },
            }),
            ..CommonTls::default()
        },
        ..UpstreamTls::default()
    };
    assert!(matches!(
        client_config(&revoking, secrets(&api, &named)),
        Err(TlsContextError::Roots(InvalidBundle::Revoked(_)))
    ));
    let backwards = UpstreamTls {
        common: CommonTls {
            min_version: Some(TlsVersion::V1_3),
            max_version: Some(TlsVersion::V1_2),
            ..CommonTls::default()
        },
        ..UpstreamTls::default()
    };
    assert!(matches!(
        client_config(&backwards, secrets(&api, &named)),
        Err(TlsContextError::Versions)
    ));

    let printed = format!("{api:?}");
    let der = api.key.secret_der().secret_der();
    assert!(printed.contains("Key(secret)"));
    assert!(
        !printed.contains(&format!("{der:?}")[1..60]),
        "the key's bytes are printed"
    );
}

fn secrets<'a>(
    identity: &'a Identity,
    named: &'a BTreeMap<rajut_types::Text, Arc<rajut_ir::secret::Secret>>,
) -> Secrets<'a> {
    Secrets {
        identity: Some(identity),
        named,
        trust_domains: &[],
    }
}

fn pem_of(leaf: &CertificateDer<'_>, key: &KeyPair) -> TlsCertificate {
    TlsCertificate {
        chain: DataSource::Inline(rajut_identity::trust::pem("CERTIFICATE", leaf).into()),
        key: DataSource::Inline(key.serialize_pem().into()),
    }
}

#[test]
fn only_pinned_certificates_pass_although_the_chain_is_good() {
    let root = Root::new();
    let (signer, api) = (root.identity(SIGNER), root.identity(API));
    let pinned = |identity: &Identity| {
        let hash = digest(&SHA256, &identity.certified_key().cert[0]);
        let pairs: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let pin = CertificatePin::certificate(&pairs.join(":")).expect("as openssl prints it");
        PeerRules {
            pins: vec![pin],
            ..mesh()
        }
    };
    assert!(between(&signer, &api, pinned(&api)).is_ok());
    let refused = between(&signer, &api, pinned(&signer)).expect_err("another certificate");
    assert!(refused.contains("Pin"), "{refused}");
    let renewed = root.identity(API);
    assert!(
        between(&signer, &renewed, pinned(&api)).is_err(),
        "the same name, another certificate"
    );
    for wrong in ["", "aa", &"zz:".repeat(32), &"a".repeat(63)] {
        assert_eq!(CertificatePin::certificate(wrong), None, "{wrong}");
        assert_eq!(CertificatePin::key(wrong), None, "{wrong}");
    }
}
