//! Questions over HTTP: the request's head as a request of its own. 200 lets it pass; an answer of 5xx is none; any other is the
//! client's answer.

use rajut_codec::{Fields, Known, RequestHead, Version};
use rajut_ir::{
    ext_authz::{ExtAuthz, HttpProvider},
    matcher::StringMatcher,
};

use super::{
    Answer, NoAnswer, Question, Refusal, Shown,
    answer::{Allowed, Mode},
    is_guarded, shown_name,
};
use crate::{
    failure::{Failure, FailureKind},
    http::{message::Piece, mirror::Aside, record::Record},
};

/// Names headers that are taken from the request. Source: Envoy.
const REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Headers of a refusal that the client gets beside those that are named. Source: Envoy `allowed_client_headers`.
const WITH_REFUSAL: [&str; 3] = ["www-authenticate", "location", "content-type"];

pub(super) fn question(
    ir: &ExtAuthz,
    http: &HttpProvider,
    record: &Record,
    shown: Shown,
) -> Result<Question, Failure> {
    let malformed = |_| Failure::from(FailureKind::Internal);
    let target = [http.path_prefix.as_bytes(), &record.head.path_and_query[..]].concat();
    let mut head = RequestHead::new(record.head.method.clone(), target);
    head.version = Version::Http11;
    let mut fields = Fields::new();
    for field in record.head.fields.iter() {
        let Some(name) = shown_name(ir, field.name).filter(|name| !is_guarded(name)) else {
            continue;
        };
        fields.append(&*name, field.value).map_err(malformed)?;
    }
    for (name, value) in &http.headers_to_add {
        fields
            .set(&**name, value.as_bytes())
            .map_err(|_| Failure::from(FailureKind::AuthorizationInvalid))?;
    }
    if ir.body.is_some() {
        let partial = if shown.partial { "true" } else { "false" };
        fields
            .set("x-envoy-auth-partial-body", partial)
            .map_err(malformed)?;
    }
    if !record.head.authority.is_empty() {
        fields
            .set(Known::Host, &record.head.authority)
            .map_err(malformed)?;
    }
    head.fields = fields;
    head.set_authority(record.head.authority.clone())
        .map_err(malformed)?;
    let mut body = Vec::new();
    if !shown.bytes.is_empty() {
        body.push(Piece::Data(shown.bytes));
    }
    body.push(Piece::End);
    Ok(Question { head, body })
}

fn is_named(names: &[StringMatcher], name: &str) -> bool {
    names.iter().any(|it| it.matches(name.as_bytes()))
}

pub(super) fn read(http: &HttpProvider, aside: &Aside) -> Result<Answer, NoAnswer> {
    let status = aside.status();
    match status {
        200 => Ok(Answer::Allowed(Box::new(allowed(http, aside.fields())))),
        500.. => Err(NoAnswer::Failed(format!("HTTP status {status}").into())),
        _ => {
            let mut refusal = Refusal {
                status,
                fields: Fields::new(),
                body: aside.body().to_vec().into(),
            };
            for (name, value) in texts(aside.fields()) {
                let passes = http.client_headers.is_empty()
                    || WITH_REFUSAL.contains(&&*name)
                    || is_named(&http.client_headers, &name);
                if passes && !is_guarded(&name) {
                    // What it has sent as a field is one.
                    let _ = refusal.fields.append(&*name, value);
                }
            }
            Ok(Answer::Refused(Box::new(refusal)))
        }
    }
}

fn allowed(http: &HttpProvider, fields: &Fields) -> Allowed {
    let mut allowed = Allowed::default();
    for (name, value) in texts(fields) {
        if name == REMOVE {
            let names = String::from_utf8_lossy(value);
            let names = names
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase())
                .filter(|name| !name.is_empty());
            allowed.remove.extend(names);
            continue;
        }
        if is_named(&http.upstream_headers, &name) {
            allowed.request.push(&name, value, Mode::Set);
        }
        if is_named(&http.upstream_headers_to_append, &name) {
            allowed.request.push(&name, value, Mode::Append);
        }
        if is_named(&http.client_headers_on_success, &name) {
            allowed.response.push(&name, value, Mode::Append);
        }
    }
    allowed
}

/// With names in lower case.
fn texts(fields: &Fields) -> impl Iterator<Item = (String, &[u8])> {
    fields.iter().map(|field| {
        (
            String::from_utf8_lossy(field.name).to_ascii_lowercase(),
            field.value,
        )
    })
}
