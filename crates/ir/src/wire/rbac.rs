//! Access control: the filters' configurations for HTTP and TCP.
//!
//! Rejected: matcher trees, conditions in CEL, metadata but the claims of tokens, filter state but for the peer's identity,
//! audit loggers, sets that nest deeper than [`DEPTH_MAX`].

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use rajut_proto::{
    core::{CidrRange, TypedExtensionConfig},
    envoy::{
        config::rbac::v3::{
            self as pb, permission, permission::Rule as PermissionRule, principal, principal::Identifier,
        },
        extensions::{
            filters::{
                http::rbac::v3::{Rbac as HttpMessage, RbacPerRoute},
                network::rbac::v3::{Rbac as NetworkMessage, rbac::EnforcementType},
            },
            path::r#match::uri_template::v3::UriTemplateMatchConfig,
        },
    },
    matcher::{FilterStateMatcher, PathMatcher, filter_state_matcher, path_matcher},
    type_url, types,
};

use super::{
    Fault, jwt, matcher,
    read::{Place, Reader},
    write,
};
use crate::{
    matcher::StringMatcher,
    rbac::{Action, DEPTH_MAX, Permission, Policy, Principal, Rbac, Rule, Rules, UriTemplate},
};

/// Where Istio's proxy keeps the identity of the peer, if a sender has moved from `authenticated` to filter state.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";
const URI_TEMPLATE: &str = "envoy.path.match.uri_template.uri_template_matcher";

// --- encode ---

pub(super) fn encode_http(rbac: &Rbac) -> HttpMessage {
    HttpMessage {
        rules: rbac.rules.as_ref().map(|it| encode_rules(it)),
        rules_stat_prefix: rbac.stat_prefix.to_string(),
        shadow_rules: rbac.shadow.as_ref().map(|it| encode_rules(it)),
        shadow_rules_stat_prefix: rbac.shadow_stat_prefix.to_string(),
        ..Default::default()
    }
}

pub(super) fn encode_network(rbac: &Rbac) -> NetworkMessage {
    NetworkMessage {
        rules: rbac.rules.as_ref().map(|it| encode_rules(it)),
        shadow_rules: rbac.shadow.as_ref().map(|it| encode_rules(it)),
        shadow_rules_stat_prefix: rbac.shadow_stat_prefix.to_string(),
        stat_prefix: rbac.stat_prefix.to_string(),
        ..Default::default()
    }
}

fn encode_rules(rules: &Rules) -> pb::Rbac {
    pb::Rbac {
        action: match rules.action() {
            Action::Allow => pb::rbac::Action::Allow,
            Action::Deny => pb::rbac::Action::Deny,
            Action::Log => pb::rbac::Action::Log,
        }
        .into(),
        policies: rules
            .policies()
            .iter()
            .map(|(name, policy)| (name.to_string(), encode_policy(policy)))
            .collect(),
        audit_logging_options: None,
    }
}

fn encode_policy(policy: &Policy) -> pb::Policy {
    pb::Policy {
        permissions: policy.permissions.iter().map(encode_permission).collect(),
        principals: policy.principals.iter().map(encode_principal).collect(),
        ..Default::default()
    }
}

fn encode_permission(rule: &Rule<Permission>) -> pb::Permission {
    let set = |rules: &[Rule<Permission>]| permission::Set {
        rules: rules.iter().map(encode_permission).collect(),
    };
    pb::Permission {
        rule: Some(match rule {
            Rule::Any => PermissionRule::Any(true),
            Rule::And(rules) => PermissionRule::AndRules(set(rules)),
            Rule::Or(rules) => PermissionRule::OrRules(set(rules)),
            Rule::Not(rule) => PermissionRule::NotRule(Box::new(encode_permission(rule))),
            Rule::Is(Permission::Header(header)) => PermissionRule::Header(matcher::encode_header(header)),
            Rule::Is(Permission::UrlPath(path)) => PermissionRule::UrlPath(encode_path(path)),
            Rule::Is(Permission::UriTemplate(template)) => {
                let config = UriTemplateMatchConfig {
                    path_template: template.source().to_owned(),
                };
                PermissionRule::UriTemplate(TypedExtensionConfig {
                    name: URI_TEMPLATE.to_owned(),
                    typed_config: Some(write::any(type_url::URI_TEMPLATE, &config)),
                })
            }
            Rule::Is(Permission::DestinationIp(net)) => PermissionRule::DestinationIp(encode_range(*net)),
            Rule::Is(Permission::DestinationPort(port)) => PermissionRule::DestinationPort((*port).into()),
            Rule::Is(Permission::DestinationPorts(ports)) => {
                PermissionRule::DestinationPortRange(types::Int32Range {
                    start: i32::try_from(ports.start).unwrap_or(i32::MAX),
                    end: i32::try_from(ports.end).unwrap_or(i32::MAX),
                })
            }
            Rule::Is(Permission::ServerName(name)) => {
                PermissionRule::RequestedServerName(matcher::encode_string(name))
            }
        }),
    }
}

fn encode_principal(rule: &Rule<Principal>) -> pb::Principal {
    let set = |rules: &[Rule<Principal>]| principal::Set {
        ids: rules.iter().map(encode_principal).collect(),
    };
    pb::Principal {
        identifier: Some(match rule {
            Rule::Any => Identifier::Any(true),
            Rule::And(rules) => Identifier::AndIds(set(rules)),
            Rule::Or(rules) => Identifier::OrIds(set(rules)),
            Rule::Not(rule) => Identifier::NotId(Box::new(encode_principal(rule))),
            Rule::Is(Principal::Authenticated(name)) => Identifier::Authenticated(principal::Authenticated {
                principal_name: name.as_ref().map(matcher::encode_string),
            }),
            Rule::Is(Principal::DirectRemoteIp(net)) => Identifier::DirectRemoteIp(encode_range(*net)),
            Rule::Is(Principal::RemoteIp(net)) => Identifier::RemoteIp(encode_range(*net)),
            Rule::Is(Principal::Header(header)) => Identifier::Header(matcher::encode_header(header)),
            Rule::Is(Principal::UrlPath(path)) => Identifier::UrlPath(encode_path(path)),
            Rule::Is(Principal::Claim(claim)) => Identifier::Metadata(jwt::encode_claim(claim)),
        }),
    }
}

fn encode_path(path: &StringMatcher) -> PathMatcher {
    PathMatcher {
        rule: Some(path_matcher::Rule::Path(matcher::encode_string(path))),
    }
}

fn encode_range(net: IpNet) -> CidrRange {
    CidrRange {
        address_prefix: net.addr().to_string(),
        prefix_len: Some(write::number(net.prefix_len().into())),
    }
}

// --- decode ---

pub(super) fn decode_http(reader: &mut Reader, place: &Place<'_>, message: &HttpMessage) -> Rbac {
    Rbac {
        rules: decode_rules(reader, &place.field("rules"), message.rules.as_ref()),
        shadow: decode_rules(
            reader,
            &place.field("shadow_rules"),
            message.shadow_rules.as_ref(),
        ),
        stat_prefix: message.rules_stat_prefix.as_str().into(),
        shadow_stat_prefix: message.shadow_rules_stat_prefix.as_str().into(),
    }
}

/// `None` where the filter does nothing on this route.
pub(super) fn decode_per_route(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &RbacPerRoute,
) -> Option<Rbac> {
    let rbac = message.rbac.as_ref()?;
    Some(decode_http(reader, &place.field("rbac"), rbac))
}

pub(super) fn decode_network(reader: &mut Reader, place: &Place<'_>, message: &NetworkMessage) -> Rbac {
    let enforcement: EnforcementType =
        reader.enumerator(&place.field("enforcement_type"), message.enforcement_type);
    if enforcement == EnforcementType::Continuous {
        reader.value(
            &place.field("enforcement_type"),
            "CONTINUOUS",
            "a connection is judged once, when it opens: leave the field out",
        );
    }
    let rules = decode_rules(reader, &place.field("rules"), message.rules.as_ref());
    let shadow_place = place.field("shadow_rules");
    let shadow = decode_rules(reader, &shadow_place, message.shadow_rules.as_ref());
    for (place, rules) in [(&place.field("rules"), &rules), (&shadow_place, &shadow)] {
        for (name, policy) in rules.iter().flat_map(|it| it.policies()) {
            if policy.needs_http() {
                reader.value(
                    &place.key("policies", name),
                    "a condition on a header or path",
                    "a connection has neither: use the HTTP filter",
                );
            }
        }
    }
    Rbac {
        rules,
        shadow,
        stat_prefix: reader.named(
            &place.field("stat_prefix"),
            &message.stat_prefix,
            "a prefix of statistics",
        ),
        shadow_stat_prefix: message.shadow_rules_stat_prefix.as_str().into(),
    }
}

fn decode_rules(reader: &mut Reader, place: &Place<'_>, message: Option<&pb::Rbac>) -> Option<Arc<Rules>> {
    let message = message?;
    let action = match reader.enumerator(&place.field("action"), message.action) {
        pb::rbac::Action::Allow => Action::Allow,
        pb::rbac::Action::Deny => Action::Deny,
        pb::rbac::Action::Log => Action::Log,
    };
    let mut policies = BTreeMap::new();
    let mut sorted: Vec<_> = message.policies.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (name, policy) in sorted {
        let policy = decode_policy(reader, &place.key("policies", name), policy);
        policies.insert(name.as_str().into(), policy);
    }
    Some(Arc::new(Rules::compile(action, policies)))
}

fn decode_policy(reader: &mut Reader, place: &Place<'_>, policy: &pb::Policy) -> Policy {
    let permissions: Vec<_> = policy
        .permissions
        .iter()
        .enumerate()
        .filter_map(|(at, rule)| decode_permission(reader, &place.item("permissions", at), rule, 0))
        .collect();
    let principals: Vec<_> = policy
        .principals
        .iter()
        .enumerate()
        .filter_map(|(at, rule)| decode_principal(reader, &place.item("principals", at), rule, 0))
        .collect();
    if policy.permissions.is_empty() {
        reader.fault(
            &place.field("permissions"),
            Fault::Missing("at least one permission"),
        );
    }
    if policy.principals.is_empty() {
        reader.fault(
            &place.field("principals"),
            Fault::Missing("at least one principal"),
        );
    }
    Policy {
        permissions,
        principals,
    }
}

/// Whether a set may stand at this depth, and is not empty.
fn may_nest(reader: &mut Reader, place: &Place<'_>, depth: usize, length: usize) -> bool {
    if depth >= DEPTH_MAX {
        reader.value(place, "a deeper set", "nest and, or, not at most 16 deep");
        return false;
    }
    if length == 0 {
        reader.fault(place, Fault::Missing("at least one rule"));
        return false;
    }
    true
}

fn any<L>(reader: &mut Reader, place: &Place<'_>, any: bool) -> Option<Rule<L>> {
    if any {
        return Some(Rule::Any);
    }
    reader.value(&place.field("any"), "false", "write true");
    None
}

fn decode_permission(
    reader: &mut Reader,
    place: &Place<'_>,
    rule: &pb::Permission,
    depth: usize,
) -> Option<Rule<Permission>> {
    let set = |reader: &mut Reader, name, set: &permission::Set| {
        let place = place.field(name);
        may_nest(reader, &place, depth, set.rules.len()).then(|| {
            let rules = set.rules.iter().enumerate();
            rules
                .filter_map(|(at, rule)| decode_permission(reader, &place.item("rules", at), rule, depth + 1))
                .collect()
        })
    };
    let leaf = match rule.rule.as_ref() {
        Some(PermissionRule::AndRules(rules)) => return set(reader, "and_rules", rules).map(Rule::And),
        Some(PermissionRule::OrRules(rules)) => return set(reader, "or_rules", rules).map(Rule::Or),
        Some(PermissionRule::NotRule(rule)) => {
            let place = place.field("not_rule");
            if !may_nest(reader, &place, depth, 1) {
                return None;
            }
            return decode_permission(reader, &place, rule, depth + 1).map(|rule| Rule::Not(Box::new(rule)));
        }
        Some(PermissionRule::Any(value)) => return any(reader, place, *value),
        Some(PermissionRule::Header(header)) => {
            Permission::Header(matcher::decode_header(reader, &place.field("header"), header)?)
        }
        Some(PermissionRule::UrlPath(path)) => {
            Permission::UrlPath(decode_path(reader, &place.field("url_path"), path)?)
        }
        Some(PermissionRule::UriTemplate(template)) => {
            Permission::UriTemplate(decode_template(reader, &place.field("uri_template"), template)?)
        }
        Some(PermissionRule::DestinationIp(range)) => {
            Permission::DestinationIp(reader.range(&place.field("destination_ip"), range)?)
        }
        Some(PermissionRule::DestinationPort(port)) => {
            Permission::DestinationPort(reader.port(&place.field("destination_port"), *port))
        }
        Some(PermissionRule::DestinationPortRange(range)) => {
            let ports = u32::try_from(range.start).ok().zip(u32::try_from(range.end).ok());
            match ports {
                Some((start, end)) if start < end && end <= 65_536 => {
                    Permission::DestinationPorts(start..end)
                }
                _ => {
                    reader.out_of_range(
                        &place.field("destination_port_range"),
                        format_args!("{}..{}", range.start, range.end),
                        "0 to 65536, the start below the end",
                    );
                    return None;
                }
            }
        }
        Some(PermissionRule::RequestedServerName(name)) => {
            let place = place.field("requested_server_name");
            Permission::ServerName(matcher::decode_string(reader, &place, name)?)
        }
        // Refused by the list of supported fields.
        Some(
            PermissionRule::Metadata(_) | PermissionRule::Matcher(_) | PermissionRule::SourcedMetadata(_),
        ) => return None,
        None => return reader.required(place, None, "a rule"),
    };
    Some(Rule::Is(leaf))
}

fn decode_principal(
    reader: &mut Reader,
    place: &Place<'_>,
    rule: &pb::Principal,
    depth: usize,
) -> Option<Rule<Principal>> {
    let set = |reader: &mut Reader, name, set: &principal::Set| {
        let place = place.field(name);
        may_nest(reader, &place, depth, set.ids.len()).then(|| {
            let ids = set.ids.iter().enumerate();
            ids.filter_map(|(at, rule)| decode_principal(reader, &place.item("ids", at), rule, depth + 1))
                .collect()
        })
    };
    let leaf = match rule.identifier.as_ref() {
        Some(Identifier::AndIds(ids)) => return set(reader, "and_ids", ids).map(Rule::And),
        Some(Identifier::OrIds(ids)) => return set(reader, "or_ids", ids).map(Rule::Or),
        Some(Identifier::NotId(rule)) => {
            let place = place.field("not_id");
            if !may_nest(reader, &place, depth, 1) {
                return None;
            }
            return decode_principal(reader, &place, rule, depth + 1).map(|rule| Rule::Not(Box::new(rule)));
        }
        Some(Identifier::Any(value)) => return any(reader, place, *value),
        Some(Identifier::Authenticated(authenticated)) => {
            let place = place.field("authenticated");
            let place = place.field("principal_name");
            Principal::Authenticated(match &authenticated.principal_name {
                Some(name) => Some(matcher::decode_string(reader, &place, name)?),
                None => None,
            })
        }
        Some(Identifier::SourceIp(range)) => {
            Principal::DirectRemoteIp(reader.range(&place.field("source_ip"), range)?)
        }
        Some(Identifier::DirectRemoteIp(range)) => {
            Principal::DirectRemoteIp(reader.range(&place.field("direct_remote_ip"), range)?)
        }
        Some(Identifier::RemoteIp(range)) => {
            Principal::RemoteIp(reader.range(&place.field("remote_ip"), range)?)
        }
        Some(Identifier::Header(header)) => {
            Principal::Header(matcher::decode_header(reader, &place.field("header"), header)?)
        }
        Some(Identifier::UrlPath(path)) => {
            Principal::UrlPath(decode_path(reader, &place.field("url_path"), path)?)
        }
        Some(Identifier::Metadata(claim)) => {
            Principal::Claim(jwt::decode_claim(reader, &place.field("metadata"), claim)?)
        }
        Some(Identifier::FilterState(state)) => {
            Principal::Authenticated(Some(decode_state(reader, &place.field("filter_state"), state)?))
        }
        // Refused by the list of supported fields.
        Some(Identifier::SourcedMetadata(_) | Identifier::Custom(_)) => return None,
        None => return reader.required(place, None, "an identifier"),
    };
    Some(Rule::Is(leaf))
}

/// Istio's newer way to name the peer.
fn decode_state(reader: &mut Reader, place: &Place<'_>, state: &FilterStateMatcher) -> Option<StringMatcher> {
    match &state.matcher {
        Some(filter_state_matcher::Matcher::StringMatch(name)) if state.key == PEER_PRINCIPAL => {
            matcher::decode_string(reader, &place.field("string_match"), name)
        }
        _ => {
            reader.value(
                &place.field("key"),
                &state.key,
                "io.istio.peer_principal with string_match is all there is: write authenticated",
            );
            None
        }
    }
}

fn decode_path(reader: &mut Reader, place: &Place<'_>, path: &PathMatcher) -> Option<StringMatcher> {
    match &path.rule {
        Some(path_matcher::Rule::Path(path)) => matcher::decode_string(reader, &place.field("path"), path),
        None => reader.required(place, None, "path"),
    }
}

fn decode_template(
    reader: &mut Reader,
    place: &Place<'_>,
    template: &TypedExtensionConfig,
) -> Option<UriTemplate> {
    let config = template.typed_config.as_ref();
    let Some(config) = config.filter(|it| it.type_url == type_url::URI_TEMPLATE) else {
        reader.extension(place, "path matcher", &template.name, config, URI_TEMPLATE);
        return None;
    };
    let place = place.field("typed_config");
    let message: UriTemplateMatchConfig = reader.unpack(&place, config)?;
    let parsed = UriTemplate::parse(&message.path_template);
    if parsed.is_err() {
        reader.bad_text(
            &place.field("path_template"),
            &message.path_template,
            "a template of whole segments, `*`, and `**` as the last",
        );
    }
    parsed.ok()
}
