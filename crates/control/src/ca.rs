//! The issuer: signs workloads' certificate requests, with the identity of the *caller* and never what the request says.
//!
//! Who the caller is comes from one of two proofs: a join token that this control plane signed ([`token`]), or the
//! caller's current, still valid mesh certificate. Root and key live in the state folder in Istio's `cacerts` layout, so
//! that an existing intermediate can be put there ([`keystore`]). Every certificate is on record ([`record`]). The mesh can go
//! to another root while it runs ([`rotation`]).
//!
//! Refuses: requests without a proof or with a foreign, expired or malformed one, requests that are not signed by their
//! key, identities that are barred. Degrades: a life longer than the limit is cut to it. What is believed no longer stands in
//! [`revoked`].

mod keystore;
mod record;
pub mod revoked;
pub mod rotation;
pub mod token;
mod wire;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rajut_identity::{Identity, Key, TrustBundle, certificate::Facts, pki_types::PrivateKeyDer};
use rajut_runtime::Clock;
use rajut_types::{Principal, Text, TrustDomain};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};

use keystore::Keystore;
pub use keystore::KeystoreError;
pub(crate) use keystore::secret_bytes;
pub use record::Issued;
use revoked::{Barred, Reason, Revocations, RevokedCertificate};
use rotation::{Rotation, Step};
use tokio::sync::watch;
pub use wire::CertificateAuthorityService;

/// How much earlier than now a certificate begins, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_mins(2);
/// The longest request that is read, in bytes.
const CSR_BYTES_MAX: usize = 64 << 10;
/// The name under which the control plane is reached, in its certificate.
pub const SERVER_NAME: &str = "rajut-control";

/// The issuer.
#[derive(Debug)]
pub struct CertificateAuthority {
    /// What is issued with and who is believed; who waits hears of a change.
    keystore: watch::Sender<Arc<Keystore>>,
    /// Held while a change is written down: one at a time.
    changing: Mutex<()>,
    tokens: token::TokenKey,
    record: record::Record,
    trust_domain: TrustDomain,
    ttl: Duration,
    clock: Clock,
}

/// What the issuer was at one moment.
#[derive(Debug, Clone)]
pub struct Version(Arc<Keystore>);

/// Why a certificate is not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is longer than it may be.
    #[error("the certificate request is longer than {CSR_BYTES_MAX} bytes")]
    TooLong,
    /// Not a request, or not signed by its own key.
    #[error("the certificate request can't be used: {0}")]
    Request(String),
    /// The operator has revoked the identity.
    #[error("{0} is revoked: the operator lets it have no certificate")]
    Barred(String),
    /// Signing failed.
    #[error("the certificate could not be signed")]
    Signing(#[from] rcgen::Error),
    /// No randomness.
    #[error("no random serial number")]
    Random,
    /// The record can't be written: nothing is issued that is not on record.
    #[error("the record of issued certificates can't be written")]
    Record(#[from] std::io::Error),
}

/// Why the mesh does not go to another root, or not further.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// One at a time.
    #[error("the mesh is on its way to another root already")]
    UnderWay,
    /// Nothing to go on with.
    #[error("the mesh is not on its way to another root")]
    None,
    /// A file.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

/// Who is believed no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// One certificate: lower-case hexadecimal without separators.
    Serial(String),
    /// A SPIFFE id.
    Identity(String),
}

/// Why nothing is revoked or reinstated.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Not issued here, or ended.
    #[error("there is no certificate with the serial number {0} on record that has not ended")]
    Unknown(String),
    /// It may have certificates as it is.
    #[error("{0} is not revoked")]
    NotBarred(String),
    /// The lists would be too long.
    #[error(
        "more than {} certificates would be revoked at once; go to another root instead",
        revoked::CERTIFICATES_MAX
    )]
    TooMany,
    /// A file.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

impl CertificateAuthority {
    /// Opens the issuer in `folder`, making root and keys at the first time.
    pub fn open(
        folder: &Path,
        trust_domain: TrustDomain,
        ttl: Duration,
        clock: Clock,
    ) -> Result<Self, KeystoreError> {
        let keystore = Keystore::open(folder, &trust_domain, &clock)?;
        let tokens = token::TokenKey::new(secret_bytes(&folder.join("token.key"))?);
        let record = record::Record::open(&folder.join("issued.jsonl"), clock.wall())?;
        Ok(Self {
            keystore: watch::Sender::new(Arc::new(keystore)),
            changing: Mutex::default(),
            tokens,
            record,
            trust_domain,
            ttl,
            clock,
        })
    }

    /// The roots that every member of the mesh trusts; the first is the one that certificates are issued under.
    pub fn roots(&self) -> TrustBundle {
        self.keystore().roots.clone()
    }

    /// What everybody is told: roots and revocation lists, PEM.
    pub fn told(&self) -> (Text, Text) {
        let keystore = self.keystore();
        (keystore.roots.to_pem().into(), keystore.crl.clone())
    }

    /// What is believed no longer.
    pub fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.keystore().revoked)
    }

    /// Believes a certificate no longer, or an identity with all its certificates, which is given no other either. Gives the serial
    /// numbers.
    pub fn revoke(&self, whom: &Whom, reason: Reason) -> Result<Vec<String>, RevocationError> {
        let now = unix_seconds(self.clock.wall());
        let mut serials = Vec::new();
        self.change(|keystore| {
            let mut revoked = Revocations::clone(&keystore.revoked);
            revoked.prune(now);
            let known = self.record.list().into_iter().filter(|one| one.not_after > now);
            let meant = |one: &Issued| match whom {
                Whom::Serial(serial) => one.serial == *serial,
                Whom::Identity(identity) => one.principal == *identity,
            };
            for one in known.filter(meant) {
                let certificate = RevokedCertificate {
                    principal: one.principal,
                    reason,
                    since: now,
                    not_after: one.not_after,
                };
                revoked
                    .certificates
                    .entry(one.serial.clone())
                    .or_insert(certificate);
                serials.push(one.serial);
            }
            match whom {
                Whom::Serial(serial) if serials.is_empty() => {
                    return Err(RevocationError::Unknown(serial.clone()));
                }
                Whom::Serial(_) => {}
                Whom::Identity(identity) => {
                    let barred = Barred { reason, since: now };
                    revoked.identities.entry(identity.clone()).or_insert(barred);
                }
            }
            if revoked.certificates.len() > revoked::CERTIFICATES_MAX {
                return Err(RevocationError::TooMany);
            }
            Ok(keystore.revoke(&revoked)?)
        })?;
        Ok(serials)
    }

    /// Lets an identity have certificates again. Those that were revoked stay so.
    pub fn reinstate(&self, identity: &str) -> Result<(), RevocationError> {
        self.change(|keystore| {
            let mut revoked = Revocations::clone(&keystore.revoked);
            if revoked.identities.remove(identity).is_none() {
                return Err(RevocationError::NotBarred(identity.to_owned()));
            }
            Ok(keystore.revoke(&revoked)?)
        })
    }

    /// What the issuing certificate says.
    pub fn issuing(&self) -> Facts {
        self.keystore().active.facts.clone()
    }

    /// When what certificates are issued under ends: the issuing certificate or the root above it. Seconds since 1970.
    pub fn root_ends(&self) -> u64 {
        let keystore = self.keystore();
        let root = keystore.active.roots.certificates().first();
        let root = root.and_then(|root| Facts::parse(root).ok());
        let ends = root.map_or(keystore.active.facts.not_after, |root| {
            root.not_after.min(keystore.active.facts.not_after)
        });
        unix_seconds(ends)
    }

    /// The change to another root that is under way.
    pub fn rotation(&self) -> Option<Rotation> {
        self.keystore().rotation.clone()
    }

    /// Waits until whom the mesh believes, or what certificates are issued with, is not what it was at `seen`.
    pub async fn changed(&self, seen: &Version) {
        // The sender is `self`'s own, so the wait can't fail.
        let _ = self
            .keystore
            .subscribe()
            .wait_for(|now| !Arc::ptr_eq(now, &seen.0))
            .await;
    }

    /// For [`Self::changed`].
    pub fn version(&self) -> Version {
        Version(self.keystore())
    }

    /// Begins to go to another root: to one that is made now, or to the issuer in `given`.
    pub fn begin_rotation(&self, given: Option<&Path>, hold: Option<Step>) -> Result<(), RotationError> {
        self.change(|keystore| {
            if keystore.rotation.is_some() {
                return Err(RotationError::UnderWay);
            }
            Ok(keystore.begin(given, &self.trust_domain, &self.clock, hold)?)
        })
    }

    /// Changes what the operator wants of the change that is under way.
    pub fn steer_rotation(&self, hold: Option<Step>, without_away: bool) -> Result<(), RotationError> {
        self.change(|keystore| {
            let known = keystore.rotation.clone().ok_or(RotationError::None)?;
            let steered = Rotation {
                hold,
                without_away: known.without_away || without_away,
                ..known
            };
            Ok(keystore.turn(steered)?)
        })
    }

    /// Goes on to the step after `done`, or ends the change; nothing where it is not at that step any more.
    pub fn advance_rotation(&self, done: Step) -> Result<(), RotationError> {
        self.change(|keystore| {
            let known = keystore.rotation.clone().ok_or(RotationError::None)?;
            if known.step != done {
                return Err(RotationError::UnderWay);
            }
            Ok(match done.next() {
                Some(step) => keystore.turn(Rotation {
                    step,
                    since: unix_seconds(self.clock.wall()),
                    ..known
                })?,
                None => keystore.finish()?,
            })
        })
    }

    fn change<E>(&self, change: impl FnOnce(&Keystore) -> Result<Keystore, E>) -> Result<(), E> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&self.keystore())?;
        self.keystore.send_replace(Arc::new(changed));
        Ok(())
    }

    fn keystore(&self) -> Arc<Keystore> {
        Arc::clone(&self.keystore.borrow())
    }

    /// The trust domain of what is issued.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The signer of join tokens.
    pub fn tokens(&self) -> &token::TokenKey {
        &self.tokens
    }

    /// Certificates on record that are still valid or were issued by this process, oldest first.
    pub fn issued(&self) -> Vec<Issued> {
        self.record.list()
    }

    /// How many certificates this process has issued.
    pub fn issued_total(&self) -> u64 {
        self.record.total()
    }

    /// Signs a request for `principal`. The answer is PEM, leaf first, root last.
    pub fn sign(
        &self,
        csr_pem: &str,
        principal: &Principal,
        workload: &str,
        wished: Option<Duration>,
    ) -> Result<Vec<String>, IssueError> {
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(IssueError::TooLong);
        }
        // Parsing checks the request's own signature: whoever asks holds the key.
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| IssueError::Request(error.to_string()))?;
        let ttl = wished
            .filter(|wished| !wished.is_zero())
            .map_or(self.ttl, |wished| wished.min(self.ttl));
        if self
            .keystore()
            .revoked
            .identities
            .contains_key(&principal.spiffe_id())
        {
            return Err(IssueError::Barred(principal.spiffe_id()));
        }
        let names = vec![uri(principal)?];
        // One for all of it: the leaf, what is above it, and whom to believe belong together.
        let keystore = self.keystore();
        let leaf = self.issue(&keystore, &request.public_key, principal, workload, names, ttl)?;
        let mut chain = vec![leaf.pem()];
        chain.extend(keystore.chain_pem());
        Ok(chain)
    }

    /// The control plane's own certificate, for its port: a mesh identity that also carries the names it is dialled by,
    /// `address` among them (proxyless gRPC dials the address itself and checks it).
    pub fn own_identity(&self, address: IpAddr, generation: u64) -> Result<Identity, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let principal = Principal::new(&self.trust_domain, "istio-system", "rajut-control");
        let mut names = vec![uri(&principal)?];
        for name in [SERVER_NAME, "localhost", "istiod.istio-system.svc"] {
            names.push(SanType::DnsName(name.try_into()?));
        }
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        names.extend(loopback.map(SanType::IpAddress));
        if !address.is_unspecified() && !loopback.contains(&address) {
            names.push(SanType::IpAddress(address));
        }
        let keystore = self.keystore();
        let leaf = self.issue(&keystore, &key, &principal, SERVER_NAME, names, OWN_TTL)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(keystore.active.intermediates.iter().cloned());
        let der = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|why| IssueError::Request(why.to_owned()))?;
        let bundle = keystore
            .bundle()
            .map_err(|error| IssueError::Request(error.to_string()))?;
        Identity::new(chain, Key::new(der), bundle, generation)
            .map_err(|error| IssueError::Request(error.to_string()))
    }

    fn issue(
        &self,
        keystore: &Keystore,
        public_key: &impl PublicKeyData,
        principal: &Principal,
        workload: &str,
        names: Vec<SanType>,
        ttl: Duration,
    ) -> Result<rcgen::Certificate, IssueError> {
        let now = self.clock.wall();
        let mut serial = [0_u8; 16];
        SystemRandom::new()
            .fill(&mut serial)
            .map_err(|_| IssueError::Random)?;
        // Positive and never empty (RFC 5280 §4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // SPIFFE X509-SVID §4: the name is in the URI; an empty subject would make it critical, which some clients refuse.
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, self.trust_domain.as_str());
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATE).into();
        // Nobody would believe it for longer.
        params.not_after = (now + ttl).min(keystore.active.facts.not_after).into();
        let leaf = params.signed_by(public_key, &keystore.active.issuer)?;
        let facts = Facts::parse(leaf.der()).map_err(|error| IssueError::Request(error.to_string()))?;
        self.record.add(Issued {
            serial: facts.serial,
            principal: principal.spiffe_id(),
            workload: workload.to_owned(),
            not_before: unix_seconds(facts.not_before),
            not_after: unix_seconds(facts.not_after),
        })?;
        Ok(leaf)
    }
}

/// Life of the control plane's own certificate.
const OWN_TTL: Duration = Duration::from_hours(24);

fn uri(principal: &Principal) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(principal.spiffe_id().try_into()?))
}

/// Whole seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Shared by the services.
pub type SharedAuthority = Arc<CertificateAuthority>;

#[cfg(test)]
mod tests;
