//! Making a connection to a host: socket (in the cluster's namespace, from its source address), TCP, TLS, all within
//! the cluster's connect timeout.
//!
//! Used by the HTTP pools and by opaque TCP. What it does not do: queue at the connection cap (`upstream/pool.rs`
//! does; opaque TCP is refused there).

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use rajut_identity::certificate::Facts;
use rajut_ir::{cluster::Cluster as ClusterIr, endpoint::EndpointAddress};
use rajut_platform::socket::{ConnectOptions, Keepalive, TcpStream};
use rajut_types::Text;

use crate::{
    cluster::{Cluster, Host, breaker::Permit, outlier::Outcome},
    failure::{Failure, FailureKind},
    stats::{ClusterCounter, istio::Ends, texts::TextId},
    stream::Stream,
    tls::originate::Originator,
    worker::Worker,
};

/// A new connection and its place under the cluster's cap.
#[derive(Debug)]
pub struct Established {
    /// The connection; after TLS where the host has it.
    pub stream: Stream,
    /// Who its two ends have proven to be.
    pub(crate) ends: Ends,
    /// Keeps the books until the connection is dropped.
    pub permit: ConnectionGuard,
}

/// Counts a connection as open, and holds its place under the cap, until dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    worker: usize,
    _permit: Permit,
}

impl ConnectionGuard {
    /// The host at the other end.
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.cluster.stats().add(self.worker, ClusterCounter::CxDestroy);
        self.host.count_closed();
    }
}

/// Takes a place under the connection cap and connects; [`FailureKind::ConnectionOverflow`] at the cap.
/// `host_name` is the request's host, for `auto_sni`.
pub async fn connect(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    host_name: Option<&str>,
) -> Result<Established, Failure> {
    let Some(permit) = cluster.breakers().connection() else {
        cluster.stats().add(worker.index, ClusterCounter::CxOverflow);
        return Err(FailureKind::ConnectionOverflow.into());
    };
    connect_with(worker, cluster, host, host_name, permit).await
}

/// Connects under a place that the caller has taken.
pub async fn connect_with(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    host_name: Option<&str>,
    permit: Permit,
) -> Result<Established, Failure> {
    let stats = cluster.stats();
    let limit = cluster.ir().connect_timeout;
    let made = tokio::time::timeout(limit, dial(worker, cluster, host, host_name)).await;
    match made.unwrap_or_else(|_| Err(FailureKind::ConnectTimeout.into())) {
        Ok(stream) => {
            stats.add(worker.index, ClusterCounter::CxTotal);
            host.count_connected();
            cluster.report(worker.index, host, Outcome::Connected);
            Ok(Established {
                ends: cluster
                    .originator(host)
                    .map_or_else(Ends::default, |originator| proven(&stream, originator)),
                stream,
                permit: ConnectionGuard {
                    cluster: cluster.clone(),
                    host: host.clone(),
                    worker: worker.index,
                    _permit: permit,
                },
            })
        }
        Err(failure) => {
            stats.add(worker.index, ClusterCounter::CxConnectFail);
            if failure.kind == FailureKind::ConnectTimeout {
                stats.add(worker.index, ClusterCounter::CxConnectTimeout);
            }
            host.count_connect_failure();
            Err(failure)
        }
    }
}

/// The identities of both ends of a connection under TLS.
fn proven(stream: &Stream, originator: &Originator) -> Ends {
    if originator.own_uri().is_empty() {
        return Ends::default();
    }
    let peer = stream.peer_certificate().and_then(|certificate| {
        let facts = Facts::parse(certificate).ok()?;
        facts.uris.first().map(|uri| TextId::of(uri))
    });
    Ends {
        own: TextId::of(originator.own_uri()),
        peer: peer.unwrap_or_default(),
    }
}

/// Makes a connection that is in no books: for health checks. The caller bounds the time.
pub(crate) async fn dial(
    worker: &Rc<Worker>,
    cluster: &Cluster,
    host: &Host,
    host_name: Option<&str>,
) -> Result<Stream, Failure> {
    let tcp = dial_tcp(worker, cluster.ir(), host).await?;
    match cluster.originator(host) {
        None => Ok(Stream::Tcp(tcp)),
        Some(originator) => originator.connect(tcp, host_name).await.map_err(|error| {
            Failure::new(
                FailureKind::TlsFailure,
                format!("TLS_error:|{}:TLS_error_end", readable(&error)),
            )
        }),
    }
}

async fn dial_tcp(worker: &Rc<Worker>, ir: &ClusterIr, host: &Host) -> Result<TcpStream, Failure> {
    let address: SocketAddr = match &host.address {
        EndpointAddress::Socket(address) => *address,
        EndpointAddress::Dns { .. } => return Err(FailureKind::DnsFailure.into()),
        EndpointAddress::Pipe(path) => {
            let reason =
                format!("delayed connect error: unix socket {path}: only TCP endpoints are supported");
            return Err(Failure::new(FailureKind::ConnectFailure, reason));
        }
    };
    let options = ConnectOptions {
        source: ir.bind.as_ref().and_then(|bind| bind.source),
        keepalive: ir.tcp_keepalive.as_ref().map(|keepalive| Keepalive {
            time: keepalive.time,
            interval: keepalive.interval,
            probes: keepalive.probes,
        }),
        ..ConnectOptions::default()
    };
    let netns: Option<&Text> = ir.bind.as_ref().and_then(|bind| bind.netns.as_ref());
    let connected = match netns {
        None => rajut_platform::socket::connect(address, &options).await,
        Some(path) => worker.namespaces.connect(path, options, address).await,
    };
    connected.map_err(|error| {
        Failure::new(
            FailureKind::ConnectFailure,
            format!("delayed connect error: {}", readable(&error)),
        )
    })
}

/// The error as people know it, without the number that Rust adds.
fn readable(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text
}
