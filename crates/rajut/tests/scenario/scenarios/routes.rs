//! Fields of a `VirtualService`'s HTTP routes: tables of a field, requests and what must come of them. Every row is run
//! once more without its field, and must then fail: a field whose removal changes nothing is not supported.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    lab::{self, Workload, app, python},
    mesh::{self, Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "mirrors_get_their_share_with_bodies_and_their_failures_stay_theirs",
        planes: BOTH,
        run: mirrors,
    },
    Scenario {
        name: "faults_delay_and_refuse_the_share_that_they_name",
        planes: BOTH,
        run: faults,
    },
    Scenario {
        name: "faults_reach_grpc_callers_as_grpc_statuses",
        planes: BOTH,
        run: grpc_faults,
    },
    Scenario {
        name: "cross_origin_rules_answer_preflights_and_mark_answers",
        planes: BOTH,
        run: origins,
    },
];

/// Makes the calls of each row over one connection; what is recorded is waited for, up to a deadline.
const CALLS: &str = r#"
import http.client, json, sys, time
def once(connection, host, row, key=None):
    headers = dict(row.get("headers", {}))
    headers["x-case"] = row["case"]
    if key:
        headers["x-record"] = key
    started = time.monotonic()
    connection.request(row.get("method", "GET"), row.get("path", "/"), row.get("body"), headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    return {
        "status": answer.status,
        "body": body,
        "headers": {name.lower(): value for name, value in answer.getheaders()},
        "seconds": time.monotonic() - started,
    }
def recorded(host, key):
    connection = http.client.HTTPConnection(host, 8080, timeout=20)
    connection.request("GET", "/recorded/" + key)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return sorted(found)
out = []
for row in json.loads(sys.argv[1]):
    connection = http.client.HTTPConnection("web", 8080, timeout=20)
    key = f"{row['case']}-{time.time_ns()}" if row.get("await") else None
    answers = [once(connection, "web", row, key) for _ in range(row.get("times", 1))]
    connection.close()
    result = {"answers": answers}
    if key:
        deadline = time.monotonic() + float(sys.argv[2])
        before = None
        while True:
            result["recorded"] = {host: recorded(host, key) for host in ["web", "copy", "second"]}
            there = all(len(result["recorded"][host]) >= count for host, count in row["await"].items())
            if (there and result["recorded"] == before) or time.monotonic() > deadline:
                break
            before = result["recorded"]
            time.sleep(0.2)
    out.append(result)
print(json.dumps(out))
"#;

/// `web` answers 200, `copy` 500, `second` 200; `nobody` has no endpoint; calls come from `client`.
fn shop(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "routes", || {
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
        let recorder = |name, status: u16| {
            let (python, app) = (python(), app("recorder.py"));
            let run = format!("exec {python} {} {status} ${{PORT:-8080}}", app.display());
            workload(name, 8080, "http", run)
        };
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
            lab::STRICT
        );
        text += &recorder("web", 200);
        text += &recorder("copy", 500);
        text += &recorder("second", 200);
        text += &workload("client", 8090, "http", lab::server("http", 8090));
        if lab::python_has("grpc") {
            let (python, app) = (python(), app("grpc_server.py"));
            let run = format!("exec {python} {} ${{PORT:-9000}}", app.display());
            text += &workload("rpc", 9000, "grpc", run);
        }
        text += "---\napiVersion: v1\nkind: Service\nmetadata: {name: nobody, namespace: lab}\n\
                 spec:\n  selector: {app: nobody}\n  ports: [{name: http, port: 8080}]\n";
        Setup::yaml(&text).arguments(&["-n", "lab"])
    })
}

/// What is asked of a row's calls.
type Check = Box<dyn Fn(&Value) -> bool>;

struct Row {
    what: &'static str,
    /// Fields of the route, in flow style.
    fields: &'static str,
    /// The same without the one that the row is about; `None`: nothing can be told apart then.
    without: Option<&'static str>,
    /// The calls: `method`, `path`, `headers`, `body`, `times`, and how many requests to `await` at which recorder.
    call: Value,
    check: Check,
}

/// A row about `fields`, without which the route is a plain one.
fn row(
    what: &'static str,
    fields: &'static str,
    call: Value,
    check: impl Fn(&Value) -> bool + 'static,
) -> Row {
    Row {
        what,
        fields,
        without: Some(""),
        call,
        check: Box::new(check),
    }
}

impl Row {
    /// Only a part of the fields is what it is about.
    fn without(mut self, fields: &'static str) -> Self {
        self.without = Some(fields);
        self
    }

    /// The field does nothing, and must not.
    fn does_nothing(mut self) -> Self {
        self.without = None;
        self
    }
}

/// A route of its own for each row.
fn rules(rows: &[Row], with: bool) -> String {
    let mut text = String::from(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: lab}\n\
         spec:\n  hosts: [web]\n  http:\n",
    );
    for (case, row) in rows.iter().enumerate() {
        let fields = if with {
            row.fields
        } else {
            row.without.unwrap_or_default()
        };
        let action = if ["redirect:", "directResponse:"]
            .iter()
            .any(|name| fields.contains(name))
        {
            ""
        } else {
            "route: [{destination: {host: web}}], "
        };
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "  - {{match: [{{headers: {{x-case: {{exact: \"{case}\"}}}}}}], {action}{fields}}}"
        );
    }
    text + "  - {route: [{destination: {host: web}}]}\n"
}

/// Runs all rows, then all once more without their fields.
fn check(plane: Plane, rows: &[Row]) -> Result<Outcome> {
    let mesh = shop(plane)?;
    let calls: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(case, row)| {
            let mut call = row.call.clone();
            call["case"] = json!(case.to_string());
            call
        })
        .collect();
    let run = |patience: &str| -> Result<Vec<Value>> {
        let script = [&*python(), "-c", CALLS, &json!(calls).to_string(), patience].map(str::to_owned);
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        Ok(serde_json::from_str(&mesh.exec("client-0.lab", &script)?)?)
    };
    mesh.apply(&rules(rows, true))?;
    judged(plane, || {
        let found = run("10")?;
        Ok(rows
            .iter()
            .zip(&found)
            .filter(|(row, found)| !(row.check)(found))
            .map(|(row, found)| format!("{}: {}", row.what, shortened(found)))
            .collect())
    })?;
    mesh.apply(&rules(rows, false))?;
    judged(plane, || {
        let found = run("1")?;
        Ok(rows
            .iter()
            .zip(&found)
            .filter(|(row, found)| row.without.is_some() && (row.check)(found))
            .map(|(row, _)| format!("{}: the same without the field", row.what))
            .collect())
    })?;
    mesh.delete(&rules(rows, false))?;
    println!("    {} rows", rows.len());
    Ok(Outcome::Passed)
}

/// Envoy's threads take a change a moment after it has been acknowledged; ours before.
fn judged(plane: Plane, wrong: impl Fn() -> Result<Vec<String>>) -> Result {
    let mut found = wrong()?;
    if plane == Plane::Envoy && !found.is_empty() {
        let _ = eventually("the change is in force", Duration::from_secs(10), || {
            found = wrong().ok()?;
            found.is_empty().then_some(())
        });
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.join("\n").into())
    }
}

fn shortened(found: &Value) -> String {
    let text = found.to_string();
    text.chars().take(600).collect()
}

fn answers(found: &Value) -> &[Value] {
    found["answers"].as_array().map_or(&[], Vec::as_slice)
}

fn all(found: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    !answers(found).is_empty() && answers(found).iter().all(holds)
}

fn with_status(found: &Value, status: u16) -> usize {
    answers(found)
        .iter()
        .filter(|answer| answer["status"] == status)
        .count()
}

/// Within six standard deviations of half of 400.
fn is_half(count: usize) -> bool {
    (140..=260).contains(&count)
}

fn copies<'f>(found: &'f Value, at: &str) -> &'f [Value] {
    found["recorded"][at].as_array().map_or(&[], Vec::as_slice)
}

fn mirrors(plane: Plane) -> Result<Outcome> {
    let post = |times: u32, wait: Value| json!({"method": "POST", "path": "/order?n=1", "body": "two loaves", "times": times, "await": wait});
    let whole = |found: &Value, at: &str, count: usize| {
        let same = |it: &Value| *it == json!(["POST", "/order?n=1", "web:8080", "two loaves"]);
        copies(found, at).len() == count && copies(found, at).iter().all(same)
    };
    let served =
        |found: &Value, count| with_status(found, 200) == count && copies(found, "web").len() == count;
    let rows = vec![
        row(
            "every request, with its body and host, and no failure of the mirror",
            "mirror: {host: copy}",
            post(20, json!({"web": 20, "copy": 20})),
            move |found| served(found, 20) && whole(found, "copy", 20) && copies(found, "second").is_empty(),
        ),
        row(
            "half of the requests",
            "mirror: {host: copy}, mirrorPercentage: {value: 50}",
            post(400, json!({"web": 400, "copy": 140})),
            move |found| served(found, 400) && is_half(copies(found, "copy").len()),
        )
        .without("mirror: {host: copy}"),
        row(
            "half of the requests, by the old field",
            "mirror: {host: copy}, mirrorPercent: 50",
            post(400, json!({"web": 400, "copy": 140})),
            move |found| served(found, 400) && is_half(copies(found, "copy").len()),
        )
        .without("mirror: {host: copy}"),
        row(
            "no request",
            "mirror: {host: copy}, mirrorPercentage: {value: 0}",
            post(20, json!({"web": 20})),
            move |found| served(found, 20) && copies(found, "copy").is_empty(),
        )
        .without("mirror: {host: copy}"),
        row(
            "two mirrors, each with its share",
            "mirrors: [{destination: {host: copy}, percentage: {value: 50}}, {destination: {host: second}}]",
            post(400, json!({"web": 400, "copy": 140, "second": 400})),
            move |found| {
                served(found, 400) && is_half(copies(found, "copy").len()) && whole(found, "second", 400)
            },
        ),
        row(
            "a port of the mirror, and one that nobody serves beside it",
            "mirrors: [{destination: {host: copy, port: {number: 8080}}}, {destination: {host: nobody}}]",
            post(10, json!({"web": 10, "copy": 10})),
            move |found| served(found, 10) && whole(found, "copy", 10),
        ),
    ];
    check(plane, &rows)
}

fn faults(plane: Plane) -> Result<Outcome> {
    let refused = |found: &Value, status: u16| {
        all(found, |it| {
            it["status"] == status && it["body"] == "fault filter abort"
        })
    };
    let waited = |found: &Value, status: u16| {
        all(found, |it| {
            let seconds = it["seconds"].as_f64().unwrap_or_default();
            it["status"] == status && (0.3..5.0).contains(&seconds)
        })
    };
    let grpc = |found: &Value, code: &str| {
        all(found, |it| {
            let headers = &it["headers"];
            it["status"] == 200
                && headers["grpc-status"] == code
                && headers["grpc-message"] == "fault filter abort"
        })
    };
    let as_grpc = || json!({"method": "POST", "headers": {"content-type": "application/grpc"}});
    let rows = vec![
        row(
            "every request is refused",
            "fault: {abort: {httpStatus: 418, percentage: {value: 100}}}",
            json!({"times": 5}),
            move |found| refused(found, 418),
        ),
        row(
            "half of the requests are refused",
            "fault: {abort: {httpStatus: 503, percentage: {value: 50}}}",
            json!({"times": 400}),
            |found| is_half(with_status(found, 503)) && with_status(found, 200) + with_status(found, 503) == 400,
        ),
        row(
            "without a percentage nobody is refused",
            "fault: {abort: {httpStatus: 503}}",
            json!({"times": 5}),
            |found| with_status(found, 200) == 5,
        )
        .does_nothing(),
        row(
            "every request waits",
            "fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}",
            json!({"times": 2}),
            move |found| waited(found, 200),
        ),
        row(
            "every request waits, by the old field, and a body comes through",
            "fault: {delay: {fixedDelay: 300ms, percent: 100}}",
            json!({"method": "POST", "body": "late"}),
            move |found| waited(found, 200),
        ),
        row(
            "without a percentage nobody waits",
            "fault: {delay: {fixedDelay: 10s}}",
            json!({}),
            |found| all(found, |it| it["seconds"].as_f64().is_some_and(|it| it < 9.0)),
        )
        .does_nothing(),
        row(
            "a wait, then a refusal",
            "fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}, abort: {httpStatus: 503, percentage: {value: 100}}}",
            json!({}),
            move |found| waited(found, 503),
        )
        .without("fault: {abort: {httpStatus: 503, percentage: {value: 100}}}"),
        row(
            "the route's timeout begins after the wait",
            "timeout: 250ms, fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}",
            json!({}),
            move |found| waited(found, 200),
        )
        .without("timeout: 250ms"),
        row(
            "a gRPC status for a gRPC caller",
            "fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}",
            as_grpc(),
            move |found| grpc(found, "8"),
        ),
        row(
            "an HTTP status becomes a gRPC status for a gRPC caller",
            "fault: {abort: {httpStatus: 503, percentage: {value: 100}}}",
            as_grpc(),
            move |found| grpc(found, "14"),
        ),
        row(
            "a gRPC status is a 200 for everybody else",
            "fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}",
            json!({}),
            move |found| refused(found, 200),
        ),
        row(
            "a redirection and an answer in place are refused too",
            "directResponse: {status: 299}, fault: {abort: {httpStatus: 418, percentage: {value: 100}}}",
            json!({}),
            move |found| refused(found, 418),
        )
        .without("directResponse: {status: 299}"),
        row(
            "a refusal carries the route's own fields and is tried once",
            "headers: {response: {set: {x-of-route: here}}}, retries: {attempts: 3, retryOn: 5xx, backoff: 5s}, \
             fault: {abort: {httpStatus: 503, percentage: {value: 100}}}",
            json!({}),
            |found| {
                all(found, |it| {
                    let quick = it["seconds"].as_f64().is_some_and(|it| it < 4.0);
                    it["status"] == 503 && it["headers"]["x-of-route"] == "here" && quick
                })
            },
        ),
    ];
    check(plane, &rows)
}

/// Calls `rpc` with the metadata `x-case`; prints how each call ended and how long it took.
const GRPC: &str = r#"
import grpc, json, sys, time
channel = grpc.insecure_channel("rpc:9000")
call = channel.unary_unary("/test.Echo/Unary")
out = []
for case in sys.argv[1:]:
    started = time.monotonic()
    try:
        code = call(b"hello", timeout=20, metadata=(("x-case", case),)).decode()
        details = ""
    except grpc.RpcError as error:
        code, details = error.code().name, error.details()
    out.append([code, details, time.monotonic() - started])
print(json.dumps(out))
"#;

fn grpc_faults(plane: Plane) -> Result<Outcome> {
    if !lab::python_has("grpc") {
        return Ok(Outcome::Skipped("no grpcio".into()));
    }
    let mesh = shop(plane)?;
    let rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: rpc, namespace: lab}\n\
        spec:\n  hosts: [rpc]\n  http:\n\
        \x20 - match: [{headers: {x-case: {exact: abort}}}]\n\
        \x20   fault: {abort: {grpcStatus: FAILED_PRECONDITION, percentage: {value: 100}}}\n\
        \x20   route: [{destination: {host: rpc}}]\n\
        \x20 - match: [{headers: {x-case: {exact: both}}}]\n\
        \x20   fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}, abort: {httpStatus: 404, percentage: {value: 100}}}\n\
        \x20   route: [{destination: {host: rpc}}]\n\
        \x20 - match: [{headers: {x-case: {exact: late}}}]\n\
        \x20   fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}\n\
        \x20   route: [{destination: {host: rpc}}]\n\
        \x20 - route: [{destination: {host: rpc}}]\n";
    mesh.apply(rules)?;
    judged(plane, || {
        let said = mesh.exec(
            "client-0.lab",
            &[&python(), "-c", GRPC, "abort", "both", "late", "none"],
        )?;
        let found: Vec<(String, String, f64)> = serde_json::from_str(&said)?;
        let wanted = [
            ("FAILED_PRECONDITION", "fault filter abort", false),
            ("UNIMPLEMENTED", "fault filter abort", true),
            ("hello", "", true),
            ("hello", "", false),
        ];
        let wrong = found
            .iter()
            .zip(wanted)
            .filter(|((code, details, seconds), wanted)| {
                (code.as_str(), details.as_str()) != (wanted.0, wanted.1) || (wanted.2 && *seconds < 0.3)
            });
        Ok(wrong
            .map(|(found, wanted)| format!("{found:?} instead of {wanted:?}"))
            .collect())
    })?;
    mesh.delete(rules)?;
    Ok(Outcome::Passed)
}

const PAGE: &str = "https://shop.example";

fn origins(plane: Plane) -> Result<Outcome> {
    let rows = preflights()
        .into_iter()
        .chain(actual_requests())
        .collect::<Vec<_>>();
    check(plane, &rows)
}

/// A preflight of a page.
fn preflight(origin: &str) -> Value {
    json!({"method": "OPTIONS", "headers": {
        "origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "x-one,x-two",
    }})
}

/// Whether the proxy itself has answered that this origin is allowed.
fn is_allowed(found: &Value, origin: &str) -> bool {
    all(found, |it| {
        it["status"] == 200 && it["body"] == "" && it["headers"]["access-control-allow-origin"] == origin
    })
}

fn says(found: &Value, name: &str, value: &str) -> bool {
    all(found, |it| it["headers"][name] == value)
}

fn preflights() -> Vec<Row> {
    let allowed = |found: &Value| is_allowed(found, PAGE);
    let from_application = |found: &Value| all(found, |it| it["body"] == "application");
    let unmarked = |found: &Value| {
        all(found, |it| {
            it["headers"].get("access-control-allow-origin").is_none()
        })
    };
    vec![
        row(
            "an origin by its whole name",
            "corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}]}",
            preflight(PAGE),
            allowed,
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"https://other.example\"}]}"),
        row(
            "an origin by its beginning",
            "corsPolicy: {allowOrigins: [{prefix: \"https://shop\"}]}",
            preflight(PAGE),
            allowed,
        ),
        row(
            "an origin by a regular expression",
            "corsPolicy: {allowOrigins: [{regex: \"https://.*\\\\.example\"}]}",
            preflight(PAGE),
            allowed,
        )
        .without("corsPolicy: {allowOrigins: [{regex: \"https://shop\"}]}"),
        row(
            "any origin",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}]}",
            preflight(PAGE),
            allowed,
        ),
        row(
            "an origin by the old field",
            "corsPolicy: {allowOrigin: [\"https://shop.example\"]}",
            preflight(PAGE),
            allowed,
        ),
        row(
            "methods",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}], allowMethods: [GET, PUT]}",
            preflight(PAGE),
            |found| says(found, "access-control-allow-methods", "GET,PUT"),
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"*\"}]}"),
        row(
            "any method and any header",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}], allowMethods: [\"*\"], allowHeaders: [\"*\"]}",
            preflight(PAGE),
            |found| {
                says(found, "access-control-allow-methods", "PUT")
                    && says(found, "access-control-allow-headers", "x-one,x-two")
            },
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"*\"}]}"),
        row(
            "headers, age, credentials",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}], allowHeaders: [x-one], maxAge: 600s, allowCredentials: true}",
            preflight(PAGE),
            |found| {
                says(found, "access-control-allow-headers", "x-one")
                    && says(found, "access-control-max-age", "600")
                    && says(found, "access-control-allow-credentials", "true")
            },
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"*\"}]}"),
        row(
            "what is exposed stands in the answer to a preflight too",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}], exposeHeaders: [x-three, x-four]}",
            preflight(PAGE),
            |found| says(found, "access-control-expose-headers", "x-three,x-four"),
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"*\"}]}"),
        row(
            "a preflight of another origin goes to the application",
            "corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}]}",
            preflight("https://shop.example.evil"),
            move |found| from_application(found) && unmarked(found),
        )
        .does_nothing(),
        row(
            "a preflight of another origin is answered without a word about it",
            "corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}], unmatchedPreflights: IGNORE}",
            preflight("https://other.example"),
            move |found| all(found, |it| it["status"] == 200 && it["body"] == "") && unmarked(found),
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}], unmatchedPreflights: FORWARD}"),
        row(
            "an OPTIONS without a method is no preflight",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}]}",
            json!({"method": "OPTIONS", "headers": {"origin": PAGE}}),
            move |found| from_application(found) && says(found, "access-control-allow-origin", PAGE),
        ),
        row(
            "a fault comes before the answer to a preflight",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}]}, fault: {abort: {httpStatus: 418, percentage: {value: 100}}}",
            preflight(PAGE),
            move |found| with_status(found, 418) == 1 && unmarked(found),
        )
        .without("corsPolicy: {allowOrigins: [{exact: \"*\"}]}"),
    ]
}

fn actual_requests() -> Vec<Row> {
    let page = |origin: &str| json!({"headers": {"origin": origin, "x-own-rules": "1"}});
    vec![
        row(
            "an answer to a page of an allowed origin, in place of the application's own words",
            "corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}], allowCredentials: true, exposeHeaders: [x-three]}",
            page(PAGE),
            |found| {
                says(found, "access-control-allow-origin", PAGE)
                    && says(found, "access-control-allow-credentials", "true")
                    && says(found, "access-control-expose-headers", "x-three")
                    && all(found, |it| it["body"] == "application")
            },
        ),
        row(
            "an answer to a page of another origin is left alone",
            "corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}], allowCredentials: true}",
            page("https://other.example"),
            |found| {
                says(found, "access-control-allow-origin", "application")
                    && all(found, |it| {
                        it["headers"].get("access-control-allow-credentials").is_none()
                    })
            },
        )
        .does_nothing(),
        row(
            "an answer to somebody who is no page is left alone",
            "corsPolicy: {allowOrigins: [{exact: \"*\"}]}",
            json!({}),
            |found| {
                all(found, |it| {
                    it["headers"].get("access-control-allow-origin").is_none()
                })
            },
        )
        .does_nothing(),
        row(
            "an answer in place has no rules",
            "directResponse: {status: 299}, corsPolicy: {allowOrigins: [{exact: \"*\"}]}",
            preflight(PAGE),
            |found| with_status(found, 299) == 1,
        )
        .does_nothing(),
    ]
}
