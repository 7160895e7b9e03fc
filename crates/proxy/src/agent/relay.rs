//! Relays one discovery stream, answering secrets and taking the name table for itself; and beside it, over the same
//! connection, Envoy's load reports as they are.
//!
//! The mesh's roots (`ROOTCA`) come from the control plane, go to the identity, and from there to Envoy with the certificate
//! that fits them. The control plane has its answer when Envoy has given it: then they are in force there.

use std::{collections::BTreeMap, io, pin::Pin, sync::Arc, time::Duration};

use rajut_identity::{Identity, IdentityStore, TrustBundle, context::MESH_ROOTS};
use rajut_ir::{
    NameTable,
    secret::{Secret, SecretValue},
    tls::{DataSource, TlsCertificate, ValidationContext},
    wire,
};
use rajut_proto::{
    Any,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    load_stats::{
        LoadStatsRequest, LoadStatsResponse,
        load_reporting_service_client::LoadReportingServiceClient,
        load_reporting_service_server::{LoadReportingService, LoadReportingServiceServer},
    },
    type_url,
};
use rajut_runtime::connector::Connector;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::discovery::mesh_roots;

/// The SDS name of the workload's own certificate.
const OWN_CERTIFICATE: &str = "default";

/// Messages that wait in one direction of a stream.
const QUEUED_MAX: usize = 16;

/// Between two looks at files of certificates.
const FILES_LOOK: Duration = Duration::from_secs(1);

/// The largest discovery message, bytes; the control plane's own bound is the same.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// The service that Envoy talks to.
#[derive(Clone)]
pub(super) struct Relay {
    connector: Connector,
    store: IdentityStore,
    identity: Arc<Identity>,
    names: watch::Sender<Arc<NameTable>>,
    /// The connection of the newest discovery stream.
    channel: watch::Sender<Option<Channel>>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Relay {
    pub(super) fn new(
        connector: Connector,
        store: IdentityStore,
        identity: Arc<Identity>,
        names: watch::Sender<Arc<NameTable>>,
    ) -> Self {
        Self {
            connector,
            store,
            identity,
            names,
            channel: watch::Sender::new(None),
        }
    }

    /// Serves on a stream of accepted connections.
    pub(super) async fn serve<S, C>(self, incoming: S) -> Result<(), tonic::transport::Error>
    where
        S: Stream<Item = io::Result<C>>,
        C: tonic::transport::server::Connected
            + tokio::io::AsyncRead
            + tokio::io::AsyncWrite
            + Send
            + Unpin
            + 'static,
    {
        let reports = LoadReportingServiceServer::new(self.clone());
        let service = AggregatedDiscoveryServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        tonic::transport::Server::builder()
            .add_service(service)
            .add_service(reports)
            .serve_with_incoming(incoming)
            .await
    }

    async fn upstream(
        &self,
    ) -> Result<(mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>), Status> {
        let unavailable =
            |error: &dyn std::error::Error| Status::unavailable(format!("control plane: {error}"));
        let channel = Endpoint::from_static("http://control-plane")
            .connect_with_connector(self.connector.clone())
            .await
            .map_err(|error| unavailable(&error))?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let (requests, outgoing) = mpsc::channel(QUEUED_MAX);
        // The node goes with Envoy's first request; the name table is asked for after it (see `Conversation`).
        let responses = client
            .stream_aggregated_resources(ReceiverStream::new(outgoing))
            .await?;
        self.channel.send_replace(Some(channel));
        Ok((requests, responses.into_inner()))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (answers, outgoing) = mpsc::channel(QUEUED_MAX);
        let relay = self.clone();
        tokio::spawn(async move {
            // Boxed: what a stream holds between two messages is kilobytes.
            if let Err(status) = Box::pin(relay.converse(request.into_inner(), &answers)).await {
                tracing::info!(reason = status.message(), "discovery stream ended");
                // Envoy has gone where nobody takes it.
                drop(answers.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "the agent takes state-of-the-world streams: set api_type GRPC in ads_config",
        ))
    }
}

#[tonic::async_trait]
impl LoadReportingService for Relay {
    type StreamLoadStatsStream = Responses<LoadStatsResponse>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let mut channels = self.channel.subscribe();
        let gone = || Status::unavailable("the agent ends");
        let channel = channels
            .wait_for(Option::is_some)
            .await
            .map_err(|_| gone())?
            .clone();
        let channel = channel.ok_or_else(gone)?;
        let mut envoy = request.into_inner();
        let (reports, outgoing) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(async move {
            let mut is_first = true;
            while let Some(Ok(mut report)) = envoy.next().await {
                // Envoy says who it is in each.
                if !std::mem::take(&mut is_first) {
                    report.node = None;
                }
                if reports.send(report).await.is_err() {
                    return;
                }
            }
        });
        let mut client = LoadReportingServiceClient::new(channel);
        let answers = client.stream_load_stats(ReceiverStream::new(outgoing)).await?;
        Ok(Response::new(Box::pin(answers.into_inner())))
    }
}

/// Names that Envoy has asked for among the secrets that are answered here.
#[derive(Default)]
struct Conversation {
    secrets: Vec<String>,
    secrets_sent: u64,
    names_asked: bool,
    /// Those of them that the control plane has, as it gave them: name → secret.
    given: BTreeMap<String, Any>,
    /// What the control plane was asked for last.
    asked: Vec<String>,
    /// Version and nonce of its last answer that was acknowledged.
    answered: (String, String),
    /// Version and nonce of an answer that is acknowledged when the roots in it are in force.
    awaiting: Option<(String, String)>,
    /// The mesh's roots as they were told last.
    trust: Option<TrustBundle>,
    /// The generation of the identity that was given to Envoy last.
    given_generation: u64,
    /// The newest of those that Envoy has taken.
    taken_generation: u64,
    /// What the files that are named by secrets held last.
    files: BTreeMap<String, Any>,
}

impl Conversation {
    /// The question for the secrets that are the control plane's, where they are others than before.
    fn ask(&mut self) -> Option<DiscoveryRequest> {
        let is_foreign = |name: &&String| name.as_str() != OWN_CERTIFICATE && !name.starts_with("file-");
        let wanted: Vec<String> = self.secrets.iter().filter(is_foreign).cloned().collect();
        if wanted == self.asked {
            return None;
        }
        self.given.retain(|name, _| wanted.contains(name));
        self.asked = wanted;
        Some(self.request())
    }

    fn request(&self) -> DiscoveryRequest {
        let (version_info, response_nonce) = self.answered.clone();
        DiscoveryRequest {
            type_url: type_url::SECRET.into(),
            resource_names: self.asked.clone(),
            version_info,
            response_nonce,
            ..Default::default()
        }
    }

    /// Keeps what the control plane gave. Gives the answer, where it is due at once. Envoy's own refusal of one that is not of
    /// the roots is in this process's log.
    fn take(
        &mut self,
        response: DiscoveryResponse,
        store: &IdentityStore,
        identity: &Identity,
    ) -> Option<DiscoveryRequest> {
        for any in response.resources {
            let Ok(secret) = wire::decode_secret(&any.value) else {
                tracing::warn!("the control plane sent a secret that can't be read");
                continue;
            };
            let name = secret.value.name.to_string();
            if name == MESH_ROOTS {
                match mesh_roots(&secret.value) {
                    Ok(bundle) => {
                        self.trust = Some(bundle.clone());
                        store.set_trust(bundle);
                    }
                    Err(why) => {
                        tracing::warn!(why, "the mesh's roots can't be used");
                        return Some(self.refusal(response.nonce, why));
                    }
                }
            } else if self.asked.contains(&name) {
                self.given.insert(name, any);
            }
        }
        self.awaiting = Some((response.version_info, response.nonce));
        self.acknowledgement(identity)
    }

    /// Says no to the control plane.
    fn refusal(&self, nonce: String, message: String) -> DiscoveryRequest {
        DiscoveryRequest {
            response_nonce: nonce,
            error_detail: Some(refused(message)),
            ..self.request()
        }
    }

    /// What tells the control plane that what it gave is in force: Envoy believes the roots that it told, and shows a
    /// certificate that is under the first of them.
    fn acknowledgement(&mut self, identity: &Identity) -> Option<DiscoveryRequest> {
        let is_in_force =
            |trust: &TrustBundle| self.taken_generation >= identity.generation && identity.follows(trust);
        if !self.trust.as_ref().is_none_or(is_in_force) {
            return None;
        }
        self.answered = self.awaiting.take()?;
        Some(self.request())
    }

    /// What Envoy says of what it was given last. Gives what the control plane is to hear of it.
    fn hear(&mut self, request: &DiscoveryRequest, identity: &Identity) -> Option<DiscoveryRequest> {
        if let Some(error) = &request.error_detail {
            tracing::warn!(reason = %error.message, "Envoy refused its certificate");
            let (_, nonce) = self.awaiting.take()?;
            return Some(self.refusal(nonce, format!("Envoy: {}", error.message)));
        }
        if request.response_nonce == self.secrets_sent.to_string() {
            self.taken_generation = self.given_generation;
        }
        self.acknowledgement(identity)
    }

    /// Reads the files that Envoy asks for by name; whether they hold something else than before. What can't be read stays
    /// as it was.
    fn read_files(&mut self) -> bool {
        let mut changed = false;
        for name in self.secrets.iter().filter(|name| name.starts_with("file-")) {
            let Some(secret) = of_files(name) else { continue };
            let any = Any {
                type_url: type_url::SECRET.into(),
                value: wire::encode_secret(&secret).value.to_vec(),
            };
            changed |= self.files.get(name) != Some(&any);
            self.files.insert(name.clone(), any);
        }
        changed
    }
}

impl Relay {
    async fn converse(
        mut self,
        mut envoy: Streaming<DiscoveryRequest>,
        answers: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
    ) -> Result<(), Status> {
        if let Some(newest) = self.store.current() {
            self.identity = newest;
        }
        let (requests, mut responses) = self.upstream().await?;
        let mut conversation = Conversation::default();
        let mut look = tokio::time::interval(FILES_LOOK);
        let gone = |_| Status::unavailable("the other side has gone");
        loop {
            tokio::select! {
                request = envoy.next() => {
                    let Some(request) = request.transpose()? else { return Ok(()) };
                    if request.type_url == type_url::SECRET {
                        if let Some(answer) = conversation.hear(&request, &self.identity) {
                            requests.send(answer).await.map_err(gone)?;
                        }
                        if let Some(response) = self.secrets(&mut conversation, &request) {
                            if let Some(more) = conversation.ask() {
                                requests.send(more).await.map_err(gone)?;
                            }
                            tell(answers, response).await?;
                        }
                        continue;
                    }
                    requests.send(request).await.map_err(gone)?;
                    if !conversation.names_asked {
                        conversation.names_asked = true;
                        let names = DiscoveryRequest { type_url: type_url::NAME_TABLE.into(), ..Default::default() };
                        requests.send(names).await.map_err(gone)?;
                    }
                }
                response = responses.next() => {
                    let Some(response) = response.transpose()? else {
                        return Err(Status::unavailable("the control plane ended the stream"));
                    };
                    if response.type_url == type_url::NAME_TABLE {
                        requests.send(self.take_names(response)).await.map_err(gone)?;
                    } else if response.type_url == type_url::SECRET {
                        if let Some(answer) = conversation.take(response, &self.store, &self.identity) {
                            requests.send(answer).await.map_err(gone)?;
                        }
                        if !conversation.given.is_empty() {
                            tell(answers, self.secret_response(&mut conversation)).await?;
                        }
                    } else {
                        tell(answers, response).await?;
                    }
                }
                _ = look.tick() => {
                    if conversation.read_files() {
                        tell(answers, self.secret_response(&mut conversation)).await?;
                    }
                }
                newer = self.store.newer_than(self.identity.generation) => {
                    self.identity = newer.ok_or_else(|| Status::internal("the identity's owner has ended"))?;
                    if !conversation.secrets.is_empty() {
                        tell(answers, self.secret_response(&mut conversation)).await?;
                    }
                }
            }
        }
    }

    /// The answer to a request for secrets; `None` for an acknowledgement.
    fn secrets(
        &self,
        conversation: &mut Conversation,
        request: &DiscoveryRequest,
    ) -> Option<DiscoveryResponse> {
        if request.error_detail.is_some() {
            return None;
        }
        let mut wanted = request.resource_names.clone();
        wanted.sort();
        if wanted == conversation.secrets && !request.response_nonce.is_empty() {
            return None;
        }
        conversation.secrets = wanted;
        conversation.read_files();
        Some(self.secret_response(conversation))
    }

    fn secret_response(&self, conversation: &mut Conversation) -> DiscoveryResponse {
        conversation.secrets_sent += 1;
        conversation.given_generation = self.identity.generation;
        let encode = |name: &String| {
            let elsewhere = conversation
                .given
                .get(name)
                .or_else(|| conversation.files.get(name));
            if let Some(known) = elsewhere {
                return Some(known.clone());
            }
            let encoded = wire::encode_secret(&secret(&self.identity, name)?);
            Some(Any {
                type_url: type_url::SECRET.into(),
                value: encoded.value.to_vec(),
            })
        };
        DiscoveryResponse {
            version_info: format!("{}.{}", self.identity.generation, conversation.secrets_sent),
            nonce: conversation.secrets_sent.to_string(),
            type_url: type_url::SECRET.into(),
            resources: conversation.secrets.iter().filter_map(encode).collect(),
            ..Default::default()
        }
    }

    /// Adopts the name table and gives its acknowledgement.
    fn take_names(&self, response: DiscoveryResponse) -> DiscoveryRequest {
        let table = response
            .resources
            .first()
            .map(|any| wire::decode_name_table(&any.value));
        let error = match table {
            Some(Ok(table)) => {
                self.names.send_replace(Arc::new(table.value));
                None
            }
            Some(Err(error)) => Some(error.to_string()),
            None => None,
        };
        DiscoveryRequest {
            type_url: type_url::NAME_TABLE.into(),
            version_info: response.version_info,
            response_nonce: response.nonce,
            error_detail: error.map(refused),
            ..Default::default()
        }
    }
}

/// Sends to Envoy.
async fn tell(
    answers: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
    response: DiscoveryResponse,
) -> Result<(), Status> {
    let gone = |_| Status::cancelled("Envoy has gone");
    answers.send(Ok(response)).await.map_err(gone)
}

/// The words of a refusal, as xDS has them.
fn refused(message: String) -> rajut_proto::google::rpc::Status {
    rajut_proto::google::rpc::Status {
        code: 3,
        message,
        details: Vec::new(),
    }
}

/// The secret of files: `file-cert:CHAIN~KEY` or `file-root:PATH`.
fn of_files(name: &str) -> Option<Secret> {
    let read = |path: &str| Some(DataSource::Inline(std::fs::read(path).ok()?.into()));
    let pair = name
        .strip_prefix("file-cert:")
        .and_then(|files| files.split_once('~'));
    let value = if let Some((chain, key)) = pair {
        SecretValue::Certificate(TlsCertificate {
            chain: read(chain)?,
            key: read(key)?,
        })
    } else {
        SecretValue::Validation(ValidationContext {
            trusted_ca: Some(read(name.strip_prefix("file-root:")?)?),
            ..ValidationContext::default()
        })
    };
    Some(Secret {
        name: name.into(),
        value,
    })
}

/// The secret of that name: `default` is the workload's certificate and key, `ROOTCA` its trust bundle.
fn secret(identity: &Identity, name: &str) -> Option<Secret> {
    let inline = |text: String| DataSource::Inline(text.into());
    let value = match name {
        OWN_CERTIFICATE => SecretValue::Certificate(TlsCertificate {
            chain: inline(identity.chain_pem()),
            key: inline(identity.key.secret_pem()),
        }),
        MESH_ROOTS => {
            let revoked = identity.roots.revoked();
            SecretValue::Validation(ValidationContext {
                trusted_ca: Some(inline(identity.roots.to_pem())),
                crl: revoked.map(|revoked| inline(revoked.pem().to_owned())),
                crl_of_leaf_only: revoked.is_some(),
                ..ValidationContext::default()
            })
        }
        _ => return None,
    };
    Some(Secret {
        name: name.into(),
        value,
    })
}
