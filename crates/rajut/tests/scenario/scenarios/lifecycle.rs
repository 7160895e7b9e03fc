//! Starting and stopping: nothing is left behind, whatever ended the mesh.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{
    client::get,
    mesh::{Mesh, Setup, eventually, processes_of},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "one_service_starts_answers_on_the_host_and_leaves_nothing_explicit",
        planes: BOTH,
        run: |plane| once(plane, "explicit"),
    },
    Scenario {
        name: "one_service_starts_answers_on_the_host_and_leaves_nothing_netns",
        planes: BOTH,
        run: |plane| once(plane, "netns"),
    },
    Scenario {
        name: "a_killed_supervisor_leaves_nothing_that_down_does_not_find",
        planes: OURS,
        run: killed,
    },
    Scenario {
        name: "what_does_not_get_ready_says_why_in_one_line",
        planes: OURS,
        run: not_ready,
    },
    Scenario {
        name: "a_killed_sidecar_is_started_again_and_concerns_its_workload_alone",
        planes: OURS,
        run: sidecar_killed,
    },
];

const ONE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: PROBE, port: 8080}}
---
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {name: web}
spec:
  deploymentRef: {name: web}
  sample: {}
";

fn setup(probe: &str) -> Setup {
    Setup::yaml(&ONE.replace("PROBE", probe))
}

fn once(plane: Plane, capture: &str) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup("/health").arguments(&["--capture", capture]))?;
    let address = mesh.host_address("web")?;
    let answer = get(&address, "web", "/hello")?;
    let body = answer.json()?;
    if answer.status != 200 || body["instance"] != "web-0" || body["path"] != "/hello" {
        return Err(format!("{} {body:#}", answer.status).into());
    }
    let state = mesh.state.clone();
    mesh.down()?;
    nothing_left(&state)?;
    Ok(Outcome::Passed)
}

/// No process, no socket, no namespace.
fn nothing_left(state: &std::path::Path) -> Result {
    eventually("no process is left", Duration::from_secs(5), || {
        processes_of(state).is_empty().then_some(())
    })?;
    for name in ["mesh.json", "control.sock"] {
        if state.join(name).exists() {
            return Err(format!("{name} is left").into());
        }
    }
    Ok(())
}

fn killed(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup("/health"))?;
    let record: Value = serde_json::from_slice(&fs::read(mesh.state.join("mesh.json"))?)?;
    let supervisor = record["supervisor"]
        .as_str()
        .and_then(|text| text.split(':').next())
        .ok_or("no supervisor")?;
    kill(supervisor)?;
    let state = mesh.state.clone();
    mesh.down()?;
    nothing_left(&state)?;
    Ok(Outcome::Passed)
}

fn kill(pid: &str) -> Result {
    let done = std::process::Command::new("kill").args(["-9", pid]).status()?;
    if done.success() {
        Ok(())
    } else {
        Err(format!("can't kill {pid}").into())
    }
}

fn not_ready(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &setup("/status/404"))?;
    let folder = mesh.folder.display().to_string();
    let output = mesh
        .command(&["up", "--detach", "--timeout", "8", &folder])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() != Some(1) {
        return Err(format!("exit status {}:\n{said}", output.status).into());
    }
    let line = said
        .lines()
        .find(|line| line.starts_with("web: "))
        .ok_or(format!("no reason in:\n{said}"))?;
    if !line.starts_with("web: GET :8080/status/404 answered 404, ") || !line.ends_with(" times") {
        return Err(format!("the reason is {line:?}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn sidecar_killed(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup("/health"))?;
    let before = mesh.workload("web-0")?;
    kill(&before["sidecar"]["pid"].to_string())?;
    let after = eventually("the sidecar runs again", Duration::from_secs(10), || {
        let row = mesh.workload("web-0").ok()?;
        (row["sidecar"]["restarts"] == 1 && row["sidecar"]["running"] == true && row["ready"] == true)
            .then_some(row)
    })?;
    if after["application"]["pid"] != before["application"]["pid"] {
        return Err("the application was started again too".into());
    }
    let address = mesh.host_address("web")?;
    eventually("it answers again", Duration::from_secs(10), || {
        get(&address, "web", "/")
            .ok()
            .filter(|answer| answer.status == 200)
    })?;
    mesh.down()?;
    Ok(Outcome::Passed)
}
