//! The reporting end: what is under way ([`Recorder`]), and the loop on one connection ([`record`]).

use std::time::Duration;

use rajut_proto::recorder::{self as pb, RecorderClient};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, transport::Channel};

use super::{Batch, RecordSource, WANTED_MAX, Wanted};
use crate::{message::Node, wire};

/// Between two looks at what was recorded.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is to be reported, over all streams of a process.
pub(crate) struct Recorder {
    source: Box<dyn RecordSource>,
    /// Given out by the source, and no control plane has said yet that it has it.
    pending: Option<Batch>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub(crate) const fn new(source: Box<dyn RecordSource>) -> Self {
        Self {
            source,
            pending: None,
        }
    }

    /// The report that is due: the one that may not have arrived, or what has come since. `None`: nothing has.
    pub(super) fn due(&mut self) -> Option<&Batch> {
        if self.pending.is_none() {
            self.pending = Some(self.source.collect()).filter(|batch| !batch.is_empty());
        }
        self.pending.as_ref()
    }

    /// The report has arrived.
    pub(super) fn arrived(&mut self) {
        self.pending = None;
    }
}

/// Reports over this connection until the stream ends; says why it did.
pub(crate) async fn record(channel: Channel, node: &Node, recorder: &mut Recorder) -> Status {
    match converse(channel, node, recorder).await {
        Err(status) => status,
        Ok(()) => Status::unavailable("the server closed the stream"),
    }
}

async fn converse(channel: Channel, node: &Node, recorder: &mut Recorder) -> Result<(), Status> {
    let (reports, queued) = mpsc::channel(1);
    let gone = |_| Status::unavailable("the server closed the stream");
    let first = pb::Report {
        node: Some(wire::encode_node(node.clone())),
        ..pb::Report::default()
    };
    reports.send(first).await.map_err(gone)?;
    let answers = RecorderClient::new(channel)
        .record(ReceiverStream::new(queued))
        .await?;
    let mut answers = answers.into_inner();
    let mut looks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut taken, mut known) = (0, 0, None);
    loop {
        tokio::select! {
            answer = answers.next() => {
                let Some(answer) = answer.transpose()? else { return Ok(()) };
                if answer.taken > taken {
                    taken = answer.taken;
                    recorder.arrived();
                }
                let wanted = decode(answer);
                if known.as_ref() != Some(&wanted) {
                    recorder.source.want(&wanted);
                    known = Some(wanted);
                }
            }
            _ = looks.tick(), if sent == taken => {
                let Some(batch) = recorder.due() else { continue };
                let report = pb::Report {
                    node: None,
                    tuples: batch.tuples.clone(),
                    dropped: batch.dropped,
                };
                reports.send(report).await.map_err(gone)?;
                sent += 1;
            }
        }
    }
}

fn decode(answer: pb::Wanted) -> Wanted {
    let bounded = |texts: Vec<String>| texts.into_iter().take(WANTED_MAX).collect();
    Wanted {
        refused: answer.refused,
        share: answer.share.min(1_000_000),
        key: answer.key,
        identifiers: bounded(answer.identifiers),
        headers: bounded(answer.headers),
    }
}
