//! Exchanges that last: when the rules change, tunnels (upgrades, CONNECT) and gRPC calls that are open are judged again by those that
//! hold then, where the filter chain wants it ([`rajut_ir::listener::FilterChain::judges_open`]), and ended if they would be refused now.
//!
//! What is judged is the head as it was sent on, by the access control of the listener; what routes say of it, tokens' ends and providers
//! of external authorization are not asked again. So it holds for sidecars' inbound side, which changes nothing of a head that rules ask
//! for. An exchange whose peer's certificate was revoked ends whatever the chain wants.
//!
//! Bounds: an exchange waits for one notice of its worker, from its first wait on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::record::Record;
use crate::{
    failure::{Failure, FailureKind},
    listener::stats::add,
};

/// Watches one exchange.
#[derive(Default)]
pub(crate) struct Watch {
    /// The configuration by which it was judged last.
    version: Option<u64>,
    notice: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Ready once the exchange may not go on. `since`: the configuration by which it was let through.
    pub(crate) fn poll(&mut self, record: &Record, since: u64, cx: &mut Context<'_>) -> Poll<Failure> {
        let worker = record.worker();
        loop {
            let now = worker.epoch().config.version;
            if self.version.replace(now).unwrap_or(since) != now
                && let Some(failure) = withdrawn(record)
            {
                add(&worker.listeners.withdrawn, 1);
                return Poll::Ready(failure);
            }
            let notice = self.notice.get_or_insert_with(|| {
                let mut adoptions = worker.adoptions();
                Box::pin(async move {
                    // A worker that is gone has no more configurations.
                    if adoptions.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            });
            match notice.as_mut().poll(cx) {
                Poll::Ready(()) => self.notice = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Why the rules of now refuse what is open.
fn withdrawn(record: &Record) -> Option<Failure> {
    let shared = &record.shared;
    if shared.is_revoked() {
        return Some(revoked());
    }
    let epoch = shared.worker.epoch();
    let listener = epoch.config.listeners.get(&shared.connection.listener)?;
    let chain = listener.chain_now(shared.connection.chain.as_deref())?;
    if !chain.judges_open {
        return None;
    }
    let manager = shared.manager_now();
    let details = manager.filters().refusal(record)?;
    let mut failure = Failure::from(FailureKind::AccessDenied);
    failure.details = Some(details);
    Some(failure)
}

/// The certificate that the connection was opened with has been revoked since.
pub(crate) fn revoked() -> Failure {
    let mut failure = Failure::from(FailureKind::AccessDenied);
    failure.details = Some("peer_certificate_revoked".into());
    failure
}
