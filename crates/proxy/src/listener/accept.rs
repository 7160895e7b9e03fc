//! Step 1: accept connections on one socket, recover the original destination, find the listener that takes them. Who
//! accepts need not serve: `balance.rs` says which worker does.
//!
//! Bounds: at most [`CONNECTIONS_MAX`] connections a worker; at the bound the socket is not accepted from until one
//! ends, so that the kernel's queue pushes back.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use rajut_ir::listener::Direction;
use rajut_platform::socket::{self, AcceptFault, TcpListener, TcpStream};
use rajut_types::Text;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    Action, Chain, Listener,
    access::Access,
    balance::{Balance, Handed, Place},
    chain::View,
    detect,
    stats::{add, sub},
};
use crate::{
    connection::{Connection, Peer},
    failure::Flags,
    http,
    stream::Stream,
    tcp::{self, record::Record, serve::Reached},
    worker::Worker,
};

/// Connections of one worker; a sidecar's descriptors are usually limited to 65,536 or more.
pub const CONNECTIONS_MAX: usize = 32_768;

/// How long accepting pauses when the process is out of descriptors: there is nothing to wait for but other
/// connections' ends.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How a worker shares connections with the others.
#[derive(Debug, Clone)]
pub struct Share {
    /// Its own bound.
    pub permits: Arc<Semaphore>,
    /// `None` where it is the only one.
    pub balance: Option<Arc<Balance>>,
}

/// Accepts on `socket` for the listener of that name until `stop` turns true.
pub async fn accept_loop(
    worker: Rc<Worker>,
    name: Text,
    socket: TcpListener,
    share: Share,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let Ok(permit) = share.permits.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                if socket::accept_fault(&error) == AcceptFault::Exhausted {
                    tracing::warn!(listener = %name, %error, "out of resources for new connections");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                continue;
            }
        };
        let Some(balance) = &share.balance else {
            spawn(&worker, name.clone(), tcp, permit, None);
            continue;
        };
        let place = balance.place(worker.index);
        if place.worker() == worker.index {
            spawn(&worker, name.clone(), tcp, permit, Some(place));
            continue;
        }
        // A socket that can't leave or come back is gone.
        let Ok(socket) = tcp.into_std() else { continue };
        let name = name.clone();
        if let Err(back) = balance.hand_over(Handed { name, socket, place })
            && let Ok(tcp) = TcpStream::from_std(back.socket)
        {
            spawn(&worker, back.name, tcp, permit, Some(back.place));
        }
    }
}

/// Serves what other workers have accepted and handed over.
pub async fn serve_handed(worker: Rc<Worker>, mut handed: mpsc::Receiver<Handed>, permits: Arc<Semaphore>) {
    // At the bound the sockets wait in the channel, and then where they were accepted.
    while let Ok(permit) = permits.clone().acquire_owned().await {
        let Some(Handed { name, socket, place }) = handed.recv().await else {
            return;
        };
        match TcpStream::from_std(socket) {
            Ok(tcp) => spawn(&worker, name, tcp, permit, Some(place)),
            Err(error) => tracing::warn!(listener = %name, %error, "a connection was lost on its way"),
        }
    }
}

fn spawn(
    worker: &Rc<Worker>,
    name: Text,
    tcp: TcpStream,
    permit: OwnedSemaphorePermit,
    place: Option<Place>,
) {
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let _held = (permit, place);
        let _open = Open::new(&worker);
        if let Err(error) = serve(&worker, &name, tcp).await {
            tracing::debug!(listener = %name, %error, "connection ended");
        }
    });
}

/// Counts an open connection of a worker.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        add(&worker.listeners.connections, 1);
        add(&worker.listeners.active, 1);
        Self(worker.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        sub(&self.0.listeners.active, 1);
    }
}

/// One connection from its first byte to its last. Each stage is boxed: a connection that waits for its next request
/// carries neither the space of the handshake that it had nor that of the stage that it never gets.
async fn serve(worker: &Rc<Worker>, name: &str, tcp: TcpStream) -> io::Result<()> {
    let Some(opened) = Box::pin(open(worker, name, tcp)).await? else {
        return Ok(());
    };
    let Opened {
        stream,
        connection,
        chain,
    } = opened;
    match &chain.action {
        Action::Http(manager) => {
            let manager = manager.clone();
            drop(chain);
            http::serve::serve_connection(worker.clone(), stream, connection, manager).await;
        }
        Action::Tcp(proxy) => {
            Box::pin(tcp::serve::serve_connection(worker, stream, &connection, proxy)).await;
        }
    }
    Ok(())
}

/// A connection whose listener, chain and peer are known.
struct Opened {
    stream: Stream,
    connection: Rc<Connection>,
    chain: Arc<Chain>,
}

/// Steps 1 to 3; `None` for a connection that nobody takes, which has been counted.
async fn open(worker: &Rc<Worker>, name: &str, tcp: TcpStream) -> io::Result<Option<Opened>> {
    let epoch = worker.epoch();
    let Some(bound) = epoch.config.listeners.get(name).cloned() else {
        return Ok(None);
    };
    let remote = tcp.peer_addr()?;
    let mut local = tcp.local_addr()?;
    let mut listener = bound;
    if listener.ir.use_original_dst || listener.ir.inspectors.original_dst {
        if let Ok(original) = socket::original_destination(&tcp) {
            local = original;
        }
        if listener.ir.use_original_dst
            && let Some(other) = epoch.config.listener_at(local)
        {
            listener = other.clone();
        }
    }
    let version = epoch.config.version;
    drop(epoch);

    let seen = detect::inspect(&tcp, &listener.ir).await?;
    let Some(seen) = seen else {
        add(&worker.listeners.detection_timeouts, 1);
        return Ok(None);
    };
    let view = View {
        destination: local,
        source: remote,
        seen: &seen,
    };
    let selected = listener.matcher.select(&view);
    let configured = selected.and_then(|at| listener.ir.filter_chains.get(at)).cloned();
    let chain = selected.map_or(listener.default_chain.as_ref(), |at| listener.chains.get(at));
    let Some(chain) = chain.cloned() else {
        refused(worker, &listener, &view);
        return Ok(None);
    };
    let opened = reading();
    let (stream, peer) = match terminate(worker, &chain, tcp).await {
        Ok(done) => done,
        Err(error) => {
            worker.listeners.handshake_failed(&error);
            tracing::debug!(listener = %listener.ir.name, chain = %chain.name, %remote, %error, "TLS handshake failed");
            return Ok(None);
        }
    };
    let connection = Rc::new(Connection {
        id: worker.next_connection_id(),
        listener: listener.ir.name.clone(),
        chain: configured,
        direction: listener.ir.direction,
        local,
        remote,
        sni: seen.server_name,
        peer,
        certificate: shown_certificate(&chain, &stream),
        version,
        opened,
    });
    if !is_allowed(worker, &chain, &stream, &connection).await {
        return Ok(None);
    }
    Ok(Some(Opened {
        stream,
        connection,
        chain,
    }))
}

#[expect(
    clippy::disallowed_methods,
    reason = "one reading for each connection, for its age alone"
)]
fn reading() -> std::time::Instant {
    std::time::Instant::now()
}

/// The peer's certificate, where somebody is to see it.
fn shown_certificate(chain: &Chain, stream: &Stream) -> Option<Bytes> {
    let shown = stream.peer_certificate().filter(|_| chain.shows_certificate);
    shown.map(|it| Bytes::copy_from_slice(it))
}

/// Whether the chain's access control lets the connection be served; one that it refuses is closed with a reset.
async fn is_allowed(worker: &Rc<Worker>, chain: &Chain, stream: &Stream, connection: &Connection) -> bool {
    let allowed = judge(worker, chain, stream, connection).await;
    if !allowed && let Some(socket) = stream.socket() {
        // A socket that is already gone needs no reset.
        drop(socket::set_reset_on_close(socket));
    }
    allowed
}

async fn judge(worker: &Rc<Worker>, chain: &Chain, stream: &Stream, connection: &Connection) -> bool {
    let is_tls = matches!(stream, Stream::Tls(_));
    let mut noted = Vec::new();
    let mut allows = |access: &[Access]| {
        let mut filters = access.iter();
        filters.all(|access| access.allows(worker.index, connection, is_tls, &mut noted))
    };
    let Some((after, asker)) = &chain.asker else {
        return allows(&chain.access);
    };
    let (before, rest) = chain.access.split_at((*after).min(chain.access.len()));
    if !allows(before) {
        return false;
    }
    // Boxed: few connections are asked about.
    Box::pin(asker.allows(worker, connection, &noted)).await
        && rest
            .iter()
            .all(|access| access.allows(worker.index, connection, is_tls, &mut Vec::new()))
}

/// Terminates TLS where the chain says so, within its time.
async fn terminate(worker: &Rc<Worker>, chain: &Arc<Chain>, tcp: TcpStream) -> io::Result<(Stream, Peer)> {
    let Some(terminator) = &chain.tls else {
        return Ok((Stream::Tcp(tcp), Peer::None));
    };
    let handshake = terminator.accept(tcp);
    let done = if chain.handshake_timeout.is_zero() {
        handshake.await
    } else {
        tokio::time::timeout(chain.handshake_timeout, handshake)
            .await
            .map_err(io::Error::other)?
    };
    if done.is_ok() {
        add(&worker.listeners.handshakes, 1);
    }
    done
}

/// A connection that no chain takes: counted, logged with what would be needed, and closed with a reset, so that the
/// client knows at once.
fn refused(worker: &Rc<Worker>, listener: &Arc<Listener>, view: &View<'_>) {
    add(&worker.listeners.no_filter_chain, 1);
    let plaintext = view.seen.transport == rajut_ir::listener::TransportProtocol::RawBuffer;
    let hint = if listener.ir.direction == Direction::Inbound && plaintext {
        "a plaintext client met a workload that takes mTLS only; give the caller a sidecar, or a PeerAuthentication \
         with mode PERMISSIVE for this port"
    } else {
        "no filter chain of the listener matches it"
    };
    tracing::info!(
        listener = %listener.ir.name, client = %view.source, destination = %view.destination,
        transport = ?view.seen.transport, flag = "NR", "connection refused: {hint}"
    );
    if listener.logs.is_empty() {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "the line of a log has a time")]
    let opened = std::time::Instant::now();
    let connection = Connection {
        id: worker.next_connection_id(),
        listener: listener.ir.name.clone(),
        chain: None,
        direction: listener.ir.direction,
        local: view.destination,
        remote: view.source,
        sni: view.seen.server_name.clone(),
        peer: Peer::None,
        certificate: None,
        version: 0,
        opened,
    };
    let reached = Reached::default();
    let record = Record {
        flags: Flags::NO_ROUTE,
        details: Some("filter_chain_not_found"),
        ..Record::of(&connection, &reached)
    };
    for log in &listener.logs {
        log.write(worker.index, &record);
    }
}
