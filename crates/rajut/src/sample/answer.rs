//! What the sample server answers: the table of paths in [`super`], row by row.

use std::{convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Map, Value, json};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{ECHO_TEXT_MAX, Server, call};

/// A body of any of the answers.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// Answers one request; never fails as a service.
pub(super) async fn answer(
    server: Rc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut segments = path.trim_start_matches('/').splitn(3, '/');
    let first = segments.next().unwrap_or_default();
    let second = segments.next();
    let response = match (first, second) {
        ("health" | "healthz" | "ready", None) => health(&server),
        ("status", Some(code)) => status(&server, code),
        ("fail", None) => fail(&server, request.uri().query().unwrap_or_default()),
        ("delay", Some(milliseconds)) => delay(&server, &request, milliseconds).await,
        ("echo", None) => echo(request),
        ("upload", None) => upload(&server, request).await,
        ("bytes", Some(count)) => bytes(count),
        ("stream", None) => stream(&server, request.uri().query().unwrap_or_default()),
        ("call", Some(to)) => {
            let path = format!("/{}", segments.next().unwrap_or_default());
            call_one(&server, &request, to, &path).await
        }
        _ => describe(&server, request).await,
    };
    Ok(signed(&server, response))
}

/// Says who answers in the head too, for clients that don't look into bodies.
fn signed(server: &Server, mut response: Response<Body>) -> Response<Body> {
    let settings = &server.settings;
    for (name, value) in [
        ("x-sample-service", &settings.service),
        ("x-sample-version", &settings.version),
        ("x-sample-instance", &settings.instance),
    ] {
        // A name with a line's end in it is left out.
        if let Ok(value) = header::HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn identity(server: &Server) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("service".into(), json!(server.settings.service));
    fields.insert("version".into(), json!(server.settings.version));
    fields.insert("instance".into(), json!(server.settings.instance));
    fields
}

fn json_response(status: StatusCode, fields: Map<String, Value>) -> Response<Body> {
    let mut text = Value::Object(fields).to_string();
    text.push('\n');
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn refused(server: &Server, why: &str) -> Response<Body> {
    let mut fields = identity(server);
    fields.insert("error".into(), json!(why));
    json_response(StatusCode::BAD_REQUEST, fields)
}

fn health(server: &Server) -> Response<Body> {
    if *server.stopping.borrow() {
        let mut response = Response::new(full("stopping\n"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    Response::new(full("ok\n"))
}

fn status(server: &Server, code: &str) -> Response<Body> {
    match code.parse::<u16>().ok().filter(|code| (200..600).contains(code)) {
        Some(code) => match StatusCode::from_u16(code) {
            Ok(code) => json_response(code, identity(server)),
            Err(_) => refused(server, "not a status"),
        },
        None => refused(server, "a status from 200 to 599 is expected"),
    }
}

/// The value of a parameter in a query; nothing here needs percent-decoding.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Whether request number `count` (from 0) fails, so that of every 1,000 in a row exactly `permille` do, spread out.
pub(super) fn fails(count: u64, permille: u64) -> bool {
    (count + 1) * permille / 1000 > count * permille / 1000
}

fn fail(server: &Server, query: &str) -> Response<Body> {
    let rate: f64 = match parameter(query, "rate").unwrap_or("1").parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => rate,
        _ => return refused(server, "rate is a share from 0 to 1"),
    };
    let elsewhere = parameter(query, "instance").is_some_and(|name| name != server.settings.instance);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1000, see above"
    )]
    let permille = (rate * 1000.0).round() as u64;
    let count = server.fail_count.get();
    if elsewhere {
        return json_response(StatusCode::OK, identity(server));
    }
    server.fail_count.set(count.wrapping_add(1));
    if fails(count % 1000, permille) {
        status(server, parameter(query, "status").unwrap_or("503"))
    } else {
        json_response(StatusCode::OK, identity(server))
    }
}

async fn delay(server: &Server, request: &Request<Incoming>, milliseconds: &str) -> Response<Body> {
    match milliseconds.parse::<u64>() {
        Ok(milliseconds) if milliseconds <= 60_000 => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            let mut fields = identity(server);
            fields.insert("path".into(), json!(request.uri().path()));
            json_response(StatusCode::OK, fields)
        }
        _ => refused(server, "a delay from 0 to 60000 milliseconds is expected"),
    }
}

/// The body goes back piece by piece: what the client does not read is not read from it either.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().boxed());
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

async fn upload(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut received: u64 = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                received += frame
                    .data_ref()
                    .map_or(0, |data| u64::try_from(data.len()).unwrap_or(0));
            }
            Err(error) => return refused(server, &format!("the body ended early: {error}")),
        }
    }
    let mut fields = identity(server);
    fields.insert("bytes".into(), json!(received));
    json_response(StatusCode::OK, fields)
}

/// A body from a task that writes pieces into a queue of four, so that it is never far ahead of the reader.
fn produced<F>(produce: impl FnOnce(tokio::sync::mpsc::Sender<Bytes>) -> F) -> Body
where
    F: Future<Output = ()> + 'static,
{
    let (pieces, queue) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_local(produce(pieces));
    StreamBody::new(ReceiverStream::new(queue).map(|piece| Ok(Frame::data(piece)))).boxed()
}

fn bytes(count: &str) -> Response<Body> {
    const PIECE: u64 = 64 * 1024;
    let Some(count) = count.parse::<u64>().ok().filter(|count| *count <= 16 << 30) else {
        let mut response = Response::new(full("a count up to 17179869184 is expected\n"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let mut response = Response::new(produced(move |pieces| async move {
        let piece = Bytes::from(vec![b'r'; usize::try_from(PIECE).unwrap_or(0)]);
        let mut left = count;
        while left > 0 {
            let length = usize::try_from(left.min(PIECE)).unwrap_or(0);
            if pieces.send(piece.slice(..length)).await.is_err() {
                return;
            }
            left -= left.min(PIECE);
        }
    }));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, header::HeaderValue::from(count));
    response
}

fn stream(server: &Server, query: &str) -> Response<Body> {
    let number = |name, default: u64, most: u64| {
        parameter(query, name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
            .min(most)
    };
    let chunks = number("chunks", 10, 100_000);
    let interval = Duration::from_millis(number("interval", 100, 60_000));
    let instance = server.settings.instance.clone();
    Response::new(produced(move |pieces| async move {
        for index in 0..chunks {
            if index > 0 {
                tokio::time::sleep(interval).await;
            }
            if pieces
                .send(Bytes::from(format!("{instance} {index}\n")))
                .await
                .is_err()
            {
                return;
            }
        }
    }))
}

async fn call_one(server: &Server, request: &Request<Incoming>, to: &str, path: &str) -> Response<Body> {
    let query = request
        .uri()
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let answer = server
        .caller
        .call(
            to,
            &format!("{path}{query}"),
            &call::traced(|name| request.headers().get(name).cloned()),
        )
        .await;
    let mut fields = identity(server);
    let failed = answer.get("error").is_some();
    fields.insert("calls".into(), Value::Array(vec![answer]));
    let status = if failed {
        StatusCode::BAD_GATEWAY
    } else {
        StatusCode::OK
    };
    json_response(status, fields)
}

/// The ordinary answer. A service that `NEXT` names and that can't be reached makes it a 502, as in a real platform.
async fn describe(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut fields = identity(server);
    fields.insert("method".into(), json!(head.method.as_str()));
    fields.insert(
        "path".into(),
        json!(head.uri.path_and_query().map_or("/", |path| path.as_str())),
    );
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        headers.insert(
            name.as_str().to_owned(),
            json!(String::from_utf8_lossy(value.as_bytes())),
        );
    }
    fields.insert("headers".into(), Value::Object(headers));
    match http_body_util::Limited::new(body, ECHO_TEXT_MAX).collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            if !body.is_empty() {
                fields.insert("body".into(), json!(String::from_utf8_lossy(&body)));
            }
        }
        Err(error) => return refused(server, &format!("can't read the body (see /upload): {error}")),
    }
    let traced = call::traced(|name| head.headers.get(name).cloned());
    let mut calls = Vec::new();
    let mut failed = false;
    for next in &server.settings.next {
        let answer = server.caller.call(next, "/", &traced).await;
        failed |= answer
            .get("status")
            .and_then(Value::as_u64)
            .is_none_or(|status| status >= 500);
        calls.push(answer);
    }
    if !calls.is_empty() {
        fields.insert("calls".into(), Value::Array(calls));
    }
    let status = if failed {
        StatusCode::BAD_GATEWAY
    } else {
        StatusCode::OK
    };
    json_response(status, fields)
}
