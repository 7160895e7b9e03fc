//! Istio's certificate signing service, `istio.v1.auth.IstioCertificateService`: messages, client and server.
//!
//! Written by hand after the published interface, since no package carries it. The client is generic over any tonic
//! channel; the server wraps one implementation of [`CertificateService`].

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::codegen::{Body, BoxFuture, Service, StdError, async_trait, http};
use tonic_prost::ProstCodec;

use crate::google::protobuf::Struct;

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// PEM-encoded certificate request.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wished-for life in seconds; the issuer decides.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// What else the signer may want to know.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM-encoded certificates, leaf first, root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// The service's full name.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// The path of its one method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Asks for certificates.
#[derive(Debug, Clone)]
pub struct CertificateClient<T> {
    grpc: tonic::client::Grpc<T>,
}

impl<T> CertificateClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// Over that channel.
    pub fn new(channel: T) -> Self {
        Self {
            grpc: tonic::client::Grpc::new(channel),
        }
    }

    /// Has a certificate request signed.
    pub async fn create_certificate(
        &mut self,
        request: impl tonic::IntoRequest<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status> {
        self.grpc.ready().await.map_err(|error| {
            tonic::Status::unavailable(format!("the signing service is not ready: {}", error.into()))
        })?;
        self.grpc
            .unary(
                request.into_request(),
                http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE),
                ProstCodec::default(),
            )
            .await
    }
}

/// Signs certificate requests.
#[async_trait]
pub trait CertificateService: Send + Sync + 'static {
    /// Signs one; the caller's identity is in the request's extensions and metadata.
    async fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status>;
}

/// Serves a [`CertificateService`]; add it to a tonic router.
#[derive(Debug)]
pub struct CertificateServer<T> {
    service: Arc<T>,
}

impl<T> CertificateServer<T> {
    /// Serves `service`.
    pub fn new(service: T) -> Self {
        Self::from_arc(Arc::new(service))
    }

    /// Serves a shared `service`.
    pub fn from_arc(service: Arc<T>) -> Self {
        Self { service }
    }
}

impl<T> Clone for CertificateServer<T> {
    fn clone(&self) -> Self {
        Self::from_arc(Arc::clone(&self.service))
    }
}

impl<T> tonic::server::NamedService for CertificateServer<T> {
    const NAME: &'static str = SERVICE_NAME;
}

struct Create<T>(Arc<T>);

impl<T: CertificateService> tonic::server::UnaryService<IstioCertificateRequest> for Create<T> {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<tonic::Response<Self::Response>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<IstioCertificateRequest>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.create_certificate(request).await })
    }
}

impl<T, B> Service<http::Request<B>> for CertificateServer<T>
where
    T: CertificateService,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = Arc::clone(&self.service);
        Box::pin(async move {
            if request.uri().path() == CREATE_CERTIFICATE {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
                Ok(grpc.unary(Create(service), request).await)
            } else {
                Ok(
                    tonic::Status::unimplemented("this service has one method, CreateCertificate")
                        .into_http(),
                )
            }
        })
    }
}

#[cfg(test)]
mod tests;
