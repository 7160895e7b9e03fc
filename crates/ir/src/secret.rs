//! Secrets as SDS carries them.

use rajut_types::Text;

use crate::tls::{TlsCertificate, ValidationContext};

/// A named secret. Source: Envoy `tls.v3.Secret`.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// Its name, e.g. `default` or `ROOTCA`.
    pub name: Text,
    /// What it holds.
    pub value: SecretValue,
}

/// What a secret holds.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretValue {
    /// Certificate and key.
    Certificate(TlsCertificate),
    /// Roots and accepted names.
    Validation(ValidationContext),
}
