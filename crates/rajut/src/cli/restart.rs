//! `rajut restart`: starts a workload's application anew without failing a request of it.
//!
//! One replica after the other: taken out of service, its requests ended, its process stopped and started, back in
//! service; then the next. The supervisor does it; this module asks for it and looks when it is done.
#![expect(clippy::disallowed_methods, reason = "a command has its thread for itself")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use rajut_local::{
    client::query_escape,
    state::{MeshRecord, WorkloadRecord, WorkloadState},
};

use super::{block_on, mesh::Place};
use crate::output;

const POLL: Duration = Duration::from_millis(20);
const ASK_MAX: Duration = Duration::from_secs(10);

/// `rajut restart`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut restart encounter-service        every replica, one after the other
  rajut restart encounter-service-1      this one alone")]
pub(crate) struct RestartArgs {
    /// A workload or a deployment, NAME or NAME.NAMESPACE
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How long each replica may take to be back, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub(crate) fn restart(place: &Place, args: &RestartArgs) -> anyhow::Result<ExitCode> {
    let mesh = place.running()?;
    for name in &args.names {
        let found = named(&mesh, name);
        if found.is_empty() {
            // Says what there is.
            super::mesh::workload(&mesh, name)?;
        }
        for workload in found {
            one(place, workload, Duration::from_secs(args.timeout))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The workload of that name, or all of the deployment.
fn named<'a>(mesh: &'a MeshRecord, name: &str) -> Vec<&'a WorkloadRecord> {
    let is = |own: &str, namespace: &str| {
        name == own || name.strip_prefix(own).and_then(|rest| rest.strip_prefix('.')) == Some(namespace)
    };
    let of = |test: fn(&WorkloadRecord) -> &str| -> Vec<&'a WorkloadRecord> {
        mesh.workloads
            .iter()
            .filter(|workload| is(test(workload), &workload.namespace))
            .collect()
    };
    let exact = of(|workload| &workload.name);
    if exact.is_empty() {
        of(|workload| &workload.deployment)
    } else {
        exact
    }
}

fn one(place: &Place, workload: &WorkloadRecord, limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    let before = &workload.app;
    if before.pid == 0 && workload.state == WorkloadState::Ready {
        bail!(
            "{} is a gateway: it has no application to restart, and takes changes while it runs",
            workload.name
        );
    }
    let path = format!(
        "/v1/workloads/{}/{}/restart",
        query_escape(&workload.namespace),
        query_escape(&workload.name)
    );
    let control = place.control()?;
    block_on(async { Ok(control.call("POST", &path, Bytes::new(), ASK_MAX).await?) })
        .with_context(|| format!("{} is not restarted", workload.name))?;
    loop {
        let mesh = place.running()?;
        // It is absent for a moment where its sidecar is started anew, too.
        let row = mesh
            .workloads
            .iter()
            .find(|row| row.name == workload.name && row.namespace == workload.namespace);
        if let Some(row) = row
            && row.state == WorkloadState::Ready
            && (row.app.restarts > before.restarts || ![0, before.pid].contains(&row.app.pid))
        {
            let seconds = started.elapsed().as_secs_f64();
            output::print_line(&format!("{} is back after {seconds:.1} s", row.name))?;
            return Ok(());
        }
        if started.elapsed() > limit {
            let (state, reason) = row.map_or(("gone", ""), |row| {
                (super::lifecycle::state_text(row.state), &row.reason)
            });
            bail!(
                "{} is not back after {} s: {state} {reason}",
                workload.name,
                limit.as_secs(),
            );
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use rajut_local::{bootstrap::DataPlane, plan::CaptureMode, state::ProcessRecord};

    use super::*;

    fn mesh(rows: &[(&str, &str, &str)]) -> MeshRecord {
        let row = |(name, deployment, namespace): &(&str, &str, &str)| WorkloadRecord {
            name: (*name).to_owned(),
            deployment: (*deployment).to_owned(),
            namespace: (*namespace).to_owned(),
            service_account: String::new(),
            identity: String::new(),
            certificate_until: String::new(),
            address: String::new(),
            admin: ([127, 0, 0, 1], 1).into(),
            network_namespace: String::new(),
            ports: Vec::new(),
            reached_ports: std::collections::BTreeMap::new(),
            app: ProcessRecord::default(),
            sidecar: ProcessRecord::default(),
            state: WorkloadState::Ready,
            reason: String::new(),
            env: Vec::new(),
            late_services: Vec::new(),
        };
        MeshRecord {
            supervisor: String::new(),
            run: String::new(),
            capture: CaptureMode::Explicit,
            data_plane: DataPlane::Rajut,
            namespace: String::new(),
            started: String::new(),
            sources: Vec::new(),
            control: ProcessRecord::default(),
            discovery: ([127, 0, 0, 1], 1).into(),
            gateway: ProcessRecord::default(),
            gateway_state: WorkloadState::Ready,
            gateway_admin: ([127, 0, 0, 1], 1).into(),
            workloads: rows.iter().map(row).collect(),
            services: Vec::new(),
            not_started: Vec::new(),
        }
    }

    #[test]
    fn a_deployment_means_all_of_its_replicas_and_a_workload_itself() {
        let mesh = mesh(&[("a-0", "a", "x"), ("a-1", "a", "x"), ("a-0", "a", "y")]);
        let names = |name: &str| -> Vec<String> {
            let key = |row: &WorkloadRecord| format!("{}.{}", row.name, row.namespace);
            named(&mesh, name).into_iter().map(key).collect()
        };
        assert_eq!(names("a.x"), ["a-0.x", "a-1.x"]);
        assert_eq!(names("a-1"), ["a-1.x"]);
        assert_eq!(names("a-0"), ["a-0.x", "a-0.y"]);
        assert!(names("b").is_empty());
    }
}
