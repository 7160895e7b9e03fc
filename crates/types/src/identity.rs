//! Who a workload is: trust domain and SPIFFE principal.

use std::{fmt, str::FromStr};

use crate::Text;

/// The root of trust that an identity belongs to, e.g. `cluster.local`.
///
/// Source: SPIFFE ID specification §2.1; Istio `MeshConfig.trustDomain` (default `cluster.local`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct TrustDomain(Text);

impl TrustDomain {
    /// A trust domain by name; `@` becomes `.` as in Istio.
    pub fn new(name: &str) -> Self {
        Self(name.replace('@', ".").into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self::new("cluster.local")
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// Source: Istio secure naming; the text form without the scheme is what `AuthorizationPolicy` calls a principal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    trust_domain: TrustDomain,
    namespace: Text,
    service_account: Text,
}

/// Why a text is not a mesh principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct InvalidPrincipal(pub String);

impl Principal {
    /// The principal of a service account.
    pub fn new(trust_domain: &TrustDomain, namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The URI form, as it stands in certificates.
    pub fn spiffe_id(&self) -> String {
        format!("spiffe://{self}")
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        let rest = text.strip_prefix("spiffe://").unwrap_or(text);
        match rest.split('/').collect::<Vec<_>>()[..] {
            [domain, "ns", namespace, "sa", account]
                if !domain.is_empty() && !namespace.is_empty() && !account.is_empty() =>
            {
                Ok(Self::new(&TrustDomain::new(domain), namespace, account))
            }
            _ => Err(InvalidPrincipal(text.to_owned())),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Principal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.spiffe_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_survives_its_text_form() {
        let who: Principal = "spiffe://td/ns/a/sa/b".parse().expect("valid");
        assert_eq!(who.spiffe_id(), "spiffe://td/ns/a/sa/b");
        assert_eq!(who.to_string().parse::<Principal>(), Ok(who));
    }

    #[test]
    fn foreign_spiffe_ids_are_not_principals() {
        for bad in [
            "spiffe://td",
            "spiffe://td/ns/a",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "",
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }
}
