//! One opaque connection: choose a cluster and an endpoint, connect, relay until both sides have finished.

use std::{rc::Rc, time::Duration};

use rajut_platform::relay::{self, RelayEnd, RelayOptions, RelayOutcome, RelayProgress};

use super::Proxy;
use crate::{
    cluster::{PickContext, demand},
    connection::Connection,
    failure::{Failure, FailureKind},
    listener::stats::add,
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
    let established = match establish(worker, connection, proxy).await {
        Ok(established) => established,
        Err(failure) => {
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
            abort(&stream);
            return;
        }
    };
    let Established {
        stream: mut upstream,
        permit,
    } = established;
    let progress = RelayProgress::default();
    let relaying = relay(&mut stream, &mut upstream, proxy.ir.idle_timeout, &progress);
    let finished = match proxy.ir.max_downstream_connection_duration {
        Some(lifetime) => tokio::time::timeout(lifetime, relaying)
            .await
            .is_ok_and(|outcome| is_orderly(&outcome)),
        None => is_orderly(&relaying.await),
    };
    add(&worker.listeners.tcp_received_bytes, progress.a_to_b.get());
    add(&worker.listeners.tcp_sent_bytes, progress.b_to_a.get());
    if !finished {
        // One side was reset or ran out of time: the other one is owed a failure, not an orderly end.
        abort(&stream);
        abort(&upstream);
    }
    drop(permit);
}

fn is_orderly(outcome: &RelayOutcome) -> bool {
    matches!(outcome.end, RelayEnd::Finished | RelayEnd::Idle)
}

async fn establish(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    proxy: &Proxy,
) -> Result<Established, Failure> {
    let epoch = worker.epoch();
    let name = proxy.cluster_for(worker.random()).unwrap_or_default();
    let not_found = FailureKind::NoCluster { status: 503 };
    let cluster = &Box::pin(demand::cluster(worker, &epoch, name, not_found))
        .await
        .map_err(|kind| Failure::new(kind, name))?;
    let (mut attempt, mut tried) = (1, Vec::new());
    loop {
        let context = PickContext {
            exclude: &tried,
            ..PickContext::for_connection(worker, connection)
        };
        let host = cluster.pick(&context)?;
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
