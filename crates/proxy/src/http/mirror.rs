//! Copies of requests for other clusters: sent and forgotten.
//!
//! Bounds: only requests whose body is small enough to be kept are copied ([`super::retry::REPLAY_MAX`]), at most
//! [`MIRRORS_MAX`] copies are under way per worker, and each within [`MIRROR_TIME`]. A copy fails silently, is not
//! tried again and leaves no log line.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use rajut_codec::{Fields, Known, RequestHead, ResponseHead, h1::BodyLength};
use rajut_ir::route::Forward;
use tokio::task::spawn_local;

use super::{message::Piece, record::Record, trace};
use crate::{
    cluster::{Cluster, PickContext, demand},
    epoch::Epoch,
    failure::{Failure, FailureKind},
    stats::ClusterCounter,
    upstream::{
        exchange::{Head, Upstream},
        pool::Wants,
    },
    worker::Worker,
};

/// Copies under way per worker.
pub(crate) const MIRRORS_MAX: u32 = 1024;
/// How long a copy may take.
const MIRROR_TIME: Duration = Duration::from_secs(15);

thread_local! {
    static UNDER_WAY: Cell<u32> = const { Cell::new(0) };
}

/// Sends the copies that the route asks for. `body`: the whole request body, `None` where it was not kept.
pub(crate) fn send(record: &Record, epoch: &Rc<Epoch>, forward: &Forward, body: Option<Vec<Piece>>) {
    let Some(body) = body else { return };
    for mirror in &forward.mirrors {
        let worker = record.worker();
        if !mirror.fraction.includes(worker.draw()) || UNDER_WAY.get() >= MIRRORS_MAX {
            continue;
        }
        let mut head = record.head.clone();
        if mirror.shadow_host_suffix {
            let shadow = shadow_authority(&head);
            // A host with the suffix is as valid as without.
            let _ = head.set_authority(shadow.into());
        }
        if let Some(trace) = record.trace.as_ref().filter(|_| !mirror.traced) {
            trace::untrace(trace, &mut head.fields);
        }
        let (worker, epoch, name) = (worker.clone(), epoch.clone(), mirror.cluster.clone());
        let (body, destination) = (body.clone(), record.shared.connection.local);
        let sent = async move {
            let unknown = FailureKind::NoCluster { status: 503 };
            let Ok(cluster) = demand::cluster(&worker, &epoch, &name, unknown).await else {
                return;
            };
            let copy = Copy {
                worker,
                epoch,
                cluster,
                head,
                body,
                destination,
            };
            // A copy that fails is nobody's concern.
            let _ = copy.run().await;
        };
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        spawn_local(async move {
            // Nobody waits for it.
            let _ = tokio::time::timeout(MIRROR_TIME, sent).await;
            UNDER_WAY.set(UNDER_WAY.get().saturating_sub(1));
        });
    }
}

/// `host-shadow[:port]`, as Envoy writes it.
fn shadow_authority(head: &RequestHead) -> Vec<u8> {
    let host_end = match head.port() {
        Some(_) => head
            .authority
            .iter()
            .rposition(|byte| *byte == b':')
            .unwrap_or(head.authority.len()),
        None => head.authority.len(),
    };
    let (host, port) = head.authority.split_at(host_end);
    [host, b"-shadow", port].concat()
}

struct Copy {
    worker: Rc<Worker>,
    epoch: Rc<Epoch>,
    cluster: std::sync::Arc<Cluster>,
    head: RequestHead,
    body: Vec<Piece>,
    destination: std::net::SocketAddr,
}

impl Copy {
    async fn run(self) -> Result<(), Failure> {
        let destination = Some(self.destination);
        send_aside(
            &self.worker,
            &self.epoch,
            &self.cluster,
            &self.head,
            self.body,
            destination,
            0,
        )
        .await?;
        Ok(())
    }
}

/// An answer that goes nowhere.
#[derive(Debug)]
pub(crate) struct Aside {
    head: ResponseHead,
    body: Vec<u8>,
    trailers: Option<Fields>,
}

impl Aside {
    /// The head's status.
    pub(crate) const fn status(&self) -> u16 {
        self.head.status
    }

    /// The head's fields.
    pub(crate) const fn fields(&self) -> &Fields {
        &self.head.fields
    }

    /// What was to be kept of the body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// `grpc-status`, of the trailers or, where there was nothing else, of the head.
    pub(crate) fn grpc_status(&self) -> Option<u8> {
        let of = |fields: &Fields| fields.get_str(Known::GrpcStatus)?.parse().ok();
        (self.head.status == 200)
            .then(|| {
                self.trailers
                    .as_ref()
                    .and_then(of)
                    .or_else(|| of(&self.head.fields))
            })
            .flatten()
    }
}

/// Sends a request of the proxy's own (a copy, an export, a question) to a cluster and reads its answer to the end. `keep`: bytes of
/// the answer's body that are wanted; more are a failure. 0: none is wanted, however many come.
pub(crate) async fn send_aside(
    worker: &Rc<Worker>,
    epoch: &Rc<Epoch>,
    cluster: &std::sync::Arc<Cluster>,
    head: &RequestHead,
    body: Vec<Piece>,
    destination: Option<std::net::SocketAddr>,
    keep: usize,
) -> Result<Aside, Failure> {
    let context = PickContext {
        worker,
        hash: None,
        exclude: &[],
        destination,
        skip_priorities: 0,
    };
    let host = cluster.pick(&context)?;
    let _permit = cluster.breakers().request().ok_or(FailureKind::RequestOverflow)?;
    let wants = Wants {
        version: head.version,
        careful: false,
        fresh: false,
    };
    let authority = String::from_utf8_lossy(head.host()).into_owned();
    let mut upstream = epoch
        .pools
        .acquire(worker, cluster, &host, wants, &authority)
        .await?;
    let _active = host.begin_request();
    let stats = cluster.stats();
    stats.add(worker.index, ClusterCounter::RqTotal);
    let exchanged = exchange(&mut upstream, head, body, keep).await;
    stats.add(worker.index, ClusterCounter::RqCompleted);
    let answer = exchanged?;
    stats.add_status(worker.index, answer.head.status);
    upstream.finish();
    Ok(answer)
}

async fn exchange(
    upstream: &mut Upstream,
    head: &RequestHead,
    body: Vec<Piece>,
    keep: usize,
) -> Result<Aside, Failure> {
    let bytes: u64 = body
        .iter()
        .map(|piece| match piece {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Trailers(_) | Piece::End => 0,
        })
        .sum();
    let length = if bytes == 0 {
        BodyLength::Empty
    } else {
        BodyLength::Exact(bytes)
    };
    upstream.push_head(head, length)?;
    for piece in body {
        poll_fn(|cx| {
            while !upstream.has_room() {
                if upstream.poll_flush(cx)?.is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok::<_, Failure>(()))
        })
        .await?;
        // Trailers have no place after a known length.
        if !matches!(piece, Piece::Trailers(_)) {
            upstream.push(piece)?;
        }
    }
    let (mut answered, mut trailers, mut kept) = (None, None, Vec::new());
    poll_fn(|cx| {
        let _ = upstream.poll_flush(cx)?;
        loop {
            if answered.is_none() {
                match std::task::ready!(upstream.poll_head(cx))? {
                    Head::Informational(_) => {}
                    Head::Final(head, _) => answered = Some(head),
                }
                continue;
            }
            match std::task::ready!(upstream.poll_piece(cx))? {
                Piece::Data(_) if keep == 0 => {}
                Piece::Data(bytes) if kept.len() + bytes.len() <= keep => kept.extend_from_slice(&bytes),
                Piece::Data(_) => {
                    let why = format!("an answer of more than {keep} bytes");
                    return Poll::Ready(Err(Failure::new(FailureKind::UpstreamProtocol, why)));
                }
                Piece::Trailers(fields) => trailers = Some(fields),
                Piece::End => {
                    return Poll::Ready(Ok(Aside {
                        head: answered.take().unwrap_or_default(),
                        body: std::mem::take(&mut kept),
                        trailers: trailers.take(),
                    }));
                }
            }
        }
    })
    .await
}
