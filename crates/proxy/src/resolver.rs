//! Which DNS clusters are being looked up: one task each, started when the cluster appears, ended when it leaves or
//! changes. The looking up itself is [`crate::cluster::dns`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rajut_ir::{cluster::Cluster, endpoint::LoadAssignment};
use rajut_types::Text;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{cluster::dns, held::ClusterSource};

/// The running lookups, by cluster.
#[derive(Debug)]
pub struct Resolver {
    tasks: HashMap<Text, (Arc<Cluster>, JoinHandle<()>)>,
    resolved: mpsc::Sender<(Text, Arc<LoadAssignment>)>,
}

impl Resolver {
    /// Publishes to `resolved`; an answer for which there is no room is dropped and comes again with the next lookup
    /// that differs.
    pub fn new(resolved: mpsc::Sender<(Text, Arc<LoadAssignment>)>) -> Self {
        Self {
            tasks: HashMap::new(),
            resolved,
        }
    }

    /// Starts and ends lookups so that they are those of `clusters`.
    pub fn follow(&mut self, clusters: &BTreeMap<Text, ClusterSource>) {
        let kept = |source: &ClusterSource| match source {
            ClusterSource::Kept(cluster) => Some(cluster.clone()),
            ClusterSource::Encoded { .. } => None,
        };
        self.tasks.retain(|name, (known, task)| {
            let stays = clusters
                .get(name)
                .and_then(kept)
                .is_some_and(|cluster| Arc::ptr_eq(&cluster, known));
            if !stays {
                task.abort();
            }
            stays
        });
        for (name, source) in clusters {
            let Some(cluster) = kept(source) else { continue };
            if !dns::is_needed(&cluster) || self.tasks.contains_key(name) {
                continue;
            }
            let (resolved, published) = (self.resolved.clone(), name.clone());
            let watching = dns::watch(cluster.clone(), move |assignment| {
                if resolved.try_send((published.clone(), assignment)).is_err() {
                    tracing::warn!(cluster = %published, "an answer of the resolver was dropped");
                }
            });
            self.tasks.insert(
                name.clone(),
                (cluster.clone(), tokio::task::spawn_local(watching)),
            );
        }
    }
}
