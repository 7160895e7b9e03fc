//! The gRPC service that takes load reports, on the same parts as discovery (no buffer stays behind between two reports).

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rajut_proto::load_stats::LoadStatsRequest;
use tokio::sync::mpsc;
use tonic::{Extensions, Status, body::Body, server::NamedService};

use super::{LoadSink, wire};
use crate::server::{
    frames::{Queued, ResponseBody, Writer},
    requests::Requests,
};

/// The service's name on the wire, and its method.
const SERVICE: &str = "envoy.service.load_stats.v3.LoadReportingService";
const METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
/// Largest report, bytes: one cluster is about a kilobyte.
const REPORT_BYTES_MAX: usize = 32 << 20;
/// A stream whose first message does not come in this time is closed.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers that wait for the transport.
const ANSWERS_MAX: usize = 2;

/// The service over a [`LoadSink`].
#[derive(Debug)]
pub struct LoadServer<S>(Arc<S>);

impl<S: LoadSink> LoadServer<S> {
    /// To be added to a tonic router.
    pub fn new(sink: Arc<S>) -> Self {
        Self(sink)
    }
}

impl<S> Clone for LoadServer<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> NamedService for LoadServer<S> {
    const NAME: &'static str = SERVICE;
}

impl<S: LoadSink> tower_service::Service<http::Request<Body>> for LoadServer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            return ready(Ok(Status::unimplemented("there is no such method").into_http()));
        }
        let (parts, body) = request.into_parts();
        let (answers, queued) = mpsc::channel(ANSWERS_MAX);
        let sink = Arc::clone(&self.0);
        tokio::spawn(async move {
            let requests = Requests::new(body, REPORT_BYTES_MAX);
            if let Err(status) = converse(&*sink, &parts.extensions, requests, &answers).await {
                tracing::debug!(code = ?status.code(), message = status.message(), "load reports ended");
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
    sink: &impl LoadSink,
    extensions: &Extensions,
    mut requests: Requests,
    answers: &mpsc::Sender<Queued>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST_TIMEOUT, requests.next::<LoadStatsRequest>()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no first report"))?;
    let Some(first) = first.transpose()? else {
        return Ok(());
    };
    let (node, loads, left_out) = wire::decode(first);
    let node = node.ok_or_else(|| Status::invalid_argument("the first report does not say whose it is"))?;
    let mut reporter = sink.open(extensions, &node)?;
    let mut due = if loads.is_empty() {
        reporter.first_due()
    } else {
        reporter.report(loads, left_out)
    };
    loop {
        let answer = Writer::message(&wire::encode_settings(due));
        if answers.send(Ok(Box::new(answer))).await.is_err() {
            return Ok(());
        }
        let next = tokio::select! {
            next = requests.next::<LoadStatsRequest>() => next,
            () = answers.closed() => None,
        };
        let Some(message) = next.transpose()? else {
            return Ok(());
        };
        let (_, loads, left_out) = wire::decode(message);
        due = reporter.report(loads, left_out);
    }
}
