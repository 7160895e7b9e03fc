//! Documents that cannot rot: every path, link, test and command that the hand-written pages name exists.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the crate stands in the repository")
}

/// Hand-written pages; what is generated has tests of its own.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages = Vec::new();
    for folder in [
        ".",
        "docs",
        "docs/adr",
        "docs/guide",
        "docs/tutorials",
        "changes",
        "examples/child-welfare",
    ] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        pages.extend(
            entries
                .map(|entry| entry.expect("a folder's entry").path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
        );
    }
    assert!(pages.len() > 20, "only {} pages were found", pages.len());
    pages
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The targets of links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
}

/// A text that can only be meant as a path of this repository, without wildcards and placeholders.
fn is_path(text: &str) -> bool {
    const TOPS: [&str; 9] = [
        "crates/",
        "docs/",
        "examples/",
        "xtask/",
        "bench/",
        "fuzz/",
        "changes/",
        ".ci/",
        ".cargo/",
    ];
    TOPS.iter().any(|top| text.starts_with(top))
        && !text.contains(['*', '<', '{', ' ', '…', '$'])
        && !text.contains("NNNN")
}

#[test]
fn every_path_that_a_page_names_exists() {
    let (root, mut missing, mut seen) = (root(), BTreeSet::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let from = page.strip_prefix(&root).unwrap().display().to_string();
        for path in quoted(&text).filter(|text| is_path(text)) {
            seen += 1;
            if !root.join(path.trim_end_matches('/')).exists() {
                missing.insert(format!("{from}: {path}"));
            }
        }
        for link in links(&text).filter(|link| !link.is_empty() && !link.contains("://")) {
            seen += 1;
            if !page.parent().unwrap().join(link).exists() {
                missing.insert(format!("{from}: link to {link}"));
            }
        }
    }
    assert!(seen > 50, "only {seen} paths and links were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Paths of the walks in ARCHITECTURE.md are relative to their crates: `listener/accept.rs`, `ir/decide.rs`.
#[test]
fn the_files_of_the_walks_exist() {
    let root = root();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap()
        + &fs::read_to_string(root.join("crates/proxy/src/lib.rs")).unwrap();
    let mut missing = Vec::new();
    for word in text.split(|letter: char| letter.is_whitespace() || "`(),:;".contains(letter)) {
        let is_file = Path::new(word)
            .extension()
            .is_some_and(|extension| extension == "rs");
        if !is_file || !word.contains('/') || word.starts_with("crates/") || word.starts_with("xtask/") {
            continue;
        }
        let (first, rest) = word.split_once('/').unwrap();
        let places = [
            root.join("crates/proxy/src").join(word),
            root.join("crates").join(first).join("src").join(rest),
            root.join("crates/rajut/src").join(word),
        ];
        if !places.iter().any(|place| place.exists()) {
            missing.push(word);
        }
    }
    assert!(
        missing.is_empty(),
        "the walks name files that are not there: {missing:?}"
    );
}

/// The README's table names scenarios and other tests of this folder; each is there.
#[test]
fn every_scenario_that_the_readme_names_exists() {
    let root = root();
    let mut sources = String::new();
    let mut folders = vec![root.join("crates/rajut/tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let is_name = |text: &&str| {
        text.matches('_').count() >= 3
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let named: BTreeSet<&str> = quoted(&readme).filter(is_name).collect();
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| {
            let scenario = sources.contains(&format!("\"{name}\""));
            !scenario && !sources.contains(&format!("fn {name}("))
        })
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

/// Change notes have a number, an area, a kind and an upgrade action.
#[test]
fn every_change_note_is_complete() {
    let folder = root().join("changes");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(name.as_bytes()[..4].iter().all(u8::is_ascii_digit), "{name}");
        for part in ["# ", "area: ", "kind: ", "Upgrade: "] {
            assert!(text.contains(part), "{name} has no `{part}`");
        }
    }
}
