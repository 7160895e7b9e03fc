//! Root, issuing certificate and key on disk, in the layout of Istio's `cacerts` secret: `ca-cert.pem`, `ca-key.pem`,
//! `cert-chain.pem`, `root-cert.pem`. What is missing altogether is made: a P-256 root for ten years. Keys are written
//! with mode 0600, and a key file that others may read is refused.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rajut_identity::{
    TrustBundle,
    pki_types::{CertificateDer, pem::PemObject as _},
    trust::{InvalidBundle, pem},
};
use rajut_runtime::Clock;
use rajut_types::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

/// Life of a root made here.
const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// The longest file that is read from the folder, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The loaded material. `Debug` shows no key.
pub(super) struct Keystore {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Behind the leaf: intermediates, then the root.
    pub(super) chain_pem: Vec<String>,
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    pub(super) roots: TrustBundle,
}

impl std::fmt::Debug for Keystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystore")
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
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
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(at(folder))?;
        let [certificate, key, root] =
            ["ca-cert.pem", "ca-key.pem", "root-cert.pem"].map(|name| folder.join(name));
        if !certificate.exists() && !key.exists() && !root.exists() {
            create(&certificate, &key, &root, trust_domain, clock)?;
        }
        for path in [&certificate, &key, &root] {
            if !path.exists() {
                return Err(KeystoreError::Incomplete(path.clone()));
            }
        }
        check_mode(&key)?;
        Self::load(folder, &certificate, &key, &root)
    }

    fn load(folder: &Path, certificate: &Path, key: &Path, root: &Path) -> Result<Self, KeystoreError> {
        let key = KeyPair::from_pem(&read(key)?)?;
        let certificate_pem = read(certificate)?;
        let roots = TrustBundle::from_pem(read(root)?.as_bytes())?;
        let own = certificates(&certificate_pem)?;
        let [issuing] = &own[..] else {
            return Err(KeystoreError::Material(
                "`ca-cert.pem` must hold one certificate".to_owned(),
            ));
        };
        let facts = rajut_identity::certificate::Facts::parse(issuing)
            .map_err(|error| KeystoreError::Material(error.to_string()))?;
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
        let chain = folder.join("cert-chain.pem");
        let mut intermediates = if chain.exists() {
            certificates(&read(&chain)?)?
        } else {
            Vec::new()
        };
        if !intermediates.contains(issuing) {
            intermediates.insert(0, issuing.clone());
        }
        intermediates.retain(|certificate| !roots.certificates().contains(certificate));
        let chain_pem = intermediates
            .iter()
            .chain(roots.certificates().first())
            .map(|der| pem("CERTIFICATE", der))
            .collect();
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate_pem, key)?,
            chain_pem,
            intermediates,
            roots,
        })
    }
}

fn create(
    certificate: &Path,
    key: &Path,
    root: &Path,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<(), KeystoreError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, "Rajut root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = clock.wall();
    params.not_before = (now - super::BACKDATE).into();
    params.not_after = (now + ROOT_LIFE).into();
    let own = params.self_signed(&pair)?.pem();
    // The key first: a certificate without its key would be reported as incomplete at the next start.
    write(key, pair.serialize_pem().as_bytes(), 0o600)?;
    write(certificate, own.as_bytes(), 0o644)?;
    write(root, own.as_bytes(), 0o644)
}

/// 32 secret random bytes that are made at the first time.
pub(super) fn secret_bytes(path: &Path) -> Result<[u8; 32], KeystoreError> {
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

fn read(path: &Path) -> Result<String, KeystoreError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(at(path))?;
    Ok(text)
}

/// Writes beside the target and renames, so that a crash leaves either nothing or all of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeystoreError> {
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
