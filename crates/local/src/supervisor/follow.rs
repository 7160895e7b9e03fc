//! Doing what the control plane has for the supervisor: workloads are started anew on request.
//!
//! One question is open at a time; orders are carried out in their order. A control plane that was started anew knows
//! nothing of what its predecessor was asked, so the counting begins again with it.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use rajut_types::Text;
use serde::Deserialize;

use super::Context;

/// The question stays open for 20 s at the control plane.
const QUESTION_MAX: Duration = Duration::from_secs(30);
/// After a failed question.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Deserialize)]
struct Orders {
    configuration: u64,
    order: u64,
    restarts: Vec<Restart>,
}

#[derive(Debug, Deserialize)]
struct Restart {
    namespace: Text,
    name: Text,
}

/// Asks and does, for ever.
pub(super) async fn follow(context: Rc<Context>) {
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
                for restart in orders.restarts {
                    restart_one(&context, restart);
                }
            }
            Err(error) => {
                tracing::debug!(error, "the control plane was not asked what to do");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn restart_one(context: &Context, Restart { namespace, name }: Restart) {
    let slot = context
        .slots
        .borrow()
        .get(&(namespace.clone(), name.clone()))
        .cloned();
    match slot {
        Some(slot) => slot.restart.notify_one(),
        None => tracing::warn!(%namespace, %name, "there is no such workload to start anew"),
    }
}
