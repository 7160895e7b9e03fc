//! One key set over HTTP/1.1: `GET`, no redirections, no credentials, nothing but the answer's body and how long it holds.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rajut_config::{
    key_set::{self, KeySetError},
    model::KeySource,
};
use rajut_identity::{
    context::{TlsContextError, system_client},
    rustls::{ClientConfig, pki_types::ServerName},
};
use rajut_platform::socket::{ConnectOptions, TcpStream, connect, lookup_host};
use rajut_types::Text;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::ANSWER_MAX;

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// Not reached.
    #[error("not reached: {0}")]
    Connect(#[source] io::Error),
    /// The machine's roots can't be read.
    #[error(transparent)]
    Roots(#[from] Arc<TlsContextError>),
    /// No HTTP.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// Too long, or cut off.
    #[error("the answer can't be read: {0}")]
    Body(String),
    /// Another status than 200.
    #[error("the answer is {0}")]
    Status(u16),
    /// The URL is none that can be asked.
    #[error("not a URL that can be asked")]
    Url,
    /// The issuer's description names no key set.
    #[error("the issuer's description has no `jwks_uri`")]
    NoUri,
    /// The key set is of no use.
    #[error("the key set is of no use: {0}")]
    Keys(#[from] KeySetError),
}

/// Keys, and how long they hold as the answer says.
pub(super) type Fetched = Result<(Text, Option<Duration>), FetchError>;

/// What fetching needs; cloned freely.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetcher(Arc<OnceCell<Arc<ClientConfig>>>);

impl Fetcher {
    /// The key set of a source.
    pub(super) async fn key_set(&self, source: &KeySource, timeout: Duration) -> Fetched {
        let fetched = tokio::time::timeout(timeout, self.untimed(source));
        Box::pin(fetched)
            .await
            .unwrap_or(Err(FetchError::Timeout(timeout)))
    }

    async fn untimed(&self, source: &KeySource) -> Fetched {
        let url = match source {
            KeySource::Inline(keys) => return Ok((keys.clone(), None)),
            KeySource::Url(url) => url.to_string(),
            KeySource::Discovery(url) => {
                let (body, _) = self.fetch(url).await?;
                let description: serde_json::Value =
                    serde_json::from_slice(&body).map_err(|_| FetchError::NoUri)?;
                let uri = description.get("jwks_uri").and_then(serde_json::Value::as_str);
                uri.ok_or(FetchError::NoUri)?.to_owned()
            }
        };
        let (body, max_age) = self.fetch(&url).await?;
        let text = std::str::from_utf8(&body).map_err(|_| KeySetError::NotJson)?;
        Ok((key_set::usable(text)?, max_age))
    }

    async fn fetch(&self, url: &str) -> Result<(Bytes, Option<Duration>), FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let authority = uri.authority().ok_or(FetchError::Url)?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(FetchError::Url),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = dial(&host, port).await?;
        let target = uri.path_and_query().map_or("/", |it| it.as_str());
        let request = Request::get(target)
            .header(header::HOST, authority.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "rajut")
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Url)?;
        if !is_tls {
            return ask(stream, request).await;
        }
        let config = self.0.get_or_try_init(system_tls).await?;
        let name = ServerName::try_from(host).map_err(|_| FetchError::Url)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(FetchError::Connect)?;
        Box::pin(ask(stream, request)).await
    }
}

/// Reading the machine's roots takes some milliseconds.
async fn system_tls() -> Result<Arc<ClientConfig>, FetchError> {
    let read = tokio::task::spawn_blocking(|| system_client(&["http/1.1"])).await;
    match read {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(error)) => Err(Arc::new(error).into()),
        Err(error) => Err(FetchError::Connect(io::Error::other(error))),
    }
}

/// The first address that answers.
async fn dial(host: &str, port: u16) -> Result<TcpStream, FetchError> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(FetchError::Connect)?
        .collect();
    let mut failure = FetchError::NoAddress(host.to_owned());
    for address in addresses {
        match connect(address, &ConnectOptions::default()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = FetchError::Connect(error),
        }
    }
    Err(failure)
}

async fn ask(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(Bytes, Option<Duration>), FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, at the end of this function.
    let serving = tokio::spawn(connection);
    let answered = sender.send_request(request).await;
    let body = match answered {
        Ok(answer) if answer.status() == hyper::StatusCode::OK => {
            let max_age = answer.headers().get(header::CACHE_CONTROL).and_then(max_age);
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            match body {
                Ok(body) => Ok((body.to_bytes(), max_age)),
                Err(error) => Err(FetchError::Body(error.to_string())),
            }
        }
        Ok(answer) => Err(FetchError::Status(answer.status().as_u16())),
        Err(error) => Err(error.into()),
    };
    serving.abort();
    body
}

/// `max-age` of `cache-control` (RFC 9111 §5.2.2.1).
fn max_age(value: &header::HeaderValue) -> Option<Duration> {
    let directives = value.to_str().ok()?.split(',').map(str::trim);
    let seconds = directives.filter_map(|directive| directive.strip_prefix("max-age="));
    seconds
        .filter_map(|seconds| seconds.parse().ok())
        .map(Duration::from_secs)
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_holds() {
        let of = |text: &'static str| max_age(&header::HeaderValue::from_static(text));
        assert_eq!(
            of("public, max-age=60, must-revalidate"),
            Some(Duration::from_mins(1))
        );
        assert_eq!(of("no-store"), None);
        assert_eq!(of("max-age=soon"), None);
    }
}
