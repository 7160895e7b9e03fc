//! How the proxy (or the agent) comes by its identity: from the command line to an [`IdentityStore`] that stays fresh.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use rajut_identity::{
    Identity, IdentityStore, TrustBundle,
    enrol::{EnrolOptions, Issuer, Token, spawn_rotation},
};
use rajut_runtime::Clock;

/// Where a workload's certificate comes from.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// `host:port` of the issuer, which is also the control plane's discovery service.
    pub address: String,
    /// The name that the issuer's certificate must be valid for.
    pub server_name: String,
    /// A PEM file with the roots that the issuer's certificate must chain to.
    pub roots: PathBuf,
    /// A file with the token that proves who asks.
    pub token: PathBuf,
    /// Life that is asked for.
    pub ttl: Duration,
}

impl Enrolment {
    /// The issuer as the identity library wants it.
    pub fn issuer(&self) -> anyhow::Result<Issuer> {
        let shown = self.roots.display();
        let pem = std::fs::read(&self.roots).with_context(|| format!("the roots {shown}"))?;
        let roots = TrustBundle::from_pem(&pem).with_context(|| format!("the roots {shown}"))?;
        Ok(Issuer {
            address: self.address.clone(),
            server_name: self.server_name.clone(),
            roots,
            roots_file: Some(self.roots.clone()),
        })
    }
}

/// Enrols and keeps the certificate fresh; the first comes when the issuer answers.
pub fn start(enrolment: &Enrolment, clock: &Clock) -> anyhow::Result<IdentityStore> {
    let options = EnrolOptions {
        issuer: enrolment.issuer()?,
        token: Token::File(enrolment.token.clone()),
        ttl: enrolment.ttl,
    };
    Ok(spawn_rotation(options, clock.clone()))
}

/// The first certificate, however long it takes.
pub async fn first(store: &IdentityStore) -> anyhow::Result<Arc<Identity>> {
    store
        .first()
        .await
        .context("the task that renews the certificate has ended")
}
