//! Access control of connections (Envoy's network filter `rbac`): judged once, when the peer is known and before
//! anything is served. The decision itself is [`rajut_ir::rbac`]; conditions on heads do not stand here (the decoder
//! refuses them).

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rajut_ir::{
    decide::RequestView,
    jwt::Claim,
    rbac::{CallView, PeerNames, Rbac},
};

use rajut_types::Text;

use crate::{
    connection::Connection,
    http::view::peer_names,
    stats::{RbacCounter, RbacStats, Registry},
};

/// One filter of a chain, with its counters.
#[derive(Debug)]
pub struct Access {
    ir: Arc<Rbac>,
    stats: Arc<RbacStats>,
}

/// A shadow policy that applies to a connection.
#[derive(Debug)]
pub struct Noted {
    /// The prefix of the shadow rules.
    pub(super) prefix: Text,
    /// The policy's name.
    pub(super) policy: Text,
}

impl Access {
    /// With the counters of its prefix.
    pub fn new(ir: Arc<Rbac>, registry: &Registry) -> Self {
        Self {
            stats: registry.network_rbac(&ir.stat_prefix, &ir.shadow_stat_prefix),
            ir,
        }
    }

    /// Whether the connection may be served.
    pub fn allows(
        &self,
        worker: usize,
        connection: &Connection,
        is_tls: bool,
        noted: &mut Vec<Noted>,
    ) -> bool {
        let call = Call { connection, is_tls };
        if let Some(shadow) = &self.ir.shadow {
            let outcome = shadow.evaluate(&call);
            if let Some((policy, _)) = outcome.policy.and_then(|at| shadow.policies().get(at)) {
                noted.push(Noted {
                    prefix: self.ir.shadow_stat_prefix.clone(),
                    policy: policy.clone(),
                });
            }
            let counter = if outcome.allowed {
                RbacCounter::ShadowAllowed
            } else {
                RbacCounter::ShadowDenied
            };
            self.stats.add(worker, counter);
        }
        let Some(rules) = &self.ir.rules else { return true };
        let outcome = rules.evaluate(&call);
        if outcome.allowed {
            self.stats.add(worker, RbacCounter::Allowed);
        } else {
            self.stats.add(worker, RbacCounter::Denied);
            tracing::info!(
                listener = %connection.listener, client = %connection.remote, destination = %connection.local,
                "connection refused: {}", rules.details(outcome.policy)
            );
        }
        outcome.allowed
    }
}

/// A connection as policies see it.
struct Call<'c> {
    connection: &'c Connection,
    is_tls: bool,
}

impl RequestView for Call<'_> {
    fn method(&self) -> &[u8] {
        b""
    }

    fn scheme(&self) -> &[u8] {
        b""
    }

    fn authority(&self) -> &[u8] {
        b""
    }

    fn path(&self) -> &[u8] {
        b""
    }

    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

impl CallView for Call<'_> {
    fn peer(&self) -> Option<PeerNames<'_>> {
        peer_names(self.connection, self.is_tls)
    }

    fn direct_remote(&self) -> IpAddr {
        self.connection.remote.ip()
    }

    fn remote(&self) -> IpAddr {
        self.connection.remote.ip()
    }

    fn destination(&self) -> SocketAddr {
        self.connection.local
    }

    fn server_name(&self) -> &str {
        self.connection.sni.as_deref().unwrap_or("")
    }

    fn claims(&self, _: &str) -> Option<&Claim> {
        None
    }
}
