//! The gRPC health check of a probe: one unary call of `grpc.health.v1.Health/Check`, spelled out, since its two
//! messages have one field each.

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rajut_config::model::{Probe, ProbeCheck};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::{Target, connect};

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;
/// The answer is a handful of bytes.
const ANSWER_MAX: usize = 4096;

/// Asks once; the error continues "gRPC health on :PORT …".
pub(crate) async fn check(target: &Target, probe: &Probe) -> Result<(), String> {
    let ProbeCheck::Grpc { service, .. } = &probe.check else {
        return Err("is not what this probe asks".to_owned());
    };
    let question = async {
        let stream = connect(target)
            .await
            .map_err(|error| format!("can't connect ({error})"))?;
        ask(stream, service).await
    };
    tokio::time::timeout(probe.timeout, question)
        .await
        .unwrap_or_else(|_| Err("gave no answer in time".to_owned()))
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: &str,
) -> Result<(), String> {
    let broken = |error: hyper::Error| format!("did not speak HTTP/2: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(broken)?;
    let request = Request::post("http://localhost/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(question(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| format!("broke off: {error}"))?;
        let status = status.or_else(|| {
            body.trailers()
                .and_then(|trailers| trailers.get("grpc-status").cloned())
        });
        match status.as_ref().and_then(|status| status.to_str().ok()) {
            Some("0") => verdict(&body.to_bytes()),
            Some(code) => Err(format!("answered with status {code}")),
            None => Err("answered without a status".to_owned()),
        }
    };
    tokio::select! {
        verdict = exchange => verdict,
        ended = connection => Err(format!("closed the connection: {ended:?}")),
    }
}

/// `HealthCheckRequest { service = 1 }` in gRPC's framing.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    // Names of more than 127 bytes would need a longer length; Kubernetes names have at most 63.
    let length = u8::try_from(service.len()).unwrap_or(0).min(127);
    if length > 0 {
        message.put_u8(0x0a);
        message.put_u8(length);
        message.put_slice(&service.as_bytes()[..usize::from(length)]);
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(0));
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse { status = 1 }` in gRPC's framing.
fn verdict(body: &[u8]) -> Result<(), String> {
    match body {
        [0, _, _, _, _, 0x08, SERVING, ..] => Ok(()),
        _ => Err("says that it is not serving".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_as_grpc_has_them() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(verdict(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(verdict(&[0, 0, 0, 0, 0]).is_err());
    }
}
