//! Spans on their way to a collector: OTLP over gRPC, through a cluster of the proxy itself.
//!
//! ```text
//!  traced request ─► ends ─► the worker's buffer ─ every second ─► one gRPC call ─► counted as sent or dropped
//! ```
//!
//! Each worker has a buffer of its own, with a lock that nobody else takes. Nothing waits for the collector: one call
//! of a worker is under way at a time, and what finds no room is dropped and counted.
//!
//! Bounds: [`BUFFER_BYTES`] per worker and collector, and as much under way; a call takes at most [`EXPORT_TIME`]. What
//! was not sent when the process ends is lost.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rajut_codec::{Known, Method, RequestHead, Version};
use rajut_ir::tracing::OpenTelemetry;
use rajut_telemetry::otlp::{self, Attributes, Span};
use tokio::task::spawn_local;

use crate::{
    cluster::demand,
    failure::{Failure, FailureKind},
    http::{message::Piece, mirror},
    worker::Worker,
};

/// What a worker may have waiting for one collector.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// The longest that one call may take; the configuration may say less.
const EXPORT_TIME: Duration = Duration::from_secs(10);
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The way to one collector, shared by workers and connection managers.
#[derive(Debug)]
pub(crate) struct Exporter {
    ir: OpenTelemetry,
    batches: Box<[Mutex<Batch>]>,
    counts: Arc<Counts>,
}

/// Spans of all exporters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Batch {
    spans: Vec<u8>,
    count: u64,
    /// Requests that will leave a span.
    open: u64,
    /// Somebody will send it.
    scheduled: bool,
}

impl Exporter {
    fn batch(&self, worker: usize) -> std::sync::MutexGuard<'_, Batch> {
        self.batches[worker % self.batches.len()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has begun that will leave a span; each is followed by one [`Self::push`]. Called from a task, since
    /// the end of a request may also be the end of its runtime.
    pub(super) fn expect(self: &Arc<Self>, worker: &Rc<Worker>) {
        let mut batch = self.batch(worker.index);
        batch.open += 1;
        if !batch.scheduled {
            batch.scheduled = true;
            drop(batch);
            spawn_local(send_batches(self.clone(), worker.clone()));
        }
    }

    /// Appends a span, or drops it where there is no room.
    pub(super) fn push(
        &self,
        worker: usize,
        span: &Span<'_>,
        attributes: impl FnOnce(&mut Attributes<'_, '_>),
    ) {
        let mut batch = self.batch(worker);
        batch.open = batch.open.saturating_sub(1);
        if batch.spans.len() >= BUFFER_BYTES {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        otlp::write_span(span, attributes, &mut batch.spans);
        batch.count += 1;
    }

    async fn export(&self, worker: &Rc<Worker>, spans: &[u8]) -> Result<(), Failure> {
        let epoch = worker.epoch();
        let unknown = FailureKind::NoCluster { status: 503 };
        let cluster = &demand::cluster(worker, &epoch, &self.ir.cluster, unknown)
            .await
            .map_err(|kind| Failure::new(kind, self.ir.cluster.clone()))?;
        let mut body = Vec::with_capacity(spans.len() + 128);
        otlp::write_request(&self.ir.service_name, spans, &mut body);
        let mut head = RequestHead::new(Method::Post, METHOD);
        head.version = Version::Http2;
        let authority = if self.ir.authority.is_empty() {
            &self.ir.cluster
        } else {
            &self.ir.authority
        };
        let malformed = |_| Failure::from(FailureKind::Internal);
        head.set_authority(Bytes::copy_from_slice(authority.as_bytes()))
            .map_err(malformed)?;
        head.fields
            .set(Known::ContentType, "application/grpc")
            .map_err(malformed)?;
        head.fields.set(Known::Te, "trailers").map_err(malformed)?;
        let body = vec![Piece::Data(body.into()), Piece::End];
        let answer = mirror::send_aside(worker, &epoch, cluster, &head, body, None, 0).await?;
        if answer.grpc_status() == Some(0) {
            Ok(())
        } else {
            Err(FailureKind::UpstreamProtocol.into())
        }
    }
}

/// Sends what a worker has gathered, until nothing is left.
async fn send_batches(exporter: Arc<Exporter>, worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(GATHER).await;
        let (spans, count) = {
            let mut batch = exporter.batch(worker.index);
            if batch.count == 0 && batch.open > 0 {
                continue;
            }
            if batch.count == 0 {
                batch.scheduled = false;
                // An idle proxy keeps no buffer.
                batch.spans = Vec::new();
                return;
            }
            let count = std::mem::take(&mut batch.count);
            (std::mem::take(&mut batch.spans), count)
        };
        let time = exporter.ir.timeout.unwrap_or(EXPORT_TIME).min(EXPORT_TIME);
        let counts = &exporter.counts;
        match tokio::time::timeout(time, exporter.export(&worker, &spans)).await {
            Ok(Ok(())) => counts.sent.fetch_add(count, Ordering::Relaxed),
            Ok(Err(failure)) => {
                tracing::debug!(collector = %exporter.ir.cluster, %failure, "{count} spans are lost");
                counts.dropped.fetch_add(count, Ordering::Relaxed)
            }
            Err(_) => counts.dropped.fetch_add(count, Ordering::Relaxed),
        };
    }
}

/// The exporters of a process, by collector.
#[derive(Debug, Default)]
pub(crate) struct Exporters {
    open: Mutex<HashMap<OpenTelemetry, Weak<Exporter>>>,
    counts: Arc<Counts>,
}

impl Exporters {
    /// The exporter to a collector.
    pub(crate) fn open(&self, ir: &OpenTelemetry, workers: usize) -> Arc<Exporter> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = open.get(ir).and_then(Weak::upgrade) {
            return exporter;
        }
        open.retain(|_, exporter| exporter.strong_count() > 0);
        let exporter = Arc::new(Exporter {
            ir: ir.clone(),
            batches: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            counts: self.counts.clone(),
        });
        open.insert(ir.clone(), Arc::downgrade(&exporter));
        exporter
    }

    /// Spans that a collector took, and spans that are lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.counts.sent.load(Ordering::Relaxed),
            self.counts.dropped.load(Ordering::Relaxed),
        )
    }
}
