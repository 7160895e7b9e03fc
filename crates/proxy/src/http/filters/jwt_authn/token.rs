//! A token in its compact form (RFC 7515 §7.1): three parts, of which none is believed yet.
//!
//! Rejected: what is not three parts of base64url without padding, JSON that names something twice, an algorithm that is none of
//! [`Algorithm`] (`none` and shared secrets among them), critical extensions, registered claims of another type than RFC 7519 gives
//! them. Never panics, whatever the bytes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rajut_ir::jwt::Claim;
use rajut_types::Text;

use crate::failure::TokenFault;

/// A token's length; more than any issuer's, less than a request's head.
pub(super) const TOKEN_MAX: usize = 32 * 1024;
/// Whole numbers beyond this are no times.
const TIME_MAX: f64 = 9_007_199_254_740_992.0;

/// Of signatures. Source: RFC 7518 §3.1, RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By its name in tokens and keys.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// What a token says, true or not.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<Text>,
    /// What is signed.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
    /// The second part as it came.
    pub(super) payload: &'t [u8],
    pub(super) claims: Claim,
    pub(super) issuer: Text,
    pub(super) audiences: Vec<Text>,
    /// Seconds since 1970.
    pub(super) expires: Option<u64>,
    /// Seconds since 1970.
    pub(super) not_before: Option<u64>,
}

impl<'t> Token<'t> {
    /// Reads it.
    pub(super) fn parse(bytes: &'t [u8]) -> Result<Self, TokenFault> {
        if bytes.len() > TOKEN_MAX {
            return Err(TokenFault::TooLong);
        }
        let mut parts = bytes.split(|byte| *byte == b'.');
        let mut part = || {
            parts
                .next()
                .filter(|part| !part.is_empty())
                .ok_or(TokenFault::BadFormat)
        };
        let (head, payload, signature) = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(TokenFault::BadFormat);
        }
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part);
        let head_bytes = decode(head).map_err(|_| TokenFault::HeaderNotBase64)?;
        let head_json = object(&head_bytes).ok_or(TokenFault::HeaderNotJson)?;
        let algorithm = text(&head_json, "alg")
            .ok()
            .flatten()
            .ok_or(TokenFault::AlgorithmMissing)?;
        let algorithm = Algorithm::named(&algorithm).ok_or(TokenFault::AlgorithmUnknown)?;
        let key_id = text(&head_json, "kid").map_err(|()| TokenFault::KeyIdNotText)?;
        // Who does not understand what is critical must refuse; nothing is understood.
        if head_json.get("crit").is_some() {
            return Err(TokenFault::Critical);
        }
        let payload_bytes = decode(payload).map_err(|_| TokenFault::PayloadNotBase64)?;
        let claims = object(&payload_bytes).ok_or(TokenFault::PayloadNotJson)?;
        let registered = |name, fault| text(&claims, name).map_err(|()| fault);
        let issuer = registered("iss", TokenFault::IssuerNotText)?;
        registered("sub", TokenFault::SubjectNotText)?;
        registered("jti", TokenFault::IdNotText)?;
        time(&claims, "iat").map_err(|()| TokenFault::IssuedNotTime)?;
        let not_before = time(&claims, "nbf").map_err(|()| TokenFault::NotBeforeNotTime)?;
        let expires = time(&claims, "exp").map_err(|()| TokenFault::ExpiresNotTime)?;
        let audiences = audiences(&claims).ok_or(TokenFault::AudienceNotText)?;
        let signature = decode(signature).map_err(|_| TokenFault::SignatureNotBase64)?;
        Ok(Self {
            algorithm,
            key_id: key_id.filter(|id| !id.is_empty()),
            signed: &bytes[..head.len() + 1 + payload.len()],
            signature,
            payload,
            claims,
            issuer: issuer.unwrap_or_default(),
            audiences,
            expires,
            not_before,
        })
    }
}

fn object(json: &[u8]) -> Option<Claim> {
    Claim::parse(json).filter(|claim| matches!(claim, Claim::Object(_)))
}

fn text(claims: &Claim, name: &str) -> Result<Option<Text>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(claim) => claim.text().cloned().map(Some).ok_or(()),
    }
}

/// Whole seconds; a fraction is cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn time(claims: &Claim, name: &str) -> Result<Option<u64>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(Claim::Number(seconds)) if (0.0..=TIME_MAX).contains(seconds) => Ok(Some(*seconds as u64)),
        Some(_) => Err(()),
    }
}

/// A text or a list of texts.
fn audiences(claims: &Claim) -> Option<Vec<Text>> {
    match claims.get("aud") {
        None => Some(Vec::new()),
        Some(Claim::Text(one)) => Some(vec![one.clone()]),
        Some(Claim::List(many)) => many.iter().map(|it| it.text().cloned()).collect(),
        Some(_) => None,
    }
}
