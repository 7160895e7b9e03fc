//! External authorization of connections (Envoy's network filter `ext_authz`): a provider is asked over gRPC once, when the peer is known
//! and before anything is served. The messages are those of requests (`http/filters/ext_authz`), without a request.
//!
//! Bounds: an answer as there, the call its timeout. A client that goes away meanwhile is noticed afterwards.

use std::{rc::Rc, sync::Arc};

use rajut_ir::ext_authz::NetworkExtAuthz;
use rajut_types::Text;

use super::{access::Noted, stats::add};
use crate::{
    cluster::demand,
    connection::Connection,
    failure::{Failure, FailureKind},
    http::{filters::ext_authz as messages, mirror},
    stats::{ExtAuthzCounter, ExtAuthzStats, Registry},
    worker::Worker,
};

/// The filter of a chain, with its counters.
#[derive(Debug)]
pub struct Asker {
    ir: Arc<NetworkExtAuthz>,
    stats: Arc<ExtAuthzStats>,
}

impl Asker {
    /// With the counters of its prefix.
    pub fn new(ir: Arc<NetworkExtAuthz>, registry: &Registry) -> Self {
        Self {
            stats: registry.network_ext_authz(&ir.stat_prefix),
            ir,
        }
    }

    /// Whether the provider lets the connection be served.
    pub(super) async fn allows(&self, worker: &Rc<Worker>, connection: &Connection, noted: &[Noted]) -> bool {
        let count = |counter| self.stats.add(worker.index, counter);
        let meant = self.ir.asked.as_ref().is_none_or(|asked| {
            noted.iter().any(|noted| {
                noted.prefix == asked.shadow_prefix && asked.policy.matches(noted.policy.as_bytes())
            })
        });
        if !meant {
            count(ExtAuthzCounter::Disabled);
            return true;
        }
        let asking = self.ask(worker, connection);
        let answer = match self.ir.timeout {
            Some(limit) => tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| {
                count(ExtAuthzCounter::Timeout);
                Err("timeout".into())
            }),
            None => asking.await,
        };
        match answer {
            Ok(true) => {
                count(ExtAuthzCounter::Ok);
                true
            }
            Ok(false) => {
                count(ExtAuthzCounter::Denied);
                self.say(connection, "the provider refuses it");
                false
            }
            Err(why) => {
                count(ExtAuthzCounter::Error);
                if self.ir.failure_mode_allow {
                    count(ExtAuthzCounter::FailureModeAllowed);
                    return true;
                }
                self.say(connection, &format!("the provider does not answer: {why}"));
                false
            }
        }
    }

    fn say(&self, connection: &Connection, why: &str) {
        tracing::info!(
            listener = %connection.listener, client = %connection.remote, destination = %connection.local,
            provider = %self.ir.cluster, "connection refused by external authorization: {why}"
        );
    }

    async fn ask(&self, worker: &Rc<Worker>, connection: &Connection) -> Result<bool, Text> {
        let ir = &self.ir;
        let message =
            messages::check_connection(connection, ir.include_peer_certificate, ir.include_tls_session);
        let authority = if ir.authority.is_empty() {
            &ir.cluster
        } else {
            &ir.authority
        };
        let told = |failure: Failure| Text::from(failure.to_string());
        let (head, body) = messages::call(authority, &message).map_err(told)?.into_parts();
        let epoch = worker.epoch();
        let unknown = FailureKind::NoCluster { status: 503 };
        let cluster = demand::cluster(worker, &epoch, &ir.cluster, unknown)
            .await
            .map_err(|kind| told(kind.into()))?;
        let answer = mirror::send_aside(worker, &epoch, &cluster, &head, body, None, messages::ANSWER_MAX);
        messages::allows(&answer.await.map_err(told)?)
    }
}

/// Ends when the rules change so that an open connection would be refused by them, where its chain wants it to end then; and, whatever
/// the chain wants, when the certificate is revoked that it was opened with. Providers are not asked again.
pub(crate) async fn withdrawn(worker: &Rc<Worker>, connection: &Connection, is_tls: bool) {
    let mut adoptions = worker.adoptions();
    let mut is_new = worker.epoch().config.version != connection.version;
    loop {
        if !std::mem::take(&mut is_new) && adoptions.changed().await.is_err() {
            // A worker that is gone has no more configurations.
            return std::future::pending().await;
        }
        let epoch = worker.epoch();
        if epoch.config.revokes(&connection.peer) {
            add(&worker.listeners.withdrawn, 1);
            return;
        }
        let listener = epoch.config.listeners.get(&connection.listener);
        let chain = listener.and_then(|listener| listener.chain_now(connection.chain.as_deref()));
        let Some(chain) = chain.filter(|chain| chain.judges_open) else {
            continue;
        };
        let mut access = chain.access.iter();
        if !access.all(|one| one.allows(worker.index, connection, is_tls, &mut Vec::new())) {
            add(&worker.listeners.withdrawn, 1);
            return;
        }
    }
}
