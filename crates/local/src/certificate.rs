//! What a sidecar's admin port says of its certificate, in Envoy's `/certs` form.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use crate::client::{Ask, Target, ask};

/// A certificate that a sidecar uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The SPIFFE identity in it.
    pub identity: String,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
}

/// Asks an admin port for the workload's certificate; `None` when it has none or does not answer.
pub async fn workload_certificate(admin: SocketAddr) -> Option<Certificate> {
    let request = Ask {
        path: "/certs",
        timeout: Duration::from_secs(2),
        ..Ask::default()
    };
    let answer = ask(&Target::Tcp(admin), &request).await.ok()?;
    certificate(&serde_json::from_slice(&answer.body).ok()?)
}

/// The workload certificate among what `/certs` lists.
pub fn certificate(certs: &Value) -> Option<Certificate> {
    let field = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    certs
        .get("certificates")?
        .as_array()?
        .iter()
        .filter_map(|entry| entry.get("cert_chain")?.as_array()?.first())
        .find_map(|leaf| {
            let identity = leaf
                .get("subject_alt_names")?
                .as_array()?
                .iter()
                .filter_map(|name| name.get("uri")?.as_str())
                .find(|uri| uri.starts_with("spiffe://"))?;
            Some(Certificate {
                identity: identity.to_owned(),
                not_before: field(leaf, "valid_from"),
                not_after: field(leaf, "expiration_time"),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workloads_certificate_is_the_one_with_a_spiffe_identity() {
        let certs = serde_json::json!({"certificates": [
            {"ca_cert": [{"path": "x"}], "cert_chain": []},
            {"cert_chain": [{"subject_alt_names": [{"uri": "spiffe://td/ns/a/sa/b"}],
                "valid_from": "2026-01-01T00:00:00Z", "expiration_time": "2026-01-02T00:00:00Z"}]},
        ]});
        let found = certificate(&certs).expect("there is one");
        assert_eq!(found.identity, "spiffe://td/ns/a/sa/b");
        assert_eq!(found.not_after, "2026-01-02T00:00:00Z");
        assert_eq!(certificate(&serde_json::json!({})), None);
    }
}
