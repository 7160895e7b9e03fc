//! Istio's certificate signing service over the issuer.

use std::{sync::Arc, time::Duration};

use rajut_proto::ca::{CertificateService, IstioCertificateRequest, IstioCertificateResponse};
use rajut_types::Principal;
use tonic::{Request, Response, Status};

use super::{CertificateAuthority, IssueError};
use crate::accept::PeerInfo;

/// Answers `CreateCertificate`.
#[derive(Debug)]
pub struct CertificateAuthorityService(Arc<CertificateAuthority>);

impl CertificateAuthorityService {
    /// Over the issuer.
    pub fn new(authority: Arc<CertificateAuthority>) -> Self {
        Self(authority)
    }

    /// Who asks, and the workload that the token names.
    fn authenticate(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<(Principal, String), Status> {
        // The current certificate speaks louder: a token file may be long expired when a certificate is renewed.
        let peer = request.extensions().get::<PeerInfo>();
        if let Some(principal) = peer.and_then(|peer| peer.principal.clone()) {
            return Ok((principal, String::new()));
        }
        let bearer = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("neither a mesh certificate nor a join token"))?;
        let authority = &self.0;
        authority
            .tokens()
            .check(bearer, authority.trust_domain(), authority.clock.wall())
            .map(|(principal, claims)| (principal, claims.workload))
            .map_err(|refused| Status::unauthenticated(refused.to_string()))
    }
}

#[tonic::async_trait]
impl CertificateService for CertificateAuthorityService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let (principal, workload) = self.authenticate(&request).inspect_err(|status| {
            tracing::warn!(reason = status.message(), "certificate request refused");
        })?;
        let IstioCertificateRequest {
            csr,
            validity_duration,
            metadata: _,
        } = request.into_inner();
        let wished = u64::try_from(validity_duration).ok().map(Duration::from_secs);
        let cert_chain = self
            .0
            .sign(&csr, &principal, &workload, wished)
            .map_err(|error| match error {
                IssueError::Barred(_) => {
                    tracing::warn!(%principal, "certificate request of a revoked identity refused");
                    Status::permission_denied(error.to_string())
                }
                IssueError::TooLong | IssueError::Request(_) => Status::invalid_argument(error.to_string()),
                IssueError::Signing(_) | IssueError::Random | IssueError::Record(_) => {
                    tracing::error!(%error, "certificate not issued");
                    Status::internal(error.to_string())
                }
            })?;
        tracing::info!(%principal, workload, "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
