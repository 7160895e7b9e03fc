//! Rows against what they must come to, and random policies against a plain reading of what Istio says of them ([`model`]).

mod model;
mod recorded;

use std::sync::OnceLock;

use proptest::{collection::vec, option, prelude::*, sample::select};
use rajut_config::{
    LoadOptions, Source, load,
    policy_test::{self, PolicyTest},
};

use super::{row::Rows, *};

const LAB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: lab}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: lab}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp-pipe, port: 7001}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: lab}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: lab}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: a, image: a}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: lab}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {serviceAccountName: db, containers: [{name: a, image: a}]}
";

/// Policies of the namespace `lab` for `web`, each with its specification, and a request authentication.
fn files(objects: &str) -> Loaded {
    let text = format!("{LAB}{objects}");
    let loaded = load(&[Source::new("lab.yaml", text)], &LoadOptions::default());
    let errors: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|found| found.severity == rajut_types::Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    loaded
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: lab}}\n\
         spec:\n  selector: {{matchLabels: {{app: web}}}}\n{spec}\n"
    )
}

fn peers(spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: peers, namespace: lab}}\n\
         spec: {spec}\n"
    )
}

fn tokens(rules: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens, namespace: lab}}\n\
         spec: {{jwtRules: {rules}}}\n"
    )
}

fn rows(text: &str) -> Vec<PolicyTest> {
    let (tests, findings) = policy_test::read(&[Source::new("t.yaml", format!("tests:\n{text}"))]);
    assert!(findings.is_empty(), "{findings:#?}");
    tests
}

/// Each row's verdict is what it expects, decided by whom it expects.
fn check(objects: &str, tests: &str) {
    let loaded = files(objects);
    let snapshot = snapshot(&loaded);
    let (rows_of, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
    for test in rows(tests) {
        let found = rows_of.judge(&mut judge, &test).expect("it is clear");
        assert_eq!(found.allowed, test.expect, "{}: {}", test.name, found.because);
        if let Some(by) = &test.by {
            assert!(found.because.is_called(by), "{}: {}", test.name, found.because);
        }
    }
}

#[test]
fn transport_comes_before_policies() {
    let any = policy("any", "  rules: [{}]");
    let strict = peers("{mtls: {mode: STRICT}}") + &any;
    check(
        &strict,
        "- {name: plain, destination: {workload: web, port: 8080}, expect: deny, by: lab/peers}\n\
         - {name: mtls, source: {serviceAccount: a}, destination: {workload: web, port: 8080}, expect: allow, by: any}\n",
    );
    let named = policy(
        "named",
        "  rules: [{from: [{source: {serviceAccounts: [lab/a]}}]}]",
    );
    check(
        &named,
        "- {name: permissive plain, destination: {workload: web, port: 8080}, expect: deny}\n\
         - {name: permissive, source: {serviceAccount: a}, destination: {workload: web, port: 8080}, expect: allow}\n",
    );
    // A port in plain text knows nobody.
    check(
        &(peers("{mtls: {mode: DISABLE}}") + &named),
        "- {name: disable, source: {serviceAccount: a}, destination: {workload: web, port: 8080}, expect: deny}\n",
    );
}

#[test]
fn connections_are_judged_by_what_they_know() {
    let reads = policy(
        "reads",
        "  rules: [{to: [{operation: {methods: [GET], ports: ['8080']}}]}, {from: [{source: {serviceAccounts: [lab/a]}}]}]",
    );
    check(
        &reads,
        "- {name: bytes, source: {serviceAccount: b}, destination: {workload: web, port: 7001}, request: {protocol: tcp}, expect: deny}\n\
         - {name: of a, source: {serviceAccount: a}, destination: {workload: web, port: 7001}, request: {protocol: tcp}, expect: allow}\n\
         - {name: a request is bytes there, source: {serviceAccount: b}, destination: {workload: web, port: 7001}, expect: deny}\n\
         - {name: a request, source: {serviceAccount: b}, destination: {workload: web, port: 8080}, expect: allow}\n\
         - {name: bytes for HTTP, source: {serviceAccount: a}, destination: {workload: web, port: 8080}, request: {protocol: tcp}, expect: deny}\n\
         - {name: the only port, destination: {workload: db}, request: {protocol: tcp}, expect: allow}\n\
         - {name: a workload that is not there, source: {serviceAccount: b}, destination: {labels: {app: web}, port: 9}, request: {method: PUT}, expect: deny}\n",
    );
}

#[test]
fn tokens_count_where_their_issuer_is_known() {
    let admins = policy(
        "admins",
        "  rules: [{from: [{source: {requestPrincipals: [me/ann]}}], when: [{key: 'request.auth.claims[scope]', values: [write]}]}]",
    );
    let row = |name: &str, jwt: &str, expect: &str| {
        format!(
            "- {{name: '{name}', destination: {{workload: web, port: 8080}}, request: {{jwt: {jwt}}}, expect: {expect}}}\n"
        )
    };
    let ann = "{issuer: me, subject: ann, audience: web, claims: {scope: 'read write'}}";
    check(
        &(tokens("[{issuer: me, jwksUri: 'https://login.example/keys', audiences: [web]}]") + &admins),
        &(row("ann", ann, "allow, by: admins")
            + &row("bob", &ann.replace("ann", "bob"), "deny")
            + &row("no scope", &ann.replace(" write", ""), "deny")
            + &row("elsewhere", &ann.replace("me,", "you,"), "deny, by: tokens")
            + &row(
                "another audience",
                &ann.replace("audience: web", "audience: db"),
                "deny, by: tokens",
            )
            + &row("forged", "{valid: false}", "deny, by: tokens")
            + "- {name: none, destination: {workload: web, port: 8080}, expect: deny}\n"),
    );
    // Nobody verifies it, so nobody believes it.
    check(&admins, &row("unverified", ann, "deny"));
    check("", &row("unverified", "{valid: false}", "allow"));
}

#[test]
fn the_client_is_whom_trusted_proxies_tell() {
    let near = policy(
        "near",
        "  rules: [{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}]",
    );
    let row = |source: &str, request: &str, expect: &str| {
        format!(
            "- {{source: {{{source}}}, destination: {{workload: web, port: 8080}}, request: {{{request}}}, expect: {expect}}}\n"
        )
    };
    check(
        &near,
        &(row("ip: 192.0.2.7", "", "allow")
            + &row("ip: 10.0.0.1", "", "deny")
            + &row("", "", "deny")
            + &row("ip: 10.0.0.1, remoteIp: 192.0.2.9", "", "allow")
            + &row(
                "ip: 10.0.0.1",
                "headers: {x-forwarded-for: '10.0.0.9, 192.0.2.9'}",
                "allow",
            )),
    );
}

#[test]
fn a_row_that_means_nothing_is_refused_with_what_was_meant() {
    let loaded = files("");
    let snapshot = snapshot(&loaded);
    let (rows_of, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
    for (row, message, hint) in [
        (
            "- {destination: {workload: wep}, expect: allow}",
            "no workload `wep`",
            "`web`",
        ),
        (
            "- {source: {workload: x.y}, destination: {workload: db}, expect: allow}",
            "no workload `x.y`",
            "NAME",
        ),
        (
            "- {destination: {workload: web}, expect: allow}",
            "several ports: 7001, 8080",
            "port",
        ),
        (
            "- {destination: {labels: {app: x}}, expect: allow}",
            "port is not known",
            "port",
        ),
    ] {
        let test = &rows(row)[0];
        let unclear = rows_of.judge(&mut judge, test).expect_err("it means nothing");
        assert!(unclear.message.contains(message), "{unclear:?}");
        assert!(unclear.hint.contains(hint), "{unclear:?}");
    }
}

#[test]
fn an_annotated_namespace_refuses_whoever_no_policy_lets_through() {
    let annotated = LAB.replace(
        "metadata: {name: lab}",
        "metadata: {name: lab, annotations: {mesh.rajut.dev/default-deny: \"true\"}}",
    );
    let allow = policy("a", "  rules: [{from: [{source: {serviceAccounts: [lab/a]}}]}]");
    let text = annotated + &allow;
    let loaded = load(&[Source::new("lab.yaml", text)], &LoadOptions::default());
    let snapshot = snapshot(&loaded);
    let (rows_of, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
    for test in rows(
        "- {source: {serviceAccount: a}, destination: {workload: web, port: 8080}, expect: allow, by: a}\n\
         - {source: {serviceAccount: a}, destination: {workload: db}, request: {protocol: tcp}, expect: deny}\n\
         - {source: {serviceAccount: b}, destination: {workload: web, port: 8080}, expect: deny}\n\
         - {destination: {namespace: other, port: 1}, expect: allow}\n",
    ) {
        let found = rows_of.judge(&mut judge, &test).expect("it is clear");
        assert_eq!(found.allowed, test.expect, "{}: {}", test.name, found.because);
    }
}

#[test]
fn a_matrix_asks_for_every_path_that_is_named_and_one_that_is_not() {
    use crate::{judge::matrix, reach::Outcome};
    let readers = |methods: &str| {
        policy(
            "readers",
            &format!(
                "  rules: [{{from: [{{source: {{principals: [cluster.local/ns/lab/sa/nurse]}}}}], to: [{{operation: {{{methods}paths: ['/records/*']}}}}]}}]"
            ),
        )
    };
    let ask = |objects: &str, probes: &mut matrix::Probes, again: bool| {
        let snapshot = snapshot(&files(objects));
        let mut judge = Judge::new(&snapshot);
        probes.add(&mut judge);
        if again {
            matrix::matrix(&mut judge, probes)
        } else {
            matrix::Matrix::default()
        }
    };
    let (old, new) = (readers("methods: [GET], "), readers(""));
    let mut probes = matrix::Probes::default();
    ask(&old, &mut probes, false);
    ask(&new, &mut probes, false);
    let before = ask(&old, &mut probes, true);
    let after = ask(&new, &mut probes, true);
    let outcome = |of: &matrix::Matrix, caller: Option<&str>, method: Option<&str>, path: &str| {
        let found = of.cells.iter().find(|(question, _)| {
            &*question.workload == "web"
                && question.port == Some(8080)
                && question.caller.as_deref() == caller
                && question.route.method.as_deref() == method
                && question.route.path.as_deref() == Some(path)
        });
        found.map(|(_, answer)| answer.outcome)
    };
    let nurse = Some("spiffe://cluster.local/ns/lab/sa/nurse");
    assert_eq!(
        outcome(&before, nurse, Some("GET"), "/records/*"),
        Some(Outcome::Allowed)
    );
    assert_eq!(
        outcome(&before, nurse, None, "/records/*"),
        Some(Outcome::Sometimes)
    );
    assert_eq!(outcome(&before, nurse, None, "(other)"), Some(Outcome::Refused));
    assert_eq!(
        outcome(&before, None, Some("GET"), "/records/*"),
        Some(Outcome::Refused)
    );
    assert_eq!(outcome(&after, nurse, None, "/records/*"), Some(Outcome::Allowed));
    let changed = matrix::difference(&before, &after);
    assert!(!changed.is_empty());
    for (question, (old, new)) in &changed {
        assert_eq!(question.caller.as_deref(), nurse, "{question:?}");
        assert_eq!(
            new.as_ref().map(|it| it.outcome),
            Some(Outcome::Allowed),
            "{old:?}"
        );
    }
    assert!(matrix::difference(&after, &after).is_empty());
}

const SOURCES: [&str; 15] = [
    "principals: [cluster.local/ns/lab/sa/nurse]",
    "principals: ['cluster.local/ns/ward/*', '*/sa/nurse']",
    "principals: ['*']",
    "notPrincipals: ['*/sa/clerk']",
    "notPrincipals: ['*']",
    "namespaces: [ward]",
    "namespaces: ['*ab']",
    "notNamespaces: [lab]",
    "serviceAccounts: [lab/nurse, ward/visitor]",
    "ipBlocks: [10.0.0.0/8]",
    "notIpBlocks: [10.1.0.0/16, 192.0.2.1]",
    "remoteIpBlocks: [192.0.2.0/24]",
    "requestPrincipals: [me/ann]",
    "requestPrincipals: ['*']",
    "notRequestPrincipals: ['*/ann']",
];
const OPERATIONS: [&str; 14] = [
    "methods: [GET]",
    "methods: ['P*']",
    "notMethods: [POST]",
    "paths: [/a, /b]",
    "paths: ['/a/*']",
    "paths: ['*.json']",
    "paths: ['/a/{*}/c', '/b/{**}']",
    "paths: ['*']",
    "notPaths: ['/a*']",
    "hosts: ['WEB']",
    "hosts: ['web.*']",
    "notHosts: ['*.lab']",
    "ports: ['8080']",
    "notPorts: ['8080', '9']",
];
const CONDITIONS: [&str; 12] = [
    "{key: 'request.headers[x-a]', values: [v]}",
    "{key: 'request.headers[X-A]', values: ['v*'], notValues: [vw]}",
    "{key: 'request.headers[x-a]', notValues: [v]}",
    "{key: 'request.headers[x-a]', values: ['*']}",
    "{key: source.namespace, values: [lab]}",
    "{key: source.principal, notValues: ['*/sa/nurse']}",
    "{key: source.ip, notValues: [10.0.0.0/8]}",
    "{key: remote.ip, values: [192.0.2.0/24]}",
    "{key: destination.port, values: ['8080']}",
    "{key: connection.sni, values: ['web.*']}",
    "{key: 'request.auth.claims[role]', values: [admin]}",
    "{key: 'request.auth.claims[role]', notValues: [admin]}",
];
/// As they come, and as they are judged.
const PATHS: [(&str, &str); 14] = [
    ("/", "/"),
    ("/a", "/a"),
    ("/a?x=/b", "/a"),
    ("/x/../a", "/a"),
    ("/%61", "/a"),
    ("/a/", "/a/"),
    ("/a/b/c", "/a/b/c"),
    ("/a//c", "/a//c"),
    ("/a/./b/c?d", "/a/b/c"),
    ("/b/", "/b/"),
    ("/b/x/y.json", "/b/x/y.json"),
    ("/A", "/A"),
    ("/a%2fb", "/a%2fb"),
    ("/c;x=.json", "/c;x=.json"),
];

/// Entries of which no two are for one field, as the inside of a mapping.
fn fields(pool: &'static [&'static str]) -> impl Strategy<Value = String> {
    vec(select(pool), 1..4).prop_map(|chosen| {
        let mut kept: Vec<&str> = Vec::new();
        for entry in chosen {
            let key = |text: &str| text.split(':').next().map(ToOwned::to_owned);
            if kept.iter().all(|other| key(other) != key(entry)) {
                kept.push(entry);
            }
        }
        // It can't stand beside other forms of an identity.
        if kept.iter().any(|it| it.starts_with("serviceAccounts")) {
            let forms = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
            kept.retain(|it| !forms.iter().any(|form| it.starts_with(form)));
        }
        kept.join(", ")
    })
}

fn any_rule() -> impl Strategy<Value = String> {
    let sources = vec(fields(&SOURCES), 0..3);
    let operations = vec(fields(&OPERATIONS), 0..3);
    (sources, operations, vec(select(&CONDITIONS[..]), 0..3)).prop_map(|(sources, operations, conditions)| {
        let mut parts = Vec::new();
        let list = |name: &str, inner: &str, all: &[String]| {
            let all: Vec<String> = all.iter().map(|it| format!("{{{inner}: {{{it}}}}}")).collect();
            format!("{name}: [{}]", all.join(", "))
        };
        if !sources.is_empty() {
            parts.push(list("from", "source", &sources));
        }
        if !operations.is_empty() {
            parts.push(list("to", "operation", &operations));
        }
        if !conditions.is_empty() {
            parts.push(format!("when: [{}]", conditions.join(", ")));
        }
        format!("  - {{{}}}\n", parts.join(", "))
    })
}

fn any_policies() -> impl Strategy<Value = String> {
    let one = (
        select(&["ALLOW", "ALLOW", "DENY", "AUDIT"][..]),
        vec(any_rule(), 0..3),
    );
    vec(one, 0..4).prop_map(|policies| {
        let numbered = policies.into_iter().enumerate();
        numbered
            .map(|(at, (action, rules))| {
                let rules = match &rules[..] {
                    [] => String::new(),
                    all => format!("  rules:\n{}", all.concat()),
                };
                policy(&format!("p{at}"), &format!("  action: {action}\n{rules}"))
            })
            .collect()
    })
}

/// Caller, address, header, path, method, host, server name and role.
type Drawn = (
    Option<(&'static str, &'static str)>,
    &'static str,
    Option<&'static str>,
    (&'static str, &'static str),
    &'static str,
    &'static str,
    (&'static str, Option<(&'static str, &'static str)>),
);

fn any_call() -> impl Strategy<Value = Drawn> {
    (
        option::weighted(
            0.8,
            select(
                &[
                    ("lab", "nurse"),
                    ("lab", "clerk"),
                    ("ward", "visitor"),
                    ("ward", "nurse"),
                ][..],
            ),
        ),
        select(&["10.0.0.1", "10.1.2.3", "192.0.2.1", "2001:db8::1"][..]),
        option::of(select(&["v", "vw", "", "w"][..])),
        select(&PATHS[..]),
        select(&["GET", "POST", "PUT", "DELETE"][..]),
        select(&["web", "Web.lab", "web:8080"][..]),
        (
            select(&["", "web.lab"][..]),
            option::of(select(&[("ann", "admin"), ("bob", "guest")][..])),
        ),
    )
}

/// The row for it, and the facts.
fn row_of(drawn: &Drawn) -> (PolicyTest, model::Facts) {
    static ROW: OnceLock<PolicyTest> = OnceLock::new();
    let (caller, ip, header, (path, judged), method, host, (sni, token)) = *drawn;
    let row = ROW.get_or_init(|| {
        rows("- {destination: {workload: web, port: 8080}, expect: allow}")
            .into_iter()
            .next()
            .expect("there is one")
    });
    let mut row = row.clone();
    let ip: IpAddr = ip.parse().expect("an address");
    row.source.ip = Some(ip);
    if let Some((namespace, name)) = caller {
        row.source.identity = policy_test::TestIdentity::ServiceAccount {
            namespace: Some(namespace.into()),
            name: name.into(),
        };
    }
    row.request.method = Some(method.into());
    row.request.path = Some(path.into());
    row.request.host = Some(host.into());
    row.request.sni = sni.into();
    row.request.headers = header
        .iter()
        .map(|value| ("x-a".into(), (*value).into()))
        .collect();
    row.request.token = token.map(|(subject, role)| {
        policy_test::TestToken::Claims(serde_json::json!({"iss": "me", "sub": subject, "role": [role, "x"]}))
    });
    let facts = model::Facts {
        caller,
        ip,
        header,
        path: judged,
        method,
        host,
        // Plain text has none.
        sni: if caller.is_some() { sni } else { "" },
        token,
        port: 8080,
    };
    (row, facts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn random_policies_are_judged_as_a_plain_reading_has_it(
        policies in any_policies(),
        calls in vec(any_call(), 40),
    ) {
        let loaded = files(&(tokens("[{issuer: me, jwksUri: 'https://login.example/keys'}]") + &policies));
        let snapshot = snapshot(&loaded);
        let (rows, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
        for drawn in calls {
            let (row, facts) = row_of(&drawn);
            let found = rows.judge(&mut judge, &row).expect("it is clear");
            let wanted = model::allowed(&loaded.authorization_policies, &facts);
            prop_assert_eq!(found.allowed, wanted, "{:?}: {}\n{}", facts, found.because, policies);
        }
    }
}
