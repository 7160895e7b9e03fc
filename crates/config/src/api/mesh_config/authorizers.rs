//! `envoyExtAuthzHttp` and `envoyExtAuthzGrpc` of `extensionProviders`. A provider that is wrong is still one that policies may name:
//! what they say of it is then refused.

use rajut_types::Text;

use super::providers::host;
use crate::{
    api::pattern::wild,
    codes,
    model::{Authorizer, AuthorizerKind, BODY_TO_CHECK_MAX, BodyToCheck, HttpAuthorizer, ProviderKind, Wild},
    read::{Field, Object, shown},
};

/// The provider that an object describes; `None`: it is of another kind.
pub(super) fn read(provider: &Object<'_>) -> Option<ProviderKind> {
    let grpc = provider.object("envoyExtAuthzGrpc").map(|object| {
        let authorizer = common(&object, AuthorizerKind::Grpc);
        object.unsupported(&["pathPrefix"], "questions over gRPC have no path");
        authorizer
    });
    let http = provider.object("envoyExtAuthzHttp").map(|object| {
        let kind = AuthorizerKind::Http(http(&object));
        common(&object, kind)
    });
    let read = http.or(grpc)?;
    Some(read.map_or(ProviderKind::NotFollowed, |it| {
        ProviderKind::ExtAuthz(Box::new(it))
    }))
}

fn common(object: &Object<'_>, kind: AuthorizerKind) -> Option<Authorizer> {
    let service = object.required("service", "the provider's full host name");
    let port = object.required("port", "the provider's port");
    let port = port.and_then(|field| field.port());
    let timeout = object.positive_duration("timeout");
    let fail_open = object.bool("failOpen").unwrap_or_default();
    let clear_route_cache = object.bool("clearRouteCache").unwrap_or_default();
    let status = object.get("statusOnError").map(|field| status(&field));
    let body = object
        .object("includeRequestBodyInCheck")
        .map(|body| read_body(&body));
    Some(Authorizer {
        host: service.and_then(|field| host(&field))?,
        port: port?,
        timeout,
        fail_open,
        clear_route_cache,
        status_on_error: flat(status)?,
        body: flat(body)?,
        kind,
    })
}

/// What is there and wrong makes the provider wrong.
#[expect(clippy::option_option, reason = "outer: wrong; inner: absent")]
const fn flat<T: Copy>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
    }
}

/// Istio writes the status as a text.
fn status(field: &Field<'_>) -> Option<u16> {
    let text = field.loose_text()?;
    let number = text.parse().ok().filter(|number| (200..=599).contains(number));
    if number.is_none() {
        field.error(
            codes::OUT_OF_RANGE,
            format!("`{}` is not the status of an answer", shown(&text)),
            "write a number from 200 to 599",
        );
    }
    number
}

fn read_body(body: &Object<'_>) -> Option<BodyToCheck> {
    let allow_partial = body.bool("allowPartialMessage").unwrap_or_default();
    let as_bytes = body.bool("packAsBytes").unwrap_or_default();
    let most = body.required("maxRequestBytes", "how much of a body is shown")?;
    let max_bytes = most.integer(1..=i64::from(BODY_TO_CHECK_MAX))?;
    Some(BodyToCheck {
        max_bytes: u32::try_from(max_bytes).ok()?,
        allow_partial,
        as_bytes,
    })
}

fn http(object: &Object<'_>) -> HttpAuthorizer {
    let mut path_prefix = Text::default();
    if let Some(field) = object.get("pathPrefix")
        && let Some(prefix) = field.text()
    {
        if !prefix.is_empty() && !prefix.starts_with('/') {
            field.error(
                codes::BAD_PATTERN,
                format!("`{}` is not the beginning of a path", shown(&prefix)),
                "begin it with `/`",
            );
        }
        path_prefix = prefix;
    }
    let mut request_headers = names(object, "includeRequestHeadersInCheck");
    if let Some(field) = object.get("includeHeadersInCheck") {
        field.warn(
            codes::DEPRECATED,
            "`includeHeadersInCheck` is deprecated: it is read where `includeRequestHeadersInCheck` is missing",
            "write `includeRequestHeadersInCheck`",
        );
        let older = names(object, "includeHeadersInCheck");
        if request_headers.is_empty() {
            request_headers = older;
        }
    }
    let additional = object.get("includeAdditionalHeadersInCheck");
    let additional = additional.map(|field| field.map()).unwrap_or_default();
    HttpAuthorizer {
        path_prefix,
        request_headers,
        additional_headers: additional
            .into_iter()
            .filter_map(|(name, value)| Some((lower(&name), value.text()?)))
            .collect(),
        upstream_on_allow: names(object, "headersToUpstreamOnAllow"),
        downstream_on_deny: names(object, "headersToDownstreamOnDeny"),
        downstream_on_allow: names(object, "headersToDownstreamOnAllow"),
    }
}

fn lower(name: &Text) -> Text {
    name.to_ascii_lowercase().into()
}

/// Names of headers: exact, prefix, suffix, any.
fn names(object: &Object<'_>, name: &'static str) -> Vec<Wild> {
    let fields = object.list(name);
    let read = fields.iter().filter_map(wild);
    read.map(|wild| match wild {
        Wild::Exact(text) => Wild::Exact(lower(&text)),
        Wild::Prefix(text) => Wild::Prefix(lower(&text)),
        Wild::Suffix(text) => Wild::Suffix(lower(&text)),
        Wild::Present => Wild::Present,
    })
    .collect()
}
