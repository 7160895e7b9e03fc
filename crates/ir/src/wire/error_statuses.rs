//! Which statuses outlier detection counts as errors: a cluster's `HttpProtocolOptions.outlier_detection.error_matcher`.
//!
//! Taken: one status, or one of several, each compared as a text with `:status` of the response. Rejected: every other predicate.

use rajut_proto::{
    envoy::{
        config::common::matcher::v3::{
            HttpHeadersMatch, MatchPredicate,
            match_predicate::{MatchSet, Rule},
        },
        extensions::upstreams::http::v3::http_protocol_options::OutlierDetection,
    },
    route::HeaderMatcher,
};

use super::{
    matcher,
    read::{Place, Reader},
};
use crate::matcher::{HeaderMatcher as Condition, StringMatch, StringMatcher, ValueCondition};

const STATUS: &str = ":status";

pub(super) fn to_message(statuses: &[u16]) -> Option<OutlierDetection> {
    let one = |status: &u16| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![matcher::encode_header(&Condition {
                name: STATUS.into(),
                condition: ValueCondition::Matches(StringMatcher::exact(status.to_string())),
                invert: false,
                missing_is_empty: false,
            })],
        })),
    };
    let error_matcher = match statuses {
        [] => return None,
        [status] => one(status),
        // Envoy asks for two rules at least.
        all => MatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: all.iter().map(one).collect(),
            })),
        },
    };
    Some(OutlierDetection {
        error_matcher: Some(error_matcher),
    })
}

pub(super) fn from_message(
    reader: &mut Reader,
    place: &Place<'_>,
    message: Option<&OutlierDetection>,
) -> Vec<u16> {
    let place = place.field("outlier_detection");
    let place = place.field("error_matcher");
    let Some(predicate) = message.and_then(|it| it.error_matcher.as_ref()) else {
        return Vec::new();
    };
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => {
            let place = place.field("or_match");
            let rules = set.rules.iter().enumerate();
            rules
                .filter_map(|(at, rule)| one(reader, &place.item("rules", at), rule))
                .collect()
        }
        _ => one(reader, &place, predicate).into_iter().collect(),
    }
}

fn one(reader: &mut Reader, place: &Place<'_>, predicate: &MatchPredicate) -> Option<u16> {
    let place = place.field("http_response_headers_match");
    let Some(Rule::HttpResponseHeadersMatch(headers)) = &predicate.rule else {
        return reader.required(&place, None, "the header `:status`");
    };
    let place = place.field("headers");
    let status = match &headers.headers[..] {
        [header] => status(reader, &place, header),
        _ => None,
    };
    if status.is_none() {
        reader.bad_text(
            &place,
            "the condition",
            "one `:status` with an exact `string_match`",
        );
    }
    status
}

fn status(reader: &mut Reader, place: &Place<'_>, header: &HeaderMatcher) -> Option<u16> {
    let condition = matcher::decode_header(reader, place, header)?;
    let ValueCondition::Matches(text) = &condition.condition else {
        return None;
    };
    let StringMatch::Exact(status) = &text.pattern else {
        return None;
    };
    let plain = *condition.name == *STATUS && !condition.invert;
    status
        .parse()
        .ok()
        .filter(|status| plain && (100..=599).contains(status))
}
