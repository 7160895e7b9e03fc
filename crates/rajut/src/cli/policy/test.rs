//! `rajut policy test`: a table of requests and expected verdicts, judged by the policies in files.

use std::{path::PathBuf, process::ExitCode};

use rajut_config::{
    Loaded,
    policy_test::{self, PolicyTest},
};
use rajut_control::judge::{Judge, Verdict, row::Rows, snapshot};
use rajut_types::{Diagnostic, ObjectRef, Severity};
use serde_json::{Value, json};

use super::{PolicyFiles, place_of, placed, refuse_errors};
use crate::{
    cli::{WrongUsage, answer, sources, top::plain},
    output,
};

/// `rajut policy test`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status 0: all is as expected; 1: a verdict differs; 2: the input is wrong.

Example:
  rajut policy test tests.yaml -f k8s/

tests.yaml:
  tests:
  - name: nurses read records
    source: {workload: nurse.clinic}
    destination: {workload: records.clinic, port: 8080}
    request: {method: GET, path: /records/7}
    expect: allow
    by: clinic/readers")]
pub(crate) struct TestArgs {
    /// Tables of tests, YAML or JSON; a folder's are all read
    #[arg(value_name = "FILE", required = true)]
    tables: Vec<PathBuf>,
    #[command(flatten)]
    files: PolicyFiles,
    /// Show those that are as expected, too
    #[arg(long)]
    all: bool,
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    format: Form,
}

/// `-o` of `policy test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
    /// For continuous integration
    Junit,
}

/// A test with what came of it.
struct Tested {
    test: PolicyTest,
    verdict: Verdict,
}

impl Tested {
    fn passed(&self) -> bool {
        self.verdict.allowed == self.test.expect && self.decided_by_expected()
    }

    fn decided_by_expected(&self) -> bool {
        let by = self.test.by.as_ref();
        by.is_none_or(|by| self.verdict.because.is_called(by))
    }

    /// `expected deny, got allow by …`
    fn difference(&self) -> String {
        let by = self.test.by.as_ref().map(|by| format!(" by {by}"));
        let mut text = format!(
            "expected {}{}, got {}: {}",
            word(self.test.expect),
            by.unwrap_or_default(),
            word(self.verdict.allowed),
            self.verdict.because
        );
        if self.verdict.anonymous {
            text += " (the port takes plain text alone, so the caller's identity is not known there)";
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "name": &*self.test.name,
            "where": self.test.origin,
            "expected": word(self.test.expect),
            "expectedBy": self.test.by.as_deref(),
            "verdict": word(self.verdict.allowed),
            "by": self.verdict.because,
            "anonymous": self.verdict.anonymous,
            "asExpected": self.passed(),
        })
    }
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

pub(super) fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    if args.files.files.is_empty() {
        let text =
            "say where the policies are: `-f PATH`, for example `rajut policy test tests.yaml -f k8s/`";
        return Err(WrongUsage(text.to_owned()).into());
    }
    let tables = sources::read(&args.tables).map_err(|error| WrongUsage(format!("{error:#}")))?;
    let (tests, findings) = policy_test::read(&tables);
    refuse_errors(&findings)?;
    let loaded = args.files.load()?;
    let tested = judge(tests, &loaded, &args.files.namespace)?;
    let failed = tested.iter().filter(|one| !one.passed()).count();
    match args.format {
        Form::Text => output::print(&text(&tested, failed, args.all))?,
        Form::Json => output::print_json(&json!({
            "tests": tested.iter().map(Tested::json).collect::<Vec<_>>(),
            "asExpected": tested.len() - failed,
            "different": failed,
        }))?,
        Form::Junit => output::print(&junit(&tested, failed))?,
    }
    Ok(answer(failed == 0))
}

fn judge(tests: Vec<PolicyTest>, loaded: &Loaded, namespace: &str) -> anyhow::Result<Vec<Tested>> {
    let snapshot = snapshot(loaded);
    let rows = Rows::new(&snapshot, namespace);
    let mut judge = Judge::new(&snapshot);
    let (mut tested, mut unclear) = (Vec::new(), Vec::new());
    for test in tests {
        match rows.judge(&mut judge, &test) {
            Ok(verdict) => {
                let because = placed(&verdict.because, loaded);
                let verdict = Verdict { because, ..verdict };
                tested.push(Tested { test, verdict });
            }
            Err(reason) => unclear.push(finding(&test, &reason.message, &reason.hint)),
        }
    }
    refuse_errors(&unclear)?;
    Ok(tested)
}

fn finding(test: &PolicyTest, message: &str, hint: &str) -> Diagnostic {
    let mut origin = test.origin.clone();
    origin.object = ObjectRef::new("PolicyTest", "", plain(&test.name));
    let span = rajut_types::Span {
        line: origin.line,
        column: 0,
        length: 0,
    };
    Diagnostic::new(
        rajut_config::codes::UNKNOWN_VALUE,
        Severity::Error,
        origin,
        plain(message),
    )
    .at(span, "")
    .hint(plain(hint))
}

fn text(tested: &[Tested], failed: usize, all: bool) -> String {
    let mut text = String::new();
    for one in tested {
        if !one.passed() {
            append!(
                text,
                "DIFFERENT  {} ({})\n           {}\n",
                plain(&one.test.name),
                plain(&place_of(&one.test.origin)),
                plain(&one.difference())
            );
        } else if all {
            let (verdict, because) = (word(one.verdict.allowed), &one.verdict.because);
            let (name, because) = (plain(&one.test.name), plain(&because.to_string()));
            append!(text, "ok         {name}: {verdict}, {because}\n");
        }
    }
    let noun = if tested.len() == 1 { "test" } else { "tests" };
    append!(
        text,
        "{} {noun}: {} as expected, {failed} different\n",
        tested.len(),
        tested.len() - failed
    );
    text
}

fn junit(tested: &[Tested], failed: usize) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"rajut policy test\" tests=\"{}\" \
         failures=\"{failed}\" errors=\"0\" skipped=\"0\">\n",
        tested.len()
    );
    for one in tested {
        let origin = &one.test.origin;
        append!(
            text,
            "  <testcase name=\"{}\" classname=\"{}\" file=\"{}\" line=\"{}\"",
            xml(&one.test.name),
            xml(&origin.source),
            xml(&origin.source),
            origin.line
        );
        if one.passed() {
            text += "/>\n";
        } else {
            append!(
                text,
                ">\n    <failure message=\"{}\"/>\n  </testcase>\n",
                xml(&one.difference())
            );
        }
    }
    text + "</testsuite>\n"
}

/// A text as the value of an attribute; what XML 1.0 has no form for is left out.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c < ' ' || matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        let source = rajut_config::Source::new(
            "t.yaml",
            "tests:\n- {name: \"\\e[31mred\", destination: {namespace: a, port: 1}, expect: deny}\n",
        );
        let (tests, findings) = policy_test::read(&[source]);
        assert!(findings.is_empty(), "{findings:?}");
        let tested = judge(tests, &Loaded::default(), "default").expect("it is clear");
        let text = text(&tested, 1, true);
        assert!(
            text.contains("red (t.yaml:2)") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(!junit(&tested, 1).contains('\u{1b}'));
    }

    #[test]
    fn attributes_hold_no_markup() {
        assert_eq!(xml("a<b & \"c\"\u{1}>"), "a&lt;b &amp; &quot;c&quot; &gt;");
    }
}
