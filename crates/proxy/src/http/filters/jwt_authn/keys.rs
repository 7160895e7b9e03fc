//! The keys of an issuer (RFC 7517), ready to verify with.
//!
//! A key verifies by the algorithms of its own kind alone: what a token says of its algorithm chooses among these and never makes one
//! thing another (a public key is no shared secret, a key of one curve none of another). Keys of no use are left out.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rajut_ir::jwt::Claim;
use rajut_types::Text;

use super::token::{Algorithm, Token};
use crate::failure::TokenFault;

/// Source: RFC 8032 §5.1.6.
const EDWARDS_SIGNATURE: usize = 64;

/// A key set; as many keys as the configuration gives it.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<Text>,
    /// The only one that it is for; `None`: every one of its kind.
    algorithm: Option<Algorithm>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point as X9.62 writes it, uncompressed.
    Curve {
        algorithm: Algorithm,
        point: Vec<u8>,
    },
    Edwards(Vec<u8>),
}

impl KeySet {
    /// The keys of a set that are of use.
    pub(super) fn parse(json: &str) -> Self {
        let set = Claim::parse(json.as_bytes());
        match set.as_ref().and_then(|set| set.get("keys")) {
            Some(Claim::List(keys)) => Self(keys.iter().filter_map(Key::parse).collect()),
            _ => Self::default(),
        }
    }

    /// Whether it verifies nothing.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys has signed the token.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), TokenFault> {
        if self.is_empty() {
            return Err(TokenFault::NoKeys);
        }
        let mut any = false;
        for key in &self.0 {
            let other = key
                .id
                .as_ref()
                .zip(token.key_id.as_ref())
                .is_some_and(|(key, token)| key != token);
            if other || key.algorithm.is_some_and(|only| only != token.algorithm) {
                continue;
            }
            any = true;
            if matches!(key.kind, Kind::Edwards(_)) && token.signature.len() != EDWARDS_SIGNATURE {
                return Err(TokenFault::SignatureLength);
            }
            if key.kind.has_signed(token) {
                return Ok(());
            }
        }
        Err(if any {
            TokenFault::BadSignature
        } else {
            TokenFault::NoSuchKey
        })
    }
}

impl Key {
    fn parse(key: &Claim) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Claim::text);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        let algorithm = match text("alg") {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        if text("use").is_some_and(|purpose| &**purpose != "sig") {
            return None;
        }
        let kind = match &**text("kty")? {
            "RSA" => Kind::Rsa {
                n: trimmed(bytes("n")?),
                e: trimmed(bytes("e")?),
            },
            "EC" => {
                let (algorithm, size): (_, usize) = match &**text("crv")? {
                    "P-256" => (Algorithm::Es256, 32),
                    "P-384" => (Algorithm::Es384, 48),
                    "P-521" => (Algorithm::Es512, 66),
                    _ => return None,
                };
                let mut point = vec![4];
                for part in [bytes("x")?, bytes("y")?] {
                    let part = trimmed(part);
                    point.extend(std::iter::repeat_n(0, size.checked_sub(part.len())?));
                    point.extend(part);
                }
                Kind::Curve { algorithm, point }
            }
            "OKP" if text("crv").is_some_and(|curve| &**curve == "Ed25519") => Kind::Edwards(bytes("x")?),
            _ => return None,
        };
        Some(Self {
            id: text("kid").cloned(),
            algorithm,
            kind,
        })
    }
}

/// Without the zeros before it.
fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

impl Kind {
    fn has_signed(&self, token: &Token<'_>) -> bool {
        let (signed, signature) = (token.signed, &*token.signature);
        match self {
            Self::Rsa { n, e } => {
                let parameters = match token.algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, signed, signature).is_ok()
            }
            Self::Curve { algorithm, point } => {
                let parameters = match algorithm {
                    Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
                    Algorithm::Es512 => &ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                let key = UnparsedPublicKey::new(parameters, point);
                *algorithm == token.algorithm && key.verify(signed, signature).is_ok()
            }
            Self::Edwards(key) => {
                token.algorithm == Algorithm::EdDsa
                    && UnparsedPublicKey::new(&ED25519, key)
                        .verify(signed, signature)
                        .is_ok()
            }
        }
    }
}
