//! The secrets of one epoch, and the TLS configurations that are built from them.
//!
//! A new certificate or trust bundle gives new configurations and so a new epoch; handshakes that are under way and open
//! connections keep what they began with.

use std::{collections::BTreeMap, sync::Arc};

use rajut_identity::{
    Identity,
    context::{self, TlsContextError},
};
use rajut_ir::{
    secret::Secret,
    tls::{DownstreamTls, UpstreamTls},
};
use rajut_types::{Text, TrustDomain};

use super::{originate::Originator, terminate::Terminator};

/// Own identity and named secrets.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    identity: Option<Arc<Identity>>,
    named: BTreeMap<Text, Arc<Secret>>,
    trust_domains: Vec<TrustDomain>,
    generation: u64,
}

impl Secrets {
    /// With the secrets of the bootstrap file.
    pub fn new(named: impl IntoIterator<Item = Arc<Secret>>) -> Self {
        let named = named
            .into_iter()
            .map(|secret| (secret.name.clone(), secret))
            .collect();
        Self {
            named,
            ..Self::default()
        }
    }

    /// Rises with every change; what was built before is built again.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The own certificate, and whom to believe.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Whether there is an own certificate.
    pub fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// A new own certificate, or newer roots.
    pub fn set_identity(&mut self, identity: Option<Arc<Identity>>) {
        self.identity = identity;
        self.generation += 1;
    }

    /// What is read from files is to be read again.
    pub fn renew(&mut self) {
        self.generation += 1;
    }

    /// A secret that SDS delivered.
    pub fn set_named(&mut self, secret: Arc<Secret>) {
        self.named.insert(secret.name.clone(), secret);
        self.generation += 1;
    }

    /// The TLS of a filter chain.
    pub fn terminator(&self, tls: &DownstreamTls) -> Result<Terminator, TlsContextError> {
        let config = context::server_config(tls, self.view())?;
        Ok(Terminator::new(config, self.own_uri()))
    }

    /// The TLS towards an upstream.
    pub fn originator(&self, tls: &UpstreamTls) -> Result<Arc<Originator>, TlsContextError> {
        let config = context::client_config(tls, self.view())?;
        let sni = (!tls.sni.is_empty()).then_some(&*tls.sni);
        let verifies_mesh = tls.common.validation.as_ref().is_some_and(|validation| {
            validation.sds.as_deref() == Some(context::MESH_ROOTS) && !validation.context.accept_untrusted
        });
        let originator = Originator::new(config, sni, tls.auto_sni)
            .verifying_mesh(verifies_mesh)
            .showing(self.own_uri());
        Ok(Arc::new(originator))
    }

    /// The own identity as a URI; empty where there is none.
    fn own_uri(&self) -> Text {
        self.identity
            .as_ref()
            .map(|identity| identity.principal.spiffe_id().into())
            .unwrap_or_default()
    }

    fn view(&self) -> context::Secrets<'_> {
        context::Secrets {
            identity: self.identity.as_deref(),
            named: &self.named,
            trust_domains: &self.trust_domains,
        }
    }
}
