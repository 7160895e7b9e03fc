//! Roots of trust, and what was revoked of what is under them. Bounds: [`ROOTS_MAX`] and [`LISTS_MAX`] per bundle,
//! [`LISTS_BYTES_MAX`] of lists.

use std::{collections::BTreeSet, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _},
};
use webpki::{
    CertRevocationList, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::{prelude::FromDer as _, revocation_list::CertificateRevocationList};

/// Roots in one bundle; the system's bundles hold about 150.
pub const ROOTS_MAX: usize = 1_024;

/// Revocation lists beside one bundle: one for each issuer.
pub const LISTS_MAX: usize = 64;
/// Their length, PEM: some ten thousand certificates.
pub const LISTS_BYTES_MAX: usize = 8 << 20;

/// An immutable set of roots, cloned by counting.
#[derive(Clone)]
pub struct TrustBundle {
    certificates: Arc<[CertificateDer<'static>]>,
    anchors: Arc<RootCertStore>,
    revoked: Option<Arc<Revoked>>,
}

/// Revocation lists (RFC 5280 §5).
pub struct Revoked {
    pem: String,
    leaf_only: bool,
    lists: Vec<CertRevocationList<'static>>,
    serials: BTreeSet<String>,
}

impl Revoked {
    /// From PEM; `None` where there is no list. `leaf_only`: intermediates are not looked up, as where their issuer gives no list.
    pub fn from_pem(pem: &[u8], leaf_only: bool) -> Result<Option<Arc<Self>>, InvalidBundle> {
        let wrong = |why: &dyn std::fmt::Display| InvalidBundle::Revoked(why.to_string());
        if pem.len() > LISTS_BYTES_MAX {
            return Err(wrong(&"more than 8 MiB"));
        }
        let (mut lists, mut serials) = (Vec::new(), BTreeSet::new());
        for list in CertificateRevocationListDer::pem_slice_iter(pem) {
            let der = list.map_err(|error| wrong(&error))?;
            if lists.len() == LISTS_MAX {
                return Err(wrong(&format!("more than {LISTS_MAX} lists")));
            }
            let owned = OwnedCertRevocationList::from_der(&der).map_err(|error| wrong(&error))?;
            lists.push(CertRevocationList::Owned(owned));
            let (_, list) = CertificateRevocationList::from_der(&der).map_err(|error| wrong(&error))?;
            let revoked = list.iter_revoked_certificates();
            serials.extend(revoked.map(|one| format!("{:x}", one.user_certificate)));
        }
        Ok((!lists.is_empty()).then(|| {
            Arc::new(Self {
                pem: String::from_utf8_lossy(pem).into_owned(),
                leaf_only,
                lists,
                serials,
            })
        }))
    }

    /// As it was given.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The serial numbers, lower-case hexadecimal without separators.
    pub fn serials(&self) -> &BTreeSet<String> {
        &self.serials
    }

    /// Judges a chain by the lists. Who is on none is not revoked, and a list is good until there is a newer one: they are pushed,
    /// and a mesh without a control plane goes on.
    pub(crate) fn judge<T>(&self, chain: impl FnOnce(Option<RevocationOptions<'_>>) -> T) -> T {
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let depth = if self.leaf_only {
            RevocationCheckDepth::EndEntity
        } else {
            RevocationCheckDepth::Chain
        };
        // There is at least one list.
        let options = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(depth)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .build()
        });
        chain(options)
    }
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
    /// A revocation list can't be used.
    #[error("the revocation lists can't be read: {0}")]
    Revoked(String),
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
            revoked: None,
        })
    }

    /// The roots of both, and the lists of whichever has some.
    pub fn with(&self, others: &Self) -> Result<Self, InvalidBundle> {
        let both = Self::new(self.certificates.iter().chain(&*others.certificates).cloned())?;
        Ok(both.with_revoked(self.revoked.clone().or_else(|| others.revoked.clone())))
    }

    /// The same roots, and these lists.
    #[must_use]
    pub fn with_revoked(self, revoked: Option<Arc<Revoked>>) -> Self {
        Self { revoked, ..self }
    }

    /// The revocation lists.
    pub fn revoked(&self) -> Option<&Arc<Revoked>> {
        self.revoked.as_ref()
    }

    /// Whether a certificate of this serial number is on a list.
    pub fn revokes(&self, serial: &str) -> bool {
        let revoked = self.revoked.as_ref();
        revoked.is_some_and(|revoked| revoked.serials.contains(serial))
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
        let lists = |bundle: &Self| {
            let revoked = bundle.revoked.as_ref();
            revoked.map(|revoked| (revoked.pem.clone(), revoked.leaf_only))
        };
        self.certificates == other.certificates && lists(self) == lists(other)
    }
}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let revoked = self.revoked.as_ref().map_or(0, |revoked| revoked.serials.len());
        write!(
            f,
            "TrustBundle({} roots, {revoked} revoked)",
            self.certificates.len()
        )
    }
}

impl std::fmt::Debug for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Revoked({})", self.serials.len())
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
