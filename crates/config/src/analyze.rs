//! The report of `rajut analyze`: as text, JSON, and SARIF 2.1.0.
//!
//! Pure: the caller prints. The JSON form is a stable interface; SARIF is what code hosts show beside a change.

mod sarif;

use std::{collections::BTreeSet, fmt};

use rajut_types::{Diagnostic, ObjectRef, Severity};
use serde_json::{Value, json};

use crate::{Counts, Loaded, check};

/// What there is to say about a set of sources.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of reading and of relations, by source, line, column and code.
    pub diagnostics: Vec<Diagnostic>,
    /// How many documents.
    pub counts: Counts,
}

impl Report {
    /// Judges what was loaded.
    pub fn new(loaded: &Loaded) -> Self {
        let mut diagnostics = loaded.diagnostics.clone();
        let relations = check(loaded);
        let counts = counts(loaded, &relations);
        diagnostics.extend(relations);
        diagnostics.sort_by(|a, b| order(a).cmp(&order(b)));
        diagnostics.dedup();
        Self { diagnostics, counts }
    }

    /// Whether the answer is no: some error was found.
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// How many findings there are of that severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == severity).count()
    }

    /// The last line: `63 documents: 51 used, 9 not ours, 3 wrong`.
    pub fn summary(&self) -> String {
        let Counts {
            documents,
            used,
            foreign,
            wrong,
        } = self.counts;
        let noun = if documents == 1 { "document" } else { "documents" };
        format!("{documents} {noun}: {used} used, {foreign} not ours, {wrong} wrong")
    }

    /// The form of `-o json`.
    pub fn json(&self) -> Value {
        json!({
            "diagnostics": self.diagnostics,
            "documents": self.counts,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
        })
    }

    /// The form of `-o sarif`: SARIF 2.1.0.
    pub fn sarif(&self) -> Value {
        sarif::render(self)
    }
}

/// A document whose object can be read and names what is not there is wrong, too.
fn counts(loaded: &Loaded, relations: &[Diagnostic]) -> Counts {
    let of_relations = relations
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| &found.origin.object);
    let wrong: BTreeSet<&ObjectRef> = of_relations
        .chain(&loaded.unrelated)
        .filter(|object| !loaded.broken.contains(object))
        .collect();
    let mut counts = loaded.counts;
    // A list is one document with several objects.
    let more = wrong.len().min(counts.used);
    counts.used -= more;
    counts.wrong += more;
    counts
}

fn order(d: &Diagnostic) -> impl Ord + '_ {
    (
        &d.origin.source,
        d.span.line,
        d.span.column,
        d.code,
        &d.message,
        d.severity,
    )
}

impl fmt::Display for Report {
    /// The form of `-o text`: each finding with its place, then the summary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        writeln!(f, "{}", self.summary())
    }
}

#[cfg(test)]
mod tests;
