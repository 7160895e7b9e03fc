use std::time::Duration;

use rajut_types::Percent;

use super::*;
use crate::{
    Loaded,
    merge::{LoadOptions, load},
    model::{AbortStatus, FaultAbort, FaultDelay},
    parse::Source,
};

/// A route to `web` with further fields, in a mesh with the services `web` and `copy`.
fn read(fields: &str) -> Loaded {
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{labels: {{app: {name}}}, ports: [{{containerPort: 80}}], run: sleep 1}}\n---\n"
        )
    };
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\nspec:\n  \
         hosts: [web]\n  http:\n  - {{route: [{{destination: {{host: web}}}}], {fields}}}\n"
    );
    let text = service("web") + &service("copy") + &rule;
    load(&[Source::new("v.yaml", text)], &LoadOptions::default())
}

#[track_caller]
fn route_of(fields: &str) -> HttpRoute {
    let mut loaded = read(fields);
    assert_eq!(loaded.diagnostics, [], "{fields}");
    loaded.virtual_services.remove(0).http.remove(0)
}

/// The findings: their places below the route, and their codes; and whether the object is used.
fn found(fields: &str) -> (Vec<(String, rajut_types::Code)>, bool) {
    let loaded = read(fields);
    let place = |it: &rajut_types::Diagnostic| it.origin.field_path.replace("spec.http[0].", "");
    let all = loaded.diagnostics.iter().map(|it| (place(it), it.code)).collect();
    (all, !loaded.virtual_services.is_empty())
}

#[test]
fn mirrors_are_read_with_their_shares() {
    let mirrors = |fields: &str| -> Vec<(String, Percent)> {
        let all = route_of(fields).mirrors.into_iter();
        all.map(|it| (it.destination.host.to_string(), it.share))
            .collect()
    };
    let copy = |share| vec![("copy.shop.svc.cluster.local".to_owned(), share)];
    assert_eq!(mirrors("mirror: {host: copy}"), copy(Percent::ALL));
    assert_eq!(
        mirrors("mirror: {host: copy}, mirrorPercentage: {value: 0.5}"),
        copy(Percent::from_millionths(5_000))
    );
    assert_eq!(mirrors("mirror: {host: copy}, mirrorPercentage: {value: 0}"), []);
    assert_eq!(
        mirrors("mirrors: [{destination: {host: copy}}]"),
        copy(Percent::ALL)
    );
    assert_eq!(
        mirrors(
            "mirrors: [{destination: {host: copy}, percentage: {value: 50}}, {destination: {host: web}}]"
        )
        .len(),
        2
    );
}

#[test]
fn faults_are_read() {
    let fault = route_of(
        "fault: {delay: {fixedDelay: 1.5s, percentage: {value: 10}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}",
    )
    .fault
    .expect("a fault");
    assert_eq!(
        fault.delay,
        Some(FaultDelay {
            fixed: Duration::from_millis(1500),
            share: Percent::from_millionths(100_000),
        })
    );
    assert_eq!(
        fault.abort,
        Some(FaultAbort {
            status: AbortStatus::Grpc(14),
            share: Percent::ALL,
        })
    );
    assert_eq!(&*fault.origin.field_path, "spec.http[0].fault");
}

#[test]
fn cross_origin_rules_are_read() {
    let cors = route_of(
        "corsPolicy: {allowOrigins: [{exact: a}, {prefix: b}, {regex: c.*}], allowMethods: [GET, '*'], allowHeaders: [x-a], \
         exposeHeaders: [x-b, '*'], maxAge: 1m, allowCredentials: false, unmatchedPreflights: IGNORE}",
    )
    .cors
    .expect("rules");
    assert_eq!(cors.origins.len(), 3);
    assert_eq!(
        (cors.methods.len(), cors.headers.len(), cors.expose.len()),
        (2, 1, 2)
    );
    assert_eq!(cors.max_age, Some(Duration::from_mins(1)));
    assert_eq!((cors.credentials, cors.forward_unmatched), (Some(false), false));
    assert!(
        route_of("corsPolicy: {allowOrigins: [{exact: a}]}")
            .cors
            .expect("rules")
            .forward_unmatched
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_is_wrong_is_said_at_its_place() {
    let cases = [
        (
            "mirror: {host: copy}, mirrors: [{destination: {host: copy}}]",
            "mirrors",
            codes::EXCLUSIVE,
            false,
        ),
        ("mirror: {}", "mirror", codes::MISSING_FIELD, false),
        (
            "mirrors: [{percentage: {value: 1}}]",
            "mirrors[0]",
            codes::MISSING_FIELD,
            false,
        ),
        (
            "mirror: {host: copy}, mirrorPercent: 101",
            "mirrorPercent",
            codes::OUT_OF_RANGE,
            false,
        ),
        (
            "mirror: {host: copy}, mirrorPercentage: {value: 100.5}",
            "mirrorPercentage.value",
            codes::OUT_OF_RANGE,
            false,
        ),
        (
            "mirror: {host: copy}, mirrorPercentage: {value: -1}",
            "mirrorPercentage.value",
            codes::OUT_OF_RANGE,
            false,
        ),
        (
            "mirror: {host: copy}, mirrorPercentage: {}",
            "mirrorPercentage",
            codes::NO_EFFECT,
            true,
        ),
        (
            "mirrorPercentage: {value: 1}",
            "mirrorPercentage",
            codes::NO_EFFECT,
            true,
        ),
        (
            "mirror: {host: copy}, mirrorPercent: 1",
            "mirrorPercent",
            codes::DEPRECATED,
            true,
        ),
        ("fault: {}", "fault", codes::MISSING_FIELD, false),
        (
            "fault: {delay: {percentage: {value: 1}}}",
            "fault.delay",
            codes::MISSING_FIELD,
            false,
        ),
        (
            "fault: {delay: {fixedDelay: 1s}}",
            "fault.delay",
            codes::NO_EFFECT,
            true,
        ),
        (
            "fault: {delay: {fixedDelay: -1s, percent: 1}}",
            "fault.delay.fixedDelay",
            codes::BAD_DURATION,
            false,
        ),
        (
            "fault: {delay: {fixedDelay: 0s, percentage: {value: 1}}}",
            "fault.delay.fixedDelay",
            codes::BAD_DURATION,
            false,
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percent: 101}}",
            "fault.delay.percent",
            codes::OUT_OF_RANGE,
            false,
        ),
        (
            "fault: {delay: {exponentialDelay: 1s, percentage: {value: 1}}}",
            "fault.delay.exponentialDelay",
            codes::NOT_SUPPORTED,
            false,
        ),
        (
            "fault: {abort: {percentage: {value: 1}}}",
            "fault.abort",
            codes::MISSING_FIELD,
            false,
        ),
        (
            "fault: {abort: {httpStatus: 503}}",
            "fault.abort",
            codes::NO_EFFECT,
            true,
        ),
        (
            "fault: {abort: {httpStatus: 199, percentage: {value: 1}}}",
            "fault.abort.httpStatus",
            codes::OUT_OF_RANGE,
            false,
        ),
        (
            "fault: {abort: {httpStatus: 600, percentage: {value: 1}}}",
            "fault.abort.httpStatus",
            codes::OUT_OF_RANGE,
            false,
        ),
        (
            "fault: {abort: {grpcStatus: UNAVAILABEL, percentage: {value: 1}}}",
            "fault.abort.grpcStatus",
            codes::UNKNOWN_VALUE,
            false,
        ),
        (
            "fault: {abort: {httpStatus: 503, grpcStatus: OK, percentage: {value: 1}}}",
            "fault.abort.grpcStatus",
            codes::EXCLUSIVE,
            false,
        ),
        (
            "fault: {abort: {http2Error: X, percentage: {value: 1}}}",
            "fault.abort.http2Error",
            codes::NOT_SUPPORTED,
            false,
        ),
        ("corsPolicy: {}", "corsPolicy", codes::NO_EFFECT, true),
        (
            "corsPolicy: {allowOrigin: [a]}",
            "corsPolicy.allowOrigin",
            codes::DEPRECATED,
            true,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], allowOrigin: [a]}",
            "corsPolicy.allowOrigin",
            codes::NO_EFFECT,
            true,
        ),
        (
            "corsPolicy: {allowOrigins: [{regex: '('}]}",
            "corsPolicy.allowOrigins[0].regex",
            codes::BAD_REGEX,
            false,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], allowMethods: [get]}",
            "corsPolicy.allowMethods[0]",
            codes::UNKNOWN_VALUE,
            false,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], allowHeaders: ['a,b']}",
            "corsPolicy.allowHeaders[0]",
            codes::BAD_HEADER,
            false,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], maxAge: 1.5s}",
            "corsPolicy.maxAge",
            codes::BAD_DURATION,
            false,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], maxAge: 0s}",
            "corsPolicy.maxAge",
            codes::BAD_DURATION,
            false,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], allowCredentials: maybe}",
            "corsPolicy.allowCredentials",
            codes::WRONG_TYPE,
            false,
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: a}], unmatchedPreflights: DROP}",
            "corsPolicy.unmatchedPreflights",
            codes::UNKNOWN_VALUE,
            false,
        ),
    ];
    for (fields, place, code, used) in cases {
        let (all, is_used) = found(fields);
        assert!(all.contains(&(place.to_owned(), code)), "{fields}: {all:?}");
        assert_eq!(is_used, used, "{fields}");
    }
}

#[test]
fn what_a_route_that_sends_nothing_on_can_not_do_is_said() {
    let loaded = read("").diagnostics.len();
    assert_eq!(loaded, 0);
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: w}\nspec:\n  hosts: [a.example]\n  \
                http:\n  - {directResponse: {status: 200}, corsPolicy: {allowOrigins: [{exact: a}]}, mirror: {host: b.example}}\n";
    let loaded = load(&[Source::new("v.yaml", text)], &LoadOptions::default());
    let places: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|it| it.code == codes::NO_EFFECT)
        .map(|it| it.origin.field_path.to_string())
        .collect();
    assert_eq!(places, ["spec.http[0].mirror", "spec.http[0].corsPolicy"]);
}

#[test]
fn bodies_are_texts_or_bytes() {
    let body = |body: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: w}}\nspec:\n  hosts: [a.example]\n  \
             http:\n  - {{directResponse: {{status: 200, body: {body}}}}}\n"
        );
        let loaded = load(&[Source::new("v.yaml", text)], &LoadOptions::default());
        let code = loaded
            .diagnostics
            .iter()
            .map(|it| it.code)
            .find(|code| *code != codes::HOST_NOT_FOUND);
        let action = loaded
            .virtual_services
            .first()
            .map(|it| it.http[0].action.clone());
        match (action, code) {
            (Some(HttpAction::Direct { body, .. }), None) => Ok(body.to_vec()),
            (_, code) => Err(code),
        }
    };
    assert_eq!(body("{string: hello}"), Ok(b"hello".to_vec()));
    assert_eq!(body("{bytes: \"//8=\"}"), Ok(vec![255, 255]));
    assert_eq!(body("{bytes: __8}"), Ok(vec![255, 255]));
    assert_eq!(body("{bytes: \"a b\"}"), Err(Some(codes::WRONG_TYPE)));
    assert_eq!(body("{bytes: YQ, string: a}"), Err(Some(codes::EXCLUSIVE)));
}

#[test]
fn a_mirror_that_does_not_exist_is_found() {
    let found = crate::check::check(&read("mirror: {host: nobody}"));
    let found: Vec<_> = found
        .iter()
        .filter(|it| it.code == codes::HOST_NOT_FOUND)
        .collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(&*found[0].origin.field_path, "spec.http[0].mirror.host");
}

#[test]
fn claims_are_read_at_gateways_and_refused_at_sidecars() {
    let (at_sidecars, used) = found("match: [{headers: {'@request.auth.claims.a': {exact: b}}}]");
    let place = "match[0].headers[@request.auth.claims.a]".to_owned();
    assert_eq!(at_sidecars, [(place, codes::NOT_SUPPORTED)]);
    assert!(!used, "without the condition the route would be open");
    let (broken, _) = found("match: [{gateways: [edge], headers: {'@request.auth.claims[a': {exact: b}}}]");
    assert!(
        broken.iter().any(|(_, code)| *code == codes::BAD_HEADER),
        "{broken:?}"
    );

    let read = read(
        "match: [{gateways: [edge], headers: {'@request.auth.claims.a.B': {exact: b}, X-C: {exact: c}}, \
         withoutHeaders: {'@request.auth.claims[a.b][c]': {prefix: d}}}]",
    );
    assert!(
        read.diagnostics.iter().all(|it| it.code != codes::NOT_SUPPORTED),
        "{:#?}",
        read.diagnostics
    );
    let matched = &read.virtual_services[0].http[0].matches[0];
    let path = |at: usize| -> Vec<&str> { matched.claims[at].path.iter().map(|name| &**name).collect() };
    assert_eq!(path(0), ["a", "B"]);
    assert_eq!(path(1), ["a.b", "c"]);
    assert!(!matched.claims[0].invert && matched.claims[1].invert);
    assert_eq!(matched.headers.len(), 1, "claims are no headers");
    assert!(matched.without_headers.is_empty());
}
