//! Taking a workload out of service before its application is told to end.
//!
//! A server that ends closes connections that look idle to it, and with them requests that have arrived and were not
//! read; whoever sent one can't know that, and must not send it again unless its method is idempotent. So none may be on
//! its way when the order to end comes:
//!
//! ```text
//!  endpoint is draining ─► every proxy has acknowledged it ─► none has a request there ─► SIGTERM
//!                          (at most ACKNOWLEDGE_MAX)          (at most IDLE_MAX)
//! ```
//!
//! What it does not do: wait for opaque TCP connections, which may last for ever; they end with the application.

use std::{net::SocketAddr, time::Duration};

use rajut_types::Text;
use tokio::time::Instant;

use super::{Context, slot::Slot, tell};
use crate::{
    bootstrap::Gateway,
    client::{Ask, Target, ask},
};

/// How long proxies may take to acknowledge; one that does not answer is not waited for any longer.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(5);
/// How long requests may take to end; streams that last longer end with the application.
const IDLE_MAX: Duration = Duration::from_secs(5);
const IDLE_POLL: Duration = Duration::from_millis(20);
/// An answer of an admin port.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns when no proxy sends requests to the workload any more, or the bounds are over.
pub(super) async fn drain(context: &Context, slot: &Slot) {
    slot.set_draining(context, true);
    if let Err(error) = tell::draining(context, slot, ACKNOWLEDGE_MAX).await {
        // Without a control plane nobody can be asked to go elsewhere.
        tracing::warn!(workload = slot.instance.key(), %error, "it is stopped without being taken out of service");
        return;
    }
    let deadline = Instant::now() + IDLE_MAX;
    // Twice, since a data plane may acknowledge a moment before its last worker follows.
    let mut looks = 0;
    while looks < 2 && Instant::now() < deadline {
        looks = if is_idle(context, slot).await {
            looks + 1
        } else {
            0
        };
        tokio::time::sleep(IDLE_POLL).await;
    }
}

/// Whether neither its own sidecar nor anybody else's has a request of it under way.
async fn is_idle(context: &Context, slot: &Slot) -> bool {
    let own = slot.instance.admin();
    let ports: Vec<Text> = slot
        .instance
        .ports
        .iter()
        .map(|port| slot.instance.inbound_socket(port.container).to_string().into())
        .collect();
    let mut admins: Vec<SocketAddr> = vec![own];
    admins.extend(
        context
            .slots()
            .iter()
            .map(|other| other.instance.admin())
            .filter(|admin| *admin != own),
    );
    admins.push(context.options.gateway.admin());
    admins.extend(context.more_gateways.borrow().iter().map(Gateway::admin));
    for admin in admins {
        let request = Ask {
            path: "/clusters",
            timeout: ADMIN_TIMEOUT,
            ..Ask::default()
        };
        // A proxy that does not answer has nothing under way that would end well.
        if let Ok(answer) = ask(&Target::Tcp(admin), &request).await
            && is_busy(&String::from_utf8_lossy(&answer.body), admin == own, &ports)
        {
            return false;
        }
    }
    true
}

/// Reads Envoy's text form, `cluster::address::rq_active::N`: requests to those addresses, or of the own sidecar to its
/// application.
fn is_busy(clusters: &str, own: bool, addresses: &[Text]) -> bool {
    clusters.lines().any(|line| {
        let Some((head, count)) = line.split_once("::rq_active::") else {
            return false;
        };
        let Some((cluster, address)) = head.rsplit_once("::") else {
            return false;
        };
        count.trim() != "0"
            && (own && cluster.starts_with("inbound|") || addresses.iter().any(|known| **known == *address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_the_workload_makes_it_busy_and_others_do_not() {
        let addresses = ["127.10.0.1:8080".into()];
        let clusters = "\
outbound|80||node.lab.svc.cluster.local::127.10.0.1:8080::cx_active::3
outbound|80||node.lab.svc.cluster.local::127.10.0.1:8080::rq_active::0
outbound|80||node.lab.svc.cluster.local::127.10.0.2:8080::rq_active::4
inbound|8080||::10.244.0.1:8080::rq_active::2
";
        assert!(!is_busy(clusters, false, &addresses));
        assert!(is_busy(clusters, true, &addresses));
        let busy = clusters.replace("rq_active::0", "rq_active::1");
        assert!(is_busy(&busy, false, &addresses));
    }
}
