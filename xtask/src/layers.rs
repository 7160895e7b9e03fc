//! The architecture as one table: which crate may use which. An edge that is not here is an error; adding one is a
//! reviewed line of its own. The proxy's graph is also checked not to hold what must stay out of it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// crate → (layer, what it may use). Edges point to lower layers only.
const LAYERS: &[(&str, u8, &[&str])] = &[
    ("types", 0, &[]),
    ("proto", 0, &[]),
    ("platform", 0, &[]),
    ("codec", 0, &[]),
    ("config", 1, &["types"]),
    ("ir", 1, &["types", "proto"]),
    ("runtime", 1, &["types", "platform"]),
    ("telemetry", 1, &["types", "proto"]),
    ("xds", 2, &["types", "proto", "runtime"]),
    ("identity", 2, &["types", "proto", "platform", "runtime", "ir"]),
    ("registry", 2, &["types", "platform", "runtime", "config"]),
    ("translate", 2, &["types", "proto", "config", "ir"]),
    (
        "proxy",
        3,
        &[
            "types",
            "proto",
            "platform",
            "codec",
            "ir",
            "runtime",
            "telemetry",
            "xds",
            "identity",
        ],
    ),
    (
        "control",
        3,
        &[
            "types",
            "proto",
            "platform",
            "config",
            "ir",
            "runtime",
            "telemetry",
            "xds",
            "identity",
            "registry",
            "translate",
        ],
    ),
    ("local", 3, &["types", "platform", "runtime", "config"]),
    (
        "rajut",
        4,
        &[
            "types",
            "proto",
            "platform",
            "codec",
            "config",
            "ir",
            "runtime",
            "telemetry",
            "xds",
            "identity",
            "registry",
            "translate",
            "proxy",
            "control",
            "local",
        ],
    ),
];

/// What must never be in the data plane's graph.
const NOT_IN_PROXY: &[&str] = &[
    "kube",
    "rajut-config",
    "rajut-control",
    "rajut-translate",
    "rajut-registry",
];

/// Pure crates name no runtime, clock, randomness or I/O library among their dependencies.
const PURE: &[&str] = &["types", "config", "ir", "translate", "codec"];

/// What a pure crate may not depend on.
const IMPURE: &[&str] = &[
    "tokio", "tonic", "kube", "rand", "hyper", "notify", "socket2", "rustix",
];

/// Checks the manifests against the table.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some((_, layer, allowed)) = LAYERS.iter().find(|(known, ..)| *known == name) else {
            wrong.push(format!(
                "crate `{name}` is not in the table of xtask/src/layers.rs"
            ));
            continue;
        };
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).context(name.clone())?;
        for dependency in dependencies(&manifest) {
            if PURE.contains(&name.as_str()) && IMPURE.contains(&dependency.as_str()) {
                wrong.push(format!("crate `{name}` is pure and depends on `{dependency}`"));
            }
            let Some(used) = dependency.strip_prefix("rajut-") else {
                continue;
            };
            if !allowed.contains(&used) {
                wrong.push(format!(
                    "crate `{name}` uses `{used}`, which the table does not allow"
                ));
            }
            let used_layer = LAYERS
                .iter()
                .find(|(known, ..)| *known == used)
                .map(|(_, layer, _)| *layer);
            if used_layer.is_none_or(|used_layer| used_layer > *layer) {
                wrong.push(format!(
                    "crate `{name}` (layer {layer}) uses `{used}` of a higher layer"
                ));
            }
        }
    }
    wrong.extend(forbidden_in_proxy(root)?);
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("the layers do not hold:\n  {}", wrong.join("\n  "))
    }
}

/// The names under `[dependencies]` (not those for tests and builds).
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside {
            let name: String = line
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '-' || *c == '_')
                .collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

fn forbidden_in_proxy(root: &Path) -> Result<Vec<String>> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "-p",
            "rajut-proxy",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root)
        .output()?;
    if !tree.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&tree.stderr));
    }
    let listed = String::from_utf8_lossy(&tree.stdout);
    let in_graph: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let found = NOT_IN_PROXY.iter().filter(|name| in_graph.contains(**name));
    Ok(found
        .map(|name| format!("`{name}` is in the data plane's graph"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dependencies_proper_count() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nrajut-a.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = \"1\"\n";
        assert_eq!(
            dependencies(manifest),
            ["b".to_owned(), "rajut-a".to_owned()].into()
        );
    }

    #[test]
    fn the_table_itself_only_points_down() {
        for (name, layer, allowed) in LAYERS {
            for used in *allowed {
                let used_layer = LAYERS
                    .iter()
                    .find(|(known, ..)| known == used)
                    .map(|(_, layer, _)| *layer);
                assert!(
                    used_layer.is_some_and(|used_layer| used_layer <= *layer),
                    "{name} uses {used}"
                );
            }
        }
    }
}
