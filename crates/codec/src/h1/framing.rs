//! What a head says about its message: how long the body is, whether the connection persists, whether it asks for an
//! upgrade. The rules of RFC 9112 §6.3, in the strict reading: a message that two recipients could frame differently
//! is refused. Pure functions on a lexed head.

use super::{BodyLength, DecodeError};
use crate::{
    fields::{Fields, Known, KnownSet, is_token_byte, trim},
    message::{Method, RequestHead, TargetForm, Version},
};

/// Options that one `connection` header may have in all.
const MAX_CONNECTION_OPTIONS: usize = 64;

/// The options of all `connection` fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

impl ConnectionOptions {
    pub(crate) fn parse(fields: &Fields) -> Result<Self, DecodeError> {
        let mut options = Self::default();
        let mut count = 0;
        for value in fields.get_all(Known::Connection) {
            for option in value.split(|byte| *byte == b',').map(trim) {
                count += 1;
                if count > MAX_CONNECTION_OPTIONS || !option.iter().all(|byte| is_token_byte(*byte)) {
                    return Err(DecodeError::Connection);
                }
                match option.len() {
                    5 => options.close |= option.eq_ignore_ascii_case(b"close"),
                    10 => options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive"),
                    7 => options.upgrade |= option.eq_ignore_ascii_case(b"upgrade"),
                    _ => {}
                }
            }
        }
        Ok(options)
    }

    /// RFC 9112 §9.3.
    pub(crate) const fn persists(self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 | Version::Http2 => !self.close,
        }
    }
}

/// What frames a message, after the checks that requests and responses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// RFC 9112 §6.1, §6.3: at most one of the two fields, once, and well formed.
pub(crate) fn framing(fields: &Fields, repeated: KnownSet, version: Version) -> Result<Framing, DecodeError> {
    let length = fields.get(Known::ContentLength);
    let Some(coding) = fields.get(Known::TransferEncoding) else {
        return match length {
            None => Ok(Framing::None),
            Some(_) if repeated.contains(Known::ContentLength) => Err(DecodeError::ContentLengthDuplicate),
            Some(value) => content_length(value).map(Framing::Length),
        };
    };
    if length.is_some() {
        return Err(DecodeError::LengthAndTransferEncoding);
    }
    if version == Version::Http10 {
        return Err(DecodeError::TransferEncodingInHttp10);
    }
    if repeated.contains(Known::TransferEncoding) {
        return Err(DecodeError::TransferEncoding);
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    // `gzip, chunked` is well formed but not ours; anything else does not end in one `chunked`.
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut codings = coding.rsplit(|byte| *byte == b',').map(trim);
    let well_formed = codings.next().is_some_and(is_chunked)
        && codings.all(|coding| {
            !coding.is_empty() && !is_chunked(coding) && coding.iter().all(|b| is_token_byte(*b))
        });
    Err(if well_formed {
        DecodeError::TransferEncodingUnsupported
    } else {
        DecodeError::TransferEncoding
    })
}

/// One decimal number without sign, space or list.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, DecodeError> {
    if value.contains(&b',') {
        return Err(DecodeError::ContentLengthDuplicate);
    }
    if value.is_empty() {
        return Err(DecodeError::ContentLength);
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte
            .is_ascii_digit()
            .then(|| u64::from(byte - b'0'))
            .ok_or(DecodeError::ContentLength)?;
        number
            .checked_mul(10)
            .and_then(|number| number.checked_add(digit))
            .ok_or(DecodeError::ContentLength)
    })
}

/// What a request's head says beyond its fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFacts {
    pub(crate) body: BodyLength,
    pub(crate) persists: bool,
    pub(crate) upgrade: bool,
    pub(crate) expect_continue: bool,
}

/// Judges a lexed request and brings its authority and `host` together (RFC 9112 §3.2, §3.3).
pub(crate) fn request(head: &mut RequestHead, repeated: KnownSet) -> Result<RequestFacts, DecodeError> {
    resolve_host(head, repeated)?;
    let fields = &head.fields;
    let body = match framing(fields, repeated, head.version)? {
        Framing::None | Framing::Length(0) => BodyLength::Empty,
        Framing::Length(length) => BodyLength::Exact(length),
        Framing::Chunked => BodyLength::Unknown,
    };
    if head.method == Method::Connect && body != BodyLength::Empty {
        return Err(DecodeError::ConnectBody);
    }
    let options = ConnectionOptions::parse(fields)?;
    let modern = head.version == Version::Http11;
    Ok(RequestFacts {
        body,
        persists: options.persists(head.version),
        // RFC 9110 §7.8: ignored in HTTP/1.0. An upgrade to h2c would carry requests past every check of ours.
        upgrade: modern && options.upgrade && is_upgrade(fields),
        // RFC 9110 §10.1.1: ignored in HTTP/1.0.
        expect_continue: modern
            && fields
                .get(Known::Expect)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
    })
}

/// Whether `upgrade` asks for something other than HTTP/2.
pub(crate) fn is_upgrade(fields: &Fields) -> bool {
    let mut any = false;
    for protocol in fields
        .get_all(Known::Upgrade)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(trim)
    {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"h2c")
            || name.eq_ignore_ascii_case(b"h2")
            || name.eq_ignore_ascii_case(b"http")
        {
            return false;
        }
        any |= !name.is_empty();
    }
    any
}

fn resolve_host(head: &mut RequestHead, repeated: KnownSet) -> Result<(), DecodeError> {
    if repeated.contains(Known::Host) {
        return Err(DecodeError::HostDuplicate);
    }
    let Some(host) = head.fields.get(Known::Host) else {
        return if head.version == Version::Http10 {
            Ok(())
        } else {
            Err(DecodeError::HostMissing)
        };
    };
    super::head::check_authority(host, false)?;
    if head.form == TargetForm::Authority || !head.authority.is_empty() {
        // The target wins; what is forwarded must not say two things.
        if host != head.authority {
            let authority = head.authority.clone();
            head.fields
                .set(Known::Host, &authority)
                .map_err(|_| DecodeError::HostInvalid)?;
        }
    } else {
        head.authority = head.fields.get_shared(Known::Host).unwrap_or_default();
    }
    Ok(())
}

/// The length of a response's body (RFC 9112 §6.3), which also depends on the request's method.
pub(crate) fn response(
    status: u16,
    fields: &Fields,
    repeated: KnownSet,
    version: Version,
    method: ResponseTo,
) -> Result<BodyLength, DecodeError> {
    let framing = framing(fields, repeated, version)?;
    match (status, method) {
        (101, _) | (200..=299, ResponseTo::Connect) => return Ok(BodyLength::Tunnel),
        (100..=199 | 204 | 304, _) | (_, ResponseTo::Head) => return Ok(BodyLength::Empty),
        _ => {}
    }
    Ok(match framing {
        Framing::None | Framing::Chunked => BodyLength::Unknown,
        Framing::Length(0) => BodyLength::Empty,
        Framing::Length(length) => BodyLength::Exact(length),
    })
}

/// What a response needs to know of the request it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResponseTo {
    Head,
    Connect,
    #[default]
    Other,
}

impl From<&Method> for ResponseTo {
    fn from(method: &Method) -> Self {
        match method {
            Method::Head => Self::Head,
            Method::Connect => Self::Connect,
            _ => Self::Other,
        }
    }
}
