//! `rajut status`: what runs and whether it is healthy. Never green on an empty mesh.

mod usage;

use std::{net::SocketAddr, process::ExitCode};

use rajut_local::{
    certificate::{Certificate, workload_certificate},
    plan::CaptureMode,
    state::{MeshRecord, ProcessRecord, WorkloadRecord, WorkloadState},
    supervisor::is_ready,
};
use serde_json::{Value, json};

use super::{
    admin::{self, Upstreams},
    answer, block_on, lifecycle,
    mesh::Place,
};
use crate::output::{self, Format, Table};

/// One workload with what its sidecar says.
struct Seen<'a> {
    workload: &'a WorkloadRecord,
    upstreams: Upstreams,
    certificate: Option<Certificate>,
    /// The sidecar did not answer: why.
    silent: Option<String>,
}

/// Exit status 0 only when everything that should run is ready.
pub(crate) fn status(place: &Place, format: Format) -> anyhow::Result<ExitCode> {
    let mesh = match place.running() {
        Ok(mesh) => mesh,
        Err(error) => {
            if format == Format::Json {
                output::print_json(&json!({
                    "health": "down", "healthy": false, "reasons": [error.to_string()],
                    "workloads": [], "services": [], "notStarted": [],
                }))?;
            } else {
                output::print_line(&error.to_string())?;
            }
            return Ok(ExitCode::from(1));
        }
    };
    let seen = block_on(look_at(&mesh))?;
    let errors = configuration_errors(place);
    let reasons = reasons(&mesh, &seen);
    let health = health(&mesh, &reasons);
    match format {
        Format::Json => {
            let mut status = to_json(&mesh, &seen, health, &reasons);
            status["configurationErrors"] = json!(errors);
            output::print_json(&status)?;
        }
        Format::Text => {
            let mut text = to_text(&mesh, &seen, health, &reasons);
            for error in &errors {
                append!(text, "! {}\n", error_line(error));
            }
            output::print(&text)?;
        }
    }
    Ok(answer(health == "healthy"))
}

async fn look_at(mesh: &MeshRecord) -> anyhow::Result<Vec<Seen<'_>>> {
    // All sidecars at once: one that does not answer must not hold up the others.
    let looks: Vec<_> = mesh
        .workloads
        .iter()
        .map(|workload| tokio::spawn(look(workload.admin)))
        .collect();
    let mut seen = Vec::new();
    for (workload, look) in mesh.workloads.iter().zip(looks) {
        let (upstreams, certificate, silent) = look.await?;
        seen.push(Seen {
            workload,
            upstreams,
            certificate,
            silent,
        });
    }
    Ok(seen)
}

/// What `-o json` prints, without the configuration's errors.
pub(crate) async fn json(mesh: &MeshRecord) -> anyhow::Result<Value> {
    let seen = look_at(mesh).await?;
    let reasons = reasons(mesh, &seen);
    Ok(to_json(mesh, &seen, health(mesh, &reasons), &reasons))
}

async fn look(admin: SocketAddr) -> (Upstreams, Option<Certificate>, Option<String>) {
    let (stats, certificate) = tokio::join!(
        admin::text(admin, "/stats/prometheus"),
        workload_certificate(admin)
    );
    let upstreams = stats.as_deref().map(admin::upstreams).unwrap_or_default();
    (upstreams, certificate, stats.err().map(|error| error.to_string()))
}

/// Errors in the files that the mesh runs on: what worked before goes on, so they are no matter of health. None where the
/// control plane does not answer, which is told elsewhere.
fn configuration_errors(place: &Place) -> Vec<Value> {
    let found = place
        .control()
        .and_then(|control| block_on(async move { Ok(control.json("GET", "/v1/diagnostics", None).await?) }));
    let found = found.unwrap_or_default();
    let all = found.get("diagnostics").and_then(Value::as_array);
    let is_error = |found: &&Value| found.get("severity").and_then(Value::as_str) == Some("error");
    all.into_iter().flatten().filter(is_error).cloned().collect()
}

fn error_line(error: &Value) -> String {
    let text = |pointer: &str| error.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let line = error.pointer("/origin/line").and_then(Value::as_u64).unwrap_or(0);
    format!(
        "configuration: {}:{line}: {} ({}); what worked before goes on",
        text("/origin/source"),
        text("/message"),
        text("/code")
    )
}

/// What keeps the mesh from being healthy, one line each.
fn reasons(mesh: &MeshRecord, seen: &[Seen<'_>]) -> Vec<String> {
    let mut reasons = Vec::new();
    if mesh.workloads.is_empty() {
        reasons.push("nothing runs in this mesh".to_owned());
    }
    if mesh.control.pid == 0 {
        reasons.push(format!(
            "the control plane does not run ({})",
            mesh.control.last_exit
        ));
    }
    if !mesh.services.is_empty() && mesh.gateway_state != WorkloadState::Ready {
        reasons.push("the host gateway is not ready".to_owned());
    }
    for Seen {
        workload,
        upstreams,
        silent,
        ..
    } in seen
    {
        if workload.state != WorkloadState::Ready {
            let why = if workload.reason.is_empty() {
                lifecycle::state_text(workload.state)
            } else {
                &workload.reason
            };
            reasons.push(format!("{}: {why}", workload.name));
        } else if let Some(silent) = silent {
            reasons.push(format!(
                "{}: its sidecar does not answer: {silent}",
                workload.name
            ));
        }
        for (cluster, limit) in &upstreams.open_circuits {
            reasons.push(format!("{}: circuit open to {cluster} ({limit})", workload.name));
        }
        for (cluster, count) in &upstreams.ejections {
            reasons.push(format!(
                "{}: {count} endpoints of {cluster} are ejected",
                workload.name
            ));
        }
    }
    reasons
}

fn health(mesh: &MeshRecord, reasons: &[String]) -> &'static str {
    if mesh.workloads.is_empty() {
        "empty"
    } else if reasons.is_empty() && is_ready(mesh) {
        "healthy"
    } else {
        "degraded"
    }
}

fn process_json(process: &ProcessRecord) -> Value {
    json!({
        "running": process.pid != 0,
        "pid": process.pid,
        "restarts": process.restarts,
        "lastExit": process.last_exit,
    })
}

fn gateway_json(mesh: &MeshRecord) -> Value {
    let mut gateway = process_json(&mesh.gateway);
    gateway["adminAddress"] = json!(mesh.gateway_admin.to_string());
    gateway
}

fn to_json(mesh: &MeshRecord, seen: &[Seen<'_>], health: &str, reasons: &[String]) -> Value {
    let workloads: Vec<Value> = seen.iter().map(workload_json).collect();
    let services: Vec<Value> = mesh
        .services
        .iter()
        .map(|service| {
            json!({
                "name": service.name, "namespace": service.namespace, "port": service.port,
                "hostAddress": service.url,
            })
        })
        .collect();
    json!({
        "health": health,
        "healthy": health == "healthy",
        "reasons": reasons,
        "capture": mesh.capture,
        "bypassPossible": mesh.capture == CaptureMode::Explicit,
        "dataPlane": mesh.data_plane,
        "namespace": mesh.namespace,
        "started": mesh.started,
        "sources": mesh.sources,
        "controlPlane": process_json(&mesh.control),
        "discoveryAddress": mesh.discovery,
        "hostGateway": gateway_json(mesh),
        "workloads": workloads,
        "services": services,
        "notStarted": mesh.not_started,
    })
}

fn workload_json(
    Seen {
        workload,
        upstreams,
        certificate,
        silent,
    }: &Seen<'_>,
) -> Value {
    let circuits: Vec<Value> = upstreams
        .open_circuits
        .iter()
        .map(|(cluster, limit)| json!({"cluster": cluster, "limit": limit}))
        .collect();
    let ejections: Vec<Value> = upstreams
        .ejections
        .iter()
        .map(|(cluster, count)| json!({"cluster": cluster, "endpoints": count}))
        .collect();
    json!({
        "name": workload.name,
        "namespace": workload.namespace,
        "deployment": workload.deployment,
        "identity": workload.identity,
        "ready": workload.state == WorkloadState::Ready,
        "state": workload.state,
        "reason": workload.reason,
        "address": workload.address,
        "ports": workload.ports,
        "reachedPorts": workload.reached_ports,
        "lateServices": workload.late_services,
        "adminAddress": workload.admin.to_string(),
        "application": process_json(&workload.app),
        "sidecar": process_json(&workload.sidecar),
        "sidecarError": silent,
        "certificateExpiresSeconds": certificate
            .as_ref()
            .and_then(|certificate| super::time::since(&certificate.not_after))
            .map(|seconds| -seconds),
        "certificate": certificate.as_ref().map(|certificate| json!({
            "identity": certificate.identity,
            "notBefore": certificate.not_before,
            "notAfter": certificate.not_after,
            "ageSeconds": super::time::since(&certificate.not_before),
            "remainingSeconds": super::time::since(&certificate.not_after).map(|seconds| -seconds),
        })),
        "openCircuits": circuits,
        "ejections": ejections,
        "usage": usage::shares(
            usage::of_process(workload.app.pid),
            usage::of_process(workload.sidecar.pid),
            silent.is_none().then_some(upstreams.requests),
        ),
    })
}

fn to_text(mesh: &MeshRecord, seen: &[Seen<'_>], health: &str, reasons: &[String]) -> String {
    let capture = match mesh.capture {
        CaptureMode::Netns => "a network namespace for each workload",
        CaptureMode::Explicit => "explicit ports: local processes can bypass their sidecars",
    };
    let mut text = format!("{health}; {capture}\n\n");
    let mut table = Table::new(&[
        "WORKLOAD",
        "NAMESPACE",
        "STATE",
        "RESTARTS",
        "CERTIFICATE UNTIL",
        "ADDRESS",
    ]);
    for Seen {
        workload,
        certificate,
        ..
    } in seen
    {
        table.row([
            workload.name.clone(),
            workload.namespace.clone(),
            lifecycle::state_text(workload.state).to_owned(),
            format!("{}+{}", workload.app.restarts, workload.sidecar.restarts),
            certificate
                .as_ref()
                .map_or_else(|| "-".to_owned(), |certificate| certificate.not_after.clone()),
            workload.address.clone(),
        ]);
    }
    text.push_str(&table.render());
    text.push('\n');
    let mut services = Table::new(&["SERVICE", "PORT", "ON THIS HOST"]);
    for service in &mesh.services {
        services.row([
            format!("{}.{}", service.name, service.namespace),
            service.port.to_string(),
            service.url.clone(),
        ]);
    }
    text.push_str(&services.render());
    for reason in reasons {
        append!(text, "! {reason}\n");
    }
    for workload in mesh.workloads.iter().filter(|row| !row.late_services.is_empty()) {
        append!(
            text,
            "no ports yet: {} was started before {} came; `rajut restart {}`\n",
            workload.name,
            workload.late_services.join(", "),
            workload.name
        );
    }
    for missing in &mesh.not_started {
        append!(
            text,
            "not started: {} has no command; add {}\n",
            missing.name,
            missing.add
        );
    }
    text
}
