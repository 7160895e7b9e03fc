//! A running mesh in an operator's hands: starting twice, starting after a crash, Ctrl-C, files edited while it runs, and
//! what the reading commands say, in JSON.

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    client::get,
    lab,
    mesh::{self, Mesh, Setup, eventually, processes_of},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_second_up_is_refused_and_one_after_a_crash_cleans_up_and_starts",
        planes: OURS,
        run: again,
    },
    Scenario {
        name: "ctrl_c_stops_everything_in_time",
        planes: BOTH,
        run: interrupted,
    },
    Scenario {
        name: "an_edited_file_is_taken_and_a_broken_one_keeps_what_worked",
        planes: OURS,
        run: edited,
    },
    Scenario {
        name: "nothing_is_green_on_empty",
        planes: OURS,
        run: empty,
    },
    Scenario {
        name: "reading_commands_answer_in_json",
        planes: BOTH,
        run: reading,
    },
    Scenario {
        name: "the_proxies_own_counters_equal_what_was_sent",
        planes: BOTH,
        run: counted,
    },
];

/// Two versions of a sample service.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {name: web-v1}
spec:
  labels: {app: web, version: v1}
  ports: [{containerPort: 8080}]
  sample: {}
---
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {name: web-v2}
spec:
  labels: {app: web, version: v2}
  ports: [{containerPort: 8080}]
  sample: {}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

/// The weight of v1; v2 has the rest.
fn weights(first: &str, second: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec:
  hosts: [web]
  http:
  - route:
    - {{destination: {{host: web, subset: v1}}, weight: {first}}}
    - {{destination: {{host: web, subset: v2}}, weight: {second}}}
"
    )
}

fn setup() -> Setup {
    let mut setup = Setup::yaml(SERVICE);
    setup.files.push(("weights.yaml".into(), weights("100", "0")));
    setup
}

fn up(mesh: &Mesh, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let folder = mesh.folder.display().to_string();
    let mut all = vec!["up"];
    all.extend(arguments);
    all.push(&folder);
    let output = mesh.command(&all).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn again(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup())?;
    for arguments in [&["--detach"][..], &[]] {
        let (code, said) = up(&mesh, arguments)?;
        if code != Some(1) || !said.contains("a mesh already runs") || !said.contains("rajut down") {
            return Err(format!("a second `up {arguments:?}` ended with {code:?}: {said}").into());
        }
    }
    let record: Value = serde_json::from_slice(&fs::read(mesh.state.join("mesh.json"))?)?;
    let supervisor = record["supervisor"]
        .as_str()
        .and_then(|text| text.split(':').next());
    let before = processes_of(&mesh.state);
    signal("-KILL", supervisor.ok_or("no supervisor")?)?;
    let started = Instant::now();
    let (code, said) = up(&mesh, &["--detach"])?;
    if code != Some(0) {
        return Err(format!("`up` after a crash ended with {code:?}:\n{said}").into());
    }
    let now = processes_of(&mesh.state);
    if let Some(left) = before.iter().find(|process| now.contains(process)) {
        return Err(format!("of the mesh whose supervisor was killed is left: {left}").into());
    }
    println!("    up again after {:.1} s", started.elapsed().as_secs_f64());
    let address = mesh.host_address("web")?;
    if get(&address, "web", "/")?.status != 200 {
        return Err("it does not answer".into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn signal(name: &str, pid: &str) -> Result {
    let done = Command::new("kill").args([name, pid]).status()?;
    if done.success() {
        Ok(())
    } else {
        Err(format!("can't kill {name} {pid}").into())
    }
}

fn interrupted(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &setup())?;
    let folder = mesh.folder.display().to_string();
    let mut child = mesh
        .command(&["up", "--data-plane", plane.name(), &folder])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let healthy = eventually("the mesh is healthy", Duration::from_mins(1), || {
        mesh.status().ok().filter(|status| status["healthy"] == true)
    });
    let started = Instant::now();
    signal("-INT", &child.id().to_string())?;
    let ended = eventually("`up` has ended", Duration::from_secs(25), || {
        child.try_wait().ok()?
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    healthy?;
    let status = ended?;
    println!("    stopped in {:.1} s", started.elapsed().as_secs_f64());
    let left = processes_of(&mesh.state);
    if !status.success() || !left.is_empty() || mesh.state.join("mesh.json").exists() {
        return Err(format!("it ended with {status} and left:\n{}", left.join("\n")).into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// The versions that answer a few requests.
fn versions(address: &str) -> Vec<String> {
    let ask = |_| {
        let answer = get(address, "web", "/").ok()?;
        Some(answer.header("x-sample-service")?.to_owned())
    };
    let mut found: Vec<String> = (0..5).filter_map(ask).collect();
    found.dedup();
    found
}

fn edited(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup())?;
    let address = mesh.host_address("web")?;
    if versions(&address) != ["web-v1"] {
        return Err(format!("{:?} instead of v1 alone", versions(&address)).into());
    }
    let file = mesh.folder.join("weights.yaml");
    let started = Instant::now();
    fs::write(&file, weights("0", "100"))?;
    eventually("v2 alone answers", Duration::from_secs(10), || {
        (versions(&address) == ["web-v2"]).then_some(())
    })?;
    println!(
        "    an edited file after {:.2} s",
        started.elapsed().as_secs_f64()
    );

    fs::write(&file, weights("100", "many"))?;
    let errors = eventually("status tells the error", Duration::from_secs(10), || {
        let errors = mesh.status().ok()?["configurationErrors"].as_array()?.clone();
        (!errors.is_empty()).then_some(errors)
    })?;
    let place = errors[0]["origin"]["source"].as_str().unwrap_or_default();
    let text = mesh.command(&["status"]).output()?.stdout;
    if !place.ends_with("weights.yaml")
        || !String::from_utf8_lossy(&text).contains("what worked before goes on")
    {
        return Err(format!("the error is told as {errors:?}").into());
    }
    if versions(&address) != ["web-v2"] {
        return Err(format!("{:?} answer after the broken file", versions(&address)).into());
    }
    // Half an edit, then the whole.
    fs::write(&file, weights("100", "0"))?;
    eventually(
        "v1 alone answers, and no error is left",
        Duration::from_secs(10),
        || {
            let status = mesh.status().ok()?;
            (versions(&address) == ["web-v1"] && status["configurationErrors"] == serde_json::json!([]))
                .then_some(())
        },
    )?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn empty(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let output = mesh.command(&["status", "-o", "json"]).output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    if output.status.code() != Some(1) || status["healthy"] != false || status["health"] != "down" {
        return Err(format!("without a mesh `status` ended with {}: {status:#}", output.status).into());
    }
    for (file, says) in [
        (None, " holds no .yaml"),
        (Some("namespace.yaml"), "there is no workload in "),
    ] {
        if let Some(name) = file {
            fs::write(
                mesh.folder.join(name),
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n",
            )?;
        }
        let (code, said) = up(&mesh, &["--detach"])?;
        if code != Some(1) || !said.contains(says) {
            return Err(format!("`up` of nothing ended with {code:?}: {said}").into());
        }
    }
    for command in [
        &["proxy-status", "-o", "json"][..],
        &["get", "-o", "json"],
        &["logs", "web"],
    ] {
        let output = mesh.command(command).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(1) || !said.contains("no mesh runs here") {
            return Err(format!(
                "without a mesh `{command:?}` ended with {}: {said}",
                output.status
            )
            .into());
        }
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn shared(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "operation", setup)
}

fn reading(plane: Plane) -> Result<Outcome> {
    let mesh = shared(plane)?;
    // Our proxies are told of a service when it is first called.
    mesh.exec(
        "web-v1-0",
        &[
            "curl",
            "-sS",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "http://web/",
        ],
    )?;
    for (part, holds) in [
        ("listeners", "8080"),
        ("routes", "web"),
        ("clusters", "outbound|80|v1|web.default.svc.cluster.local"),
        ("endpoints", "outbound|80|v1|web.default.svc.cluster.local"),
        ("secrets", "spiffe://cluster.local/ns/default/sa/"),
    ] {
        let found = mesh.json(&["proxy-config", part, "web-v1-0"])?;
        let list = found[part].as_array().ok_or(format!("no {part} in {found:#}"))?;
        if list.is_empty() || !found.to_string().contains(holds) {
            return Err(format!("proxy-config {part} has no {holds}: {found:#}").into());
        }
        if found.to_string().contains("PRIVATE KEY") {
            return Err(format!("proxy-config {part} shows a key").into());
        }
        if mesh.rajut(&["proxy-config", part, "web-v1-0"])?.lines().count() < 2 {
            return Err(format!("proxy-config {part} is empty as text").into());
        }
    }
    let proxies = mesh.json(&["proxy-status"])?;
    if proxies["proxies"].as_array().map(Vec::len) != Some(3) {
        return Err(format!("three proxies are expected: {proxies:#}").into());
    }
    let service = mesh.json(&["get", "svc", "web"])?;
    if service["resources"][0]["kind"] != "Service" {
        return Err(format!("get svc web: {service:#}").into());
    }
    let meaning = mesh.json(&["explain", "RJ0071"])?;
    if meaning["code"] != "RJ0071" {
        return Err(format!("explain: {meaning:#}").into());
    }
    for arguments in [&["logs", "control"][..], &["logs", "--sidecar", "web-v1-0"]] {
        if mesh.rajut(arguments)?.trim().is_empty() {
            return Err(format!("{arguments:?} says nothing").into());
        }
    }
    changes(&mesh)?;
    Ok(Outcome::Passed)
}

/// What `apply` and `delete` say.
fn changes(mesh: &Mesh) -> Result {
    let policy = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
";
    for (verb, done) in [("apply", mesh.apply(policy)?), ("delete", mesh.delete(policy)?)] {
        let affected = done["affected"].as_u64().unwrap_or(0);
        let shaped = done["objects"][0]["kind"] == "PeerAuthentication"
            && done["objects"][0]["name"] == "default"
            && affected >= 2
            && done["acknowledged"] == affected
            && done["milliseconds"].is_u64()
            && done["rejected"] == serde_json::json!([]);
        if !shaped {
            return Err(format!("{verb} says {done:#}").into());
        }
    }
    Ok(())
}

/// The sum of a counter over the rows whose labels hold `label`; 0 where there are none yet.
fn counter(admin: &str, name: &str, label: &str) -> Result<u64> {
    let text = get(admin, admin, "/stats/prometheus")?.text();
    let rows = text.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' ')?;
        labels.contains(label).then(|| value.parse::<u64>().ok())?
    });
    Ok(rows.sum())
}

fn counted(plane: Plane) -> Result<Outcome> {
    const SENT: u64 = 137;
    let mesh = shared(plane)?;
    let clients = mesh.workload("web-v1-0")?["adminAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let servers = mesh.workload("web-v2-0")?["adminAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    mesh.apply(&weights("0", "100"))?;
    let counters = || -> Result<[u64; 3]> {
        let cluster = "outbound|80|v2|web.default.svc.cluster.local";
        Ok([
            counter(&clients, "envoy_cluster_upstream_rq_total", cluster)?,
            counter(
                &clients,
                "envoy_http_downstream_rq_completed",
                "prefix=\"outbound",
            )?,
            counter(&servers, "envoy_http_downstream_rq_completed", "prefix=\"inbound")?,
        ])
    };
    let before = counters()?;
    let script = format!(
        "import http.client\n\
         for number in range({SENT}):\n    \
             c = http.client.HTTPConnection('web', 80, timeout=20)\n    \
             c.request('GET', f'/{{number}}')\n    \
             r = c.getresponse()\n    \
             r.read()\n    \
             assert r.status == 200, r.status\n    \
             c.close()\n"
    );
    mesh.exec("web-v1-0", &[&lab::python(), "-c", &script])?;
    let mut last = [0; 3];
    eventually(
        "the counters have risen by what was sent",
        Duration::from_secs(10),
        || {
            last = counters().ok()?;
            (0..3).all(|at| last[at] - before[at] == SENT).then_some(())
        },
    )
    .map_err(|error| {
        format!("{error}: {SENT} were sent, and the counters went from {before:?} to {last:?}")
    })?;
    Ok(Outcome::Passed)
}
