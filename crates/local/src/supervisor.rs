//! The supervisor of a local mesh: starts everything in order, watches it, starts again what ended, stops it in order.
//!
//! ```text
//!  start: control ─ ready ─ workloads told ─┬─ gateway
//!                                           └─ each workload: namespace ─ token ─ sidecar ─ ready ─ (depends_on) ─ app ─ probes
//!  stop:  applications (as long as their grace period allows, at most 10 s) ─ sidecars ─ control ─ namespaces
//! ```
//!
//! Everything runs on one thread: children die with the thread that started them ([`crate::process`]). What is known is
//! one [`MeshRecord`], written to `mesh.json` at most every [`RECORD_PAUSE`], from which `status` and `exec` read.
//!
//! What it does not do: read configuration (it gets a [`Plan`]), print (it tells an observer), decide routes.

mod application;
mod drain;
mod files;
mod follow;
mod forward;
mod keep;
mod sidecar;
mod slot;
mod tell;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use rajut_platform::process::ProcessId;
use rajut_types::Text;
use slot::Slot;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    bootstrap::{DataPlane, Gateway},
    client::{ClientError, ControlClient},
    commands::ControlCommand,
    plan::{CaptureMode, Instance, OutboundPort, Plan},
    process::{Spawn, StartError},
    state::{MeshRecord, ProcessRecord, ServiceRecord, StateDir, StateError, WorkloadRecord, WorkloadState},
};

/// Between two writings of `mesh.json`.
const RECORD_PAUSE: Duration = Duration::from_millis(50);
/// How long the control plane may take to serve.
const CONTROL_START_MAX: Duration = Duration::from_secs(30);
/// How long a sidecar may drain at the end.
const SIDECAR_GRACE: Duration = Duration::from_secs(5);
/// How long the control plane may take to end.
const CONTROL_GRACE: Duration = Duration::from_secs(3);
/// The most of an application's grace period that stopping waits for.
pub const APPLICATION_GRACE_MAX: Duration = Duration::from_secs(10);

/// What a mesh is started with.
#[derive(Debug)]
pub struct Options {
    /// Where its state lives; the caller holds the lock.
    pub state: StateDir,
    /// The tool itself.
    pub executable: PathBuf,
    /// How traffic is captured.
    pub mode: CaptureMode,
    /// Which data plane.
    pub data_plane: DataPlane,
    /// Envoy's program, where it is the data plane.
    pub envoy: PathBuf,
    /// What the control plane is told.
    pub control: ControlCommand,
    /// The host gateway.
    pub gateway: Gateway,
    /// Makes the plan anew when the configuration has changed.
    pub replan: Replan,
    /// What the gateway offers, for people.
    pub services: Vec<ServiceRecord>,
    /// What is to run.
    pub plan: Plan,
    /// For identities.
    pub trust_domain: String,
    /// RFC 3339.
    pub started: String,
    /// Marks this run's processes.
    pub run: String,
    /// After this the observer is told what is not ready.
    pub patience: Duration,
}

/// What is to run when the configuration is these texts (name and contents), and which of it runs now.
pub struct Replan(pub ReplanFn);

/// See [`Replan`]; the error is one line for people.
pub type ReplanFn = Box<dyn Fn(Vec<(Text, String)>, &[Instance]) -> Result<Replanned, String>>;

impl std::fmt::Debug for Replan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replan")
    }
}

/// See [`Replan`].
#[derive(Debug)]
pub struct Replanned {
    /// What is to run.
    pub plan: Plan,
    /// Host addresses of services that had none.
    pub outbound: Vec<OutboundPort>,
    /// What the gateways offer, the new ones among it.
    pub services: Vec<ServiceRecord>,
}

/// What the observer is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something changed.
    Progress(&'a MeshRecord),
    /// Everything is ready, for the first time.
    Ready(&'a MeshRecord),
    /// The patience is over and something is not ready.
    Late(&'a MeshRecord),
    /// The order to stop has come.
    Stopping,
}

/// Why a mesh could not be started.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Signals can't be received.
    #[error("can't receive signals: {0}")]
    Signals(std::io::Error),
    /// The supervisor can't name itself.
    #[error("can't look at this process: {0}")]
    Proc(std::io::Error),
    /// The control plane did not start.
    #[error("the control plane did not start: {0}")]
    Start(#[from] StartError),
    /// The control plane ended or stays silent.
    #[error("the control plane {why}\n{log}")]
    Control {
        /// What it did.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// The control plane refused something at the start.
    #[error("the control plane refused the workloads: {0}")]
    Refused(#[source] ClientError),
}

/// How far stopping has got, of the mesh or of one workload; each kind of process ends at its own step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Run,
    StopApplications,
    StopSidecars,
    StopControl,
}

/// Waits until stopping has got to `phase`.
async fn reached(phases: &watch::Receiver<Phase>, phase: Phase) {
    let mut watched = phases.clone();
    // An error means that whoever stops is gone.
    let _ = watched.wait_for(|now| *now >= phase).await;
}

/// What all tasks share.
struct Context {
    options: Options,
    control: ControlClient,
    record: RefCell<MeshRecord>,
    /// (namespace, name) → workload; at most [`crate::address::WORKLOADS_MAX`].
    slots: RefCell<BTreeMap<(Text, Text), Rc<Slot>>>,
    /// Rung when the record has changed: for the observer, the file, and the control plane.
    changed: watch::Sender<u64>,
    /// Rung when the control plane has to be told of health.
    tell: Notify,
    /// The control plane serves and knows the workloads.
    control_ready: watch::Sender<bool>,
    /// Gateways for services that came later; at most [`follow::GATEWAYS_MAX`].
    more_gateways: RefCell<Vec<Gateway>>,
    /// How many control planes have been told of the workloads.
    introductions: Cell<u64>,
    phase: watch::Receiver<Phase>,
    /// Set by a second Ctrl-C: nobody waits any more.
    hurry: Cell<bool>,
}

/// How a process ended, with the last thing that it wrote.
fn ending(state: &StateDir, name: &str, how: &str) -> String {
    const SHOWN_MAX: usize = 160;
    let last = crate::logs::tail(&state.log_file(name), 20).map_or_else(|_| String::new(), |(text, _)| text);
    match last.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("{how}: {}", line.chars().take(SHOWN_MAX).collect::<String>()),
        None => how.to_owned(),
    }
}

impl Context {
    /// Changes the record and lets everybody know.
    fn update(&self, change: impl FnOnce(&mut MeshRecord)) {
        change(&mut self.record.borrow_mut());
        self.changed.send_modify(|generation| *generation += 1);
        self.tell.notify_one();
    }

    /// Everything that runs, in the order of namespace and name.
    fn slots(&self) -> Vec<Rc<Slot>> {
        self.slots.borrow().values().cloned().collect()
    }

    fn stopping(&self) -> bool {
        *self.phase.borrow() != Phase::Run
    }

    /// Waits until the control plane serves.
    async fn control_is_ready(&self) {
        let _ = self.control_ready.subscribe().wait_for(|ready| *ready).await;
    }

    fn grace(&self, grace: Duration) -> Duration {
        if self.hurry.get() { Duration::ZERO } else { grace }
    }
}

/// Runs the mesh until it is told to stop (SIGINT or SIGTERM), and leaves nothing running. Call it inside a
/// `LocalSet` on the main thread.
pub async fn run(options: Options, observe: &mut dyn FnMut(Event<'_>)) -> Result<(), UpError> {
    let mut signals = Signals::new()?;
    let state = options.state.clone();
    let (phase_sender, phase) = watch::channel(Phase::Run);
    let record = first_record(&options)?;
    let instances = options.plan.instances.clone();
    let (changed, _) = watch::channel(0);
    let (control_ready, _) = watch::channel(false);
    let context = Rc::new(Context {
        control: ControlClient::new(&state.control_socket()),
        slots: RefCell::default(),
        options,
        record: RefCell::new(record),
        changed,
        tell: Notify::new(),
        control_ready,
        introductions: Cell::new(0),
        more_gateways: RefCell::default(),
        phase,
        hurry: Cell::new(false),
    });
    for instance in instances {
        slot::add(&context, instance);
    }
    let writer = tokio::task::spawn_local(write_record(Rc::clone(&context)));
    let mut tasks = Tasks::default();
    let outcome = {
        let mut work = Box::pin(supervise(&context, &mut tasks, observe));
        tokio::select! {
            outcome = &mut work => outcome,
            () = signals.next() => Ok(()),
        }
    };
    observe(Event::Stopping);
    let stop = stop(&context, &phase_sender, tasks);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = signals.next() => context.hurry.set(true),
        }
    }
    writer.abort();
    // Both may be missing already.
    let _ = std::fs::remove_file(state.mesh_file());
    let _ = std::fs::remove_file(state.control_socket());
    outcome
}

/// The tasks beside those of the workloads, by the step at which they end.
#[derive(Default)]
struct Tasks {
    sidecars: Vec<JoinHandle<()>>,
    control: Vec<JoinHandle<()>>,
}

async fn supervise(
    context: &Rc<Context>,
    tasks: &mut Tasks,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<(), UpError> {
    let (failed, mut control_failed) = tokio::sync::mpsc::channel(1);
    tasks
        .control
        .push(tokio::task::spawn_local(control(Rc::clone(context), failed)));
    tokio::select! {
        () = context.control_is_ready() => {}
        Some(error) = control_failed.recv() => return Err(error),
    }
    tasks
        .control
        .push(tokio::task::spawn_local(tell::health(Rc::clone(context))));
    for slot in context.slots() {
        application::spawn_workload(context, &slot);
    }
    if !context.options.gateway.outbound.is_empty() {
        tasks.sidecars.push(tokio::task::spawn_local(sidecar::gateway(
            Rc::clone(context),
            None,
        )));
    }
    tokio::select! {
        () = watch_progress(context, observe) => {}
        () = Box::pin(follow::follow(Rc::clone(context), &mut tasks.sidecars)) => {}
    }
    Ok(())
}

/// Tells the observer until the supervisor stops.
async fn watch_progress(context: &Context, observe: &mut dyn FnMut(Event<'_>)) {
    let mut changes = context.changed.subscribe();
    let patience = tokio::time::sleep(context.options.patience);
    tokio::pin!(patience);
    let (mut ready, mut late) = (false, false);
    loop {
        if !ready && is_ready(&context.record.borrow()) {
            tell::settled(context).await;
        }
        {
            let record = context.record.borrow();
            if !ready && is_ready(&record) {
                ready = true;
                // Who is told that all is ready finds it so.
                write(context, &record);
                observe(Event::Ready(&record));
            } else {
                observe(Event::Progress(&record));
            }
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = &mut patience, if !ready && !late => {
                late = true;
                observe(Event::Late(&context.record.borrow()));
            }
        }
    }
}

/// Whether everything that was started takes traffic.
pub fn is_ready(record: &MeshRecord) -> bool {
    record
        .workloads
        .iter()
        .all(|workload| workload.state == WorkloadState::Ready)
        && (record.services.is_empty() || record.gateway_state == WorkloadState::Ready)
}

async fn stop(context: &Context, phase: &watch::Sender<Phase>, mut tasks: Tasks) {
    context.update(|record| {
        for workload in &mut record.workloads {
            workload.state = WorkloadState::Stopping;
        }
    });
    for step in [Phase::StopApplications, Phase::StopSidecars, Phase::StopControl] {
        let _ = phase.send(step);
        let slots = context.slots();
        for slot in &slots {
            slot.stop(step);
        }
        for slot in &slots {
            slot.ended(step).await;
        }
        let others = match step {
            Phase::Run | Phase::StopApplications => Vec::new(),
            Phase::StopSidecars => std::mem::take(&mut tasks.sidecars),
            Phase::StopControl => std::mem::take(&mut tasks.control),
        };
        for task in others {
            // A task that panicked has dropped its process, which killed it.
            let _ = task.await;
        }
    }
}

/// Keeps the control plane running; after each start it is told what runs.
async fn control(context: Rc<Context>, failed: tokio::sync::mpsc::Sender<UpError>) {
    let spawn = || Spawn {
        name: "control".to_owned(),
        program: context.options.executable.clone(),
        arguments: crate::commands::control(&context.options.control, &context.options.state),
        env: context.common_env(),
        directory: None,
        isolation: rajut_platform::process::Isolation::default(),
    };
    let beside = || async {
        match tell::introduce(&context).await {
            Ok(()) => std::future::pending::<String>().await,
            Err(error) => error,
        }
    };
    let never_served = Cell::new(true);
    let on = |event: keep::Change| {
        if let keep::Change::Ended(why) = &event {
            context.control_ready.send_replace(false);
            if never_served.get() && !context.stopping() {
                let log = context.options.state.log_file("control");
                let log = crate::logs::tail(&log, 10).map_or_else(|_| String::new(), |(text, _)| text);
                let why = format!("ended before it served: {why}");
                // Only the first report counts.
                let _ = failed.try_send(UpError::Control { why, log });
            }
        }
        context.update(|record| event.apply(&mut record.control));
    };
    let mut served = context.control_ready.subscribe();
    let note = async {
        let _ = served.wait_for(|ready| *ready).await;
        never_served.set(false);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = keep::keep(&context, (&context.phase, Phase::StopControl), CONTROL_GRACE, spawn, beside, on) => {}
        () = note => {}
    }
}

impl Context {
    /// What every process of the mesh gets.
    fn common_env(&self) -> Vec<(String, String)> {
        vec![(crate::process::RUN_VARIABLE.to_owned(), self.options.run.clone())]
    }
}

fn first_record(options: &Options) -> Result<MeshRecord, UpError> {
    let supervisor = ProcessId::current().map_err(UpError::Proc)?.to_string();
    Ok(MeshRecord {
        supervisor,
        run: options.run.clone(),
        capture: options.mode,
        data_plane: options.data_plane,
        namespace: options.control.namespace.clone(),
        started: options.started.clone(),
        sources: options
            .control
            .sources
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        control: ProcessRecord::default(),
        discovery: options.control.listen,
        gateway: ProcessRecord::default(),
        gateway_state: WorkloadState::Starting,
        gateway_admin: options.gateway.admin(),
        workloads: Vec::new(),
        services: options.services.clone(),
        not_started: options.plan.not_started.clone(),
    })
}

fn workload_record(instance: &Instance, trust_domain: &str) -> WorkloadRecord {
    WorkloadRecord {
        name: instance.name.to_string(),
        deployment: instance.deployment.to_string(),
        namespace: instance.namespace.to_string(),
        service_account: instance.service_account.to_string(),
        identity: format!(
            "spiffe://{trust_domain}/ns/{}/sa/{}",
            instance.namespace, instance.service_account
        ),
        certificate_until: String::new(),
        address: instance.address.to_string(),
        admin: instance.admin(),
        network_namespace: String::new(),
        ports: instance.ports.iter().map(|port| port.container).collect(),
        reached_ports: instance.reached_ports(),
        app: ProcessRecord::default(),
        sidecar: ProcessRecord::default(),
        state: WorkloadState::Starting,
        reason: String::new(),
        env: instance.env.clone(),
        late_services: Vec::new(),
    }
}

/// Writes `mesh.json` whenever the record has changed, with a pause in between.
async fn write_record(context: Rc<Context>) {
    let mut changes = context.changed.subscribe();
    loop {
        write(&context, &context.record.borrow());
        tokio::time::sleep(RECORD_PAUSE).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn write(context: &Context, record: &MeshRecord) {
    if let Err(error) = context.options.state.write_mesh(record) {
        tracing::warn!(%error, "can't write what runs");
    }
}

/// SIGINT and SIGTERM; SIGHUP too, since closing the terminal means the same.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, UpError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(UpError::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(UpError::Signals)?,
            hangup: signal(SignalKind::hangup()).map_err(UpError::Signals)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
