//! How the sample server calls another service: by name, or by the address that the environment gives for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rajut_local::env::service_variable;
use serde_json::{Value, json};

use super::{CALL_BODY_MAX, CALL_TIMEOUT};

/// Headers that tie the parts of one request together; an application has to pass them on, no sidecar can.
///
/// Sources: Istio's list for trace context propagation, W3C Trace Context and Baggage, B3.
const TRACE_HEADERS: [&str; 14] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
];

/// The headers to pass on, with their values.
pub(super) fn traced(
    find: impl Fn(&'static str) -> Option<header::HeaderValue>,
) -> Vec<(&'static str, header::HeaderValue)> {
    TRACE_HEADERS
        .into_iter()
        .filter_map(|name| find(name).map(|value| (name, value)))
        .collect()
}

/// A client with kept connections.
pub(super) struct Caller {
    client: Client<HttpConnector, Empty<Bytes>>,
    env: BTreeMap<String, String>,
}

impl Caller {
    pub(super) fn new(env: BTreeMap<String, String>) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            env,
        }
    }

    /// Calls `host:port` and tells what came of it: `{"to", "status", "answer"}` or `{"to", "error"}`.
    pub(super) async fn call(
        &self,
        to: &str,
        path: &str,
        headers: &[(&'static str, header::HeaderValue)],
    ) -> Value {
        match tokio::time::timeout(CALL_TIMEOUT, self.exchange(to, path, headers)).await {
            Ok(Ok((status, answer))) => json!({"to": to, "status": status, "answer": answer}),
            Ok(Err(error)) => json!({"to": to, "error": format!("{error:#}")}),
            Err(_) => json!({"to": to, "error": format!("no answer within {} s", CALL_TIMEOUT.as_secs())}),
        }
    }

    async fn exchange(
        &self,
        to: &str,
        path: &str,
        headers: &[(&'static str, header::HeaderValue)],
    ) -> anyhow::Result<(u16, Value)> {
        let uri: Uri = format!("http://{}{path}", dial_address(to, &self.env)).parse()?;
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = self.client.request(request.body(Empty::new())?).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), CALL_BODY_MAX)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .to_bytes();
        let text = String::from_utf8_lossy(&body);
        let answer = serde_json::from_str(&text).unwrap_or_else(|_| json!(text.trim_end()));
        Ok((status, answer))
    }
}

/// What to dial for `host:port`: the address in `<HOST>_PORT_<port>_TCP_ADDR` and `…_PORT`, where these are set, as
/// they are where names don't resolve; else the name itself.
pub(super) fn dial_address(to: &str, env: &BTreeMap<String, String>) -> String {
    let (host, port) = to.split_once(':').unwrap_or((to, "80"));
    let prefix = format!("{}_PORT_{port}_TCP", service_variable(host));
    match (
        env.get(&format!("{prefix}_ADDR")),
        env.get(&format!("{prefix}_PORT")),
    ) {
        (Some(address), Some(port)) => format!("{address}:{port}"),
        _ => to.to_owned(),
    }
}
