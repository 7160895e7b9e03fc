//! Join tokens: what a workload shows to get its first certificate. A JSON Web Token (RFC 7519) signed with HMAC-SHA256 by a
//! key that only this control plane has; valid for this mesh alone, for a short time.
//!
//! Rejects: any other algorithm, audience or issuer, a bad signature (compared in constant time), an expired token, names
//! that could change the meaning of a SPIFFE id.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rajut_types::{Principal, TrustDomain};

use super::unix_seconds;

/// The audience of every join token.
pub const AUDIENCE: &str = "rajut-ca";
const ISSUER: &str = "rajut-control";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Life of a token: long enough for a slow start, short enough to be useless when found later.
pub const TOKEN_LIFE: Duration = Duration::from_mins(10);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    iss: String,
    aud: String,
    exp: u64,
    /// Trust domain of the mesh.
    mesh: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account.
    #[serde(rename = "serviceAccount")]
    pub service_account: String,
    /// Workload instance; may be empty.
    pub workload: String,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Not a token of ours at all.
    #[error("the token is not one of this control plane's")]
    Foreign,
    /// The signature does not match.
    #[error("the token's signature is wrong")]
    Signature,
    /// Too old.
    #[error("the token has expired")]
    Expired,
}

/// A name that can't stand in a SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: only lower-case letters, digits, `-` and `.` are allowed, at most 253")]
pub struct InvalidName(pub String);

/// Signs and checks tokens.
pub struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(secret)")
    }
}

impl TokenKey {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// A token for a workload, valid from now for [`TOKEN_LIFE`].
    pub fn issue(
        &self,
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
        workload: &str,
        now: SystemTime,
    ) -> Result<String, InvalidName> {
        for name in [namespace, service_account] {
            check_name(name)?;
        }
        if !workload.is_empty() {
            check_name(workload)?;
        }
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            exp: unix_seconds(now + TOKEN_LIFE),
            mesh: trust_domain.as_str().to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            workload: workload.to_owned(),
        };
        // Strings and numbers are always JSON.
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(HEADER),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = hmac::sign(&self.0, signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whom a token speaks for.
    pub fn check(
        &self,
        token: &str,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<(Principal, Claims), TokenRefused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::Foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenRefused::Foreign)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenRefused::Foreign)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefused::Foreign);
        if decode(header)? != HEADER.as_bytes() {
            return Err(TokenRefused::Foreign);
        }
        hmac::verify(&self.0, signed.as_bytes(), &decode(signature)?).map_err(|_| TokenRefused::Signature)?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| TokenRefused::Foreign)?;
        if claims.aud != AUDIENCE || claims.iss != ISSUER || claims.mesh != trust_domain.as_str() {
            return Err(TokenRefused::Foreign);
        }
        if claims.exp <= unix_seconds(now) {
            return Err(TokenRefused::Expired);
        }
        let principal = Principal::new(trust_domain, &claims.namespace, &claims.service_account);
        Ok((principal, claims))
    }
}

/// Kubernetes' rule for names (RFC 1123 subdomain), without which `a/sa/b` could pose as somebody else.
fn check_name(name: &str) -> Result<(), InvalidName> {
    let valid = !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.');
    if valid {
        Ok(())
    } else {
        Err(InvalidName(name.to_owned()))
    }
}
