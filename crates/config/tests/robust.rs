//! Whatever is read, reading ends, says where it stopped, and the rest goes on.

#![expect(
    clippy::format_collect,
    clippy::format_push_string,
    reason = "inputs are built plainly"
)]

use proptest::prelude::*;
use rajut_config::{LoadOptions, Loaded, Report, Source, codes, load};
use rajut_types::{Code, Severity};

const GOOD: &str = include_str!("good.yaml");

fn read(bytes: impl Into<Vec<u8>>) -> (Loaded, Report) {
    let loaded = load(&[Source::new("input.yaml", bytes)], &LoadOptions::default());
    let report = Report::new(&loaded);
    (loaded, report)
}

fn has(report: &Report, code: Code) -> bool {
    report.diagnostics.iter().any(|d| d.code == code)
}

/// Bytes that look like nothing (a linear congruential generator, so that every run is the same).
fn noise(length: usize, alphabet: &[u8]) -> Vec<u8> {
    let mut state = 12_345u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap_or(0) % alphabet.len();
            alphabet[at]
        })
        .collect()
}

#[test]
fn the_good_input_of_these_tests_is_good() {
    let (_, report) = read(GOOD);
    assert!(!report.failed(), "{report}");
    assert_eq!(report.count(Severity::Warning), 0, "{report}");
    assert_eq!(report.summary(), "13 documents: 12 used, 1 not ours, 0 wrong");
}

#[test]
fn ten_megabytes_of_anything_give_one_clear_error() {
    let all: Vec<u8> = (0..=255).collect();
    let printable: Vec<u8> = (32..127).chain([b'\n']).collect();
    for (name, bytes, expected) in [
        ("binary", noise(10_000_000, &all), codes::NOT_TEXT),
        ("zeros", vec![0; 10_000_000], codes::NOT_TEXT),
        (
            "one byte too many",
            vec![b'a'; 10 * 1024 * 1024 + 1],
            codes::TOO_LARGE,
        ),
        ("printable", noise(10_000_000, &printable), codes::SYNTAX),
        ("one word", vec![b'a'; 10_000_000], codes::NOT_AN_OBJECT),
        ("brackets", vec![b'['; 10_000_000], codes::LIMIT),
        ("braces", noise(10_000_000, b"{}[],: \n"), codes::SYNTAX),
        ("quotes", noise(10_000_000, b"\"'\\\n a"), codes::SYNTAX),
        ("dashes", "- ".repeat(5_000_000).into_bytes(), codes::LIMIT),
    ] {
        let (loaded, report) = read(bytes);
        assert!(has(&report, expected), "{name}: {report}");
        assert!(loaded.counts.used == 0 && report.failed(), "{name}: {report}");
        assert!(
            report.to_string().len() < 200_000,
            "{name}: a report of {} bytes",
            report.to_string().len()
        );
    }
}

#[test]
fn deep_nesting_and_growing_aliases_are_refused() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            [before.as_str(); 10].join(", ")
        ));
    }
    let nested_anchors: String =
        (0..90).map(|n| format!("&b{n} [")).collect::<String>() + &"x,".repeat(200_000) + &"]".repeat(90);
    let indented: String = (0..500).map(|n| format!("{}a:\n", "  ".repeat(n))).collect();
    for (name, text) in [
        ("billion laughs", laughs),
        ("nested anchors", nested_anchors),
        (
            "brackets",
            format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000)),
        ),
        ("mappings", "{a: ".repeat(5_000)),
        ("indentation", indented),
    ] {
        let (_, report) = read(format!("{text}\n---\n{GOOD}"));
        assert!(has(&report, codes::LIMIT), "{name}: {report}");
        assert!(
            report.summary().contains("12 used"),
            "{name}: {}",
            report.summary()
        );
    }
    let (_, report) = read("a: &x [*x]\n");
    assert!(
        has(&report, codes::SYNTAX),
        "an alias inside its own anchor: {report}"
    );
}

#[test]
fn marks_and_line_ends_change_nothing() {
    let (plain, _) = read(GOOD);
    let windows = GOOD.replace('\n', "\r\n");
    for (name, text) in [
        ("BOM", format!("\u{feff}{GOOD}")),
        ("CRLF", windows.clone()),
        ("both", format!("\u{feff}{windows}")),
        ("directive", format!("%YAML 1.2\n---\n{GOOD}")),
        (
            "empty documents",
            format!("---\n---\n# nothing\n---\n{GOOD}\n---\n\n---\n"),
        ),
        ("end marks", format!("{GOOD}\n...\n")),
    ] {
        let (loaded, report) = read(text);
        assert!(!report.failed(), "{name}: {report}");
        assert_eq!(loaded.counts, plain.counts, "{name}");
        assert_eq!(
            loaded.virtual_services.len(),
            plain.virtual_services.len(),
            "{name}"
        );
    }
    for empty in ["", "\n\n", "---\n", "# only a comment\n", "\u{feff}", "null\n"] {
        let (loaded, report) = read(empty);
        assert_eq!(loaded.counts.documents, 0, "{empty:?}: {report}");
    }
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(GOOD.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let (_, report) = read(utf16);
    assert!(
        has(&report, codes::NOT_TEXT) && report.to_string().contains("UTF-16"),
        "{report}"
    );
}

#[test]
fn json_is_read_like_yaml_with_its_places() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"List\",\n\t\"items\": [\n\t\t{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \
                \"metadata\": {\"name\": \"caf\\u00e9\"}},\n\t\t{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \
                \"clinic\", \"labels\": {\"url\": \"a\\/b\"}}}\n\t]\n}\n";
    let (loaded, report) = read(text);
    assert_eq!(
        report.summary(),
        "2 documents: 1 used, 0 not ours, 1 wrong",
        "{report}"
    );
    assert_eq!(loaded.namespaces[0].labels.find("url"), Some("a/b"));
    let finding = &report.diagnostics[0];
    assert_eq!(
        (finding.code, finding.span.line, finding.span.column),
        (codes::BAD_NAME, 5, 66),
        "{report}"
    );
}

#[test]
fn many_findings_and_many_documents_are_counted_not_piled_up() {
    let fields: String = (0..100_000).map(|n| format!("  f{n}: 1\n")).collect();
    let (_, report) = read(format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n{fields}"
    ));
    assert!(report.diagnostics.len() <= 101, "{}", report.diagnostics.len());
    let broken = "---\n{\n".repeat(10_000);
    let (_, report) = read(broken);
    assert!(
        report.diagnostics.len() <= 201 && has(&report, codes::MORE_FINDINGS),
        "{}",
        report.diagnostics.len()
    );
    assert_eq!(report.counts.wrong, 10_000);
    let services: String = (0..21_000)
        .map(|n| format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {{selector: {{app: s{n}}}, ports: [{{port: 80}}]}}\n"))
        .collect();
    let (loaded, report) = read(services);
    assert_eq!(loaded.services.len(), 20_000);
    assert!(has(&report, codes::LIMIT), "{}", report.summary());
}

#[test]
fn terminals_are_not_written_to_by_what_is_read() {
    let (_, report) = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: \"\u{1b}[2J\u{202e}x\"}\nspec: {\"\u{7}\": 1}\n",
    );
    let text = report.to_string();
    assert!(
        report.failed() && !text.contains('\u{1b}') && !text.contains('\u{7}') && !text.contains('\u{202e}'),
        "{text:?}"
    );
}

#[test]
fn one_broken_document_leaves_the_others() {
    let broken = GOOD.replacen("metadata:", "metadata: [", 1);
    let (loaded, report) = read(broken);
    assert!(report.failed());
    assert_eq!((loaded.counts.used, loaded.counts.wrong), (11, 1), "{report}");
}

fn documents() -> Vec<&'static str> {
    GOOD.split("---\n")
        .filter(|text| !text.trim().is_empty())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading ends without a panic on anything near a good file, and every place lies inside the text.
    #[test]
    fn mutations_of_a_good_file_never_panic(
        edits in proptest::collection::vec((0usize..GOOD.len(), 0usize..40, "[ -~\\n\\t:{}\\[\\]&*|>'\"#%-]{0,12}"), 1..6)
    ) {
        let mut text = GOOD.to_owned();
        for (at, length, new) in edits {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &new);
            }
        }
        let lines = text.lines().count() + 1;
        let (loaded, report) = read(text.as_str());
        let counts = loaded.counts;
        prop_assert_eq!(counts.documents, counts.used + counts.foreign + counts.wrong);
        for finding in &report.diagnostics {
            prop_assert!(usize::try_from(finding.span.line).unwrap_or(usize::MAX) <= lines, "{}", finding);
            prop_assert!(codes::find(finding.code).is_some());
        }
        prop_assert_eq!(report.failed() || counts.wrong == 0, true);
        report.json();
        report.sarif();
    }

    /// What was read does not depend on the order of the sources.
    #[test]
    fn the_order_of_sources_does_not_matter(order in Just(documents()).prop_shuffle()) {
        let read = |texts: &[&str]| {
            let sources: Vec<Source> = texts
                .iter()
                .map(|text| Source::new(format!("{}.yaml", documents().iter().position(|d| d == text).unwrap_or(99)), *text))
                .collect();
            load(&sources, &LoadOptions::default())
        };
        let (first, second) = (read(&documents()), read(&order));
        prop_assert_eq!(&first.services, &second.services);
        prop_assert_eq!(&first.deployments, &second.deployments);
        prop_assert_eq!(&first.virtual_services, &second.virtual_services);
        prop_assert_eq!(&first.destination_rules, &second.destination_rules);
        prop_assert_eq!(&first.peer_authentications, &second.peer_authentications);
        prop_assert_eq!(&first.mesh, &second.mesh);
        prop_assert_eq!(Report::new(&first).to_string(), Report::new(&second).to_string());
    }
}
