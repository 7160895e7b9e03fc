//! Tokens of requests: who issues them and what becomes of them.

use std::time::Duration;

use rajut_types::{Labels, Origin, Text};

/// Which tokens a workload's sidecar takes. Source: Istio `RequestAuthentication`.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestAuthentication {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace makes it mesh-wide.
    pub namespace: Text,
    /// `None`: the whole namespace (or mesh).
    pub selector: Option<Labels>,
    /// Issuers; those of all objects that hold for a workload count together.
    pub rules: Vec<JwtRule>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// What the claim `iss` must be; not empty.
    pub issuer: Text,
    /// One of them must be in the claim `aud`; empty: any will do.
    pub audiences: Vec<Text>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Header (lower case) and what stands before the token in its value, may be empty.
    pub from_headers: Vec<(Text, Text)>,
    /// Query parameters.
    pub from_params: Vec<Text>,
    /// Cookies. With all three lists empty: `Authorization: Bearer` and the parameter `access_token`.
    pub from_cookies: Vec<Text>,
    /// Header (lower case) that gets the claims in base64url.
    pub output_payload: Option<Text>,
    /// The token stays in the request.
    pub forward: bool,
    /// Header (lower case) and the claim that it gets; dots lead into objects.
    pub output_claims: Vec<(Text, Text)>,
    /// How long fetching keys may take.
    pub timeout: Duration,
    /// Claims that are lists of words, beside `scope` and `permission`.
    pub space_delimited: Vec<Text>,
    /// Where.
    pub origin: Origin,
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// A key set in place, as [`crate::key_set::usable`] gives it.
    Inline(Text),
    /// A URL of a key set.
    Url(Text),
    /// A URL of the issuer's description (`OpenID` Connect Discovery), which says where the key set is.
    Discovery(Text),
}
