//! One workload as the supervisor holds it: what it is to be, what its two halves are doing, and how far it is stopped.
//!
//! ```text
//!  add ─► run ─┬─ restart asked for ─► draining ─► application stopped and started ─► run
//!              └─ taken out ─► draining ─► application stopped ─► sidecar stopped ─► gone
//! ```
//!
//! A workload's row in the record follows from its halves ([`Slot::judge`]); nobody else writes its state.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::sync::{Notify, watch};

use super::{Context, Phase, workload_record};
use crate::{
    plan::Instance,
    state::{WorkloadRecord, WorkloadState},
};

/// One workload.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) instance: Instance,
    parts: RefCell<Parts>,
    /// No new requests are to come; what is under way ends.
    draining: Cell<bool>,
    phase: watch::Sender<Phase>,
    /// Rung when the application is to be started anew.
    pub(super) restart: Notify,
    /// With explicit ports: as what it would be started now, where services have come that it has no ports for.
    late: RefCell<Option<Instance>>,
    /// Of a gateway: with the ports that it has now, where those are others than at its start.
    ports: RefCell<Option<Instance>>,
    application_runs: watch::Sender<bool>,
    sidecar_runs: watch::Sender<bool>,
}

/// Says that a half has ended, also when its task panicked: its process was killed by being dropped.
struct Running(watch::Sender<bool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// The two halves of a workload.
#[derive(Debug, Clone)]
struct Parts {
    application: (WorkloadState, String),
    sidecar: Option<String>,
}

/// Takes an instance in; nothing runs yet.
pub(super) fn add(context: &Context, instance: Instance) -> Rc<Slot> {
    let row = workload_record(&instance, &context.options.trust_domain);
    let key = (instance.namespace.clone(), instance.name.clone());
    let slot = Rc::new(Slot {
        instance,
        parts: RefCell::new(Parts {
            application: (WorkloadState::Starting, String::new()),
            sidecar: None,
        }),
        draining: Cell::new(false),
        phase: watch::Sender::new(Phase::Run),
        restart: Notify::new(),
        late: RefCell::new(None),
        ports: RefCell::new(None),
        application_runs: watch::Sender::new(false),
        sidecar_runs: watch::Sender::new(false),
    });
    context.slots.borrow_mut().insert(key, Rc::clone(&slot));
    context.update(|record| {
        record.workloads.push(row);
        record
            .workloads
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    });
    slot
}

/// Forgets a workload that has ended.
pub(super) fn remove(context: &Context, slot: &Slot) {
    let key = (slot.instance.namespace.clone(), slot.instance.name.clone());
    context.slots.borrow_mut().remove(&key);
    context.update(|record| record.workloads.retain(|row| !slot.is(row)));
}

fn start(runs: &watch::Sender<bool>, half: impl Future<Output = ()> + 'static) {
    runs.send_replace(true);
    let running = Running(runs.clone());
    tokio::task::spawn_local(async move {
        half.await;
        drop(running);
    });
}

impl Slot {
    /// What its processes look at to know when to end.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Lets stopping get to `phase`, if it has not got further.
    pub(super) fn stop(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let further = *now < phase;
            *now = (*now).max(phase);
            further
        });
    }

    /// Starts the tasks of its two halves.
    pub(super) fn spawn(
        &self,
        sidecar: impl Future<Output = ()> + 'static,
        application: impl Future<Output = ()> + 'static,
    ) {
        start(&self.sidecar_runs, sidecar);
        start(&self.application_runs, application);
    }

    /// Notes as what it would be started now, and says which services it has no ports for until then.
    pub(super) fn say_late(&self, context: &Context, next: Instance) {
        let services = self.instance.lacks(&next);
        let mut said = false;
        self.update(context, |row| {
            said = row.late_services == services;
            row.late_services.clone_from(&services);
        });
        if !said && !services.is_empty() {
            tracing::warn!(
                workload = self.instance.key(),
                services = services.join(", "),
                "it was started before these services came and has no ports for them until `rajut restart {}`",
                self.instance.name
            );
        }
        self.late.replace((!services.is_empty()).then_some(next));
    }

    /// What the control plane is told of it.
    pub(super) fn told(&self) -> Instance {
        self.ports
            .borrow()
            .clone()
            .unwrap_or_else(|| self.instance.clone())
    }

    /// Notes the ports that a running gateway is to have from now on. Whether they are others than before.
    pub(super) fn renew_ports(&self, next: &Instance) -> bool {
        let known = self.told();
        if next.gateway.is_none() || (&known.ports, &known.gateway) == (&next.ports, &next.gateway) {
            return false;
        }
        self.ports.replace(Some(next.clone()));
        true
    }

    /// What [`Slot::say_late`] noted, once.
    pub(super) fn take_late(&self) -> Option<Instance> {
        self.late.take()
    }

    /// Waits for what ends at that step.
    pub(super) async fn ended(&self, step: Phase) {
        let runs = match step {
            Phase::Run | Phase::StopControl => return,
            Phase::StopApplications => &self.application_runs,
            Phase::StopSidecars => &self.sidecar_runs,
        };
        // The sender lives in `self`, so the wait can't fail.
        let _ = runs.subscribe().wait_for(|runs| !runs).await;
    }

    /// Takes it out of service, or back.
    pub(super) fn set_draining(&self, context: &Context, draining: bool) {
        self.draining.set(draining);
        self.judge(context);
    }

    /// What the application is doing.
    pub(super) fn set_state(&self, context: &Context, state: WorkloadState, reason: impl Into<String>) {
        self.parts.borrow_mut().application = (state, reason.into());
        self.judge(context);
    }

    /// What is wrong with its sidecar; `None` when it is well.
    pub(super) fn set_sidecar(&self, context: &Context, problem: Option<String>) {
        self.parts.borrow_mut().sidecar = problem;
        self.judge(context);
    }

    /// What the application does, whatever its sidecar does.
    pub(super) fn application_state(&self) -> WorkloadState {
        self.parts.borrow().application.0
    }

    /// A workload is ready when both of its halves are.
    fn judge(&self, context: &Context) {
        let (state, reason) = {
            let parts = self.parts.borrow();
            let Parts { application, sidecar } = &*parts;
            match (application, sidecar) {
                _ if self.draining.get() => (WorkloadState::Stopping, "its requests are ending".to_owned()),
                ((WorkloadState::Ready, _), Some(problem)) => (WorkloadState::NotReady, problem.clone()),
                ((state, _), Some(problem)) => (*state, problem.clone()),
                (application, None) => application.clone(),
            }
        };
        let known = self.state(context);
        if context.stopping() || known.as_ref() == Some(&(state, reason.clone())) {
            return;
        }
        self.update(context, |row| {
            row.state = state;
            row.reason = reason;
        });
    }

    /// State and reason as recorded; `None` once it is gone.
    fn state(&self, context: &Context) -> Option<(WorkloadState, String)> {
        let record = context.record.borrow();
        let row = record.workloads.iter().find(|row| self.is(row))?;
        Some((row.state, row.reason.clone()))
    }

    /// What it is doing; on its way out once it is gone.
    pub(super) fn recorded_state(&self, context: &Context) -> WorkloadState {
        self.state(context)
            .map_or(WorkloadState::Stopping, |(state, _)| state)
    }

    /// Changes its row in the record.
    pub(super) fn update(&self, context: &Context, change: impl FnOnce(&mut WorkloadRecord)) {
        context.update(|record| {
            if let Some(row) = record.workloads.iter_mut().find(|row| self.is(row)) {
                change(row);
            }
        });
    }

    fn is(&self, row: &WorkloadRecord) -> bool {
        *row.name == *self.instance.name && *row.namespace == *self.instance.namespace
    }
}
