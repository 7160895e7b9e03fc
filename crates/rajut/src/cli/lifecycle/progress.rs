//! What `up` shows: one line that changes while things start, then the table.

use std::io::{self, Write};

use rajut_local::state::{MeshRecord, WorkloadRecord, WorkloadState};

use crate::output::{self, Table};

/// The changing line; nothing in a pipe.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    shown: String,
}

impl Progress {
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            shown: String::new(),
        }
    }

    pub(super) fn show(&mut self, mesh: &MeshRecord) {
        self.line(&summary(mesh));
    }

    pub(super) fn line(&mut self, text: &str) {
        if !self.terminal || text == self.shown {
            return;
        }
        let mut out = io::stdout().lock();
        let shortened: String = text.chars().take(100).collect();
        // Back to the beginning of the line, and away with what stood there. A terminal that is gone is no error here.
        let _ = write!(out, "\r\x1b[2K{shortened}");
        let _ = out.flush();
        text.clone_into(&mut self.shown);
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            let mut out = io::stdout().lock();
            let _ = write!(out, "\r\x1b[2K");
            let _ = out.flush();
            self.shown.clear();
        }
    }
}

/// `starting: 9 of 13 ready; encounter-service-1: port 8080 does not accept connections`
fn summary(mesh: &MeshRecord) -> String {
    let all = mesh.workloads.len();
    let ready = mesh
        .workloads
        .iter()
        .filter(|workload| workload.state == WorkloadState::Ready)
        .count();
    let mut text = if mesh.control.pid == 0 {
        "starting the control plane".to_owned()
    } else {
        format!("starting: {ready} of {all} workloads ready")
    };
    if let Some(waiting) = mesh
        .workloads
        .iter()
        .find(|workload| workload.state != WorkloadState::Ready && !workload.reason.is_empty())
    {
        append!(text, "; {}: {}", spoken_name(mesh, waiting), waiting.reason);
    }
    text
}

/// The table: workload, identity, state, certificate's expiry; then each service's address.
pub(super) fn table(mesh: &MeshRecord) -> String {
    let mut workloads = Table::new(&["WORKLOAD", "IDENTITY", "STATE", "CERTIFICATE UNTIL"]);
    for workload in &mesh.workloads {
        workloads.row([
            workload.name.clone(),
            workload.identity.clone(),
            state_text(workload.state).to_owned(),
            if workload.certificate_until.is_empty() {
                "-".to_owned()
            } else {
                workload.certificate_until.clone()
            },
        ]);
    }
    let mut text = workloads.render();
    if !mesh.services.is_empty() {
        text.push('\n');
        let mut services = Table::new(&["SERVICE", "ON THIS HOST"]);
        for service in &mesh.services {
            let several = mesh
                .services
                .iter()
                .filter(|other| other.name == service.name && other.namespace == service.namespace)
                .count()
                > 1;
            let port = if several {
                format!(":{}", service.port)
            } else {
                String::new()
            };
            services.row([format!("{}{port}", service.name), service.url.clone()]);
        }
        text.push_str(&services.render());
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

/// One line for each workload that is not ready.
pub(super) fn not_ready(mesh: &MeshRecord) -> String {
    let mut text = String::new();
    for workload in &mesh.workloads {
        if workload.state != WorkloadState::Ready {
            let reason = if workload.reason.is_empty() {
                "it has not started yet"
            } else {
                &workload.reason
            };
            append!(text, "{}: {reason}\n", spoken_name(mesh, workload));
        }
    }
    if !mesh.services.is_empty() && mesh.gateway_state != WorkloadState::Ready {
        let why = if mesh.gateway.last_exit.is_empty() {
            "it is not ready yet"
        } else {
            &mesh.gateway.last_exit
        };
        append!(text, "host gateway: {why}\n");
    }
    text
}

/// What people call it: the deployment, where it has one instance.
fn spoken_name<'a>(mesh: &MeshRecord, workload: &'a WorkloadRecord) -> &'a str {
    let instances = mesh
        .workloads
        .iter()
        .filter(|other| other.deployment == workload.deployment && other.namespace == workload.namespace)
        .count();
    if instances == 1 {
        &workload.deployment
    } else {
        &workload.name
    }
}

pub(crate) fn state_text(state: WorkloadState) -> &'static str {
    match state {
        WorkloadState::Starting => "starting",
        WorkloadState::Ready => "ready",
        WorkloadState::NotReady => "not ready",
        WorkloadState::Restarting => "restarting",
        WorkloadState::Stopping => "stopping",
    }
}

/// Says something between progress lines.
pub(super) fn say(progress: &mut Progress, text: &str) -> anyhow::Result<()> {
    progress.clear();
    output::print(text)
}
