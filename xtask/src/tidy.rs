//! The fences inside crates: who may name what. Also module docs, and the largest files for the reader's judgement.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// A text that may stand only in files whose path (below `crates/`) contains one of the places.
struct Fence {
    text: &'static str,
    places: &'static [&'static str],
    why: &'static str,
}

const FENCES: &[Fence] = &[
    Fence {
        text: "tokio::net",
        places: &["platform/"],
        why: "sockets are made in `platform`, so that namespaces and options are in one place",
    },
    Fence {
        text: "HeaderMap",
        places: &[
            "proxy/src/http/tests",
            "codec/tests",
            "codec/examples",
            "codec/src/tests",
            "local/",
            "control/",
            "rajut/",
            "runtime/",
        ],
        why: "a codec can only be swapped while nothing else knows its types",
    },
    Fence {
        text: "rajut_proto::",
        places: &[
            "/wire",
            "proto/",
            "xds/",
            "identity/",
            "telemetry/",
            "control/src/ca",
            "control/src/discovery",
            "proxy/src/admin",
            "proxy/src/agent",
            "translate/tests",
        ],
        why: "xDS is decoded in one place, otherwise `why` and the proxy would differ",
    },
    Fence {
        text: "unsafe {",
        places: &["platform/"],
        why: "unsafe code lives in one small crate",
    },
];

/// Checks the fences and the module docs.
#[expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
pub(crate) fn check(root: &Path) -> Result<()> {
    let crates = root.join("crates");
    let mut files = Vec::new();
    collect(&crates, &mut files)?;
    let mut wrong = Vec::new();
    let mut sizes = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&crates)?.to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(file)?;
        sizes.push((text.lines().count(), path.clone()));
        let is_test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/examples/");
        if !is_test && !text.starts_with("//!") {
            wrong.push(format!(
                "{path}: a module opens with `//!`: what it is, where it sits, its bounds"
            ));
        }
        for fence in FENCES {
            if fence.places.iter().any(|place| path.contains(place)) {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                if line.contains(fence.text) && !line.trim_start().starts_with("//") {
                    wrong.push(format!("{path}:{}: `{}`: {}", number + 1, fence.text, fence.why));
                }
            }
        }
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    println!("largest files:");
    for (lines, path) in sizes.iter().take(10) {
        println!("  {lines:5} {path}");
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("{} places:\n  {}", wrong.len(), wrong.join("\n  "))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
