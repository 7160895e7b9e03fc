//! Whose a document is.

use crate::{LoadOptions, Report, Source, codes, load};

fn report(sources: &[(&str, &str)]) -> Report {
    let sources: Vec<Source> = sources
        .iter()
        .map(|(name, text)| Source::new(*name, *text))
        .collect();
    Report::new(&load(&sources, &LoadOptions::default()))
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n";

#[test]
fn patches_that_a_kustomization_names_are_not_objects() {
    let patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n";
    let kustomization = "resources: [../../base]\npatches:\n- path: ./replicas.yaml\n- target: {kind: Service}\n  path: ops.json\n";
    let report = report(&[
        ("k/base/service.yaml", SERVICE),
        ("k/overlays/prod/kustomization.yaml", kustomization),
        ("k/overlays/prod/replicas.yaml", patch),
        (
            "k/overlays/prod/ops.json",
            "[{\"op\": \"remove\", \"path\": \"/spec\"}]",
        ),
    ]);
    assert!(!report.failed(), "{report}");
    assert_eq!(report.summary(), "4 documents: 1 used, 3 not ours, 0 wrong");
    assert!(
        report.diagnostics.iter().any(|d| d.code == codes::KUSTOMIZE),
        "{report}"
    );
}

#[test]
fn files_of_other_tools_are_counted_and_nothing_is_said() {
    let report = report(&[
        (
            ".github/workflows/ci.yaml",
            "on: push\njobs: {build: {runs-on: x, steps: []}}\n",
        ),
        ("values.yaml", "image: {tag: 1}\nreplicas: 2\n"),
        ("package.json", "{\"name\": \"web\", \"version\": \"1.0.0\"}"),
        ("playbook.yml", "- hosts: all\n  tasks: []\n"),
        (
            "job.yaml",
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: {whatever: 1}\n",
        ),
        (
            "secret.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: b}\n",
        ),
    ]);
    assert_eq!(report.to_string(), "6 documents: 0 used, 6 not ours, 0 wrong\n");
}

#[test]
fn typed_lists_are_flattened_and_their_items_keep_their_places() {
    let report = report(&[(
        "list.yaml",
        "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n  spec: {ports: [{port: 80}]}\n- metadata: {name: b}\n  spec: {ports: [{port: x}]}\n",
    )]);
    assert_eq!(report.summary(), "2 documents: 1 used, 0 not ours, 1 wrong");
    let finding = &report.diagnostics[0];
    assert_eq!(
        (finding.code, finding.span.line, &*finding.origin.object.name),
        (codes::WRONG_TYPE, 7, "b")
    );
}

#[test]
fn a_chart_is_a_template_as_a_whole() {
    let report = report(&[(
        "templates/web.yaml",
        "{{- if .Values.on }}\napiVersion: v1\nkind: Service\n---\nkind: half\nmetadata: {}\nspec: {}\n{{- end }}\n---\nkind: half\nmetadata: {}\nspec: {}\n",
    )]);
    assert_eq!(
        report.summary(),
        "3 documents: 0 used, 3 not ours, 0 wrong",
        "{report}"
    );
    assert_eq!(report.diagnostics.len(), 1, "{report}");
}
