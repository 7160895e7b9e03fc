//! The recorder: what stands on disk of real requests, that it outlives the control plane, and what is judged by it.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "recorded_requests_hold_no_identifiers_and_outlive_the_control_plane",
        planes: OURS,
        run: outlives,
    },
    Scenario {
        name: "policy_replay_finds_what_other_policies_would_refuse_and_allow",
        planes: BOTH,
        run: replayed,
    },
];

/// Makes each of the calls `[method, path, headers]` of `web`; prints the statuses.
const CALLS: &str = r#"
import http.client, json, sys
out = []
for method, path, headers in json.loads(sys.argv[1]):
    c = http.client.HTTPConnection("web", 8080, timeout=20)
    c.request(method, path, headers=headers)
    answer = c.getresponse()
    answer.read()
    out.append(answer.status)
print(json.dumps(out))
"#;

const NOW: &str = "
  rules:
  - from: [{source: {principals: [cluster.local/ns/lab/sa/nurse, cluster.local/ns/lab/sa/clerk]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secret, namespace: lab}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/lab/sa/clerk]}}]
    to: [{operation: {paths: [/secret/*]}}]
";

const PROPOSED: &str = "
  rules:
  - from: [{source: {principals: [cluster.local/ns/lab/sa/nurse]}}]
    to: [{operation: {paths: [/patients/4711/*, '/patients/4712/{*}']}}]
  - from: [{source: {principals: [cluster.local/ns/lab/sa/clerk]}}]
    to: [{operation: {paths: [/secret/*]}}]
  - when: [{key: 'request.headers[x-role]', values: [head]}]
";

/// `web`, who may call it by `rules`, and its callers.
fn ward(rules: &str) -> String {
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
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    defaultConfig:
      proxyMetadata: {{RAJUT_RECORD: all, RAJUT_RECORD_HEADERS: x-role}}
{}",
        lab::STRICT
    );
    for (name, port) in [("web", 8080), ("nurse", 8090), ("clerk", 8091)] {
        text += &workload(name, port);
    }
    text += "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: lab}
spec:
  selector: {matchLabels: {app: web}}";
    text + rules
}

fn calls(mesh: &Mesh, caller: &str, calls: &Value) -> Result<Value> {
    let said = mesh.exec(caller, &[&lab::python(), "-c", CALLS, &calls.to_string()])?;
    Ok(serde_json::from_str(&said)?)
}

/// Everything that is recorded, file after file.
fn on_disk(mesh: &Mesh) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(mesh.state.join("records"))? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        if mode != 0o600 {
            return Err(format!("{}: mode {mode:o}", entry.path().display()).into());
        }
        if entry.path().extension().is_some_and(|it| it == "seg") {
            bytes.extend(fs::read(entry.path())?);
        }
    }
    Ok(bytes)
}

fn count(bytes: &[u8], text: &str) -> usize {
    let windows = bytes.windows(text.len());
    windows.filter(|window| *window == text.as_bytes()).count()
}

/// Kills the control plane; what `meanwhile` does happens before it is back.
fn without_control(mesh: &Mesh, meanwhile: impl FnOnce() -> Result) -> Result {
    let before = mesh.status()?["controlPlane"]["restarts"].as_u64().unwrap_or(0);
    let pid = mesh.status()?["controlPlane"]["pid"]
        .as_u64()
        .filter(|pid| *pid > 1);
    let pid = pid.ok_or("the control plane has no process")?;
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    assert!(killed.success());
    meanwhile()?;
    eventually("the control plane is back", Duration::from_mins(1), || {
        let status = mesh.status().ok()?;
        let row = &status["controlPlane"];
        (row["restarts"].as_u64() > Some(before) && row["running"] == true).then_some(())
    })
}

fn outlives(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &Setup::yaml(&ward(NOW)).arguments(&["-n", "lab"]))?;
    eventually("the first request is recorded", Duration::from_mins(1), || {
        calls(&mesh, "nurse", &json!([["GET", "/first", {}]])).ok()?;
        (count(&on_disk(&mesh).ok()?, "/first") > 0).then_some(())
    })?;
    let asked = json!([
        ["GET", "/patients/4711/records?name=jane", {"x-role": "midwife", "authorization": "Bearer opensesame"}],
        ["GET", "/patients/jane@example.org/records", {}],
        ["GET", "/secret/plans", {}],
    ]);
    assert_eq!(calls(&mesh, "nurse", &asked)?, json!([200, 200, 200]));
    assert_eq!(calls(&mesh, "clerk", &asked)?, json!([200, 200, 403]));
    let recorded = |times| {
        eventually("the requests are recorded", Duration::from_secs(30), || {
            (count(&on_disk(&mesh).ok()?, "/secret/plans") == times).then_some(())
        })
    };
    recorded(2)?;
    without_control(&mesh, || {
        assert_eq!(calls(&mesh, "clerk", &asked)?, json!([200, 200, 403]));
        Ok(())
    })?;
    // What the proxy held meanwhile, behind what was there before.
    recorded(3)?;
    let bytes = on_disk(&mesh)?;
    for known in [
        "/patients/{",
        "}/records",
        "spiffe://cluster.local/ns/lab/sa/clerk",
        "policy[secret]",
    ] {
        assert!(count(&bytes, known) > 0, "{known} is not recorded");
    }
    for hidden in ["4711", "jane", "midwife", "opensesame"] {
        assert_eq!(count(&bytes, hidden), 0, "{hidden} is recorded");
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn replayed(plane: Plane) -> Result<Outcome> {
    let now = ward(NOW);
    let mesh = Mesh::up(plane, &Setup::yaml(&now).arguments(&["-n", "lab"]))?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = mesh.folder.with_file_name(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (now, proposed) = (write("now.yaml", &now)?, write("proposed.yaml", &ward(PROPOSED))?);
    let replay = |file: &str| -> Result<(Option<i32>, Value)> {
        let output = mesh
            .command(&[
                "policy", "replay", "-n", "lab", "-f", file, "--since", "1h", "-o", "json",
            ])
            .output()?;
        let answer = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok((output.status.code(), answer))
    };
    let nurse = json!([
        ["GET", "/patients/4711/records", {}],
        ["GET", "/patients/4712/notes", {}],
        ["GET", "/patients/4713/notes", {}],
    ]);
    let clerk = json!([["GET", "/patients/4711/records", {}], ["GET", "/secret/1", {}], ["PUT", "/x", {"x-role": "head"}]]);
    if plane == Plane::Envoy {
        calls(&mesh, "nurse", &nurse)?;
        let (code, answer) = replay(&now)?;
        assert_eq!(
            (code, &answer["requests"]),
            (Some(1), &json!(0)),
            "Envoy records nothing"
        );
        mesh.down()?;
        return Ok(Outcome::Passed);
    }
    let requests = |wanted: u64| {
        eventually("the requests are recorded", Duration::from_mins(1), || {
            let (_, answer) = replay(&now).ok()?;
            (answer["requests"].as_u64() >= Some(wanted)).then_some(answer)
        })
    };
    // From here on the sidecar knows that it is to record.
    eventually("the first request is recorded", Duration::from_mins(1), || {
        calls(&mesh, "nurse", &json!([["GET", "/patients/4711/first", {}]])).ok()?;
        let (_, answer) = replay(&now).ok()?;
        (answer["requests"].as_u64() > Some(0)).then_some(())
    })?;
    assert_eq!(calls(&mesh, "nurse", &nurse)?, json!([200, 200, 200]));
    assert_eq!(calls(&mesh, "clerk", &clerk)?, json!([200, 403, 200]));
    without_control(&mesh, || {
        assert_eq!(calls(&mesh, "clerk", &clerk)?, json!([200, 403, 200]));
        Ok(())
    })?;
    let same = requests(10)?;
    for change in ["newlyRefused", "newlyAllowed", "unknown"] {
        assert_eq!(same[change], 0, "{same:#}");
    }
    assert_eq!(replay(&now)?.0, Some(0), "nothing would change");
    let (code, found) = replay(&proposed)?;
    assert_eq!(code, Some(1));
    let row = |change: &str, caller: &str, path: &str| {
        let rows = found["changes"].as_array().into_iter().flatten();
        let caller = format!("cluster.local/ns/lab/sa/{caller}");
        let mut rows =
            rows.filter(|row| row["change"] == change && row["caller"] == caller && row["path"] == path);
        rows.next().map_or(Value::Null, |row| row["count"].clone())
    };
    assert_eq!(
        row("newlyRefused", "nurse", "/patients/{id}/notes"),
        1,
        "{found:#}"
    );
    assert_eq!(
        row("newlyRefused", "clerk", "/patients/{id}/records"),
        2,
        "{found:#}"
    );
    assert_eq!(row("newlyAllowed", "clerk", "/secret/{id}"), 2, "{found:#}");
    assert_eq!(
        (&found["newlyRefused"], &found["newlyAllowed"], &found["unknown"]),
        (&json!(3), &json!(2), &json!(0)),
        "{found:#}"
    );
    // What was not recorded is said.
    let other = write("other.yaml", &ward(&PROPOSED.replace("x-role", "x-other")))?;
    let (_, unknown) = replay(&other)?;
    assert_eq!(unknown["notRecorded"][0]["fact"], "header x-other", "{unknown:#}");
    mesh.down()?;
    Ok(Outcome::Passed)
}
