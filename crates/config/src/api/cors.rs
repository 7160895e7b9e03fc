//! `corsPolicy` of a route.

use std::time::Duration;

use rajut_types::{Severity, Text};

use super::matches;
use crate::{
    codes,
    model::{CorsPolicy, StringMatch},
    read::{Field, Object, nearest, shown},
};

/// What may stand in `allowMethods`.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
];

/// The rules of a route.
pub(crate) fn read(object: &Object<'_>) -> CorsPolicy {
    let policy = CorsPolicy {
        origins: origins(object),
        methods: object.list("allowMethods").iter().filter_map(method).collect(),
        headers: names(object, "allowHeaders"),
        expose: names(object, "exposeHeaders"),
        max_age: object.get("maxAge").and_then(|field| whole_seconds(&field)),
        credentials: object.bool("allowCredentials"),
        forward_unmatched: object.get("unmatchedPreflights").is_none_or(|field| {
            field
                .choice(&[("UNSPECIFIED", true), ("FORWARD", true), ("IGNORE", false)])
                .unwrap_or(true)
        }),
        origin: object.field().origin(),
    };
    if policy.origins.is_empty() {
        object.field().say_key(
            Severity::Warning,
            codes::NO_EFFECT,
            "no origin is allowed",
            "add `allowOrigins: [{exact: \"https://…\"}]`",
        );
    }
    policy
}

/// `allowOrigins`; `allowOrigin` counts only without it.
fn origins(object: &Object<'_>) -> Vec<StringMatch> {
    let (new, old) = (object.get("allowOrigins"), object.get("allowOrigin"));
    if let Some(field) = &old {
        let (code, message) = if new.is_some() {
            (
                codes::NO_EFFECT,
                "`allowOrigin` has no effect beside `allowOrigins`",
            )
        } else {
            (
                codes::DEPRECATED,
                "Istio has deprecated `allowOrigin` for `allowOrigins`",
            )
        };
        field.say_key(
            Severity::Warning,
            code,
            message,
            "write `allowOrigins: [{exact: …}]`",
        );
    }
    match (new, old) {
        (Some(field), _) => field.list().iter().filter_map(matches::string).collect(),
        (None, Some(field)) => field.texts().into_iter().map(StringMatch::Exact).collect(),
        (None, None) => Vec::new(),
    }
}

fn method(field: &Field<'_>) -> Option<Text> {
    let text = field.text()?;
    if METHODS.contains(&&*text) {
        return Some(text);
    }
    let hint = match nearest(&text.to_ascii_uppercase(), METHODS.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "e.g. `GET`".to_owned(),
    };
    field.error(
        codes::UNKNOWN_VALUE,
        format!("`{}` is not a method", shown(&text)),
        hint,
    );
    None
}

/// Names of header fields, or `*`.
fn names(object: &Object<'_>, list: &'static str) -> Vec<Text> {
    let name = |field: &Field<'_>| {
        let text = field.text()?;
        if &*text == "*" || matches::is_header_name(&text) {
            return Some(text);
        }
        field.error(
            codes::BAD_HEADER,
            format!("`{}` can't be a header's name", shown(&text)),
            "",
        );
        None
    };
    object.list(list).iter().filter_map(name).collect()
}

fn whole_seconds(field: &Field<'_>) -> Option<Duration> {
    let age = field.positive_duration()?;
    if age.subsec_nanos() != 0 {
        field.error(
            codes::BAD_DURATION,
            "browsers count `maxAge` in whole seconds",
            "write e.g. `600s`",
        );
        return None;
    }
    Some(age)
}
