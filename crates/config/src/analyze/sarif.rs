//! SARIF 2.1.0 (OASIS): one run, one result per finding, the table of codes as rules.

use std::{collections::BTreeSet, fmt::Write as _};

use rajut_types::{Code, Diagnostic, Severity};
use serde_json::{Value, json};

use super::Report;
use crate::codes;

pub(super) fn render(report: &Report) -> Value {
    let used: BTreeSet<Code> = report.diagnostics.iter().map(|d| d.code).collect();
    let rules: Vec<Value> = used
        .iter()
        .filter_map(|code| codes::find(*code))
        .map(rule)
        .collect();
    let results: Vec<Value> = report.diagnostics.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "rajut",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": "https://rajut.dev",
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(entry: &codes::Entry) -> Value {
    json!({
        "id": entry.code,
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": entry.explanation},
    })
}

fn result(d: &Diagnostic) -> Value {
    let text = if d.hint.is_empty() {
        d.message.clone()
    } else {
        format!("{}\n{}", d.message, d.hint)
    };
    let mut location = json!({
        "artifactLocation": {"uri": uri(&d.origin.source)},
    });
    if d.span.line > 0 {
        let mut region = json!({"startLine": d.span.line});
        if d.span.column > 0 {
            region["startColumn"] = d.span.column.into();
            region["endColumn"] = d.span.column.saturating_add(d.span.length.max(1)).into();
        }
        location["region"] = region;
    }
    json!({
        "ruleId": d.code,
        "level": match d.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        "message": {"text": text},
        "locations": [{
            "physicalLocation": location,
            "logicalLocations": [{
                "fullyQualifiedName": format!("{} {}", d.origin.object, d.origin.field_path).trim_end(),
            }],
        }],
    })
}

/// A path as a relative URI reference (RFC 3986 §4.2).
fn uri(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
