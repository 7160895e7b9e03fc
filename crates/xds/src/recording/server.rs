//! The gRPC service that takes recorded requests, on the same parts as discovery (no buffer stays behind between two reports).

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rajut_proto::recorder as pb;
use tokio::sync::mpsc;
use tonic::{Extensions, Status, body::Body, server::NamedService};

use super::{Batch, REPORT_BYTES_MAX, RecordSink, TUPLES_MAX, Wanted};
use crate::{
    server::{
        frames::{Queued, ResponseBody, Writer},
        requests::Requests,
    },
    wire,
};

/// A stream whose first message does not come in this time is closed.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers that wait for the transport.
const ANSWERS_MAX: usize = 2;
/// What a report holds beside its tuples.
const OVERHEAD: usize = 64 << 10;

/// The service over a [`RecordSink`].
#[derive(Debug)]
pub struct RecordServer<S>(Arc<S>);

impl<S: RecordSink> RecordServer<S> {
    /// To be added to a tonic router.
    pub fn new(sink: Arc<S>) -> Self {
        Self(sink)
    }
}

impl<S> Clone for RecordServer<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> NamedService for RecordServer<S> {
    const NAME: &'static str = pb::SERVICE_NAME;
}

impl<S: RecordSink> tower_service::Service<http::Request<Body>> for RecordServer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != pb::RECORD {
            return ready(Ok(Status::unimplemented("there is no such method").into_http()));
        }
        let (parts, body) = request.into_parts();
        let (answers, queued) = mpsc::channel(ANSWERS_MAX);
        let sink = Arc::clone(&self.0);
        tokio::spawn(async move {
            let requests = Requests::new(body, REPORT_BYTES_MAX + OVERHEAD);
            if let Err(status) = converse(&*sink, &parts.extensions, requests, &answers).await {
                tracing::debug!(code = ?status.code(), message = status.message(), "recording ended");
                // Whether the client still listens or not: nothing waits for it.
                let _ = answers.try_send(Err(Box::new(status)));
            }
        });
        let mut response = http::Response::new(Body::new(ResponseBody::new(queued)));
        let kind = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        ready(Ok(response))
    }
}

async fn converse(
    sink: &impl RecordSink,
    extensions: &Extensions,
    mut requests: Requests,
    answers: &mpsc::Sender<Queued>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST_TIMEOUT, requests.next::<pb::Report>()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("nobody says whose recordings these are"))?;
    let Some(first) = first.transpose()? else {
        return Ok(());
    };
    let node = first.node.map(wire::decode_node);
    let node = node.ok_or_else(|| Status::invalid_argument("the first message does not say whose it is"))?;
    let (mut wanted, mut taker) = sink.open(extensions, &node)?;
    let mut taken = 0;
    loop {
        let answer = Writer::message(&encode(&wanted.borrow_and_update(), taken));
        if answers.send(Ok(Box::new(answer))).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            next = requests.next::<pb::Report>() => {
                let Some(report) = next.transpose()? else { return Ok(()) };
                let left_out = report.tuples.len().saturating_sub(TUPLES_MAX);
                let mut tuples = report.tuples;
                tuples.truncate(TUPLES_MAX);
                taker.take(Batch {
                    tuples,
                    dropped: report.dropped.saturating_add(u64::try_from(left_out).unwrap_or(u64::MAX)),
                });
                taken += 1;
            }
            changed = wanted.changed() => if changed.is_err() { return Ok(()) },
            () = answers.closed() => return Ok(()),
        }
    }
}

fn encode(wanted: &Wanted, taken: u64) -> pb::Wanted {
    pb::Wanted {
        refused: wanted.refused,
        share: wanted.share,
        key: wanted.key.clone(),
        identifiers: wanted.identifiers.clone(),
        headers: wanted.headers.clone(),
        taken,
    }
}
