use tonic::{Code, Request, Response, Status};

use super::*;

struct Signer;

#[async_trait]
impl CertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let request = request.into_inner();
        if request.csr.is_empty() {
            return Err(Status::invalid_argument("no request"));
        }
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: vec![request.csr, request.validity_duration.to_string()],
        }))
    }
}

#[tokio::test]
async fn client_and_server_understand_each_other() {
    // A client may stand on anything that answers gRPC requests: here on the server itself.
    let mut client = CertificateClient::new(CertificateServer::new(Signer));
    let request = IstioCertificateRequest {
        csr: "csr".into(),
        validity_duration: 86_400,
        metadata: None,
    };
    let answer = client.create_certificate(request).await.expect("signed");
    assert_eq!(answer.into_inner().cert_chain, ["csr", "86400"]);
    let refused = client
        .create_certificate(IstioCertificateRequest::default())
        .await;
    assert_eq!(refused.expect_err("no CSR").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let request = http::Request::builder()
        .uri("/istio.v1.auth.IstioCertificateService/Other")
        .body(tonic::body::Body::empty())
        .expect("valid");
    let mut server = CertificateServer::new(Signer);
    let answer = server.call(request).await.unwrap_or_else(|never| match never {});
    assert_eq!(answer.headers()["grpc-status"], "12");
}
