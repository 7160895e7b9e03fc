//! One workload: its namespace, its sidecar, its application with the probes beside it.

use std::{net::SocketAddr, path::PathBuf, rc::Rc, time::Duration};

use rajut_config::model::{Probe, ProbeCheck, RunCommand};
use rajut_platform::{
    netns::{NamespaceHolder, NetNs},
    network::{WorkloadNetwork, set_up_workload},
    nftables::{CaptureRules, install_in},
    process::{Isolation, Mounts, spawn},
};
use tokio::{sync::watch, time::Instant};

use super::{
    APPLICATION_GRACE_MAX, Context, Phase,
    drain::drain,
    ending, files, forward,
    keep::{Change, keep},
    reached, sidecar,
    slot::Slot,
};
use crate::{
    certificate::workload_certificate,
    plan::{CaptureMode, Instance},
    probe::{self, Place, STARTING_PERIOD, Tally},
    process::{Spawn, causes},
    state::WorkloadState,
};

/// Starts the two tasks of a workload: its sidecar's and its application's.
pub(super) fn spawn_workload(context: &Rc<Context>, slot: &Rc<Slot>) {
    let holder = match context.options.mode {
        // A gateway has no application to shut in.
        _ if slot.instance.gateway.is_some() => Ok(None),
        CaptureMode::Explicit => Ok(None),
        CaptureMode::Netns => network(&slot.instance).map(Some),
    };
    match holder {
        Ok(holder) => {
            let path = holder.as_ref().map(NamespaceHolder::path);
            let namespace = holder.as_ref().map(|holder| holder.namespace().clone());
            if let Some(path) = &path {
                let path = path.display().to_string();
                slot.update(context, |row| row.network_namespace = path);
            }
            let sidecar = {
                let (context, slot) = (Rc::clone(context), Rc::clone(slot));
                async move {
                    Box::pin(sidecar::workload(context, slot, path)).await;
                    // The namespace ends after the last process that works in it.
                    drop(holder);
                }
            };
            let application = application(Rc::clone(context), Rc::clone(slot), namespace);
            slot.spawn(sidecar, application);
        }
        Err(reason) => slot.set_state(context, WorkloadState::NotReady, reason),
    }
}

/// A namespace whose only way out is the sidecar.
fn network(instance: &Instance) -> Result<NamespaceHolder, String> {
    let holder = NamespaceHolder::spawn().map_err(|error| format!("no network namespace: {error}"))?;
    let addresses = WorkloadNetwork {
        v4: instance.app_address,
        v6: None,
    };
    set_up_workload(holder.namespace(), addresses).map_err(|error| causes(&error))?;
    let rules = CaptureRules::local(vec![instance.app_address.into()]);
    install_in(holder.namespace(), &rules).map_err(|error| causes(&error))?;
    Ok(holder)
}

/// The application of a workload, until applications stop.
async fn application(context: Rc<Context>, slot: Rc<Slot>, namespace: Option<NetNs>) {
    let instance = &slot.instance;
    let phases = slot.phases();
    let begin = async {
        let tell = |missing| {
            let reason = format!("its sidecar is not ready: {missing}");
            slot.set_state(&context, WorkloadState::Starting, reason);
        };
        sidecar::wait_ready_telling(instance.admin(), tell).await;
        if let Some(certificate) = workload_certificate(instance.admin()).await {
            slot.update(&context, |row| row.certificate_until = certificate.not_after);
        }
        dependencies(&context, &slot).await;
    };
    tokio::select! {
        () = begin => {}
        () = reached(&phases, Phase::StopApplications) => return,
    }
    if instance.gateway.is_some() {
        // It is ready when its proxy is.
        slot.set_state(&context, WorkloadState::Ready, "");
        reached(&phases, Phase::StopApplications).await;
        return;
    }
    let place = place(&context, instance, namespace.clone());
    let grace = instance.grace_period.min(APPLICATION_GRACE_MAX);
    let spawn = || spawn_of(&context, instance, namespace.clone());
    let forwards = forward::spawn(instance, &place);
    let beside = || probes(&context, &slot, &place);
    let on = |change: Change| {
        if let Change::Ended(how) = &change {
            let how = ending(&context.options.state, &instance.key(), how);
            slot.set_state(&context, WorkloadState::Restarting, format!("it ended: {how}"));
            // An application that was to be started anew; one that leaves ends by being stopped.
            slot.set_draining(&context, false);
        }
        slot.update(&context, |row| change.apply(&mut row.app));
    };
    let until = (&phases, Phase::StopApplications);
    Box::pin(keep(&context, until, grace, spawn, beside, on)).await;
    drop(forwards);
}

/// Waits for what the workload depends on (Compose `depends_on`).
async fn dependencies(context: &Context, slot: &Slot) {
    let instance = &slot.instance;
    if instance.depends_on.is_empty() {
        return;
    }
    let mut changes: watch::Receiver<u64> = context.changed.subscribe();
    loop {
        let missing = {
            let record = context.record.borrow();
            instance.depends_on.iter().find(|name| {
                record.workloads.iter().any(|workload| {
                    workload.deployment == ***name
                        && workload.namespace == *instance.namespace
                        && workload.state != WorkloadState::Ready
                })
            })
        };
        match missing {
            None => return,
            Some(name) => slot.set_state(context, WorkloadState::Starting, format!("it waits for {name}")),
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn place(context: &Context, instance: &Instance, namespace: Option<NetNs>) -> Place {
    let ports: Vec<(u16, SocketAddr)> = instance
        .ports
        .iter()
        .filter_map(|port| {
            Some((
                port.container,
                instance.app_socket(context.options.mode, port.container)?,
            ))
        })
        .collect();
    Place { namespace, ports }
}

fn spawn_of(context: &Context, instance: &Instance, namespace: Option<NetNs>) -> Spawn {
    let (program, arguments) = match &instance.run {
        RunCommand::Sample => (context.options.executable.clone(), vec!["sample".to_owned()]),
        RunCommand::Shell(command) => (
            PathBuf::from("/bin/sh"),
            vec!["-c".to_owned(), command.to_string()],
        ),
        RunCommand::Exec(words) => {
            let mut words = words.iter().map(ToString::to_string);
            (PathBuf::from(words.next().unwrap_or_default()), words.collect())
        }
    };
    let mut env = instance.env.clone();
    env.extend(context.common_env());
    Spawn {
        name: instance.key(),
        program,
        arguments,
        env,
        directory: instance.directory.clone(),
        isolation: isolation(context, instance, namespace),
    }
}

fn isolation(context: &Context, instance: &Instance, namespace: Option<NetNs>) -> Isolation {
    let Some(network) = namespace else {
        return Isolation::default();
    };
    let folder = context.options.state.sidecar_dir(&instance.key());
    let mounts = files::name_resolution(&folder, instance, "cluster.local").unwrap_or_else(|error| {
        tracing::warn!(workload = instance.key(), %error, "names will not resolve");
        Mounts::Inherit
    });
    Isolation {
        network: Some(network),
        mounts,
        drop_capabilities: true,
        ..Isolation::default()
    }
}

/// Asks the application as its manifest says; ends only when it has to be started anew.
async fn probes(context: &Context, slot: &Slot, place: &Place) -> String {
    let instance = &slot.instance;
    let readiness = readiness(context, slot, place);
    let liveness = async {
        match &instance.liveness {
            Some(probe) => liveness(context, instance, probe, place).await,
            None => std::future::pending().await,
        }
    };
    let asked = async {
        slot.restart.notified().await;
        drain(context, slot).await;
        "it was to be started anew".to_owned()
    };
    tokio::select! {
        never = readiness => never,
        why = liveness => why,
        why = asked => why,
    }
}

async fn readiness(context: &Context, slot: &Slot, place: &Place) -> String {
    let instance = &slot.instance;
    let probe = match (&instance.readiness, instance.ports.first()) {
        (Some(probe), _) => probe.clone(),
        (None, Some(port)) => probe::default_probe(port.container),
        (None, None) => {
            slot.set_state(context, WorkloadState::Ready, "");
            return std::future::pending().await;
        }
    };
    tokio::time::sleep(probe.initial_delay.min(STARTING_PERIOD)).await;
    let mut tally = Tally::new(&probe);
    loop {
        let asked = Instant::now();
        tally.step(once(context, instance, &probe, place).await);
        if tally.is_healthy() {
            slot.set_state(context, WorkloadState::Ready, "");
        } else if !context.stopping() {
            let state = match slot.application_state() {
                WorkloadState::Ready | WorkloadState::NotReady => WorkloadState::NotReady,
                _ => WorkloadState::Starting,
            };
            slot.set_state(context, state, tally.reason());
        }
        let period = if tally.is_healthy() {
            probe.period
        } else {
            STARTING_PERIOD.min(probe.period)
        };
        tokio::time::sleep_until(asked + period.max(Duration::from_millis(10))).await;
    }
}

async fn liveness(context: &Context, instance: &Instance, probe: &Probe, place: &Place) -> String {
    tokio::time::sleep(probe.initial_delay).await;
    let mut tally = Tally::new(probe);
    loop {
        tokio::time::sleep(probe.period.max(Duration::from_millis(10))).await;
        tally.step(once(context, instance, probe, place).await);
        if tally.is_dead() {
            return format!("its liveness probe failed: {}", tally.reason());
        }
    }
}

async fn once(context: &Context, instance: &Instance, probe: &Probe, place: &Place) -> Result<(), String> {
    match &probe.check {
        ProbeCheck::Exec(words) => {
            let isolation = isolation(context, instance, place.namespace.clone());
            exec_probe(instance, words, probe.timeout, isolation).await
        }
        _ => probe::check(probe, place).await,
    }
}

async fn exec_probe(
    instance: &Instance,
    words: &[rajut_types::Text],
    timeout: Duration,
    isolation: Isolation,
) -> Result<(), String> {
    let [program, arguments @ ..] = words else {
        return Err("the probe has no command".to_owned());
    };
    let mut command = std::process::Command::new(&**program);
    command
        .args(arguments.iter().map(|word| &**word))
        .envs(instance.env.iter().map(|(name, value)| (name, value)))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let isolation = Isolation {
        new_session: true,
        die_with_parent: true,
        ..isolation
    };
    let mut child = spawn(command, isolation).map_err(|error| format!("{program}: {}", causes(&error)))?;
    match tokio::time::timeout(timeout, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => {
            // Collected below; fails only when it has just ended.
            let _ = child.signal_group(rajut_platform::process::Signal::KILL);
            let _ = child.wait().await;
            Err(format!(
                "{program} did not end within {} s",
                timeout.as_secs_f32()
            ))
        }
    }
}
