use rajut_config::{LoadOptions, Source, load};
use rajut_telemetry::recording::{KEY_BYTES, Token, has_digits, redact};

use super::*;

const KEY: [u8; KEY_BYTES] = [1; KEY_BYTES];

const LAB: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: lab}
spec: {selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: lab}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: a, image: a}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: lab}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/lab/sa/nurse]}}]
    to: [{operation: {paths: [\"/records/*\"]}}]
  - when: [{key: 'request.headers[x-role]', values: [admin]}]
";

fn loaded() -> Loaded {
    load(&[Source::new("k8s.yaml", LAB)], &LoadOptions::default())
}

fn tuple(caller: &str, path: &str, refused: bool, workload: &str) -> Tuple {
    Tuple {
        id: 0xabc,
        time_ms: 1_760_000_000_000,
        namespace: "lab".into(),
        workload: workload.into(),
        source: format!("spiffe://cluster.local/ns/lab/sa/{caller}").into(),
        tls: true,
        remote: Some([10, 0, 0, 1].into()),
        forwarded: false,
        local: Some(([10, 0, 0, 2], 8080).into()),
        server_name: "".into(),
        listener: "virtualInbound".into(),
        route: "default".into(),
        method: "GET".into(),
        authority: "api".into(),
        path: redact(path.as_bytes(), &Digester::new(&KEY), has_digits),
        headers: Vec::new(),
        token: Token::Unknown,
        refused,
        reason: "".into(),
        status: 200,
        received: 0,
        sent: 0,
        micros: 0,
    }
}

fn part(tuples: &[(Tuple, u64)]) -> Value {
    let one = |(tuple, count): &(Tuple, u64)| json!({"request": STANDARD.encode(tuple.encode()), "count": count, "firstMilliseconds": 1});
    json!({
        "key": STANDARD.encode(KEY), "records": tuples.iter().map(one).collect::<Vec<_>>(),
        "recording": {"refused": true, "allowedShare": 0.5}, "damagedBytes": 7, "next": null,
    })
}

#[test]
fn what_changes_is_counted_and_what_is_unknown_is_named() {
    let loaded = loaded();
    let snapshot = snapshot(&loaded);
    let mut replayed = Replayed::new(&snapshot, &loaded);
    let known_role = |mut tuple: Tuple| {
        let name = "x-role".into();
        tuple.headers = vec![rajut_telemetry::recording::Header {
            name,
            count: 0,
            digest: 0,
        }];
        tuple
    };
    replayed
        .take(&part(&[
            (tuple("nurse", "/records/1", false, "api"), 5),
            (tuple("nurse", "/records/2", true, "api"), 2),
            (known_role(tuple("clerk", "/records/3", false, "api")), 3),
            (known_role(tuple("clerk", "/records/4", false, "api")), 4),
            (tuple("clerk", "/\u{1b}[2J", false, "api"), 6),
            (tuple("nurse", "/records/1", false, "gone"), 1),
        ]))
        .expect("taken");
    let found = replayed.found;
    assert_eq!((found.requests(), found.unchanged), (21, 5));
    assert_eq!(
        (found.count(Change::Refused), found.count(Change::Allowed)),
        (7, 2)
    );
    assert_eq!(found.count(Change::Unknown), 7);
    assert!(found.is_no());
    let text = found.text(60);
    assert!(
        text.contains(
            "newly refused  7      cluster.local/ns/lab/sa/clerk  api.lab   8080  GET     /records/{id}"
        ),
        "{text}"
    );
    assert!(
        text.contains("k8s.yaml:2"),
        "the allowing rule has its place: {text}"
    );
    assert!(
        text.contains("6 depend on what was not recorded: header x-role"),
        "{text}"
    );
    assert!(
        text.contains("1 depend on what was not recorded: a workload that is not in the files"),
        "{text}"
    );
    assert!(
        text.contains("50 % are recorded") && text.contains("7 bytes"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
    let json = found.json(60);
    assert_eq!(json["newlyRefused"], 7);
    assert_eq!(json["changes"][0]["example"], "0000000000000abc");
}

#[test]
fn a_recording_that_stays_as_it_was_is_a_yes_and_an_empty_one_is_none() {
    let loaded = loaded();
    let snapshot = snapshot(&loaded);
    let mut replayed = Replayed::new(&snapshot, &loaded);
    replayed
        .take(&part(&[(tuple("nurse", "/records/1", false, "api"), 5)]))
        .expect("taken");
    assert!(!replayed.found.is_no(), "{}", replayed.found.text(60));
    let empty = Replayed::new(&snapshot, &loaded).found;
    assert!(empty.is_no() && empty.text(60).starts_with("no data"));
}

#[test]
fn times_have_units() {
    for (text, wanted) in [("90s", 90), ("30m", 1_800), ("12h", 43_200), ("3d", 259_200)] {
        assert_eq!(seconds(text), Ok(wanted));
    }
    for text in [
        "",
        "s",
        "3",
        "-1d",
        "0d",
        "3w",
        "1.5h",
        "99999999999999999999d",
        "3\u{e9}",
    ] {
        assert!(seconds(text).is_err(), "{text}");
    }
}
