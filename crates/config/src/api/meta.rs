//! `apiVersion`, `kind`, `metadata`: what all objects share.

use rajut_types::{Labels, ObjectRef, Text};

use crate::{
    codes,
    model::Visibility,
    parse::Node,
    read::{Field, Object, shown},
};

/// What all objects share, validated.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) name: Text,
    pub(crate) namespace: Text,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    /// Seconds since 1970 of `creationTimestamp`; an object without one is newer than any other.
    pub(crate) age: u64,
}

/// How names of a kind are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameForm {
    /// RFC 1123 subdomain: labels with dots.
    Subdomain,
    /// RFC 1123 label: what becomes a part of a host name.
    Label,
}

/// The object's reference before anything is checked, for findings.
pub(crate) fn peek(root: &Node, kind: &str, default_namespace: &str) -> ObjectRef {
    let metadata = root.get("metadata");
    let text = |name| metadata.and_then(|m| m.get(name)).and_then(Node::text);
    let namespace = if kind == "Namespace" {
        ""
    } else {
        text("namespace")
            .filter(|n| !n.is_empty())
            .unwrap_or(default_namespace)
    };
    let name = text("name")
        .filter(|n| !n.is_empty())
        .unwrap_or("(without a name)");
    ObjectRef::new(kind, shown(namespace), shown(name))
}

/// Reads what all objects share; `status` is somebody else's.
pub(crate) fn read(root: &Object<'_>, form: NameForm) -> Option<Meta> {
    root.ignore(&["apiVersion", "kind", "status"]);
    let metadata = root
        .required("metadata", "add `metadata:` with a `name:`")?
        .object()?;
    let meta = read_metadata(&metadata);
    let name = match metadata.required("name", "every object needs a name") {
        Some(field) => field.text().filter(|name| check_name(&field, name, form)),
        None => None,
    };
    Some(Meta { name: name?, ..meta })
}

/// A template's metadata, where everything is optional.
pub(crate) fn read_metadata(metadata: &Object<'_>) -> Meta {
    metadata.ignore(&[
        "uid",
        "resourceVersion",
        "generation",
        "generateName",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "clusterName",
        "name",
    ]);
    let namespace = match metadata.get("namespace") {
        Some(field) => field
            .text()
            .filter(|name| check_name(&field, name, NameForm::Label)),
        None => None,
    };
    Meta {
        name: Text::default(),
        namespace: namespace.unwrap_or_else(|| metadata.field().scope().namespace().clone()),
        labels: metadata.labels("labels"),
        annotations: annotations(metadata),
        age: metadata
            .get("creationTimestamp")
            .map_or(u64::MAX, |field| age(&field)),
    }
}

fn annotations(metadata: &Object<'_>) -> Labels {
    let mut all = Labels::default();
    for (name, value) in metadata
        .get("annotations")
        .map_or_else(Vec::new, |field| field.map())
    {
        if let Some(text) = value.text() {
            all.insert(name, text);
        }
    }
    all
}

pub(crate) fn check_name(field: &Field<'_>, name: &str, form: NameForm) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let (good, what) = match form {
        NameForm::Label => (
            name.len() <= 63 && label(name),
            "at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
        ),
        NameForm::Subdomain => (
            name.len() <= 253 && name.split('.').all(label),
            "at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
        ),
    };
    if !good {
        field.error(
            codes::BAD_NAME,
            format!("`{}` can't be a name", shown(name)),
            format!("a name has {what}"),
        );
    }
    good
}

/// `exportTo`: `.` is resolved to `namespace`.
pub(crate) fn export_to(object: &Object<'_>, namespace: &Text, default: &Visibility) -> Visibility {
    let Some(field) = object.get("exportTo") else {
        return default.clone();
    };
    visibility(&field.texts(), namespace, default)
}

/// As [`export_to`], from values.
pub(crate) fn visibility(values: &[Text], namespace: &Text, default: &Visibility) -> Visibility {
    if values.is_empty() {
        return default.clone();
    }
    if values.iter().any(|v| &**v == "*") {
        return Visibility::All;
    }
    if values.iter().any(|v| &**v == "~") {
        return Visibility::Nobody;
    }
    let names = values.iter().map(|value| match &**value {
        "." => namespace.clone(),
        _ => value.clone(),
    });
    Visibility::Namespaces(names.collect())
}

/// Seconds since 1970 of an RFC 3339 time in UTC, as Kubernetes writes it.
fn age(field: &Field<'_>) -> u64 {
    let Some(text) = field.loose_text() else {
        return u64::MAX;
    };
    let seconds = parse_time(&text);
    if seconds.is_none() {
        field.error(
            codes::WRONG_TYPE,
            format!("`{}` is not a time", shown(&text)),
            "Kubernetes writes it as `2026-01-31T12:00:00Z`",
        );
    }
    seconds.unwrap_or(u64::MAX)
}

fn parse_time(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators
        .iter()
        .any(|(at, c)| text.as_bytes().get(*at) != Some(c))
        || !text.ends_with('Z')
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    // Days since 1970 by the civil calendar, with March as the first month so that leap days come last.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_time("2024-02-29T12:34:56Z"), Some(1_709_210_096));
        assert_eq!(parse_time("2026-11-21T18:00:00Z"), Some(1_795_284_000));
        for bad in [
            "",
            "2024-02-29",
            "2024-02-29 12:34:56Z",
            "2024-13-01T00:00:00Z",
            "x",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
