//! The gRPC service: one task per stream that drives a [`ServerStream`].
//!
//! Written on tonic's parts rather than its generated server, since that one encodes a response into one buffer: a thousand
//! proxies that start together would each hold their whole configuration. Here responses go out as
//! [`frames`](super::frames) of shared resources, and [`requests`](super::requests) leave no buffer behind.
//!
//! A stream's first exchange is the expensive one: at most [`ADMITTED_MAX`] are under way at once, so that after a reconnect
//! of everybody the first ones finish early instead of all of them late. Those behind wait in turn, for at most
//! [`ADMISSION_TIME`] per place.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rajut_proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use rajut_runtime::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tonic::{Extensions, Status, body::Body, server::NamedService};

use super::{
    Interest, ServerStream, StreamStatus,
    frames::{Queued, ResponseBody, Writer},
    requests::Requests,
};
use crate::{
    limits::{
        ADMISSION_TIME, ADMITTED_MAX, MESSAGE_BYTES_MAX, PUSH_PAUSE, RESPONSES_QUEUED_MAX, SEND_TIMEOUT,
    },
    message::{Node, Protocol, Request},
    resource::ResourceSet,
    wire,
};

/// Decides who may connect and gives each its resources.
pub trait ResourceSource: Send + Sync + 'static {
    /// A stream's first request has arrived. `extensions` hold what the acceptor knows of the connection (the peer's
    /// identity). An error ends the stream with that status.
    fn connect(&self, extensions: &Extensions, node: &Node, protocol: Protocol)
    -> Result<Connection, Status>;
}

/// Where a stream's resources come from.
pub trait Feed: Send + Sync + 'static {
    /// The newest resources; `None` until they are known.
    fn newest(&self) -> Option<Arc<ResourceSet>>;

    /// What the stream subscribes to became different. When this returns, changes of it wake the stream.
    fn interested(&self, changes: Vec<Interest>);
}

/// A client's two ends: its resources, and what it has acknowledged.
pub struct Connection {
    /// The resources.
    pub feed: Arc<dyn Feed>,
    /// Changes when the newest resources differ in something that the stream subscribes to, and when they become known. When
    /// the sender is dropped the stream ends (`UNAVAILABLE`).
    pub woken: watch::Receiver<u64>,
    /// Replaced after every event; dropped when the stream ends.
    pub status: watch::Sender<StreamStatus>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The aggregated discovery service over a [`ResourceSource`].
#[derive(Debug)]
pub struct AdsServer<S> {
    source: Arc<S>,
    clock: Clock,
    admission: Arc<Semaphore>,
}

/// A stream whose first request does not come in this time is closed.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The service's name on the wire, and its two methods.
const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const WORLD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

impl<S: ResourceSource> AdsServer<S> {
    /// The service, to be added to a tonic router.
    pub fn service(source: Arc<S>, clock: Clock) -> Self {
        Self {
            source,
            clock,
            admission: Arc::new(Semaphore::new(ADMITTED_MAX)),
        }
    }

    fn start<M: prost::Message + Default + Send + 'static>(
        &self,
        protocol: Protocol,
        request: http::Request<Body>,
        decode: fn(M) -> Request,
    ) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let (responses, queued) = mpsc::channel(RESPONSES_QUEUED_MAX);
        let stream = OneStream {
            source: Arc::clone(&self.source),
            clock: self.clock.clone(),
            admission: Arc::clone(&self.admission),
            protocol,
            extensions: parts.extensions,
            inbound: Requests::new(body, MESSAGE_BYTES_MAX),
            decode,
            responses,
        };
        tokio::spawn(stream.run());
        let mut response = http::Response::new(Body::new(ResponseBody::new(queued)));
        let kind = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    }
}

impl<S> Clone for AdsServer<S> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            clock: self.clock.clone(),
            admission: Arc::clone(&self.admission),
        }
    }
}

impl<S> NamedService for AdsServer<S> {
    const NAME: &'static str = SERVICE;
}

impl<S: ResourceSource> tower_service::Service<http::Request<Body>> for AdsServer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let response = match request.uri().path() {
            DELTA => {
                self.start::<DeltaDiscoveryRequest>(Protocol::Delta, request, wire::decode_delta_request)
            }
            WORLD => {
                self.start::<DiscoveryRequest>(Protocol::StateOfTheWorld, request, wire::decode_world_request)
            }
            _ => Status::unimplemented("there is no such method").into_http(),
        };
        ready(Ok(response))
    }
}

struct OneStream<S, M> {
    source: Arc<S>,
    clock: Clock,
    admission: Arc<Semaphore>,
    protocol: Protocol,
    extensions: Extensions,
    inbound: Requests,
    decode: fn(M) -> Request,
    responses: mpsc::Sender<Queued>,
}

/// A place among the streams in their first exchange.
struct Admission {
    /// Held so that others wait.
    _place: OwnedSemaphorePermit,
    /// Given up then in any case.
    until: Pin<Box<tokio::time::Sleep>>,
}

impl<S: ResourceSource, M: prost::Message + Default + Send + 'static> OneStream<S, M> {
    async fn run(mut self) {
        if let Err(status) = self.converse().await {
            tracing::debug!(code = ?status.code(), message = status.message(), "discovery stream ended");
            // Whether the client still listens or not: nothing waits for it.
            let _ = self.responses.try_send(Err(Box::new(status)));
        }
    }

    async fn first_request(&mut self) -> Result<Option<Request>, Status> {
        let first = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, self.inbound.next::<M>())
            .await
            .map_err(|_| Status::deadline_exceeded("no first request"))?;
        first.transpose().map(|first| first.map(self.decode))
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one stream from its first request to its end"
    )]
    async fn converse(&mut self) -> Result<(), Status> {
        let Some(first) = self.first_request().await? else {
            return Ok(());
        };
        let node = first
            .node
            .clone()
            .ok_or_else(|| Status::invalid_argument("a stream's first request must carry the node"))?;
        let mut admission = admit(Arc::clone(&self.admission)).await;
        let Connection {
            feed,
            mut woken,
            status,
        } = self.source.connect(&self.extensions, &node, self.protocol)?;
        let started = self.clock.now();
        let mut machine = ServerStream::new(self.protocol).with_pause(PUSH_PAUSE);
        if let Some(set) = feed.newest() {
            machine.snapshot(set);
        }
        let mut request = Some(first);
        loop {
            let now = self.clock.now().saturating_duration_since(started);
            if let Some(request) = request.take() {
                machine
                    .request(request, now)
                    .map_err(|fault| Status::resource_exhausted(fault.to_string()))?;
                let interest = machine.take_interest();
                if !interest.is_empty() {
                    feed.interested(interest);
                    // In this order, so that no change falls between the two.
                    if let Some(set) = feed.newest() {
                        machine.snapshot(set);
                    }
                }
            }
            while let Some(response) = machine.next_response(now) {
                let writer = Writer::new(self.protocol, response).ok_or_else(|| {
                    Status::resource_exhausted("the resources exceed the size of a message")
                })?;
                match tokio::time::timeout(SEND_TIMEOUT, self.responses.send(Ok(Box::new(writer)))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    // It would keep alive what it was sent last, for ever.
                    Err(_) => return Err(Status::unavailable("the client does not read")),
                }
            }
            let current = machine.status();
            if current.settled > 0 {
                admission = None;
            }
            status.send_if_modified(|known| {
                let changed = *known != current;
                *known = current;
                changed
            });
            let wait = machine.deadline().map(|deadline| deadline.saturating_sub(now));
            tokio::select! {
                message = self.inbound.next::<M>() => match message {
                    Some(message) => request = Some((self.decode)(message?)),
                    None => return Ok(()),
                },
                changed = woken.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is ending this stream"))?;
                    woken.borrow_and_update();
                    if let Some(set) = feed.newest() {
                        machine.snapshot(set);
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = expired(&mut admission), if admission.is_some() => admission = None,
                () = self.responses.closed() => return Ok(()),
            }
        }
    }
}

async fn admit(admission: Arc<Semaphore>) -> Option<Admission> {
    let place = admission.acquire_owned().await.ok()?;
    Some(Admission {
        _place: place,
        until: Box::pin(tokio::time::sleep(ADMISSION_TIME)),
    })
}

async fn expired(admission: &mut Option<Admission>) {
    match admission {
        Some(admission) => admission.until.as_mut().await,
        None => std::future::pending().await,
    }
}
