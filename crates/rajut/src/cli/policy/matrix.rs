//! `rajut policy matrix`: who may call whom, by which rule, and what differs between two revisions.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use rajut_config::Loaded;
use rajut_control::{
    judge::{
        Because, Judge,
        matrix::{Answer, Matrix, Probes, Question, difference, matrix as ask},
        snapshot,
    },
    reach::Outcome,
};
use serde_json::{Value, json};

use super::{PolicyFiles, load, placed, running};
use crate::{
    cli::{mesh::Place, top::plain},
    output::{self, Table},
};

/// Callers that a line of the table names.
const CALLERS_SHOWN: usize = 4;

/// `rajut policy matrix`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut policy matrix -f k8s/                                   of files
  rajut policy matrix                                           of the running mesh
  rajut policy matrix -f k8s/ --against k8s-before/ --exit-code what a change opens and closes")]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    files: PolicyFiles,
    /// The revision before, a file or folder: only what differs is shown
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Exit with 1 if anything differs
    #[arg(long, requires = "against")]
    exit_code: bool,
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    format: Form,
}

/// `-o` of `policy matrix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For spreadsheets
    Csv,
    /// For programs
    Json,
}

pub(super) fn matrix(place: &Place, args: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let loaded = if args.files.files.is_empty() {
        running(place)?
    } else {
        args.files.load()?
    };
    match &args.against {
        None => {
            let snapshot = snapshot(&loaded);
            let mut judge = Judge::new(&snapshot);
            let mut probes = Probes::default();
            probes.add(&mut judge);
            let found = ask(&mut judge, &probes);
            show(&found, &loaded, args.format)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(before) => {
            let before = load(std::slice::from_ref(before), &args.files.namespace)?;
            compare(&before, &loaded, args)
        }
    }
}

fn compare(before: &Loaded, after: &Loaded, args: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let (old, new) = (snapshot(before), snapshot(after));
    let (mut old_judge, mut new_judge) = (Judge::new(&old), Judge::new(&new));
    let mut probes = Probes::default();
    probes.add(&mut old_judge);
    probes.add(&mut new_judge);
    let found = difference(&ask(&mut old_judge, &probes), &ask(&mut new_judge, &probes));
    let rows = found.iter().map(|(question, (old, new))| Difference {
        question,
        old: old.as_ref(),
        new: new.as_ref(),
        because: because(new.as_ref(), after).or_else(|| because(old.as_ref(), before)),
    });
    let rows: Vec<Difference<'_>> = rows.collect();
    match args.format {
        Form::Text => output::print(&differences_text(&rows))?,
        Form::Csv => output::print(&differences_csv(&rows))?,
        Form::Json => output::print_json(&json!({
            "differences": rows.iter().map(Difference::json).collect::<Vec<_>>(),
        }))?,
    }
    Ok(ExitCode::from(u8::from(args.exit_code && !rows.is_empty())))
}

struct Difference<'d> {
    question: &'d Question,
    old: Option<&'d Answer>,
    new: Option<&'d Answer>,
    because: Option<String>,
}

impl Difference<'_> {
    fn json(&self) -> Value {
        let mut row = json!(self.question);
        row["before"] = json!(self.old.map(|it| word(it.outcome)));
        row["after"] = json!(self.new.map(|it| word(it.outcome)));
        row["by"] = json!(self.because);
        row
    }

    /// `now allowed`, `now refused`, …
    fn what(&self) -> String {
        match (self.old, self.new) {
            (Some(old), Some(new)) => format!("{} -> {}", word(old.outcome), word(new.outcome)),
            (None, Some(new)) => format!("new -> {}", word(new.outcome)),
            (Some(old), None) => format!("{} -> gone", word(old.outcome)),
            (None, None) => String::new(),
        }
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Sometimes => "depends",
        Outcome::Refused => "refused",
    }
}

fn because(answer: Option<&Answer>, loaded: &Loaded) -> Option<String> {
    Some(reasons(&answer?.by, loaded))
}

fn reasons(by: &[Because], loaded: &Loaded) -> String {
    let all: Vec<String> = by.iter().map(|one| placed(one, loaded).to_string()).collect();
    all.join("; ")
}

fn caller(question: &Question) -> &str {
    let identity = question.caller.as_deref();
    identity.map_or("(plain text)", |it| it.strip_prefix("spiffe://").unwrap_or(it))
}

fn asked(question: &Question) -> [String; 4] {
    let or_any = |text: Option<&str>| text.unwrap_or("*").to_owned();
    [
        format!("{}.{}", question.workload, question.namespace),
        question
            .port
            .map_or_else(|| "*".to_owned(), |port| port.to_string()),
        or_any(question.route.method.as_deref()),
        or_any(question.route.path.as_deref()),
    ]
}

fn show(found: &Matrix, loaded: &Loaded, format: Form) -> anyhow::Result<()> {
    if found.left_out > 0 {
        output::warn(&format!("rajut: {} more verdicts are not shown", found.left_out));
    }
    match format {
        Form::Text => output::print(&table(found, loaded)),
        Form::Csv => output::print(&csv(found, loaded)),
        Form::Json => {
            let cells = found.cells.iter().map(|(question, answer)| {
                let mut row = json!(question);
                let by: Vec<Because> = answer.by.iter().map(|one| placed(one, loaded)).collect();
                row["verdict"] = json!(word(answer.outcome));
                row["by"] = json!(by);
                row
            });
            output::print_json(&json!({
                "verdicts": cells.collect::<Vec<_>>(),
                "leftOut": found.left_out,
            }))
        }
    }
}

/// A line for all callers that have one answer.
fn table(found: &Matrix, loaded: &Loaded) -> String {
    let mut lines: BTreeMap<[String; 4], BTreeMap<&Answer, Vec<&str>>> = BTreeMap::new();
    for (question, answer) in &found.cells {
        let of_line = lines.entry(asked(question)).or_default();
        of_line.entry(answer).or_default().push(caller(question));
    }
    if lines.is_empty() {
        return "there are no workloads that can be called\n".to_owned();
    }
    let mut table = Table::new(&["WORKLOAD", "PORT", "METHOD", "PATH", "VERDICT", "CALLERS", "WHY"]);
    for (cells, answers) in lines {
        let all: usize = answers.values().map(Vec::len).sum();
        for (answer, callers) in answers {
            let verdict = word(answer.outcome).to_owned();
            let row = [verdict, named(&callers, all), reasons(&answer.by, loaded)];
            table.row(cells.iter().cloned().chain(row).map(|cell| plain(&cell)));
        }
    }
    table.render()
}

fn named(callers: &[&str], all: usize) -> String {
    if callers.len() == all {
        return "everybody".to_owned();
    }
    let mut text = callers
        .iter()
        .take(CALLERS_SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if callers.len() > CALLERS_SHOWN {
        append!(text, " and {} more", callers.len() - CALLERS_SHOWN);
    }
    text
}

fn csv(found: &Matrix, loaded: &Loaded) -> String {
    let mut text = "caller,workload,port,method,path,verdict,why\n".to_owned();
    for (question, answer) in &found.cells {
        let verdict = word(answer.outcome).to_owned();
        let cells = [verdict, reasons(&answer.by, loaded)];
        csv_line(&mut text, question, cells);
    }
    text
}

fn csv_line<const N: usize>(text: &mut String, question: &Question, more: [String; N]) {
    let cells = std::iter::once(caller(question).to_owned())
        .chain(asked(question))
        .chain(more);
    let quoted: Vec<String> = cells.map(|cell| field(&cell)).collect();
    append!(*text, "{}\n", quoted.join(","));
}

/// RFC 4180; what a spreadsheet would take for a formula begins with a blank.
fn field(cell: &str) -> String {
    let guarded = if cell.starts_with(['=', '+', '-', '@']) {
        format!(" {cell}")
    } else {
        cell.to_owned()
    };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

fn differences_text(rows: &[Difference<'_>]) -> String {
    if rows.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let mut table = Table::new(&["CHANGE", "CALLER", "WORKLOAD", "PORT", "METHOD", "PATH", "WHY"]);
    for row in rows {
        let head = [row.what(), caller(row.question).to_owned()];
        let why = row.because.clone().unwrap_or_default();
        let cells = head.into_iter().chain(asked(row.question)).chain([why]);
        table.row(cells.map(|cell| plain(&cell)));
    }
    let count = |outcome| {
        let now = rows
            .iter()
            .filter(|row| row.new.map(|it| it.outcome) == Some(outcome));
        now.count()
    };
    let mut text = table.render();
    append!(
        text,
        "{} newly allowed, {} newly refused, {} now depend on the request\n",
        count(Outcome::Allowed),
        count(Outcome::Refused),
        count(Outcome::Sometimes)
    );
    text
}

fn differences_csv(rows: &[Difference<'_>]) -> String {
    let mut text = "caller,workload,port,method,path,before,after,why\n".to_owned();
    for row in rows {
        let of = |answer: Option<&Answer>| answer.map_or("", |it| word(it.outcome)).to_owned();
        let cells = [of(row.old), of(row.new), row.because.clone().unwrap_or_default()];
        csv_line(&mut text, row.question, cells);
    }
    text
}
