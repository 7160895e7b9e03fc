//! Active health checks: an endpoint that does not pass them gets no requests, over mTLS and to outside, until it passes or
//! nobody asks any more.

use std::{collections::BTreeSet, time::Duration};

use super::egress::Outside;
use crate::{
    client::get,
    lab::{self, Workload, from_client, python},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "endpoints_that_fail_their_health_checks_get_no_requests",
    planes: BOTH,
    run: checks,
}];

/// Nobody listens there.
const NOBODY: u16 = 1;

/// `check`: what the annotation asks.
fn rule(host: &str, check: Option<&str>) -> String {
    let annotations = check.map_or_else(String::new, |check| {
        format!(
            "
  annotations:
    mesh.rajut.dev/health-check: {check}
    mesh.rajut.dev/health-check-interval: 500ms
    mesh.rajut.dev/health-check-unhealthy-threshold: '2'"
        )
    });
    let name = host.split('.').next().unwrap_or_default();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {name}
  namespace: lab{annotations}
spec:
  host: {host}
  trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}}}
"
    )
}

fn setup(outside: u16) -> Setup {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
        lab::STRICT
    );
    let rpc = format!(
        "SICK=rpc-0 exec {} {} ${{PORT:-9000}}",
        python(),
        lab::app("grpc_server.py").display()
    );
    let sample = format!("exec {} sample", env!("CARGO_BIN_EXE_rajut"));
    let mut workloads = vec![
        ("web", 8080, "http", 3, sample),
        ("client", 8090, "http", 1, lab::server("http", 8090)),
    ];
    if lab::python_has("grpc") {
        workloads.push(("rpc", 9000, "grpc", 2, rpc));
    }
    for (name, port, port_name, replicas, run) in workloads {
        text += &lab::yaml(&Workload {
            name,
            port,
            port_name,
            replicas,
            run,
            more: "",
        });
    }
    text += &format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: pair, namespace: lab}}
spec:
  hosts: [pair.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 7000, name: tcp, protocol: TCP}}]
  endpoints:
  - {{address: 127.0.0.1, ports: {{tcp: {outside}}}}}
  - {{address: 127.0.0.1, ports: {{tcp: {NOBODY}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: lab}}
spec:
  hosts: [web]
  http:
  - retries: {{attempts: 0}}
    route: [{{destination: {{host: web}}}}]
"
    );
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

/// Who answers, of 12 requests from the host.
fn instances(address: &str) -> Option<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for _ in 0..12 {
        let answer = get(address, address, "/").ok()?;
        found.insert(answer.json().ok()?["instance"].as_str()?.to_owned());
    }
    Some(found)
}

/// How many servers answer 12 calls.
const CALLS: &str = r#"
import grpc, json
call = grpc.insecure_channel("rpc:9000").unary_unary("/test.Echo/Caller")
print(len({json.loads(call(b"", timeout=10, wait_for_ready=True))["server"] for _ in range(12)}))
"#;

/// How many of 12 connections lead to somebody.
const CONNECTIONS: &str = r#"
import socket
made = 0
for _ in range(12):
    try:
        with socket.create_connection(("pair.example", 7000), 5) as s:
            s.sendall(b"ping")
            made += bool(s.recv(10))
    except OSError:
        pass
print(made)
"#;

/// Whether the endpoint that fails its checks is left out, where that could be found out.
type Avoids<'m> = Box<dyn Fn() -> Option<bool> + 'm>;

fn checks(plane: Plane) -> Result<Outcome> {
    let outside = Outside::listen("127.0.0.1", 0)?;
    let mesh = Mesh::up(plane, &setup(outside.port))?;
    let address = mesh.host_address("web")?;
    let patience = Duration::from_secs(30);
    let rows: [(&str, &str, Avoids<'_>); 3] = [
        (
            "web.lab.svc.cluster.local",
            "http /fail?rate=1&status=503&instance=web-0",
            Box::new(|| Some(!instances(&address)?.contains("web-0"))),
        ),
        (
            "pair.example",
            "tcp",
            Box::new(|| Some(from_client(&mesh, CONNECTIONS).ok()?.trim() == "12")),
        ),
        (
            "rpc.lab.svc.cluster.local",
            "grpc sick",
            Box::new(|| Some(from_client(&mesh, CALLS).ok()?.trim() == "1")),
        ),
    ];
    for (host, check, avoids) in &rows {
        if host.starts_with("rpc") && !lab::python_has("grpc") {
            println!("    without grpcio: {check} is not tried");
            continue;
        }
        mesh.apply(&rule(host, None))?;
        eventually(&format!("{host} without checks is used whole"), patience, || {
            (!avoids()?).then_some(())
        })?;
        mesh.apply(&rule(host, Some(check)))?;
        eventually(
            &format!("{host}: who fails `{check}` is left out"),
            patience,
            || avoids()?.then_some(()),
        )?;
        if host.starts_with("pair") {
            explained(plane, &mesh)?;
        }
        mesh.apply(&rule(host, None))?;
        eventually(&format!("{host}: who is asked no more is back"), patience, || {
            (!avoids()?).then_some(())
        })?;
    }
    drop(rows);
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// `proxy-config` and `why` say who is out, and why.
fn explained(plane: Plane, mesh: &Mesh) -> Result {
    let table = mesh.rajut(&["proxy-config", "endpoints", "client-0.lab"])?;
    let row = table
        .lines()
        .find(|line| line.contains("pair.example") && line.contains(&format!("127.0.0.1:{NOBODY} ")))
        .unwrap_or_default();
    let why = mesh.rajut(&["why", "--from", "client-0.lab", "--to", "tcp://pair.example:7000"])?;
    let is_told = why.contains("health check") && why.contains(&format!("127.0.0.1:{NOBODY}: failed check"));
    let reason = plane == Plane::Envoy || row.contains("Connection refused");
    if row.contains("FAILED CHECK") && reason && is_told {
        Ok(())
    } else {
        Err(format!("{row}\n{why}").into())
    }
}
