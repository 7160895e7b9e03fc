//! Texts with a wildcard, and paths, as policies write them.

use crate::{
    codes,
    model::{PathPattern, Wild},
    read::{Field, shown},
};

/// `text`, `text*`, `*text`, `*`. Source: Istio `AuthorizationPolicy`, "exact, prefix, suffix and presence match".
pub(crate) fn wild(field: &Field<'_>) -> Option<Wild> {
    let text = field.non_empty_text()?;
    let pattern = if &*text == "*" {
        Wild::Present
    } else if let Some(suffix) = text.strip_prefix('*') {
        Wild::Suffix(suffix.into())
    } else if let Some(prefix) = text.strip_suffix('*') {
        Wild::Prefix(prefix.into())
    } else {
        Wild::Exact(text.clone())
    };
    match &pattern {
        Wild::Suffix(rest) | Wild::Prefix(rest) if rest.contains('*') => field.error(
            codes::BAD_PATTERN,
            format!("`{}` has more than one wildcard", shown(&text)),
            "write one `*`, at the beginning or at the end",
        ),
        Wild::Exact(rest) if rest.contains('*') => field.warn(
            codes::BAD_PATTERN,
            format!("the `*` within `{}` is compared as it is", shown(&text)),
            "a wildcard stands at the beginning or at the end",
        ),
        _ => {}
    }
    Some(pattern)
}

/// The same, or a template: `/a/{*}/b/{**}`.
pub(crate) fn path(field: &Field<'_>) -> Option<PathPattern> {
    let text = field.non_empty_text()?;
    if !text.contains(['{', '}']) {
        return wild(field).map(PathPattern::Wild);
    }
    let segments: Vec<&str> = text.split('/').collect();
    let last = segments.len() - 1;
    let fits = |(at, segment): (usize, &&str)| match *segment {
        "{*}" => true,
        "{**}" => at == last,
        literal => !literal.contains(['*', '{', '}']),
    };
    if text.starts_with('/') && segments.iter().enumerate().all(fits) {
        return Some(PathPattern::Template(text));
    }
    field.error(
        codes::BAD_PATTERN,
        format!("`{}` is not a template of paths", shown(&text)),
        "whole segments may be `{*}` (one segment) and, at the end, `{**}` (all that follow); no other `*` beside them",
    );
    None
}
