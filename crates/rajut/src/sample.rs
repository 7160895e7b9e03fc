//! The sample server: what the built-in example runs as each of its services.
//!
//! A small HTTP/1.1 server that answers with who it is and what it received, calls the services named in `NEXT`, and
//! passes the headers on that tie a trace together. It knows nothing of the mesh: in a network namespace it dials
//! ordinary names, without one it takes the addresses from the environment like any other program.
//!
//! | path | answer |
//! | --- | --- |
//! | `/health` | 200 while it serves, 503 once it was asked to stop |
//! | `/status/CODE` | that status |
//! | `/fail?rate=0.5&status=503&instance=NAME` | that share of requests fails, on that instance only |
//! | `/delay/MS` | after that many milliseconds, at most 60,000 |
//! | `/echo` | the request's body, as it comes |
//! | `/upload` | how many bytes the body had |
//! | `/bytes/N` | N bytes, at most 16 GiB |
//! | `/stream?chunks=N&interval=MS` | N lines, that many milliseconds apart |
//! | `/call/HOST:PORT/PATH` | what that service answers |
//! | anything else | its name, version, instance, the request, and the answers of the services in `NEXT` |
//!
//! Every answer says in its head who gives it: `x-sample-service`, `x-sample-version`, `x-sample-instance`.
//!
//! Bounds: at most [`CALL_BODY_MAX`] bytes of an answer are embedded, [`ECHO_TEXT_MAX`] bytes of a request's body, a
//! call takes at most [`CALL_TIMEOUT`]. It does no TLS and no HTTP/2: that is the sidecars' work.

mod answer;
mod call;

use std::{cell::Cell, collections::BTreeMap, convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::Context;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rajut_platform::socket::{ListenOptions, TcpListener, listen};
use tokio::sync::watch;

/// Of an embedded answer, in bytes.
const CALL_BODY_MAX: usize = 256 * 1024;
/// Of a request's body that is shown, in bytes.
const ECHO_TEXT_MAX: usize = 16 * 1024;
/// For one call of another service.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may go on after the order to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Who the server is and whom it calls, all from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    service: String,
    version: String,
    instance: String,
    /// `host:port`, at most 32.
    next: Vec<String>,
    /// Ports to listen on, at least one.
    ports: Vec<u16>,
}

impl Settings {
    fn from_env(env: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let text = |name: &str, default: &str| env.get(name).cloned().unwrap_or_else(|| default.to_owned());
        let service = text("SERVICE_NAME", "sample");
        let mut ports = Vec::new();
        for (name, value) in env {
            if name.starts_with("RAJUT_APP_PORT_") || name == "PORT" {
                let port = value
                    .parse()
                    .with_context(|| format!("{name}={value} is not a port"))?;
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
        if ports.is_empty() {
            ports.push(8080);
        }
        Ok(Self {
            version: text("SERVICE_VERSION", "v1"),
            instance: text("RAJUT_WORKLOAD", &service),
            service,
            next: text("NEXT", "")
                .split([',', ' '])
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .take(32)
                .collect(),
            ports,
        })
    }
}

/// What all connections of the process share.
struct Server {
    settings: Settings,
    caller: call::Caller,
    /// Requests to `/fail` so far, so that a rate is exact and not a matter of luck.
    fail_count: Cell<u64>,
    stopping: watch::Receiver<bool>,
}

/// Serves until the process is told to stop (SIGTERM or SIGINT), then lets open requests finish.
pub(crate) fn run(env: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let settings = Settings::from_env(env)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(settings, env.clone()))
}

async fn serve(settings: Settings, env: BTreeMap<String, String>) -> anyhow::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let listeners = settings
        .ports
        .iter()
        .map(|port| {
            let address = SocketAddr::from(([0, 0, 0, 0], *port));
            let listener = listen(address, &ListenOptions::default())
                .with_context(|| format!("can't listen on port {port}"))?;
            Ok(TcpListener::from_std(listener)?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let server = Rc::new(Server {
        settings,
        caller: call::Caller::new(env),
        fail_count: Cell::new(0),
        stopping,
    });
    let (open, mut all_closed) = tokio::sync::mpsc::channel::<Infallible>(1);
    for listener in listeners {
        tokio::task::spawn_local(accept(Rc::clone(&server), listener, open.clone()));
    }
    drop(open);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    // The receivers live in the connections; none left is fine.
    let _ = stop.send(true);
    // Every connection holds a sender: `None` means that the last one has ended.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all_closed.recv()).await;
    Ok(())
}

async fn accept(server: Rc<Server>, listener: TcpListener, open: tokio::sync::mpsc::Sender<Infallible>) {
    let mut stopping = server.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::task::spawn_local(connection(Rc::clone(&server), TokioIo::new(stream), open.clone()));
            }
            // Out of descriptors, most likely: the queue is still there in a moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(
    server: Rc<Server>,
    stream: TokioIo<rajut_platform::socket::TcpStream>,
    open: tokio::sync::mpsc::Sender<Infallible>,
) {
    let mut stopping = server.stopping.clone();
    let service = {
        let server = Rc::clone(&server);
        service_fn(move |request| answer::answer(Rc::clone(&server), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .serve_connection(stream, service);
    tokio::pin!(connection);
    tokio::select! {
        // A connection that breaks is the client's affair.
        _ = connection.as_mut() => {}
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(open);
}

#[cfg(test)]
mod tests;
