//! WebSocket upgrades across versions: an HTTP/1 upgrade (RFC 6455) and an HTTP/2 extended CONNECT (RFC 8441) are the
//! same exchange; what one has and the other lacks is made here.
//!
//! Where both hops are HTTP/1, key and accept value pass through untouched, also over an HTTP/2 hop between them.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rajut_codec::Known;

use super::record::Record;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &str = "sec-websocket-key";
const ACCEPT: &str = "sec-websocket-accept";

/// An upgrade that came over HTTP/2 without a key gets one, for HTTP/1 servers that insist on it.
pub(crate) fn complete_request(record: &mut Record) {
    let is_websocket = record
        .head
        .fields
        .get(Known::Upgrade)
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if !is_websocket || record.head.fields.contains(KEY) {
        return;
    }
    let worker = record.worker();
    let mut nonce = [0_u8; 16];
    nonce[..8].copy_from_slice(&worker.random().to_be_bytes());
    nonce[8..].copy_from_slice(&worker.random().to_be_bytes());
    // The bound on edits is the only reason to fail; the server then answers 400.
    let _ = record.head.fields.set(KEY, base64(&nonce));
    let _ = record.head.fields.set_default("sec-websocket-version", "13");
}

/// Brings the answer that starts a tunnel into the form of the client's version.
pub(crate) fn translate_answer(record: &mut Record, to_h1: bool) {
    let Some(protocol) = record.head.fields.get_shared(Known::Upgrade) else {
        return;
    };
    let fields = &mut record.response.fields;
    if !to_h1 {
        if record.response.status == 101 {
            record.response.status = 200;
            record.response.reason = bytes::Bytes::new();
        }
        fields.remove(Known::Upgrade);
        return;
    }
    if record.response.status != 101 {
        record.response.status = 101;
        record.response.reason = bytes::Bytes::new();
    }
    // A decoded head has room for these edits.
    let _ = fields.set_default(Known::Upgrade, protocol);
    if !fields.contains(ACCEPT)
        && let Some(key) = record.head.fields.get(KEY)
    {
        let _ = fields.set(ACCEPT, accept_value(key));
    }
}

fn accept_value(key: &[u8]) -> String {
    let joined = [key, GUID].concat();
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &joined).as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_rfc_6455() {
        assert_eq!(
            accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(base64(b"a"), "YQ==");
    }
}
