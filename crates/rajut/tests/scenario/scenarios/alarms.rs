//! Alarms that nobody wrote a rule for, and what an operator does about one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    lab::{self, Workload, python},
    mesh::{Mesh, Setup, eventually},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

// Envoy's load reports do not tell refusals from answers.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_burst_of_refusals_and_a_look_around_raise_one_alarm_each_within_seconds",
        planes: OURS,
        run: noticed,
    },
    Scenario {
        name: "alarms_reach_an_alertmanager_and_silences_and_acknowledgements_outlive_the_control_plane",
        planes: OURS,
        run: told,
    },
];

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
fn ward() -> Setup {
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
fn learned(mesh: &Mesh, plane: Plane, more: &[&str]) -> Result {
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

fn call(mesh: &Mesh, times: u32, urls: &[&str]) -> Result<String> {
    let (python, times) = (python(), times.to_string());
    let mut program = vec![&*python, "-c", CALLS, &times];
    program.extend(urls);
    Ok(mesh.exec("nurse-0.lab", &program)?.trim().to_owned())
}

fn alarms(mesh: &Mesh) -> Result<Vec<Value>> {
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

/// A process that takes alerts.
struct Receiver {
    process: Child,
    file: PathBuf,
    port: u16,
}

impl Receiver {
    fn start(folder: &Path, port: u16) -> Result<Self> {
        let file = folder.with_file_name("alerts.jsonl");
        let mut process = Command::new(python())
            .arg(lab::app("alert_receiver.py"))
            .arg(&file)
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("it has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self {
            process,
            file,
            port: line.trim().parse()?,
        })
    }

    /// Alerts of that name, in the order in which they came.
    fn alerts(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        all.filter(|alert: &Value| alert["labels"]["alertname"] == name)
            .collect()
    }

    /// Waits for one of that name and service, and what holds of it.
    fn wait(&self, name: &str, host: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(&format!("{name} of {host} {what}"), GOAL * 10, || {
            let is_it = |alert: &Value| alert["labels"]["destination_service"] == host && holds(alert);
            self.alerts(name).into_iter().find(is_it)
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SECRET: &str = "Bearer c0ffee-c0ffee";

fn host(number: u32) -> String {
    format!("file-{number}.lab.svc.cluster.local")
}

fn told(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &ward())?;
    let receiver = Receiver::start(&mesh.folder, 0)?;
    let header = mesh.folder.with_file_name("header");
    fs::write(&header, format!("{SECRET}\n"))?;
    let url = format!("http://127.0.0.1:{}", receiver.port);
    let header = header.display().to_string();
    learned(
        &mesh,
        plane,
        &["--alertmanager", &url, "--alertmanager-authorization", &header],
    )?;
    let began = Instant::now();
    call(&mesh, 40, &["http://web:8080/secret"])?;
    let web = "web.lab.svc.cluster.local";
    let alert = receiver.wait("MeshDenialsBurst", web, "is told", |_| true)?;
    println!(
        "    told {:.1} s after the first of the refused calls was asked for",
        began.elapsed().as_secs_f32()
    );
    let times = (alert["startsAt"].as_str(), alert["endsAt"].as_str());
    if alert["authorization"] != SECRET || times.0 >= times.1 || alert["labels"]["source_workload"] != "nurse"
    {
        return Err(format!("{alert:#}").into());
    }

    // What is silenced is raised and not told; what is acknowledged is over.
    mesh.rajut(&[
        "alarms",
        "silence",
        "--edge",
        "nurse.lab:file-0",
        "--for",
        "1h",
        "--why",
        "a rehearsal",
    ])?;
    call(&mesh, 1, &["http://file-0:8080/", "http://file-1:8080/"])?;
    receiver.wait("MeshFirstCall", &host(1), "is told", |_| true)?;
    let of = |number: u32| -> Option<Value> {
        let mut all = alarms(&mesh).ok()?.into_iter();
        all.find(|alarm| alarm["kind"] == "first-call" && alarm["destination"]["host"] == *host(number))
    };
    let (silent, told) = (of(0).ok_or("no alarm")?, of(1).ok_or("no alarm")?);
    if silent["silence"] != 1 || silent["open"] != true {
        return Err(format!("it is not silenced: {silent:#}").into());
    }
    mesh.rajut(&[
        "alarms",
        "ack",
        &told["number"].to_string(),
        "--why",
        "it is new",
        "--by",
        "sari",
    ])?;
    let over = |alert: &Value| {
        alert["annotations"]["acknowledged"]
            .as_str()
            .is_some_and(|by| by.contains("sari (uid "))
    };
    receiver.wait("MeshFirstCall", &host(1), "is over", over)?;

    // The receiver is away for a while.
    let port = receiver.port;
    drop(receiver);
    call(&mesh, 1, &["http://file-2:8080/"])?;
    eventually("that nobody is told is in the log", GOAL * 10, || {
        let log = mesh.rajut(&["logs", "control"]).ok()?;
        log.contains("alarms are not told").then_some(())
    })?;
    let receiver = Receiver::start(&mesh.folder, port)?;
    receiver.wait("MeshFirstCall", &host(2), "is told later", |_| true)?;
    let of_silent = receiver.alerts("MeshFirstCall");
    if of_silent
        .iter()
        .any(|alert| alert["labels"]["destination_service"] == *host(0))
    {
        return Err("somebody was told of what is silenced".into());
    }
    remembered(&mesh, &told)?;
    let log = mesh.rajut(&["logs", "control"])? + &mesh.rajut(&["logs", "supervisor"])?;
    if log.contains("c0ffee") {
        return Err("the secret is in the log".into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// Another control plane knows who has said what.
fn remembered(mesh: &Mesh, told: &Value) -> Result {
    let before = mesh.status()?["controlPlane"]["restarts"].as_u64().unwrap_or(0);
    let pid = mesh.status()?["controlPlane"]["pid"].to_string();
    Command::new("kill").args(["-9", &pid]).status()?;
    eventually("the control plane is back", Duration::from_mins(1), || {
        let status = mesh.status().ok()?;
        let row = &status["controlPlane"];
        (row["restarts"].as_u64() > Some(before) && row["running"] == true).then_some(())
    })?;
    let all = eventually("it answers", Duration::from_secs(20), || alarms(mesh).ok())?;
    let known = all.iter().find(|alarm| alarm["number"] == told["number"]);
    let seen = known.map(|alarm| &alarm["acknowledged"]);
    let silences = mesh.json(&["alarms", "silences"])?;
    let silence = &silences["silences"][0];
    if seen.is_none_or(|seen| seen["why"] != "it is new" || !seen["at"].is_string())
        || silence["holds"] != true
        || silence["why"] != "a rehearsal"
        || !silence["by"].as_str().is_some_and(|by| by.starts_with("uid "))
    {
        return Err(format!("what was said is not known: {seen:?} {silence:#}").into());
    }
    mesh.rajut(&["alarms", "expire", "1"])?;
    let table = mesh.rajut(&["alarms", "silences"])?;
    if !table.contains("over") {
        return Err(format!("it is not over:\n{table}").into());
    }
    Ok(())
}
