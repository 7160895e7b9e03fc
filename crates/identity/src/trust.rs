//! Roots of trust. Bound: [`ROOTS_MAX`] per bundle.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Roots in one bundle; the system's bundles hold about 150.
pub const ROOTS_MAX: usize = 1_024;

/// An immutable set of roots, cloned by counting.
#[derive(Clone)]
pub struct TrustBundle {
    certificates: Arc<[CertificateDer<'static>]>,
    anchors: Arc<RootCertStore>,
}

/// Why a bundle can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// No certificate in it.
    #[error("no certificate found in the trust bundle")]
    Empty,
    /// Not PEM, or not a certificate.
    #[error("the trust bundle can't be read: {0}")]
    Malformed(String),
    /// More than [`ROOTS_MAX`].
    #[error("more than {ROOTS_MAX} roots in one bundle")]
    TooMany,
}

impl TrustBundle {
    /// From DER; duplicates are dropped.
    pub fn new(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidBundle> {
        let mut unique: Vec<CertificateDer<'static>> = Vec::new();
        for certificate in certificates {
            if !unique.contains(&certificate) {
                unique.push(certificate);
            }
            if unique.len() > ROOTS_MAX {
                return Err(InvalidBundle::TooMany);
            }
        }
        if unique.is_empty() {
            return Err(InvalidBundle::Empty);
        }
        let mut anchors = RootCertStore::empty();
        for certificate in &unique {
            anchors
                .add(certificate.clone())
                .map_err(|error| InvalidBundle::Malformed(error.to_string()))?;
        }
        Ok(Self {
            certificates: unique.into(),
            anchors: Arc::new(anchors),
        })
    }

    /// The roots of both.
    pub fn with(&self, others: &Self) -> Result<Self, InvalidBundle> {
        Self::new(self.certificates.iter().chain(&*others.certificates).cloned())
    }

    /// From PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidBundle> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| InvalidBundle::Malformed(error.to_string()))?;
        Self::new(certificates)
    }

    /// The roots.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The roots as PEM.
    pub fn to_pem(&self) -> String {
        self.certificates
            .iter()
            .map(|der| pem("CERTIFICATE", der))
            .collect()
    }

    /// The roots as rustls wants them.
    pub fn anchors(&self) -> &Arc<RootCertStore> {
        &self.anchors
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustBundle({} roots)", self.certificates.len())
    }
}

/// DER as a PEM block (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes make a line of 64 characters.
    for line in der.chunks(48) {
        text.push_str(&base64(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// RFC 4648 §4, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position <= group.len() {
                let index = usize::try_from(bits >> (18 - 6 * position) & 63).unwrap_or(0);
                text.push(char::from(ALPHABET[index]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_written_here_is_read_back() {
        for length in 1..200_u8 {
            let der: Vec<u8> = (0..length).collect();
            let read = CertificateDer::from_pem_slice(pem("CERTIFICATE", &der).as_bytes());
            assert_eq!(read.expect("valid PEM").as_ref(), der);
        }
    }

    #[test]
    fn an_empty_bundle_is_refused() {
        assert_eq!(TrustBundle::from_pem(b"# nothing"), Err(InvalidBundle::Empty));
    }
}
