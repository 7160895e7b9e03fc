//! The control plane's TLS port: accepts connections, finishes their handshakes within a bound, and hands them over with
//! the peer's verified identity ([`PeerInfo`]).
//!
//! TLS 1.3 only. A client certificate is optional here (enrolment has none yet) but must be a mesh certificate where it is
//! shown; what needs one asks [`PeerInfo::principal`]. Bounds: [`HANDSHAKES_MAX`] at once, [`HANDSHAKE_TIMEOUT`] each.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rajut_identity::{Identity, PeerRules, principal_of, rustls, tls::mesh_server_config};
use rajut_platform::socket::{AcceptFault, TcpListener, TcpStream, accept_fault};
use rajut_types::{Principal, TrustDomain};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Handshakes at once; more connections wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// A client that has not finished its handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Finished connections that wait to be served.
const READY_MAX: usize = 16;

/// What is known of a connection's other end.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The verified mesh identity; `None` where no certificate was shown.
    pub principal: Option<Principal>,
    /// Where it comes from.
    pub address: SocketAddr,
}

/// A finished TLS connection.
#[derive(Debug)]
pub struct Accepted {
    /// What is sent and read.
    pub(crate) stream: TlsStream<TcpStream>,
    /// Who is at the other end.
    pub(crate) peer: PeerInfo,
}

/// Accepts for ever; what is received is served. Ends when the receiver is dropped.
pub fn spawn_acceptor(
    listener: TcpListener,
    identity: watch::Receiver<Arc<Identity>>,
    trust_domains: Vec<TrustDomain>,
) -> mpsc::Receiver<io::Result<Accepted>> {
    let (sender, receiver) = mpsc::channel(READY_MAX);
    tokio::spawn(accept(listener, identity, trust_domains, sender));
    receiver
}

async fn accept(
    listener: TcpListener,
    mut identity: watch::Receiver<Arc<Identity>>,
    trust_domains: Vec<TrustDomain>,
    sender: mpsc::Sender<io::Result<Accepted>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut config = server_config(&identity.borrow_and_update(), &trust_domains);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Ok(()) = identity.changed() => {
                config = server_config(&identity.borrow_and_update(), &trust_domains).or(config);
                continue;
            }
            () = sender.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if matches!(accept_fault(&error), AcceptFault::Listener) {
                    // The error means that nobody serves any more.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(config) = config.clone() else { continue };
        let (Ok(permit), sender) = (Arc::clone(&handshakes).acquire_owned().await, sender.clone()) else {
            return;
        };
        tokio::spawn(async move {
            match handshake(stream, address, config).await {
                // The error means that nobody serves any more.
                Ok(accepted) => drop(sender.send(Ok(accepted)).await),
                Err(error) => tracing::debug!(%address, %error, "handshake failed"),
            }
            drop(permit);
        });
    }
}

fn server_config(identity: &Identity, trust_domains: &[TrustDomain]) -> Option<Arc<rustls::ServerConfig>> {
    let rules = PeerRules::mesh(trust_domains.iter().cloned());
    mesh_server_config(identity, rules, &["h2"], false)
        .inspect_err(|error| tracing::error!(%error, "the control plane's certificate can't be used"))
        .ok()
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<rustls::ServerConfig>,
) -> io::Result<Accepted> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await??;
    let certificates = stream.get_ref().1.peer_certificates();
    let principal = certificates.and_then(principal_of);
    Ok(Accepted {
        stream,
        peer: PeerInfo { principal, address },
    })
}
