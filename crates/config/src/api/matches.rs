//! Conditions of `VirtualService` routes.

use rajut_types::{Hostname, Text};

use crate::{
    codes,
    merge::{Defaults, gateways},
    model::{ClaimMatch, HttpMatch, L4Match, StringMatch, TlsMatch},
    read::{Field, Object, shown},
};

/// The largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;
/// Names of conditions that are not about headers.
const AUTH: &str = "@request.auth";
const CLAIMS: &str = "@request.auth.claims";
/// How many names may lead to a claim.
const CLAIMS_DEPTH_MAX: usize = 16;

pub(crate) fn http(field: &Field<'_>) -> Option<HttpMatch> {
    let object = field.clone().object()?;
    object.unsupported(&["statPrefix"], "no statistics of their own are kept for a match");
    let matched = HttpMatch {
        name: object.text("name").unwrap_or_default(),
        uri: object.get("uri").and_then(|f| string(&f)),
        ignore_uri_case: object.bool("ignoreUriCase").unwrap_or(false),
        scheme: object.get("scheme").and_then(|f| string(&f)),
        method: object.get("method").and_then(|f| string(&f)),
        authority: object.get("authority").and_then(|f| string(&f)),
        headers: object.get("headers").map_or_else(Vec::new, |f| headers(&f)),
        without_headers: object
            .get("withoutHeaders")
            .map_or_else(Vec::new, |f| headers(&f)),
        claims: [("headers", false), ("withoutHeaders", true)]
            .into_iter()
            .filter_map(|(name, invert)| Some(claims(&object.get(name)?, invert)))
            .flatten()
            .collect(),
        query: object.get("queryParams").map_or_else(Vec::new, |f| named(&f)),
        port: object.get("port").and_then(|f| f.port()),
        source_labels: object.labels("sourceLabels"),
        source_namespace: object.text("sourceNamespace"),
        gateways: gateways_of(&object),
    };
    if !matched.gateways.is_empty() {
        for name in ["sourceLabels", "sourceNamespace"] {
            if let Some(field) = object.get(name) {
                field.say_key(
                    rajut_types::Severity::Warning,
                    codes::NO_EFFECT,
                    format!("`{name}` has no effect in a match that names `gateways`"),
                    "take one of the two out",
                );
            }
        }
    }
    if matched.ignore_uri_case && matches!(matched.uri, Some(StringMatch::Regex(_)) | None) {
        object.field().warn(
            codes::NO_EFFECT,
            "`ignoreUriCase` has an effect on `uri.exact` and `uri.prefix` only",
            "write `(?i)` at the beginning of the regular expression",
        );
    }
    Some(matched)
}

/// Istio's `StringMatch`: exactly one of three.
pub(crate) fn string(field: &Field<'_>) -> Option<StringMatch> {
    let object = field.clone().object()?;
    let set = object.one_of(&["exact", "prefix", "regex"]);
    let Some(kind) = set.first() else {
        object.field().say_key(
            rajut_types::Severity::Error,
            codes::MISSING_FIELD,
            "a condition on text needs `exact`, `prefix` or `regex`",
            "",
        );
        return None;
    };
    let value = object.get(kind)?;
    match *kind {
        "exact" => value.text().map(StringMatch::Exact),
        "prefix" => {
            let text = value.text()?;
            if text.is_empty() {
                value.error(
                    codes::MISSING_FIELD,
                    "an empty prefix matches everything",
                    "leave the condition out",
                );
                return None;
            }
            Some(StringMatch::Prefix(text))
        }
        _ => regex(&value).map(StringMatch::Regex),
    }
}

/// A regular expression that compiles. The syntax is RE2's, which `regex` shares.
pub(crate) fn regex(field: &Field<'_>) -> Option<Text> {
    let text = field.non_empty_text()?;
    compiles(field, &text).then_some(text)
}

/// Whether `text`, which stands in `field`, compiles as a regular expression; where not, it is said.
pub(crate) fn compiles(field: &Field<'_>, text: &str) -> bool {
    if let Err(error) = regex::RegexBuilder::new(text).size_limit(MAX_REGEX).build() {
        let why = match &error {
            regex::Error::CompiledTooBig(_) => "it compiles to more than 1 MiB".to_owned(),
            // The last line of the multi-line message says what is wrong; the others draw the expression.
            other => other
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned(),
        };
        field.error(
            codes::BAD_REGEX,
            format!("the regular expression does not compile: {why}"),
            "the syntax is RE2's: no look-around, no back-references",
        );
        return false;
    }
    true
}

/// Header conditions; names in lower case.
fn headers(field: &Field<'_>) -> Vec<(Text, Option<StringMatch>)> {
    for (name, value) in field.map() {
        if !name.starts_with(AUTH)
            && !is_header_name(&name)
            && !matches!(&*name, ":authority" | ":method" | ":path" | ":scheme")
        {
            value.say_key(
                rajut_types::Severity::Error,
                codes::BAD_HEADER,
                format!("`{}` can't be a header's name", shown(&name)),
                "",
            );
        }
    }
    let lower = |(name, condition): (Text, _)| (Text::from(name.to_ascii_lowercase()), condition);
    let headers = named(field)
        .into_iter()
        .filter(|(name, _)| !name.starts_with(AUTH));
    headers.map(lower).collect()
}

/// Conditions on claims among those on headers: `@request.auth.claims.a.b`, or `@request.auth.claims[a][b]` for names with dots.
fn claims(field: &Field<'_>, invert: bool) -> Vec<ClaimMatch> {
    let mut found = Vec::new();
    for (name, value) in field.map() {
        if !name.starts_with(AUTH) {
            continue;
        }
        let Some(path) = claim_path(&name) else {
            value.say_key(
                rajut_types::Severity::Error,
                codes::BAD_HEADER,
                format!("`{}` leads to no claim", shown(&name)),
                "write `@request.auth.claims.name`, or `@request.auth.claims[outer][inner]`",
            );
            continue;
        };
        if let Some(condition) = string(&value) {
            found.push(ClaimMatch {
                path,
                condition,
                invert,
            });
        }
    }
    found
}

/// The names that lead to a claim.
fn claim_path(name: &str) -> Option<Vec<Text>> {
    let rest = name.strip_prefix(CLAIMS)?;
    let names: Vec<Text> = if let Some(dotted) = rest.strip_prefix('.') {
        dotted.split('.').map(Text::from).collect()
    } else {
        let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
        inner.split("][").map(Text::from).collect()
    };
    let good = |name: &Text| !name.is_empty() && !name.contains(['[', ']']);
    (names.len() <= CLAIMS_DEPTH_MAX && names.iter().all(good)).then_some(names)
}

/// Reports conditions on claims where nobody has verified a token: at sidecars. `gateways`: those of the virtual service;
/// `None`: it is a delegate, whose parents say where it is used.
pub(crate) fn claims_are_known(object: &Object<'_>, gateways: Option<&[Text]>) {
    for alternative in object.list("match") {
        let Some(alternative) = alternative.object() else {
            continue;
        };
        alternative.ignore_rest();
        let own = gateways_of(&alternative);
        let here = if own.is_empty() { gateways } else { Some(&*own) };
        let known = here.is_none_or(|here| !here.is_empty() && here.iter().all(|it| &**it != "mesh"));
        for name in ["headers", "withoutHeaders"] {
            let Some(field) = alternative.get(name).filter(|_| !known) else {
                continue;
            };
            for (_, value) in field.map().into_iter().filter(|(name, _)| name.starts_with(AUTH)) {
                value.say_key(
                    rajut_types::Severity::Error,
                    codes::NOT_SUPPORTED,
                    "claims are known at gateways only, and without the condition the route would be open",
                    "name the gateways in the match: `gateways: [NAME]`",
                );
            }
        }
    }
}

/// Conditions by name; an empty one, null or the expression `*` is presence.
fn named(field: &Field<'_>) -> Vec<(Text, Option<StringMatch>)> {
    field
        .map()
        .into_iter()
        .filter_map(|(name, value)| {
            let present = value.node.is_null()
                || matches!(&value.node.value, crate::parse::Value::Mapping(entries) if entries.is_empty())
                || value.node.get("regex").and_then(crate::parse::Node::text) == Some("*");
            if present {
                return Some((name, None));
            }
            string(&value).map(|condition| (name, Some(condition)))
        })
        .collect()
}

/// RFC 9110 §5.1: a token.
pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

pub(crate) fn tls(field: &Field<'_>, hosts: &[Hostname], defaults: &Defaults) -> Option<TlsMatch> {
    let object = field.clone().object()?;
    let sni = object.required("sniHosts", "add the server names that the route is for")?;
    let mut sni_hosts = Vec::new();
    for item in sni.list() {
        let Some(host) = item.hostname() else { continue };
        let qualified = host.qualify(item.scope().namespace(), &defaults.mesh.domain);
        if !hosts
            .iter()
            .any(|own| *own == host || *own == qualified || own.covers(&host))
        {
            item.error(
                codes::SNI_OUTSIDE,
                format!("`{host}` is not among the hosts of this VirtualService"),
                "add it to `spec.hosts`",
            );
        }
        sni_hosts.push(host);
    }
    if sni_hosts.is_empty() {
        sni.error(codes::MISSING_FIELD, "`sniHosts` needs at least one name", "");
    }
    Some(TlsMatch {
        sni_hosts,
        l4: l4_of(&object),
    })
}

pub(crate) fn l4(field: &Field<'_>) -> Option<L4Match> {
    let object = field.clone().object()?;
    object.unsupported(&["sourceSubnet"], "Istio does not use it either");
    Some(l4_of(&object))
}

fn l4_of(object: &Object<'_>) -> L4Match {
    L4Match {
        destination_subnets: object
            .list("destinationSubnets")
            .iter()
            .filter_map(Field::net)
            .collect(),
        port: object.get("port").and_then(|f| f.port()),
        source_labels: object.labels("sourceLabels"),
        source_namespace: object.text("sourceNamespace"),
        gateways: gateways_of(object),
    }
}

/// `mesh`, or `namespace/name`.
fn gateways_of(object: &Object<'_>) -> Vec<Text> {
    let namespace = object.field().scope().namespace();
    let names = object.texts("gateways");
    names
        .iter()
        .map(|name| gateways::qualified(name, namespace))
        .collect()
}
