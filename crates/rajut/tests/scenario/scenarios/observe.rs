//! What the control plane is told of the mesh's edges, through `rajut top`, against a record that the caller keeps; first calls.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::clinic::NAMESPACE;
use crate::{
    client::get,
    lab,
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "top_counts_every_request_of_an_edge_and_tells_failures_apart",
        planes: BOTH,
        run: exact,
    },
    Scenario {
        name: "a_workload_that_calls_what_it_never_called_raises_one_alarm",
        planes: BOTH,
        run: first_call,
    },
];

/// (code, requests); none of them is retried. 404 is the caller's failure, not the server's.
const CALLS: &str = "
import urllib.error, urllib.request
for code, count in ((200, 40), (404, 7), (500, 9)):
    for _ in range(count):
        try:
            got = urllib.request.urlopen(f'http://client:8090/status/{code}', timeout=20).status
        except urllib.error.HTTPError as error:
            got = error.code
        assert got == code, got
print('sent')
";
const ONE: &str = "import urllib.request; urllib.request.urlopen('http://client:8090/', timeout=20)";
const SENT: u64 = 56;
const FAILED: u64 = 9;

/// Runs a Python script inside the workload `web`.
fn from_caller(mesh: &Mesh, script: &str) -> Result<String> {
    mesh.exec("web-0.lab", &[&lab::python(), "-c", script])
}

/// The edge from `web` to `client`, which no other scenario has; over a window in which nothing is forgotten meanwhile.
fn edge(mesh: &Mesh) -> Result<Option<Value>> {
    let answer = mesh.json(&["top", "--once", "--edges", "--window", "7200"])?;
    let edges = answer["edges"].as_array().cloned().unwrap_or_default();
    Ok(edges.into_iter().find(|edge| {
        edge["source"]["workload"] == "web"
            && edge["source"]["namespace"] == "lab"
            && edge["destination"]["host"] == "client.lab.svc.cluster.local"
    }))
}

/// (requests, failed)
fn counts(edge: Option<&Value>) -> (u64, u64) {
    let count = |name: &str| edge.and_then(|edge| edge[name].as_u64()).unwrap_or_default();
    (count("requests"), count("failed"))
}

fn exact(plane: Plane) -> Result<Outcome> {
    let mesh = lab::mesh(plane)?;
    // Envoy counts for us what comes after it was first asked: a call that is told says that it counts, and that what was
    // called before is told too.
    let mut before = None;
    for _ in 0..10 {
        let known = counts(edge(&mesh)?.as_ref());
        from_caller(&mesh, ONE)?;
        let risen = || {
            let now = counts(edge(&mesh).ok()?.as_ref());
            (now.0 > known.0).then_some(now)
        };
        before = eventually("that call is told", Duration::from_secs(5), risen).ok();
        if before.is_some() {
            break;
        }
    }
    let before = before.ok_or("of ten calls none was told")?;

    let said = from_caller(&mesh, CALLS)?;
    if said.trim() != "sent" {
        return Err(format!("the caller says {said}").into());
    }
    let told = eventually("all of them are told", Duration::from_secs(20), || {
        let told = edge(&mesh).ok()??;
        (counts(Some(&told)).0 >= before.0 + SENT).then_some(told)
    })?;
    let (requests, failed) = counts(Some(&told));
    if (requests - before.0, failed - before.1) != (SENT, FAILED) {
        return Err(format!("{SENT} requests, {FAILED} failed, are told as {before:?} → {told:#}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    let share = failed as f64 / requests as f64;
    if told["errorShare"]
        .as_f64()
        .is_none_or(|told| (told - share).abs() > 1e-9)
    {
        return Err(format!("the share of failures is not {share}: {told:#}").into());
    }
    let (latency, mtls) = (&told["latencyMs"]["p99"], &told["mtlsShare"]);
    let known = match plane {
        Plane::Rajut => latency.as_f64() > Some(0.0) && mtls.as_f64() > Some(0.9),
        // Its reports have neither, and what is not known is not 0.
        Plane::Envoy => latency.is_null() && mtls.is_null(),
    };
    if !known {
        return Err(format!("response times and mTLS: {told:#}").into());
    }

    // On a pipe there is one table; a service's row has all of its callers.
    let table = mesh.rajut(&["top", "--edges", "-n", "lab", "--window", "300"])?;
    let row = table
        .lines()
        .find(|line| line.starts_with("web.lab ") && line.contains("client.lab.svc.cluster.local:8090"));
    if row.is_none_or(|row| !row.contains('%')) {
        return Err(format!("no row of the edge in\n{table}").into());
    }
    let services = mesh.json(&["top", "-n", "lab", "--window", "7200"])?;
    let rows = services["services"].as_array().cloned().unwrap_or_default();
    let called = rows
        .iter()
        .find(|row| row["service"] == "client.lab.svc.cluster.local:8090");
    if called.is_none_or(|row| row["requests"].as_u64() < Some(requests)) {
        return Err(format!("no row of the service: {services:#}").into());
    }
    if counts(edge(&mesh)?.as_ref()) != (requests, failed) {
        return Err("more is told than was sent".into());
    }
    Ok(Outcome::Passed)
}

/// Enough for the mesh to start and for ordinary calls to be reported; where it is not, those are not looked at.
const LEARN_FOR: &str = "15s";

fn first_call(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let up = ["up", "--detach", "--data-plane", plane.name()];
    let output = mesh.command(&up).env("RAJUT_LEARN_FOR", LEARN_FOR).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let gateway = mesh.host_address("api-gateway")?;
    let ordinary = eventually("ordinary calls are reported", Duration::from_mins(1), || {
        get(&gateway, &gateway, "/status/200").ok()?;
        let top = mesh.json(&["top", "--edges"]).ok()?;
        let edges = top["edges"].as_array()?;
        edges
            .iter()
            .find(|edge| edge["requests"].as_u64() > Some(0))
            .cloned()
    })?;
    // RFC 3339 in UTC: the later time is the greater text.
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let learned = eventually("it has learned", Duration::from_mins(1), || {
        let alarms = mesh.json(&["alarms"]).ok()?;
        (text(&alarms, "now") > text(&alarms, "learningUntil")).then_some(alarms)
    })?;
    let was_ordinary = text(&ordinary, "firstSeen") < text(&learned, "learningUntil");

    let called = Instant::now();
    let caller = format!("auth-service-0.{NAMESPACE}");
    let url = "http://encounter-service:8080/status/200";
    let is_it = |alarm: &&Value| {
        alarm["source"]["workload"] == "auth-service"
            && alarm["destination"]["host"]
                .as_str()
                .is_some_and(|host| host.starts_with("encounter-service."))
    };
    let alarms = || -> Result<Vec<Value>> {
        let alarms = mesh.json(&["alarms"])?;
        Ok(alarms["alarms"].as_array().cloned().unwrap_or_default())
    };
    mesh.exec(
        &caller,
        &["curl", "-sS", "-o", "/dev/null", "--max-time", "20", url],
    )?;
    eventually("the first call is an alarm", Duration::from_secs(50), || {
        alarms().ok()?.iter().any(|alarm| is_it(&alarm)).then_some(())
    })?;
    println!("    an alarm after {:.1} s", called.elapsed().as_secs_f32());

    // Calls that are reported after it raise none.
    let known = |top: &Value| -> u64 {
        let edges = top["edges"].as_array().cloned().unwrap_or_default();
        edges
            .iter()
            .filter(is_it)
            .filter_map(|edge| edge["requests"].as_u64())
            .sum()
    };
    let before = known(&mesh.json(&["top", "--edges", "--window", "300"])?);
    mesh.exec(
        &caller,
        &["curl", "-sS", "-o", "/dev/null", "--max-time", "20", url],
    )?;
    get(&gateway, &gateway, "/status/200")?;
    eventually("the second call is reported", Duration::from_secs(20), || {
        let top = mesh.json(&["top", "--edges", "--window", "300"]).ok()?;
        (known(&top) > before).then_some(())
    })?;
    let all = alarms()?;
    let of_it = all.iter().filter(is_it).count();
    let of_ordinary = all
        .iter()
        .filter(|alarm| {
            alarm["source"] == ordinary["source"]
                && alarm["destination"]["host"] == ordinary["destination"]["host"]
        })
        .count();
    if of_it != 1 || (was_ordinary && of_ordinary > 0) {
        return Err(
            format!("{of_it} alarms of the first call, {of_ordinary} of ordinary ones: {all:#?}").into(),
        );
    }
    let table = mesh.rajut(&["alarms"])?;
    if !table.contains(&format!("auth-service.{NAMESPACE}")) {
        return Err(format!("it is not in the table:\n{table}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
