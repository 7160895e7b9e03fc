//! Doing what the control plane has for the supervisor: what the configuration says is to run is made to run, and
//! workloads are started anew on request.
//!
//! ```text
//!  newer configuration ─► plan ─┬─ new workloads       start
//!                               ├─ changed ones        one after the other: out of service, stopped, started, ready
//!                               ├─ those that are gone out of service, stopped
//!                               └─ new services        a gateway more, with their addresses on this host
//! ```
//!
//! One question is open at a time; what comes while a change is carried out is done after it. A control plane that was
//! started anew knows nothing of what its predecessor was asked, so the counting begins again with it.
//!
//! Bounds: [`GATEWAYS_MAX`] further gateways; services that come after those have no address on this host until the next
//! `up`. What it does not do: give running processes in explicit mode ports for services that came later. They come with
//! the next start, since a process learns of them from its environment; [`Slot::say_late`] names them until then.

use std::{collections::BTreeSet, io, net::Ipv4Addr, rc::Rc, time::Duration};

use bytes::Bytes;
use rajut_platform::socket::{ListenOptions, listen};
use rajut_types::Text;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::{
    Context, Phase, Replanned, application,
    drain::drain,
    sidecar,
    slot::{self, Slot},
    tell,
};
use crate::{
    plan::{Instance, OutboundPort},
    state::WorkloadState,
};

/// Gateways for services that came later.
pub(super) const GATEWAYS_MAX: u8 = 100;
/// The question stays open for 20 s at the control plane.
const QUESTION_MAX: Duration = Duration::from_secs(30);
/// After a failed question.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long the next of several changed workloads waits for the one before to be ready.
const READY_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Deserialize)]
struct Orders {
    configuration: u64,
    order: u64,
    restarts: Vec<Restart>,
    sources: Option<Vec<Source>>,
}

#[derive(Debug, Deserialize)]
struct Source {
    name: Text,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Restart {
    namespace: Text,
    name: Text,
}

/// Asks and does, for ever. `gateways`: where tasks of further gateways are kept for the end.
pub(super) async fn follow(context: Rc<Context>, gateways: &mut Vec<JoinHandle<()>>) {
    let (mut introduction, mut configuration, mut order) = (0, 0, 0);
    loop {
        context.control_is_ready().await;
        if introduction != context.introductions.get() {
            introduction = context.introductions.get();
            (configuration, order) = (0, 0);
        }
        let path = format!("/v1/supervision?configuration={configuration}&order={order}");
        let asked = context
            .control
            .call("GET", &path, Bytes::new(), QUESTION_MAX)
            .await;
        let orders = asked
            .map_err(|error| error.to_string())
            .and_then(|body| serde_json::from_slice::<Orders>(&body).map_err(|error| error.to_string()));
        match orders {
            Ok(orders) => {
                (configuration, order) = (orders.configuration, orders.order);
                if let Some(sources) = orders.sources {
                    adopt(&context, sources, gateways).await;
                }
                for restart in orders.restarts {
                    restart_one(&context, restart).await;
                }
            }
            Err(error) => {
                tracing::debug!(error, "the control plane was not asked what to do");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Makes what runs what the configuration says.
async fn adopt(context: &Rc<Context>, sources: Vec<Source>, gateways: &mut Vec<JoinHandle<()>>) {
    let running: Vec<Instance> = context.slots().iter().map(|slot| slot.instance.clone()).collect();
    let sources = sources
        .into_iter()
        .map(|source| (source.name, source.text))
        .collect();
    let planned = (context.options.replan.0)(sources, &running);
    let Replanned {
        plan,
        outbound,
        services,
    } = match planned {
        Ok(planned) => planned,
        Err(error) => {
            tracing::warn!(error, "what runs stays as it is");
            return;
        }
    };
    let change = Difference::between(&running, plan.instances);
    let mut other_ports = false;
    for (instance, next) in &change.late {
        if let Some(slot) = slot_of(context, instance) {
            slot.say_late(context, next.clone());
            other_ports |= slot.renew_ports(next);
        }
    }
    if !other_ports
        && change.is_empty()
        && outbound.is_empty()
        && context.record.borrow().not_started == plan.not_started
    {
        return;
    }
    context.update(|record| record.not_started = plan.not_started);
    start(context, change.new).await;
    if other_ports {
        tell_all(context).await;
    }
    open_gateway(context, outbound, gateways);
    if context.record.borrow().services != services {
        context.update(|record| record.services = services);
    }
    for instance in change.changed {
        leave(context, vec![slot_of(context, &instance)]).await;
        start(context, vec![instance.clone()]).await;
        wait_ready(context, &instance).await;
    }
    let gone = change
        .gone
        .iter()
        .map(|instance| slot_of(context, instance))
        .collect();
    leave(context, gone).await;
}

/// What has to be done.
#[derive(Debug, PartialEq)]
struct Difference {
    new: Vec<Instance>,
    changed: Vec<Instance>,
    gone: Vec<Instance>,
    /// What runs on as it is, and as what it would be started now.
    late: Vec<(Instance, Instance)>,
}

impl Difference {
    fn between(running: &[Instance], wanted: Vec<Instance>) -> Self {
        let known = |next: &Instance| running.iter().find(|known| known.key() == next.key());
        let keys: BTreeSet<String> = wanted.iter().map(Instance::key).collect();
        let gone = running
            .iter()
            .filter(|known| !keys.contains(&known.key()))
            .cloned();
        let (mut new, mut changed, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let gone = gone.collect();
        for next in wanted {
            match known(&next) {
                None => new.push(next),
                Some(known) if !known.runs_as(&next) => changed.push(next),
                Some(known) => late.push((known.clone(), next)),
            }
        }
        Self {
            new,
            changed,
            gone,
            late,
        }
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }
}

fn slot_of(context: &Context, instance: &Instance) -> Option<Rc<Slot>> {
    let key = (instance.namespace.clone(), instance.name.clone());
    context.slots.borrow().get(&key).cloned()
}

/// The control plane knows a workload before its sidecar asks for what it is.
async fn start(context: &Rc<Context>, instances: Vec<Instance>) {
    if instances.is_empty() {
        return;
    }
    let slots: Vec<Rc<Slot>> = instances
        .into_iter()
        .map(|instance| slot::add(context, instance))
        .collect();
    tell_all(context).await;
    for slot in slots {
        application::spawn_workload(context, &slot);
    }
}

/// Takes workloads out of service, all at once, and stops them.
async fn leave(context: &Rc<Context>, slots: Vec<Option<Rc<Slot>>>) {
    let mut leaving = tokio::task::JoinSet::new();
    for slot in slots.into_iter().flatten() {
        let context = Rc::clone(context);
        leaving.spawn_local(async move {
            drain(&context, &slot).await;
            for step in [Phase::StopApplications, Phase::StopSidecars] {
                slot.stop(step);
                slot.ended(step).await;
            }
            slot::remove(&context, &slot);
        });
    }
    if leaving.is_empty() {
        return;
    }
    // A task ends in an error only by a panic, and the workload is gone then too.
    while leaving.join_next().await.is_some() {}
    tell_all(context).await;
}

/// A control plane that ends meanwhile is told everything when it is back.
async fn tell_all(context: &Context) {
    if let Err(error) = tell::anew(context).await {
        tracing::warn!(%error, "the control plane was not told what runs");
    }
}

async fn wait_ready(context: &Context, instance: &Instance) {
    let mut changes = context.changed.subscribe();
    let ready = async {
        while slot_of(context, instance)
            .is_some_and(|slot| slot.recorded_state(context) != WorkloadState::Ready)
        {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    // One that does not get ready does not keep the others from what they are to be.
    let _ = tokio::time::timeout(READY_MAX, ready).await;
}

/// A port of 127.0.0.1 that nobody listens on now.
fn free_port() -> io::Result<u16> {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), &ListenOptions::default())?;
    Ok(listener.local_addr()?.port())
}

fn open_gateway(context: &Rc<Context>, outbound: Vec<OutboundPort>, tasks: &mut Vec<JoinHandle<()>>) {
    if outbound.is_empty() {
        return;
    }
    let mut gateways = context.more_gateways.borrow_mut();
    let number = u8::try_from(gateways.len() + 1).unwrap_or(u8::MAX);
    if number > GATEWAYS_MAX {
        tracing::warn!("services that came late have no address on this host until the next `rajut up`");
        return;
    }
    let gateway = match context.options.gateway.another(number, outbound, free_port) {
        Ok(gateway) => gateway,
        Err(error) => {
            tracing::warn!(%error, "services that came now have no address on this host: there is no admin port for their gateway");
            return;
        }
    };
    gateways.push(gateway.clone());
    tasks.push(tokio::task::spawn_local(sidecar::gateway(
        Rc::clone(context),
        Some(gateway),
    )));
}

async fn restart_one(context: &Rc<Context>, Restart { namespace, name }: Restart) {
    let slot = context
        .slots
        .borrow()
        .get(&(namespace.clone(), name.clone()))
        .cloned();
    let Some(slot) = slot else {
        tracing::warn!(%namespace, %name, "there is no such workload to start anew");
        return;
    };
    match slot.take_late() {
        // Its sidecar listens on ports for services that came late, too.
        Some(next) => {
            leave(context, vec![Some(slot)]).await;
            start(context, vec![next.clone()]).await;
            wait_ready(context, &next).await;
        }
        None => slot.restart.notify_one(),
    }
}
