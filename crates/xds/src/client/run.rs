//! Keeps a [`ClientMachine`] connected: opens a channel with the given connector, runs one aggregated stream on it, and
//! starts again after a pause when it ends. Updates go out over a bounded channel; commands come in over another.
//!
//! It decides nothing about resources. While nothing is connected it keeps taking commands, so that subscriptions and
//! late answers are not lost.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use rajut_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use rajut_runtime::{Backoff, Clock, connector::Connector};
use rajut_types::Text;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::machine::{ClientMachine, Refusal, Ticket, Update};
use crate::{
    limits::{MESSAGE_BYTES_MAX, RECONNECT, REPORT_RETRY, RESPONSES_QUEUED_MAX, UPDATES_QUEUED_MAX},
    load::{self, LoadSource, Reporter},
    message::{Node, Protocol, Request, Response},
    recording::{self, RecordSource, Recorder},
    wire,
};

/// How a client is set up.
pub struct ClientOptions {
    /// Who asks.
    pub node: Node,
    /// The variant.
    pub protocol: Protocol,
    /// Makes a connection to the control plane; called for every attempt, so that it may use newer certificates.
    pub connector: Connector,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// What is reported of the proxy's load over the same connections; `None`: nothing.
    pub load: Option<Box<dyn LoadSource>>,
    /// What is recorded of requests, over the same connections; `None`: nothing.
    pub recording: Option<Box<dyn RecordSource>>,
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("node", &self.node)
            .field("protocol", &self.protocol)
            .field("load", &self.load.is_some())
            .field("recording", &self.recording.is_some())
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Delta, with the usual pauses.
    pub fn new(node: Node, connector: Connector) -> Self {
        Self {
            node,
            protocol: Protocol::Delta,
            connector,
            backoff: Backoff::seeded(RECONNECT.0, RECONNECT.1),
            load: None,
            recording: None,
        }
    }
}

/// What the client tells the proxy.
#[derive(Debug)]
pub enum Event {
    /// A stream is open.
    Connected,
    /// The stream ended or could not be opened; the next attempt follows by itself.
    Disconnected {
        /// Why.
        reason: String,
        /// The pause before the next attempt.
        retry_in: Duration,
    },
    /// Resources arrived; answer with [`Handle::answer`] when they are adopted.
    Update(Update),
}

#[derive(Debug)]
enum Command {
    SubscribeAll(Text),
    Subscribe(Text, Vec<Text>),
    Unsubscribe(Text, Vec<Text>),
    Answer(Ticket, Vec<Refusal>),
    Remember(Text, Vec<(Text, Text)>),
}

/// Tells the client what is wanted. Dropping the last handle ends the client's task.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Command>);

impl Handle {
    /// Wants everything of a type.
    pub async fn subscribe_all(&self, type_url: &str) {
        self.tell(Command::SubscribeAll(type_url.into())).await;
    }

    /// Wants these resources of a type.
    pub async fn subscribe(&self, type_url: &str, names: Vec<Text>) {
        self.tell(Command::Subscribe(type_url.into(), names)).await;
    }

    /// Does not want these any more.
    pub async fn unsubscribe(&self, type_url: &str, names: Vec<Text>) {
        self.tell(Command::Unsubscribe(type_url.into(), names)).await;
    }

    /// Holds these (names and versions) already, from an earlier life of the process. After the subscriptions to them.
    pub async fn remember(&self, type_url: &str, versions: Vec<(Text, Text)>) {
        self.tell(Command::Remember(type_url.into(), versions)).await;
    }

    /// The update is adopted, but for the refused resources: ACK, or NACK that names them.
    pub async fn answer(&self, ticket: Ticket, refusals: Vec<Refusal>) {
        self.tell(Command::Answer(ticket, refusals)).await;
    }

    async fn tell(&self, command: Command) {
        // The error means that the task has ended, and with it whatever the command was about.
        let _ = self.0.send(command).await;
    }
}

/// Commands that wait for the client's task.
const COMMANDS_QUEUED_MAX: usize = 256;

/// Starts the client's task on the current runtime.
pub fn spawn(options: ClientOptions) -> (Handle, mpsc::Receiver<Event>) {
    let (commands, commanded) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let (events, updates) = mpsc::channel(UPDATES_QUEUED_MAX);
    tokio::spawn(keep_connected(options, commanded, events));
    (Handle(commands), updates)
}

/// Why one stream ended.
enum End {
    /// Nobody listens any more.
    Abandoned,
    /// To be opened again.
    Lost(String),
}

async fn keep_connected(
    options: ClientOptions,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
) {
    let ClientOptions {
        node,
        protocol,
        connector,
        mut backoff,
        load,
        recording,
    } = options;
    let process = Clock::system().wall().duration_since(SystemTime::UNIX_EPOCH);
    let process = format!("{:x}", process.unwrap_or_default().as_nanos());
    let mut reporter = load.map(|source| Reporter::new(source, &process));
    let mut recorder = recording.map(Recorder::new);
    let reporting_node = node.clone();
    let mut machine = ClientMachine::new(protocol, node);
    loop {
        let end = match open(&connector, &mut machine, &mut commands).await {
            Ok(stream) => {
                backoff.reset();
                let channel = stream.channel.clone();
                tokio::select! {
                    end = converse(stream, &mut machine, &mut commands, &events) => end,
                    never = keep_reporting(channel.clone(), &reporting_node, reporter.as_mut()) => match never {},
                    never = keep_recording(channel, &reporting_node, recorder.as_mut()) => match never {},
                }
            }
            Err(end) => end,
        };
        machine.disconnected();
        let End::Lost(reason) = end else { return };
        let retry_in = backoff.pause();
        tracing::debug!(%reason, ?retry_in, "discovery stream ended");
        let lost = Event::Disconnected { reason, retry_in };
        if events.send(lost).await.is_err() {
            return;
        }
        let pause = tokio::time::sleep(retry_in);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                command = commands.recv() => match command {
                    Some(command) => {
                        obey(&mut machine, command);
                    }
                    None => return,
                },
            }
        }
    }
}

type Responses = std::pin::Pin<Box<dyn Stream<Item = Result<Response, tonic::Status>> + Send>>;

/// Reports over the connection for as long as the discovery stream lives. Never ends.
async fn keep_reporting(channel: Channel, node: &Node, reporter: Option<&mut Reporter>) -> Infallible {
    if let Some(reporter) = reporter {
        let mut backoff = Backoff::seeded(REPORT_RETRY.0, REPORT_RETRY.1);
        loop {
            // Boxed: it lives as long as the stream, and most of that it waits.
            let ended = Box::pin(load::report(channel.clone(), node, reporter)).await;
            if !may_try_again(&ended, "load reports ended") {
                break;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
    std::future::pending().await
}

/// The same of recorded requests.
async fn keep_recording(channel: Channel, node: &Node, recorder: Option<&mut Recorder>) -> Infallible {
    if let Some(recorder) = recorder {
        let mut backoff = Backoff::seeded(REPORT_RETRY.0, REPORT_RETRY.1);
        loop {
            let ended = Box::pin(recording::record(channel.clone(), node, recorder)).await;
            if !may_try_again(&ended, "recording ended") {
                break;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
    std::future::pending().await
}

/// `false`: nobody takes them, or not from here: the next connection asks again.
fn may_try_again(ended: &tonic::Status, what: &str) -> bool {
    tracing::debug!(reason = %status_text(ended), "{what}");
    !matches!(ended.code(), Code::Unimplemented | Code::PermissionDenied)
}

struct OpenStream {
    channel: Channel,
    requests: mpsc::Sender<Request>,
    responses: Responses,
}

/// A connection that takes longer than this counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 pings, so that a dead control plane is noticed.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Opens one stream. Commands are taken meanwhile.
async fn open(
    connector: &Connector,
    machine: &mut ClientMachine,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<OpenStream, End> {
    // The authority is a name for the HTTP/2 requests only; where to connect to is the connector's affair.
    let endpoint = Endpoint::from_static("http://control-plane")
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true);
    let protocol = machine.protocol();
    let opening = async move {
        let channel = endpoint
            .connect_with_connector(connector.clone())
            .await
            .map_err(|error| chain_text(&error))?;
        start(protocol, channel)
            .await
            .map_err(|status| status_text(&status))
    };
    let opening = tokio::time::timeout(CONNECT_TIMEOUT, opening);
    tokio::pin!(opening);
    let mut early = Vec::new();
    let opened = loop {
        tokio::select! {
            opened = &mut opening => break opened,
            command = commands.recv() => early.push(command.ok_or(End::Abandoned)?),
        }
    };
    for command in early {
        // No stream has begun, so that none has to be opened anew.
        obey(machine, command);
    }
    match opened {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(reason)) => Err(End::Lost(reason)),
        Err(_) => Err(End::Lost(format!("no connection within {CONNECT_TIMEOUT:?}"))),
    }
}

async fn start(protocol: Protocol, channel: Channel) -> Result<OpenStream, tonic::Status> {
    let mut client = AggregatedDiscoveryServiceClient::new(channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (requests, queued) = mpsc::channel::<Request>(RESPONSES_QUEUED_MAX);
    let queued = ReceiverStream::new(queued);
    let responses: Responses = match protocol {
        Protocol::Delta => {
            let stream = client.delta_aggregated_resources(queued.map(wire::encode_delta_request));
            let stream = stream.await?.into_inner();
            Box::pin(stream.map(|message| message.map(wire::decode_delta_response)))
        }
        Protocol::StateOfTheWorld => {
            let stream = client.stream_aggregated_resources(queued.map(wire::encode_world_request));
            let stream = stream.await?.into_inner();
            Box::pin(stream.map(|message| message.map(wire::decode_world_response)))
        }
    };
    Ok(OpenStream {
        channel,
        requests,
        responses,
    })
}

async fn converse(
    stream: OpenStream,
    machine: &mut ClientMachine,
    commands: &mut mpsc::Receiver<Command>,
    events: &mpsc::Sender<Event>,
) -> End {
    let OpenStream {
        channel: _,
        requests,
        mut responses,
    } = stream;
    machine.connected();
    if events.send(Event::Connected).await.is_err() {
        return End::Abandoned;
    }
    // What arrived and could not be handed over yet: while it waits, nothing more is read.
    let mut arrived: Option<Update> = None;
    let mut queued: Option<Request> = None;
    loop {
        if queued.is_none() {
            queued = machine.next_request();
        }
        tokio::select! {
            permit = requests.reserve(), if queued.is_some() => match (permit, queued.take()) {
                (Ok(permit), Some(request)) => permit.send(request),
                (Ok(_), None) => {}
                // The transport dropped its end; the response side says why.
                (Err(_), _) => return match responses.next().await {
                    Some(Err(status)) => End::Lost(status_text(&status)),
                    _ => End::Lost("the control plane closed the stream".to_owned()),
                },
            },
            command = commands.recv() => match command {
                Some(command) => if !obey(machine, command) {
                    return End::Lost("to be opened anew with what was remembered".to_owned());
                },
                None => return End::Abandoned,
            },
            permit = events.reserve(), if arrived.is_some() => match (permit, arrived.take()) {
                (Ok(permit), Some(update)) => permit.send(Event::Update(update)),
                (Ok(_), None) => {}
                (Err(_), _) => return End::Abandoned,
            },
            response = responses.next(), if arrived.is_none() => match response {
                Some(Ok(response)) => arrived = machine.response(response),
                Some(Err(status)) => return End::Lost(status_text(&status)),
                None => return End::Lost("the control plane closed the stream".to_owned()),
            },
        }
    }
}

/// `false`: the open stream has to be opened anew.
fn obey(machine: &mut ClientMachine, command: Command) -> bool {
    match command {
        Command::SubscribeAll(url) => machine.subscribe_all(&url),
        Command::Subscribe(url, names) => machine.subscribe(&url, names),
        Command::Unsubscribe(url, names) => machine.unsubscribe(&url, names.iter().map(|name| &**name)),
        Command::Answer(ticket, refusals) => machine.answer(&ticket, &refusals),
        Command::Remember(url, versions) => return machine.remember(&url, versions),
    }
    true
}

fn status_text(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An error and its causes on one line.
fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
