//! The table is whole: every code is said somewhere, and every example gives what it claims.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::{LoadOptions, Report, Source, load};

fn report(text: &str) -> Report {
    Report::new(&load(
        &[Source::new("example.yaml", text)],
        &LoadOptions::default(),
    ))
}

#[test]
fn numbers_and_names_are_unique_and_ascend() {
    let numbers: Vec<u16> = ENTRIES.iter().map(|e| e.code.0).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    for entry in ENTRIES {
        assert!(
            !entry.title.is_empty() && entry.explanation.len() > 40,
            "{}",
            entry.code
        );
        assert_eq!(find(entry.code).map(|e| e.name), Some(entry.name));
        assert_eq!(entry.wrong.is_empty(), entry.right.is_empty(), "{}", entry.code);
    }
}

#[test]
fn a_wrong_example_gives_its_code_and_the_right_one_does_not() {
    for entry in ENTRIES.iter().filter(|e| !e.wrong.is_empty()) {
        let wrong = report(entry.wrong);
        assert!(
            wrong.diagnostics.iter().any(|d| d.code == entry.code),
            "the wrong example of {} does not give it:\n{wrong}",
            entry.name
        );
        let right = report(entry.right);
        assert!(
            right.diagnostics.iter().all(|d| d.code != entry.code),
            "the right example of {} gives it:\n{right}",
            entry.name
        );
    }
}

#[test]
fn every_code_is_used_in_the_sources_and_no_number_is_written_outside_the_table() {
    fn sources(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).expect("the crate's own sources") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                sources(&path, all);
            } else if path
                .file_name()
                .is_some_and(|n| n != "table.rs" && n != "tests.rs" && n != "codes.rs")
            {
                all.push_str(&fs::read_to_string(&path).expect("UTF-8"));
            }
        }
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&own.join("src"), &mut all);
    assert!(!all.contains(" Code("), "a code is made outside the table");
    // Other crates report with codes of this table, too.
    for entry in fs::read_dir(own.join("..")).expect("the workspace's crates") {
        let folder = entry.expect("readable").path().join("src");
        if folder.is_dir() && !folder.starts_with(own.join("src")) {
            sources(&folder, &mut all);
        }
    }
    let used: BTreeSet<&str> = all
        .split("codes::")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')
                .next()
                .unwrap_or("")
        })
        .filter(|name| name.len() > 1)
        .collect();
    let known: BTreeSet<&str> = ENTRIES.iter().map(|e| e.name).collect();
    assert_eq!(used, known);
}

#[test]
fn codes_are_found_by_what_people_type() {
    assert_eq!(parse("RJ0071"), Some(Code(71)));
    assert_eq!(parse(" rj71 "), Some(Code(71)));
    assert_eq!(parse("71"), None);
    assert_eq!(parse("RJ"), None);
    assert_eq!(parse("é"), None);
}

#[test]
fn the_page_of_diagnostics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/diagnostics.md");
    #[expect(clippy::disallowed_methods, reason = "the one switch of the tests")]
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(&path, markdown()).expect("writable");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == markdown(),
        "run `UPDATE_DOCS=1 cargo test -p rajut-config` and commit the page"
    );
}
