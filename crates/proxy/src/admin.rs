//! The admin port: what an operator, a probe and a scraper ask a running proxy. Paths and forms are Envoy's, so that
//! tools which know Envoy (and `rajut` itself, on both data planes) read it.
//!
//! | path | answers |
//! | --- | --- |
//! | `/ready` | `LIVE` (200), or 503 and what is missing |
//! | `/server_info` | version, state, uptime, node |
//! | `/stats`, `/stats/prometheus` | counters |
//! | `/clusters` (`?format=json`) | endpoints with health, counters, ejection |
//! | `/config_dump` (`?resource=`) | what the proxy runs on; secrets are redacted |
//! | `/listeners`, `/certs` | bound addresses; certificates with their ages |
//! | `POST /logging?level=…` | changes the log filter |
//! | `POST /drain_listeners`, `POST /quitquitquit` | drains; drains and ends |
//!
//! Bounds: [`CONNECTIONS_MAX`] connections; requests have no body. It runs on the main thread, so that a slow reader
//! never holds up a worker. It listens on loopback unless the bootstrap says otherwise: it has no authentication.

mod config_dump;

use std::{
    cell::RefCell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rajut_identity::IdentityStore;
use rajut_platform::socket::TcpListener;
use rajut_runtime::{Clock, clock::rfc3339, logging, readiness::Readiness};
use tokio::sync::{Semaphore, watch};

pub use config_dump::{Dump, DumpEntry};

use crate::{
    cluster::status,
    epoch::Config,
    listener::stats::ListenerCounters,
    stats::{Exposition, Registry, Row, plain_text, vitals},
    workers::Workers,
};

/// Scrapers, probes and a few people.
pub const CONNECTIONS_MAX: usize = 64;

/// What the admin port reads.
#[derive(Debug)]
pub struct Admin {
    /// Node id of the bootstrap.
    pub node: String,
    /// What is still missing before the proxy may take traffic.
    pub readiness: Readiness,
    /// The configuration that the workers run on.
    pub config: watch::Receiver<Arc<Config>>,
    /// The threads.
    pub workers: Rc<Workers>,
    /// Resources as they were received.
    pub dump: Rc<RefCell<Dump>>,
    /// Counters that outlive configurations.
    pub registry: Arc<Registry>,
    /// The own certificate, once there is one.
    pub identity: watch::Receiver<Option<IdentityStore>>,
    /// When what the proxy runs on was given, where that was before this process: there was no control plane.
    pub last_known: watch::Receiver<Option<SystemTime>>,
    /// The time.
    pub clock: Clock,
    /// Turned true to drain.
    pub drain: watch::Sender<bool>,
    /// Turned true to end.
    pub quit: watch::Sender<bool>,
    /// When the process started.
    pub started: Instant,
}

/// Serves the admin port until the process ends.
pub async fn serve(listener: TcpListener, admin: Rc<Admin>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, client)) = listener.accept().await else {
            continue;
        };
        let admin = admin.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let response = admin.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%client, %error, "admin connection ended");
            }
            drop(permit);
        });
    }
}

const HELP: &str = "\
/ready  /server_info  /stats  /stats/prometheus  /clusters[?format=json]  /config_dump[?resource=NAME]
/listeners  /certs
POST /logging?level=LEVEL  POST /drain_listeners  POST /quitquitquit
";

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let query = request.uri().query().unwrap_or_default();
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, path) => {
                let accept = request.headers().get(http::header::ACCEPT);
                let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
                self.read(path, query, Exposition::asked(accept))
            }
            (&Method::POST, path) => self.change(path, query),
            _ => text(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET to read and POST to change\n",
            ),
        }
    }

    fn read(&self, path: &str, query: &str, form: Exposition) -> Response<Full<Bytes>> {
        let config = self.config.borrow().clone();
        match path {
            "/" | "/help" => text(StatusCode::OK, HELP),
            "/ready" | "/healthz/ready" => self.ready(),
            "/server_info" => json(&self.server_info()),
            "/stats" if parameter(query, "format") == Some("prometheus") => self.prometheus(&config, form),
            "/stats" => text(StatusCode::OK, plain_text(&self.rows(&config))),
            "/stats/prometheus" | "/metrics" => self.prometheus(&config, form),
            "/clusters" if parameter(query, "format") == Some("json") => {
                json(&status::clusters_json(&config))
            }
            "/clusters" => text(StatusCode::OK, status::clusters_text(&config)),
            "/config_dump" => json(&self.dump.borrow().to_json(parameter(query, "resource"))),
            "/listeners" => json(&listeners(&config)),
            "/certs" => json(&self.certificates()),
            "/logging" => text(
                StatusCode::OK,
                format!("{}\n", logging::filter().unwrap_or_default()),
            ),
            _ => text(
                StatusCode::NOT_FOUND,
                format!("there is no {path}; there are:\n{HELP}"),
            ),
        }
    }

    fn change(&self, path: &str, query: &str) -> Response<Full<Bytes>> {
        match path {
            "/logging" => {
                let level = parameter(query, "level")
                    .or_else(|| parameter(query, "filter"))
                    .unwrap_or_default();
                match logging::set_filter(level) {
                    Ok(()) => text(StatusCode::OK, format!("{level}\n")),
                    Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
                }
            }
            "/drain_listeners" => {
                self.drain.send_replace(true);
                text(StatusCode::OK, "OK\n")
            }
            "/quitquitquit" => {
                self.quit.send_replace(true);
                text(StatusCode::OK, "OK\n")
            }
            _ => text(
                StatusCode::NOT_FOUND,
                format!("there is nothing to change at {path}; there are:\n{HELP}"),
            ),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if *self.drain.borrow() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n");
        }
        let pending = self.readiness.pending();
        if pending.is_empty() {
            match *self.last_known.borrow() {
                Some(given) => text(
                    StatusCode::OK,
                    format!(
                        "LIVE (on the last known configuration, given {})\n",
                        rfc3339(given)
                    ),
                ),
                None => text(StatusCode::OK, "LIVE\n"),
            }
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("PRE_INITIALIZING, waiting for: {}\n", pending.join(", ")),
            )
        }
    }

    fn server_info(&self) -> serde_json::Value {
        let state = match (*self.drain.borrow(), self.readiness.is_ready()) {
            (true, _) => "DRAINING",
            (false, true) => "LIVE",
            (false, false) => "PRE_INITIALIZING",
        };
        serde_json::json!({
            "version": concat!("rajut/", env!("CARGO_PKG_VERSION")),
            "state": state,
            "uptime_current_epoch": format!("{}s", self.started.elapsed().as_secs()),
            "node": { "id": self.node },
            "workers": self.workers.count(),
            "lastKnownConfiguration": self.last_known.borrow().map(rfc3339),
            "configVersion": self.config.borrow().version,
            "activeConnections": self.workers.active_connections(),
        })
    }

    fn prometheus(&self, config: &Config, form: Exposition) -> Response<Full<Bytes>> {
        let body = self.registry.exposition(&self.rows(config), form);
        respond(StatusCode::OK, form.media_type(), body)
    }

    /// All counters, those of the listeners first.
    fn rows(&self, config: &Config) -> Vec<Row> {
        let mut rows = ListenerCounters::rows(self.workers.counters());
        rows.extend(self.registry.rows(config));
        let identity = self.identity.borrow();
        let now = self.clock.now();
        rows.extend(vitals::rows(
            self.registry.control(),
            identity.as_ref(),
            now,
            self.clock.wall() - now.duration_since(self.started),
        ));
        rows
    }

    /// Envoy's form, with what an operator asks first: who, until when.
    fn certificates(&self) -> serde_json::Value {
        let identity = self.identity.borrow().as_ref().and_then(IdentityStore::current);
        let Some(identity) = identity else {
            return serde_json::json!({ "certificates": [] });
        };
        let remaining = identity.remaining(self.clock.wall());
        serde_json::json!({ "certificates": [{
            "cert_chain": [{
                "serial_number": identity.serial,
                "subject_alt_names": [{ "uri": identity.principal.spiffe_id() }],
                "valid_from": rfc3339(identity.not_before),
                "expiration_time": rfc3339(identity.not_after),
                "days_until_expiration": (remaining.as_secs() / 86_400).to_string(),
                "seconds_until_expiration": remaining.as_secs(),
            }],
            "generation": identity.generation,
        }] })
    }
}

fn listeners(config: &Config) -> serde_json::Value {
    let mut bound: Vec<_> = config
        .listeners
        .values()
        .filter_map(|listener| Some((listener.ir.name.clone(), listener.bound_address()?)))
        .collect();
    bound.sort();
    let rows: Vec<_> = bound
        .iter()
        .map(|(name, address)| {
            serde_json::json!({
                "name": &**name,
                "local_address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
            })
        })
        .collect();
    serde_json::json!({ "listener_statuses": rows })
}

/// The value of a query parameter; admin parameters need no decoding.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Binds the admin port.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let options = rajut_platform::socket::ListenOptions::default();
    TcpListener::from_std(rajut_platform::socket::listen(address, &options)?)
}
