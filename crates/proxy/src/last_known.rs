//! The last configuration that the control plane gave, in a file, for a start at which there is no control plane.
//!
//! ```text
//!  adopted ──(at most once in SAVE_EVERY)──► file   (temporary file, fsync, rename; mode 0600)
//!  start ──► control plane there? ──yes──► it is asked, the file is not read
//!                 │ no, or not within GRACE
//!                 ▼
//!               file ──► as if received ──► serving, and said so; what the control plane sends later replaces it
//! ```
//!
//! The file names the format's version, the node that it is for and the moment of writing, and carries a SHA-256 of it all:
//! what does not fit in any of them is not used. **Keys are never in it**: secrets are left out, and so is every resource
//! whose bytes hold a PEM private key. Bounds: [`FILE_MAX`] bytes, [`AGE_MAX`] old.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use bytes::{Buf, Bytes};
use rajut_ir::ResourceKind;
use rajut_types::Text;

/// Largest file.
pub const FILE_MAX: usize = 256 << 20;
/// Older files are not used: what a mesh allowed a week ago is no guess at what it allows now.
pub const AGE_MAX: Duration = Duration::from_hours(7 * 24);
/// How long a start waits for the control plane before it takes the file. A refused connection is not waited for.
pub const GRACE: Duration = Duration::from_secs(1);
/// The shortest time between two writes.
pub const SAVE_EVERY: Duration = Duration::from_secs(5);

const MAGIC: &[u8] = b"rajut last known configuration 1\n";
/// What a PEM private key of any kind has in its first line.
const KEY_MARK: &[u8] = b"PRIVATE KEY-----";

/// One resource as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name.
    pub name: Text,
    /// The version that the control plane gave it.
    pub version: Text,
    /// The encoded message.
    pub body: Bytes,
}

/// What a file held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// When it was written.
    pub written: SystemTime,
    /// Everything, make before break: clusters first.
    pub resources: Vec<Remembered>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is none, or it can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another format, cut off, or changed.
    #[error("it is damaged or of another version: {0}")]
    Damaged(&'static str),
    /// It is another proxy's.
    #[error("it was written for the node {0}")]
    OtherNode(String),
    /// Older than [`AGE_MAX`].
    #[error("it is {0:?} old")]
    TooOld(Duration),
}

/// The file of one proxy.
#[derive(Debug, Clone)]
pub struct LastKnown {
    path: PathBuf,
    node: Text,
}

impl LastKnown {
    /// The file at `path`, for the proxy of that node id.
    pub fn new(path: &Path, node: Text) -> Self {
        Self {
            path: path.to_owned(),
            node,
        }
    }

    /// What the file holds.
    pub fn read(&self, now: SystemTime) -> Result<Known, Unusable> {
        let length = fs::metadata(&self.path)?.len();
        if usize::try_from(length).is_ok_and(|length| length > FILE_MAX) {
            return Err(Unusable::Damaged("too large"));
        }
        let known = decode(fs::read(&self.path)?.into(), &self.node)?;
        let age = now.duration_since(known.written).unwrap_or_default();
        if age > AGE_MAX {
            return Err(Unusable::TooOld(age));
        }
        Ok(known)
    }

    /// Replaces the file. Blocks on the disk.
    pub fn write(&self, resources: &[Remembered], now: SystemTime) -> io::Result<()> {
        let bytes = encode(resources, &self.node, now)?;
        let temporary = self.path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        // The mode counts only for a file that is new.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)
    }
}

fn encode(resources: &[Remembered], node: &str, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    payload.extend_from_slice(&seconds.to_le_bytes());
    put(&mut payload, node.as_bytes())?;
    for resource in resources.iter().filter(|resource| may_be_kept(resource)) {
        let kind = ResourceKind::ALL.iter().position(|kind| *kind == resource.kind);
        payload.push(kind.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX));
        put(&mut payload, resource.name.as_bytes())?;
        put(&mut payload, resource.version.as_bytes())?;
        put(&mut payload, &resource.body)?;
    }
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(digest(&SHA256, &payload).as_ref());
    file.append(&mut payload);
    if file.len() > FILE_MAX {
        return Err(io::Error::other("the configuration is too large to be kept"));
    }
    Ok(file)
}

/// Whether a resource holds no key.
fn may_be_kept(resource: &Remembered) -> bool {
    resource.kind != ResourceKind::Secret
        && !resource
            .body
            .windows(KEY_MARK.len())
            .any(|window| window == KEY_MARK)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn decode(mut file: Bytes, node: &str) -> Result<Known, Unusable> {
    let head = MAGIC.len() + SHA256_OUTPUT_LEN;
    if file.len() < head || !file.starts_with(MAGIC) {
        return Err(Unusable::Damaged("it does not begin as such a file does"));
    }
    let sum = file.slice(MAGIC.len()..head);
    file.advance(head);
    if digest(&SHA256, &file).as_ref() != &*sum {
        return Err(Unusable::Damaged("its checksum is another"));
    }
    let cut_off = || Unusable::Damaged("it is cut off");
    let seconds = file.try_get_u64_le().map_err(|_| cut_off())?;
    let written_for = take_text(&mut file).ok_or_else(cut_off)?;
    if *written_for != *node {
        return Err(Unusable::OtherNode(written_for.to_string()));
    }
    let mut resources = Vec::new();
    while let Ok(kind) = file.try_get_u8() {
        let kind = ResourceKind::ALL.get(usize::from(kind)).copied();
        let name = take_text(&mut file);
        let version = take_text(&mut file);
        let body = take(&mut file);
        let (Some(kind), Some(name), Some(version), Some(body)) = (kind, name, version, body) else {
            return Err(cut_off());
        };
        resources.push(Remembered {
            kind,
            name,
            version,
            // Its own allocation: a resource that is replaced later lets go of its bytes, not of none.
            body: Bytes::copy_from_slice(&body),
        });
    }
    let position = |kind| ResourceKind::ALL.iter().position(|other| *other == kind);
    resources.sort_by_key(|resource| position(resource.kind));
    Ok(Known {
        written: UNIX_EPOCH + Duration::from_secs(seconds),
        resources,
    })
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn take_text(rest: &mut Bytes) -> Option<Text> {
    std::str::from_utf8(&take(rest)?).ok().map(Text::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: ResourceKind, name: &str, body: &'static [u8]) -> Remembered {
        Remembered {
            kind,
            name: name.into(),
            version: "7".into(),
            body: Bytes::from_static(body),
        }
    }

    fn file(name: &str) -> (LastKnown, PathBuf) {
        let path = std::env::temp_dir().join(format!("rajut-last-known-{name}-{}", std::process::id()));
        (LastKnown::new(&path, "node-1".into()), path)
    }

    #[test]
    fn what_was_written_is_read_without_keys_and_readable_by_the_owner_only() {
        let (last_known, path) = file("round");
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let kept = [
            resource(ResourceKind::Listener, "l", b"listener"),
            resource(ResourceKind::Cluster, "c", b"cluster"),
        ];
        let all = [
            kept[0].clone(),
            resource(ResourceKind::Secret, "s", b"key"),
            resource(
                ResourceKind::Listener,
                "inline",
                b"x-----BEGIN EC PRIVATE KEY-----y",
            ),
            kept[1].clone(),
        ];
        last_known.write(&all, now).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let text = fs::read(&path).unwrap();
        let known = last_known.read(now + Duration::from_mins(1)).unwrap();
        let late = last_known.read(now + AGE_MAX + Duration::from_secs(1));
        let other = LastKnown::new(&path, "node-2".into()).read(now);
        fs::remove_file(&path).unwrap();
        assert_eq!(mode, 0o600);
        assert!(!text.windows(4).any(|window| window == b" KEY"));
        assert_eq!(known.written, now);
        assert_eq!(known.resources, [kept[1].clone(), kept[0].clone()]);
        assert!(matches!(late, Err(Unusable::TooOld(_))), "{late:?}");
        assert!(matches!(other, Err(Unusable::OtherNode(_))), "{other:?}");
    }

    #[test]
    fn a_file_that_was_changed_or_cut_off_is_not_used() {
        let whole = encode(
            &[resource(ResourceKind::Cluster, "c", b"cluster")],
            "n",
            UNIX_EPOCH,
        )
        .unwrap();
        assert!(decode(whole.clone().into(), "n").is_ok());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode(changed.into(), "n").is_err(), "byte {at}");
            assert!(decode(whole[..at].to_vec().into(), "n").is_err(), "cut at {at}");
        }
    }
}
