//! `RateLimitPolicy`: how many requests pass, of whom, and what the others are told.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    client::get as get_text,
    lab::{self, Workload, python},
    mesh::{self, Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "rate_limits_count_what_they_are_about_and_tell_callers_apart",
        planes: BOTH,
        run: limited,
    },
    Scenario {
        name: "a_rate_limit_in_shadow_refuses_nothing_and_counts",
        planes: BOTH,
        run: shadowed,
    },
];

/// Makes each of the calls `[method, path, headers]` on `web`, one after the other, each on a connection of its own; prints of
/// each the status and what it is told of limits.
const CALLS: &str = r#"
import http.client, json, sys
out = []
for method, path, headers in json.loads(sys.argv[1]):
    c = http.client.HTTPConnection("web", 8080, timeout=20)
    c.request(method, path, headers=headers)
    answer = c.getresponse()
    answer.read()
    told = {name.lower(): value for name, value in answer.getheaders()}
    out.append([answer.status] + [told.get(name) for name in ("x-ratelimit-limit", "x-ratelimit-remaining", "retry-after")])
    c.close()
print(json.dumps(out))
"#;

fn laboratory(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "rate limits", || {
        let workload = |name, port| {
            lab::yaml(&Workload {
                name,
                port,
                port_name: "http",
                replicas: 1,
                run: lab::server("http", port),
                more: "",
            })
        };
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
            lab::STRICT
        );
        for name in ["web", "nurse", "clerk"] {
            text += &workload(name, 8080);
        }
        text += ONE_BY_ONE;
        Setup::yaml(&text).arguments(&["-n", "lab"])
    })
}

/// Envoy judges a request by what was in force when its connection came: here every request has its own.
const ONE_BY_ONE: &str = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: lab}
spec: {host: web, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: mesh.rajut.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: {name}, namespace: lab}}\n\
         spec:\n  selector: {{matchLabels: {{app: web}}}}\n{spec}\n"
    )
}

/// What a caller's calls came to: status, limit, what is left, when to come again.
fn calls(mesh: &Mesh, caller: &str, calls: &[Value]) -> Result<Vec<Value>> {
    let caller = format!("{caller}-0.lab");
    let said = mesh.exec(&caller, &[&python(), "-c", CALLS, &json!(calls).to_string()])?;
    Ok(serde_json::from_str(&said)?)
}

fn statuses(found: &[Value]) -> Vec<u64> {
    found.iter().filter_map(|one| one[0].as_u64()).collect()
}

fn get(path: &str) -> Value {
    json!(["GET", path, {}])
}

/// A limit, calls, and which of them pass.
struct Case {
    what: &'static str,
    limit: &'static str,
    rows: Vec<(&'static str, Value, bool)>,
}

fn limited(plane: Plane) -> Result<Outcome> {
    let mesh = laboratory(plane)?;
    let with = |name: &str, value: &str| json!(["GET", "/", {name: value}]);
    let post = |path: &str| json!(["POST", path, {}]);
    // Windows of an hour: nothing comes back while the calls are made.
    let cases = [
        Case {
            what: "all requests together",
            limit: "requests: 3, per: 1h",
            rows: vec![
                ("nurse", get("/a"), true),
                ("clerk", post("/b"), true),
                ("nurse", get("/c"), true),
                ("nurse", get("/a"), false),
                ("clerk", get("/d"), false),
            ],
        },
        Case {
            what: "fewer at once than in a window",
            limit: "requests: 100, per: 1h, burst: 2",
            rows: vec![
                ("nurse", get("/"), true),
                ("nurse", get("/"), true),
                ("nurse", get("/"), false),
            ],
        },
        Case {
            what: "by identity",
            limit: "requests: 2, per: 1h, by: [{caller: IDENTITY}]",
            rows: vec![
                ("nurse", get("/"), true),
                ("nurse", get("/"), true),
                ("nurse", get("/"), false),
                ("clerk", get("/"), true),
                ("clerk", get("/"), true),
                ("clerk", get("/"), false),
            ],
        },
        Case {
            what: "by header, and without it",
            limit: "requests: 1, per: 1h, by: [{header: X-Tenant}]",
            rows: vec![
                ("nurse", with("x-tenant", "a"), true),
                ("nurse", with("x-tenant", "a"), false),
                ("nurse", with("X-Tenant", "b"), true),
                ("nurse", get("/"), true),
                ("nurse", get("/"), false),
                ("clerk", with("x-tenant", "b"), false),
            ],
        },
        Case {
            what: "by identity and header",
            limit: "requests: 1, per: 1h, by: [{caller: IDENTITY}, {header: x-tenant}]",
            rows: vec![
                ("nurse", with("x-tenant", "a"), true),
                ("clerk", with("x-tenant", "a"), true),
                ("nurse", with("x-tenant", "b"), true),
                ("nurse", with("x-tenant", "a"), false),
                ("clerk", get("/"), true),
                ("clerk", get("/"), false),
            ],
        },
        Case {
            what: "methods and paths, query aside",
            limit: "requests: 1, per: 1h, match: {methods: [GET, HEAD], paths: ['/search*', '/cases/{*}/notes']}",
            rows: vec![
                ("nurse", get("/search?q=/x"), true),
                ("nurse", get("/cases/7/notes?page=2"), false),
                ("nurse", get("/searching"), false),
                ("nurse", get("/cases/7/8/notes"), true),
                ("nurse", get("/other?path=/search"), true),
                ("nurse", post("/search"), true),
            ],
        },
        Case {
            what: "headers",
            limit: "requests: 1, per: 1h, match: {headers: {x-batch: '*', x-size: 'big*'}}",
            rows: vec![
                (
                    "nurse",
                    json!(["GET", "/", {"x-batch": "1", "x-size": "bigger"}]),
                    true,
                ),
                (
                    "nurse",
                    json!(["GET", "/", {"x-batch": "2", "x-size": "big"}]),
                    false,
                ),
                ("nurse", with("x-batch", "1"), true),
                (
                    "nurse",
                    json!(["GET", "/", {"x-batch": "1", "x-size": "small"}]),
                    true,
                ),
            ],
        },
        Case {
            what: "of two limits the tighter one",
            limit: "requests: 9, per: 1h}, {name: other, requests: 1, per: 1h",
            rows: vec![("nurse", get("/"), true), ("nurse", get("/"), false)],
        },
    ];
    let count = cases.len();
    for case in cases {
        check(&mesh, &case)?;
    }
    told(&mesh)?;
    println!("    {count} limits");
    Ok(Outcome::Passed)
}

fn check(mesh: &Mesh, case: &Case) -> Result {
    let text = policy("records", &format!("  limits: [{{name: one, {}}}]", case.limit));
    mesh.apply(&text)?;
    let mut wrong = Vec::new();
    for (caller, call, passes) in &case.rows {
        let found = calls(mesh, caller, std::slice::from_ref(call))?;
        let wanted = if *passes { 200 } else { 429 };
        if statuses(&found) != [wanted] {
            wrong.push(format!("{caller} {call}: {found:?} instead of {wanted}"));
        }
    }
    mesh.delete(&text)?;
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{}:\n{}\nunder\n{text}", case.what, wrong.join("\n")).into())
    }
}

/// What callers are told.
fn told(mesh: &Mesh) -> Result {
    let text = policy("told", "  limits: [{name: one, requests: 2, per: 10s}]");
    mesh.apply(&text)?;
    let found = calls(mesh, "nurse", &[get("/"), get("/"), get("/")]);
    mesh.delete(&text)?;
    let found = found?;
    let again = found[2][3].as_str().and_then(|text| text.parse::<u64>().ok());
    let right = statuses(&found) == [200, 200, 429]
        && found.iter().all(|one| one[1] == "2")
        && [&found[0][2], &found[1][2], &found[2][2]] == ["1", "0", "0"]
        && found[0][3].is_null()
        && again.is_some_and(|seconds| (1..=5).contains(&seconds));
    if right {
        Ok(())
    } else {
        Err(format!("callers are told {found:?}").into())
    }
}

fn shadowed(plane: Plane) -> Result<Outcome> {
    let mesh = laboratory(plane)?;
    let text = policy(
        "rehearsed",
        "  mode: SHADOW\n  limits: [{name: one, requests: 1, per: 1h}]",
    );
    mesh.apply(&text)?;
    let row = mesh.workload("web-0")?;
    let admin = row["adminAddress"]
        .as_str()
        .ok_or(format!("no admin address: {row:#}"))?;
    let over = |kind: &str| -> Option<u64> {
        let text = get_text(admin, admin, "/stats/prometheus").ok()?.text();
        // Envoy has its name in the metric's, ours in a label.
        let line = text.lines().find(|line| {
            line.contains(&format!("http_local_rate_limit_{kind}{{"))
                && ["lab/rehearsed/one", "lab_rehearsed_one"]
                    .iter()
                    .any(|name| line.contains(name))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let found = calls(&mesh, "nurse", &[get("/"), get("/"), get("/")]);
    let counted = eventually(
        "what is over the limit is counted",
        Duration::from_secs(20),
        || over("rate_limited").filter(|count| *count == 2),
    );
    let (enforced, stats) = (
        over("enforced"),
        get_text(admin, admin, "/stats/prometheus")?.text(),
    );
    mesh.delete(&text)?;
    let found = found?;
    if statuses(&found) != [200, 200, 200] || found.iter().any(|one| !one[1].is_null()) || enforced != Some(0)
    {
        let stats: Vec<_> = stats.lines().filter(|line| line.contains("rate_limit")).collect();
        return Err(format!(
            "a shadow changes nothing: {found:?}, {enforced:?} refused\n{}",
            stats.join("\n")
        )
        .into());
    }
    counted?;
    Ok(Outcome::Passed)
}
