//! Istio `RequestAuthentication`.
//!
//! Every field is read but `targetRefs`, which is refused by name: without it the object would hold for the whole namespace.
//!
//! Bounds: [`RULES_MAX`] rules in an object, [`ENTRIES_MAX`] entries in a rule's lists.

use std::time::Duration;

use rajut_types::{Severity, Text};

use super::{
    meta::{self, NameForm},
    peer_authentication::match_labels,
};
use crate::{
    codes, key_set,
    model::{JwtRule, KeySource, RequestAuthentication},
    read::{Field, Object, shown},
};

const RULES_MAX: usize = 64;
const ENTRIES_MAX: usize = 64;
/// Source: Istio `JWTRule.timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where an issuer describes itself. Source: `OpenID` Connect Discovery 1.0 §4.
const DESCRIPTION: &str = "/.well-known/openid-configuration";

pub(crate) fn read(root: &Object<'_>) -> Option<RequestAuthentication> {
    let meta = meta::read(root, NameForm::Subdomain);
    let (mut selector, mut rules, mut asks) = (None, Vec::new(), false);
    if let Some(spec) = root.object("spec") {
        selector = spec.object("selector").and_then(|object| match_labels(&object));
        spec.refused(
            &["targetRef", "targetRefs"],
            "without it the object would hold for the whole namespace",
        );
        let items = spec.list("jwtRules");
        asks = !items.is_empty();
        if let Some(field) = items.get(RULES_MAX) {
            field.error(
                codes::OUT_OF_RANGE,
                format!("there are {} rules", items.len()),
                format!("write at most {RULES_MAX}; more go into another object"),
            );
        }
        let items = items.into_iter().filter_map(Field::object);
        rules = items.filter_map(|rule| read_rule(&rule)).collect();
    }
    let meta = meta?;
    if !asks {
        root.field().warn(
            codes::NO_EFFECT,
            "without `jwtRules` the object asks for nothing",
            "add `jwtRules: [{issuer: …, jwksUri: …}]`",
        );
    }
    Some(RequestAuthentication {
        name: meta.name,
        namespace: meta.namespace,
        selector,
        rules,
        origin: root.field().origin(),
        age: meta.age,
    })
}

fn read_rule(rule: &Object<'_>) -> Option<JwtRule> {
    let issuer = rule
        .required("issuer", "what the claim `iss` must be")
        .and_then(|field| field.non_empty_text());
    let keys = read_keys(rule, issuer.as_ref());
    let from_headers = entries(rule, "fromHeaders", |field| {
        let object = field.clone().object()?;
        let name = object
            .required("name", "the header's name")
            .and_then(|field| header(&field));
        let prefix = object.get("prefix").map(|field| field.text());
        Some((name?, prefix.unwrap_or(Some(Text::default()))?))
    });
    let output_claims = entries(rule, "outputClaimToHeaders", |field| {
        let object = field.clone().object()?;
        let name = object
            .required("header", "the header's name")
            .and_then(|field| header(&field));
        let claim = object
            .required("claim", "the claim's name")
            .and_then(|field| field.non_empty_text());
        name.zip(claim)
    });
    let texts = |name| entries(rule, name, text);
    let timeout = rule.positive_duration("timeout");
    let (audiences, from_params) = (texts("audiences"), texts("fromParams"));
    let from_cookies = entries(rule, "fromCookies", |field| token(field, "a cookie"));
    let space_delimited = texts("spaceDelimitedClaims");
    let output_payload = rule.get("outputPayloadToHeader").and_then(|field| header(&field));
    let forward = rule.bool("forwardOriginalToken").unwrap_or(false);
    Some(JwtRule {
        issuer: issuer?,
        audiences,
        keys: keys?,
        from_headers,
        from_params,
        from_cookies,
        output_payload,
        forward,
        output_claims,
        timeout: timeout.unwrap_or(TIMEOUT),
        space_delimited,
        origin: rule.field().origin(),
    })
}

fn entries<T>(rule: &Object<'_>, name: &'static str, read: impl Fn(&Field<'_>) -> Option<T>) -> Vec<T> {
    let items = rule.values(name);
    if let Some(field) = items.get(ENTRIES_MAX) {
        field.error(
            codes::OUT_OF_RANGE,
            format!("`{name}` has {} entries", items.len()),
            format!("write at most {ENTRIES_MAX}"),
        );
    }
    items.iter().filter_map(read).collect()
}

fn read_keys(rule: &Object<'_>, issuer: Option<&Text>) -> Option<KeySource> {
    let (inline, url) = (rule.get("jwks"), rule.get("jwksUri"));
    if let (Some(_), Some(url)) = (&inline, &url) {
        url.say_key(
            Severity::Error,
            codes::EXCLUSIVE,
            "`jwks` and `jwksUri` can't stand together",
            "keep one of the two",
        );
    }
    if let Some(field) = inline {
        let text = field.non_empty_text()?;
        return match key_set::usable(&text) {
            Ok(keys) => Some(KeySource::Inline(keys)),
            Err(error) => {
                field.error(
                    codes::BAD_KEYS,
                    format!("this key set is of no use: {error}"),
                    "write a JSON Web Key Set with public keys of RSA (2048 bits or more), P-256, P-384, P-521 or Ed25519",
                );
                None
            }
        };
    }
    if let Some(field) = url {
        let text = field.non_empty_text()?;
        if is_url(&text) {
            return Some(KeySource::Url(text));
        }
        field.error(
            codes::BAD_URL,
            format!("`{}` is not a URL that keys can be fetched from", shown(&text)),
            "write `https://HOST/PATH` (or `http://`)",
        );
        return None;
    }
    let description = format!("{}{DESCRIPTION}", issuer?.trim_end_matches('/'));
    if is_url(&description) {
        return Some(KeySource::Discovery(description.into()));
    }
    rule.field().say_key(
        Severity::Error,
        codes::MISSING_FIELD,
        "there are no keys: neither `jwks` nor `jwksUri`, and the issuer is not a URL that could be asked",
        "add `jwksUri: https://HOST/PATH`",
    );
    None
}

/// `http://` or `https://`, a host and whatever follows, as a request can carry it.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or(text.strip_prefix("http://"));
    let Some(rest) = rest else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    !authority.is_empty() && !authority.starts_with(':') && !authority.contains('@') && is_plain
}

fn text(field: &Field<'_>) -> Option<Text> {
    field.non_empty_text()
}

fn header(field: &Field<'_>) -> Option<Text> {
    token(field, "a header").map(|name| name.to_ascii_lowercase().into())
}

/// The name of a header or cookie (RFC 9110 `token`).
fn token(field: &Field<'_>, what: &str) -> Option<Text> {
    let name = field.non_empty_text()?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.bytes().all(is_token) {
        return Some(name);
    }
    field.error(
        codes::BAD_HEADER,
        format!("`{}` can't be the name of {what}", shown(&name)),
        "write a name like `x-token`",
    );
    None
}

#[cfg(test)]
mod tests;
