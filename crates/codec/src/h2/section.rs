//! One header section as it comes out of the decompression, and the rules that make a message of it (RFC 9113 §8.2, §8.3).
//!
//! The decoder writes each field as a line into the block that will be the message's; pseudo header fields stand in the same
//! block beside the fields. The first rule that is broken is noted and the rest decoded all the same, as the compression's
//! table needs it. Bounds: [`SectionLimits`]; what exceeds them is not kept.

use std::ops::Range;

use super::{
    DecodeError,
    hpack::tables::{Class, ENTRY_OVERHEAD, Entry, LINE_OVERHEAD, Pseudo},
};
use crate::{
    fields::{Fields, Known, KnownSet, Received},
    h1::{self, BodyLength, Request, Response},
    message::{Method, RequestHead, ResponseHead, Scheme, TargetForm, Version, is_path_byte},
};

/// What a section may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionLimits {
    /// Bytes, counted as `SETTINGS_MAX_HEADER_LIST_SIZE` does: 32 more than name and value for each field.
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// How a field was represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    /// No table on the way may hold it (RFC 7541 §6.2.3).
    NeverIndexed,
}

/// What the last section took, so that the next one is allocated once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeHint {
    lines: usize,
    bytes: usize,
}

impl Default for SizeHint {
    fn default() -> Self {
        Self {
            lines: 16,
            bytes: 512,
        }
    }
}

/// Lines that are usually added on the way.
const ADDED: usize = 8;
/// More than this is not taken for granted because one section had it.
const HINT_MAX: usize = 4096;

/// A section that is being decoded.
#[derive(Debug)]
pub(crate) struct Section {
    received: Received,
    /// Where the values of the pseudo header fields are; empty at 0 where there is none (a value never starts there).
    pseudo: [Range<usize>; 6],
    limits: SectionLimits,
    size: usize,
    fields: usize,
    broken: Option<DecodeError>,
}

/// Fields about the connection, which HTTP/2 has no use for (RFC 9113 §8.2.2).
const CONNECTION_FIELDS: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

impl Section {
    pub(crate) fn new(limits: SectionLimits, hint: SizeHint) -> Self {
        Self {
            received: Received::with_capacity(hint.lines + ADDED, hint.bytes),
            pseudo: [const { 0..0 }; 6],
            limits,
            size: 0,
            fields: 0,
            broken: None,
        }
    }

    pub(crate) fn hint(&mut self) -> SizeHint {
        SizeHint {
            lines: self.fields.min(HINT_MAX / 16),
            bytes: self.received.block_mut().len().min(HINT_MAX),
        }
    }

    /// The block, to whose end a line may be written for [`Section::take`].
    pub(crate) fn block_mut(&mut self) -> &mut Vec<u8> {
        self.received.block_mut()
    }

    /// Takes a field that the compression's tables hold.
    pub(crate) fn copy(&mut self, entry: Entry<'_>) {
        if self.size + entry.size() > self.limits.bytes {
            self.note(DecodeError::HeadTooLarge);
            self.size = self.limits.bytes;
            return;
        }
        let block = self.received.block_mut();
        let start = block.len();
        block.extend_from_slice(entry.line);
        self.take(start, entry.name_len, entry.class, entry.is_valid, Mark::None);
    }

    /// Takes the line that starts at `start` and ends the block.
    pub(crate) fn take(&mut self, start: usize, name_len: usize, class: Class, is_valid: bool, mark: Mark) {
        let block = self.received.block_mut();
        let end = block.len();
        self.size += end - start - LINE_OVERHEAD + ENTRY_OVERHEAD;
        if self.size > self.limits.bytes {
            block.truncate(start);
            self.size = self.limits.bytes;
            self.note(DecodeError::HeadTooLarge);
            return;
        }
        if !is_valid {
            block.truncate(start);
            self.note(DecodeError::HeaderValue);
            return;
        }
        match class {
            Class::Field(known) => {
                self.fields += 1;
                if self.fields > self.limits.fields {
                    block.truncate(start);
                    self.note(DecodeError::TooManyHeaders);
                    return;
                }
                if known.is_some_and(|known| CONNECTION_FIELDS.contains(known)) {
                    self.note(DecodeError::ConnectionField);
                }
                let never_indexed = mark == Mark::NeverIndexed;
                if !self.received.note_line(start, name_len, known, never_indexed) {
                    self.note(DecodeError::TooManyHeaders);
                }
            }
            Class::Pseudo(pseudo) => {
                let place = &mut self.pseudo[pseudo as usize];
                let is_second = place.start != 0;
                *place = start + name_len + 2..end - 2;
                if is_second {
                    self.note(DecodeError::PseudoDuplicate);
                } else if self.fields > 0 {
                    self.note(DecodeError::PseudoOrder);
                }
            }
            Class::Invalid => {
                let is_pseudo = name_len > 0 && block.get(start) == Some(&b':');
                block.truncate(start);
                self.note(if is_pseudo {
                    DecodeError::PseudoUnknown
                } else {
                    DecodeError::HeaderName
                });
            }
        }
    }

    /// The first broken rule counts.
    #[cold]
    fn note(&mut self, error: DecodeError) {
        self.broken.get_or_insert(error);
    }

    /// What has come, `name: value` each, and the first broken rule.
    #[cfg(test)]
    pub(crate) fn lines(&mut self) -> (Vec<String>, Option<DecodeError>) {
        let text = String::from_utf8_lossy(self.received.block_mut()).into_owned();
        let lines = text.split_terminator("\r\n").map(str::to_owned).collect();
        (lines, self.broken)
    }

    /// The fields and where the pseudo header fields are in their block.
    fn finish(self) -> Result<(Fields, Places, KnownSet), DecodeError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let repeated = self.received.repeated();
        let mut fields = self.received.finish();
        if repeated.contains(Known::ContentLength) {
            return Err(DecodeError::ContentLength);
        }
        if repeated.contains(Known::Cookie) {
            join_cookies(&mut fields)?;
        }
        Ok((fields, Places(self.pseudo), repeated))
    }

    /// A request (RFC 9113 §8.3.1). `is_end`: nothing follows. `allow_protocol`: extended CONNECT was offered.
    pub(crate) fn into_request(self, is_end: bool, allow_protocol: bool) -> Result<Request, DecodeError> {
        let (mut fields, places, repeated) = self.finish()?;
        if places.has(Pseudo::Status) {
            return Err(DecodeError::PseudoUnknown);
        }
        let method = places
            .of(Pseudo::Method, &fields)
            .ok_or(DecodeError::PseudoMissing)?;
        let method = Method::known(&method)
            .or_else(|| Method::from_bytes(&method))
            .ok_or(DecodeError::Method)?;
        let protocol = places.of(Pseudo::Protocol, &fields);
        if protocol.is_some() && (!allow_protocol || method != Method::Connect) {
            return Err(DecodeError::PseudoUnknown);
        }
        let tunnel = method == Method::Connect;
        let is_plain_connect = tunnel && protocol.is_none();
        let (scheme, path_and_query, form) = target(&places, &fields, &method, is_plain_connect)?;
        let authority = authority(&places, &mut fields, repeated, is_plain_connect)?;
        if let Some(te) = fields.get(Known::Te)
            && (te != b"trailers" || repeated.contains(Known::Te))
        {
            return Err(DecodeError::Te);
        }
        let length = declared_length(&fields)?;
        let expect_continue = fields
            .get(Known::Expect)
            .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        if let Some(protocol) = &protocol {
            fields
                .set(Known::Upgrade, protocol)
                .map_err(|_| DecodeError::HeaderValue)?;
        }
        let body = match length {
            Some(length) if is_end && length > 0 => return Err(DecodeError::ContentLengthMismatch),
            _ if tunnel && !is_end => BodyLength::Tunnel,
            length => body_length(length, is_end),
        };
        Ok(Request {
            head: RequestHead {
                method: if protocol.is_some() { Method::Get } else { method },
                form,
                scheme,
                authority,
                path_and_query,
                version: Version::Http2,
                fields,
            },
            body,
            expect_continue,
            upgrade: protocol.is_some(),
        })
    }

    /// A response (RFC 9113 §8.3.2). `bodiless`: whatever its length says, it has no body (HEAD).
    pub(crate) fn into_response(self, is_end: bool, bodiless: bool) -> Result<Response, DecodeError> {
        let (fields, places, _) = self.finish()?;
        if places.count() > usize::from(places.has(Pseudo::Status)) {
            return Err(DecodeError::PseudoUnknown);
        }
        let status = match fields_part(&places, Pseudo::Status, &fields).as_deref() {
            Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            Some(_) => return Err(DecodeError::Status),
            None => return Err(DecodeError::PseudoMissing),
        };
        // RFC 9113 §8.6: there is no switching of protocols in HTTP/2.
        if status == 101 {
            return Err(DecodeError::Status);
        }
        let length = declared_length(&fields)?;
        let bodiless = bodiless || matches!(status, 204 | 304);
        if is_end && !bodiless && length.is_some_and(|length| length > 0) {
            return Err(DecodeError::ContentLengthMismatch);
        }
        Ok(Response {
            head: ResponseHead {
                status,
                version: Version::Http2,
                fields,
                ..ResponseHead::default()
            },
            body: body_length(length.filter(|_| !bodiless), is_end),
        })
    }

    /// A trailer section (RFC 9113 §8.1).
    pub(crate) fn into_trailers(self) -> Result<Fields, DecodeError> {
        let (fields, places, _) = self.finish().map_err(|error| match error {
            DecodeError::HeadTooLarge | DecodeError::TooManyHeaders => DecodeError::TrailersTooLarge,
            DecodeError::ContentLength => DecodeError::TrailerForbidden,
            error => error,
        })?;
        if places.count() > 0 {
            return Err(DecodeError::PseudoInTrailers);
        }
        // RFC 9110 §6.5.1: what frames or routes.
        if fields.contains(Known::ContentLength) || fields.contains(Known::Host) {
            return Err(DecodeError::TrailerForbidden);
        }
        Ok(fields)
    }
}

/// Where the values of the pseudo header fields are in the block.
struct Places([Range<usize>; 6]);

impl Places {
    fn has(&self, pseudo: Pseudo) -> bool {
        self.0[pseudo as usize].start != 0
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|place| place.start != 0).count()
    }

    fn of(&self, pseudo: Pseudo, fields: &Fields) -> Option<bytes::Bytes> {
        fields_part(self, pseudo, fields)
    }
}

fn fields_part(places: &Places, pseudo: Pseudo, fields: &Fields) -> Option<bytes::Bytes> {
    places
        .has(pseudo)
        .then(|| fields.part(places.0[pseudo as usize].clone()))
}

/// Scheme, path with query and form of a request's target.
fn target(
    places: &Places,
    fields: &Fields,
    method: &Method,
    is_plain_connect: bool,
) -> Result<(Option<Scheme>, bytes::Bytes, TargetForm), DecodeError> {
    if is_plain_connect {
        return if places.has(Pseudo::Scheme) || places.has(Pseudo::Path) {
            Err(DecodeError::Target)
        } else {
            Ok((None, bytes::Bytes::new(), TargetForm::Authority))
        };
    }
    let scheme = places
        .of(Pseudo::Scheme, fields)
        .ok_or(DecodeError::PseudoMissing)?;
    let scheme = Scheme::from_bytes(&scheme).ok_or(DecodeError::Scheme)?;
    let path = places
        .of(Pseudo::Path, fields)
        .ok_or(DecodeError::PseudoMissing)?;
    let is_valid = path.iter().fold(true, |valid, byte| valid & is_path_byte(*byte));
    let form = match path.first() {
        Some(b'/') if is_valid => TargetForm::Origin,
        Some(b'*') if path.len() == 1 && *method == Method::Options => TargetForm::Asterisk,
        _ => return Err(DecodeError::Target),
    };
    Ok((Some(scheme), path, form))
}

/// The authority, from `:authority` or else from `host` (RFC 9113 §8.3.1); `host` is taken out, so that nobody behind us can
/// read another one. Empty where there is none: what is to be answered then is the caller's to say.
fn authority(
    places: &Places,
    fields: &mut Fields,
    repeated: KnownSet,
    needs_port: bool,
) -> Result<bytes::Bytes, DecodeError> {
    let named = places
        .of(Pseudo::Authority, fields)
        .filter(|named| !named.is_empty());
    let authority = match (named, fields.get_shared(Known::Host)) {
        // Envoy leaves `host` out too.
        (Some(named), _) => named,
        (None, _) if repeated.contains(Known::Host) => return Err(DecodeError::HostDuplicate),
        (None, Some(host)) if !needs_port => host,
        (None, _) if needs_port => return Err(DecodeError::HostMissing),
        (None, _) => return Ok(bytes::Bytes::new()),
    };
    if !authority.is_empty() {
        h1::check_authority(&authority, needs_port).map_err(|_| DecodeError::HostInvalid)?;
    }
    fields.remove(Known::Host);
    Ok(authority)
}

fn declared_length(fields: &Fields) -> Result<Option<u64>, DecodeError> {
    match fields.get(Known::ContentLength) {
        Some(value) => h1::content_length(value)
            .map(Some)
            .map_err(|_| DecodeError::ContentLength),
        None => Ok(None),
    }
}

const fn body_length(length: Option<u64>, is_end: bool) -> BodyLength {
    match length {
        _ if is_end => BodyLength::Empty,
        // Its end comes by itself, perhaps behind trailers.
        Some(0) | None => BodyLength::Unknown,
        Some(length) => BodyLength::Exact(length),
    }
}

/// Makes one field of the crumbs of a cookie (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut Fields) -> Result<(), DecodeError> {
    let mut joined = Vec::new();
    for crumb in fields.get_all(Known::Cookie) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb);
    }
    fields
        .set(Known::Cookie, joined)
        .map_err(|_| DecodeError::HeadTooLarge)
}
