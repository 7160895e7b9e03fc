//! The tonic service: one task per stream that drives a [`ServerStream`].

use std::{pin::Pin, sync::Arc, time::Duration};

use rajut_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use rajut_runtime::Clock;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Extensions, Status, Streaming};

use super::{ServerStream, StreamStatus};
use crate::{
    limits::{MESSAGE_BYTES_MAX, RESPONSES_QUEUED_MAX},
    message::{Node, Protocol, Request, Response},
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

/// A client's two ends: its resources, and what it has acknowledged.
#[derive(Debug)]
pub struct Connection {
    /// The newest resources; `None` until they are known. When the sender is dropped the stream ends (`UNAVAILABLE`).
    pub resources: watch::Receiver<Option<Arc<ResourceSet>>>,
    /// Replaced after every event; dropped when the stream ends.
    pub status: watch::Sender<StreamStatus>,
}

/// The aggregated discovery service over a [`ResourceSource`].
#[derive(Debug)]
pub struct AdsServer<S> {
    source: Arc<S>,
    clock: Clock,
}

/// A stream whose first request does not come in this time is closed.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

type Outbound<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<S: ResourceSource> AdsServer<S> {
    /// The service, to be added to a tonic router.
    pub fn service(source: Arc<S>, clock: Clock) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(Self { source, clock })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn start<M: Send + 'static, R: Send + 'static>(
        &self,
        protocol: Protocol,
        request: tonic::Request<Streaming<M>>,
        decode: fn(M) -> Request,
        encode: fn(&Response) -> R,
    ) -> Outbound<R> {
        let (_, extensions, inbound) = request.into_parts();
        let (responses, queued) = mpsc::channel(RESPONSES_QUEUED_MAX);
        let stream = OneStream {
            source: Arc::clone(&self.source),
            clock: self.clock.clone(),
            protocol,
            extensions,
            inbound,
            decode,
            encode,
            responses,
        };
        tokio::spawn(stream.run());
        Box::pin(ReceiverStream::new(queued))
    }
}

#[tonic::async_trait]
impl<S: ResourceSource> AggregatedDiscoveryService for AdsServer<S> {
    type StreamAggregatedResourcesStream = Outbound<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outbound<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, Status> {
        let stream = self.start(
            Protocol::StateOfTheWorld,
            request,
            wire::decode_world_request,
            wire::encode_world_response,
        );
        Ok(tonic::Response::new(stream))
    }

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let stream = self.start(
            Protocol::Delta,
            request,
            wire::decode_delta_request,
            wire::encode_delta_response,
        );
        Ok(tonic::Response::new(stream))
    }
}

struct OneStream<S, M, R> {
    source: Arc<S>,
    clock: Clock,
    protocol: Protocol,
    extensions: Extensions,
    inbound: Streaming<M>,
    decode: fn(M) -> Request,
    encode: fn(&Response) -> R,
    responses: mpsc::Sender<Result<R, Status>>,
}

impl<S: ResourceSource, M: Send + 'static, R: Send + 'static> OneStream<S, M, R> {
    async fn run(mut self) {
        if let Err(status) = self.converse().await {
            tracing::debug!(code = ?status.code(), message = status.message(), "discovery stream ended");
            // The error means that the client is gone already.
            let _ = self.responses.send(Err(status)).await;
        }
    }

    async fn converse(&mut self) -> Result<(), Status> {
        let Some(first) = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, self.inbound.next())
            .await
            .map_err(|_| Status::deadline_exceeded("no first request"))?
        else {
            return Ok(());
        };
        let first = (self.decode)(first?);
        let node = first
            .node
            .clone()
            .ok_or_else(|| Status::invalid_argument("a stream's first request must carry the node"))?;
        let Connection {
            mut resources,
            status,
        } = self.source.connect(&self.extensions, &node, self.protocol)?;
        let started = self.clock.now();
        let mut machine = ServerStream::new(self.protocol);
        if let Some(set) = resources.borrow_and_update().clone() {
            machine.snapshot(set);
        }
        let mut request = Some(first);
        loop {
            let now = self.clock.now().saturating_duration_since(started);
            if let Some(request) = request.take() {
                machine
                    .request(request, now)
                    .map_err(|fault| Status::resource_exhausted(fault.to_string()))?;
            }
            while let Some(response) = machine.next_response(now) {
                if self.responses.send(Ok((self.encode)(&response))).await.is_err() {
                    return Ok(());
                }
            }
            let current = machine.status();
            status.send_if_modified(|known| {
                let changed = *known != current;
                *known = current;
                changed
            });
            let wait = machine.deadline().map(|deadline| deadline.saturating_sub(now));
            tokio::select! {
                message = self.inbound.next() => match message {
                    Some(message) => request = Some((self.decode)(message?)),
                    None => return Ok(()),
                },
                changed = resources.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is ending this stream"))?;
                    if let Some(set) = resources.borrow_and_update().clone() {
                        machine.snapshot(set);
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = self.responses.closed() => return Ok(()),
            }
        }
    }
}
