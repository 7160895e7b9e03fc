//! Root, issuing certificate and key on disk, in the layout of Istio's `cacerts` secret: `ca-cert.pem`, `ca-key.pem`,
//! `cert-chain.pem`, `root-cert.pem`. What is missing altogether is made: a P-256 root for ten years. Keys are written
//! with mode 0600, and a key file that others may read is refused.
//!
//! While the mesh goes to another root ([`super::rotation`]) the new material stands in `next/`, in the same layout, and
//! `rotation.json` says how far it is. `root-cert.pem` always holds whom to believe now, so that whoever reads that file follows.
//!
//! ```text
//!  step      certificates are issued by   believed (root-cert.pem)
//!  –         ca-*.pem                     its root
//!  trust     ca-*.pem                     its root, the new root
//!  reissue   next/ca-*.pem                the new root, the old
//!  retire    next/ca-*.pem                the new root
//!  –         ca-*.pem (moved from next/)  its root
//! ```
//!
//! Every step is one file that is renamed into place; what follows from it is made anew at each start, so that a process
//! may be killed between any two writes.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rajut_identity::{
    Revoked, TrustBundle,
    certificate::Facts,
    pki_types::{CertificateDer, pem::PemObject as _},
    trust::{InvalidBundle, pem},
};
use rajut_runtime::Clock;
use rajut_types::{Text, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

use super::{
    revoked::Revocations,
    rotation::{Rotation, Step},
};

/// The issuing certificate, its key, what stands between it and its root, and the roots.
const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOT: &str = "root-cert.pem";
/// Those without which there is no issuer.
const FILES: [&str; 3] = [CERTIFICATE, KEY, ROOT];
/// How far a change to another root is.
const ROTATION: &str = "rotation.json";
/// The issuer that it goes to.
const NEXT: &str = "next";

/// Life of a root made here.
const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// The longest file that is read from the folder, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// One issuer: key, certificate, and what leads from it to its root. `Debug` shows no key.
pub(super) struct Material {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// What the issuing certificate says.
    pub(super) facts: Facts,
    /// The issuing certificate and those above it, without the root.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// Its own roots, the one that it is under first.
    pub(super) roots: TrustBundle,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

/// What is issued with at this moment, and who is believed.
#[derive(Debug)]
pub(super) struct Keystore {
    folder: PathBuf,
    pub(super) active: Arc<Material>,
    /// Everybody's roots; the first is the one that certificates are issued under.
    pub(super) roots: TrustBundle,
    /// The change that is under way.
    pub(super) rotation: Option<Rotation>,
    /// What is believed no longer.
    pub(super) revoked: Arc<Revocations>,
    /// The same as revocation lists, PEM; may be empty.
    pub(super) crl: Text,
}

/// Why the issuer can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// A file can't be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read a key.
    #[error("`{path}` may be read by others (mode {mode:o}); run `chmod 600 {path}`")]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Some of the files are there and others are not.
    #[error("`{0}` is missing, while other files of the issuer are there")]
    Incomplete(PathBuf),
    /// A root of one's own can't be followed by one that is made here.
    #[error(
        "the issuer here is under a root of your own, whose successor can't be made here: give the new issuer's folder (in the \
         layout of cacerts)"
    )]
    Given,
    /// A certificate or key does not parse, or they do not belong together.
    #[error("the issuer's certificate and key can't be used: {0}")]
    Material(String),
}

impl From<rcgen::Error> for KeystoreError {
    fn from(error: rcgen::Error) -> Self {
        Self::Material(error.to_string())
    }
}

impl From<InvalidBundle> for KeystoreError {
    fn from(error: InvalidBundle) -> Self {
        Self::Material(error.to_string())
    }
}

impl Keystore {
    pub(super) fn open(
        folder: &Path,
        trust_domain: &TrustDomain,
        clock: &Clock,
    ) -> Result<Self, KeystoreError> {
        make_folder(folder)?;
        let rotation = folder.join(ROTATION);
        if rotation.exists() {
            let rotation = serde_json::from_str(&read(&rotation)?)
                .map_err(|error| KeystoreError::Material(format!("`{}`: {error}", rotation.display())))?;
            return Self::at(folder, Some(rotation));
        }
        // What a change that was finished, or never begun, has left.
        forget(&folder.join(NEXT))?;
        if FILES.iter().all(|name| !folder.join(name).exists()) {
            create(folder, trust_domain, clock)?;
        }
        Self::at(folder, None)
    }

    /// What the files and the step say. `root-cert.pem` says the same afterwards.
    fn at(folder: &Path, rotation: Option<Rotation>) -> Result<Self, KeystoreError> {
        let revoked = Arc::new(Revocations::read(folder)?);
        let Some(rotation) = rotation else {
            let active = Arc::new(Material::load(folder, None)?);
            return Ok(Self {
                folder: folder.to_owned(),
                roots: active.roots.clone(),
                crl: revoked.lists(std::iter::once(&*active))?.into(),
                active,
                rotation: None,
                revoked,
            });
        };
        let next = Material::load(&folder.join(NEXT), None)?;
        let old = TrustBundle::from_pem(rotation.old_roots.as_bytes())?;
        // The other issuer, whose certificates are about too.
        let (active, other, roots) = match rotation.step {
            Step::Trust => {
                let roots = old.with(&next.roots)?;
                (Material::load(folder, Some(old))?, Some(next), roots)
            }
            Step::Reissue => {
                let roots = next.roots.with(&old)?;
                (next, Some(Material::load(folder, Some(old))?), roots)
            }
            Step::Retire => {
                let roots = next.roots.clone();
                (next, None, roots)
            }
        };
        let believed = folder.join(ROOT);
        let pem = roots.to_pem();
        if read(&believed).ok().as_ref() != Some(&pem) {
            write(&believed, pem.as_bytes(), 0o644)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            crl: revoked.lists(std::iter::once(&active).chain(&other))?.into(),
            active: Arc::new(active),
            roots,
            rotation: Some(rotation),
            revoked,
        })
    }

    /// Begins to go to another root: one that is made now, or the issuer in `given` (the same layout).
    pub(super) fn begin(
        &self,
        given: Option<&Path>,
        trust_domain: &TrustDomain,
        clock: &Clock,
        hold: Option<Step>,
    ) -> Result<Self, KeystoreError> {
        let next = self.folder.join(NEXT);
        forget(&next)?;
        make_folder(&next)?;
        match given {
            Some(given) => {
                // Read whole and judged before anything is kept.
                Material::load(given, None)?;
                for (name, mode) in [(KEY, 0o600), (CERTIFICATE, 0o644), (CHAIN, 0o644), (ROOT, 0o644)] {
                    let from = given.join(name);
                    if from.exists() {
                        write(&next.join(name), read(&from)?.as_bytes(), mode)?;
                    }
                }
            }
            None if self.active.intermediates.is_empty() => create(&next, trust_domain, clock)?,
            None => return Err(KeystoreError::Given),
        }
        let now = super::unix_seconds(clock.wall());
        self.turn(Rotation {
            step: Step::Trust,
            began: now,
            since: now,
            hold,
            without_away: false,
            old_roots: self.roots.to_pem(),
        })
    }

    /// Goes on with the change as `rotation` says.
    pub(super) fn turn(&self, rotation: Rotation) -> Result<Self, KeystoreError> {
        let json = serde_json::to_vec_pretty(&rotation)
            .map_err(|error| KeystoreError::Material(error.to_string()))?;
        write(&self.folder.join(ROTATION), &json, 0o600)?;
        Self::at(&self.folder, Some(rotation))
    }

    /// Believes others no longer, or again.
    pub(super) fn revoke(&self, revoked: &Revocations) -> Result<Self, KeystoreError> {
        revoked.write(&self.folder)?;
        Self::at(&self.folder, self.rotation.clone())
    }

    /// Everybody's roots and what is revoked, as one.
    pub(super) fn bundle(&self) -> Result<TrustBundle, KeystoreError> {
        let revoked = Revoked::from_pem(self.crl.as_bytes(), true)?;
        Ok(self.roots.clone().with_revoked(revoked))
    }

    /// The new issuer is the only one from now on.
    pub(super) fn finish(&self) -> Result<Self, KeystoreError> {
        let next = self.folder.join(NEXT);
        for (name, mode) in [(KEY, 0o600), (CERTIFICATE, 0o644), (CHAIN, 0o644), (ROOT, 0o644)] {
            let (from, to) = (next.join(name), self.folder.join(name));
            if from.exists() {
                write(&to, read(&from)?.as_bytes(), mode)?;
            } else {
                remove(&to)?;
            }
        }
        // Until here a start finds everything in `next`; from here nothing of it is needed.
        remove(&self.folder.join(ROTATION))?;
        forget(&next)?;
        Self::at(&self.folder, None)
    }

    /// Behind a leaf: intermediates one by one, then all roots that are believed, in one text, as Istio's agent takes them.
    pub(super) fn chain_pem(&self) -> impl Iterator<Item = String> + '_ {
        let intermediates = self.active.intermediates.iter();
        intermediates
            .map(|der| pem("CERTIFICATE", der))
            .chain([self.roots.to_pem()])
    }
}

impl Material {
    /// Reads an issuer in the layout of `cacerts`. `roots`: where the file holds others', too.
    fn load(folder: &Path, roots: Option<TrustBundle>) -> Result<Self, KeystoreError> {
        let [certificate, key, root] = FILES.map(|name| folder.join(name));
        for path in [&certificate, &key, &root] {
            if !path.exists() {
                return Err(KeystoreError::Incomplete(path.clone()));
            }
        }
        check_mode(&key)?;
        let key = KeyPair::from_pem(&read(&key)?)?;
        let certificate_pem = read(&certificate)?;
        let roots = match roots {
            Some(roots) => roots,
            None => TrustBundle::from_pem(read(&root)?.as_bytes())?,
        };
        let own = certificates(&certificate_pem)?;
        let [issuing] = &own[..] else {
            return Err(KeystoreError::Material(
                "`ca-cert.pem` must hold one certificate".to_owned(),
            ));
        };
        let facts = Facts::parse(issuing).map_err(|error| KeystoreError::Material(error.to_string()))?;
        if !facts.is_ca {
            return Err(KeystoreError::Material(
                "`ca-cert.pem` may not sign certificates".to_owned(),
            ));
        }
        if facts.public_key != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(KeystoreError::Material(
                "`ca-key.pem` is not the key of `ca-cert.pem`".to_owned(),
            ));
        }
        let chain = folder.join(CHAIN);
        let mut intermediates = if chain.exists() {
            certificates(&read(&chain)?)?
        } else {
            Vec::new()
        };
        if !intermediates.contains(issuing) {
            intermediates.insert(0, issuing.clone());
        }
        intermediates.retain(|certificate| !roots.certificates().contains(certificate));
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        let roots = own_root_first(&issuer, &facts, &intermediates, &roots)?;
        Ok(Self {
            issuer,
            facts,
            intermediates,
            roots,
        })
    }
}

/// The same roots, the one that a certificate of this issuer leads to in front.
fn own_root_first(
    issuer: &Issuer<'static, KeyPair>,
    facts: &Facts,
    intermediates: &[CertificateDer<'static>],
    roots: &TrustBundle,
) -> Result<TrustBundle, KeystoreError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.use_authority_key_identifier_extension = true;
    params.not_before = facts.not_before.into();
    params.not_after = facts.not_after.into();
    let leaf = params.signed_by(&key, issuer)?;
    let leads_to = |root: &CertificateDer<'static>| {
        let root = TrustBundle::new([root.clone()])?;
        Ok::<_, InvalidBundle>(rajut_identity::verify::leads_to(leaf.der(), intermediates, &root))
    };
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for root in roots.certificates() {
        let kind = if leads_to(root)? { &mut own } else { &mut others };
        kind.push(root.clone());
    }
    if own.is_empty() {
        return Err(KeystoreError::Material(
            "what `ca-cert.pem` signs leads to no certificate in `root-cert.pem`: put what stands between them into \
             `cert-chain.pem`"
                .to_owned(),
        ));
    }
    Ok(TrustBundle::new(own.into_iter().chain(others))?)
}

/// A new root that issues by itself.
fn create(folder: &Path, trust_domain: &TrustDomain, clock: &Clock) -> Result<(), KeystoreError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain.as_str());
    // Two roots of one mesh have two names: not every library looks for a second one of the same name.
    let mut number = [0_u8; 4];
    SystemRandom::new()
        .fill(&mut number)
        .map_err(|_| KeystoreError::Material("no randomness".to_owned()))?;
    let name = format!("Rajut root {:08x}", u32::from_be_bytes(number));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = clock.wall();
    params.not_before = (now - super::BACKDATE).into();
    params.not_after = (now + ROOT_LIFE).into();
    let own = params.self_signed(&pair)?.pem();
    // The key first: a certificate without its key would be reported as incomplete at the next start.
    write(&folder.join(KEY), pair.serialize_pem().as_bytes(), 0o600)?;
    write(&folder.join(CERTIFICATE), own.as_bytes(), 0o644)?;
    write(&folder.join(ROOT), own.as_bytes(), 0o644)
}

fn make_folder(folder: &Path) -> Result<(), KeystoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(at(folder))
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<(), KeystoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder that may not be there.
fn forget(folder: &Path) -> Result<(), KeystoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

/// 32 secret random bytes that are made at the first time.
pub(crate) fn secret_bytes(path: &Path) -> Result<[u8; 32], KeystoreError> {
    if !path.exists() {
        let mut secret = [0_u8; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| KeystoreError::Material("no randomness".to_owned()))?;
        write(path, &secret, 0o600)?;
    }
    check_mode(path)?;
    fs::read(path)
        .map_err(at(path))?
        .try_into()
        .map_err(|_| KeystoreError::Material(format!("`{}` must hold 32 bytes", path.display())))
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, KeystoreError> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| KeystoreError::Material(error.to_string()))
}

fn check_mode(path: &Path) -> Result<(), KeystoreError> {
    let mode = fs::metadata(path).map_err(at(path))?.mode() & 0o777;
    let of_others = mode & 0o077;
    if of_others == 0 {
        return Ok(());
    }
    Err(KeystoreError::Mode {
        path: path.to_owned(),
        mode,
    })
}

pub(super) fn read(path: &Path) -> Result<String, KeystoreError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(at(path))?;
    Ok(text)
}

/// Writes beside the target and renames, so that a crash leaves either nothing or all of it.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeystoreError> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> KeystoreError {
    let path = path.to_owned();
    move |source| KeystoreError::File {
        path: path.clone(),
        source,
    }
}
