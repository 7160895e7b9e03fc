//! Host names as Istio writes them: lower case, possibly with a left-most wildcard label.

use std::{fmt, str::FromStr};

use crate::Text;

/// A DNS name in lower case, without a trailing dot; the left-most label may be `*` or begin with `*`.
///
/// Source: Istio `VirtualService.hosts`, `DestinationRule.host`; RFC 1123 §2.1 for the letters (underscores
/// are accepted, since Kubernetes and Compose users write them). At most 253 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Text);

/// Why a text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHostname {
    /// Nothing, or only a dot.
    #[error("a host name can't be empty")]
    Empty,
    /// More than 253 bytes, or a label of more than 63.
    #[error("a host name has at most 253 bytes and 63 per label; `{0}` is longer")]
    TooLong(String),
    /// A character outside `[a-z0-9-_.]`, or an empty label, or a wildcard anywhere but at the left end.
    #[error("`{name}` is not a host name: {why}")]
    Malformed {
        /// The text as given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text.
    pub fn text(&self) -> Text {
        self.0.clone()
    }

    /// Whether the left-most label is or begins with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether `self` (exact or wildcard) covers the exact name `other`.
    pub fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => other.0.len() > suffix.len() && other.0.ends_with(suffix),
            None => self.0 == other.0,
        }
    }

    /// Resolves a short name (no dot) to `<name>.<namespace>.svc.<domain>`; every other name is itself.
    ///
    /// Source: Istio short-name rule: the namespace is that of the rule, never of the client.
    #[must_use]
    pub fn qualify(&self, namespace: &str, domain: &str) -> Self {
        if self.0.contains('.') || self.is_wildcard() {
            self.clone()
        } else {
            Self(format!("{}.{namespace}.svc.{domain}", self.0).into())
        }
    }
}

impl FromStr for Hostname {
    type Err = InvalidHostname;

    fn from_str(text: &str) -> Result<Self, InvalidHostname> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(InvalidHostname::Empty);
        }
        if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
            return Err(InvalidHostname::TooLong(text.to_owned()));
        }
        let malformed = |why| InvalidHostname::Malformed {
            name: text.to_owned(),
            why,
        };
        for (position, label) in name.split('.').enumerate() {
            let rest = match label.strip_prefix('*') {
                Some(rest) if position == 0 => rest,
                Some(_) => return Err(malformed("`*` may stand only at the left end")),
                None if label.is_empty() => {
                    return Err(malformed("it has an empty label (two dots, or a dot in front)"));
                }
                None => label,
            };
            if !rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                return Err(malformed("only letters, digits, `-` and `.` are allowed"));
            }
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl serde::Serialize for Hostname {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        text.parse().expect("a valid name in the test")
    }

    #[test]
    fn short_names_take_the_rules_namespace_and_dotted_names_do_not() {
        assert_eq!(
            host("reviews").qualify("prod", "cluster.local").as_str(),
            "reviews.prod.svc.cluster.local"
        );
        assert_eq!(
            host("reviews.prod").qualify("x", "cluster.local").as_str(),
            "reviews.prod"
        );
        assert_eq!(host("*").qualify("x", "cluster.local").as_str(), "*");
    }

    #[test]
    fn wildcards_cover_longer_names_only() {
        assert!(host("*.foo.com").covers(&host("a.foo.com")));
        assert!(!host("*.foo.com").covers(&host("foo.com")));
        assert!(host("*").covers(&host("a")));
        assert!(host("a.b").covers(&host("A.b.")));
    }

    #[test]
    fn malformed_names_are_refused_with_a_reason() {
        for bad in [
            "",
            ".",
            "a..b",
            "a.*.b",
            "a b",
            "a/b",
            ".a",
            &"x".repeat(64),
            &format!("{}a", "abc.".repeat(64)),
        ] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?} was accepted");
        }
    }
}
