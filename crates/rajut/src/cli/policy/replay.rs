//! `rajut policy replay`: what was recorded of the mesh's requests (`/v1/records`), judged by policies that are not in force yet.
//!
//! A request is compared with what became of it then. What depends on something that was not recorded is unknown, counted and listed.
//! Bounds: [`ROWS_MAX`] kinds of changes are told apart, the rest is counted; one part of the recording is held at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rajut_config::{Loaded, Snapshot, model::Workload};
use rajut_control::judge::{Because, Judge, recorded::Weighed, snapshot};
use rajut_telemetry::recording::{Digester, Segment, Tuple, segments};
use serde_json::{Value, json};

use super::{PolicyFiles, placed};
use crate::{
    cli::{WrongUsage, block_on, mesh::Place, time, top::plain},
    output::{self, Format, Table},
};

/// Kinds of changes that are told apart.
const ROWS_MAX: usize = 10_000;

/// `rajut policy replay`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut policy replay -f k8s/                what the files would change of the last three days
  rajut policy replay -f k8s/ --since 12h    of the last twelve hours
  rajut policy replay -f k8s/ -o json        for programs

Exit status 1: something would newly be refused or allowed, or nothing is recorded.")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    files: PolicyFiles,
    /// How far back: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "3d", value_parser = seconds)]
    since: u64,
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    format: Format,
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "write a whole number with its unit: 90s, 30m, 12h, 3d".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor)
        .filter(|all| *all > 0)
        .ok_or_else(wrong)
}

pub(super) fn replay(place: &Place, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    if args.files.files.is_empty() {
        return Err(WrongUsage("say by which files: -f PATH".to_owned()).into());
    }
    let loaded = args.files.load()?;
    let snapshot = snapshot(&loaded);
    let mut replayed = Replayed::new(&snapshot, &loaded);
    let control = place.control()?;
    let mut after = 0;
    loop {
        let path = format!("/v1/records?sinceSeconds={}&after={after}", args.since);
        let part = block_on(async { Ok(control.json("GET", &path, None).await?) })?;
        replayed.take(&part)?;
        match part.get("next").and_then(Value::as_u64) {
            Some(next) => after = next,
            None => break,
        }
    }
    let found = replayed.found;
    match args.format {
        Format::Text => output::print(&found.text(args.since))?,
        Format::Json => output::print_json(&found.json(args.since))?,
    }
    Ok(ExitCode::from(u8::from(found.is_no())))
}

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Refused,
    Allowed,
    Unknown,
}

impl Change {
    const fn word(self) -> &'static str {
        match self {
            Self::Refused => "newly refused",
            Self::Allowed => "newly allowed",
            Self::Unknown => "unknown",
        }
    }

    const fn member(self) -> &'static str {
        match self {
            Self::Refused => "newlyRefused",
            Self::Allowed => "newlyAllowed",
            Self::Unknown => "unknown",
        }
    }
}

/// Requests whose change is the same, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    change: Change,
    caller: String,
    workload: String,
    port: Option<u16>,
    method: String,
    path: String,
    /// Who decides, or what is not known.
    why: String,
}

#[derive(Debug, Default)]
struct Tally {
    count: u64,
    last_ms: u64,
    example: u64,
}

#[derive(Debug, Default)]
struct Found {
    rows: BTreeMap<Row, Tally>,
    /// Of kinds for which there was no room.
    left_out: u64,
    counts: BTreeMap<Change, u64>,
    unchanged: u64,
    /// What was asked for and not recorded → requests that it decides.
    missing: BTreeMap<String, u64>,
    damaged: u64,
    oldest: Option<String>,
    stopped: Option<String>,
    /// What is recorded of requests that are let through, a share.
    share: f64,
}

struct Replayed<'s> {
    loaded: &'s Loaded,
    judge: Judge<'s>,
    /// By namespace and name, one of those that are alike.
    workloads: BTreeMap<(String, String), Arc<Workload>>,
    found: Found,
}

impl<'s> Replayed<'s> {
    fn new(snapshot: &'s Snapshot, loaded: &'s Loaded) -> Self {
        let mut workloads = BTreeMap::new();
        for workload in snapshot.workloads.values() {
            for name in [&workload.deployment, &workload.name] {
                let key = (workload.namespace.to_string(), name.to_string());
                workloads.entry(key).or_insert_with(|| Arc::clone(workload));
            }
        }
        Self {
            loaded,
            judge: Judge::new(snapshot),
            workloads,
            found: Found::default(),
        }
    }

    fn take(&mut self, part: &Value) -> anyhow::Result<()> {
        let text = |name: &str| part.get(name).and_then(Value::as_str);
        self.found.damaged += part
            .get("damagedBytes")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        self.found.oldest = text("oldest").map(ToOwned::to_owned);
        self.found.stopped = text("stopped").map(ToOwned::to_owned);
        self.found.share = part
            .pointer("/recording/allowedShare")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        let Some(key) = text("key") else { return Ok(()) };
        let digester = Digester::new(&STANDARD.decode(key).context("the key of the recording")?);
        let records = part.get("records").and_then(Value::as_array);
        for record in records.into_iter().flatten() {
            let encoded = record.get("request").and_then(Value::as_str).unwrap_or_default();
            let decoded = STANDARD.decode(encoded).ok();
            let Some(tuple) = decoded.and_then(|bytes| Tuple::decode(&bytes)) else {
                continue;
            };
            let count = record.get("count").and_then(Value::as_u64).unwrap_or(1);
            self.judged(&tuple, count, &digester);
        }
        Ok(())
    }

    fn judged(&mut self, tuple: &Tuple, count: u64, digester: &Digester) {
        let key = (tuple.namespace.to_string(), tuple.workload.to_string());
        let weighed = match self.workloads.get(&key) {
            Some(workload) => self.judge.weigh(workload, tuple, digester),
            None => Weighed::Unknown(BTreeSet::from(["a workload that is not in the files".to_owned()])),
        };
        let by = |because: &Because| placed(because, self.loaded).to_string();
        let (change, why) = match (&weighed, tuple.refused) {
            (Weighed::Allowed(_), false) | (Weighed::Refused(_), true) => {
                self.found.unchanged += count;
                return;
            }
            (Weighed::Refused(because), false) => (Change::Refused, by(because)),
            (Weighed::Allowed(because), true) => (Change::Allowed, by(because)),
            (Weighed::Unknown(facts), _) => {
                for fact in facts {
                    *self.found.missing.entry(fact.clone()).or_default() += count;
                }
                let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
                (Change::Unknown, facts.join(", "))
            }
        };
        self.found.add(row(tuple, change, why), count, tuple);
    }
}

fn row(tuple: &Tuple, change: Change, why: String) -> Row {
    let caller = match &*tuple.source {
        "" => "(plain text)",
        source => source.strip_prefix("spiffe://").unwrap_or(source),
    };
    let path = tuple
        .path
        .as_deref()
        .map_or_else(|| "(too long)".to_owned(), shown);
    Row {
        change,
        caller: caller.to_owned(),
        workload: format!("{}.{}", tuple.workload, tuple.namespace),
        port: tuple.local.map(|local| local.port()),
        method: tuple.method.to_string(),
        path,
        why,
    }
}

/// A path with `{id}` for what was recorded as a digest.
fn shown(path: &str) -> String {
    let parts = segments(path).map(|segment| match segment {
        Segment::Clear(text) => text,
        Segment::Digest { .. } => "{id}",
    });
    parts.collect::<Vec<_>>().join("/")
}

impl Found {
    fn add(&mut self, row: Row, count: u64, tuple: &Tuple) {
        *self.counts.entry(row.change).or_default() += count;
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&row) {
            self.left_out += count;
            return;
        }
        let tally = self.rows.entry(row).or_default();
        tally.count += count;
        if tuple.time_ms >= tally.last_ms {
            tally.last_ms = tuple.time_ms;
            tally.example = tuple.id;
        }
    }

    fn count(&self, change: Change) -> u64 {
        self.counts.get(&change).copied().unwrap_or_default()
    }

    fn requests(&self) -> u64 {
        self.unchanged + self.counts.values().sum::<u64>()
    }

    /// Something changes, or nobody knows.
    fn is_no(&self) -> bool {
        self.requests() == 0 || self.count(Change::Refused) + self.count(Change::Allowed) > 0
    }

    fn json(&self, since: u64) -> Value {
        let row = |(row, tally): (&Row, &Tally)| {
            json!({
                "change": row.change.member(),
                "caller": row.caller,
                "workload": row.workload,
                "port": row.port,
                "method": row.method,
                "path": row.path,
                "why": row.why,
                "count": tally.count,
                "last": when(tally.last_ms),
                "example": format!("{:016x}", tally.example),
            })
        };
        let missing = |(fact, count): (&String, &u64)| json!({"fact": fact, "count": count});
        json!({
            "sinceSeconds": since,
            "oldest": self.oldest,
            "requests": self.requests(),
            "unchanged": self.unchanged,
            "newlyRefused": self.count(Change::Refused),
            "newlyAllowed": self.count(Change::Allowed),
            "unknown": self.count(Change::Unknown),
            "changes": self.rows.iter().map(row).collect::<Vec<_>>(),
            "notRecorded": self.missing.iter().map(missing).collect::<Vec<_>>(),
            "leftOut": self.left_out,
            "damagedBytes": self.damaged,
            "allowedShare": self.share,
            "stopped": self.stopped,
        })
    }

    fn text(&self, since: u64) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            let mut table = Table::new(&[
                "CHANGE", "COUNT", "CALLER", "WORKLOAD", "PORT", "METHOD", "PATH", "LAST", "WHY",
            ]);
            for (row, tally) in &self.rows {
                let port = row.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
                let cells = [
                    row.change.word().to_owned(),
                    tally.count.to_string(),
                    row.caller.clone(),
                    row.workload.clone(),
                    port,
                    row.method.clone(),
                    row.path.clone(),
                    when(tally.last_ms),
                    row.why.clone(),
                ];
                table.row(cells.map(|cell| plain(&cell)));
            }
            text = table.render();
        }
        if self.requests() == 0 {
            append!(
                text,
                "no data: nothing was recorded in the last {since} seconds (Envoy as the data plane records nothing), so nothing was judged\n"
            );
        } else {
            append!(
                text,
                "{} requests of the last {since} seconds: {} newly refused, {} newly allowed, {} as before, {} unknown\n",
                self.requests(),
                self.count(Change::Refused),
                self.count(Change::Allowed),
                self.unchanged,
                self.count(Change::Unknown)
            );
        }
        for (fact, count) in &self.missing {
            append!(text, "{count} depend on what was not recorded: {}\n", plain(fact));
        }
        if self.left_out > 0 {
            append!(text, "{} more changes are not shown\n", self.left_out);
        }
        if self.share < 1.0 {
            append!(
                text,
                "of requests that are let through {} % are recorded (RAJUT_RECORD): what would newly be refused is seen in that part\n",
                self.share * 100.0
            );
        }
        if self.damaged > 0 {
            append!(
                text,
                "{} bytes of the recording are damaged and were not read\n",
                self.damaged
            );
        }
        if let Some(why) = &self.stopped {
            append!(text, "nothing is recorded now: {}\n", plain(why));
        }
        text
    }
}

fn when(millis: u64) -> String {
    time::format(i64::try_from(millis / 1000).unwrap_or_default())
}

#[cfg(test)]
mod tests;
