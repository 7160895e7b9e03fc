//! The hop on hyper's http1 server and client.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::SendRequest,
    header::{self, HeaderName},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Pool;

/// An idle connection's handle.
pub(crate) type Upstream = SendRequest<Incoming>;

/// A client's connection until it ends.
pub(crate) async fn connection(stream: TcpStream, pool: Rc<Pool<Upstream>>) {
    let service = service_fn(move |request| exchange(request, Rc::clone(&pool)));
    let served = http1::Builder::new()
        // Ours passes the upstream's date on and adds none.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    // An error ends the connection, as it does on our codec.
    let _ = served.await;
}

/// One request and its answer.
async fn exchange(
    mut request: Request<Incoming>,
    pool: Rc<Pool<Upstream>>,
) -> anyhow::Result<Response<Returning>> {
    strip(request.headers_mut());
    let mut upstream = ready(&pool).await?;
    let mut response = upstream.send_request(request).await?;
    strip(response.headers_mut());
    Ok(response.map(|inner| Returning {
        inner,
        upstream: Some(upstream),
        pool,
    }))
}

async fn ready(pool: &Pool<Upstream>) -> anyhow::Result<Upstream> {
    while let Some(mut upstream) = pool.take() {
        if upstream.is_ready() || upstream.ready().await.is_ok() {
            return Ok(upstream);
        }
    }
    let stream = pool.dial().await?;
    let (upstream, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        let _ = driver.await;
    });
    Ok(upstream)
}

/// Takes out what is between two neighbours only.
fn strip(fields: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    let named: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in &named {
        fields.remove(name);
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        fields.remove(name);
    }
}

/// A response's body that gives its connection back at its end.
pub(crate) struct Returning {
    inner: Incoming,
    upstream: Option<Upstream>,
    pool: Rc<Pool<Upstream>>,
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        // A body that was not read to its end leaves its connection unusable.
        if self.inner.is_end_stream()
            && let Some(upstream) = self.upstream.take()
        {
            self.pool.put(upstream);
        }
    }
}
