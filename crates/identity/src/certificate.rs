//! What a certificate says about itself. Parsing only: whether to believe it is [`crate::verify`]'s affair.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rajut_types::Principal;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

/// The names and the validity of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// DNS subject alternative names.
    pub dns: Vec<String>,
    /// IP subject alternative names.
    pub ips: Vec<IpAddr>,
    /// From when.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Serial number, lower-case hexadecimal without separators.
    pub serial: String,
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// It may sign others.
    pub is_ca: bool,
    /// The DER of the subject public key info.
    pub public_key: Vec<u8>,
    /// SHA-256 of the whole certificate, lower-case hexadecimal: `Hash=` of `x-forwarded-client-cert`.
    pub sha256: String,
}

/// A certificate that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// Not DER of X.509, or with bytes behind it.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// The SPIFFE rules ask for exactly one URI name; this has another number.
    #[error("{0} URI names where a mesh identity has exactly one")]
    UriNames(usize),
    /// The one URI name is not a mesh principal.
    #[error(transparent)]
    Principal(#[from] rajut_types::InvalidPrincipal),
}

impl Facts {
    /// Reads a certificate.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let malformed = |why: &dyn std::fmt::Display| InvalidCertificate::Malformed(why.to_string());
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"bytes follow the certificate"));
        }
        let mut facts = Self {
            uris: Vec::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
            serial: format!("{:x}", certificate.tbs_certificate.serial),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            is_ca: certificate.is_ca(),
            public_key: certificate.public_key().raw.to_vec(),
            sha256: sha256_hex(der),
        };
        for extension in certificate.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                facts.take_names(&names.general_names);
            }
        }
        Ok(facts)
    }

    /// The mesh principal: there is exactly one URI name and it is one.
    pub fn principal(&self) -> Result<Principal, InvalidCertificate> {
        match &self.uris[..] {
            [uri] if uri.starts_with("spiffe://") => Ok(uri.parse()?),
            [uri] => Err(rajut_types::InvalidPrincipal(uri.clone()).into()),
            uris => Err(InvalidCertificate::UriNames(uris.len())),
        }
    }

    fn take_names(&mut self, names: &[GeneralName<'_>]) {
        for name in names {
            match name {
                GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let ip = <[u8; 4]>::try_from(*bytes)
                        .map(IpAddr::from)
                        .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    self.ips.extend(ip);
                }
                _ => {}
            }
        }
    }
}

/// The digest as lower-case hexadecimal.
fn sha256_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// Seconds since 1970 as a time; before 1970 counts as 1970.
fn time(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
