//! Proxyless gRPC: grpcio's own xDS client gets its services from our control plane and calls them without a sidecar.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    lab::{self, Workload, app, python, python_has},
    mesh::{Mesh, Setup, eventually},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "grpcio_resolves_xds_targets_and_calls_them_permissive_and_strict",
    planes: OURS,
    run: proxyless,
}];

const TARGET: &str = "xds:///rpc.lab.svc.cluster.local:9000";
const CALLER: &str = "spiffe://cluster.local/ns/lab/sa/client";

fn proxyless(plane: Plane) -> Result<Outcome> {
    if !python_has("grpc") {
        return Ok(Outcome::Skipped(
            "grpcio is not here (pip install grpcio, or set RAJUT_TEST_PYTHON)".into(),
        ));
    }
    let mesh = Mesh::up(plane, &setup())?;
    let started = Instant::now();
    // PERMISSIVE: in plaintext, and with certificates by provider.
    let plain = called(&mesh, "plaintext")?;
    if plain["caller"] != "" {
        return Err(format!("a certificate in plaintext: {plain:#}").into());
    }
    named(&called(&mesh, "mesh")?)?;
    println!(
        "    three clients resolved and called in {:.1} s",
        started.elapsed().as_secs_f64()
    );

    mesh.apply(lab::STRICT)?;
    named(&called(&mesh, "mesh")?)?;
    eventually("STRICT refuses plaintext", Duration::from_secs(10), || {
        let refused = client(&mesh, "plaintext").ok()?;
        (refused["failed"] == "UNAVAILABLE").then_some(())
    })?;
    let folder = mesh.state.join("grpc");
    if std::fs::read_dir(&folder)?.next().is_some() {
        return Err(format!("keys are left in {}", folder.display()).into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn setup() -> Setup {
    let run = format!("exec {} {} 9000", python(), app("grpc_server.py").display());
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n".to_owned();
    for (name, port, port_name, replicas, run) in [
        ("rpc", 9000, "grpc", 2, run),
        ("client", 8090, "http", 1, lab::server("http", 8090)),
    ] {
        text += &lab::yaml(&Workload {
            name,
            port,
            port_name,
            replicas,
            run,
            more: "",
        });
    }
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

/// What the client found out, whether or not its calls went through.
fn client(mesh: &Mesh, credentials: &str) -> Result<Value> {
    let script = app("xds_client.py").display().to_string();
    let text = mesh.rajut(&[
        "exec",
        "--grpc-xds",
        "client.lab",
        "--",
        &python(),
        &script,
        TARGET,
        credentials,
    ])?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}").into())
}

/// A client whose calls go through, to both servers, and whose files nobody else can read.
fn called(mesh: &Mesh, credentials: &str) -> Result<Value> {
    let found = client(mesh, credentials)?;
    let as_expected = found["unary"] == "hello"
        && found["stream"] == 10
        && found["servers"] == 2
        && found["modes"] == serde_json::json!(["0o600"]);
    if as_expected {
        Ok(found)
    } else {
        Err(format!("{credentials}: {found:#}").into())
    }
}

/// The server's sidecar has seen the workload's own identity.
fn named(found: &Value) -> Result {
    let caller = found["caller"].as_str().unwrap_or_default();
    if caller.contains(&format!("URI={CALLER}")) {
        Ok(())
    } else {
        Err(format!("the caller is {caller:?} instead of {CALLER}").into())
    }
}
