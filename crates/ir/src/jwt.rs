//! Tokens of requests (JSON web tokens, RFC 7519): who issues them, where they stand in a request, what must be verified, and
//! what a verified one says ([`Claim`]), which access control asks for ([`ClaimMatcher`]).
//!
//! **What is decided.** A provider finds tokens where it looks for them. Each must be its issuer's, in time, meant for its
//! audience and signed by one of its keys. A [`Requirement`] says which providers must find one. Source: Envoy
//! `envoy.extensions.filters.http.jwt_authn.v3`.
//!
//! Bounds: claims nest as deep as [`CLAIMS_DEPTH_MAX`]; an object of claims that names one twice is refused, since two readers
//! would take different ones. Pure: the signatures are the proxy's business (`http/filters/jwt_authn.rs`).
//!
//! Does not: fetch keys (the control plane does, and sends them in place), take a requirement by route, extract without
//! verifying.

use std::{collections::BTreeMap, fmt};

use rajut_types::Text;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use crate::matcher::StringMatcher;

/// How deep claims may nest. The parser's own bound is 128.
pub const CLAIMS_DEPTH_MAX: usize = 32;
/// Clock skew where a provider says none. Source: Envoy `JwtProvider.clock_skew_seconds`.
pub const CLOCK_SKEW_DEFAULT: u32 = 60;

/// The filter's configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JwtAuthn {
    /// By name.
    pub providers: BTreeMap<Text, JwtProvider>,
    /// What every request must fulfil; `None`: nothing.
    pub requirement: Option<Requirement>,
    /// A preflight of another origin's page needs no token: browsers send none with it.
    pub bypass_cors_preflight: bool,
}

/// An issuer of tokens, and what becomes of its tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JwtProvider {
    /// What the claim `iss` must be; not empty.
    pub issuer: Text,
    /// One of them must be in the claim `aud`; empty: any will do.
    pub audiences: Vec<Text>,
    /// A key set (RFC 7517) as JSON.
    pub jwks: Text,
    /// The token stays in the request.
    pub forward: bool,
    /// Header (lower case) and what stands before the token in its value.
    pub from_headers: Vec<(Text, Text)>,
    /// Query parameters.
    pub from_params: Vec<Text>,
    /// Cookies. With all three lists empty: `Authorization: Bearer` and the parameter `access_token`.
    pub from_cookies: Vec<Text>,
    /// Gets the claims as they were signed, in base64url; may be empty.
    pub payload_header: Text,
    /// Header (lower case) and the claim that it gets; dots lead into objects.
    pub claim_headers: Vec<(Text, Text)>,
    /// The name under which access control finds the claims; empty: it does not.
    pub metadata: Text,
    /// Claims that access control sees as lists of words.
    pub space_delimited: Vec<Text>,
    /// Seconds by which clocks may differ.
    pub clock_skew: u32,
    /// A request with a good token gets its route anew: routes may ask for claims.
    pub clear_route_cache: bool,
}

/// What a request must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// A token of that provider, and no invalid one where it looks.
    Provider(Text),
    /// One of these; at least one.
    Any(Vec<Self>),
    /// All of these; at least one.
    All(Vec<Self>),
    /// Within [`Requirement::Any`]: no token at all where the providers beside it look.
    AllowMissing,
}

/// A value in a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(Text),
    /// A list.
    List(Vec<Self>),
    /// An object; each name once.
    Object(BTreeMap<Text, Self>),
}

/// A condition on a claim of the token that was verified. Without a token no condition holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimMatcher {
    /// The name under which the provider tells the claims, then the names that lead to one; at least one.
    pub path: Vec<Text>,
    /// What must hold of it.
    pub value: ClaimCondition,
}

impl ClaimMatcher {
    /// Whether it holds of what `told` knows by the providers' names.
    pub fn holds<'c>(&self, told: impl FnOnce(&str) -> Option<&'c Claim>) -> bool {
        let mut path = self.path.iter().map(|name| &**name);
        let claims = path.next().and_then(told);
        let claim = claims.and_then(|claims| claims.at(path));
        claim.is_some_and(|claim| self.value.holds(claim))
    }
}

/// What must hold of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimCondition {
    /// It is a text that matches.
    Text(StringMatcher),
    /// It is a list with an element of which this holds.
    Element(Box<Self>),
    /// One of these holds; at least one.
    Any(Vec<Self>),
}

impl JwtProvider {
    /// The names of headers that only verified tokens may set.
    pub fn told_in(&self) -> impl Iterator<Item = &Text> {
        let payload = Some(&self.payload_header).filter(|name| !name.is_empty());
        payload
            .into_iter()
            .chain(self.claim_headers.iter().map(|(header, _)| header))
    }
}

impl ClaimCondition {
    /// Whether it holds of a claim.
    pub fn holds(&self, claim: &Claim) -> bool {
        match self {
            Self::Text(matcher) => claim.text().is_some_and(|text| matcher.matches(text.as_bytes())),
            Self::Element(condition) => match claim {
                Claim::List(elements) => elements.iter().any(|element| condition.holds(element)),
                _ => false,
            },
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(claim)),
        }
    }
}

impl Claim {
    /// Reads the JSON of a token's part.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let claim: Self = serde_json::from_slice(json).ok()?;
        claim.is_shallow(CLAIMS_DEPTH_MAX).then_some(claim)
    }

    fn is_shallow(&self, left: usize) -> bool {
        match self {
            Self::List(elements) => left > 0 && elements.iter().all(|it| it.is_shallow(left - 1)),
            Self::Object(fields) => left > 0 && fields.values().all(|it| it.is_shallow(left - 1)),
            _ => true,
        }
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&Text> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The field of that name, where it is an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.get(name),
            _ => None,
        }
    }

    /// With those fields that are lists of words as lists.
    #[must_use]
    pub fn with_words(mut self, space_delimited: &[Text]) -> Self {
        let Self::Object(fields) = &mut self else {
            return self;
        };
        for name in space_delimited {
            if let Some(value) = fields.get_mut(name)
                && let Self::Text(text) = value
            {
                let words = text.split(' ').filter(|word| !word.is_empty());
                *value = Self::List(words.map(|word| Self::Text(word.into())).collect());
            }
        }
        self
    }

    /// The claim at the end of a path of names.
    pub fn at<'n>(&self, path: impl IntoIterator<Item = &'n str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |claim, name| claim.get(name))
    }
}

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimVisitor)
    }
}

struct ClaimVisitor;

impl<'de> Visitor<'de> for ClaimVisitor {
    type Value = Claim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Claim, E> {
        Ok(Claim::Bool(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers of JSON are doubles to Envoy, too"
    )]
    fn visit_i64<E>(self, value: i64) -> Result<Claim, E> {
        Ok(Claim::Number(value as f64))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers of JSON are doubles to Envoy, too"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<Claim, E> {
        Ok(Claim::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Claim, E> {
        Ok(Claim::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Claim, E> {
        Ok(Claim::Text(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Claim, E> {
        Ok(Claim::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Claim, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Claim::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Claim, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = access.next_entry::<String, Claim>()? {
            if fields.insert(Text::from(name), value).is_some() {
                return Err(de::Error::custom("a name is written twice"));
            }
        }
        Ok(Claim::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::StringMatch;

    #[test]
    fn claims_are_read_and_a_name_that_is_written_twice_is_refused() {
        let claims = Claim::parse(br#"{"iss":"a","n":{"k":["x",1,true,null,-2,0.5]}}"#).unwrap();
        assert_eq!(
            claims.at(["iss"]).and_then(Claim::text).map(|it| &**it),
            Some("a")
        );
        let Some(Claim::List(list)) = claims.at(["n", "k"]) else {
            panic!("a list");
        };
        assert_eq!(list[1], Claim::Number(1.0));
        assert_eq!(claims.at(["n", "k", "x"]), None);
        for bad in [
            &br#"{"sub":"a","sub":"b"}"#[..],
            br#"{"n":{"k":1,"k":1}}"#,
            br#"{"sub":"a","s\u0075b":"b"}"#,
            br#"{"sub":"a"} x"#,
            b"{",
            b"\xff",
            b"",
        ] {
            assert_eq!(Claim::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn claims_nest_as_deep_as_the_bound() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Claim::parse(nested(CLAIMS_DEPTH_MAX).as_bytes()).is_some());
        assert!(Claim::parse(nested(CLAIMS_DEPTH_MAX + 1).as_bytes()).is_none());
        assert!(Claim::parse(nested(5000).as_bytes()).is_none());
    }

    #[test]
    fn a_condition_holds_of_a_text_or_of_one_in_a_list() {
        let is = |text: &str| {
            ClaimCondition::Text(StringMatcher {
                pattern: StringMatch::Exact(text.into()),
                ignore_case: false,
            })
        };
        let either = ClaimCondition::Any(vec![is("a"), ClaimCondition::Element(Box::new(is("a")))]);
        let holds = |json: &str| either.holds(&Claim::parse(json.as_bytes()).unwrap());
        assert!(holds(r#""a""#));
        assert!(holds(r#"["b","a"]"#));
        assert!(!holds(r#"["b",["a"]]"#));
        assert!(!holds(r#"{"a":"a"}"#));
        assert!(!holds("null"));
    }
}
