//! What `apply` added and `delete` took away, over what the files say. One file per applied object in the state folder, and a
//! list of the deleted ones; both survive a restart.
//!
//! Bound: [`APPLIED_MAX`] objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use rajut_config::Source;
use rajut_types::ObjectRef;

use crate::document::{self, Document};

/// Applied objects at most.
pub(crate) const APPLIED_MAX: usize = 20_000;

/// The overlay can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A file of it.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too many objects.
    #[error("more than {APPLIED_MAX} applied objects")]
    TooMany,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    folder: PathBuf,
    /// object → its document.
    pub(crate) applied: BTreeMap<ObjectRef, String>,
    /// Objects of files that are hidden.
    pub(crate) deleted: BTreeSet<ObjectRef>,
}

const DELETED: &str = "deleted.json";

impl Overlay {
    pub(crate) fn open(folder: &Path, default_namespace: &str) -> Result<Self, OverlayError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OverlayError::File { path, source }
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        let mut overlay = Self {
            folder: folder.to_owned(),
            ..Self::default()
        };
        for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|ending| ending != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            for document in document::split(&text, default_namespace) {
                for (object, _) in &document.objects {
                    overlay.applied.insert(object.clone(), document.text.clone());
                }
            }
        }
        let text = fs::read_to_string(folder.join(DELETED)).unwrap_or_default();
        let deleted: Vec<(String, String, String)> = serde_json::from_str(&text).unwrap_or_default();
        overlay.deleted = deleted
            .into_iter()
            .map(|(kind, namespace, name)| ObjectRef::new(kind, namespace, name))
            .collect();
        Ok(overlay)
    }

    /// The same with these documents laid over it.
    pub(crate) fn with(&self, documents: &[Document], namespace: &str) -> Result<Self, OverlayError> {
        let mut next = self.clone();
        for document in documents {
            for (object, value) in &document.objects {
                // Each object stands alone, so that it can be replaced and deleted alone.
                let text = if document.objects.len() == 1 {
                    document::with_namespace(document, namespace)
                } else {
                    let alone = Document {
                        line: 1,
                        text: serde_json::to_string_pretty(value).unwrap_or_default(),
                        objects: vec![(object.clone(), value.clone())],
                    };
                    document::with_namespace(&alone, namespace)
                };
                next.deleted.remove(object);
                next.applied.insert(object.clone(), text);
            }
        }
        if next.applied.len() > APPLIED_MAX {
            return Err(OverlayError::TooMany);
        }
        Ok(next)
    }

    /// The same without these objects; those in files are hidden.
    pub(crate) fn without(&self, objects: &[ObjectRef], in_files: &BTreeSet<ObjectRef>) -> Self {
        let mut next = self.clone();
        for object in objects {
            next.applied.remove(object);
            if in_files.contains(object) {
                next.deleted.insert(object.clone());
            }
        }
        next
    }

    pub(crate) fn hides(&self, object: &ObjectRef) -> bool {
        self.applied.contains_key(object) || self.deleted.contains(object)
    }

    pub(crate) fn path(&self, object: &ObjectRef) -> PathBuf {
        self.folder.join(&*document::file_name(object))
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.applied
            .iter()
            .map(|(object, text)| Source::new(self.path(object).display().to_string(), text.as_bytes()))
    }

    /// Writes what differs from `previous`.
    pub(crate) fn persist(&self, previous: &Self) -> Result<(), OverlayError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OverlayError::File { path, source }
        };
        for (object, text) in &self.applied {
            if previous.applied.get(object) != Some(text) {
                let path = self.path(object);
                write_atomically(&path, text.as_bytes()).map_err(at(&path))?;
            }
        }
        for object in previous
            .applied
            .keys()
            .filter(|object| !self.applied.contains_key(*object))
        {
            let path = self.path(object);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
        if self.deleted != previous.deleted {
            let deleted: Vec<_> = self
                .deleted
                .iter()
                .map(|object| (&*object.kind, &*object.namespace, &*object.name))
                .collect();
            let path = self.folder.join(DELETED);
            serde_json::to_vec(&deleted)
                .map_err(io::Error::other)
                .and_then(|bytes| write_atomically(&path, &bytes))
                .map_err(at(&path))?;
        }
        Ok(())
    }
}

/// Writes beside the target and renames.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}
