//! What is believed no longer: certificates by their serial numbers, and identities that are given no new one. Kept in
//! `revoked.json`; told to everybody as revocation lists (RFC 5280 §5), one for each issuer whose certificates are about.
//!
//! Bound: [`CERTIFICATES_MAX`] certificates; those that have ended are forgotten, since nobody believes them anyway.

use std::{collections::BTreeMap, path::Path};

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use super::{
    KeystoreError,
    keystore::{self, Material},
};

/// Certificates on the lists.
pub const CERTIFICATES_MAX: usize = 10_000;
/// The file.
const FILE: &str = "revoked.json";

/// Why something is revoked. Source: RFC 5280 §5.3.1, those that a mesh has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Not said.
    #[default]
    Unspecified,
    /// Somebody else may hold the key.
    KeyCompromise,
    /// Another has taken its place.
    Superseded,
    /// The workload is no more.
    CessationOfOperation,
    /// It may not do any more what it did.
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokedCertificate {
    /// Whose it is.
    pub principal: String,
    /// Why.
    pub reason: Reason,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// When it ends by itself, seconds since 1970.
    pub not_after: u64,
}

/// One identity that is given no certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Barred {
    /// Why.
    pub reason: Reason,
    /// Since when, seconds since 1970.
    pub since: u64,
}

/// Everything that is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Serial number, lower-case hexadecimal → the certificate.
    pub certificates: BTreeMap<String, RevokedCertificate>,
    /// SPIFFE id → since when it is barred.
    pub identities: BTreeMap<String, Barred>,
}

impl Revocations {
    pub(super) fn read(folder: &Path) -> Result<Self, KeystoreError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = keystore::read(&path)?;
        serde_json::from_str(&text)
            .map_err(|error| KeystoreError::Material(format!("`{}`: {error}", path.display())))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), KeystoreError> {
        let json =
            serde_json::to_vec_pretty(self).map_err(|error| KeystoreError::Material(error.to_string()))?;
        keystore::write(&folder.join(FILE), &json, 0o600)
    }

    /// Without the certificates that have ended.
    pub(super) fn prune(&mut self, now: u64) {
        self.certificates.retain(|_, one| one.not_after > now);
    }

    /// One list for each of the issuers, PEM; empty where no certificate is revoked. A library that looks for the list of an issuer
    /// must find it, also where nothing of that issuer is on it: so all are on all of them.
    pub(super) fn lists<'a>(
        &self,
        issuers: impl Iterator<Item = &'a Material>,
    ) -> Result<String, KeystoreError> {
        let Some(newest) = self.certificates.values().map(|one| one.since).max() else {
            return Ok(String::new());
        };
        let at = |seconds| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let revoked = |(serial, one): (&String, &RevokedCertificate)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&bytes(serial)),
            revocation_time: at(one.since).into(),
            reason_code: Some(one.reason.into()),
            invalidity_date: None,
        };
        let mut text = String::new();
        for material in issuers {
            let list = CertificateRevocationListParams {
                this_update: at(newest).into(),
                // Lists are pushed; one that had an end would end a mesh whose control plane is away.
                next_update: material.facts.not_after.into(),
                crl_number: SerialNumber::from(newest),
                issuing_distribution_point: None,
                revoked_certs: self.certificates.iter().map(revoked).collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            text.push_str(&list.signed_by(&material.issuer)?.pem()?);
        }
        Ok(text)
    }
}

/// The bytes of a serial number as [`Facts`](rajut_identity::certificate::Facts) writes it.
fn bytes(serial: &str) -> Vec<u8> {
    let digit = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let padded = if serial.len().is_multiple_of(2) {
        serial.to_owned()
    } else {
        format!("0{serial}")
    };
    let pairs = padded.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| digit(pair[0]).unwrap_or(0) << 4 | digit(pair[1]).unwrap_or(0))
        .collect()
}
