//! Reading the user's files and folders, for `up` and `analyze`.
//!
//! A folder is read with its subfolders, `.yaml`, `.yml` and `.json` files in the order of their names; hidden entries
//! and `node_modules` are left out. Bounds: [`FILES_MAX`] files; a file of more than `rajut_config::MAX_SOURCE_BYTES`
//! is read no further than needed to report it.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rajut_config::{LoadOptions, Loaded, MAX_SOURCE_BYTES, Source};

/// Files of one invocation.
const FILES_MAX: usize = 20_000;
/// The name of standard input in findings.
pub(crate) const STDIN: &str = "<stdin>";
/// Folders below each other; a loop of links ends here.
const DEPTH_MAX: usize = 32;

/// How files are read.
pub(crate) fn options(namespace: &str) -> LoadOptions {
    LoadOptions {
        default_namespace: namespace.into(),
        ..LoadOptions::default()
    }
}

/// Reads and validates. `kept_input` is where standard input was kept: it is still called by its name.
pub(crate) fn load(paths: &[PathBuf], kept_input: &Path, namespace: &str) -> anyhow::Result<Loaded> {
    let mut sources = read(paths)?;
    for source in &mut sources {
        if Path::new(&*source.name) == kept_input {
            source.name = STDIN.into();
        }
    }
    Ok(rajut_config::load(&sources, &options(namespace)))
}

/// Reads the files; `-` is standard input.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let bytes = bounded(std::io::stdin().lock()).context("can't read standard input")?;
            sources.push(Source::new(STDIN, bytes));
            continue;
        }
        let mut files = Vec::new();
        let metadata = std::fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        if metadata.is_dir() {
            collect(path, 0, &mut files)?;
            if files.is_empty() {
                bail!("{} holds no .yaml, .yml or .json file", path.display());
            }
        } else {
            files.push(path.clone());
        }
        for file in files {
            match std::fs::File::open(&file).and_then(bounded) {
                Ok(bytes) => sources.push(Source::new(file.display().to_string(), bytes)),
                // Removed while the folder was read: as if it had never been there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && metadata.is_dir() => {}
                Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
            }
        }
    }
    Ok(sources)
}

fn bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused for its size.
    source.take(MAX_SOURCE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let mut entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("can't read {}", folder.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || name == "node_modules" {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            if depth < DEPTH_MAX {
                collect(&path, depth + 1, files)?;
            }
        } else if [".yaml", ".yml", ".json"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
        {
            if files.len() >= FILES_MAX {
                bail!("{} holds more than {FILES_MAX} files", folder.display());
            }
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_without_hidden_entries() {
        let folder = std::env::temp_dir().join(format!("rajut-sources-{}", std::process::id()));
        for (name, text) in [
            ("b.yaml", "b"),
            ("a/c.yml", "c"),
            (".git/x.yaml", "x"),
            ("node_modules/p.json", "p"),
            ("t.txt", "t"),
        ] {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources = read(std::slice::from_ref(&folder)).unwrap();
        let texts: Vec<_> = sources.iter().map(|source| source.bytes.to_vec()).collect();
        assert_eq!(texts, [b"c".to_vec(), b"b".to_vec()]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
