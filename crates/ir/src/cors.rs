//! Which pages of other origins may call: what browsers are told. Source: Envoy `cors.v3.CorsPolicy`, the Fetch
//! standard's CORS protocol.
//!
//! Only routes have a policy; the filter of a listener has nothing to say. Where several levels have one, each field
//! is taken from the most specific level that has it ([`Cors::over`]).

use rajut_types::{Percent, Text};

use crate::matcher::StringMatcher;

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// Any must match; the text `*` is any origin.
    pub allow_origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; `*` is whatever is asked for, empty is not told.
    pub allow_methods: Text,
    /// `access-control-allow-headers`; `*` is whatever is asked for, empty is not told.
    pub allow_headers: Text,
    /// `access-control-expose-headers`; empty is not told.
    pub expose_headers: Text,
    /// `access-control-max-age`; empty is not told.
    pub max_age: Text,
    /// `access-control-allow-credentials`.
    pub allow_credentials: Option<bool>,
    /// `access-control-allow-private-network`, where a preflight asks.
    pub allow_private_network: Option<bool>,
    /// Preflights of other origins go on; otherwise they are answered without a word about the origin. Envoy's default.
    pub forward_not_matching: Option<bool>,
    /// Share of requests that it holds for; Envoy's default is all.
    pub enabled: Percent,
    /// Share of requests whose origin is counted where it does not hold; Envoy's default is none.
    pub shadow: Percent,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            allow_origins: Vec::new(),
            allow_methods: Text::default(),
            allow_headers: Text::default(),
            expose_headers: Text::default(),
            max_age: Text::default(),
            allow_credentials: None,
            allow_private_network: None,
            forward_not_matching: None,
            enabled: Percent::ALL,
            shadow: Percent::NONE,
        }
    }
}

impl Cors {
    /// Whether pages of this origin may call.
    pub fn allows(&self, origin: &[u8]) -> bool {
        let any = |matcher: &StringMatcher| matcher.matches(b"*") || matcher.matches(origin);
        self.allow_origins.iter().any(any)
    }

    /// This policy where a less specific level has one too: what this one does not say, that one says.
    #[must_use]
    pub fn over(&self, less: &Self) -> Self {
        let text = |own: &Text, other: &Text| if own.is_empty() { other } else { own }.clone();
        Self {
            allow_origins: if self.allow_origins.is_empty() {
                less.allow_origins.clone()
            } else {
                self.allow_origins.clone()
            },
            allow_methods: text(&self.allow_methods, &less.allow_methods),
            allow_headers: text(&self.allow_headers, &less.allow_headers),
            expose_headers: text(&self.expose_headers, &less.expose_headers),
            max_age: text(&self.max_age, &less.max_age),
            allow_credentials: self.allow_credentials.or(less.allow_credentials),
            allow_private_network: self.allow_private_network.or(less.allow_private_network),
            forward_not_matching: self.forward_not_matching.or(less.forward_not_matching),
            enabled: self.enabled,
            shadow: self.shadow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_origin_and_other_texts_are_compared() {
        let cors = |text| Cors {
            allow_origins: vec![StringMatcher::exact(text)],
            ..Cors::default()
        };
        assert!(cors("*").allows(b"https://a.example"));
        assert!(cors("https://a.example").allows(b"https://a.example"));
        assert!(!cors("https://a.example").allows(b"https://a.example.evil"));
        assert!(!Cors::default().allows(b"https://a.example"));
    }

    #[test]
    fn the_more_specific_level_wins_field_by_field() {
        let less = Cors {
            max_age: "60".into(),
            allow_methods: "GET".into(),
            allow_credentials: Some(true),
            enabled: Percent::NONE,
            ..Cors::default()
        };
        let more = Cors {
            allow_methods: "PUT".into(),
            allow_credentials: Some(false),
            ..Cors::default()
        };
        let both = more.over(&less);
        assert_eq!((&*both.max_age, &*both.allow_methods), ("60", "PUT"));
        assert_eq!(both.allow_credentials, Some(false));
        assert_eq!(
            both.enabled,
            Percent::ALL,
            "only the most specific level switches"
        );
    }
}
