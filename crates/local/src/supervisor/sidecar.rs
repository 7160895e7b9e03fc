//! Sidecar processes: ours, or Envoy with our agent beside it; and the host gateway, which is one of them.

use std::{cell::Cell, net::SocketAddr, path::PathBuf, rc::Rc, time::Duration};

use rajut_platform::process::Isolation;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Context, Phase, SIDECAR_GRACE, ending, files,
    keep::{Change, keep},
    reached,
    slot::Slot,
    tell,
};
use crate::{
    bootstrap::{self, DataPlane, Discovery, Gateway},
    client::{Ask, Target, ask},
    commands::{self, SidecarCommand},
    process::Spawn,
    state::{WorkloadState, write_private},
};

const READY_POLL: Duration = Duration::from_millis(15);
/// Longer than a sidecar should take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tokens are renewed this often; they live for a day.
const TOKEN_RENEWAL: Duration = Duration::from_hours(1);

/// Whom a sidecar serves, as the control plane and the files know it.
#[derive(Debug, Clone)]
pub(super) struct Served {
    /// Key in file names.
    pub(super) key: String,
    /// Namespace of its identity.
    pub(super) namespace: String,
    /// Service account of its identity.
    pub(super) service_account: String,
    /// The workload.
    pub(super) workload: String,
    /// Its admin port.
    pub(super) admin: SocketAddr,
}

impl Served {
    fn command(&self, context: &Context, namespace: Option<PathBuf>) -> SidecarCommand {
        SidecarCommand {
            folder: context.options.state.sidecar_dir(&self.key),
            control: context.options.control.listen,
            namespace,
        }
    }
}

/// The sidecar of a workload, until sidecars stop.
pub(super) async fn workload(context: Rc<Context>, slot: Rc<Slot>, namespace: Option<PathBuf>) {
    let instance = &slot.instance;
    let served = Served {
        key: instance.key(),
        namespace: instance.namespace.to_string(),
        service_account: instance.service_account.to_string(),
        workload: instance.name.to_string(),
        admin: instance.admin(),
    };
    let command = served.command(&context, namespace);
    let data_plane = context.options.data_plane;
    let bootstrap = bootstrap::sidecar(
        instance,
        context.options.mode,
        command.namespace.as_deref(),
        data_plane,
        &discovery(&context, &command),
    );
    let phases = slot.phases();
    Box::pin(run(&context, &phases, &served, &command, &bootstrap, |change| {
        match &change {
            Change::Ended(how) => {
                let how = ending(&context.options.state, &format!("{}.sidecar", served.key), how);
                slot.set_sidecar(&context, Some(format!("its sidecar ended: {how}")));
            }
            Change::Started(_) => {
                let (context, slot, phases) = (Rc::clone(&context), Rc::clone(&slot), phases.clone());
                tokio::task::spawn_local(async move {
                    tokio::select! {
                        () = wait_ready(slot.instance.admin()) => slot.set_sidecar(&context, None),
                        () = reached(&phases, Phase::StopSidecars) => {}
                    }
                });
            }
            Change::Stopped => {}
        }
        slot.update(&context, |row| change.apply(&mut row.sidecar));
    }))
    .await;
}

/// The host gateway, or one for services that came later, until sidecars stop.
pub(super) async fn gateway(context: Rc<Context>, later: Option<Gateway>) {
    let is_first = later.is_none();
    let gateway = later.as_ref().unwrap_or(&context.options.gateway);
    let served = Served {
        key: format!("{}.{}", gateway.name, gateway.namespace),
        namespace: gateway.namespace.clone(),
        service_account: gateway.service_account.clone(),
        workload: gateway.name.clone(),
        admin: gateway.admin(),
    };
    let command = served.command(&context, None);
    let bootstrap = bootstrap::gateway(
        gateway,
        context.options.data_plane,
        &discovery(&context, &command),
    );
    let watch = async {
        if !is_first {
            std::future::pending::<()>().await;
        }
        loop {
            wait_ready(served.admin).await;
            context.update(|record| record.gateway_state = WorkloadState::Ready);
            let mut restarts = context.changed.subscribe();
            // Changed back when it ends, see below.
            let _ = restarts
                .wait_for(|_| context.record.borrow().gateway_state != WorkloadState::Ready)
                .await;
        }
    };
    let sidecar = run(
        &context,
        &context.phase,
        &served,
        &command,
        &bootstrap,
        |change| {
            context.update(|record| {
                if let Change::Ended(how) = &change {
                    record.gateway_state = WorkloadState::Restarting;
                    let how = ending(&context.options.state, &format!("{}.sidecar", served.key), how);
                    Change::Ended(how).apply(&mut record.gateway);
                    return;
                }
                change.apply(&mut record.gateway);
            });
        },
    );
    tokio::select! {
        () = sidecar => {}
        () = watch => {}
    }
}

fn discovery(context: &Context, command: &SidecarCommand) -> Discovery {
    match context.options.data_plane {
        DataPlane::Rajut => Discovery::Direct(context.options.control.listen),
        DataPlane::Envoy => Discovery::Agent(command.agent_socket()),
    }
}

/// Writes the files, and keeps the process or processes running.
async fn run(
    context: &Context,
    phases: &watch::Receiver<Phase>,
    served: &Served,
    command: &SidecarCommand,
    bootstrap: &Value,
    on: impl Fn(Change),
) {
    if let Err(error) = files::write_bootstrap(command, bootstrap) {
        on(Change::Ended(error.to_string()));
        return;
    }
    let first_token = Cell::new(false);
    let tokens = async {
        loop {
            let pause = match renew_token(context, served, command).await {
                Ok(()) => {
                    first_token.set(true);
                    TOKEN_RENEWAL
                }
                Err(error) => {
                    tracing::warn!(workload = served.key, error, "no token");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    let processes = async {
        while !first_token.get() {
            if *phases.borrow() != Phase::Run {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match context.options.data_plane {
            DataPlane::Rajut => {
                let program = || {
                    (
                        context.options.executable.clone(),
                        commands::proxy(command, &context.options.state),
                    )
                };
                one(context, phases, format!("{}.sidecar", served.key), program, &on).await;
            }
            DataPlane::Envoy => {
                let agent = || {
                    (
                        context.options.executable.clone(),
                        commands::agent(command, &context.options.state),
                    )
                };
                let envoy = || (context.options.envoy.clone(), commands::envoy(command));
                let agent_ended = |change| {
                    if let Change::Ended(how) = change {
                        tracing::warn!(workload = served.key, how, "the agent ended");
                    }
                };
                tokio::join!(
                    one(
                        context,
                        phases,
                        format!("{}.agent", served.key),
                        agent,
                        &agent_ended
                    ),
                    one(context, phases, format!("{}.sidecar", served.key), envoy, &on),
                );
            }
        }
    };
    tokio::select! {
        () = processes => {}
        () = tokens => {}
    }
}

async fn one(
    context: &Context,
    phases: &watch::Receiver<Phase>,
    name: String,
    program: impl Fn() -> (PathBuf, Vec<String>),
    on: &impl Fn(Change),
) {
    let spawn = || {
        let (program, arguments) = program();
        Spawn {
            name: name.clone(),
            program,
            arguments,
            env: context.common_env(),
            directory: None,
            isolation: Isolation::default(),
        }
    };
    keep(
        context,
        (phases, Phase::StopSidecars),
        SIDECAR_GRACE,
        spawn,
        std::future::pending,
        on,
    )
    .await;
}

async fn renew_token(context: &Context, served: &Served, command: &SidecarCommand) -> Result<(), String> {
    let token = tell::token(
        context,
        &served.namespace,
        &served.service_account,
        &served.workload,
    )
    .await?;
    write_private(&command.token(), token.as_bytes()).map_err(|error| error.to_string())
}

/// Waits until a proxy serves what it was configured with.
pub(super) async fn wait_ready(admin: SocketAddr) {
    wait_ready_telling(admin, |_| ()).await;
}

/// [`wait_ready`], which says what is missing when it takes long.
pub(super) async fn wait_ready_telling(admin: SocketAddr, tell: impl Fn(String)) {
    let started = tokio::time::Instant::now();
    while let Err(missing) = is_ready(admin).await {
        if started.elapsed() > PATIENCE {
            tell(missing);
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

/// Whether it serves; otherwise what it says is missing.
async fn is_ready(admin: SocketAddr) -> Result<(), String> {
    let request = Ask {
        path: "/ready",
        timeout: Duration::from_secs(2),
        ..Ask::default()
    };
    match ask(&Target::Tcp(admin), &request).await {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => Err(String::from_utf8_lossy(&answer.body).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
