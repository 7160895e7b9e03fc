use rajut_config::{LoadOptions, Source, load, model::WorkloadHealth, snapshot::Configuration};
use rajut_types::{Labels, Locality};

use super::*;

const POLICIES: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: clinic}
spec:
  clusterIP: 10.96.0.7
  selector: {app: api}
  ports: [{name: http, port: 8080}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: clinic}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: clinic}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/clinic/sa/web]}}]
  - from: [{source: {namespaces: [clinic]}}]
    to: [{operation: {methods: [GET]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-the-job, namespace: clinic}
spec:
  action: DENY
  selector: {matchLabels: {app: api}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/clinic/sa/job]}}]
";

const PORTS: &str = "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: api, namespace: clinic}
spec:
  selector: {matchLabels: {app: api}}
  portLevelMtls:
    9000: {mode: MODE}
";

fn workload(name: &str, namespace: &str) -> Workload {
    Workload {
        name: format!("{name}-0").into(),
        deployment: name.into(),
        namespace: namespace.into(),
        labels: [("app", name)].into_iter().collect::<Labels>(),
        service_account: name.into(),
        address: "10.0.0.1".parse().expect("an address"),
        named_ports: BTreeMap::new(),
        reached_ports: BTreeMap::new(),
        gateway: None,
        mesh: true,
        locality: Locality::default(),
        weight: 1,
        health: WorkloadHealth::Ready,
    }
}

fn snapshot(more: &str) -> Snapshot {
    let text = format!("{POLICIES}{more}");
    let loaded = load(
        &[Source::new("policies.yaml", text.into_bytes())],
        &LoadOptions::default(),
    );
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    let mut workloads: Vec<Workload> = ["api", "web", "job", "page"]
        .map(|name| workload(name, "clinic"))
        .into();
    workloads.push(workload("stranger", "other"));
    Snapshot::build(Configuration::of(&loaded), workloads, &Snapshot::default())
}

#[test]
fn a_caller_is_let_through_refused_or_sometimes_by_the_rules_that_decide_its_calls() {
    let reach = reach(&snapshot(""), true);
    let of = |name: &str| {
        reach
            .workloads
            .iter()
            .find(|found| *found.deployment == *name)
            .expect("it is there")
    };
    let api = of("api");
    let verdict = |caller: &str| {
        let found = api
            .callers
            .iter()
            .find(|group| group.callers.iter().any(|name| name == caller));
        let found = &found.expect("it is judged").verdict;
        (
            found.outcome,
            found.by.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    };
    let rule = |policy: &str, number| format!("ns[clinic]-policy[{policy}]-rule[{number}]");
    assert_eq!(
        verdict("web.clinic"),
        (Outcome::Allowed, vec![rule("callers", 0)])
    );
    assert_eq!(
        verdict("page.clinic"),
        (Outcome::Sometimes, vec![rule("callers", 1)])
    );
    assert_eq!(
        verdict("job.clinic"),
        (Outcome::Refused, vec![rule("not-the-job", 0)])
    );
    assert_eq!(verdict("stranger.other"), (Outcome::Refused, vec![]));
    assert_eq!(
        (api.mtls.mode, api.plaintext.outcome),
        ("STRICT", Outcome::Refused)
    );
    let written = api.mtls.place.as_ref().expect("somebody wrote it");
    assert_eq!(
        (&*written.source, &*written.object.kind),
        ("policies.yaml", "PeerAuthentication")
    );
    assert_eq!(api.services, ["api.clinic.svc.cluster.local"]);
    assert_eq!(api.policies.len(), 2);

    let stranger = of("stranger");
    assert_eq!(
        (stranger.mtls.mode, stranger.mtls.place.is_none()),
        ("PERMISSIVE", true)
    );
    assert_eq!(
        stranger.plaintext.outcome,
        Outcome::Allowed,
        "no policy and both forms are taken"
    );
    assert_eq!(stranger.callers.len(), 1);
    assert!(!stranger.callers[0].verdict.guarded && stranger.callers[0].verdict.by.is_empty());
    assert_eq!(reach.left_out, 0);
    let alone = super::reach(&snapshot(""), false);
    assert_eq!(alone.workloads.len(), reach.workloads.len());
    assert!(alone.workloads.iter().all(|found| found.callers.is_empty()));
}

#[test]
fn one_port_that_takes_plain_text_is_enough() {
    let with = |mode: &str| {
        let mut found = reach(&snapshot(&PORTS.replace("MODE", mode)), true).workloads;
        found.retain(|found| &*found.deployment == "api");
        found.remove(0)
    };
    let outcome = |api: &Reached, caller: &str| {
        let found = api
            .callers
            .iter()
            .find(|group| group.callers.iter().any(|name| name == caller));
        found.expect("it is judged").verdict.outcome
    };
    let strict = with("STRICT");
    assert_eq!((strict.mtls.mode, strict.ports[&9000].mode), ("STRICT", "STRICT"));
    assert!(strict.plaintext.by.is_empty() && strict.plaintext.guarded);
    // The policies ask for identities, which plain text has not.
    let permissive = with("PERMISSIVE");
    assert_eq!(
        (permissive.ports[&9000].mode, permissive.plaintext.outcome),
        ("PERMISSIVE", Outcome::Refused)
    );
    assert_eq!(outcome(&permissive, "web.clinic"), Outcome::Allowed);
    assert_eq!(
        outcome(&with("DISABLE"), "web.clinic"),
        Outcome::Sometimes,
        "one port knows nobody"
    );
}
