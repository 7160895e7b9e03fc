//! Key sets of token issuers (RFC 7517): what of one is of use, as every data plane is told it.
//!
//! Keys that verify nothing are left out, so that they can be no cause of trouble further on (Envoy refuses a whole set for one
//! key that it does not know): keys for encryption, secrets (`oct`, so that no `HS256` token is ever taken), RSA below 2048 bits,
//! unknown curves. What is kept is written anew with public parts alone. A key of a curve gets the one algorithm of that curve,
//! so that no data plane tries another with it.
//!
//! Bounds: [`KEYS_MAX`] keys, [`KEY_SET_BYTES_MAX`] bytes. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rajut_types::Text;
use serde_json::{Map, Value};

/// Keys of a set that are of use; it says so if there are more.
pub const KEYS_MAX: usize = 64;
/// A set's length as text.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;
/// RSA moduli, in bytes. Source: what the proxy's cryptography verifies.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
const OF_RSA: [&str; 6] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

/// Why a key set is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Longer than the bound.
    #[error("it is longer than 256 KiB")]
    TooLong,
    /// Not JSON.
    #[error("it is not JSON")]
    NotJson,
    /// No list `keys`.
    #[error("it has no list `keys`")]
    NoKeys,
    /// More keys than the bound.
    #[error("it has more than 64 keys")]
    TooMany,
    /// No key verifies anything.
    #[error("none of its keys can verify a token{}", .0.as_deref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoneUsable(Option<&'static str>),
}

/// A key set that verifies nothing, for where there is none yet: Envoy refuses a whole listener for a set without keys. The point's
/// `x` is the SHA-256 of `rajut: nobody has this key 1`, so nobody knows a private key for it (Istio does likewise).
pub const NO_KEYS: &str = r#"{"keys":[{"kty":"EC","kid":"no-keys-yet","alg":"ES256","crv":"P-256","x":"FAtzpHS34xWAchmXezpjTMw8Q-ZsCtACwSiPLmhu3Rc","y":"Ttc3qgl0QB934RIMmRtLb0kJV6pLtg2t7u_J_df1uiU"}]}"#;

/// The keys that are of use, written anew.
pub fn usable(text: &str) -> Result<Text, KeySetError> {
    if text.len() > KEY_SET_BYTES_MAX {
        return Err(KeySetError::TooLong);
    }
    let set: Value = serde_json::from_str(text).map_err(|_| KeySetError::NotJson)?;
    let keys = set
        .get("keys")
        .and_then(Value::as_array)
        .ok_or(KeySetError::NoKeys)?;
    if keys.len() > KEYS_MAX {
        return Err(KeySetError::TooMany);
    }
    let (mut kept, mut why) = (Vec::new(), None);
    for key in keys {
        match public(key) {
            Ok(key) => kept.push(key),
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    if kept.is_empty() {
        return Err(KeySetError::NoneUsable(why));
    }
    Ok(serde_json::json!({ "keys": kept }).to_string().into())
}

/// The public parts of a key that verifies signatures.
fn public(key: &Value) -> Result<Value, &'static str> {
    let text = |name: &str| match key.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        None => Ok(None),
        Some(_) => Err("a part of a key is not text"),
    };
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("a key is not for signatures");
    }
    if let Some(operations) = key.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|it| it == "verify")
    {
        return Err("a key is not for verifying");
    }
    let algorithm = text("alg")?;
    let sized = |name: &str, sizes: std::ops::RangeInclusive<usize>| {
        let value = text(name)?.ok_or("a part of a key is missing")?;
        let bytes = URL_SAFE_NO_PAD
            .decode(value.trim_end_matches('='))
            .map_err(|_| "a part of a key is not base64url")?;
        let length = bytes.iter().skip_while(|byte| **byte == 0).count();
        sizes
            .contains(&length)
            .then(|| value.trim_end_matches('=').to_owned())
            .ok_or("a key is too short or too long")
    };
    let mut out = Map::new();
    let mut put = |name: &str, value: String| out.insert(name.to_owned(), Value::String(value));
    let kind = text("kty")?.ok_or("a key has no `kty`")?;
    put("kty", kind.to_owned());
    if let Some(id) = text("kid")? {
        put("kid", id.to_owned());
    }
    match kind {
        "RSA" => {
            if let Some(algorithm) = algorithm {
                if !OF_RSA.contains(&algorithm) {
                    return Err("a key is of another algorithm");
                }
                put("alg", algorithm.to_owned());
            }
            put("n", sized("n", MODULUS)?);
            let exponent = sized("e", 1..=4)?;
            // Envoy refuses the set for any other.
            if !["AQAB", "Aw"].contains(&&*exponent) {
                return Err("a key has an unusual exponent");
            }
            put("e", exponent);
        }
        "EC" | "OKP" => {
            let curve = text("crv")?.ok_or("a key has no `crv`")?;
            let (only, size) = match (kind, curve) {
                ("EC", "P-256") => ("ES256", 32),
                ("EC", "P-384") => ("ES384", 48),
                ("EC", "P-521") => ("ES512", 66),
                ("OKP", "Ed25519") => ("EdDSA", 32),
                _ => return Err("a key is of another curve"),
            };
            // RFC 9864 has a name of its own for the curve.
            if algorithm.is_some_and(|it| it != only && !(only == "EdDSA" && it == "Ed25519")) {
                return Err("a key is of another algorithm than its curve");
            }
            put("alg", only.to_owned());
            put("crv", curve.to_owned());
            put("x", sized("x", 1..=size)?);
            if kind == "EC" {
                put("y", sized("y", 1..=size)?);
            }
        }
        _ => return Err("a key is not of RSA or a curve"),
    }
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(bytes: usize, more: &str) -> String {
        let modulus = URL_SAFE_NO_PAD.encode(vec![0xc1; bytes]);
        format!(r#"{{"kty":"RSA","kid":"a","n":"{modulus}","e":"AQAB"{more}}}"#)
    }

    fn set(keys: &[String]) -> Result<Text, KeySetError> {
        usable(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
    }

    #[test]
    fn what_verifies_nothing_is_left_out_and_private_parts_with_it() {
        let secret = r#"{"kty":"oct","k":"c2VjcmV0","kid":"s"}"#.to_owned();
        let encrypts = rsa(256, r#","use":"enc""#);
        let good = rsa(256, r#","use":"sig","alg":"RS256","d":"AAAA","x5c":["x"]"#);
        let kept: Value = serde_json::from_str(&set(&[secret, encrypts, good]).unwrap()).unwrap();
        let keys = kept["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 1);
        let names: Vec<&String> = keys[0].as_object().unwrap().keys().collect();
        assert_eq!(names, ["kty", "kid", "alg", "n", "e"]);
    }

    #[test]
    fn a_curve_has_one_algorithm() {
        let (x, short) = (URL_SAFE_NO_PAD.encode([7; 32]), URL_SAFE_NO_PAD.encode([7; 33]));
        let curve = |curve: &str, x: &str, more: &str| {
            let key = format!(r#"{{"kty":"EC","crv":"{curve}","x":"{x}","y":"{x}"{more}}}"#);
            set(&[key])
        };
        assert!(curve("P-256", &x, "").unwrap().contains(r#""alg":"ES256""#));
        assert!(curve("P-256", &x, r#","alg":"ES256""#).is_ok());
        for bad in [
            curve("P-256", &x, r#","alg":"ES384""#),
            curve("P-256", &x, r#","alg":"HS256""#),
            curve("secp256k1", &x, ""),
            curve("P-256", &short, ""),
        ] {
            assert!(matches!(bad, Err(KeySetError::NoneUsable(Some(_)))), "{bad:?}");
        }
        let edwards = |alg: &str| set(&[format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{alg}}}"#)]);
        assert!(edwards("").unwrap().contains(r#""alg":"EdDSA""#));
        assert!(
            edwards(r#","alg":"Ed25519""#)
                .unwrap()
                .contains(r#""alg":"EdDSA""#)
        );
    }

    #[test]
    fn a_set_of_no_use_says_why() {
        let weak = rsa(128, "");
        assert_eq!(
            set(&[weak]),
            Err(KeySetError::NoneUsable(Some("a key is too short or too long")))
        );
        assert_eq!(set(&[]), Err(KeySetError::NoneUsable(None)));
        assert_eq!(usable(NO_KEYS).as_deref(), Ok(NO_KEYS));
        assert_eq!(usable("{"), Err(KeySetError::NotJson));
        assert_eq!(usable("{}"), Err(KeySetError::NoKeys));
        assert_eq!(
            usable(&" ".repeat(KEY_SET_BYTES_MAX + 1)),
            Err(KeySetError::TooLong)
        );
        assert_eq!(set(&vec![rsa(256, ""); KEYS_MAX + 1]), Err(KeySetError::TooMany));
        assert!(set(&vec![rsa(256, ""); KEYS_MAX]).is_ok());
        let confused = rsa(256, r#","alg":"HS256""#);
        assert!(matches!(set(&[confused]), Err(KeySetError::NoneUsable(Some(_)))));
    }
}
