//! What the supervisor tells the control plane: which workloads there are, and whether they may take traffic.
//!
//! The control plane keeps none of it over a restart, so everything is told again after each of its starts. Between
//! starts only differences are told, one after the other, so that the last word is always the right one.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use rajut_types::Text;
use serde_json::{Value, json};

use super::{CONTROL_START_MAX, Context, Phase, reached, slot::Slot};
use crate::{client::ClientError, state::WorkloadState};

const READY_POLL: Duration = Duration::from_millis(15);
/// How long every proxy is waited for to have what it was sent last.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// After a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Waits until a control plane that was just started serves, and tells it about all workloads.
pub(super) async fn introduce(context: &Context) -> Result<(), String> {
    let serving = async {
        while !context.control.takes_workloads().await {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::time::timeout(CONTROL_START_MAX, serving)
        .await
        .map_err(|_| format!("did not serve within {} s", CONTROL_START_MAX.as_secs()))?;
    tell_all(context).await.map_err(|error| error.to_string())?;
    context.introductions.set(context.introductions.get() + 1);
    context.control_ready.send_replace(true);
    context.tell.notify_one();
    Ok(())
}

/// Tells the whole set of what runs, after workloads have come or gone.
pub(super) async fn anew(context: &Context) -> Result<(), ClientError> {
    tell_all(context).await?;
    // Health that changed meanwhile is told once more.
    context.introductions.set(context.introductions.get() + 1);
    context.tell.notify_one();
    Ok(())
}

async fn tell_all(context: &Context) -> Result<(), ClientError> {
    let slots = context.slots();
    let workloads: Vec<Value> = slots.iter().map(|slot| workload(context, slot)).collect();
    context
        .control
        .json("PUT", "/v1/workloads", Some(&json!({"workloads": workloads})))
        .await
        .map(drop)
}

fn workload(context: &Context, slot: &Slot) -> Value {
    let instance = slot.told();
    json!({
        "name": instance.name,
        "deployment": instance.deployment,
        "namespace": instance.namespace,
        "labels": instance.labels,
        "serviceAccount": instance.service_account,
        "address": instance.address.to_string(),
        "namedPorts": instance.named_ports(),
        "reachedPorts": instance.reached_ports(),
        "gateway": instance.gateway,
        // Istio's gateways take plaintext of the mesh; servers that want its TLS say so (ISTIO_MUTUAL).
        "mesh": instance.gateway.is_none(),
        "weight": 1,
        "health": health_text(slot.recorded_state(context)),
    })
}

fn health_text(state: WorkloadState) -> &'static str {
    match state {
        WorkloadState::Ready => "ready",
        WorkloadState::Starting | WorkloadState::NotReady | WorkloadState::Restarting => "notready",
        WorkloadState::Stopping => "terminating",
    }
}

/// Tells every change of health, until the end.
pub(super) async fn health(context: Rc<Context>) {
    // (namespace, name) → what was told last; as many as there are workloads.
    let mut told: BTreeMap<(Text, Text), &'static str> = BTreeMap::new();
    let mut introduction = 0;
    loop {
        tokio::select! {
            () = context.tell.notified() => {}
            () = reached(&context.phase, Phase::StopControl) => return,
        }
        if !*context.control_ready.borrow() {
            continue;
        }
        if introduction != context.introductions.get() {
            // Another control plane: what its predecessor was told last is not what this one knows.
            introduction = context.introductions.get();
            told.clear();
        }
        for slot in context.slots() {
            let key = (slot.instance.namespace.clone(), slot.instance.name.clone());
            let health = health_text(slot.recorded_state(&context));
            if told.get(&key) == Some(&health) {
                continue;
            }
            match patch(&context, &slot, health, None).await {
                Ok(()) => {
                    told.insert(key, health);
                }
                Err(error) => {
                    tracing::debug!(%error, "the control plane was not told");
                    told.remove(&key);
                    context.retry_telling();
                }
            }
        }
    }
}

/// Tells that a workload takes no new requests, and waits until every proxy has acknowledged that, at most `bound`.
pub(super) async fn draining(context: &Context, slot: &Slot, bound: Duration) -> Result<(), ClientError> {
    patch(context, slot, health_text(WorkloadState::Stopping), Some(bound)).await
}

/// Waits until the control plane knows that all workloads are ready and every proxy has acknowledged that, but not for
/// ever: a proxy that does not answer is named by `status` and `proxy-status`.
pub(super) async fn settled(context: &Context) {
    let settled = async {
        while !is_settled(context).await {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    // Late is not wrong here: everything is ready as far as this supervisor can see.
    let _ = tokio::time::timeout(SETTLE_MAX, settled).await;
}

async fn is_settled(context: &Context) -> bool {
    let rows = |answer: Result<Value, ClientError>, key: &str| -> Vec<Value> {
        answer
            .ok()
            .and_then(|answer| answer[key].as_array().cloned())
            .unwrap_or_default()
    };
    let workloads = rows(
        context.control.json("GET", "/v1/workloads", None).await,
        "workloads",
    );
    let proxies = rows(context.control.json("GET", "/v1/proxies", None).await, "proxies");
    let wanted = context.slots.borrow().len();
    workloads.len() == wanted
        && workloads.iter().all(|workload| workload["health"] == "ready")
        && proxies.len() >= wanted
        && proxies.iter().all(|proxy| proxy["upToDate"] == true)
}

async fn patch(
    context: &Context,
    slot: &Slot,
    health: &str,
    acknowledged_within: Option<Duration>,
) -> Result<(), ClientError> {
    let wait = acknowledged_within.map_or_else(String::new, |bound| {
        format!("?timeoutSeconds={}", bound.as_secs())
    });
    let path = format!(
        "/v1/workloads/{}/{}{wait}",
        slot.instance.namespace, slot.instance.name
    );
    context
        .control
        .json("PATCH", &path, Some(&json!({"health": health})))
        .await
        .map(drop)
}

impl Context {
    fn retry_telling(self: &Rc<Self>) {
        let context = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(RETRY_PAUSE).await;
            context.tell.notify_one();
        });
    }
}

/// A token with which the sidecar of a workload proves who it is.
pub(super) async fn token(
    context: &Context,
    namespace: &str,
    service_account: &str,
    workload: &str,
) -> Result<String, String> {
    let body = json!({"namespace": namespace, "serviceAccount": service_account, "workload": workload});
    let answer = context
        .control
        .json("POST", "/v1/tokens", Some(&body))
        .await
        .map_err(|error| error.to_string())?;
    match answer.get("token").and_then(Value::as_str) {
        Some(token) => Ok(token.to_owned()),
        None => Err("the control plane answered without a token".to_owned()),
    }
}
