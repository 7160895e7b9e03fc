//! Active health checks, which Istio has no field for: annotations of a `DestinationRule`.
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     mesh.rajut.dev/health-check: http /healthz   # or: tcp, grpc, grpc SERVICE
//!     mesh.rajut.dev/health-check-interval: 5s
//! ```
//!
//! What is wrong with one is an error at that annotation: a check that is not what was meant would take endpoints out, or none.
//! An annotation of ours that means nothing on this kind is a warning.

use std::time::Duration;

use rajut_types::Text;

use crate::{
    codes,
    model::{HealthCheck, HealthQuestion},
    read::{Field, Object, nearest, shown},
};

/// What is ours among annotations.
const OURS: &str = "mesh.rajut.dev/";
const QUESTION: &str = "mesh.rajut.dev/health-check";
const INTERVAL: &str = "mesh.rajut.dev/health-check-interval";
const TIMEOUT: &str = "mesh.rajut.dev/health-check-timeout";
const UNHEALTHY: &str = "mesh.rajut.dev/health-check-unhealthy-threshold";
const HEALTHY: &str = "mesh.rajut.dev/health-check-healthy-threshold";
const STATUS: &str = "mesh.rajut.dev/health-check-status";
const NAMES: [&str; 6] = [QUESTION, INTERVAL, TIMEOUT, UNHEALTHY, HEALTHY, STATUS];

/// Kubernetes' defaults of a probe.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const UNHEALTHY_DEFAULT: u32 = 3;
const HEALTHY_DEFAULT: u32 = 1;
/// More than ten a second of each endpoint and client is load, not a check.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);
const THRESHOLD_MOST: u32 = 1000;

/// The check that an object's annotations ask for.
pub(crate) fn read(root: &Object<'_>) -> Option<HealthCheck> {
    let metadata = root.object("metadata")?;
    metadata.ignore_rest();
    let all = metadata.get("annotations")?.map();
    let ours: Vec<_> = all.iter().filter(|(name, _)| name.starts_with(OURS)).collect();
    for (name, field) in &ours {
        if !NAMES.contains(&&**name) {
            let like = nearest(name, NAMES.into_iter());
            field.say_key(
                rajut_types::Severity::Warning,
                codes::NO_EFFECT,
                format!("`{}` means nothing on a DestinationRule", shown(name)),
                like.map_or_else(|| "take it out".to_owned(), |like| format!("write `{like}`")),
            );
        }
    }
    let at = |name: &str| {
        ours.iter()
            .find(|(found, _)| **found == *name)
            .map(|(_, field)| field)
    };
    let Some(field) = at(QUESTION) else {
        for (_, field) in ours.iter().filter(|(name, _)| NAMES.contains(&&**name)) {
            field.say_key(
                rajut_types::Severity::Warning,
                codes::NO_EFFECT,
                format!("without `{QUESTION}` nothing is checked"),
                format!("add `{QUESTION}: http /healthz`"),
            );
        }
        return None;
    };
    let statuses = match at(STATUS) {
        Some(field) => statuses(field),
        None => Some(vec![(200, 299)]),
    };
    let question = question(field, statuses.clone().unwrap_or_default());
    if let (Some(field), Some(HealthQuestion::Tcp | HealthQuestion::Grpc { .. })) = (at(STATUS), &question) {
        field.say_key(
            rajut_types::Severity::Warning,
            codes::NO_EFFECT,
            "statuses are those of answers over HTTP",
            "take it out",
        );
    }
    let interval = at(INTERVAL).map_or(Some(INTERVAL_DEFAULT), |field| {
        let interval = field.positive_duration()?;
        if interval < INTERVAL_LEAST {
            field.error(
                codes::OUT_OF_RANGE,
                "endpoints are asked ten times a second at most",
                "write `100ms` or more",
            );
            return None;
        }
        Some(interval)
    });
    let timeout = at(TIMEOUT).map_or(Some(TIMEOUT_DEFAULT), Field::positive_duration);
    let unhealthy = at(UNHEALTHY).map_or(Some(UNHEALTHY_DEFAULT), threshold);
    let healthy = at(HEALTHY).map_or(Some(HEALTHY_DEFAULT), threshold);
    statuses?;
    Some(HealthCheck {
        question: question?,
        interval: interval?,
        timeout: timeout?,
        unhealthy_threshold: unhealthy?,
        healthy_threshold: healthy?,
    })
}

fn question(field: &Field<'_>, statuses: Vec<(u16, u16)>) -> Option<HealthQuestion> {
    let text = field.text()?;
    let mut words = text.split_ascii_whitespace();
    let found = match (words.next(), words.next(), words.next()) {
        (Some("http"), Some(path), None) if is_path(path) => Some(HealthQuestion::Http {
            path: path.into(),
            statuses,
        }),
        (Some("tcp"), None, None) => Some(HealthQuestion::Tcp),
        (Some("grpc"), service, None) if service.is_none_or(is_service) => Some(HealthQuestion::Grpc {
            service: service.unwrap_or_default().into(),
        }),
        _ => None,
    };
    if found.is_none() {
        field.error(
            codes::UNKNOWN_VALUE,
            format!("`{}` is no health check", shown(&text)),
            "write `http /path`, `tcp`, `grpc` or `grpc SERVICE`",
        );
    }
    found
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte > b' ' && byte < 0x7f && !matches!(byte, b'#' | b'<' | b'>' | b'`'))
}

/// `package.Service`, as protobuf names it.
fn is_service(name: &str) -> bool {
    name.len() <= 255
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'))
}

fn threshold(field: &Field<'_>) -> Option<u32> {
    let text = field.text()?;
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=THRESHOLD_MOST).contains(count));
    if count.is_none() {
        field.error(
            codes::OUT_OF_RANGE,
            format!("`{}` is no number of answers", shown(&text)),
            format!("write \"1\" to \"{THRESHOLD_MOST}\""),
        );
    }
    count
}

/// `200-299,404`.
fn statuses(field: &Field<'_>) -> Option<Vec<(u16, u16)>> {
    let text: Text = field.text()?;
    let status = |text: &str| text.trim().parse().ok().filter(|it| (100..=599).contains(it));
    let range = |text: &str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Some((status(from)?, status(to)?)).filter(|(from, to)| from <= to)
    };
    let read: Option<Vec<_>> = text.split(',').map(range).collect();
    if read.is_none() {
        field.error(
            codes::OUT_OF_RANGE,
            format!("`{}` is no list of statuses", shown(&text)),
            "write for example `200-299,404`",
        );
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadOptions, Source, load};

    fn loaded(annotations: &str) -> crate::Loaded {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: web\n  namespace: clinic\n  \
             annotations: {{{annotations}}}\nspec: {{host: web.example.com}}\n"
        );
        load(&[Source::new("r.yaml", text)], &LoadOptions::default())
    }

    #[test]
    fn every_annotation_of_a_check_is_read() {
        let mut loaded = loaded(
            "mesh.rajut.dev/health-check: http /live?deep=1, mesh.rajut.dev/health-check-interval: 5s, \
             mesh.rajut.dev/health-check-timeout: 500ms, mesh.rajut.dev/health-check-unhealthy-threshold: '4', \
             mesh.rajut.dev/health-check-healthy-threshold: '2', mesh.rajut.dev/health-check-status: '200-204,404'",
        );
        let ours: Vec<_> = loaded
            .diagnostics
            .iter()
            .filter(|it| it.origin.field_path.contains("annotations"))
            .collect();
        assert!(ours.is_empty(), "{ours:#?}");
        let check = loaded.destination_rules.remove(0).health_check;
        let expected = HealthCheck {
            question: HealthQuestion::Http {
                path: "/live?deep=1".into(),
                statuses: vec![(200, 204), (404, 404)],
            },
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
            unhealthy_threshold: 4,
            healthy_threshold: 2,
        };
        assert_eq!(check, Some(expected));
    }

    #[test]
    fn what_is_wrong_with_an_annotation_is_told_at_its_place() {
        let cases = [
            (
                "mesh.rajut.dev/health-check: ping",
                "health-check]",
                codes::UNKNOWN_VALUE,
            ),
            (
                "mesh.rajut.dev/health-check: http live",
                "health-check]",
                codes::UNKNOWN_VALUE,
            ),
            (
                "mesh.rajut.dev/health-check: tcp, mesh.rajut.dev/health-check-interval: 1ms",
                "health-check-interval]",
                codes::OUT_OF_RANGE,
            ),
            (
                "mesh.rajut.dev/health-check: tcp, mesh.rajut.dev/health-check-timeout: 3",
                "health-check-timeout]",
                codes::BAD_DURATION,
            ),
            (
                "mesh.rajut.dev/health-check: tcp, mesh.rajut.dev/health-check-healthy-threshold: '0'",
                "health-check-healthy-threshold]",
                codes::OUT_OF_RANGE,
            ),
            (
                "mesh.rajut.dev/health-check: http /, mesh.rajut.dev/health-check-status: '299-200'",
                "health-check-status]",
                codes::OUT_OF_RANGE,
            ),
            (
                "mesh.rajut.dev/health-check: tcp, mesh.rajut.dev/health-check-status: '200'",
                "health-check-status]",
                codes::NO_EFFECT,
            ),
            (
                "mesh.rajut.dev/health-check-interval: 5s",
                "health-check-interval]",
                codes::NO_EFFECT,
            ),
            (
                "mesh.rajut.dev/health-chek: tcp",
                "health-chek]",
                codes::NO_EFFECT,
            ),
        ];
        for (annotations, place, code) in cases {
            let loaded = loaded(annotations);
            let is_it =
                |it: &rajut_types::Diagnostic| it.code == code && it.origin.field_path.ends_with(place);
            assert!(
                loaded.diagnostics.iter().any(is_it),
                "{annotations}: {:#?}",
                loaded.diagnostics
            );
        }
    }
}
