//! Our `RateLimitPolicy` (`mesh.rajut.dev/v1alpha1`): how many requests a workload takes, of whom and in which time.
//!
//! ```yaml
//! apiVersion: mesh.rajut.dev/v1alpha1
//! kind: RateLimitPolicy
//! metadata:
//!   name: records
//! spec:
//!   selector: {matchLabels: {app: records}}
//!   limits:
//!   - name: searches
//!     match: {methods: [GET], paths: [/search*]}
//!     by: [{caller: IDENTITY}]
//!     requests: 100
//!     per: 1m
//! ```
//!
//! Bounds: [`LIMITS_MAX`] limits in a policy, [`KEYS_MAX`] entries in `by`.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use rajut_types::{Severity, Text};

use super::{
    meta::{self, NameForm},
    pattern::{path, wild},
    peer_authentication::match_labels,
};
use crate::{
    codes,
    model::{LimitKey, LimitedRequests, RateLimit, RateLimitPolicy, Wild},
    read::{Field, Object, shown},
};

/// Each limit is a filter that every request passes.
const LIMITS_MAX: usize = 32;
/// Each entry that a request may lack doubles the buckets.
const KEYS_MAX: usize = 3;
const REQUESTS: RangeInclusive<i64> = 1..=10_000_000;
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

pub(crate) fn read(root: &Object<'_>) -> Option<RateLimitPolicy> {
    let meta = meta::read(root, NameForm::Subdomain);
    let (mut selector, mut shadow, mut limits) = (None, false, Vec::new());
    if let Some(spec) = root
        .required("spec", "add `spec:` with `limits:`")
        .and_then(Field::object)
    {
        selector = spec.object("selector").and_then(|object| match_labels(&object));
        let mode = spec
            .get("mode")
            .and_then(|field| field.choice(&[("ENFORCE", false), ("SHADOW", true)]));
        shadow = mode.unwrap_or(false);
        limits = read_limits(&spec);
    }
    let meta = meta?;
    Some(RateLimitPolicy {
        name: meta.name,
        namespace: meta.namespace,
        selector,
        shadow,
        limits,
        origin: root.field().origin(),
        age: meta.age,
    })
}

fn read_limits(spec: &Object<'_>) -> Vec<RateLimit> {
    let Some(field) = spec.required(
        "limits",
        "for example `limits: [{name: all, requests: 100, per: 1s}]`",
    ) else {
        return Vec::new();
    };
    let items = field.list();
    if items.is_empty() || items.len() > LIMITS_MAX {
        field.say_key(
            Severity::Error,
            codes::OUT_OF_RANGE,
            format!("there are {} limits", items.len()),
            format!("write 1 to {LIMITS_MAX}; more go into another policy"),
        );
    }
    let mut names = BTreeSet::new();
    let limits = items.into_iter().filter_map(Field::object);
    limits
        .filter_map(|limit| read_limit(&limit, &mut names))
        .collect()
}

fn read_limit(limit: &Object<'_>, names: &mut BTreeSet<Text>) -> Option<RateLimit> {
    let name = read_name(limit, names);
    let requests = limit
        .required("requests", "how many, for example `requests: 100`")
        .and_then(|field| count(&field));
    let per = limit
        .required("per", "in which time, for example `per: 1m`")
        .and_then(|field| window(&field));
    let burst = limit.get("burst").map(|field| count(&field));
    let keys = limit.get("by").map(|field| read_keys(&field)).unwrap_or_default();
    let requests_meant = limit
        .object("match")
        .map(|object| read_match(&object))
        .unwrap_or_default();
    let requests = requests?;
    Some(RateLimit {
        name: name?,
        requests,
        per: per?,
        burst: burst.unwrap_or(Some(requests))?,
        keys,
        matched: requests_meant,
    })
}

fn read_name(limit: &Object<'_>, names: &mut BTreeSet<Text>) -> Option<Text> {
    let field = limit.required("name", "it stands in metrics, for example `name: searches`")?;
    let name = field.non_empty_text()?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() > 63 || !name.bytes().all(is_plain) {
        field.error(
            codes::BAD_NAME,
            format!("`{}` can't name a limit", shown(&name)),
            "write at most 63 lower-case letters, digits and `-`",
        );
        return None;
    }
    if !names.insert(name.clone()) {
        field.error(
            codes::DUPLICATE_NAME,
            format!("there is a limit `{name}` in this policy already"),
            "give it another name: they are told apart by it in metrics",
        );
        return None;
    }
    Some(name)
}

fn count(field: &Field<'_>) -> Option<u32> {
    field
        .integer(REQUESTS)
        .and_then(|number| u32::try_from(number).ok())
}

fn window(field: &Field<'_>) -> Option<Duration> {
    let window = field.duration()?;
    if WINDOW.contains(&window) {
        return Some(window);
    }
    field.error(
        codes::OUT_OF_RANGE,
        "a limit's window is 1 s to 24 h",
        "for less than a second write the number of requests of a whole one, with `burst` for how many may come at once",
    );
    None
}

fn read_keys(field: &Field<'_>) -> Vec<LimitKey> {
    let items = field.list();
    if items.is_empty() || items.len() > KEYS_MAX {
        field.say_key(
            Severity::Error,
            codes::OUT_OF_RANGE,
            format!("`by` has {} entries", items.len()),
            format!("write 1 to {KEYS_MAX}, or leave `by` out for one limit of all requests"),
        );
    }
    let mut keys = Vec::new();
    for object in items.into_iter().filter_map(Field::object) {
        let caller = object.get("caller").and_then(|field| {
            field.choice(&[
                ("IDENTITY", LimitKeyKind::Identity),
                ("ADDRESS", LimitKeyKind::Address),
            ])
        });
        let header = object.get("header").and_then(|field| header_name(&field));
        if object.has("caller") == object.has("header") {
            object.field().say_key(
                Severity::Error,
                if object.has("caller") { codes::EXCLUSIVE } else { codes::MISSING_FIELD },
                "an entry of `by` is either `caller` or `header`",
                "write `- caller: IDENTITY`, `- caller: ADDRESS` or `- header: x-name`, each an entry of its own",
            );
            continue;
        }
        let key = match (caller, header) {
            (Some(LimitKeyKind::Identity), _) => LimitKey::Identity,
            (Some(LimitKeyKind::Address), _) => LimitKey::Address,
            (None, Some(name)) => LimitKey::Header(name),
            (None, None) => continue,
        };
        if keys.contains(&key) {
            object.field().error(
                codes::DUPLICATE_NAME,
                "it stands here already",
                "take one of them out",
            );
            continue;
        }
        keys.push(key);
    }
    keys
}

#[derive(Clone, Copy)]
enum LimitKeyKind {
    Identity,
    Address,
}

fn header_name(field: &Field<'_>) -> Option<Text> {
    let name = field.non_empty_text()?;
    if let Some(lower) = valid_header(&name) {
        return Some(lower);
    }
    field.error(
        codes::BAD_HEADER,
        format!("`{}` is not a header's name", shown(&name)),
        "write a name like `x-tenant`; paths, methods and hosts go into `match`",
    );
    None
}

fn valid_header(name: &str) -> Option<Text> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    name.bytes()
        .all(is_token)
        .then(|| name.to_ascii_lowercase().into())
}

fn read_match(object: &Object<'_>) -> LimitedRequests {
    LimitedRequests {
        methods: object.values("methods").iter().filter_map(method).collect(),
        paths: object.values("paths").iter().filter_map(path).collect(),
        headers: object
            .get("headers")
            .map(|field| field.map())
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, field)| read_header(&name, &field))
            .collect(),
    }
}

fn read_header(name: &str, field: &Field<'_>) -> Option<(Text, Wild)> {
    let value = wild(field)?;
    if let Some(name) = valid_header(name) {
        return Some((name, value));
    }
    field.say_key(
        Severity::Error,
        codes::BAD_HEADER,
        format!("`{}` is not a header's name", shown(name)),
        "write `x-name: value`",
    );
    None
}

fn method(field: &Field<'_>) -> Option<Text> {
    let text = field.non_empty_text()?;
    if text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some(text);
    }
    field.error(
        codes::UNKNOWN_VALUE,
        format!("`{}` is not a method", shown(&text)),
        "write it in capitals, for example `GET`",
    );
    None
}

#[cfg(test)]
mod tests;
