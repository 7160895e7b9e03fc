//! Paths and folders read into sources, within bounds. Sorted by name, so that the result does not depend on the folder's
//! order.
//!
//! Bounds: [`FILES_MAX`] files, [`DEPTH_MAX`] folders deep, `config::MAX_SOURCE_BYTES` each. Hidden entries are left out (as
//! Kubernetes' `..data` links are their own files under another name). A file that disappears between listing and reading
//! is simply not there.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rajut_config::{MAX_SOURCE_BYTES, Source};

/// Files of all paths together.
pub const FILES_MAX: usize = 10_000;
/// Folders inside folders.
pub const DEPTH_MAX: usize = 16;

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A path.
    #[error("`{path}` can't be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too many files.
    #[error("more than {FILES_MAX} files below `{0}`")]
    TooMany(PathBuf),
}

/// A file's outcome: its bytes, or why they are not there (and the last ones are to be kept).
#[derive(Debug)]
pub struct ReadFile {
    /// The path as the user knows it.
    pub name: String,
    /// Bytes or failure.
    pub bytes: io::Result<Vec<u8>>,
}

/// Lists and reads everything below the paths. A path that does not exist is an error.
pub fn read(paths: &[PathBuf]) -> Result<Vec<ReadFile>, FilesError> {
    let mut found = Vec::new();
    for path in paths {
        list(path, 0, &mut found)?;
    }
    found.sort();
    found.dedup();
    let read = found.into_iter().filter_map(|path| {
        let bytes = match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            bytes => bytes,
        };
        Some(ReadFile {
            name: path.display().to_string(),
            bytes,
        })
    });
    Ok(read.collect())
}

fn list(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    let unreadable = |source| FilesError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth >= DEPTH_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let Ok(entry) = entry else { continue };
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        // Not `file_type`: links are followed, as mounted ConfigMaps need.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => list(&path, depth + 1, found)?,
            Ok(_) if is_configuration(name) => found.push(path),
            // Another kind of file, or it went away while we looked.
            Ok(_) | Err(_) => {}
        }
        if found.len() > FILES_MAX {
            return Err(FilesError::TooMany(path_of(found)));
        }
    }
    Ok(())
}

fn path_of(found: &[PathBuf]) -> PathBuf {
    found
        .first()
        .and_then(|path| path.parent())
        .map(Path::to_owned)
        .unwrap_or_default()
}

fn is_configuration(name: &str) -> bool {
    let ending = name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| ["yaml", "yml", "json"].contains(&&*ending))
}

/// One byte more than the bound is read, so that `config` can say that the file is too long.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(MAX_SOURCE_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    fs::File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The sources of those that could be read; `keep` gives the last contents of the others.
pub fn sources(read: Vec<ReadFile>, keep: impl Fn(&str) -> Option<Arc<[u8]>>) -> Vec<Source> {
    let source = |file: ReadFile| {
        let bytes = match file.bytes {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                tracing::warn!(file = file.name, %error, "can't be read, its last contents are kept");
                keep(&file.name)?
            }
        };
        let name = file.name.into();
        Some(Source { name, bytes })
    };
    read.into_iter().filter_map(source).collect()
}
