//! Whether a token is one of a provider: its issuer's, in time, for its audience, signed. And what a good one says, as others want it.

use std::borrow::Cow;

use rajut_ir::jwt::{Claim, JwtProvider};

use super::{keys::KeySet, token::Token};
use crate::failure::TokenFault;

/// A token that is believed.
#[derive(Debug)]
pub(super) struct Verified {
    /// What was signed, in base64url.
    pub(super) payload: Vec<u8>,
    pub(super) claims: Claim,
}

/// Judges a token. `now`: seconds since 1970.
pub(super) fn verify(
    token: &[u8],
    provider: &JwtProvider,
    keys: &KeySet,
    now: u64,
) -> Result<Verified, TokenFault> {
    let token = Token::parse(token)?;
    if *token.issuer != *provider.issuer {
        return Err(TokenFault::OtherIssuer);
    }
    let skew = u64::from(provider.clock_skew);
    if token
        .not_before
        .is_some_and(|start| now.saturating_add(skew) < start)
    {
        return Err(TokenFault::NotYet);
    }
    if token.expires.is_some_and(|end| now > end.saturating_add(skew)) {
        return Err(TokenFault::Expired);
    }
    let wanted = &provider.audiences;
    if !wanted.is_empty() && !wanted.iter().any(|one| is_for(&token, one)) {
        return Err(TokenFault::OtherAudience);
    }
    keys.verify(&token)?;
    Ok(Verified {
        payload: token.payload.to_vec(),
        claims: token.claims,
    })
}

/// As Envoy compares audiences: the scheme of a URL and a slash at its end do not count.
fn is_for(token: &Token<'_>, audience: &str) -> bool {
    let audience = plain(audience);
    token.audiences.iter().any(|it| plain(it) == audience)
}

fn plain(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("https://")
        .or(audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// A claim as the value of a header; `None` where it says nothing.
pub(super) fn as_header(claim: &Claim) -> Option<Cow<'_, str>> {
    match claim {
        Claim::Text(text) if text.is_empty() => None,
        Claim::Text(text) => Some(Cow::Borrowed(text)),
        Claim::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        // Whole numbers as such; others as C writes a double.
        Claim::Number(number)
            if *number >= 0.0 && number.fract() == 0.0 && *number < 18_446_744_073_709_551_615.0 =>
        {
            Some(Cow::Owned(format!("{number:.0}")))
        }
        Claim::Number(number) => Some(Cow::Owned(format!("{number:.6}"))),
        Claim::Null | Claim::List(_) | Claim::Object(_) => None,
    }
}
