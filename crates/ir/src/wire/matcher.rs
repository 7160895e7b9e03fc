//! String, header and query matchers.

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use rajut_proto::{
    matcher::{self as pb, string_matcher::MatchPattern},
    route::{
        self, header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    types,
};
use rajut_types::Text;

use super::{Fault, read::Place, read::Reader};
use crate::matcher::{HeaderMatcher, QueryMatcher, Regex, StringMatch, StringMatcher, ValueCondition};

pub(super) fn encode_string(matcher: &StringMatcher) -> pb::StringMatcher {
    pb::StringMatcher {
        ignore_case: matcher.ignore_case,
        match_pattern: Some(match &matcher.pattern {
            StringMatch::Exact(text) => MatchPattern::Exact(text.to_string()),
            StringMatch::Prefix(text) => MatchPattern::Prefix(text.to_string()),
            StringMatch::Suffix(text) => MatchPattern::Suffix(text.to_string()),
            StringMatch::Contains(text) => MatchPattern::Contains(text.to_string()),
            StringMatch::Regex(regex) => MatchPattern::SafeRegex(encode_regex(regex)),
        }),
    }
}

pub(super) fn encode_regex(regex: &Regex) -> pb::RegexMatcher {
    pb::RegexMatcher {
        regex: regex.source().to_owned(),
        engine_type: None,
    }
}

pub(super) fn decode_regex(
    reader: &mut Reader,
    place: &Place<'_>,
    regex: Option<&pb::RegexMatcher>,
) -> Option<Regex> {
    let source = regex.map_or("", |it| &it.regex);
    let place = place.field("regex");
    let source = reader.named(&place, source, "a regular expression");
    Regex::new(&source)
        .map_err(|error| reader.fault(&place, Fault::Regex(error)))
        .ok()
}

pub(super) fn decode_string(
    reader: &mut Reader,
    place: &Place<'_>,
    matcher: &pb::StringMatcher,
) -> Option<StringMatcher> {
    let mut part = |name, text: &str| reader.named(&place.field(name), text, "a text that is not empty");
    let pattern = match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => StringMatch::Exact(text.as_str().into()),
        Some(MatchPattern::Prefix(text)) => StringMatch::Prefix(part("prefix", text)),
        Some(MatchPattern::Suffix(text)) => StringMatch::Suffix(part("suffix", text)),
        Some(MatchPattern::Contains(text)) => StringMatch::Contains(part("contains", text)),
        Some(MatchPattern::SafeRegex(regex)) => {
            StringMatch::Regex(decode_regex(reader, &place.field("safe_regex"), Some(regex))?)
        }
        Some(MatchPattern::Custom(custom)) => {
            reader.extension(
                &place.field("custom"),
                "string matcher",
                &custom.name,
                custom.typed_config.as_ref(),
                "exact, prefix, suffix, contains, safe_regex",
            );
            return None;
        }
        None => return reader.required(place, None, "exact, prefix, suffix, contains or safe_regex"),
    };
    // Envoy: `ignore_case` has no effect on regular expressions.
    let ignore_case = matcher.ignore_case && !matches!(pattern, StringMatch::Regex(_));
    Some(StringMatcher { pattern, ignore_case })
}

pub(super) fn encode_header(matcher: &HeaderMatcher) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: matcher.name.to_string(),
        invert_match: matcher.invert,
        treat_missing_header_as_empty: matcher.missing_is_empty,
        header_match_specifier: Some(match &matcher.condition {
            ValueCondition::Present(present) => HeaderMatchSpecifier::PresentMatch(*present),
            ValueCondition::Matches(matcher) => HeaderMatchSpecifier::StringMatch(encode_string(matcher)),
            ValueCondition::Range(range) => HeaderMatchSpecifier::RangeMatch(types::Int64Range {
                start: range.start,
                end: range.end,
            }),
        }),
    }
}

pub(super) fn decode_header(
    reader: &mut Reader,
    place: &Place<'_>,
    matcher: &route::HeaderMatcher,
) -> Option<HeaderMatcher> {
    let name = reader.named(&place.field("name"), &matcher.name, "the header's name");
    let condition = match &matcher.header_match_specifier {
        None => ValueCondition::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => ValueCondition::Present(*present),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => ValueCondition::Range(range.start..range.end),
        Some(other) => ValueCondition::Matches(decode_header_text(reader, place, other)?),
    };
    Some(HeaderMatcher {
        name: lower(&name),
        condition,
        invert: matcher.invert_match,
        missing_is_empty: matcher.treat_missing_header_as_empty,
    })
}

/// The comparisons of a header's value, the deprecated spellings included.
fn decode_header_text(
    reader: &mut Reader,
    place: &Place<'_>,
    matcher: &HeaderMatchSpecifier,
) -> Option<StringMatcher> {
    let mut part = |name, text: &str| reader.named(&place.field(name), text, "a text that is not empty");
    let pattern = match matcher {
        HeaderMatchSpecifier::StringMatch(matcher) => {
            return decode_string(reader, &place.field("string_match"), matcher);
        }
        HeaderMatchSpecifier::ExactMatch(text) => StringMatch::Exact(text.as_str().into()),
        HeaderMatchSpecifier::PrefixMatch(text) => StringMatch::Prefix(part("prefix_match", text)),
        HeaderMatchSpecifier::SuffixMatch(text) => StringMatch::Suffix(part("suffix_match", text)),
        HeaderMatchSpecifier::ContainsMatch(text) => StringMatch::Contains(part("contains_match", text)),
        HeaderMatchSpecifier::SafeRegexMatch(regex) => StringMatch::Regex(decode_regex(
            reader,
            &place.field("safe_regex_match"),
            Some(regex),
        )?),
        HeaderMatchSpecifier::PresentMatch(_) | HeaderMatchSpecifier::RangeMatch(_) => return None,
    };
    Some(StringMatcher {
        pattern,
        ignore_case: false,
    })
}

pub(super) fn encode_query(matcher: &QueryMatcher) -> route::QueryParameterMatcher {
    route::QueryParameterMatcher {
        name: matcher.name.to_string(),
        query_parameter_match_specifier: match &matcher.condition {
            ValueCondition::Present(present) => Some(QueryParameterMatchSpecifier::PresentMatch(*present)),
            ValueCondition::Matches(matcher) => {
                Some(QueryParameterMatchSpecifier::StringMatch(encode_string(matcher)))
            }
            // The wire has no ranges for parameters; `translate` builds none.
            ValueCondition::Range(_) => Some(QueryParameterMatchSpecifier::PresentMatch(true)),
        },
    }
}

pub(super) fn decode_query(
    reader: &mut Reader,
    place: &Place<'_>,
    matcher: &route::QueryParameterMatcher,
) -> Option<QueryMatcher> {
    let name = reader.named(&place.field("name"), &matcher.name, "the parameter's name");
    let condition = match &matcher.query_parameter_match_specifier {
        None => ValueCondition::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => ValueCondition::Present(*present),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            ValueCondition::Matches(decode_string(reader, &place.field("string_match"), matcher)?)
        }
    };
    Some(QueryMatcher { name, condition })
}

/// In lower case.
pub(super) fn lower(text: &Text) -> Text {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.clone()
    }
}
