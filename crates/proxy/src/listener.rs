//! Steps 1 to 3 of walk one: accept, detect, choose a filter chain, terminate TLS, hand over to HTTP or TCP.
//!
//! A compiled listener is part of the shared [`crate::epoch::Config`]; its sockets are not, so that filter chains
//! change without a socket being closed. What connections arrive on a socket is looked up in the worker's epoch of
//! that moment.

pub mod accept;
pub mod access;
pub mod authorize;
pub mod balance;
pub mod chain;
pub mod detect;
pub mod stats;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rajut_ir::listener as ir;
use rajut_types::Text;

use crate::{http::manager::Manager, tls::terminate::Terminator};

/// A running listener, shared by all workers.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    pub ir: Arc<ir::Listener>,
    /// Chooses among `chains`.
    pub matcher: chain::Matcher,
    /// In the listener's order.
    pub chains: Vec<Arc<Chain>>,
    /// Where none matches.
    pub default_chain: Option<Arc<Chain>>,
    /// Of connections that no chain takes.
    pub logs: Vec<crate::access_log::Log>,
}

/// A running filter chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name.
    pub name: Text,
    /// Terminates TLS where set.
    pub tls: Option<Terminator>,
    /// How long the handshake may take.
    pub handshake_timeout: Duration,
    /// Access control, in order.
    pub access: Vec<access::Access>,
    /// Who else is asked, after that many of `access`.
    pub asker: Option<(usize, authorize::Asker)>,
    /// Somebody is to see the certificates of peers.
    pub shows_certificate: bool,
    /// What is open is judged again when the access control changes.
    pub judges_open: bool,
    /// What serves the connection then.
    pub action: Action,
}

/// What serves a chain's connections.
#[derive(Debug)]
pub enum Action {
    /// HTTP.
    Http(Arc<Manager>),
    /// Bytes.
    Tcp(Arc<crate::tcp::Proxy>),
}

impl Listener {
    /// The connection manager of the chain that takes what `older` took (`None`: the default chain), if it has one.
    pub fn manager(&self, older: Option<&ir::FilterChain>) -> Option<&Arc<Manager>> {
        match &self.chain_now(older)?.action {
            Action::Http(manager) => Some(manager),
            Action::Tcp(_) => None,
        }
    }

    /// The chain that takes what `older` took (`None`: the default chain).
    pub fn chain_now(&self, older: Option<&ir::FilterChain>) -> Option<&Arc<Chain>> {
        match older {
            None => self.default_chain.as_ref(),
            Some(older) => {
                let mut chains = self.ir.filter_chains.iter();
                let at = chains.position(|chain| chain.matches == older.matches);
                at.and_then(|at| self.chains.get(at))
            }
        }
    }

    /// Where its socket is; `None` where connections are only handed over to it.
    pub fn bound_address(&self) -> Option<SocketAddr> {
        (self.ir.bind_to_port && self.ir.api_listener.is_none()).then_some(self.ir.address.socket)
    }
}
