//! Istio `AuthorizationPolicy`.
//!
//! Refused by name, since leaving it out would allow or forbid something else than what is meant: `targetRefs` and conditions on
//! metadata of Envoy's filters.

use ipnet::IpNet;
use rajut_types::{Severity, Text};

use super::{
    meta::{self, Meta, NameForm},
    pattern::{path, wild},
    peer_authentication::match_labels,
};
use crate::{
    codes,
    model::{
        AuthorizationAction, AuthorizationCondition, AuthorizationOperation, AuthorizationPolicy,
        AuthorizationRule, AuthorizationSource, ServiceAccountName, Values, Wild,
    },
    read::{Field, Object, listed, nearest, shown},
};

/// Makes a policy a rehearsal. Source: Istio `istio.io/dry-run`.
const DRY_RUN: &str = "istio.io/dry-run";

/// Ends what is open and would be refused after a change of the rules.
const CLOSE_OPEN: &str = "mesh.rajut.dev/close-open";

/// How many names may lead to a claim.
const CLAIMS_DEPTH_MAX: usize = 16;

/// The keys of `when` that have no name within brackets.
const KEYS: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
];

pub(crate) fn read(root: &Object<'_>) -> Option<AuthorizationPolicy> {
    let meta = meta::read(root, NameForm::Subdomain);
    let namespace = meta
        .as_ref()
        .map_or_else(Text::default, |meta| meta.namespace.clone());
    let (mut selector, mut action, mut rules) = (None, AuthorizationAction::Allow, Vec::new());
    let (mut action_at, mut provider) = (None, None);
    if let Some(spec) = root.object("spec") {
        selector = spec.object("selector").and_then(|object| match_labels(&object));
        spec.refused(
            &["targetRef", "targetRefs"],
            "without it the policy would hold for the whole namespace",
        );
        action_at = spec.get("action");
        if let Some(field) = &action_at {
            action = read_action(field).unwrap_or(action);
        }
        provider = read_provider(&spec, action);
        let items = spec.list("rules").into_iter().filter_map(Field::object);
        rules = items.map(|rule| read_rule(&rule, &namespace)).collect();
    }
    let meta = meta?;
    let dry_run = meta.annotations.find(DRY_RUN) == Some("true");
    let rehearses = matches!(action, AuthorizationAction::Allow | AuthorizationAction::Deny);
    if let Some(field) = action_at.filter(|_| dry_run && !rehearses) {
        let message = if action == AuthorizationAction::Audit {
            format!("`{DRY_RUN}` means nothing to the action `AUDIT`, which refuses nothing")
        } else {
            format!(
                "`{DRY_RUN}` means nothing to the action `CUSTOM`: the provider is asked, and its answer counts"
            )
        };
        field.warn(codes::NO_EFFECT, message, "take the annotation out");
    }
    let closes_open = closes_open(root, &meta, rehearses && !dry_run);
    Some(AuthorizationPolicy {
        name: meta.name,
        namespace: meta.namespace,
        selector,
        action,
        provider,
        dry_run: dry_run && rehearses,
        closes_open,
        rules,
        origin: root.field().origin(),
        age: meta.age,
    })
}

/// Whether open exchanges are to end. `refuses`: the policy can refuse any.
fn closes_open(root: &Object<'_>, meta: &Meta, refuses: bool) -> bool {
    let wanted = match meta.annotations.find(CLOSE_OPEN) {
        None | Some("false") => return false,
        Some(value) => value == "true",
    };
    if !wanted || !refuses {
        let message = if wanted {
            format!("`{CLOSE_OPEN}` means nothing here: this policy refuses nothing by itself")
        } else {
            format!("`{CLOSE_OPEN}` is neither `true` nor `false`: nothing that is open is ended")
        };
        root.field().say_key(
            Severity::Warning,
            codes::NO_EFFECT,
            message,
            "write it as \"true\" on a policy of the action ALLOW or DENY that is in force",
        );
    }
    wanted && refuses
}

fn read_action(field: &Field<'_>) -> Option<AuthorizationAction> {
    field.choice(&[
        ("ALLOW", AuthorizationAction::Allow),
        ("DENY", AuthorizationAction::Deny),
        ("AUDIT", AuthorizationAction::Audit),
        ("CUSTOM", AuthorizationAction::Custom),
    ])
}

/// The name of who is asked, which the action `CUSTOM` needs and no other has.
fn read_provider(spec: &Object<'_>, action: AuthorizationAction) -> Option<Text> {
    let is_custom = action == AuthorizationAction::Custom;
    let Some(provider) = spec.object("provider") else {
        if is_custom {
            spec.required("provider", "name one of meshConfig.extensionProviders");
        }
        return None;
    };
    if !is_custom {
        provider.ignore_rest();
        provider.field().say_key(
            Severity::Error,
            codes::EXCLUSIVE,
            "`provider` belongs to the action `CUSTOM`",
            "take it out",
        );
        return None;
    }
    let name = provider.required("name", "name one of meshConfig.extensionProviders")?;
    name.non_empty_text()
}

fn read_rule(rule: &Object<'_>, namespace: &Text) -> AuthorizationRule {
    AuthorizationRule {
        sources: parts(rule, "from", "source", |source| read_source(source, namespace)),
        operations: parts(rule, "to", "operation", read_operation),
        conditions: rule
            .values("when")
            .into_iter()
            .filter_map(Field::object)
            .filter_map(|condition| read_condition(&condition, namespace))
            .collect(),
        line: rule.field().origin().line,
    }
}

/// The objects called `inner` within the entries of the list `name`.
fn parts<T>(
    rule: &Object<'_>,
    name: &'static str,
    inner: &'static str,
    read: impl Fn(&Object<'_>) -> T,
) -> Vec<T> {
    let entries = rule.values(name).into_iter().filter_map(Field::object);
    let read_one = |entry: &Object<'_>| {
        let found = entry.required(inner, "")?.object()?;
        if found.is_empty() {
            found.field().say_key(
                Severity::Error,
                codes::MISSING_FIELD,
                format!("`{inner}` needs at least one field"),
                format!("leave `{name}` out if anything will do"),
            );
        }
        Some(read(&found))
    };
    entries.filter_map(|entry| read_one(&entry)).collect()
}

fn read_source(source: &Object<'_>, namespace: &Text) -> AuthorizationSource {
    let read = AuthorizationSource {
        principals: both(source, "principals", "notPrincipals", principal),
        namespaces: both(source, "namespaces", "notNamespaces", identity_part),
        service_accounts: both(source, "serviceAccounts", "notServiceAccounts", |field| {
            service_account(field, namespace)
        }),
        trust_domains: both(source, "trustDomains", "notTrustDomains", identity_part),
        ip_blocks: both(source, "ipBlocks", "notIpBlocks", net),
        remote_ip_blocks: both(source, "remoteIpBlocks", "notRemoteIpBlocks", net),
        request_principals: both(source, "requestPrincipals", "notRequestPrincipals", wild),
    };
    let accounts = source.get("serviceAccounts").or(source.get("notServiceAccounts"));
    let identities = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    if let Some(accounts) = accounts
        && let Some(other) = identities.iter().find(|name| source.has(name))
    {
        accounts.say_key(
            Severity::Error,
            codes::EXCLUSIVE,
            format!("service accounts can't stand beside `{other}` in one source"),
            "keep one of the two: a service account has a namespace already",
        );
    }
    read
}

fn read_operation(operation: &Object<'_>) -> AuthorizationOperation {
    AuthorizationOperation {
        hosts: both(operation, "hosts", "notHosts", wild),
        ports: both(operation, "ports", "notPorts", port),
        methods: both(operation, "methods", "notMethods", wild),
        paths: both(operation, "paths", "notPaths", path),
    }
}

fn read_condition(condition: &Object<'_>, namespace: &Text) -> Option<AuthorizationCondition> {
    let key = condition.required("key", "for example `key: source.ip`");
    if !condition.has("values") && !condition.has("notValues") {
        condition.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "a condition needs `values` or `notValues`",
            "",
        );
    }
    let (key, name) = key.and_then(|key| key.text().map(|name| (key, name)))?;
    let wilds = || both(condition, "values", "notValues", wild);
    let parts = || both(condition, "values", "notValues", identity_part);
    let nets = || both(condition, "values", "notValues", net);
    if let Some(header) = name
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let bytes = header.bytes();
        if header.is_empty() || !bytes.into_iter().all(|byte| byte.is_ascii_graphic()) {
            key.error(
                codes::BAD_HEADER,
                format!("`{}` is not a header's name", shown(header)),
                "write `request.headers[x-name]`",
            );
        }
        return Some(AuthorizationCondition::Header(
            header.to_ascii_lowercase().into(),
            wilds(),
        ));
    }
    if let Some(rest) = name.strip_prefix("request.auth.claims") {
        let values = wilds();
        let Some(path) = names_in_brackets(rest) else {
            key.error(
                codes::UNKNOWN_VALUE,
                format!("`{}` names no claim", shown(&name)),
                "write `request.auth.claims[name]`, or `request.auth.claims[outer][inner]` for one within another",
            );
            return None;
        };
        return Some(AuthorizationCondition::Claim(path, values));
    }
    Some(match &*name {
        "request.auth.principal" => AuthorizationCondition::RequestPrincipal(wilds()),
        "request.auth.audiences" => AuthorizationCondition::Claim(vec!["aud".into()], wilds()),
        "request.auth.presenter" => AuthorizationCondition::Claim(vec!["azp".into()], wilds()),
        "source.ip" => AuthorizationCondition::SourceIp(nets()),
        "remote.ip" => AuthorizationCondition::RemoteIp(nets()),
        "source.namespace" => AuthorizationCondition::SourceNamespace(parts()),
        "source.principal" => {
            AuthorizationCondition::SourcePrincipal(both(condition, "values", "notValues", principal))
        }
        "source.serviceAccount" => {
            AuthorizationCondition::SourceServiceAccount(both(condition, "values", "notValues", |field| {
                service_account(field, namespace)
            }))
        }
        "source.trustDomain" => AuthorizationCondition::SourceTrustDomain(parts()),
        "destination.ip" => AuthorizationCondition::DestinationIp(nets()),
        "destination.port" => {
            AuthorizationCondition::DestinationPort(both(condition, "values", "notValues", port))
        }
        "connection.sni" => AuthorizationCondition::ServerName(wilds()),
        other => {
            condition.ignore(&["values", "notValues"]);
            unknown_key(&key, other);
            return None;
        }
    })
}

/// `[a][b]`
fn names_in_brackets(text: &str) -> Option<Vec<Text>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<Text> = inner.split("][").map(Text::from).collect();
    let is_name = |name: &Text| !name.is_empty() && !name.contains(['[', ']']);
    (names.len() <= CLAIMS_DEPTH_MAX && names.iter().all(is_name)).then_some(names)
}

fn unknown_key(key: &Field<'_>, name: &str) {
    if name.starts_with("experimental.") {
        key.error(
            codes::NOT_SUPPORTED,
            format!(
                "the key `{}` is not supported: metadata of Envoy's filters are not known here",
                shown(name)
            ),
            "take the condition out; the object is not used as it stands",
        );
        return;
    }
    let hint = match nearest(name, KEYS.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write `request.headers[…]` or one of {}", listed(KEYS)),
    };
    key.error(
        codes::UNKNOWN_VALUE,
        format!("there is no key `{}`", shown(name)),
        hint,
    );
}

/// What must and what must not hold. A list that is there and empty is an error: Istio's API server takes it for one that
/// is absent, which its writer can hardly have meant.
fn both<T>(
    object: &Object<'_>,
    any: &'static str,
    none: &'static str,
    read: impl Fn(&Field<'_>) -> Option<T>,
) -> Values<T> {
    let of = |name| object.values(name).iter().filter_map(&read).collect();
    Values {
        any: of(any),
        none: of(none),
    }
}

fn principal(field: &Field<'_>) -> Option<Wild> {
    let pattern = wild(field)?;
    if let Wild::Exact(text) | Wild::Prefix(text) = &pattern
        && text.starts_with("spiffe://")
    {
        field.error(
            codes::BAD_PATTERN,
            format!(
                "a principal is written without `spiffe://`: `{}` would never match",
                shown(text)
            ),
            "write `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`",
        );
    }
    Some(pattern)
}

/// A namespace or a trust domain, a part of an identity.
fn identity_part(field: &Field<'_>) -> Option<Wild> {
    let pattern = wild(field)?;
    if let Wild::Exact(text) | Wild::Prefix(text) | Wild::Suffix(text) = &pattern
        && !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        field.error(
            codes::BAD_NAME,
            format!("`{}` can't stand in an identity", shown(text)),
            "write letters, digits, `-`, `.` and `_`, with one `*` at an end if need be",
        );
        return None;
    }
    Some(pattern)
}

/// `ACCOUNT`, in the policy's namespace, or `NAMESPACE/ACCOUNT`.
fn service_account(field: &Field<'_>, namespace: &Text) -> Option<ServiceAccountName> {
    let text = field.non_empty_text()?;
    let (of, name) = text.split_once('/').unwrap_or((namespace, &text));
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    if plain(of) && plain(name) {
        return Some(ServiceAccountName {
            namespace: of.into(),
            name: name.into(),
        });
    }
    field.error(
        codes::BAD_NAME,
        format!("`{}` is not a service account", shown(&text)),
        "write `ACCOUNT` or `NAMESPACE/ACCOUNT`, without wildcards",
    );
    None
}

fn net(field: &Field<'_>) -> Option<IpNet> {
    field.net()
}

/// Istio writes ports as texts.
fn port(field: &Field<'_>) -> Option<u16> {
    let text = field.loose_text()?;
    let number = text.parse().ok().filter(|number| *number != 0);
    if number.is_none() {
        field.error(
            codes::OUT_OF_RANGE,
            format!("`{}` is not a port number", shown(&text)),
            "write a number from 1 to 65535: the workload's port, not the service's",
        );
    }
    number
}

#[cfg(test)]
mod tests;
