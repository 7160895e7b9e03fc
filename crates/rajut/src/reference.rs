//! The generated pages of `docs/reference`: each is made from the table that the program itself uses, so that no page can
//! say what the program does not. A stale page fails its test; `UPDATE_DOCS=1 cargo test -p rajut --bin rajut reference`
//! writes all of them.
//!
//! The page of diagnostics is made in `rajut-config`, beside its table. Only built for tests. It stands in no walk; nothing here runs in the product.

mod fields;

use std::{fmt::Write as _, path::PathBuf};

use clap::CommandFactory;
use rajut_ir::wire::{Support, support_table};
use rajut_runtime::env;
use rajut_telemetry::names;

use crate::cli::{Cli, VARIABLES};

const TITLE_NOTE: &str =
    "<!-- Generated. `UPDATE_DOCS=1 cargo test -p rajut --bin rajut reference` writes it again. -->";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(name)
}

/// Compares the page with what stands in the repository, or writes it.
fn check(name: &str, title: &str, body: &str) {
    let page = format!("# {title}\n\n{TITLE_NOTE}\n\n{}\n", body.trim_end());
    let path = path(name);
    // The one switch of the tests; everything that the product reads stands in its tables.
    #[expect(clippy::disallowed_methods, reason = "the one switch of the tests")]
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    if update {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(found.lines()).position(|(new, old)| new != old);
    assert!(
        page == found,
        "docs/reference/{name} is stale (first at line {}): UPDATE_DOCS=1 cargo test -p rajut --bin rajut reference",
        differs.map_or(page.lines().count().min(found.lines().count()), |line| line) + 1
    );
}

/// What a cell of a table may hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn xds() {
    let mut page = String::from(
        "What the proxy takes of Envoy's xDS v3 and of an Envoy bootstrap. *Supported*: does what Envoy does with it. \
         *Ignored*: left out and counted. *Refused*: the resource is refused with the field's path; other resources of the \
         same response are applied. A field that stands nowhere here, and a field number that the descriptors don't know, \
         is refused too.\n",
    );
    let rows = support_table();
    let mut message = "";
    for row in &rows {
        if row.message != message {
            message = row.message;
            writeln!(
                page,
                "\n## {message}\n\n| field | type | | instead |\n| --- | --- | --- | --- |"
            )
            .unwrap();
        }
        let support = match row.support {
            Support::Supported => "supported",
            Support::Ignorable => "ignored",
            Support::Refused => "refused",
        };
        let deprecated = if row.deprecated {
            " (deprecated by Envoy)"
        } else {
            ""
        };
        writeln!(
            page,
            "| `{}`{deprecated} | {} | {support} | {} |",
            row.field,
            cell(row.type_name),
            cell(row.instead)
        )
        .unwrap();
    }
    check("xds-support.md", "xDS support", &page);
}

#[test]
fn metrics() {
    let mut page = String::from(
        "What a sidecar exposes at `:15090/stats/prometheus` of its own address, and at `/stats/prometheus` of its admin port \
         (where all workloads share one address, there only). Names that Envoy has are Envoy's, with the labels \
         `envoy_cluster_name`, `envoy_response_code_class` (1 to 5), `envoy_http_conn_manager_prefix`. A scraper that asks for \
         `application/openmetrics-text` gets OpenMetrics.\n\n\
         ## Istio's standard metrics\n\n\
         Both ends of a call report it, our proxy only (Envoy as the data plane has Envoy's metrics). What is not known is \
         `unknown`. Where they differ from Istio's proxy: sizes are those of bodies, as Istio's own reference says; \
         `istio_request_duration_milliseconds_sum` keeps microseconds; a server believes what a client says of its workload \
         only where a certificate of the mesh stands behind it, and of opaque connections knows the client's identity and \
         namespace only. A worker keeps at most 2,000 series; what comes later is counted under `other`, and in \
         `rajut_metrics_folded_total`.\n\n| label | meaning |\n| --- | --- |\n",
    );
    for (names, end) in [
        (names::ISTIO_SOURCE, "client"),
        (names::ISTIO_DESTINATION, "server"),
    ] {
        let meanings = [
            "deployment",
            "namespace",
            "identity, as its certificate has it",
            "label `app`",
            "label `version`",
            "cluster of Kubernetes",
            "canonical service",
            "canonical revision",
        ];
        for (name, meaning) in names.iter().zip(meanings) {
            writeln!(page, "| `{name}` | the {end}'s {meaning} |").unwrap();
        }
    }
    for (name, meaning) in names::ISTIO_LABELS {
        writeln!(page, "| `{name}` | {} |", cell(meaning)).unwrap();
    }
    page.push_str("\n## All metrics\n\n| metric | meaning |\n| --- | --- |\n");
    for (name, help) in names::ALL {
        writeln!(page, "| `{name}` | {} |", cell(help)).unwrap();
    }
    check("metrics.md", "Metrics", &page);
}

#[test]
fn environment() {
    let page = format!(
        "Every variable that the product reads. All mistakes are reported together, before anything starts.\n\n\
         ## Every process\n\n{}\n## The command-line tool\n\n{}\n\
         What an application gets from the mesh in `--capture explicit` stands in the [guide](../guide/capture.md).",
        env::page(env::COMMON),
        env::page(VARIABLES)
    );
    check("environment.md", "Environment variables", &page);
}

#[test]
fn command_line() {
    let mut page = String::from(
        "`rajut help` of every command. Exit status: 0 done, 1 the answer is no (errors found, not ready), 2 wrong usage.\n",
    );
    let mut root = Cli::command().term_width(100);
    root.build();
    describe(&mut root, "rajut", &mut page);
    check("commands.md", "Commands", &page);
}

fn describe(command: &mut clap::Command, name: &str, page: &mut String) {
    let help = command.clone().term_width(100).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    writeln!(
        page,
        "\n## {name}\n\n```text\n{}\n```",
        help.join("\n").trim_end()
    )
    .unwrap();
    for inner in command.get_subcommands_mut() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            let name = format!("{name} {}", inner.get_name());
            describe(inner, &name, page);
        }
    }
}
