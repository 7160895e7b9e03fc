//! The forms of the report.

use crate::{LoadOptions, Report, Source, load};

fn report() -> Report {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRIKT}}\n";
    Report::new(&load(
        &[Source::new("a folder/mtls.yaml", text)],
        &LoadOptions::default(),
    ))
}

#[test]
fn json_has_the_findings_and_the_counts() {
    insta::assert_json_snapshot!("json", report().json());
}

#[test]
fn sarif_has_rules_places_and_levels() {
    let mut sarif = report().sarif();
    sarif["runs"][0]["tool"]["driver"]["version"] = "VERSION".into();
    insta::assert_json_snapshot!("sarif", sarif);
}

#[test]
fn the_last_line_counts_documents() {
    let report = report();
    assert!(report.failed());
    assert_eq!(
        report.to_string().lines().last(),
        Some("1 document: 0 used, 0 not ours, 1 wrong")
    );
}
