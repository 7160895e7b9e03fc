//! The workload's own identity, and the channel on which every worker sees the newest one.
//!
//! A new identity never drops a connection: it is used for the next handshakes, while open connections go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rajut_types::Principal;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::sync::{Notify, watch};

use crate::{
    certificate::{Facts, InvalidCertificate},
    tls::mesh_provider,
    trust::{InvalidBundle, TrustBundle, pem},
    verify::leads_to,
};

/// A private key. `Debug` says nothing about it.
pub struct Key(PrivateKeyDer<'static>);

impl Key {
    /// Wraps DER.
    pub fn new(der: PrivateKeyDer<'static>) -> Self {
        Self(der)
    }

    /// From PEM: PKCS#8, SEC1 or PKCS#1.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidIdentity> {
        PrivateKeyDer::from_pem_slice(text)
            .map(Self)
            .map_err(|_| InvalidIdentity::Key)
    }

    /// The key itself, for a TLS library or for SDS to an Envoy on this machine; never log it.
    pub fn secret_der(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }

    /// As [`Key::secret_der`], in PEM.
    pub fn secret_pem(&self) -> String {
        let label = match &self.0 {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        pem(label, self.0.secret_der())
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        Self(self.0.clone_key())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Who this process is, at one generation. Immutable.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name in the certificate.
    pub principal: Principal,
    /// What is presented: leaf first, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: Key,
    /// Whom to believe.
    pub roots: TrustBundle,
    /// From when.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Serial number of the leaf, hexadecimal.
    pub serial: String,
    /// Rises by one with each certificate of this process.
    pub generation: u64,
    certified: Arc<CertifiedKey>,
}

/// The first root of a bundle is the one that certificates are issued under now; the others are trusted beside it, while a
/// mesh goes from one root to another.
fn issuing_root(bundle: &TrustBundle) -> Option<TrustBundle> {
    let first = bundle.certificates().first()?;
    TrustBundle::new([first.clone()]).ok()
}

/// Why key, chain and roots are no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// The chain is empty.
    #[error("no certificate in the chain")]
    Empty,
    /// The leaf is not a mesh certificate.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// The roots can't be used.
    #[error(transparent)]
    Roots(#[from] InvalidBundle),
    /// The key can't be used with the leaf.
    #[error("the key can't be read, or is not the certificate's")]
    Key,
}

impl Identity {
    /// Checks that the parts belong together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Key,
        roots: TrustBundle,
        generation: u64,
    ) -> Result<Self, InvalidIdentity> {
        let facts = Facts::parse(chain.first().ok_or(InvalidIdentity::Empty)?)?;
        let certified = certified_key(&mesh_provider(), chain.clone(), &key)?;
        Ok(Self {
            principal: facts.principal()?,
            chain,
            key,
            roots,
            not_before: facts.not_before,
            not_after: facts.not_after,
            serial: facts.serial,
            generation,
            certified,
        })
    }

    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    /// Chain and key as rustls wants them.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The same certificate, believing others.
    #[must_use]
    pub fn trusting(&self, roots: TrustBundle) -> Self {
        Self {
            roots,
            generation: self.generation + 1,
            ..self.clone()
        }
    }

    /// Whether the own certificate was issued under one of these roots. Its end is not looked at.
    pub fn is_under(&self, roots: &TrustBundle) -> bool {
        let chain = self.chain.split_first();
        chain.is_some_and(|(leaf, rest)| leads_to(leaf, rest, roots))
    }

    /// Whether it was issued under the root that this bundle says certificates are issued under.
    pub fn is_current(&self, bundle: &TrustBundle) -> bool {
        issuing_root(bundle).is_none_or(|root| self.is_under(&root))
    }

    /// Whether others will go on to believe the certificate: it is current, and not revoked.
    pub fn is_good_by(&self, bundle: &TrustBundle) -> bool {
        self.is_current(bundle) && !bundle.revokes(&self.serial)
    }

    /// Whether it does all that the mesh's newest trust asks for: believe these roots, and be issued under their first.
    pub fn follows(&self, bundle: &TrustBundle) -> bool {
        self.roots == *bundle && self.is_current(bundle)
    }

    /// How much life is left at `now`.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

/// Loads a key for a chain and checks that they match.
pub(crate) fn certified_key(
    provider: &CryptoProvider,
    chain: Vec<CertificateDer<'static>>,
    key: &Key,
) -> Result<Arc<CertifiedKey>, InvalidIdentity> {
    CertifiedKey::from_der(chain, key.0.clone_key(), provider)
        .map(Arc::new)
        .map_err(|_| InvalidIdentity::Key)
}

/// The newest identity, for all who need it. Cloned freely.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    newest: watch::Receiver<Option<Arc<Identity>>>,
    attempts: Arc<Attempts>,
    wishes: Arc<Wishes>,
}

/// What the owner of the identity is asked for by those who use it.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// The roots that the control plane told last.
    pub(crate) trust: watch::Sender<Option<TrustBundle>>,
    /// The certificate is no longer believed by the issuer itself.
    pub(crate) renew: Notify,
}

/// How often a certificate was asked for.
#[derive(Debug, Default)]
pub struct Attempts {
    received: AtomicU64,
    failed: AtomicU64,
}

impl Attempts {
    pub(crate) fn count(&self, received: bool) {
        let counter = if received { &self.received } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Certificates that came.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Attempts without one.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl IdentityStore {
    /// A store and its writer.
    pub fn channel() -> (watch::Sender<Option<Arc<Identity>>>, Self) {
        let (sender, receiver) = watch::channel(None);
        let store = Self {
            newest: receiver,
            attempts: Arc::default(),
            wishes: Arc::default(),
        };
        (sender, store)
    }

    /// A store that always holds this one.
    pub fn fixed(identity: Identity) -> Self {
        let (sender, store) = Self::channel();
        sender.send_replace(Some(Arc::new(identity)));
        store
    }

    /// The newest, once there is one.
    pub fn current(&self) -> Option<Arc<Identity>> {
        self.newest.borrow().clone()
    }

    /// What became of the attempts to get one, the first one included.
    pub fn attempts(&self) -> &Arc<Attempts> {
        &self.attempts
    }

    /// The control plane has told whom to believe from now on. There will be a newer identity with these roots, at once with
    /// the certificate that there is, and soon with one that [follows](Identity::follows) them.
    pub fn set_trust(&self, bundle: TrustBundle) {
        self.wishes.trust.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(&bundle);
            *known = Some(bundle);
            is_news
        });
    }

    /// The certificate is no longer believed by the issuer: another is to be asked for, without waiting for its time.
    pub fn ask_for_another(&self) {
        self.wishes.renew.notify_one();
    }

    pub(crate) fn wishes(&self) -> &Arc<Wishes> {
        &self.wishes
    }

    /// Waits for the first; `None` where its writer is gone without having written one.
    pub async fn first(&self) -> Option<Arc<Identity>> {
        let mut receiver = self.newest.clone();
        let found = receiver.wait_for(Option::is_some).await;
        found.ok().and_then(|identity| identity.clone())
    }

    /// Waits for one newer than `generation`; `None` where there will be none.
    pub async fn newer_than(&self, generation: u64) -> Option<Arc<Identity>> {
        let mut receiver = self.newest.clone();
        let newer = |identity: &Option<Arc<Identity>>| {
            identity
                .as_ref()
                .is_some_and(|identity| identity.generation > generation)
        };
        let found = receiver.wait_for(newer).await;
        found.ok().and_then(|identity| identity.clone())
    }
}
