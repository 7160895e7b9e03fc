//! How a connection to a peer process is made, as a value that can be passed to a gRPC channel: the channel's owner
//! (`xds`, `identity`) knows nothing of addresses and certificates, the connector's maker knows nothing of gRPC.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Any byte stream.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// A byte stream whose type nobody needs to know.
pub type BoxedTransport = Box<dyn Transport>;

type Connecting<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Makes connections; cloned freely, called once for each connection.
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn() -> Connecting<BoxedTransport> + Send + Sync>);

impl Connector {
    /// A connector that calls `connect` for each connection.
    pub fn new<F, T>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: Transport,
    {
        Self(Arc::new(move || {
            let connecting = connect();
            Box::pin(async move {
                let stream: BoxedTransport = Box::new(connecting.await?);
                Ok(stream)
            })
        }))
    }

    /// Makes one connection.
    pub async fn connect(&self) -> io::Result<BoxedTransport> {
        (self.0)().await
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<BoxedTransport>;
    type Error = io::Error;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connecting = (self.0)();
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}
