//! Step 3: which filter chain takes the connection. The matching itself is `ir::chain`, shared with `rajut why`.

use std::{net::SocketAddr, sync::Arc};

use rajut_ir::{chain, listener::FilterChain};

use super::detect::Seen;

/// Chooses among a listener's chains.
#[derive(Debug)]
pub struct Matcher(chain::ChainMatcher);

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The address that the client dialled.
    pub destination: SocketAddr,
    /// The client's address.
    pub source: SocketAddr,
    /// What its first bytes told.
    pub seen: &'a Seen,
}

impl Matcher {
    /// Compiles the chains' conditions.
    pub fn compile(chains: &[Arc<FilterChain>]) -> Self {
        Self(chain::ChainMatcher::compile(
            chains.iter().map(|chain| &chain.matches),
        ))
    }

    /// The place of the chain that takes it.
    pub fn select(&self, view: &View<'_>) -> Option<usize> {
        self.0.select(&chain::ConnectionView {
            destination: view.destination,
            source: view.source,
            server_name: view.seen.server_name.as_deref(),
            transport: view.seen.transport,
            application_protocols: &view.seen.protocols,
        })
    }
}
