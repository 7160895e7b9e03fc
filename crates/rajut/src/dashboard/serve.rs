//! The console's HTTP: who may ask, for what, and with which headers it is answered.
//!
//! In this order: the `Host` is ours (421), the method is known (405), an asset, a session (401), its role (403), the answer. Every
//! answer says that nothing of it is kept, framed, sniffed or loaded from elsewhere ([`HEADERS`]).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Body, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rajut_platform::socket::TcpListener;
use rajut_runtime::Clock;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    assets,
    auth::{Door, Role},
    source::{Question, Source},
};

/// Connections at once; more wait.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a request's body: a token.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 10;
/// For a request's head, and for a connection on which none comes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// On every answer.
pub(crate) const HEADERS: [(&str, &str); 8] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

pub(crate) type Answer = Response<Full<Bytes>>;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) door: Mutex<Door>,
    pub(crate) source: Source,
    pub(crate) clock: Clock,
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, console: Console) {
    let console = Arc::new(console);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let console = Arc::clone(&console);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let console = Arc::clone(&console);
                async move { Ok::<_, Infallible>(answer(&console, request).await) }
            });
            // How a connection ends is the browser's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

/// Answers one request; never without [`HEADERS`].
pub(crate) async fn answer<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    console: &Console,
    request: Request<B>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let mut answer = route(console, &parts, body).await;
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn route<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    console: &Console,
    parts: &Parts,
    body: B,
) -> Answer {
    let told = |name: header::HeaderName| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if !console.door().is_own_host(told(header::HOST)) {
        return refusal(StatusCode::MISDIRECTED_REQUEST, "this name is not the console's");
    }
    let cookies = told(header::COOKIE);
    let path = parts.uri.path();
    match (&parts.method, path) {
        (&Method::POST, "/session" | "/session/end") => {
            // A browser always says where a page that posts comes from.
            let origin = told(header::ORIGIN);
            if !origin.is_empty() && !console.door().is_own_origin(origin) {
                return refusal(StatusCode::FORBIDDEN, "another site's page may not do this");
            }
            if path == "/session/end" {
                let forget = console.door().close(cookies);
                return with_cookie(json_answer(StatusCode::OK, &json!({})), &forget);
            }
            open(console, body).await
        }
        (&Method::GET | &Method::HEAD, _) => {
            if let Some((_, kind, bytes)) = assets::find(path) {
                return with_type(StatusCode::OK, kind, Bytes::from_static(bytes));
            }
            let Some(role) = console.door().session(cookies, console.clock.now()) else {
                return refusal(StatusCode::UNAUTHORIZED, "no session");
            };
            read(console, role, path, parts.uri.query().unwrap_or_default()).await
        }
        _ => {
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "the console only reads");
            answer
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            answer
        }
    }
}

/// `{"token": "…"}` for a session.
async fn open<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    console: &Console,
    body: B,
) -> Answer {
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect());
    let body = match whole.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refusal(StatusCode::PAYLOAD_TOO_LARGE, "a token is short"),
        Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the token did not come"),
    };
    let told: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let token = told.get("token").and_then(Value::as_str).unwrap_or_default();
    match console.door().open(token, console.clock.now()) {
        Ok(Some((role, cookie))) => with_cookie(
            json_answer(StatusCode::OK, &json!({"role": role.name()})),
            &cookie,
        ),
        Ok(None) => refusal(StatusCode::UNAUTHORIZED, "no such token"),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn read(console: &Console, role: Role, path: &str, query: &str) -> Answer {
    if path == "/api/session" {
        return json_answer(StatusCode::OK, &json!({"role": role.name()}));
    }
    let question = match Question::parse(path, query) {
        Ok(Some(question)) => question,
        Ok(None) => return refusal(StatusCode::NOT_FOUND, "there is no such page"),
        Err(why) => return refusal(StatusCode::BAD_REQUEST, &why),
    };
    if question.needs_auditor() && role != Role::Auditor {
        return refusal(StatusCode::FORBIDDEN, "this needs the auditor's token");
    }
    match console.source.answer(&question, &console.clock).await {
        Ok(body) => with_type(StatusCode::OK, "application/json", body),
        Err(error) => refusal(error.status(), &error.to_string()),
    }
}

impl Console {
    fn door(&self) -> std::sync::MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    json_answer(status, &json!({"error": why}))
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    with_type(status, "application/json", Bytes::from(body.to_string()))
}

fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn with_cookie(mut answer: Answer, cookie: &str) -> Answer {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}
