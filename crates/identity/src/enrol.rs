//! Asking the issuer for a certificate, and keeping it fresh.
//!
//! ```text
//!  new P-256 key ─► CSR ─► CreateCertificate (TLS; bearer token, or the current certificate) ─► checked ─► IdentityStore
//!        ▲                                                                                          │
//!        └────────── at half of the remaining life ± a tenth; failures: growing pauses ◄────────────┘
//! ```
//!
//! Every certificate has a key of its own, made here and never sent. What the issuer answers is checked before it is used:
//! it must be for our key, carry exactly one SPIFFE name (the same as before, when renewing) and chain to its own root.
//!
//! Whom to believe comes with the certificate, and from the control plane while it is connected
//! ([`IdentityStore::set_trust`]): it is in force at once, and a certificate that is not under the root that the control plane
//! issues under now is replaced without waiting for its time. The issuer itself is judged by what is believed and by the file
//! of its roots, which is read anew for each connection: who was away while the mesh went to another root finds it there.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rajut_platform::socket::{ConnectOptions, TcpStream, connect, lookup_host};
use rajut_proto::ca::{CertificateClient, IstioCertificateRequest};
use rajut_runtime::{Backoff, Clock, connector::Connector};
use rajut_types::Principal;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::{
    ClientConfig,
    client::Resumption,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
    },
    version::TLS13,
};
use tokio::sync::watch;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{metadata::MetadataValue, transport::Endpoint};

use crate::{
    certificate::Facts,
    store::{Attempts, Identity, IdentityStore, InvalidIdentity, Key, Wishes},
    tls::mesh_provider,
    trust::{InvalidBundle, TrustBundle},
    verify::{PeerRules, PeerVerifier},
};

/// Where the token comes from that proves to the issuer who asks.
#[derive(Clone)]
pub enum Token {
    /// A file, read anew for every attempt (Kubernetes renews it in place).
    File(PathBuf),
    /// Given.
    Given(String),
    /// None: only the current certificate speaks for us.
    Absent,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Given(_) => f.write_str("Given(secret)"),
            Self::Absent => f.write_str("Absent"),
        }
    }
}

/// Where the issuer is and how to speak to it.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// `host:port` or `ip:port`.
    pub address: String,
    /// The name that its certificate must be valid for.
    pub server_name: String,
    /// The roots that its certificate must chain to.
    pub roots: TrustBundle,
    /// Where these stand; read anew for each connection, since a mesh may have gone to another root.
    pub roots_file: Option<PathBuf>,
}

impl Issuer {
    /// The roots as the file has them now; what was read first where it can't be read.
    fn newest_roots(&self) -> TrustBundle {
        let Some(path) = &self.roots_file else {
            return self.roots.clone();
        };
        let read = std::fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(|pem| TrustBundle::from_pem(&pem).map_err(|error| error.to_string()));
        read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error, "the issuer's roots can't be read anew");
            self.roots.clone()
        })
    }

    /// By whom its certificate is judged: the file's roots, and those that the mesh is known to have.
    fn judged_by(&self, current: Option<&Identity>) -> Result<TrustBundle, InvalidBundle> {
        let roots = self.newest_roots();
        current.map_or_else(|| Ok(roots.clone()), |identity| roots.with(&identity.roots))
    }
}

/// How to enrol.
#[derive(Debug, Clone)]
pub struct EnrolOptions {
    /// The issuer.
    pub issuer: Issuer,
    /// What proves who we are.
    pub token: Token,
    /// Life that is asked for; the issuer may give less.
    pub ttl: Duration,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token's file can't be read.
    #[error("the token `{path}` can't be read")]
    Token {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Key or request could not be made.
    #[error("key or certificate request could not be made")]
    Request(#[from] rcgen::Error),
    /// No connection.
    #[error("the issuer at {address} can't be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why, with its causes.
        reason: String,
    },
    /// The issuer said no.
    #[error("the issuer refused: {code:?}: {message}")]
    Refused {
        /// gRPC status.
        code: tonic::Code,
        /// Its words.
        message: String,
    },
    /// The issuer's answer is not to be trusted or not understood.
    #[error("the issuer's answer can't be used: {0}")]
    Answer(String),
}

impl From<InvalidIdentity> for EnrolError {
    fn from(error: InvalidIdentity) -> Self {
        Self::Answer(error.to_string())
    }
}

impl From<InvalidBundle> for EnrolError {
    fn from(error: InvalidBundle) -> Self {
        Self::Answer(error.to_string())
    }
}

/// One attempt to get a certificate. `current` authenticates a renewal and fixes the name.
pub async fn enrol(
    options: &EnrolOptions,
    current: Option<&Identity>,
    clock: &Clock,
) -> Result<Identity, EnrolError> {
    enrol_by(options, current, Proof::Certificate, clock).await
}

/// What a renewal shows first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// The certificate that there is, where there is one that has not ended; and the token.
    Certificate,
    /// The token alone: the issuer may believe the certificate no longer.
    Token,
}

async fn enrol_by(
    options: &EnrolOptions,
    current: Option<&Identity>,
    proof: Proof,
    clock: &Clock,
) -> Result<Identity, EnrolError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr,
        validity_duration: i64::try_from(options.ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    if let Some(token) = read_token(&options.token)? {
        let bearer: MetadataValue<_> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| EnrolError::Answer("the token holds characters that no header may".to_owned()))?;
        request.metadata_mut().insert("authorization", bearer);
    }
    let usable = current
        .filter(|_| proof == Proof::Certificate)
        .filter(|identity| !identity.remaining(clock.wall()).is_zero());
    let roots = options.issuer.judged_by(current)?;
    let config = issuer_tls(&roots, usable).map_err(|error| EnrolError::Answer(error.to_string()))?;
    let connector = tls_connector(&options.issuer, config);
    let unreachable = |reason: String| EnrolError::Unreachable {
        address: options.issuer.address.clone(),
        reason,
    };
    let channel = Endpoint::from_static("http://issuer")
        .connect_timeout(ATTEMPT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable(chain_text(&error)))?;
    let answer = CertificateClient::new(channel)
        .create_certificate(request)
        .await
        .map_err(|status| match std::error::Error::source(&status) {
            // The connection ended; of TLS 1.3, that is how a client hears that its certificate is refused.
            Some(_) => unreachable(chain_text(&status)),
            None => EnrolError::Refused {
                code: status.code(),
                message: status.message().to_owned(),
            },
        })?;
    let generation = current.map_or(1, |identity| identity.generation + 1);
    accept_chain(&answer.into_inner().cert_chain, &key, current, generation, clock)
}

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

fn accept_chain(
    chain: &[String],
    key: &KeyPair,
    current: Option<&Identity>,
    generation: u64,
    clock: &Clock,
) -> Result<Identity, EnrolError> {
    let answer = |why: &str| EnrolError::Answer(why.to_owned());
    // The last text holds the roots: several while a mesh goes from one to another.
    let Some((last, chain)) = chain.split_last().filter(|(_, chain)| !chain.is_empty()) else {
        return Err(answer("the chain holds no root"));
    };
    // What is revoked does not come with a certificate: what was told last holds.
    let revoked = current.and_then(|identity| identity.roots.revoked());
    let roots = TrustBundle::from_pem(last.as_bytes())?.with_revoked(revoked.cloned());
    let mut certificates = Vec::new();
    for pem in chain {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            certificates.push(certificate.map_err(|error| EnrolError::Answer(error.to_string()))?);
        }
    }
    if certificates.is_empty() {
        return Err(answer("the chain holds no certificate"));
    }
    let facts = Facts::parse(&certificates[0]).map_err(InvalidIdentity::from)?;
    if facts.public_key != key.subject_public_key_info() {
        return Err(answer("the certificate is not for our key"));
    }
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let identity = Identity::new(certificates, Key::new(der), roots.clone(), generation)?;
    if let Some(before) = current.map(|identity| &identity.principal)
        && *before != identity.principal
    {
        return Err(EnrolError::Answer(format!(
            "we are {before}, not {}",
            identity.principal
        )));
    }
    check_own_chain(&identity, roots, clock)?;
    Ok(identity)
}

/// What peers will do with our chain, done here first.
fn check_own_chain(identity: &Identity, roots: TrustBundle, clock: &Clock) -> Result<(), EnrolError> {
    use rustls::server::danger::ClientCertVerifier as _;
    let since_epoch = clock
        .wall()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let verifier = PeerVerifier::new(
        mesh_provider(),
        Some(roots),
        PeerRules::mesh([identity.principal.trust_domain().clone()]),
    );
    let (leaf, rest) = identity
        .chain
        .split_first()
        .ok_or_else(|| EnrolError::Answer("the chain is empty".to_owned()))?;
    verifier
        .verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(since_epoch))
        .map(|_| ())
        .map_err(|error| EnrolError::Answer(error.to_string()))
}

fn read_token(token: &Token) -> Result<Option<String>, EnrolError> {
    match token {
        Token::Given(token) => Ok(Some(token.clone())),
        Token::Absent => Ok(None),
        Token::File(path) => std::fs::read_to_string(path)
            .map(Some)
            .map_err(|source| EnrolError::Token {
                path: path.clone(),
                source,
            }),
    }
}

/// TLS towards the control plane: its certificate must be valid for the dialled name; ours is presented where there is one.
fn issuer_tls(roots: &TrustBundle, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let rules = PeerRules {
        check_server_name: true,
        ..PeerRules::default()
    };
    let verifier = PeerVerifier::new(mesh_provider(), Some(roots.clone()), rules);
    let builder = ClientConfig::builder_with_provider(mesh_provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            Arc::clone(identity.certified_key()),
        ))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

async fn dial(issuer: &Issuer, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(issuer.server_name.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let addresses: Vec<SocketAddr> = lookup_host(&issuer.address).await?.collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect(address, &ConnectOptions::default()).await {
            Ok(stream) => return TlsConnector::from(config).connect(name, stream).await,
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn tls_connector(issuer: &Issuer, config: Arc<ClientConfig>) -> Connector {
    let issuer = Arc::new(issuer.clone());
    Connector::new(move || {
        let (issuer, config) = (Arc::clone(&issuer), Arc::clone(&config));
        async move { dial(&issuer, config).await }
    })
}

/// A connector to the control plane for discovery: mutual TLS with the newest identity at each attempt.
pub fn control_plane_connector(issuer: Issuer, store: IdentityStore) -> Connector {
    let issuer = Arc::new(issuer);
    Connector::new(move || {
        let (issuer, store) = (Arc::clone(&issuer), store.clone());
        async move {
            let identity = store
                .current()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "no certificate yet"))?;
            // A mesh that has left the root of our certificate believes it no longer; its roots' file says so.
            if issuer.roots_file.is_some() && !identity.is_under(&issuer.newest_roots()) {
                tracing::warn!(
                    "the own certificate is under none of the control plane's roots: another is asked for"
                );
                store.ask_for_another();
            }
            let roots = issuer.judged_by(Some(&identity)).map_err(io::Error::other)?;
            let config = issuer_tls(&roots, Some(&identity)).map_err(io::Error::other)?;
            dial(&issuer, config).await
        }
    })
}

/// Shortest and longest pause between failed attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The longest wait before a certificate under the newest root is asked for: a mesh does not ask all at once.
const SPREAD: Duration = Duration::from_millis(500);

/// Enrols and keeps the identity fresh until every [`IdentityStore`] is dropped. The store is empty until the first
/// certificate has come.
pub fn spawn_rotation(options: EnrolOptions, clock: Clock) -> IdentityStore {
    let (sender, store) = IdentityStore::channel();
    let rotation = Rotation {
        options,
        clock,
        sender,
        attempts: Arc::clone(store.attempts()),
        wishes: Arc::clone(store.wishes()),
        backoff: Backoff::seeded(RETRY.0, RETRY.1),
        current: None,
        failures: 0,
    };
    tokio::spawn(rotation.run());
    store
}

struct Rotation {
    options: EnrolOptions,
    clock: Clock,
    sender: watch::Sender<Option<Arc<Identity>>>,
    attempts: Arc<Attempts>,
    wishes: Arc<Wishes>,
    backoff: Backoff,
    current: Option<Arc<Identity>>,
    /// Attempts without a certificate since the last one.
    failures: u32,
}

impl Rotation {
    async fn run(mut self) {
        let mut told = self.wishes.trust.subscribe();
        loop {
            let pause = self.attempt().await;
            let due = tokio::time::sleep(pause);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    () = self.sender.closed() => return,
                    () = self.wishes.renew.notified(), if self.failures == 0 => break,
                    // The sender lives in what this task holds.
                    Ok(()) = told.changed() => {
                        let bundle = told.borrow_and_update().clone();
                        if bundle.is_some_and(|bundle| self.believe(bundle)) {
                            let soon = tokio::time::Instant::now() + SPREAD.mul_f64(self.backoff.draw());
                            if due.deadline() > soon {
                                due.as_mut().reset(soon);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Asks for a certificate. Gives the time until the next is to be asked for.
    async fn attempt(&mut self) -> Duration {
        // Every other time without the certificate: where it is what the issuer refuses, the token may still speak for us.
        let proof = match (&self.options.token, self.failures % 2) {
            (Token::Absent, _) | (_, 0) => Proof::Certificate,
            _ => Proof::Token,
        };
        let outcome = enrol_by(&self.options, self.current.as_deref(), proof, &self.clock).await;
        self.attempts.count(outcome.is_ok());
        match outcome {
            Ok(identity) => {
                self.failures = 0;
                let remaining = identity.remaining(self.clock.wall());
                log_identity(&identity.principal, &identity.serial, remaining);
                // Half of what is left, a tenth more or less, so that a mesh started at once does not renew at once.
                let half = remaining.mul_f64(0.45 + 0.1 * self.backoff.draw());
                self.publish(identity);
                let told = self.wishes.trust.borrow().clone();
                let is_outdated = |bundle: TrustBundle| {
                    let current = self.current.as_ref();
                    current.is_some_and(|identity| !identity.is_good_by(&bundle))
                };
                if told.is_some_and(is_outdated) {
                    // The issuer is behind what the control plane has told.
                    return self.backoff.pause().min(half);
                }
                self.backoff.reset();
                half
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = self.backoff.pause();
                let left = self
                    .current
                    .as_ref()
                    .map(|identity| identity.remaining(self.clock.wall()));
                tracing::warn!(%error, ?proof, ?pause, remaining = ?left, "no new certificate");
                pause
            }
        }
    }

    /// Believes others from now on. Whether the certificate is not under their first, or was revoked, so that another is due.
    fn believe(&mut self, bundle: TrustBundle) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let is_good = current.is_good_by(&bundle);
        if current.roots != bundle {
            tracing::info!(roots = bundle.certificates().len(), "the mesh's roots are others");
            let trusting = current.trusting(bundle);
            self.publish(trusting);
        }
        !is_good
    }

    fn publish(&mut self, identity: Identity) {
        let identity = Arc::new(identity);
        self.current = Some(Arc::clone(&identity));
        self.sender.send_replace(Some(identity));
    }
}

fn log_identity(principal: &Principal, serial: &str, remaining: Duration) {
    tracing::info!(%principal, serial, ?remaining, "certificate received");
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
