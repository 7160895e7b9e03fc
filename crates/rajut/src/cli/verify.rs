//! `rajut verify mtls A B`: what a wiretap on the hop from A to B sees, shown for the eye.
//!
//! Three looks at B's address and port, where other proxies reach it:
//!
//! 1. a request in plain text, which B should refuse;
//! 2. a TLS handshake without a certificate, which B should refuse too (judged by the first read: a TLS 1.3 client
//!    finishes its handshake before the refusal);
//! 3. a request with a certificate of A's identity, through a recorder that keeps what passes on the wire. A random
//!    marker in path, header and body is looked for among those bytes.
//!
//! The third connection is this command's own, not one that A's sidecar has open: the certificate is a fresh one for A's
//! identity, issued by the mesh's authority and on its record.

mod recorder;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use rajut_identity::{
    Identity, PeerRules, TrustBundle,
    enrol::{EnrolOptions, Issuer, Token, enrol},
    pki_types::ServerName,
    principal_of,
    rustls::{self, ClientConfig, ProtocolVersion},
    tls::{mesh_client_config, mesh_provider},
};
use rajut_local::state::{MeshRecord, WorkloadRecord};
use rajut_platform::socket::{ConnectOptions, TcpStream, connect};
use rajut_runtime::Clock;
use rajut_types::TrustDomain;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use self::recorder::{Recorder, Recording};
use super::{
    OutputFormat, WrongUsage, answer, block_on,
    mesh::{Place, workload},
};
use crate::output::{self, Format};

/// For each look.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The certificate is for this one look.
const CERTIFICATE_LIFE: Duration = Duration::from_mins(10);
/// Of the answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// What our sidecars offer each other for HTTP/1.1, as Istio's do.
const ALPN: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];

/// `rajut verify`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum VerifyCommand {
    /// What a wiretap between two workloads sees: TLS version and group, both identities, the bytes on the wire
    Mtls(MtlsArgs),
}

/// `rajut verify mtls`
#[derive(Debug, clap::Args)]
pub(crate) struct MtlsArgs {
    /// Who calls: NAME or NAME.NAMESPACE
    from: String,
    /// Who is called: NAME or NAME.NAMESPACE, perhaps with :PORT
    to: String,
    #[command(flatten)]
    output: OutputFormat,
}

/// Exit status 0 only when plain text and strangers are refused and the wire shows nothing.
pub(crate) fn verify(place: &Place, command: &VerifyCommand) -> anyhow::Result<ExitCode> {
    let VerifyCommand::Mtls(args) = command;
    let mesh = place.running()?;
    let (name, port) = match args.to.rsplit_once(':') {
        Some((name, port)) => {
            let port = port
                .parse()
                .map_err(|_| WrongUsage(format!("{port} is not a port")))?;
            (name, Some(port))
        }
        None => (args.to.as_str(), None),
    };
    let (from, to) = (workload(&mesh, &args.from)?, workload(&mesh, name)?);
    let Some(port) = port.or_else(|| to.ports.first().copied()) else {
        bail!("{} has no port", to.name);
    };
    let reached = to.reached_ports.get(&port).copied().unwrap_or(port);
    let address = SocketAddr::new(to.address.parse()?, reached);
    let findings = block_on(look(place, &mesh, from, to, address))?;
    match args.output.format {
        Format::Json => output::print_json(&findings.to_json())?,
        Format::Text => output::print(&findings.to_text())?,
    }
    Ok(answer(findings.is_protected()))
}

/// What was seen.
struct Findings {
    from: String,
    to: String,
    address: SocketAddr,
    plain_refused: Result<(), String>,
    stranger_refused: Result<(), String>,
    session: Session,
    expected: String,
}

/// The third look.
struct Session {
    version: String,
    group: String,
    cipher: String,
    client: String,
    server: String,
    status: String,
    marker: String,
    application: Vec<u8>,
    wire: Recording,
}

async fn look(
    place: &Place,
    mesh: &MeshRecord,
    from: &WorkloadRecord,
    to: &WorkloadRecord,
    address: SocketAddr,
) -> anyhow::Result<Findings> {
    let who = (&*from.namespace, &*from.service_account, &*from.name);
    let identity = enrolled(place, mesh, who, CERTIFICATE_LIFE).await?;
    let domain = TrustDomain::new(trust_domain(&to.identity));
    Ok(Findings {
        from: from.name.clone(),
        to: to.name.clone(),
        address,
        plain_refused: bounded(plain(address)).await,
        stranger_refused: Box::pin(bounded(stranger(address))).await,
        session: Box::pin(tokio::time::timeout(TIMEOUT, session(address, &identity, domain)))
            .await
            .context("no answer in time")??,
        expected: to.identity.clone(),
    })
}

async fn bounded(look: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::time::timeout(TIMEOUT, look)
        .await
        .unwrap_or_else(|_| Err("neither answered nor refused".to_owned()))
}

fn trust_domain(identity: &str) -> &str {
    let rest = identity.strip_prefix("spiffe://").unwrap_or(identity);
    rest.split('/').next().unwrap_or(rest)
}

/// A certificate of a workload's identity: of its namespace, service account and name.
pub(super) async fn enrolled(
    place: &Place,
    mesh: &MeshRecord,
    (namespace, account, workload): (&str, &str, &str),
    ttl: Duration,
) -> anyhow::Result<Identity> {
    let control = place.control()?;
    let who = json!({"namespace": namespace, "serviceAccount": account, "workload": workload});
    let answer = control.json("POST", "/v1/tokens", Some(&who)).await?;
    let token = answer
        .get("token")
        .and_then(Value::as_str)
        .context("the control plane gave no token")?;
    let roots = std::fs::read(place.state.roots_file())?;
    let options = EnrolOptions {
        issuer: Issuer {
            address: mesh.discovery.to_string(),
            server_name: rajut_local::commands::CONTROL_SERVER_NAME.to_owned(),
            roots: TrustBundle::from_pem(&roots)?,
            roots_file: None,
        },
        token: Token::Given(token.to_owned()),
        ttl,
    };
    Ok(enrol(&options, None, &Clock::system()).await?)
}

async fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    connect(address, &ConnectOptions::default()).await
}

/// `Ok`: refused, as it should be.
async fn plain(address: SocketAddr) -> Result<(), String> {
    let mut stream = dial(address)
        .await
        .map_err(|error| format!("can't connect: {error}"))?;
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Ok(());
    }
    first_read(&mut stream).await
}

/// A refusal is a first read that brings nothing.
async fn first_read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
    let mut buffer = [0; 256];
    match stream.read(&mut buffer).await {
        Ok(0) | Err(_) => Ok(()),
        Ok(length) => {
            let text = String::from_utf8_lossy(&buffer[..length]);
            Err(format!(
                "it answered {:?}",
                text.lines().next().unwrap_or_default()
            ))
        }
    }
}

async fn stranger(address: SocketAddr) -> Result<(), String> {
    let stream = dial(address)
        .await
        .map_err(|error| format!("can't connect: {error}"))?;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // Whoever it is: this look asks whether B lets a stranger in, not who B is.
    let verifier = rajut_identity::verify::PeerVerifier::new(mesh_provider(), None, PeerRules::default());
    let mut config = ClientConfig::builder_with_provider(mesh_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| text(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = ALPN.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::from(address.ip());
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Err(_) => Ok(()),
        Ok(mut stream) => {
            let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            if stream.write_all(request.as_bytes()).await.is_err() {
                return Ok(());
            }
            first_read(&mut stream).await
        }
    }
}

async fn session(address: SocketAddr, identity: &Identity, domain: TrustDomain) -> anyhow::Result<Session> {
    let config = mesh_client_config(identity, PeerRules::mesh([domain]), &ALPN)?;
    let recorder = Recorder::new(dial(address).await?);
    let name = ServerName::from(address.ip());
    let mut stream = TlsConnector::from(config)
        .connect(name, recorder)
        .await
        .context("no TLS connection with a certificate of the caller's identity")?;
    let marker = marker()?;
    let body = format!("{{\"marker\":\"{marker}\"}}");
    let application = format!(
        "POST /{marker} HTTP/1.1\r\nhost: {address}\r\nx-marker: {marker}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes();
    stream.write_all(&application).await?;
    stream.flush().await?;
    let status = status_line(&mut stream).await?;
    let (recorder, connection) = stream.get_ref();
    let server = connection
        .peer_certificates()
        .and_then(principal_of)
        .map_or_else(|| "(none)".to_owned(), |principal| principal.spiffe_id());
    Ok(Session {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
            other => format!("{other:?}"),
        },
        group: connection
            .negotiated_key_exchange_group()
            .map_or_else(|| "unknown".to_owned(), |group| format!("{:?}", group.name())),
        cipher: connection
            .negotiated_cipher_suite()
            .map_or_else(|| "unknown".to_owned(), |suite| format!("{:?}", suite.suite())),
        client: identity_text(identity),
        server,
        status,
        marker,
        application,
        wire: recorder.recording(),
    })
}

fn identity_text(identity: &Identity) -> String {
    principal_of(&identity.certified_key().cert)
        .map_or_else(|| "(none)".to_owned(), |principal| principal.spiffe_id())
}

/// A random text that can't be on the wire by accident.
fn marker() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes
        .iter()
        .fold("marker-".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

async fn status_line(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 4096];
    while bytes.len() < ANSWER_MAX {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            // Some servers end without close_notify; what came before it counts.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error).context("the connection was refused after the handshake"),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().next().unwrap_or("(no answer)").to_owned())
}

impl Findings {
    fn marker_on_wire(&self) -> bool {
        let marker = self.session.marker.as_bytes();
        let Recording { sent, received } = &self.session.wire;
        [sent, received]
            .into_iter()
            .any(|bytes| bytes.windows(marker.len()).any(|window| window == marker))
    }

    fn is_protected(&self) -> bool {
        self.plain_refused.is_ok()
            && self.stranger_refused.is_ok()
            && self.session.version == "TLS 1.3"
            && self.session.server == self.expected
            && !self.marker_on_wire()
    }

    fn to_json(&self) -> Value {
        let Session {
            version,
            group,
            cipher,
            client,
            server,
            status,
            marker,
            application,
            wire,
        } = &self.session;
        let refusal = |outcome: &Result<(), String>| match outcome {
            Ok(()) => json!({"refused": true}),
            Err(why) => json!({"refused": false, "seen": why}),
        };
        json!({
            "from": self.from, "to": self.to, "address": self.address.to_string(),
            "protected": self.is_protected(),
            "plaintext": refusal(&self.plain_refused),
            "withoutCertificate": refusal(&self.stranger_refused),
            "tlsVersion": version, "keyExchangeGroup": group, "cipherSuite": cipher,
            "clientIdentity": client, "serverIdentity": server, "expectedServerIdentity": self.expected,
            "answer": status, "marker": marker, "markerOnWire": self.marker_on_wire(),
            "applicationBytes": application.len(), "wireBytesSent": wire.sent.len(), "wireBytesReceived": wire.received.len(),
            "wireDump": recorder::hexdump(wire.application_records(), 64),
        })
    }

    fn to_text(&self) -> String {
        let Session {
            version,
            group,
            cipher,
            client,
            server,
            status,
            application,
            wire,
            ..
        } = &self.session;
        let refusal = |outcome: &Result<(), String>| match outcome {
            Ok(()) => "refused".to_owned(),
            Err(why) => format!("NOT REFUSED: {why}"),
        };
        let mut text = format!(
            "{} -> {} ({})\n\n  plain text            {}\n  without certificate   {}\n  with {}'s identity: {status}\n\n  \
             {version}, {group}, {cipher}\n  caller  {client}\n  callee  {server}{}\n\n",
            self.from,
            self.to,
            self.address,
            refusal(&self.plain_refused),
            refusal(&self.stranger_refused),
            self.from,
            if *server == self.expected {
                ""
            } else {
                "   NOT THE EXPECTED ONE"
            },
        );
        text.push_str("what the application sent\n");
        text.push_str(&recorder::hexdump(application, 96));
        text.push_str("\nwhat a wiretap sees of it\n");
        text.push_str(&recorder::hexdump(wire.application_records(), 96));
        append!(
            text,
            "\nthe marker in path, header and body is {} on the wire\n{}\n",
            if self.marker_on_wire() {
                "READABLE"
            } else {
                "nowhere"
            },
            if self.is_protected() {
                "protected"
            } else {
                "NOT PROTECTED"
            }
        );
        text
    }
}
