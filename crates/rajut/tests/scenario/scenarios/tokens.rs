//! `RequestAuthentication`, and what authorization policies ask of tokens: tables of requests, each under objects of its own. Keys and
//! tokens are made here.

mod fetched;
mod issuer;
mod routed;
mod tables;

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    lab::{self, Workload, python},
    mesh::{self, Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "tokens_are_verified_where_they_stand_and_told_to_the_application",
        planes: BOTH,
        run: verified,
    },
    Scenario {
        name: "policies_ask_for_what_verified_tokens_say",
        planes: BOTH,
        run: |plane| check(plane, &tables::asked_for()),
    },
    Scenario {
        name: "keys_of_tokens_are_fetched_renewed_and_kept_while_their_issuer_is_away",
        planes: BOTH,
        run: fetched::run,
    },
    Scenario {
        name: "routes_at_a_gateway_ask_for_claims_of_verified_tokens",
        planes: BOTH,
        run: routed::run,
    },
];

/// Makes each of the calls `[method, path, headers]` of `web`, one after the other, each on a connection of its own; prints of each
/// the status, the body and the challenge.
const CALLS: &str = r#"
import http.client, json, sys
out = []
for method, path, headers in json.loads(sys.stdin.read() if len(sys.argv) < 2 else sys.argv[1]):
    c = http.client.HTTPConnection("web", 8080, timeout=20)
    c.putrequest(method, path)
    for name, value in headers:
        c.putheader(name, value)
    c.endheaders()
    answer = c.getresponse()
    out.append([answer.status, answer.read().decode(), answer.getheader("www-authenticate")])
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

/// What a log would show of a token.
const LOGS: &str = "
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    accessLogFormat: 'line %REQ(:PATH)% cookie=%REQ(COOKIE)% raw=%REQ(X-RAW)% %RESPONSE_CODE_DETAILS%'
";

fn laboratory(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "tokens", || {
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
            lab::STRICT
        );
        for name in ["web", "nurse"] {
            text += &lab::yaml(&Workload {
                name,
                port: 8080,
                port_name: "http",
                replicas: 1,
                run: lab::server("http", 8080),
                more: "",
            });
        }
        text += ONE_BY_ONE;
        text += LOGS;
        Setup::yaml(&text).arguments(&["-n", "lab"])
    })
}

/// A request.
#[derive(Clone)]
struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
}

impl Ask {
    fn at(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn bearer(token: &str) -> Self {
        Self::at("/").with("authorization", &format!("Bearer {token}"))
    }
}

/// What is to come of it.
#[derive(Clone, PartialEq)]
enum Wanted {
    /// The application gets it, with these lines of its head (the request's first line among them), and without these names.
    Passes(Vec<String>, Vec<&'static str>),
    /// It is answered with this status and body; empty: any, where data planes differ in their words.
    Refused(u16, &'static str),
}

fn passes() -> Wanted {
    Wanted::Passes(Vec::new(), Vec::new())
}

fn seen(lines: &[&str], absent: &[&'static str]) -> Wanted {
    Wanted::Passes(
        lines.iter().map(|line| (*line).to_owned()).collect(),
        absent.to_vec(),
    )
}

/// 401, in these words.
fn refused(body: &'static str) -> Wanted {
    Wanted::Refused(401, body)
}

fn denied() -> Wanted {
    Wanted::Refused(403, "RBAC: access denied")
}

impl Wanted {
    /// What is wrong with an answer.
    fn differs(&self, answer: &Value) -> Option<String> {
        let body = answer[1].as_str().unwrap_or_default();
        match self {
            Self::Passes(lines, absent) => {
                if answer[0] != 200 {
                    return Some(format!("{answer}"));
                }
                let missing = lines.iter().find(|line| !body.lines().any(|it| it == **line));
                let there = absent
                    .iter()
                    .find(|name| body.lines().any(|it| it.starts_with(&format!("{name}:"))));
                match (missing, there) {
                    (None, None) => None,
                    (missing, there) => Some(format!("without {missing:?}, with {there:?}:\n{body}")),
                }
            }
            Self::Refused(status, wanted) => {
                let of_token = *wanted != "RBAC: access denied";
                let challenge = answer[2].as_str().unwrap_or_default();
                let challenged = challenge.starts_with("Bearer realm=\"http://web:8080/")
                    && challenge.ends_with("\", error=\"invalid_token\"");
                let is_other = !wanted.is_empty() && body != *wanted;
                (answer[0] != *status || is_other || challenged != of_token).then(|| format!("{answer}"))
            }
        }
    }
}

/// Objects, then requests and what is to come of them.
struct Table {
    what: &'static str,
    objects: String,
    rows: Vec<(&'static str, Ask, Wanted)>,
}

/// What the calls of `nurse` came to.
fn calls(mesh: &Mesh, asked: &[&Ask]) -> Result<Vec<Value>> {
    let asked: Vec<Value> = asked
        .iter()
        .map(|ask| json!([ask.method, ask.path, ask.headers]))
        .collect();
    let said = mesh.exec(
        "nurse-0.lab",
        &[&python(), "-c", CALLS, &json!(asked).to_string()],
    )?;
    Ok(serde_json::from_str(&said)?)
}

impl Table {
    fn check(&self, mesh: &Mesh) -> Result {
        mesh.apply(&self.objects)?;
        let mut wrong = Vec::new();
        // Envoy takes some seconds to end old connections.
        let _ = eventually("the table holds", Duration::from_secs(15), || {
            wrong = self.wrong(mesh).ok()?;
            wrong.is_empty().then_some(())
        });
        mesh.delete(&self.objects)?;
        println!("    {}: {} calls", self.what, self.rows.len());
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{}:\n{}", self.what, wrong.join("\n")).into())
        }
    }

    fn wrong(&self, mesh: &Mesh) -> Result<Vec<String>> {
        let asked: Vec<&Ask> = self.rows.iter().map(|(_, ask, _)| ask).collect();
        let found = calls(mesh, &asked)?;
        let rows = self.rows.iter().zip(found);
        Ok(rows
            .filter_map(|((what, _, wanted), found)| Some(format!("  {what}: {}", wanted.differs(&found)?)))
            .collect())
    }
}

fn check(plane: Plane, tables: &[Table]) -> Result<Outcome> {
    let mesh = laboratory(plane)?;
    let mut wrong = Vec::new();
    for table in tables {
        if let Err(error) = table.check(&mesh) {
            wrong.push(error.to_string());
        }
    }
    if wrong.is_empty() {
        Ok(Outcome::Passed)
    } else {
        Err(wrong.join("\n").into())
    }
}

fn verified(plane: Plane) -> Result<Outcome> {
    let outcome = check(plane, &tables::verified())?;
    if plane == Plane::Envoy {
        // It writes the path as it came.
        return Ok(outcome);
    }
    let mesh = laboratory(plane)?;
    let read = || mesh.rajut(&["logs", "web-0", "--sidecar", "-n", "10000"]).ok();
    let log = eventually("the log is written", Duration::from_secs(20), || {
        read().filter(|log| log.contains("jwt_authn_access_denied{Jwt_issuer_is_not_configured}"))
    })?;
    let lines = log.lines().filter(|line| line.starts_with("line /"));
    let mut told =
        lines.filter(|line| line.contains("token=") || line.contains("session=") || line.contains("raw=ey"));
    match told.next() {
        None => Ok(outcome),
        Some(line) => Err(format!("the log shows a token: {line}").into()),
    }
}
