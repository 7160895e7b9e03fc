//! Matchers of strings, headers and query parameters, as written (validated, not yet compiled).

use std::fmt;

use rajut_types::Text;

/// How a text is compared. Source: Envoy `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub enum StringMatch {
    /// Equal.
    Exact(Text),
    /// Begins with; never empty.
    Prefix(Text),
    /// Ends with; never empty.
    Suffix(Text),
    /// Contains; never empty.
    Contains(Text),
    /// The whole text matches the expression.
    Regex(Regex),
}

/// A [`StringMatch`] and whether letter case counts (it does not for `ignore_case`, never used with `Regex`).
#[derive(Debug, Clone, PartialEq)]
pub struct StringMatcher {
    /// The comparison.
    pub pattern: StringMatch,
    /// ASCII letter case is ignored.
    pub ignore_case: bool,
}

impl StringMatcher {
    /// Equal, case-sensitively.
    pub fn exact(text: impl Into<Text>) -> Self {
        Self {
            pattern: StringMatch::Exact(text.into()),
            ignore_case: false,
        }
    }

    /// Whether `text` satisfies the pattern. Allocates nothing.
    pub fn matches(&self, text: &[u8]) -> bool {
        let eq = |a: &[u8], b: &[u8]| {
            if self.ignore_case {
                a.eq_ignore_ascii_case(b)
            } else {
                a == b
            }
        };
        match &self.pattern {
            StringMatch::Exact(want) => eq(text, want.as_bytes()),
            StringMatch::Prefix(want) => text
                .get(..want.len())
                .is_some_and(|head| eq(head, want.as_bytes())),
            StringMatch::Suffix(want) => {
                text.len() >= want.len() && eq(&text[text.len() - want.len()..], want.as_bytes())
            }
            StringMatch::Contains(want) => text.windows(want.len()).any(|window| eq(window, want.as_bytes())),
            StringMatch::Regex(regex) => regex.is_full_match(text),
        }
    }
}

/// A regular expression with RE2's guarantees (linear time), always matched against the whole text.
///
/// Compiled when the configuration arrives, with a size limit of 1 MiB, so that a hostile expression is refused there.
#[derive(Clone)]
pub struct Regex {
    source: Text,
    compiled: regex::bytes::Regex,
    /// Without the anchors, compiled when a rewrite first needs it.
    unanchored: std::sync::OnceLock<Option<regex::bytes::Regex>>,
}

/// The expression does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{source_text}` is not a regular expression: {reason}")]
pub struct InvalidRegex {
    /// The expression as written.
    pub source_text: String,
    /// The compiler's complaint on one line.
    pub reason: String,
}

/// The largest compiled program, in bytes.
const REGEX_SIZE_MAX: usize = 1 << 20;

impl Regex {
    /// Compiles `source` for full matches.
    pub fn new(source: &str) -> Result<Self, InvalidRegex> {
        let compiled = regex::bytes::RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(REGEX_SIZE_MAX)
            .dot_matches_new_line(true)
            .build()
            .map_err(|error| InvalidRegex {
                source_text: source.to_owned(),
                reason: error
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            })?;
        Ok(Self {
            source: source.into(),
            compiled,
            unanchored: std::sync::OnceLock::new(),
        })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// An expression that matches `text` and nothing else, to be part of a larger one.
    pub fn escape(text: &str) -> String {
        regex::escape(text)
    }

    /// `text` with every place where the expression matches replaced; `\\1` in `substitution` is a group, `\\\\` a
    /// backslash. Source: Envoy `type.matcher.v3.RegexMatchAndSubstitute`.
    pub fn replace_all(&self, text: &[u8], substitution: &str) -> Vec<u8> {
        let pattern = self.unanchored.get_or_init(|| {
            // The anchored form compiled within the limit, so this one does.
            regex::bytes::RegexBuilder::new(&self.source)
                .size_limit(REGEX_SIZE_MAX)
                .dot_matches_new_line(true)
                .build()
                .ok()
        });
        let Some(pattern) = pattern else {
            return text.to_vec();
        };
        let mut template = String::with_capacity(substitution.len() + 8);
        let mut rest = substitution.chars();
        while let Some(character) = rest.next() {
            match character {
                '\\' => match rest.next() {
                    Some(group) if group.is_ascii_digit() => {
                        template.push_str("${");
                        template.push(group);
                        template.push('}');
                    }
                    Some(other) => template.push(other),
                    None => {}
                },
                '$' => template.push_str("$$"),
                other => template.push(other),
            }
        }
        pattern.replace_all(text, template.as_bytes()).into_owned()
    }

    /// Whether the whole of `text` matches.
    ///
    /// A header may hold bytes that are no UTF-8 (RFC 9110 section 5.5, `obs-text`), which no part of an expression matches, not even
    /// `.`: one such byte would take a value out of a rule that refuses. Such a text is matched once more with a character for each
    /// byte (Envoy: CVE-2026-73552).
    pub fn is_full_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
            || (!text.is_ascii()
                && std::str::from_utf8(text).is_err()
                && self.compiled.is_match(character_by_byte(text).as_bytes()))
    }
}

fn character_by_byte(text: &[u8]) -> String {
    text.iter().map(|byte| char::from(*byte)).collect()
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// A condition on a header. Source: Envoy `route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatcher {
    /// Lower case; pseudo headers (`:method`, `:authority`, `:scheme`, `:path`) included.
    pub name: Text,
    /// What is asked of the value.
    pub condition: ValueCondition,
    /// The result is turned round.
    pub invert: bool,
    /// A missing header counts as an empty text (Envoy `treat_missing_header_as_empty`).
    pub missing_is_empty: bool,
}

/// What is asked of a header's or a query parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueCondition {
    /// It is there (`true`) or is not (`false`).
    Present(bool),
    /// It matches; of a header on several lines one line is enough.
    Matches(StringMatcher),
    /// It is a whole number in `start..end` (Envoy `range_match`).
    Range(std::ops::Range<i64>),
}

/// A condition on a query parameter; the first occurrence counts. Source: Envoy `route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatcher {
    /// Case-sensitive.
    pub name: Text,
    /// What is asked of the value.
    pub condition: ValueCondition,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_take_nothing_out_of_an_expression() {
        let matches = |source: &str, text: &[u8]| Regex::new(source).expect("compiles").is_full_match(text);
        assert!(matches(".*admin.*", b"\xffadmin"));
        assert!(matches(".*admin.*", b"admin\x80\xfe"));
        assert!(matches("[^a-z]+", b"\xc3\x28"));
        assert!(!matches(".*admin.*", b"\xffuser"));
        assert!(!matches("admin", b"\xffadmin"));
        // What is text is matched by its characters.
        assert!(matches("a.c", "aéc".as_bytes()));
        assert!(!matches("a..c", "aéc".as_bytes()));
    }
}
