use rajut_config::{LoadOptions, Source, load, model::WorkloadHealth, snapshot::Configuration};
use rajut_types::{Labels, Locality};

use super::*;

const CLINIC: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: clinic}
spec:
  clusterIP: 10.96.0.7
  selector: {app: api}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: clinic}
spec:
  host: api
  subsets:
  - {name: stable, labels: {version: stable}}
  - {name: canary, labels: {version: canary}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: clinic}
spec:
  hosts: [api]
  http:
  - name: testers
    match: [{headers: {x-tester: {exact: 'yes'}}}]
    route: [{destination: {host: api, subset: canary}}]
  - name: everybody
    fault:
      delay: {fixedDelay: 2s, percentage: {value: 12.5}}
      abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}
    mirror: {host: api, subset: canary}
    route: [{destination: {host: api, subset: stable}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: clinic}
spec: {mtls: {mode: STRICT}}
";

fn workload(name: &str, version: &str, address: &str) -> Workload {
    Workload {
        name: name.into(),
        deployment: "api".into(),
        namespace: "clinic".into(),
        labels: [("app", "api"), ("version", version)]
            .into_iter()
            .collect::<Labels>(),
        service_account: "api".into(),
        address: address.parse().expect("an address"),
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
    let text = format!("{CLINIC}{more}");
    let loaded = load(&[Source::new("clinic.yaml", text)], &LoadOptions::default());
    assert_eq!(loaded.diagnostics, []);
    let configuration = Configuration::of(&loaded);
    let workloads = [
        workload("api-0", "stable", "127.10.0.1"),
        workload("api-1", "stable", "127.10.0.2"),
    ];
    Snapshot::build(configuration, workloads, &Snapshot::default())
}

fn ask(to: &str, headers: &[(&str, &str)]) -> Explanation {
    ask_under("", to, headers)
}

/// With more configuration.
fn ask_under(more: &str, to: &str, headers: &[(&str, &str)]) -> Explanation {
    let snapshot = snapshot(more);
    let proxy = find_proxy(&snapshot, &[], "api-0").expect("it runs");
    let (resources, _) =
        rajut_translate::translate(&snapshot, &proxy, &mut rajut_translate::Translator::default());
    let question = Question {
        from: "api-0".into(),
        to: to.into(),
        method: "GET".into(),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    };
    follow(&snapshot, &proxy, &resources, &question).expect("a URL")
}

#[test]
fn a_request_is_followed_to_its_endpoint_with_file_and_line() {
    let found = ask("http://api:8080/visits", &[]);
    assert!(found.reached, "{found:#?}");
    assert_eq!(
        found.cluster.as_deref(),
        Some("outbound|8080|stable|api.clinic.svc.cluster.local")
    );
    assert_eq!(found.subset.as_deref(), Some("stable"));
    let passed = found
        .steps
        .iter()
        .find(|step| step.text.contains("passed over"))
        .expect("the first route");
    assert!(passed.text.contains("x-tester"), "{passed:?}");
    assert!(passed.place.starts_with("clinic.yaml:"), "{passed:?}");
    let told = |stage: &str| -> Vec<&str> {
        let steps = found.steps.iter().filter(|step| step.stage == stage);
        steps.map(|step| &*step.text).collect()
    };
    assert_eq!(
        told("fault"),
        [
            "12.5 % of the requests wait 2s",
            "1 % of the requests are answered gRPC status 14"
        ]
    );
    assert_eq!(told("mirror").len(), 1);
    assert!(
        found
            .steps
            .iter()
            .any(|step| step.stage == "peer auth" && step.text.contains("Strict"))
    );
}

#[test]
fn a_header_leads_elsewhere_and_an_empty_subset_is_not_reached() {
    let found = ask("http://api.clinic:8080/", &[("X-Tester", "yes")]);
    assert_eq!(found.subset.as_deref(), Some("canary"));
    assert!(!found.reached);
    assert!(found.verdict.contains("no endpoint"), "{}", found.verdict);
}

#[test]
fn what_is_not_known_says_so() {
    let found = ask("http://nowhere:80/", &[]);
    assert!(
        !found.reached && found.verdict.contains("outside the mesh"),
        "{found:?}"
    );
    assert_eq!(
        find_proxy(&snapshot(""), &[], "nobody"),
        Err(Unanswerable::From("nobody".into()))
    );
    assert!(find_proxy(&snapshot(""), &[], "spiffe://cluster.local/ns/clinic/sa/api").is_ok());
    for bad in ["api", "ftp://api/", "http://"] {
        let question = Question {
            from: String::new(),
            to: bad.into(),
            method: get(),
            headers: BTreeMap::new(),
        };
        assert!(Call::parse(&question).is_err(), "{bad}");
    }
}

#[test]
fn a_sidecar_that_hides_a_service_is_named_with_file_and_line() {
    let hides = "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: clinic}
spec: {egress: [{hosts: ['other/*']}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
";
    let found = ask_under(hides, "http://api:8080/", &[]);
    assert!(!found.reached, "{found:#?}");
    let step = found.steps.iter().find(|step| step.stage == "sidecar");
    let step = step.expect("the Sidecar is named");
    assert!(
        step.text.contains("`narrow` of clinic") && step.place.contains("clinic.yaml:"),
        "{step:?}"
    );
    assert!(
        !found
            .steps
            .iter()
            .any(|step| step.text.contains("no service of the mesh is called")),
        "{found:#?}"
    );
    let shows = hides.replace("other/*", "./*");
    assert!(ask_under(&shows, "http://api:8080/visits", &[]).reached);
}

#[test]
fn the_order_of_places_is_shown_where_there_is_one() {
    let steps = |setting: &str| {
        let rule = format!(
            "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far, namespace: clinic}}
spec:
  hosts: [far.example]
  location: MESH_INTERNAL
  resolution: STATIC
  addresses: [240.240.7.7]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 192.0.2.1, locality: west/a}}, {{address: 192.0.2.2, locality: east}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: far, namespace: clinic}}
spec: {{host: far.example, trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}, outlierDetection: {{interval: 1s}}}}}}
"
        );
        let found = ask_under(&rule, "http://far.example/", &[]);
        let step = found.steps.into_iter().find(|step| step.stage == "places");
        step.map(|step| step.text)
    };
    assert_eq!(steps("{enabled: false}"), None);
    assert_eq!(
        steps("{distribute: [{from: '*', to: {west: 30, east: 70}}]}").as_deref(),
        Some("by the caller's place: east with weight 70 (1 of 1), west/a with weight 30 (1 of 1)")
    );
    assert_eq!(
        steps("{failoverPriority: ['topology.kubernetes.io/region=east']}").as_deref(),
        Some("by the caller's place: priority 0: east (1 of 1), priority 1: west/a (1 of 1)")
    );
}

/// The steps of a kind, with their places.
fn steps(found: &Explanation, stage: &str) -> Vec<String> {
    let own = found.steps.iter().filter(|step| step.stage == stage);
    own.map(|step| format!("{} [{}]", step.text, step.place))
        .collect()
}

const POLICIES: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: clinic}
spec:
  rules:
  - from: [{source: {serviceAccounts: [nurse, clerk]}}]
  - to: [{operation: {methods: [GET], paths: [/visits*]}}]
    when: [{key: 'request.headers[x-team]', notValues: [day-off]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-admin, namespace: clinic}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/admin*]}}]}]
---
apiVersion: mesh.rajut.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: calm, namespace: clinic}
spec:
  limits:
  - {name: reads, requests: 10, per: 1m, by: [{caller: IDENTITY}], match: {methods: [GET]}}
  - {name: posts, requests: 1, per: 1m, match: {methods: [POST]}}
";

#[test]
fn each_policy_of_the_workload_says_what_it_makes_of_the_request() {
    let found = ask_under(POLICIES, "http://api:8080/visits/../visits/1", &[]);
    assert!(found.reached, "{found:#?}");
    assert!(
        found.access.as_ref().is_some_and(|access| access.allowed),
        "{found:#?}"
    );
    let told = steps(&found, "authorization");
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told[0].contains("clinic/not-admin (DENY) rule 0 does not apply: the path is /visits/1, not /admin*"),
        "{told:#?}"
    );
    let unmet = "the caller is spiffe://cluster.local/ns/clinic/sa/api, none of ns/clinic/sa/nurse, ns/clinic/sa/clerk";
    assert!(told[1].contains(unmet), "{told:#?}");
    assert!(
        told[2].contains("clinic/readers (ALLOW) rule 1 applies: let through"),
        "{told:#?}"
    );
    // At the rule's own line.
    let line = |told: &str| {
        let line = told
            .rsplit_once("clinic.yaml:")
            .and_then(|(_, rest)| rest.split_once(' '));
        line.and_then(|(line, _)| line.parse::<usize>().ok())
            .expect("a line")
    };
    assert_eq!(line(&told[2]), line(&told[1]) + 1, "{told:#?}");
    let limits = steps(&found, "rate limit");
    assert!(
        limits[0].contains("limit reads counts it: 10 requests in 60s for each caller")
            && limits[1].contains("limit posts is not about it"),
        "{limits:#?}"
    );

    let found = ask_under(POLICIES, "http://api:8080/visits", &[("x-team", "day-off")]);
    assert!(
        !found.reached && found.verdict.starts_with("refused (403)"),
        "{found:#?}"
    );
    let told = steps(&found, "authorization");
    assert!(
        told[2].contains("the header x-team is day-off, and may not be day-off"),
        "{told:#?}"
    );
    let found = ask_under(POLICIES, "http://api:8080/admin/x", &[]);
    assert!(
        found.verdict.contains("clinic/not-admin spec.rules[0]"),
        "{}",
        found.verdict
    );
    assert_eq!(
        steps(&found, "authorization").len(),
        1,
        "what refuses is the last"
    );
}

#[test]
fn tokens_providers_and_routes_count_in_what_is_judged() {
    let objects = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: ward-rules
      envoyExtAuthzHttp: {service: api.clinic.svc.cluster.local, port: 8080, timeout: 500ms}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: clinic}
spec: {action: CUSTOM, provider: {name: ward-rules}, rules: [{to: [{operation: {paths: [/asked]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: staff, namespace: clinic}
spec: {jwtRules: [{issuer: staff.example, jwksUri: 'http://staff.example/keys', fromHeaders: [{name: x-jwt}]}]}
";
    let token = |claims: &str| {
        use base64::Engine;
        let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        format!("e30.{part}.c2ln")
    };
    let found = ask_under(objects, "http://api:8080/asked", &[]);
    assert!(
        found.reached && found.verdict.contains("`ward-rules` says yes"),
        "{found:#?}"
    );
    let asked = steps(&found, "custom");
    assert!(
        asked[0].contains("outbound|8080||api.clinic.svc.cluster.local, which answers within 500ms, or it is refused with 403"),
        "{asked:#?}"
    );
    let found = ask_under(objects, "http://api:8080/", &[]);
    assert_eq!(steps(&found, "custom"), [""; 0]);
    assert!(
        steps(&found, "token")[0].contains("there is no token"),
        "{found:#?}"
    );
    // Nobody has fetched that issuer's keys.
    let good = token(r#"{"iss":"staff.example","sub":"a"}"#);
    let found = ask_under(objects, "http://api:8080/", &[("x-jwt", &good)]);
    assert!(
        !found.reached && found.verdict.starts_with("refused (401)"),
        "{found:#?}"
    );
    assert!(
        steps(&found, "token")[0].contains("could never be fetched"),
        "{found:#?}"
    );
    let known = objects.replace(
        "jwksUri: 'http://staff.example/keys'",
        r#"jwks: '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'"#,
    );
    let found = ask_under(&known, "http://api:8080/", &[("x-jwt", &good)]);
    assert!(
        found.reached && steps(&found, "token")[0].contains("taken at its word"),
        "{found:#?}"
    );
    let other = token(r#"{"iss":"elsewhere"}"#);
    for bad in [&*other, "nonsense"] {
        let found = ask_under(&known, "http://api:8080/", &[("x-jwt", bad)]);
        assert!(
            !found.reached && found.verdict.starts_with("refused (401)"),
            "{found:#?}"
        );
    }
}
