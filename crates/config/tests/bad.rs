//! Golden files of what is said about bad input: one per file of `tests/bad`. A change of words shows as a diff.

use std::{fs, path::Path};

use rajut_config::{LoadOptions, Report, Source, load};

#[test]
fn every_bad_input_is_reported_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder is part of the repository")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    assert!(files.len() >= 15, "only {} inputs", files.len());
    for path in files {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let source = Source::new(name.as_str(), fs::read(&path).expect("readable"));
        let report = Report::new(&load(&[source], &LoadOptions::default()));
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.trim_end_matches(".yaml"), report.to_string());
        });
    }
}
