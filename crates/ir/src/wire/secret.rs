//! Secrets as SDS carries them.
//!
//! Rejected: session ticket keys and generic secrets.

use rajut_proto::{
    tls::{self as pb, secret::Type},
    type_url,
};

use super::{DecodeResult, Encoded, read, tls, write};
use crate::secret::{Secret, SecretValue};

/// Encodes.
pub fn encode_secret(secret: &Secret) -> Encoded {
    write::resource(&secret.name, type_url::SECRET, &to_message(secret))
}

pub(super) fn to_message(secret: &Secret) -> pb::Secret {
    pb::Secret {
        name: secret.name.to_string(),
        r#type: Some(match &secret.value {
            SecretValue::Certificate(certificate) => {
                Type::TlsCertificate(tls::encode_certificate(certificate))
            }
            SecretValue::Validation(context) => Type::ValidationContext(tls::encode_validation(context)),
        }),
    }
}

/// Decodes.
pub fn decode_secret(bytes: &[u8]) -> DecodeResult<Secret> {
    read::resource(
        bytes,
        |message: &pb::Secret| &message.name,
        |reader, message, place| {
            let pb::Secret { name, r#type } = message;
            let name = reader.named(&place.field("name"), &name, "the secret's name");
            let value = match reader.required(place, r#type, "tls_certificate or validation_context")? {
                Type::TlsCertificate(certificate) => SecretValue::Certificate(tls::decode_certificate(
                    reader,
                    &place.field("tls_certificate"),
                    &certificate,
                )?),
                Type::ValidationContext(context) => SecretValue::Validation(tls::decode_validation(
                    reader,
                    &place.field("validation_context"),
                    &context,
                )),
                // Refused by the list of supported fields.
                Type::SessionTicketKeys(_) | Type::GenericSecret(_) => return None,
            };
            Some(Secret { name, value })
        },
    )
}
