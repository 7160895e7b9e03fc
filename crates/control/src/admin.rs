//! The operator's door: HTTP with JSON on a Unix socket. Only the user who runs the control plane may use it (file mode 0600,
//! and the peer's user id is checked, since the mode of a socket is not honoured everywhere).
//!
//! Bounds: [`CONNECTIONS_MAX`] connections, [`BODY_BYTES_MAX`] per body. The routes stand in [`route`]; each answers JSON but
//! `/metrics`. An error is `{"error": "…"}`, with `"diagnostics"` where configuration is at fault.

mod alarms;
mod answer;
mod edges;
mod identity;
mod metrics;
mod reach;
mod recording;
mod route;
mod view;

use std::{io, sync::Arc};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rajut_platform::socket::{TcpListener, UnixListener, UnixStream, peer_credentials};
use rajut_registry::Registry;
use rajut_runtime::{
    Clock,
    readiness::{Gate, Readiness},
};
use tokio::sync::Semaphore;

use crate::{
    ca::SharedAuthority, discovery::Discovery, notify::Notifier, observe::Observer, orders::Orders,
    recorder::Recorder,
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// What the routes work on.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Sources.
    pub registry: Registry,
    /// Proxies.
    pub discovery: Discovery,
    /// What the mesh does.
    pub observer: Observer,
    /// Who is told of alarms, where somebody is.
    pub notifier: Option<Notifier>,
    /// What was recorded of requests.
    pub recorder: Recorder,
    /// Issuer.
    pub authority: SharedAuthority,
    /// Whether everything has started.
    pub readiness: Readiness,
    /// For the supervisor.
    pub orders: Orders,
    /// Opened by the first list of workloads.
    pub workloads: Gate,
    /// Time.
    pub clock: Clock,
}

/// Serves for ever. `owner` is the only user id that is served.
pub async fn serve(listener: UnixListener, owner: u32, admin: Admin) {
    let admin = Arc::new(admin);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let uid = match check_owner(&stream, owner) {
            Ok(uid) => uid,
            Err(error) => {
                tracing::warn!(%error, "admin connection refused");
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request: http::Request<Incoming>| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, std::convert::Infallible>(route::route(&admin, uid, request).await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
            drop(permit);
        });
    }
}

/// Serves `/metrics` and nothing else, to whoever asks: there is no secret in it, and nothing can be changed.
pub async fn serve_metrics(listener: TcpListener, admin: Admin) {
    let admin = Arc::new(admin);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "scraper not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request: http::Request<Incoming>| {
                let answer = match (request.method(), request.uri().path()) {
                    (&http::Method::GET | &http::Method::HEAD, "/metrics") => {
                        answer::text_answer(metrics::text(&admin))
                    }
                    _ => answer::json_answer(
                        http::StatusCode::NOT_FOUND,
                        &serde_json::json!({"error": "there is /metrics here and nothing else"}),
                    ),
                };
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a scraper's connection ended");
            }
            drop(permit);
        });
    }
}

/// Whose connection it is.
fn check_owner(stream: &UnixStream, owner: u32) -> io::Result<u32> {
    let peer = peer_credentials(stream)?;
    if peer.uid == owner || peer.uid == 0 {
        return Ok(peer.uid);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("user {} is not the owner of this mesh", peer.uid),
    ))
}
