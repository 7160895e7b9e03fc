//! What a proxy takes out of a message before it sends it on (RFC 9110 §7.6.1): the fields about the connection it
//! came by. The same for HTTP/1 and HTTP/2, in both directions.
//!
//! A client names in `connection` which of its fields end at the next hop. It must not name fields that others rely
//! on (`authorization`, `x-forwarded-for`, …): dropping those on a client's word would let it strip what an earlier
//! proxy vouched for. Such a message is refused.

use thiserror::Error;

use crate::fields::{Fields, Known, trim};

/// Whether the fields of an upgrade stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// The message offers or accepts an upgrade that is to be carried through.
    Keep,
    /// There is none, or it ends here.
    Drop,
}

/// The message names in `connection` a field that must reach the other side; answer 400.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the connection field names a protected field")]
pub struct ProtectedField;

/// Fields that `connection` must not name. Those that frame or are hop-by-hop anyway are handled apart.
const PROTECTED: [Known; 16] = [
    Known::Host,
    Known::ContentLength,
    Known::ContentType,
    Known::ContentEncoding,
    Known::Authorization,
    Known::Cookie,
    Known::CacheControl,
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedProto,
    Known::XForwardedClientCert,
    Known::XRequestId,
    Known::Traceparent,
    Known::GrpcStatus,
    Known::SetCookie,
];

/// Takes the hop-by-hop fields out of a request. `te: trailers` stays (gRPC needs it), every other `te` goes.
pub fn strip_request(fields: &mut Fields, upgrade: Upgrade) -> Result<(), ProtectedField> {
    strip(fields, upgrade)?;
    if let Some(value) = fields.get(Known::Te) {
        let trailers = fields
            .get_all(Known::Te)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|coding| trim(coding).eq_ignore_ascii_case(b"trailers"));
        if !trailers {
            fields.remove(Known::Te);
        } else if value != b"trailers" || fields.count(Known::Te) > 1 {
            // A valid value; only the bound on edits could refuse it, and then the field goes.
            if fields.set(Known::Te, "trailers").is_err() {
                fields.remove(Known::Te);
            }
        }
    }
    Ok(())
}

/// Takes the hop-by-hop fields out of a response.
pub fn strip_response(fields: &mut Fields, upgrade: Upgrade) -> Result<(), ProtectedField> {
    strip(fields, upgrade)?;
    fields.remove(Known::Te);
    Ok(())
}

fn strip(fields: &mut Fields, upgrade: Upgrade) -> Result<(), ProtectedField> {
    if fields.contains(Known::Connection) {
        let named = named_fields(fields)?;
        for name in &named {
            fields.remove(name.as_slice());
        }
        fields.remove(Known::Connection);
    }
    for name in [
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Http2Settings,
    ] {
        if fields.contains(name) {
            fields.remove(name);
        }
    }
    if upgrade == Upgrade::Drop {
        fields.remove(Known::Upgrade);
    }
    Ok(())
}

/// The names in `connection` that are to be removed beside the usual ones; usually none, without allocation.
fn named_fields(fields: &Fields) -> Result<Vec<Vec<u8>>, ProtectedField> {
    let mut named = Vec::new();
    for option in fields
        .get_all(Known::Connection)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(trim)
    {
        match Known::classify(option) {
            Some(known) if PROTECTED.contains(&known) => return Err(ProtectedField),
            Some(Known::KeepAlive | Known::Upgrade | Known::Te | Known::Connection) => continue,
            _ => {}
        }
        if option.is_empty() || option.eq_ignore_ascii_case(b"close") || !fields.contains(option) {
            continue;
        }
        named.push(option.to_vec());
    }
    Ok(named)
}
