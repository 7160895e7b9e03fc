//! The requirement's own documents, and merging.

use super::*;
use crate::model::{HttpAction, MtlsMode};

/// The three documents of ADR-003, as its authors wrote them.
const ADR_003: &str = "\
# PeerAuthentication - require mTLS
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: default
  namespace: phoenix-guardian
spec:
  mtls:
    mode: STRICT

---
# DestinationRule - circuit breaker
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: encounter-service
spec:
  host: encounter-service
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 100
      http:
        h2UpgradePolicy: UPGRADE
        http1MaxPendingRequests: 100
        http2MaxRequests: 1000
    outlierDetection:
      consecutiveErrors: 5
      interval: 30s
      baseEjectionTime: 30s
      maxEjectionPercent: 50

---
# VirtualService - canary routing
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: api-gateway
spec:
  hosts:
    - api-gateway
  http:
    - route:
        - destination:
            host: api-gateway
            subset: stable
          weight: 90
        - destination:
            host: api-gateway
            subset: canary
          weight: 10
";

fn read(text: &str) -> Loaded {
    read_as(text, "default")
}

fn read_as(text: &str, namespace: &str) -> Loaded {
    let options = LoadOptions {
        default_namespace: namespace.into(),
        ..LoadOptions::default()
    };
    load(&[Source::new("a.yaml", text)], &options)
}

fn shown_all(loaded: &Loaded) -> String {
    loaded.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn the_requirements_documents_are_read_as_they_stand() {
    let loaded = read_as(ADR_003, "phoenix-guardian");
    assert_eq!(
        loaded.counts,
        Counts {
            documents: 3,
            used: 3,
            foreign: 0,
            wrong: 0
        },
        "{}",
        shown_all(&loaded)
    );
    let [policy] = &loaded.peer_authentications[..] else {
        panic!("one policy")
    };
    assert_eq!(policy.mode, Some(MtlsMode::Strict));
    let [rule] = &loaded.destination_rules[..] else {
        panic!("one rule")
    };
    assert_eq!(
        rule.host.as_str(),
        "encounter-service.phoenix-guardian.svc.cluster.local"
    );
    let pool = rule.policy.connection_pool.as_ref().expect("a pool");
    assert_eq!(
        (
            pool.max_connections,
            pool.http1_max_pending_requests,
            pool.http2_max_requests,
            pool.h2_upgrade
        ),
        (Some(100), Some(100), Some(1000), Some(true))
    );
    let outlier = rule.policy.outlier_detection.as_ref().expect("outlier detection");
    assert_eq!(
        (outlier.consecutive_gateway, outlier.consecutive_5xx),
        (Some(5), None)
    );
    assert_eq!(outlier.max_ejection_percent.millionths(), 500_000);
    let [routes] = &loaded.virtual_services[..] else {
        panic!("one virtual service")
    };
    let HttpAction::Route(to) = &routes.http[0].action else {
        panic!("a route")
    };
    let weights: Vec<_> = to.iter().map(|d| (&*d.destination.subset, d.weight)).collect();
    assert_eq!(weights, [("stable", 90), ("canary", 10)]);
    // The one finding names the old field, its line and what to write instead.
    let [finding] = &loaded.diagnostics[..] else {
        panic!("{}", shown_all(&loaded))
    };
    assert_eq!(
        (finding.code, finding.severity, finding.span.line),
        (codes::CONSECUTIVE_ERRORS, Severity::Warning, 28)
    );
    assert!(finding.hint.contains("consecutiveGatewayErrors: 5"), "{finding}");
    assert_eq!(&*to[1].origin.field_path, "spec.http[0].route[1]");
    assert_eq!(to[1].origin.line, 48);
}

#[test]
fn namespaces_that_are_written_win_over_the_default() {
    let loaded = read_as(ADR_003, "clinic");
    assert_eq!(&*loaded.peer_authentications[0].namespace, "phoenix-guardian");
    assert_eq!(&*loaded.virtual_services[0].namespace, "clinic");
}

#[test]
fn every_error_of_a_document_is_said_once_at_its_place_and_the_rest_goes_on() {
    let loaded = read(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  \
         htp: []\n  http:\n  - timeout: 5\n    route:\n    - destination: {hots: web}\n      weight: -1\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
    );
    let places: Vec<_> = loaded
        .diagnostics
        .iter()
        .map(|d| (d.code, d.span.line, d.span.column))
        .collect();
    assert_eq!(
        places,
        [
            (codes::BAD_DURATION, 8, 14),
            (codes::OUT_OF_RANGE, 11, 15),
            (codes::MISSING_FIELD, 10, 7),
            (codes::UNKNOWN_FIELD, 10, 21),
            (codes::UNKNOWN_FIELD, 6, 3),
        ],
        "{}",
        shown_all(&loaded)
    );
    assert_eq!(loaded.namespaces.len(), 1);
    assert_eq!((loaded.counts.used, loaded.counts.wrong), (1, 1));
}

#[test]
fn mesh_settings_inside_a_config_map_are_reported_at_their_own_lines() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                trustDomain: clinic.example\n    outboundTrafficPolicy:\n      mode: REGISTRY_ONLY\n";
    let loaded = read(text);
    assert_eq!(
        loaded.mesh.trust_domain.as_str(),
        "clinic.example",
        "{}",
        shown_all(&loaded)
    );
    assert_eq!(
        loaded.mesh.outbound_policy,
        crate::model::OutboundPolicy::RegistryOnly
    );
    let loaded = read(&text.replace("mode:", "mod:"));
    let finding = loaded.diagnostics.first().expect("a finding");
    assert_eq!(
        (finding.code, finding.span.line, finding.span.column),
        (codes::UNKNOWN_FIELD, 8, 7),
        "{finding}"
    );
}

#[test]
fn environments_come_from_config_maps_and_commands_from_the_command_line() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {A: \"1\", B: b}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 3\n  selector: {matchLabels: {app: web}}\n  \
                template:\n    metadata: {labels: {app: web}}\n    spec:\n      serviceAccountName: web\n      containers:\n      - name: web\n        \
                ports: [{name: http, containerPort: 8080}]\n        readinessProbe: {httpGet: {path: /ready, port: http}}\n        \
                envFrom: [{configMapRef: {name: app}}]\n        env:\n        - {name: B, value: \"$(A)2\"}\n        - name: C\n          valueFrom: {configMapKeyRef: {name: app, key: A}}\n---\n\
                apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: web}\nspec:\n  deploymentRef: {name: web}\n  workingDir: web\n  env: [{name: D, value: d}]\n";
    let options = LoadOptions {
        run: [("web".into(), "node web.js".into())].into(),
        ..LoadOptions::default()
    };
    let loaded = load(&[Source::new("a.yaml", text)], &options);
    assert_eq!(shown_all(&loaded), "");
    let [web] = &loaded.deployments[..] else {
        panic!("one deployment")
    };
    let env: Vec<_> = web
        .env
        .iter()
        .map(|(k, v)| format!("{k}={}", v.for_instance(|_| String::new())))
        .collect();
    assert_eq!(env, ["A=1", "B=12", "C=1", "D=d"]);
    assert_eq!(web.run, Some(RunCommand::Shell("node web.js".into())));
    assert_eq!((web.replicas, &*web.service_account), (3, "web"));
    assert_eq!(web.working_directory.as_deref(), Some("web"));
    let probe = web.readiness.as_ref().expect("a probe");
    assert!(
        matches!(&probe.check, crate::model::ProbeCheck::Http { port: 8080, path, .. } if &**path == "/ready")
    );
}

#[test]
fn environments_come_from_secrets_and_from_what_the_pod_knows_of_itself() {
    let variables = "
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
        - {name: URL, value: \"db://clinic:$(PASSWORD)@$(POD_IP)$$\"}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: SPACE, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}}
        - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}
        - {name: TEAM, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['team']\"}}}
        - {name: NONE, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['none']\"}}}
        - {name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        - {name: MAYBE, valueFrom: {secretKeyRef: {name: none, key: a, optional: true}}}
        - {name: WORD, valueFrom: {secretKeyRef: {name: db, key: pasword}}}
        - {name: OTHER, valueFrom: {secretKeyRef: {name: dbs, key: a}}}
        - {name: BINARY, valueFrom: {secretKeyRef: {name: db, key: binary}}}";
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\ndata: {{password: cGFzcw==, user: Y2xpbmlj, binary: /w==, broken: '%'}}\n\
         stringData: {{user: nurse}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}, annotations: {{team: \"$(URL)\"}}}}\n    \
         spec:\n      serviceAccountName: clerk\n      containers:\n      - name: web\n        envFrom: [{{secretRef: {{name: db}}, prefix: DB_}}]\n        \
         env:\n        - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}{variables}\n"
    );
    let loaded = load(&[Source::new("a.yaml", text.as_str())], &LoadOptions::default());
    let [web] = &loaded.deployments[..] else {
        panic!("one deployment")
    };
    let env: Vec<_> = web
        .env
        .iter()
        .map(|(k, v)| format!("{k}={}", v.for_instance(|field| format!("<{field:?}>"))))
        .collect();
    assert_eq!(
        env,
        [
            "DB_password=pass",
            "DB_user=nurse",
            "POD_IP=<Address>",
            "PASSWORD=pass",
            "URL=db://clinic:pass@<Address>$",
            "POD=<Name>",
            "SPACE=default",
            "ACCOUNT=clerk",
            "NODE=<Node>",
            "APP=web",
            "TEAM=$(URL)",
            "NONE="
        ]
    );
    let said = shown_all(&loaded);
    for part in [
        "`UID` comes from the cluster (`metadata.uid`)",
        "the Secret `db` has no text under the key `pasword`",
        "did you mean `password`?",
        "there is no Secret `dbs` in `default`",
        "did you mean `db`?",
        "`BINARY` is not set",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("MAYBE") && !said.contains("nurse"), "{said}");
    let debug = format!("{:?} {:?}", web, loaded.secrets);
    assert!(!debug.contains("pass@") && !debug.contains("nurse"), "{debug}");
}

#[test]
fn a_probe_of_a_local_workload_may_name_a_port_of_its_deployment() {
    let with = |port: &str| {
        let text = format!(
            "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {{name: web}}\nspec:\n  deploymentRef: {{name: web}}\n  \
             run: web\n  readinessProbe: {{httpGet: {{path: /health, port: {port}}}}}\n---\napiVersion: apps/v1\nkind: Deployment\n\
             metadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
             spec:\n      containers:\n      - name: web\n        image: web\n        ports: [{{name: status, containerPort: 8081}}]\n"
        );
        read(&text)
    };
    let loaded = with("status");
    let probe = loaded.deployments[0].readiness.as_ref().expect("a probe");
    assert!(
        matches!(probe.check, crate::model::ProbeCheck::Http { port: 8081, .. }),
        "{probe:?} {}",
        shown_all(&loaded)
    );
    let loaded = with("statsu");
    assert!(
        shown_all(&loaded).contains("no port named `statsu`")
            && shown_all(&loaded).contains("did you mean `status`?"),
        "{}",
        shown_all(&loaded)
    );
}

#[test]
fn services_of_every_type_are_read() {
    let loaded = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: grpc-api, port: 80, targetPort: api}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: pods}\nspec: {clusterIP: None, selector: {app: web}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, ports: [{port: 3306}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: web.default.svc.cluster.local}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: out, annotations: {networking.istio.io/exportTo: \".\"}}\nspec: {type: ExternalName, externalName: db.example.com, ports: [{port: 5432}]}\n",
    );
    assert_eq!(shown_all(&loaded), "");
    assert_eq!(loaded.counts.used, 5);
    let service = |name: &str| {
        loaded
            .services
            .iter()
            .find(|s| &*s.name == name)
            .expect("a service")
    };
    let web = service("web");
    assert_eq!(web.ports[0].protocol, crate::model::Protocol::Grpc);
    assert_eq!(web.aliases[0].as_str(), "alias.default.svc.cluster.local");
    assert!(service("db").headless && service("db").ports[0].protocol == crate::model::Protocol::Tcp);
    let out = service("out");
    assert!(out.external && &*out.endpoints[0].address == "db.example.com");
    assert!(!out.export_to.includes("other") && out.export_to.includes("default"));
    assert_eq!(loaded.services.len(), 3);
}

#[test]
fn a_delegates_routes_take_the_place_of_the_route_that_names_it() {
    let loaded = read(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root}\nspec:\n  hosts: [web]\n  http:\n  \
         - {name: a, match: [{uri: {prefix: /a}, headers: {x: {exact: \"1\"}}}], timeout: 5s, delegate: {name: part, namespace: parts}}\n  \
         - route: [{destination: {host: web}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: part, namespace: parts}\nspec:\n  http:\n  \
         - {name: one, match: [{uri: {exact: /a/one}, method: {exact: GET}}], route: [{destination: {host: other}}]}\n  \
         - {timeout: 1s, route: [{destination: {host: web.default.svc.cluster.local}}]}\n",
    );
    assert_eq!(shown_all(&loaded), "");
    let [rule] = &loaded.virtual_services[..] else {
        panic!("one rule")
    };
    let [one, rest, last] = &rule.http[..] else {
        panic!("three routes")
    };
    assert_eq!(&*one.name, "a-one");
    let m = &one.matches[0];
    assert!(matches!(&m.uri, Some(crate::model::StringMatch::Exact(path)) if &**path == "/a/one"));
    assert!(m.method.is_some() && m.headers.len() == 1);
    assert_eq!(one.timeout.map(|t| t.as_secs()), Some(5), "inherited");
    assert_eq!(rest.timeout.map(|t| t.as_secs()), Some(1), "its own");
    assert_eq!(
        rest.matches,
        [crate::model::HttpMatch {
            name: "".into(),
            uri: Some(crate::model::StringMatch::Prefix("/a".into())),
            headers: vec![("x".into(), Some(crate::model::StringMatch::Exact("1".into())))],
            ..Default::default()
        }]
    );
    assert!(last.matches.is_empty());
    // A short name in the delegate means the delegate's namespace.
    let HttpAction::Route(to) = &one.action else {
        panic!("a route")
    };
    assert_eq!(to[0].destination.host.as_str(), "other.parts.svc.cluster.local");
}

#[test]
fn snake_case_is_the_same_field_for_istio_and_an_unknown_one_for_kubernetes() {
    let loaded = read(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, traffic_policy: {connection_pool: {tcp: {max_connections: 7}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80, target_port: 81}]}\n",
    );
    let pool = loaded.destination_rules[0]
        .policy
        .connection_pool
        .as_ref()
        .expect("a pool");
    assert_eq!(pool.max_connections, Some(7));
    let codes: Vec<_> = loaded.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, [codes::UNKNOWN_FIELD], "{}", shown_all(&loaded));
}

#[test]
fn older_objects_come_first_and_then_names() {
    let object = |name: &str, time: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}{time}}}\n---\n"
        )
    };
    let text =
        object("b", "") + &object("a", "") + &object("z", ", creationTimestamp: \"2024-01-01T00:00:00Z\"");
    let loaded = read(&text);
    let names: Vec<_> = loaded.peer_authentications.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["z", "a", "b"]);
}
