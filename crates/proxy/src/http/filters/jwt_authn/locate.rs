//! Where tokens stand in a request: headers, parameters of the query, cookies; and taking them out.

use std::borrow::Cow;

use bytes::Bytes;
use rajut_codec::Known;
use rajut_ir::jwt::JwtProvider;
use rajut_types::Text;

use super::TOKENS_MAX;
use crate::http::record::Record;

/// A token and where it stands.
#[derive(Debug)]
pub(super) enum Found {
    /// In a header of that name.
    Header { name: Text, token: Vec<u8> },
    /// In a parameter of that name.
    Param { name: Text, token: Vec<u8> },
    /// In a cookie of that name.
    Cookie { name: Text, token: Vec<u8> },
}

impl Found {
    /// The token.
    pub(super) fn token(&self) -> &[u8] {
        match self {
            Self::Header { token, .. } | Self::Param { token, .. } | Self::Cookie { token, .. } => token,
        }
    }

    /// Takes it out of the request, and all others of that header, parameter or cookie.
    pub(super) fn take_out(&self, record: &mut Record) {
        match self {
            Self::Header { name, .. } => {
                record.head.fields.remove(&**name);
            }
            Self::Param { name, .. } => {
                if let Some(path) = without_param(&record.head.path_and_query, name) {
                    record.head.path_and_query = path;
                }
            }
            Self::Cookie { name, .. } => remove_cookie(record, name),
        }
    }
}

/// The tokens where a provider looks; `None`: too many.
pub(super) fn find(provider: &JwtProvider, record: &Record) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    let given = [
        provider.from_headers.is_empty(),
        provider.from_params.is_empty(),
        provider.from_cookies.is_empty(),
    ];
    if given == [true; 3] {
        in_header(record, &"authorization".into(), "Bearer ", &mut found);
        in_query(record, &"access_token".into(), &mut found);
    }
    for (name, prefix) in &provider.from_headers {
        in_header(record, name, prefix, &mut found);
    }
    for name in &provider.from_params {
        in_query(record, name, &mut found);
    }
    for name in &provider.from_cookies {
        in_cookies(record, name, &mut found);
    }
    (found.len() <= TOKENS_MAX).then_some(found)
}

/// As Envoy has it: the prefix may stand anywhere in the value, the token is what follows.
fn in_header(record: &Record, name: &Text, prefix: &str, found: &mut Vec<Found>) {
    for value in record.head.fields.get_all(&**name) {
        let prefix = prefix.as_bytes();
        let token = if prefix.is_empty() {
            Some(value)
        } else {
            let at = value.windows(prefix.len()).position(|window| window == prefix);
            at.map(|at| {
                let rest = &value[at + prefix.len()..];
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
                rest.iter()
                    .position(is_part)
                    .map_or(value, |start| &rest[start..])
            })
        };
        found.extend(token.map(|token| Found::Header {
            name: name.clone(),
            token: token.to_vec(),
        }));
    }
}

fn in_query(record: &Record, name: &Text, found: &mut Vec<Found>) {
    let Some((_, query)) = parted(&record.head.path_and_query) else {
        return;
    };
    for pair in query.split(|byte| *byte == b'&') {
        let (key, value) = key_value(pair);
        if decoded(key) == name.as_bytes() {
            found.push(Found::Param {
                name: name.clone(),
                token: decoded(value).into_owned(),
            });
        }
    }
}

fn in_cookies(record: &Record, name: &Text, found: &mut Vec<Found>) {
    for value in record.head.fields.get_all(Known::Cookie) {
        for pair in value.split(|byte| *byte == b';') {
            let (key, value) = key_value(pair.trim_ascii());
            if key == name.as_bytes() {
                let value = value
                    .strip_prefix(b"\"")
                    .and_then(|it| it.strip_suffix(b"\""))
                    .unwrap_or(value);
                found.push(Found::Cookie {
                    name: name.clone(),
                    token: value.to_vec(),
                });
            }
        }
    }
}

fn remove_cookie(record: &mut Record, name: &str) {
    let fields = &mut record.head.fields;
    let values: Vec<Vec<u8>> = fields.get_all(Known::Cookie).map(<[u8]>::to_vec).collect();
    fields.remove(Known::Cookie);
    for value in values {
        let kept: Vec<&[u8]> = value
            .split(|byte| *byte == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|pair| key_value(pair).0 != name.as_bytes())
            .collect();
        if !kept.is_empty() {
            // It had room for more before.
            let _ = fields.append(Known::Cookie, kept.join(&b"; "[..]));
        }
    }
}

/// Path and query.
fn parted(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = target.iter().position(|byte| *byte == b'?')?;
    Some((&target[..at], &target[at + 1..]))
}

fn key_value(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, b""),
    }
}

/// The target without a parameter; `None` where it has none of that name.
fn without_param(target: &Bytes, name: &str) -> Option<Bytes> {
    let (path, query) = parted(target)?;
    let is_it = |pair: &&[u8]| decoded(key_value(pair).0) == name.as_bytes();
    let pairs = || query.split(|byte| *byte == b'&');
    if !pairs().any(|pair| is_it(&pair)) {
        return None;
    }
    let kept: Vec<&[u8]> = pairs().filter(|pair| !is_it(pair)).collect();
    let mut out = path.to_vec();
    if !kept.is_empty() {
        out.push(b'?');
        out.extend(kept.join(&b'&'));
    }
    Some(out.into())
}

/// Percent-decoded; what is no escape stays as it is.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let escape = (*byte == b'%')
            .then(|| digit(text.get(at + 1)).zip(digit(text.get(at + 2))))
            .flatten();
        let escape = escape.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        out.push(escape.unwrap_or(*byte));
        at += if escape.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}
