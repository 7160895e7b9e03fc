//! The reporting end: what was given out and not yet answered ([`Reporter`]), and the loop on one connection ([`report`]).

use std::{collections::BTreeSet, time::Duration};

use rajut_proto::load_stats::{
    LoadStatsRequest, LoadStatsResponse, load_reporting_service_client::LoadReportingServiceClient,
};
use serde_json::{Map, Value};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming, transport::Channel};

use super::{
    ClusterLoad, LoadSource, NUMBER_MEMBER, ReportNumber,
    wire::{self, Settings},
};
use crate::message::Node;

/// Shortest time between two reports, whatever the server asks for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A report that is not answered in this time has been taken: the service does not ask servers to answer each.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What is to be reported, over all streams of a process.
pub(crate) struct Reporter {
    source: Box<dyn LoadSource>,
    next: ReportNumber,
    /// Given out by the source, and no server has said yet that it has it.
    pending: Option<Vec<ClusterLoad>>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// `process` is another one after a restart.
    pub(crate) fn new(source: Box<dyn LoadSource>, process: &str) -> Self {
        let next = ReportNumber {
            process: process.into(),
            number: 0,
        };
        Self {
            source,
            next,
            pending: None,
        }
    }

    /// The node as the next stream begins with it.
    pub(super) fn introduce(&self, node: &Node) -> Node {
        let mut node = node.clone();
        let number = Value::String(self.next.text());
        match &mut node.metadata {
            Value::Object(members) => drop(members.insert(NUMBER_MEMBER.to_owned(), number)),
            other => {
                let mut members = Map::new();
                members.insert(NUMBER_MEMBER.to_owned(), number);
                *other = Value::Object(members);
            }
        }
        node
    }

    /// The report that is due: the one that may not have arrived, or what has come since. `None`: nothing has.
    pub(super) fn due(&mut self) -> Option<&[ClusterLoad]> {
        if self.pending.is_none() {
            let fresh = self.source.collect();
            self.pending = (!fresh.is_empty()).then_some(fresh);
        }
        self.pending.as_deref()
    }

    /// The report has arrived.
    pub(super) fn arrived(&mut self) {
        if self.pending.take().is_some() {
            self.next.number += 1;
        }
    }
}

/// Reports over this connection until the stream ends; says why it did.
pub(crate) async fn report(channel: Channel, node: &Node, reporter: &mut Reporter) -> Status {
    match converse(channel, node, reporter).await {
        Err(status) => status,
        Ok(()) => Status::unavailable("the server closed the stream"),
    }
}

async fn converse(channel: Channel, node: &Node, reporter: &mut Reporter) -> Result<(), Status> {
    let mut client = LoadReportingServiceClient::new(channel);
    let (requests, queued) = mpsc::channel(1);
    let first = wire::encode_first(reporter.introduce(node));
    let gone = |_| Status::unavailable("the server closed the stream");
    requests.send(first).await.map_err(gone)?;
    let answers = client.stream_load_stats(ReceiverStream::new(queued)).await?;
    let mut stream = Stream {
        requests,
        answers: answers.into_inner(),
        settings: Settings {
            interval: Duration::ZERO,
            clusters: Some(Vec::new()),
        },
        answers_each: true,
        sent: Instant::now(),
    };
    if !stream.take_answer().await? {
        return Ok(());
    }
    loop {
        let interval = stream.settings.interval.max(INTERVAL_MIN);
        let due = tokio::time::sleep_until(stream.sent + interval);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => break,
                more = stream.take_answer() => if !more? { return Ok(()) },
            }
        }
        if !stream.send(reporter).await? {
            return Ok(());
        }
    }
}

struct Stream {
    requests: mpsc::Sender<LoadStatsRequest>,
    answers: Streaming<LoadStatsResponse>,
    settings: Settings,
    /// The server answers each report, as ours does.
    answers_each: bool,
    /// The end of the last interval.
    sent: Instant,
}

impl Stream {
    /// Waits for an answer; `false` at the stream's end.
    async fn take_answer(&mut self) -> Result<bool, Status> {
        let Some(answer) = self.answers.next().await.transpose()? else {
            return Ok(false);
        };
        self.settings = wire::decode_settings(answer);
        Ok(true)
    }

    /// Sends the report that is due and waits until it has arrived; `false` at the stream's end.
    async fn send(&mut self, reporter: &mut Reporter) -> Result<bool, Status> {
        let now = Instant::now();
        let interval = now.duration_since(self.sent);
        self.sent = now;
        let Some(loads) = reporter.due() else {
            return Ok(true);
        };
        let message = match &self.settings.clusters {
            None => wire::encode_report(loads, interval),
            Some(wanted) => {
                let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
                let loads: Vec<ClusterLoad> = loads
                    .iter()
                    .filter(|load| wanted.contains(&*load.cluster))
                    .cloned()
                    .collect();
                wire::encode_report(&loads, interval)
            }
        };
        if self.requests.send(message).await.is_err() {
            return Ok(false);
        }
        if self.answers_each {
            match tokio::time::timeout(ANSWER_WAIT, self.take_answer()).await {
                Ok(Ok(true)) => {}
                Ok(end) => return end,
                Err(_) => self.answers_each = false,
            }
        }
        reporter.arrived();
        Ok(true)
    }
}
