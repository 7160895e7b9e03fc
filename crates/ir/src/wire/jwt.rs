//! Tokens: the HTTP filter's configuration, and the conditions of access control on claims.
//!
//! Rejected: keys that are fetched (`remote_jwks`: our control plane sends them in place), providers without an issuer,
//! requirements by route, by filter state or by name, `allow_missing_or_failed` and extraction without verifying; of conditions all
//! metadata but that of tokens.

use std::collections::BTreeMap;

use rajut_proto::{
    core::DataSource as PbDataSource,
    core::data_source::Specifier,
    envoy::extensions::filters::http::jwt_authn::v3::{
        JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider as Message, JwtRequirement,
        JwtRequirementAndList, JwtRequirementOrList, RequirementRule,
        jwt_provider::{JwksSourceSpecifier, NormalizePayload},
        jwt_requirement::RequiresType,
        requirement_rule::RequirementType,
    },
    google::protobuf::Empty,
    matcher::{
        ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher, list_matcher, metadata_matcher,
        value_matcher::MatchPattern,
    },
    route::{RouteMatch, route_match::PathSpecifier},
};
use rajut_types::Text;

use super::{
    Fault,
    matcher::{self, lower},
    read::{Place, Reader},
};
use crate::{
    filter::JWT_AUTHN,
    jwt::{CLOCK_SKEW_DEFAULT, ClaimCondition, ClaimMatcher, JwtAuthn, JwtProvider, Requirement},
    rbac::DEPTH_MAX,
    route::RouteClaim,
    tls::DataSource,
};

// --- encode ---

pub(super) fn encode(jwt: &JwtAuthn) -> JwtAuthentication {
    let rule = |requirement: &Requirement| RequirementRule {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        requirement_type: Some(RequirementType::Requires(encode_requirement(requirement))),
    };
    JwtAuthentication {
        providers: jwt
            .providers
            .iter()
            .map(|(name, provider)| (name.to_string(), encode_provider(provider)))
            .collect(),
        rules: jwt.requirement.iter().map(rule).collect(),
        bypass_cors_preflight: jwt.bypass_cors_preflight,
        ..Default::default()
    }
}

fn encode_provider(provider: &JwtProvider) -> Message {
    let texts = |texts: &[Text]| texts.iter().map(ToString::to_string).collect();
    let header = |(name, prefix): &(Text, Text)| JwtHeader {
        name: name.to_string(),
        value_prefix: prefix.to_string(),
    };
    let claim = |(header, claim): &(Text, Text)| JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: claim.to_string(),
        ..Default::default()
    };
    Message {
        issuer: provider.issuer.to_string(),
        audiences: texts(&provider.audiences),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(PbDataSource {
            specifier: Some(Specifier::InlineString(provider.jwks.to_string())),
            ..Default::default()
        })),
        forward: provider.forward,
        clear_route_cache: provider.clear_route_cache,
        from_headers: provider.from_headers.iter().map(header).collect(),
        from_params: texts(&provider.from_params),
        from_cookies: texts(&provider.from_cookies),
        forward_payload_header: provider.payload_header.to_string(),
        claim_to_headers: provider.claim_headers.iter().map(claim).collect(),
        payload_in_metadata: provider.metadata.to_string(),
        normalize_payload_in_metadata: (!provider.space_delimited.is_empty()).then(|| NormalizePayload {
            space_delimited_claims: texts(&provider.space_delimited),
        }),
        clock_skew_seconds: provider.clock_skew,
        ..Default::default()
    }
}

fn encode_requirement(requirement: &Requirement) -> JwtRequirement {
    let all = |of: &[Requirement]| of.iter().map(encode_requirement).collect();
    JwtRequirement {
        requires_type: Some(match requirement {
            Requirement::Provider(name) => RequiresType::ProviderName(name.to_string()),
            Requirement::Any(of) => RequiresType::RequiresAny(JwtRequirementOrList {
                requirements: all(of),
            }),
            Requirement::All(of) => RequiresType::RequiresAll(JwtRequirementAndList {
                requirements: all(of),
            }),
            Requirement::AllowMissing => RequiresType::AllowMissing(Empty {}),
        }),
    }
}

/// A route's condition on a claim.
pub(super) fn encode_route_claim(claim: &RouteClaim) -> MetadataMatcher {
    MetadataMatcher {
        invert: claim.invert,
        ..encode_claim(&claim.matcher)
    }
}

/// A route's condition on a claim.
pub(super) fn decode_route_claim(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &MetadataMatcher,
) -> Option<RouteClaim> {
    let upright = MetadataMatcher {
        invert: false,
        ..message.clone()
    };
    Some(RouteClaim {
        matcher: decode_claim(reader, place, &upright)?,
        invert: message.invert,
    })
}

pub(super) fn encode_claim(claim: &ClaimMatcher) -> MetadataMatcher {
    let segment = |name: &Text| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(name.to_string())),
    };
    MetadataMatcher {
        filter: JWT_AUTHN.to_owned(),
        path: claim.path.iter().map(segment).collect(),
        value: Some(encode_condition(&claim.value)),
        invert: false,
    }
}

fn encode_condition(condition: &ClaimCondition) -> ValueMatcher {
    let pattern = match condition {
        ClaimCondition::Text(text) => MatchPattern::StringMatch(matcher::encode_string(text)),
        ClaimCondition::Element(inner) => MatchPattern::ListMatch(Box::new(ListMatcher {
            match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(encode_condition(
                inner,
            )))),
        })),
        ClaimCondition::Any(inner) => MatchPattern::OrMatch(OrMatcher {
            value_matchers: inner.iter().map(encode_condition).collect(),
        }),
    };
    ValueMatcher {
        match_pattern: Some(pattern),
    }
}

// --- decode ---

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, message: &JwtAuthentication) -> JwtAuthn {
    let mut sorted: Vec<_> = message.providers.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut providers = BTreeMap::new();
    for (name, provider) in sorted {
        let decoded = decode_provider(reader, &place.key("providers", name), provider);
        providers.extend(decoded.map(|it| (Text::from(name.as_str()), it)));
    }
    let requirement = decode_rules(reader, place, &message.rules);
    if let Some(requirement) = &requirement {
        let missing = unknown(requirement, message);
        if let Some(name) = missing {
            reader.value(
                &place.field("rules"),
                name,
                "name one of the filter's own providers",
            );
        }
    }
    JwtAuthn {
        providers,
        requirement,
        bypass_cors_preflight: message.bypass_cors_preflight,
    }
}

/// A provider that is required and is not there.
fn unknown(requirement: &Requirement, message: &JwtAuthentication) -> Option<Text> {
    match requirement {
        Requirement::Provider(name) => (!message.providers.contains_key(&**name)).then(|| name.clone()),
        Requirement::Any(of) | Requirement::All(of) => of.iter().find_map(|it| unknown(it, message)),
        Requirement::AllowMissing => None,
    }
}

fn decode_provider(reader: &mut Reader, place: &Place<'_>, message: &Message) -> Option<JwtProvider> {
    let texts = |texts: &[String]| texts.iter().map(|it| it.as_str().into()).collect();
    let jwks_place = place.field("local_jwks");
    let jwks = match &message.jwks_source_specifier {
        Some(JwksSourceSpecifier::LocalJwks(source)) => reader.data_source(&jwks_place, Some(source)),
        // Refused by the list of supported fields.
        Some(JwksSourceSpecifier::RemoteJwks(_)) => None,
        None => reader.required(&jwks_place, None, "the keys"),
    };
    let jwks = match jwks? {
        DataSource::Inline(bytes) => std::str::from_utf8(&bytes).unwrap_or_default().into(),
        DataSource::File(path) => {
            reader.value(&jwks_place, path, "write inline_string");
            return None;
        }
    };
    let from_headers = message.from_headers.iter().enumerate().map(|(at, header)| {
        let place = place.item("from_headers", at);
        let name = reader.named(&place.field("name"), &header.name, "the header's name");
        (lower(&name), header.value_prefix.as_str().into())
    });
    let from_headers = from_headers.collect();
    let claims = message.claim_to_headers.iter().enumerate().map(|(at, claim)| {
        let place = place.item("claim_to_headers", at);
        let header = reader.named(
            &place.field("header_name"),
            &claim.header_name,
            "the header's name",
        );
        let claim = reader.named(&place.field("claim_name"), &claim.claim_name, "the claim's name");
        (lower(&header), claim)
    });
    let claim_headers = claims.collect();
    let normalize = message.normalize_payload_in_metadata.as_ref();
    Some(JwtProvider {
        issuer: reader.named(&place.field("issuer"), &message.issuer, "the tokens' issuer"),
        audiences: texts(&message.audiences),
        jwks,
        forward: message.forward,
        from_headers,
        from_params: texts(&message.from_params),
        from_cookies: texts(&message.from_cookies),
        payload_header: message.forward_payload_header.to_ascii_lowercase().into(),
        claim_headers,
        metadata: message.payload_in_metadata.as_str().into(),
        space_delimited: normalize.map_or_else(Vec::new, |it| texts(&it.space_delimited_claims)),
        clock_skew: match message.clock_skew_seconds {
            0 => CLOCK_SKEW_DEFAULT,
            seconds => seconds,
        },
        clear_route_cache: message.clear_route_cache,
    })
}

/// There is one rule, for every path.
fn decode_rules(reader: &mut Reader, place: &Place<'_>, rules: &[RequirementRule]) -> Option<Requirement> {
    let rule = rules.first()?;
    if rules.len() > 1 {
        reader.value(
            &place.item("rules", 1),
            "a second rule",
            "write one rule with `match: {prefix: /}`",
        );
    }
    let place = place.item("rules", 0);
    let everything = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    if rule.r#match.as_ref() != Some(&everything) {
        reader.value(
            &place.field("match"),
            "a match of its own",
            "write `match: {prefix: /}`",
        );
    }
    match &rule.requirement_type {
        Some(RequirementType::Requires(requirement)) => {
            decode_requirement(reader, &place.field("requires"), requirement, Inside::Rule)
        }
        // Refused by the list of supported fields.
        Some(RequirementType::RequirementName(_)) | None => None,
    }
}

/// Where a requirement stands.
#[derive(Clone, Copy)]
enum Inside {
    Rule,
    Any(usize),
    All(usize),
}

fn decode_requirement(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &JwtRequirement,
    inside: Inside,
) -> Option<Requirement> {
    let depth = match inside {
        Inside::Rule => 0,
        Inside::Any(depth) | Inside::All(depth) => depth,
    };
    if depth >= DEPTH_MAX {
        reader.value(place, "a deeper requirement", "nest them at most 16 deep");
        return None;
    }
    let mut list = |name: &'static str, items: &[JwtRequirement], inside: Inside| {
        let place = place.field(name);
        if items.is_empty() {
            reader.fault(&place, Fault::Missing("at least one requirement"));
        }
        items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| {
                decode_requirement(reader, &place.item("requirements", at), item, inside)
            })
            .collect()
    };
    match &message.requires_type {
        Some(RequiresType::ProviderName(name)) => Some(Requirement::Provider(name.as_str().into())),
        Some(RequiresType::RequiresAny(any)) => Some(Requirement::Any(list(
            "requires_any",
            &any.requirements,
            Inside::Any(depth + 1),
        ))),
        Some(RequiresType::RequiresAll(all)) => Some(Requirement::All(list(
            "requires_all",
            &all.requirements,
            Inside::All(depth + 1),
        ))),
        Some(RequiresType::AllowMissing(_)) if matches!(inside, Inside::Any(_)) => {
            Some(Requirement::AllowMissing)
        }
        Some(RequiresType::AllowMissing(_)) => {
            reader.value(
                &place.field("allow_missing"),
                "a requirement of its own",
                "write it within requires_any, beside the provider",
            );
            None
        }
        // Refused by the list of supported fields.
        Some(
            RequiresType::ProviderAndAudiences(_)
            | RequiresType::AllowMissingOrFailed(_)
            | RequiresType::ExtractOnlyWithoutValidation(_),
        ) => None,
        None => reader.required(place, None, "a requirement"),
    }
}

pub(super) fn decode_claim(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &MetadataMatcher,
) -> Option<ClaimMatcher> {
    if message.filter != JWT_AUTHN {
        reader.value(
            &place.field("filter"),
            &message.filter,
            "envoy.filters.http.jwt_authn is the only one whose metadata are known",
        );
    }
    if message.invert {
        reader.value(&place.field("invert"), "true", "write not_id");
    }
    if message.path.is_empty() {
        reader.fault(&place.field("path"), Fault::Missing("at least one key"));
    }
    let path = message.path.iter().enumerate().filter_map(|(at, segment)| {
        let place = place.item("path", at);
        match &segment.segment {
            Some(metadata_matcher::path_segment::Segment::Key(key)) => {
                Some(reader.named(&place.field("key"), key, "a key"))
            }
            None => reader.required(&place.field("key"), None, "a key"),
        }
    });
    let path = path.collect();
    let place = place.field("value");
    let value = reader.required(&place, message.value.as_ref(), "a condition")?;
    Some(ClaimMatcher {
        path,
        value: decode_condition(reader, &place, value, 0)?,
    })
}

fn decode_condition(
    reader: &mut Reader,
    place: &Place<'_>,
    value: &ValueMatcher,
    depth: usize,
) -> Option<ClaimCondition> {
    if depth >= DEPTH_MAX {
        reader.value(place, "a deeper condition", "nest them at most 16 deep");
        return None;
    }
    match &value.match_pattern {
        Some(MatchPattern::StringMatch(text)) => {
            matcher::decode_string(reader, &place.field("string_match"), text).map(ClaimCondition::Text)
        }
        Some(MatchPattern::ListMatch(list)) => {
            let place = place.field("list_match");
            let place = place.field("one_of");
            let one_of = list.match_pattern.as_ref();
            let Some(list_matcher::MatchPattern::OneOf(inner)) = one_of else {
                return reader.required(&place, None, "a condition");
            };
            let inner = decode_condition(reader, &place, inner, depth + 1)?;
            Some(ClaimCondition::Element(Box::new(inner)))
        }
        Some(MatchPattern::OrMatch(or)) => {
            let place = place.field("or_match");
            if or.value_matchers.is_empty() {
                reader.fault(
                    &place.field("value_matchers"),
                    Fault::Missing("at least one condition"),
                );
            }
            let inner = or.value_matchers.iter().enumerate();
            let inner = inner
                .filter_map(|(at, it)| {
                    decode_condition(reader, &place.item("value_matchers", at), it, depth + 1)
                })
                .collect();
            Some(ClaimCondition::Any(inner))
        }
        // Refused by the list of supported fields.
        Some(_) => None,
        None => reader.required(place, None, "a condition"),
    }
}
