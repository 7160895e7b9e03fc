//! An issuer of tokens: a key, and what it signs.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
        RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(super) const ALGORITHMS: [&str; 10] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Curve(EcdsaKeyPair, &'static str),
    Edwards(Ed25519KeyPair),
}

/// One key.
pub(super) struct Issuer {
    pair: Pair,
    pub(super) algorithm: &'static str,
    /// The key's name.
    pub(super) id: &'static str,
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970, so many from now.
pub(super) fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(0) + seconds
}

impl Issuer {
    pub(super) fn new(algorithm: &'static str) -> Self {
        let rsa = |encoding| Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"), encoding);
        let curve = |signing: &'static EcdsaSigningAlgorithm, name| {
            Pair::Curve(EcdsaKeyPair::generate(signing).expect("a key"), name)
        };
        let pair = match algorithm {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "ES256" => curve(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => curve(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => curve(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            _ => Pair::Edwards(Ed25519KeyPair::generate().expect("a key")),
        };
        Self {
            pair,
            algorithm,
            id: "one",
        }
    }

    /// The public key.
    pub(super) fn key(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair, _) => {
                // RFC 8017 A.1.1: a sequence of the modulus and the exponent.
                let der = pair.public_key().as_ref();
                json!({"kty": "RSA", "kid": self.id, "n": b64(&der[9..265]), "e": "AQAB"})
            }
            Pair::Curve(pair, name) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": self.id, "crv": name, "x": b64(x), "y": b64(y)})
            }
            Pair::Edwards(pair) => {
                json!({"kty": "OKP", "kid": self.id, "crv": "Ed25519", "x": b64(pair.public_key())})
            }
        }
    }

    /// The set of this key alone.
    pub(super) fn keys(&self) -> String {
        json!({"keys": [self.key()]}).to_string()
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, text, &mut out)
                    .expect("a signature");
                out
            }
            Pair::Curve(pair, _) => pair.sign(&random, text).expect("a signature").as_ref().to_vec(),
            Pair::Edwards(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }

    /// A token of these two parts.
    pub(super) fn raw(&self, head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(head), b64(claims));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    /// A token with these claims, for an hour where they say nothing else.
    pub(super) fn token(&self, claims: &Value) -> String {
        let mut claims = claims.clone();
        if claims.get("exp").is_none() {
            claims["exp"] = json!(from_now(3600));
        }
        let head = json!({"alg": self.algorithm, "kid": self.id, "typ": "JWT"});
        self.raw(&head.to_string(), &claims.to_string())
    }
}
