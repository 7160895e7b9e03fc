//! One opaque connection: choose a cluster and an endpoint, connect, relay until both sides have finished.

use std::{convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use rajut_platform::relay::{self, RelayEnd, RelayOptions, RelayOutcome, RelayProgress};

use super::{Proxy, record::Record};
use crate::{
    cluster::{Cluster, Host, PickContext, demand},
    connection::Connection,
    failure::{Failure, FailureKind, Flags},
    listener::{authorize, stats::add},
    stats::istio::{Ends, Open, Protocol},
    stream::Stream,
    unknown::{self, Spoke},
    upstream::connect::{Established, connect},
    worker::Worker,
};

/// Serves the connection to its end.
pub async fn serve_connection(
    worker: &Rc<Worker>,
    mut stream: Stream,
    connection: &Rc<Connection>,
    proxy: &Proxy,
) {
    let is_tls = matches!(stream, Stream::Tls(_));
    let mut reached = Reached::default();
    let established = match establish(worker, connection, proxy, &mut reached).await {
        Ok(established) => established,
        Err(failure) => {
            // Istio's metrics have refused connections as opened and closed.
            if let Some(open) = reached.count(worker, connection, proxy, failure.spec().flag) {
                open.opened();
            }
            refuse(connection, proxy, &failure);
            abort(&stream);
            let record = Record::failed(connection, &reached, &failure);
            proxy.log(worker.index, &record);
            return;
        }
    };
    let Established {
        stream: mut upstream,
        ends,
        permit,
    } = established;
    reached.ends = ends;
    let upstream_local = upstream.socket().and_then(|socket| socket.local_addr().ok());
    let open = reached.count(worker, connection, proxy, Flags::NONE);
    if let Some(open) = &open {
        open.opened();
    }
    let progress = RelayProgress::default();
    let mut told = Told::default();
    let relaying = relay(&mut stream, &mut upstream, proxy.ir.idle_timeout, &progress);
    let reporting = report(proxy, open.as_ref(), &progress, &mut told);
    // Boxed: it waits for as long as the connection is open.
    let withdrawn = Box::pin(authorize::withdrawn(worker, connection, is_tls));
    let watched = async {
        tokio::select! {
            biased;
            outcome = relaying => Some(outcome),
            () = withdrawn => None,
            never = reporting => match never {},
        }
    };
    let finished = match proxy.ir.max_downstream_connection_duration {
        Some(lifetime) => tokio::time::timeout(lifetime, watched)
            .await
            .is_ok_and(|outcome| outcome.is_some_and(|outcome| is_orderly(&outcome))),
        None => watched.await.is_some_and(|outcome| is_orderly(&outcome)),
    };
    if let Some(open) = &open {
        told.report(open, &progress);
    }
    add(&worker.listeners.tcp_received_bytes, progress.a_to_b.get());
    add(&worker.listeners.tcp_sent_bytes, progress.b_to_a.get());
    if !finished {
        // One side was reset or ran out of time: the other one is owed a failure, not an orderly end.
        abort(&stream);
        abort(&upstream);
    }
    drop(permit);
    let record = Record {
        upstream_local,
        received: progress.a_to_b.get(),
        sent: progress.b_to_a.get(),
        ..Record::of(connection, &reached)
    };
    proxy.log(worker.index, &record);
}

/// Says why a connection goes nowhere.
fn refuse(connection: &Connection, proxy: &Proxy, failure: &Failure) {
    tracing::info!(
        listener = %connection.listener, destination = %connection.local, reason = failure.reason.as_deref(),
        "connection refused: {:?}", failure.kind
    );
    if proxy
        .ir
        .clusters
        .iter()
        .any(|(name, _)| &**name == unknown::BLACK_HOLE)
    {
        let (name, spoke) = match &connection.sni {
            Some(name) => (&**name, Spoke::Tls),
            None => ("", Spoke::Bytes),
        };
        unknown::say(name, connection.local, spoke);
    }
}

/// How far a connection got, for its metrics and logs.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) host: Option<Arc<Host>>,
    ends: Ends,
}

impl Reached {
    /// The counters of the connection; `None` where it has none.
    fn count(&self, worker: &Worker, connection: &Connection, proxy: &Proxy, flags: Flags) -> Option<Open> {
        let meter = proxy.meter.as_ref()?;
        let mut key = meter.key(Protocol::Tcp);
        key.flags = flags;
        if let Some(cluster) = &self.cluster {
            key.service = cluster.service();
            key.cluster = cluster.name_id();
        }
        if meter.is_client() {
            key.peer = self
                .host
                .as_ref()
                .map(|host| host.workload_id)
                .unwrap_or_default();
            key.ends = self.ends;
        } else {
            key.ends = connection.peer.ends();
        }
        Some(worker.metrics.connection(meter, key))
    }
}

/// What of a connection's bytes its metrics have.
#[derive(Debug, Default)]
struct Told {
    received: u64,
    sent: u64,
}

impl Told {
    fn report(&mut self, open: &Open, progress: &RelayProgress) {
        let (received, sent) = (progress.a_to_b.get(), progress.b_to_a.get());
        open.passed(received - self.received, sent - self.sent);
        *self = Self { received, sent };
    }
}

/// Tells the bytes of a long connection from time to time. Never ends.
async fn report(proxy: &Proxy, open: Option<&Open>, progress: &RelayProgress, told: &mut Told) -> Infallible {
    let Some((open, meter)) = open.zip(proxy.meter.as_ref()) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(meter.context.ir.tcp_reporting).await;
        told.report(open, progress);
    }
}

fn is_orderly(outcome: &RelayOutcome) -> bool {
    matches!(outcome.end, RelayEnd::Finished | RelayEnd::Idle)
}

async fn establish(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    proxy: &Proxy,
    reached: &mut Reached,
) -> Result<Established, Failure> {
    let epoch = worker.epoch();
    let name = proxy.cluster_for(worker.random()).unwrap_or_default();
    let not_found = FailureKind::NoCluster { status: 503 };
    let cluster = &Box::pin(demand::cluster(worker, &epoch, name, not_found))
        .await
        .map_err(|kind| Failure::new(kind, name))?;
    reached.cluster = Some(cluster.clone());
    let (mut attempt, mut tried) = (1, Vec::new());
    loop {
        let context = PickContext {
            exclude: &tried,
            ..PickContext::for_connection(worker, connection)
        };
        let host = cluster.pick(&context)?;
        reached.host = Some(host.clone());
        match connect(worker, cluster, &host, connection.sni.as_deref()).await {
            Ok(established) => return Ok(established),
            Err(failure) if attempt >= proxy.ir.max_connect_attempts => return Err(failure),
            Err(_) => {
                attempt += 1;
                tried.push(host.id);
            }
        }
    }
}

async fn relay(
    client: &mut Stream,
    upstream: &mut Stream,
    idle_timeout: Option<Duration>,
    progress: &RelayProgress,
) -> RelayOutcome {
    let options = RelayOptions { idle_timeout };
    match (client, upstream) {
        (Stream::Tcp(client), Stream::Tcp(upstream)) => {
            relay::relay(client, upstream, options, progress).await
        }
        (client, upstream) => relay::relay_streams(client, upstream, options, progress).await,
    }
}

/// Makes the close of `stream` a reset.
fn abort(stream: &Stream) {
    if let Some(socket) = stream.socket() {
        // A socket that is already gone needs no reset.
        drop(rajut_platform::socket::set_reset_on_close(socket));
    }
}
