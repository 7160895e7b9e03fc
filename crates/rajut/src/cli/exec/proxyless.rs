//! `rajut exec --grpc-xds`: the command is a gRPC process without a sidecar, and this process is its agent meanwhile.
//!
//! It runs in this machine's own network, since a workload's namespace has no way out but its sidecar. Bootstrap and
//! certificate lie in a folder of the state directory, for the owner only, which goes when the command ends.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Context;
use rajut_local::{
    commands::{CONTROL_SERVER_NAME, SidecarCommand},
    state::{MeshRecord, WorkloadRecord},
};
use rajut_platform::{
    process::{Isolation, Signal, spawn},
    signals::{Shutdown, ShutdownSignals},
};
use rajut_proxy::{
    agent::{self, AgentOptions, grpc::GrpcOptions},
    enrol::Enrolment,
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{super::daemons::CERTIFICATE_LIFE, Place, code_of};

/// Removes the key with all that is beside it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, folder = %self.0.display(), "not removed");
        }
    }
}

/// Runs the command until it ends; signals go to it.
pub(super) fn run(
    place: &Place,
    mesh: &MeshRecord,
    workload: &WorkloadRecord,
    mut command: Command,
) -> anyhow::Result<ExitCode> {
    let folder = Folder(place.state.grpc_dir().join(std::process::id().to_string()));
    let sidecar = SidecarCommand {
        folder: place
            .state
            .sidecar_dir(&format!("{}.{}", workload.name, workload.namespace)),
        control: mesh.discovery,
        namespace: None,
    };
    let grpc = GrpcOptions {
        folder: folder.0.clone(),
        control: mesh.discovery.to_string(),
        workload: workload.name.clone(),
        labels: labels(&sidecar)?,
        address: workload.address.parse().context("the workload's address")?,
    };
    command.env("GRPC_XDS_BOOTSTRAP", grpc.bootstrap());
    let options = AgentOptions {
        xds_socket: None,
        grpc: Some(grpc),
        enrolment: Enrolment {
            address: mesh.discovery.to_string(),
            server_name: CONTROL_SERVER_NAME.to_owned(),
            roots: place.state.roots_file(),
            token: sidecar.token(),
            ttl: CERTIFICATE_LIFE,
        },
        dns: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let (ready, is_ready) = oneshot::channel();
        // The receiver goes only together with this.
        let serving = agent::serve(&options, || {
            let _ = ready.send(());
        });
        tokio::select! {
            served = serving => served.and(Err(anyhow::anyhow!("the agent ended before the command"))),
            code = run_when(is_ready, command) => code,
        }
    })
}

async fn run_when(ready: oneshot::Receiver<()>, command: Command) -> anyhow::Result<ExitCode> {
    let mut signals = ShutdownSignals::listen()?;
    tokio::select! {
        ready = ready => ready.context("no certificate")?,
        _ = signals.next() => anyhow::bail!("interrupted before there was a certificate"),
    }
    let program = command.get_program().display().to_string();
    let isolation = Isolation {
        die_with_parent: true,
        ..Isolation::default()
    };
    let mut child = spawn(command, isolation).with_context(|| format!("can't run {program}"))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code_of(status?)),
            // The terminal has sent Ctrl-C to the command too.
            signal = signals.next() => if signal == Shutdown::Terminate {
                child.signal(Signal::TERM)?;
            },
        }
    }
}

/// The workload's labels, from its sidecar's bootstrap.
fn labels(sidecar: &SidecarCommand) -> anyhow::Result<Vec<(String, String)>> {
    let path = sidecar.bootstrap();
    let shown = path.display();
    let text = fs::read(&path).with_context(|| shown.to_string())?;
    let bootstrap: Value = serde_json::from_slice(&text).with_context(|| shown.to_string())?;
    let labels = bootstrap
        .pointer("/node/metadata/LABELS")
        .and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    Ok(labels.into_iter().flatten().filter_map(text).collect())
}
