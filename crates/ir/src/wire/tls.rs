//! TLS contexts and transport sockets.
//!
//! Rejected: certificate providers (proxyless gRPC's own), custom validators and handshakers, pinned hashes, private-key
//! providers, session ticket keys, other transport sockets than TLS and raw buffers. Where Envoy can switch off stateful
//! and stateless resumption apart, one of them switches off both here, which is stricter.

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use rajut_proto::{
    core::{TransportSocket, transport_socket::ConfigType},
    tls::{
        self as pb, common_tls_context::CombinedCertificateValidationContext,
        common_tls_context::ValidationContextType, downstream_tls_context::SessionTicketKeysType,
        subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
    },
    type_url,
};
use rajut_types::Text;

use super::{
    matcher,
    read::{Place, Reader, is_true, number},
    write,
};
use crate::tls::{
    CertificatePin, CommonTls, DownstreamTls, SanKind, SanMatcher, SecretSource, TlsCertificate, TlsVersion,
    UpstreamTls, Validation, ValidationContext,
};

/// Envoy's name of the TLS transport socket.
const TLS: &str = "envoy.transport_sockets.tls";
const RAW_BUFFER: &str = "envoy.transport_sockets.raw_buffer";
const SUPPORTED: &str = "envoy.transport_sockets.tls, envoy.transport_sockets.raw_buffer";

// --- encode ---

pub(super) fn encode_downstream_socket(tls: &DownstreamTls) -> TransportSocket {
    let context = pb::DownstreamTlsContext {
        common_tls_context: Some(encode_common(&tls.common)),
        require_client_certificate: write::set(tls.require_client_certificate),
        disable_stateful_session_resumption: tls.disable_resumption,
        session_ticket_keys_type: tls
            .disable_resumption
            .then_some(SessionTicketKeysType::DisableStatelessSessionResumption(true)),
        ..Default::default()
    };
    socket(TLS, write::any(type_url::DOWNSTREAM_TLS, &context))
}

pub(super) fn encode_upstream_socket(tls: Option<&UpstreamTls>) -> TransportSocket {
    let Some(tls) = tls else {
        return socket(RAW_BUFFER, write::empty_any(type_url::RAW_BUFFER));
    };
    let context = pb::UpstreamTlsContext {
        common_tls_context: Some(encode_common(&tls.common)),
        sni: tls.sni.to_string(),
        auto_sni_san_validation: tls.auto_san_validation,
        max_session_keys: tls.max_session_keys.map(write::number),
        ..Default::default()
    };
    socket(TLS, write::any(type_url::UPSTREAM_TLS, &context))
}

fn socket(name: &str, config: rajut_proto::Any) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn encode_common(common: &CommonTls) -> pb::CommonTlsContext {
    let mut certificates = Vec::new();
    let mut by_sds = Vec::new();
    for source in &common.certificates {
        match source {
            SecretSource::Sds(name) => by_sds.push(encode_sds(name)),
            SecretSource::Inline(certificate) => certificates.push(encode_certificate(certificate)),
        }
    }
    let params = common.min_version.is_some() || common.max_version.is_some() || !common.groups.is_empty();
    pb::CommonTlsContext {
        tls_params: params.then(|| pb::TlsParameters {
            tls_minimum_protocol_version: encode_version(common.min_version),
            tls_maximum_protocol_version: encode_version(common.max_version),
            ecdh_curves: common.groups.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        tls_certificates: certificates,
        tls_certificate_sds_secret_configs: by_sds,
        tls_certificate_provider_instance: common.certificate_provider.as_ref().map(|provider| {
            pb::CertificateProviderPluginInstance {
                instance_name: provider.to_string(),
                certificate_name: "default".to_owned(),
            }
        }),
        alpn_protocols: common.alpn.iter().map(ToString::to_string).collect(),
        validation_context_type: encode_validation_type(common),
        ..Default::default()
    }
}

fn encode_validation_type(common: &CommonTls) -> Option<ValidationContextType> {
    let empty = Validation {
        sds: None,
        context: ValidationContext::default(),
    };
    let validation = match (&common.validation, &common.certificate_provider) {
        (Some(validation), _) => validation,
        (None, Some(_)) => &empty,
        (None, None) => return None,
    };
    let mut context = encode_validation(&validation.context);
    if let Some(provider) = &common.certificate_provider {
        context.ca_certificate_provider_instance = Some(pb::CertificateProviderPluginInstance {
            instance_name: provider.to_string(),
            certificate_name: "ROOTCA".to_owned(),
        });
    }
    Some(match &validation.sds {
        Some(name) if validation.context == ValidationContext::default() => {
            ValidationContextType::ValidationContextSdsSecretConfig(encode_sds(name))
        }
        Some(name) => combined(context, Some(encode_sds(name))),
        None if common.certificate_provider.is_some() => combined(context, None),
        None => ValidationContextType::ValidationContext(context),
    })
}

fn combined(
    context: pb::CertificateValidationContext,
    sds: Option<pb::SdsSecretConfig>,
) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: sds,
        ..Default::default()
    })
}

fn encode_sds(name: &Text) -> pb::SdsSecretConfig {
    pb::SdsSecretConfig {
        name: name.to_string(),
        sds_config: Some(write::ads()),
    }
}

fn encode_version(version: Option<TlsVersion>) -> i32 {
    match version {
        None => TlsProtocol::TlsAuto,
        Some(TlsVersion::V1_2) => TlsProtocol::TlSv12,
        Some(TlsVersion::V1_3) => TlsProtocol::TlSv13,
    }
    .into()
}

pub(super) fn encode_certificate(certificate: &TlsCertificate) -> pb::TlsCertificate {
    pb::TlsCertificate {
        certificate_chain: Some(write::data_source(&certificate.chain)),
        private_key: Some(write::data_source(&certificate.key)),
        ..Default::default()
    }
}

pub(super) fn encode_validation(context: &ValidationContext) -> pb::CertificateValidationContext {
    let mut message = pb::CertificateValidationContext {
        trusted_ca: context.trusted_ca.as_ref().map(write::data_source),
        crl: context.crl.as_ref().map(write::data_source),
        only_verify_leaf_cert_crl: context.crl_of_leaf_only,
        trust_chain_verification: if context.accept_untrusted {
            pb::certificate_validation_context::TrustChainVerification::AcceptUntrusted.into()
        } else {
            0
        },
        ..Default::default()
    };
    for pin in &context.pins {
        match pin {
            CertificatePin::Key(text) => message.verify_certificate_spki.push(text.to_string()),
            CertificatePin::Certificate(text) => message.verify_certificate_hash.push(text.to_string()),
        }
    }
    for san in &context.subject_alt_names {
        let kind = match san.kind {
            SanKind::Dns => SanType::Dns,
            SanKind::Uri => SanType::Uri,
            SanKind::Ip => SanType::IpAddress,
            SanKind::Any => {
                message
                    .match_subject_alt_names
                    .push(matcher::encode_string(&san.matcher));
                continue;
            }
        };
        message
            .match_typed_subject_alt_names
            .push(pb::SubjectAltNameMatcher {
                san_type: kind.into(),
                matcher: Some(matcher::encode_string(&san.matcher)),
                oid: String::new(),
            });
    }
    message
}

// --- decode ---

/// The downstream context of a chain, or `None` for plaintext.
pub(super) fn decode_downstream_socket(
    reader: &mut Reader,
    place: &Place<'_>,
    socket: &TransportSocket,
) -> Option<DownstreamTls> {
    let place = place.field("transport_socket");
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return reader.required(&place.field("typed_config"), None, "the socket's configuration");
    };
    let place = place.field("typed_config");
    match &*config.type_url {
        type_url::DOWNSTREAM_TLS => {
            let context: pb::DownstreamTlsContext = reader.unpack(&place, config)?;
            let stateless = matches!(
                context.session_ticket_keys_type,
                Some(SessionTicketKeysType::DisableStatelessSessionResumption(true))
            );
            Some(DownstreamTls {
                common: decode_common(reader, &place, context.common_tls_context.as_ref()),
                require_client_certificate: is_true(context.require_client_certificate.as_ref()),
                disable_resumption: stateless || context.disable_stateful_session_resumption,
            })
        }
        type_url::RAW_BUFFER => None,
        _ => {
            reader.extension(&place, "transport socket", &socket.name, Some(config), SUPPORTED);
            None
        }
    }
}

/// The upstream context of a cluster, or `None` for plaintext.
pub(super) fn decode_upstream_socket(
    reader: &mut Reader,
    place: &Place<'_>,
    socket: &TransportSocket,
) -> Option<UpstreamTls> {
    let place = place.field("transport_socket");
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return reader.required(&place.field("typed_config"), None, "the socket's configuration");
    };
    let place = place.field("typed_config");
    match &*config.type_url {
        type_url::UPSTREAM_TLS => {
            let context: pb::UpstreamTlsContext = reader.unpack(&place, config)?;
            Some(UpstreamTls {
                common: decode_common(reader, &place, context.common_tls_context.as_ref()),
                sni: context.sni.as_str().into(),
                auto_sni: false,
                auto_san_validation: context.auto_sni_san_validation,
                max_session_keys: number(context.max_session_keys.as_ref()),
            })
        }
        type_url::RAW_BUFFER => None,
        _ => {
            reader.extension(&place, "transport socket", &socket.name, Some(config), SUPPORTED);
            None
        }
    }
}

fn decode_common(
    reader: &mut Reader,
    place: &Place<'_>,
    context: Option<&pb::CommonTlsContext>,
) -> CommonTls {
    let place = place.field("common_tls_context");
    let Some(context) = context else {
        return CommonTls::default();
    };
    let mut certificates = Vec::new();
    for (at, certificate) in context.tls_certificates.iter().enumerate() {
        if let Some(certificate) =
            decode_certificate(reader, &place.item("tls_certificates", at), certificate)
        {
            certificates.push(SecretSource::Inline(certificate));
        }
    }
    for (at, sds) in context.tls_certificate_sds_secret_configs.iter().enumerate() {
        let place = place.item("tls_certificate_sds_secret_configs", at);
        certificates.push(SecretSource::Sds(decode_sds(reader, &place, sds)));
    }
    let params = context.tls_params.clone().unwrap_or_default();
    let params_place = place.field("tls_params");
    CommonTls {
        certificates,
        validation: decode_validation_type(reader, &place, context.validation_context_type.as_ref()),
        alpn: context
            .alpn_protocols
            .iter()
            .map(|it| it.as_str().into())
            .collect(),
        min_version: decode_version(
            reader,
            &params_place.field("tls_minimum_protocol_version"),
            params.tls_minimum_protocol_version,
            false,
        ),
        max_version: decode_version(
            reader,
            &params_place.field("tls_maximum_protocol_version"),
            params.tls_maximum_protocol_version,
            true,
        ),
        groups: params.ecdh_curves.iter().map(|it| it.as_str().into()).collect(),
        // Refused by the list of supported fields.
        certificate_provider: None,
    }
}

fn decode_version(
    reader: &mut Reader,
    place: &Place<'_>,
    value: i32,
    is_maximum: bool,
) -> Option<TlsVersion> {
    match reader.enumerator(place, value) {
        TlsProtocol::TlsAuto => None,
        TlsProtocol::TlSv12 => Some(TlsVersion::V1_2),
        TlsProtocol::TlSv13 => Some(TlsVersion::V1_3),
        old @ (TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            if is_maximum {
                reader.value(place, old.as_str_name(), "TLS below 1.2 is never spoken");
            }
            None
        }
    }
}

fn decode_sds(reader: &mut Reader, place: &Place<'_>, sds: &pb::SdsSecretConfig) -> Text {
    reader.config_source(&place.field("sds_config"), sds.sds_config.as_ref());
    reader.named(&place.field("name"), &sds.name, "the secret's name")
}

fn decode_validation_type(
    reader: &mut Reader,
    place: &Place<'_>,
    validation: Option<&ValidationContextType>,
) -> Option<Validation> {
    match validation? {
        ValidationContextType::ValidationContext(context) => Some(Validation {
            sds: None,
            context: decode_validation(reader, &place.field("validation_context"), context),
        }),
        ValidationContextType::ValidationContextSdsSecretConfig(sds) => Some(Validation {
            sds: Some(decode_sds(
                reader,
                &place.field("validation_context_sds_secret_config"),
                sds,
            )),
            context: ValidationContext::default(),
        }),
        ValidationContextType::CombinedValidationContext(combined) => {
            let place = place.field("combined_validation_context");
            let sds = combined.validation_context_sds_secret_config.as_ref();
            let sds_place = place.field("validation_context_sds_secret_config");
            let sds = reader.required(&sds_place, sds, "where the roots come from")?;
            let context = combined.default_validation_context.clone().unwrap_or_default();
            Some(Validation {
                sds: Some(decode_sds(reader, &sds_place, sds)),
                context: decode_validation(reader, &place.field("default_validation_context"), &context),
            })
        }
        // Refused by the list of supported fields.
        ValidationContextType::ValidationContextCertificateProvider(_)
        | ValidationContextType::ValidationContextCertificateProviderInstance(_) => None,
    }
}

pub(super) fn decode_certificate(
    reader: &mut Reader,
    place: &Place<'_>,
    certificate: &pb::TlsCertificate,
) -> Option<TlsCertificate> {
    let chain_place = place.field("certificate_chain");
    let key_place = place.field("private_key");
    let chain = certificate.certificate_chain.as_ref();
    let chain = reader.required(&chain_place, chain, "the certificate chain, PEM");
    let key = certificate.private_key.as_ref();
    let key = reader.required(&key_place, key, "the private key, PEM");
    let chain = reader.data_source(&chain_place, chain);
    let key = reader.data_source(&key_place, key);
    Some(TlsCertificate {
        chain: chain?,
        key: key?,
    })
}

pub(super) fn decode_validation(
    reader: &mut Reader,
    place: &Place<'_>,
    context: &pb::CertificateValidationContext,
) -> ValidationContext {
    use pb::certificate_validation_context::TrustChainVerification;
    let mut names = Vec::new();
    for (at, san) in context.match_typed_subject_alt_names.iter().enumerate() {
        let place = place.item("match_typed_subject_alt_names", at);
        let kind = match reader.enumerator(&place.field("san_type"), san.san_type) {
            SanType::Dns => SanKind::Dns,
            SanType::Uri => SanKind::Uri,
            SanType::IpAddress => SanKind::Ip,
            other @ (SanType::Unspecified | SanType::Email | SanType::OtherName) => {
                reader.value(
                    &place.field("san_type"),
                    other.as_str_name(),
                    "write DNS, URI or IP_ADDRESS",
                );
                continue;
            }
        };
        let matcher = reader.required(&place.field("matcher"), san.matcher.as_ref(), "the accepted name");
        if let Some(matcher) = matcher
            && let Some(matcher) = matcher::decode_string(reader, &place.field("matcher"), matcher)
        {
            names.push(SanMatcher { kind, matcher });
        }
    }
    for (at, matcher) in context.match_subject_alt_names.iter().enumerate() {
        let place = place.item("match_subject_alt_names", at);
        if let Some(matcher) = matcher::decode_string(reader, &place, matcher) {
            names.push(SanMatcher {
                kind: SanKind::Any,
                matcher,
            });
        }
    }
    let mut pins = Vec::new();
    for (at, text) in context.verify_certificate_spki.iter().enumerate() {
        let pin = CertificatePin::key(text);
        if pin.is_none() {
            let place = place.item("verify_certificate_spki", at);
            reader.bad_text(&place, text, "the SHA-256 of a public key in base64");
        }
        pins.extend(pin);
    }
    for (at, text) in context.verify_certificate_hash.iter().enumerate() {
        let pin = CertificatePin::certificate(text);
        if pin.is_none() {
            let place = place.item("verify_certificate_hash", at);
            reader.bad_text(&place, text, "the SHA-256 of a certificate in hexadecimal");
        }
        pins.extend(pin);
    }
    let verification: TrustChainVerification = reader.enumerator(
        &place.field("trust_chain_verification"),
        context.trust_chain_verification,
    );
    ValidationContext {
        trusted_ca: reader.data_source(&place.field("trusted_ca"), context.trusted_ca.as_ref()),
        crl: reader.data_source(&place.field("crl"), context.crl.as_ref()),
        crl_of_leaf_only: context.only_verify_leaf_cert_crl,
        subject_alt_names: names,
        pins,
        accept_untrusted: verification == TrustChainVerification::AcceptUntrusted,
    }
}
