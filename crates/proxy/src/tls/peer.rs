//! What a peer's certificate says about it.

use std::io;

use rajut_identity::{certificate::Facts, pki_types::CertificateDer};
use rajut_types::Text;

use crate::connection::PeerIdentity;

/// Reads a certificate that the TLS library has already verified.
pub fn identity(certificate: &CertificateDer<'_>, own_uri: &Text) -> io::Result<PeerIdentity> {
    let facts =
        Facts::parse(certificate).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(PeerIdentity {
        uris: facts.uris.iter().map(|uri| uri.as_str().into()).collect(),
        dns_names: facts.dns.iter().map(|dns| dns.as_str().into()).collect(),
        subject: facts.subject.as_str().into(),
        sha256: facts.sha256.as_str().into(),
        serial: facts.serial.as_str().into(),
        own_uri: own_uri.clone(),
    })
}
