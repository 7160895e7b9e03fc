//! Clusters on demand: one that a request needs and the proxy was not told is asked for, and the request waits.
//!
//! ```text
//!  request ─► epoch lacks the cluster ─► ask(name) ─► main thread subscribes ─► cluster, endpoints ─► adopted ─► goes on
//!                    │ not a service's, or known not to exist: fails at once
//!                    └ FETCH_MAX is over, or too many wait: 503
//! ```
//!
//! What exists at all the proxy knows without asking: route configurations and listeners always come whole, so that a host
//! that nobody serves meets the outbound traffic policy at once. Bounds: [`WAITING_MAX`] requests wait per worker,
//! [`FETCH_MAX`] each; [`ASKED_MAX`] names wait for the main thread.

use std::{rc::Rc, sync::Arc, time::Duration};

use rajut_types::Text;
use tokio::sync::mpsc;

use super::Cluster;
use crate::{epoch::Epoch, failure::FailureKind, worker::Worker};

/// How long a request waits for a cluster that it is the first to need.
pub const FETCH_MAX: Duration = Duration::from_secs(5);
/// Requests of one worker that wait.
pub const WAITING_MAX: u32 = 1024;
/// Names that wait for the main thread; a request that finds no room fails.
pub const ASKED_MAX: usize = 1024;

/// Whether a cluster is a service's, which is fetched when a request needs it. All others (a workload's own ports, what is
/// passed through) are there from the start. Source: Istio's names, `outbound|<port>|<subset>|<host>`.
pub fn is_on_demand(name: &str) -> bool {
    name.starts_with("outbound|")
}

/// Where workers ask.
#[derive(Debug, Clone)]
pub struct Demand(mpsc::Sender<Text>);

impl Demand {
    /// The asking end, and the main thread's.
    pub fn channel() -> (Self, mpsc::Receiver<Text>) {
        let (asked, answers) = mpsc::channel(ASKED_MAX);
        (Self(asked), answers)
    }
}

/// The cluster `name` for a request that was decided on `epoch`: what is there, or what comes in time.
pub async fn cluster(
    worker: &Rc<Worker>,
    epoch: &Rc<Epoch>,
    name: &str,
    not_found: FailureKind,
) -> Result<Arc<Cluster>, FailureKind> {
    if let Some(cluster) = epoch.cluster(name) {
        return Ok(cluster.clone());
    }
    let Some(demand) = epoch.config.demand.as_ref().filter(|_| is_on_demand(name)) else {
        return Err(not_found);
    };
    let Some(_place) = worker.wait_for_cluster() else {
        return Err(FailureKind::ClusterFetchOverflow);
    };
    // Before the question, so that the answer is not missed.
    let mut adopted = worker.adoptions();
    let now = worker.epoch();
    if let Some(cluster) = now.cluster(name) {
        return Ok(cluster.clone());
    }
    if now.config.absent.contains(name) {
        return Err(not_found);
    }
    if demand.0.try_send(name.into()).is_err() {
        return Err(FailureKind::ClusterFetchOverflow);
    }
    let fetched = async {
        // An error means that the worker ends.
        while adopted.changed().await.is_ok() {
            let epoch = worker.epoch();
            if let Some(cluster) = epoch.cluster(name) {
                return Ok(cluster.clone());
            }
            if epoch.config.absent.contains(name) {
                return Err(not_found);
            }
        }
        Err(not_found)
    };
    Box::pin(tokio::time::timeout(FETCH_MAX, fetched))
        .await
        .unwrap_or(Err(FailureKind::ClusterFetchTimeout))
}
