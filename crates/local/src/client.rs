//! Small HTTP requests: to the control plane's Unix socket, to a proxy's admin port, to an application's probe.
//!
//! One connection per request; nothing here is on a request path. Bounds: an answer of at most [`ANSWER_MAX`] bytes
//! (a `/config_dump` of a large mesh is some megabytes), and the caller's timeout.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rajut_platform::{
    netns::{NetNs, in_namespace},
    socket::{ConnectOptions, Family, TcpStream, UnixStream},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Of an answer, in bytes.
pub const ANSWER_MAX: usize = 64 << 20;

/// Whom to ask.
#[derive(Debug, Clone)]
pub enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// An address in this process's network.
    Tcp(SocketAddr),
    /// An address inside a namespace.
    Inside(NetNs, SocketAddr),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("can't connect to {to}: {source}")]
    Connect {
        /// Whom.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("{to} did not answer properly: {why}")]
    Exchange {
        /// Whom.
        to: String,
        /// What went wrong.
        why: String,
    },
    /// No answer in time.
    #[error("{to} did not answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// Whom.
        to: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// An answer that says no.
    #[error("{to}: {status} {text}")]
    Status {
        /// Whom.
        to: String,
        /// The status.
        status: StatusCode,
        /// The body, at most a few lines.
        text: String,
        /// All of it.
        body: Bytes,
    },
    /// Not the JSON that was expected.
    #[error("{to} answered with something unexpected: {source}")]
    Json {
        /// Whom.
        to: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp(address) | Self::Inside(_, address) => address.to_string(),
        }
    }
}

/// A request to be sent to a [`Target`].
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Extra headers.
    pub headers: &'a [(String, String)],
    /// The body; empty for none.
    pub body: Bytes,
    /// For all of it.
    pub timeout: Duration,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            method: "GET",
            path: "/",
            headers: &[],
            body: Bytes::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Sends a request and reads the answer, whatever its status.
pub async fn ask(target: &Target, ask: &Ask<'_>) -> Result<Answer, ClientError> {
    tokio::time::timeout(ask.timeout, exchange(target, ask))
        .await
        .unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                to: target.name(),
                after: ask.timeout,
            })
        })
}

/// A connection to an address, from inside the namespace where the target says so.
pub(crate) async fn connect(target: &Target) -> io::Result<TcpStream> {
    let options = ConnectOptions::default();
    match target {
        Target::Tcp(address) => options.socket(Family::of(address))?.connect(*address).await,
        Target::Inside(namespace, address) => {
            let family = Family::of(address);
            let socket = in_namespace(namespace, || options.socket(family))??;
            socket.connect(*address).await
        }
        Target::Unix(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a Unix socket has no address",
        )),
    }
}

async fn exchange(target: &Target, ask: &Ask<'_>) -> Result<Answer, ClientError> {
    let connect_error = |source| ClientError::Connect {
        to: target.name(),
        source,
    };
    match target {
        Target::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(connect_error)?;
            speak(target, "localhost", stream, ask).await
        }
        Target::Tcp(address) | Target::Inside(_, address) => {
            let stream = connect(target).await.map_err(connect_error)?;
            speak(target, &address.to_string(), stream, ask).await
        }
    }
}

async fn speak(
    target: &Target,
    host: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ask: &Ask<'_>,
) -> Result<Answer, ClientError> {
    let broken = |why: String| ClientError::Exchange {
        to: target.name(),
        why,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let mut request = Request::builder().method(ask.method).uri(ask.path);
    if !ask
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request = request.header(header::HOST, host);
    }
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(ask.body.clone()))
        .map_err(|error| broken(error.to_string()))?;
    // The connection ends with the answer; driving it here keeps the function free of background tasks.
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, hyper::Error>((status, response.into_body()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    let mut open = true;
    // A server that closes behind its answer ends the connection in the very poll that brings the answer, so the end of
    // the connection is no verdict: the answer's own future has one.
    let (status, body) = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.map_err(|error| broken(error.to_string()))?,
            _ = &mut connection, if open => open = false,
        }
    };
    let collect = Limited::new(body, ANSWER_MAX).collect();
    tokio::pin!(collect);
    loop {
        tokio::select! {
            body = &mut collect => {
                let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
                return Ok(Answer { status, body });
            }
            _ = &mut connection, if open => open = false,
        }
    }
}

/// The control plane's API. One value per mesh; each call is a connection.
#[derive(Debug, Clone)]
pub struct ControlClient {
    target: Target,
}

impl ControlClient {
    /// For the socket of a state directory.
    pub fn new(socket: &Path) -> Self {
        Self {
            target: Target::Unix(socket.to_owned()),
        }
    }

    /// Sends a request; an answer of 400 and above is an error with its text.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes> + Send,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let request = Ask {
            method,
            path,
            body: body.into(),
            timeout,
            ..Ask::default()
        };
        let answer = ask(&self.target, &request).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(ClientError::Status {
            to: "the control plane".to_owned(),
            status: answer.status,
            text: error_text(&answer.body),
            body: answer.body,
        })
    }

    /// [`ControlClient::call`] with JSON both ways.
    pub async fn json(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, ClientError> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let answer = self.call(method, path, body, Duration::from_secs(10)).await?;
        if answer.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|source| ClientError::Json {
            to: "the control plane".to_owned(),
            source,
        })
    }

    /// Whether it serves, or would if it were told which workloads run.
    pub async fn takes_workloads(&self) -> bool {
        match self
            .call("GET", "/ready", Bytes::new(), Duration::from_secs(2))
            .await
        {
            Ok(_) => true,
            Err(ClientError::Status { body, .. }) => serde_json::from_slice::<serde_json::Value>(&body)
                .is_ok_and(|answer| answer["pending"] == serde_json::json!(["workloads"])),
            Err(_) => false,
        }
    }
}

/// The text of an error answer: its `error` field where it is JSON, else its first lines.
fn error_text(body: &[u8]) -> String {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body)
        && let Some(text) = value.get("error").and_then(serde_json::Value::as_str)
    {
        return text.to_owned();
    }
    let text = String::from_utf8_lossy(body);
    text.lines().take(5).collect::<Vec<_>>().join("; ")
}

/// A text as part of a query.
pub fn query_escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn an_answer_counts_though_the_server_closes_behind_it() {
        const ASKED: usize = 20;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..ASKED {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream
                    .write_all(b"HTTP/1.0 404 File not found\r\ncontent-length: 2\r\n\r\nno")
                    .unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for _ in 0..ASKED {
            let answer = runtime
                .block_on(ask(&Target::Tcp(address), &Ask::default()))
                .unwrap();
            assert_eq!(
                (answer.status, &answer.body[..]),
                (StatusCode::NOT_FOUND, &b"no"[..])
            );
        }
        server.join().unwrap();
    }
}
