//! One HTTP/1.1 exchange with somebody outside of the mesh: an issuer of tokens, an Alertmanager. A connection for each; no
//! redirections are followed; an answer has a bound; `https` is verified with the machine's own roots or those of a file.
//!
//! Does not: go through the mesh, ask a proxy, keep connections.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rajut_identity::{
    context::{TlsContextError, client_of, system_client},
    rustls::{ClientConfig, pki_types::ServerName},
};
use rajut_platform::socket::{ConnectOptions, TcpStream, connect, lookup_host};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutsideError {
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// Not reached.
    #[error("not reached: {0}")]
    Connect(#[source] io::Error),
    /// The roots can't be read.
    #[error(transparent)]
    Roots(#[from] Arc<TlsContextError>),
    /// No HTTP.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// Too long, or cut off.
    #[error("the answer can't be read: {0}")]
    Body(String),
    /// The URL is none that can be asked.
    #[error("not a URL that can be asked")]
    Url,
}

/// What an exchange needs; cloned freely.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outside(Arc<Tls>);

#[derive(Debug, Default)]
struct Tls {
    /// PEM; `None`: the machine's own.
    roots: Option<PathBuf>,
    /// Read when it is first needed.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Outside {
    /// Servers are believed that these roots vouch for.
    pub(crate) fn with_roots(roots: Option<PathBuf>) -> Self {
        Self(Arc::new(Tls {
            roots,
            config: OnceCell::new(),
        }))
    }

    /// Sends `request`, whose URI is whole, and reads at most `answer_max` bytes of the answer. `host` and `user-agent` are added.
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        answer_max: usize,
    ) -> Result<Response<Bytes>, OutsideError> {
        let uri = request.uri().clone();
        let authority = uri.authority().ok_or(OutsideError::Url)?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(OutsideError::Url),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |it| it.as_str());
        *request.uri_mut() = target.parse::<Uri>().map_err(|_| OutsideError::Url)?;
        let named = header::HeaderValue::from_str(&match authority.port() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        });
        let headers = request.headers_mut();
        headers.insert(header::HOST, named.map_err(|_| OutsideError::Url)?);
        headers.insert(header::USER_AGENT, header::HeaderValue::from_static("rajut"));
        let stream = dial(&host, port).await?;
        if !is_tls {
            return ask(stream, request, answer_max).await;
        }
        let config = self
            .0
            .config
            .get_or_try_init(|| read_roots(self.0.roots.clone()))
            .await?;
        let name = ServerName::try_from(host).map_err(|_| OutsideError::Url)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(OutsideError::Connect)?;
        Box::pin(ask(stream, request, answer_max)).await
    }
}

/// Reading the machine's roots takes some milliseconds.
async fn read_roots(path: Option<PathBuf>) -> Result<Arc<ClientConfig>, OutsideError> {
    let read = tokio::task::spawn_blocking(move || match path {
        Some(path) => client_of(&path, &["http/1.1"]),
        None => system_client(&["http/1.1"]),
    });
    match read.await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(error)) => Err(Arc::new(error).into()),
        Err(error) => Err(OutsideError::Connect(io::Error::other(error))),
    }
}

/// The first address that answers.
async fn dial(host: &str, port: u16) -> Result<TcpStream, OutsideError> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(OutsideError::Connect)?
        .collect();
    let mut failure = OutsideError::NoAddress(host.to_owned());
    for address in addresses {
        match connect(address, &ConnectOptions::default()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = OutsideError::Connect(error),
        }
    }
    Err(failure)
}

async fn ask(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    answer_max: usize,
) -> Result<Response<Bytes>, OutsideError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, at the end of this function.
    let serving = tokio::spawn(connection);
    let answered = match sender.send_request(request).await {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            match Limited::new(body, answer_max).collect().await {
                Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
                Err(error) => Err(OutsideError::Body(error.to_string())),
            }
        }
        Err(error) => Err(error.into()),
    };
    serving.abort();
    answered
}

#[cfg(test)]
mod tests;
