//! Access logs as `Telemetry` and the mesh's settings say: levels, ends, filters, formats, and what they never show.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{
    lab,
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "access_logs_follow_telemetry_by_level_end_and_filter_and_show_no_credentials",
        planes: BOTH,
        run: followed,
    },
    Scenario {
        name: "one_requests_lines_are_found_in_every_sidecars_log_in_its_order",
        planes: BOTH,
        run: one_request,
    },
];

/// A file may be written a second after the request.
const WRITTEN: Duration = Duration::from_secs(20);

/// `AUDIT` is the file's path.
const SETTINGS: &str = "
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFormat: >-
      line %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %BYTES_RECEIVED%
      auth=%REQ(AUTHORIZATION)% patient=%REQ(X-PATIENT)% cookie=%RESP(SET-COOKIE)%
    extensionProviders:
    - name: audit
      envoyFileAccessLog:
        path: AUDIT
        logFormat:
          labels:
            code: '%RESPONSE_CODE%'
            id: '%REQ(X-REQUEST-ID)%'
            request: {path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%', method: '%REQ(:METHOD)%'}
            peer: ['%DOWNSTREAM_PEER_URI_SAN%']
            version: 2
    defaultConfig:
      proxyMetadata: {RAJUT_REDACT_HEADERS: x-patient, RAJUT_REDACT_QUERY: token}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  accessLogging: [{providers: [{name: envoy}]}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: servers, namespace: lab}
spec:
  accessLogging:
  - match: {mode: SERVER}
    providers: [{name: audit}]
    filter: {expression: 'response.code >= 400 && connection.mtls && request.method == \"GET\"'}
";

const QUIET: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: lab}
spec:
  selector: {matchLabels: {app: client}}
  accessLogging: [{match: {mode: CLIENT}, disabled: true}]
";

fn call(mesh: &Mesh, path: &str) -> Result<String> {
    let url = format!("http://web:8080{path}");
    let arguments = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "20",
        "-H",
        "authorization: Bearer top-secret",
        "-H",
        "x-patient: NIK-7",
        &url,
    ];
    mesh.exec("client-0.lab", &arguments)
}

/// The lines of a sidecar's access log on its standard output.
fn lines(mesh: &Mesh, workload: &str) -> Result<Vec<String>> {
    let text = mesh.rajut(&["logs", workload, "--sidecar", "-n", "10000"])?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with("line "))
        .map(str::to_owned)
        .collect())
}

fn followed(plane: Plane) -> Result<Outcome> {
    let audit = std::env::temp_dir().join(format!("rajut-audit-{}-{}", std::process::id(), plane.name()));
    let outcome = check(plane, &audit);
    drop(fs::remove_file(&audit));
    outcome
}

fn check(plane: Plane, audit: &std::path::Path) -> Result<Outcome> {
    let plain = |name, port, port_name, run| {
        lab::yaml(&lab::Workload {
            name,
            port,
            port_name,
            replicas: 1,
            run,
            more: "",
        })
    };
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
        lab::STRICT
    );
    text += &plain("web", 8080, "http", lab::server("http", 8080));
    text += &plain("pipe", 7001, "tcp", lab::server("echo", 7001));
    text += &plain("client", 8090, "http", lab::server("http", 8090));
    text += &SETTINGS.replace("AUDIT", &audit.display().to_string());
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;

    for (path, code) in [
        ("/ok?token=hush-hush&page=2", "200"),
        ("/status/404?token=hush-hush", "404"),
        ("/status/500", "500"),
    ] {
        let answered = call(&mesh, path)?;
        if answered != code {
            return Err(format!("{path} is answered {answered}").into());
        }
    }
    lab::from_client(
        &mesh,
        "import socket\ns=socket.create_connection(('pipe',7001),20)\ns.sendall(b'x'*1000)\ns.shutdown(1)\n\
         while s.recv(65536): pass",
    )?;

    // The client's end: everything, requests and connections, by the mesh's own level.
    let wanted = [
        "line GET /ok 200 - outbound|8080||web.lab.svc.cluster.local 0 auth=[redacted] patient=[redacted] \
         cookie=[redacted]",
        "line GET /status/404 404 - outbound|8080||web.lab.svc.cluster.local 0 auth=[redacted] patient=[redacted] \
         cookie=[redacted]",
        "line - - 0 - outbound|7001||pipe.lab.svc.cluster.local 1000 auth=[redacted] patient=[redacted] \
         cookie=[redacted]",
    ];
    let mut found = Vec::new();
    eventually("the client's log has every call", WRITTEN, || {
        found = lines(&mesh, "client-0.lab").ok()?;
        wanted
            .iter()
            .all(|line| found.iter().any(|known| known == line))
            .then_some(())
    })
    .map_err(|error| format!("{error}\n    {}", found.join("\n    ")))?;

    // The server's end: the namespace sends it elsewhere, and wants failures alone.
    let mut entries: Vec<Value> = Vec::new();
    eventually("the audit file has both failures", WRITTEN, || {
        let text = fs::read_to_string(audit).ok()?;
        entries = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (entries.len() >= 2).then_some(())
    })?;
    let codes: Vec<_> = entries.iter().map(|entry| entry["code"].as_u64()).collect();
    let first = &entries[0];
    let is_right = codes == [Some(404), Some(500)]
        && first["request"] == serde_json::json!({"method": "GET", "path": "/status/404"})
        && first["peer"][0] == "spiffe://cluster.local/ns/lab/sa/client"
        && first["version"].as_f64() == Some(2.0)
        && first["id"].as_str().is_some_and(|id| id.len() == 36);
    if !is_right {
        return Err(format!("the audit file has {entries:?}").into());
    }
    if !lines(&mesh, "web-0.lab")?.is_empty() {
        return Err("the server logs to standard output too".into());
    }
    for secret in ["top-secret", "NIK-7", "token=", "hush-hush"] {
        let everywhere = lines(&mesh, "client-0.lab")?.join("\n") + &fs::read_to_string(audit)?;
        if everywhere.contains(secret) {
            return Err(format!("{secret} is in a log").into());
        }
    }

    // A workload's own object turns its end off, and no other.
    mesh.apply(QUIET)?;
    let before = lines(&mesh, "client-0.lab")?.len();
    eventually("the client is quiet", WRITTEN, || {
        let before = lines(&mesh, "client-0.lab").ok()?.len();
        call(&mesh, "/status/404").ok()?;
        // Longer than any proxy keeps a line to itself.
        std::thread::sleep(Duration::from_millis(1500));
        (lines(&mesh, "client-0.lab").ok()?.len() == before).then_some(())
    })?;
    println!(
        "    {before} lines of the client, {} in the audit file",
        entries.len()
    );
    let audited = fs::read_to_string(audit)?.lines().count();
    if audited < 3 {
        return Err(format!("the server's end was turned off too: {audited}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn one_request(plane: Plane) -> Result<Outcome> {
    const ID: &str = "0b6d2f9e-51f5-9c3e-8d21-7a0f64c1b9d3";
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}{}\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data: {{mesh: 'accessLogFile: /dev/stdout'}}\n",
        lab::STRICT,
        lab::chain()
    );
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    if mesh.rajut(&["logs", "--request", ID]).is_ok() {
        return Err("a request that nobody made is found".into());
    }
    for id in ["another-request", ID] {
        let header = format!("x-request-id: {id}");
        let url = "http://front:8080/records/7";
        let curl = ["curl", "-s", "-f", "--max-time", "20", "-H", &header, url];
        mesh.exec("client-0.lab", &curl)?;
    }
    // Who wrote each line, and at which end.
    let wanted = [
        ("client-0.lab", "outbound|"),
        ("front-0.lab", "inbound|"),
        ("front-0.lab", "outbound|"),
        ("middle-0.lab", "inbound|"),
        ("middle-0.lab", "outbound|"),
        ("back-0.lab", "inbound|"),
    ];
    let mut found = Value::Null;
    eventually("every sidecar has written its lines", WRITTEN, || {
        let said = mesh.rajut(&["logs", "--request", ID, "-o", "json"]).ok()?;
        found = serde_json::from_str(&said).ok()?;
        let lines = found["lines"].as_array()?;
        let right = lines.len() == wanted.len()
            && lines.iter().zip(wanted).all(|(line, (workload, end))| {
                line["workload"] == workload && line["line"].as_str().is_some_and(|line| line.contains(end))
            });
        right.then_some(())
    })
    .map_err(|error| format!("{error}\n{found:#}"))?;
    mesh.down()?;
    Ok(Outcome::Passed)
}
