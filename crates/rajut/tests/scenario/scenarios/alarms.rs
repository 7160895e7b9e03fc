//! Alarms that nobody wrote a rule for, and what an operator does about one.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    lab::{self, Workload, python},
    mesh::{Mesh, Setup, eventually},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_burst_of_refusals_and_a_look_around_raise_one_alarm_each_within_seconds",
    // Envoy's load reports do not tell refusals from answers.
    planes: OURS,
    run: noticed,
}];

/// Long enough for the caller's ordinary calls to be known.
const LEARN_FOR: &str = "20s";
const GOAL: Duration = Duration::from_secs(5);

/// Calls each URL so often; prints the statuses.
const CALLS: &str = r#"
import sys, urllib.error, urllib.request
seen = {}
for url in sys.argv[2:]:
    for _ in range(int(sys.argv[1])):
        try:
            got = urllib.request.urlopen(url, timeout=20).status
        except urllib.error.HTTPError as error:
            got = error.code
        seen[got] = seen.get(got, 0) + 1
print(" ".join(f"{code}x{count}" for code, count in sorted(seen.items())))
"#;

const POLICY: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secrets, namespace: lab}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: ['/secret*']}}]}]
";

/// The one command of the runbook.
const BLOCK: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: block-nurse, namespace: lab}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/lab/sa/nurse]}}]}]
";

/// `web`, which `nurse` calls, and services that nobody calls.
pub fn ward() -> Setup {
    let workload = |name| {
        lab::yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas: 1,
            run: lab::server("http", 8080),
            more: "",
        })
    };
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}{POLICY}",
        lab::STRICT
    );
    text += &workload("web");
    text += &workload("nurse");
    for number in 0..12 {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: file-{number}, namespace: lab}}\n\
             spec: {{selector: {{app: web}}, ports: [{{name: http, port: 8080}}]}}\n"
        );
    }
    Setup::yaml(&text)
}

/// Started, and past learning, in which `nurse` called `web`.
pub fn learned(mesh: &Mesh, plane: Plane, more: &[&str]) -> Result {
    let folder = mesh.folder.display().to_string();
    let mut up = vec![
        "up",
        "--detach",
        "-n",
        "lab",
        "--data-plane",
        plane.name(),
        &folder,
    ];
    up.extend(more);
    let output = mesh.command(&up).env("RAJUT_LEARN_FOR", LEARN_FOR).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let said = call(mesh, 5, &["http://web:8080/"])?;
    if said != "200x5" {
        return Err(format!("ordinary calls are {said}").into());
    }
    eventually("it has learned", Duration::from_mins(1), || {
        let alarms = mesh.json(&["alarms"]).ok()?;
        // RFC 3339 in UTC: the later time is the greater text.
        (alarms["now"].as_str() > alarms["learningUntil"].as_str()).then_some(())
    })?;
    let alarms = alarms(mesh)?;
    if alarms.is_empty() {
        return Ok(());
    }
    Err(format!("ordinary calls are alarms: {alarms:#?}").into())
}

pub fn call(mesh: &Mesh, times: u32, urls: &[&str]) -> Result<String> {
    let (python, times) = (python(), times.to_string());
    let mut program = vec![&*python, "-c", CALLS, &times];
    program.extend(urls);
    Ok(mesh.exec("nurse-0.lab", &program)?.trim().to_owned())
}

pub fn alarms(mesh: &Mesh) -> Result<Vec<Value>> {
    let answer = mesh.json(&["alarms"])?;
    Ok(answer["alarms"].as_array().cloned().unwrap_or_default())
}

fn noticed(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &ward())?;
    learned(&mesh, plane, &[])?;
    let began = Instant::now();
    let said = call(&mesh, 40, &["http://web:8080/secret"])?;
    if said != "403x40" {
        return Err(format!("calls that are refused are {said}").into());
    }
    eventually("a burst of refusals is an alarm", GOAL * 10, || {
        (!alarms(&mesh).ok()?.is_empty()).then_some(())
    })?;
    println!(
        "    an alarm {:.1} s after the first of the refused calls was asked for (goal 5 s)",
        began.elapsed().as_secs_f32()
    );
    // It goes on, and so does the alarm.
    call(&mesh, 40, &["http://web:8080/secret"])?;
    mesh.apply(BLOCK)?;
    let said = call(&mesh, 1, &["http://web:8080/"])?;
    if said != "403x1" {
        return Err(format!("the identity is blocked, and a call of it is {said}").into());
    }
    println!(
        "    from the first refused call to the identity being blocked by one command: {:.1} s",
        began.elapsed().as_secs_f32()
    );
    let all = alarms(&mesh)?;
    let [one] = &*all else {
        return Err(format!("not exactly one alarm: {all:#?}").into());
    };
    let is_it = one["kind"] == "denials"
        && one["open"] == true
        && one["source"]["workload"] == "nurse"
        && one["destination"]["host"] == "web.lab.svc.cluster.local"
        && one["evidence"]["now"].as_f64() >= Some(2.0)
        && one["evidence"]["before"].as_f64() < Some(1.0)
        && one["runbook"] == "docs/runbooks/refused-calls.md";
    if !is_it {
        return Err(format!("{one:#}").into());
    }

    // It looks around: some first calls, and one alarm for all of them.
    let urls: Vec<String> = (0..12)
        .map(|number| format!("http://file-{number}:8080/"))
        .collect();
    let urls: Vec<&str> = urls.iter().map(|url| &**url).collect();
    let began = Instant::now();
    call(&mesh, 1, &urls)?;
    let of = |kind: &str| -> Option<Vec<Value>> {
        let mut all = alarms(&mesh).ok()?;
        all.retain(|alarm| alarm["kind"] == kind);
        Some(all)
    };
    eventually("a look around is an alarm", GOAL * 10, || {
        (!of("fan-out")?.is_empty()).then_some(())
    })?;
    println!(
        "    a fan-out after {:.1} s (goal 5 s)",
        began.elapsed().as_secs_f32()
    );
    let counts = [of("fan-out"), of("first-call"), of("denials")].map(|all| all.map_or(0, |all| all.len()));
    if counts[0] != 1 || counts[1] > 10 || counts[2] != 1 {
        return Err(format!("fan-out, first calls, denials: {counts:?}").into());
    }
    let table = mesh.rajut(&["alarms"])?;
    let log = mesh.rajut(&["logs", "control"])?;
    for (what, text) in [("table", &table), ("log", &log)] {
        if !text.contains("fan-out") || !text.contains("denials") {
            return Err(format!("they are not in the {what}:\n{text}").into());
        }
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
