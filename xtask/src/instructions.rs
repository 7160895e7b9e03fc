//! `cargo xtask instructions`: how many instructions a request, a choice of route, a decision about access and a change of
//! configuration cost, against the record in `bench/instructions.toml`.
//!
//! Requests are counted from mark to mark under callgrind; the other kinds are run twice, with few and with more of it, and the
//! difference over the number of what was more is their cost, without start-up. Instructions do not depend on how busy the machine is (system calls count as what
//! leads to them, so that a new one shows little: `bench/` measures those). Fails when a figure exceeds its record by more
//! than [`TOLERANCE`]; `--update` writes the record, which then belongs to the same commit as what changed it.
//!
//! A request goes through the proxy of the release build (one worker), from a client through one hop to a server, both in
//! this process (`exchange`), on one connection, one after the other. The rest are the pieces of `xtask/counted`.
//! Everything is bounded in time. The record is of x86-64; elsewhere figures are printed and held against nothing.

mod exchange;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use self::exchange::{BROWSER, Client, GET, Message, POST, RPC};

/// Growth that fails.
const TOLERANCE: f64 = 0.10;
/// The record.
const RECORD: &str = "bench/instructions.toml";
/// The bootstrap of the proxy through which requests go.
const BOOTSTRAP: &str = "bench/instructions.yaml";
/// What stands in it for the listeners' ports.
const LISTENERS: &[&str] = &["plain", "everything", "http2"];
/// Requests of every run, so that pools and caches are filled; and those that are counted.
const WARM: u32 = 200;
const COUNTED: u32 = 1000;
/// So long after its start a proxy has let go of what only its start needed.
const SETTLED: Duration = Duration::from_millis(3500);
/// Longest wait for a program under callgrind to start, to answer and to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

const HEAD: &str = "\
# Instructions of one piece of work (callgrind, x86-64, the release profile); the record that
# `cargo xtask ci` holds new figures against: more than 10 % above fails.
# Of a build that is not incremental (CARGO_INCREMENTAL=0), as `cargo xtask ci` makes it.
# A change that is worth its cost updates it in the same commit: `cargo xtask instructions --update`.
";

/// What is counted.
struct Kind {
    name: &'static str,
    work: Work,
}

enum Work {
    /// This message through the proxy's listener of that mark.
    Request {
        listener: &'static str,
        message: &'static Message,
    },
    /// A piece of `xtask/counted`, so many times (few, many).
    Pure {
        piece: &'static str,
        few: u32,
        many: u32,
    },
}

const fn request(name: &'static str, listener: &'static str, message: &'static Message) -> Kind {
    Kind {
        name,
        work: Work::Request { listener, message },
    }
}

const fn pure(name: &'static str, piece: &'static str, few: u32, many: u32) -> Kind {
    Kind {
        name,
        work: Work::Pure { piece, few, many },
    }
}

const KINDS: &[Kind] = &[
    request("HTTP/1.1 request, 3 headers", "plain", &GET),
    request("HTTP/1.1 request, 16 headers", "plain", &BROWSER),
    request("HTTP/1.1 request with a body", "plain", &POST),
    request(
        "HTTP/1.1 request, 7 policies, rate limit, JSON access log",
        "everything",
        &GET,
    ),
    request("HTTP/2 request", "http2", &RPC),
    pure("route match among 300 virtual hosts", "route", 1000, 5000),
    pure("decision on access, 7 policies", "policies-7", 1000, 5000),
    pure("decision on access, 500 policies", "policies-500", 1000, 5000),
    pure("translation of an endpoint's change", "endpoint-change", 2, 22),
    pure("translation of a policy's change", "policy-change", 2, 22),
];

/// Counts the kinds whose names contain one of the words (all without a word), and checks or (`--update`) writes the record.
#[expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
pub(crate) fn run(root: &Path, words: &[String]) -> Result<()> {
    let update = words.iter().any(|word| word == "--update");
    let found = Command::new("valgrind").arg("--version").output();
    ensure!(
        found.is_ok_and(|found| found.status.success()),
        "valgrind is needed (Debian: apt-get install valgrind)"
    );
    let chosen = |kind: &&Kind| {
        let mut words = words.iter().filter(|word| *word != "--update").peekable();
        words.peek().is_none() || words.any(|word| kind.name.contains(word.as_str()))
    };
    let kinds: Vec<&Kind> = KINDS.iter().filter(chosen).collect();
    let programs = Programs::build(root, &kinds)?;
    let record = read_record(root)?;
    let mut counted = record.clone();
    let mut grown = Vec::new();
    println!("{:>12} {:>12}  instructions of", "now", "record");
    for kind in kinds {
        let now = count(root, &programs, &kind.work).with_context(|| kind.name)?;
        let before = record.get(kind.name).copied();
        println!("{}", line(kind.name, now, before));
        if has_grown(now, before) {
            grown.push(kind.name);
        }
        counted.insert(kind.name.to_owned(), now);
    }
    if update {
        ensure!(cfg!(target_arch = "x86_64"), "the record is of x86-64");
        let mut text = HEAD.to_owned();
        let known = |kind: &Kind| counted.get(kind.name).map(|count| (kind.name, *count));
        for (name, count) in KINDS.iter().filter_map(known) {
            let _ = writeln!(text, "{name:?} = {count}");
        }
        return fs::write(root.join(RECORD), text).context(RECORD);
    }
    if grown.is_empty() || cfg!(not(target_arch = "x86_64")) {
        return Ok(());
    }
    bail!(
        "more than {:.0} % above {RECORD}, or not in it: {}. Make it cheaper, or, if it is worth that, run `cargo xtask instructions \
         --update` and commit {RECORD} with the change",
        TOLERANCE * 100.0,
        grown.join("; ")
    )
}

/// `now` as a share of the record.
#[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
fn share(now: u64, before: Option<u64>) -> Option<f64> {
    Some(now as f64 / before.filter(|before| *before > 0)? as f64)
}

/// Whether `now` fails against its record; what has none fails too, so that no kind goes unwatched.
fn has_grown(now: u64, before: Option<u64>) -> bool {
    share(now, before).is_none_or(|share| share > 1.0 + TOLERANCE)
}

/// A line of the table; a record that has become too high is told, since it would hide growth.
fn line(name: &str, now: u64, before: Option<u64>) -> String {
    let shown = before.map_or("-".to_owned(), |before| before.to_string());
    let told = match share(now, before) {
        None => "  (not in the record)".to_owned(),
        Some(share) if share < 1.0 - TOLERANCE => {
            format!("  ({:.2} of the record: write it anew)", share)
        }
        Some(share) => format!("  ({share:.3})"),
    };
    format!("{now:>12} {shown:>12}  {name}{told}")
}

/// Name → instructions, from lines `"name" = number`.
fn read_record(root: &Path) -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(root.join(RECORD)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, number) = line.split_once(" = ").context("`\"name\" = number`")?;
            Ok((name.trim_matches('"').to_owned(), number.parse()?))
        })
        .collect::<Result<_>>()
        .context(RECORD)
}

/// What is run.
struct Programs {
    proxy: PathBuf,
    counted: PathBuf,
}

impl Programs {
    /// Built for release now, in one go; the proxy may be the file that `RAJUT_BIN` names, as for `cargo xtask bench`.
    fn build(root: &Path, kinds: &[&Kind]) -> Result<Self> {
        let given = std::env::var_os("RAJUT_BIN").map(PathBuf::from);
        let mut packages = Vec::new();
        if kinds.iter().any(|kind| matches!(kind.work, Work::Pure { .. })) {
            packages.extend(["--package", "counted"]);
        }
        if given.is_none() {
            packages.extend(["--package", "rajut"]);
        }
        if !packages.is_empty() {
            let status = Command::new(env!("CARGO"))
                .args(["build", "--release"])
                .args(packages)
                .current_dir(root)
                .env_remove("CARGO_TARGET_DIR")
                .status()?;
            ensure!(status.success(), "the build ended with {status}");
        }
        let folder = root.join("target/release");
        Ok(Self {
            proxy: given.unwrap_or_else(|| folder.join("rajut")),
            counted: folder.join("counted"),
        })
    }
}

fn count(root: &Path, programs: &Programs, work: &Work) -> Result<u64> {
    match *work {
        Work::Pure { piece, few, many } => {
            let total = |count: u32| {
                let words = [piece, &count.to_string()];
                callgrind(root, &programs.counted, &words, "", wait)
            };
            Ok(total(many)?.saturating_sub(total(few)?) / u64::from(many - few))
        }
        Work::Request { listener, message } => {
            let all = requests(root, &programs.proxy, listener, message)?;
            Ok(all / u64::from(COUNTED))
        }
    }
}

/// Instructions of a proxy while it serves [`COUNTED`] of this message, after [`WARM`] of them and what it does soon after
/// its start.
fn requests(root: &Path, program: &Path, listener: &str, message: &Message) -> Result<u64> {
    let origin = TcpListener::bind("127.0.0.1:0")?;
    let mut text = fs::read_to_string(root.join(BOOTSTRAP)).context(BOOTSTRAP)?;
    let mut front = 0;
    for mark in LISTENERS {
        let port = free_port()?;
        if *mark == listener {
            front = port;
        }
        text = text.replace(&format!("{{{{{mark}}}}}"), &port.to_string());
    }
    text = text.replace("{{backend}}", &origin.local_addr()?.port().to_string());
    let file = scratch(root)?.join("bootstrap.yaml");
    fs::write(&file, text)?;
    thread::spawn(move || {
        for socket in origin.incoming().flatten() {
            // Ends with its connection; what goes wrong there the client sees.
            thread::spawn(move || exchange::serve(socket));
        }
    });
    let words = ["proxy", "-c", &file.to_string_lossy()];
    callgrind(root, program, &words, ".1", |child| {
        let mut client = Client::connect(front, message, || match child.try_wait()? {
            Some(status) => bail!("the proxy ended before it answered: {status}"),
            None => Ok(()),
        })?;
        for _ in 0..WARM {
            client.ask(message)?;
        }
        let pid = child.id().to_string();
        thread::sleep(SETTLED);
        control(&["--zero", &pid])?;
        for _ in 0..COUNTED {
            client.ask(message)?;
        }
        control(&["--dump=counted", &pid])?;
        drop(client);
        let told = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(told.success(), "the proxy can't be told to end");
        wait(child)
    })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn scratch(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/instructions");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Tells the program that runs under callgrind.
fn control(words: &[&str]) -> Result<()> {
    let told = Command::new("callgrind_control").args(words).output()?;
    ensure!(
        told.status.success(),
        "callgrind_control: {}",
        String::from_utf8_lossy(&told.stderr)
    );
    Ok(())
}

/// Runs a program under callgrind while `meanwhile` uses it, and gives the instructions that it took, all of them or those of
/// the part that `dump` names.
fn callgrind(
    root: &Path,
    program: &Path,
    words: &[&str],
    dump: &str,
    meanwhile: impl FnOnce(&mut Child) -> Result<()>,
) -> Result<u64> {
    let out = scratch(root)?.join("callgrind.out");
    let mut child = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(words)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(scratch(root)?.join("stderr"))?)
        .spawn()
        .context("valgrind")?;
    let done = meanwhile(&mut child);
    if done.is_err() {
        // It may have ended by itself, which is why.
        let _ = child.kill();
        let _ = child.wait();
    }
    done.with_context(|| fs::read_to_string(root.join("target/instructions/stderr")).unwrap_or_default())?;
    let of = scratch(root)?.join(format!("callgrind.out{dump}"));
    let text = fs::read_to_string(&of).with_context(|| format!("{}", of.display()))?;
    for file in [&of, &out] {
        // Where both are the same it is gone already.
        let _ = fs::remove_file(file);
    }
    let total = |line: &str| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))?
            .trim()
            .parse()
            .ok()
    };
    text.lines()
        .filter_map(total)
        .max()
        .context("callgrind wrote no total")
}

/// Waits for its end.
fn wait(child: &mut Child) -> Result<()> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("it ended with {status}"),
            None if start.elapsed() > PATIENCE => bail!("it does not end"),
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_tenth_above_the_record_fails_and_so_does_what_is_not_in_it() {
        assert!(!has_grown(1100, Some(1000)), "a tenth is borne");
        assert!(has_grown(1101, Some(1000)));
        assert!(!has_grown(500, Some(1000)), "less is only told");
        assert!(has_grown(1, None) && has_grown(1, Some(0)));
    }

    #[test]
    fn every_kind_is_in_the_record_under_its_name_and_nothing_else_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let record = read_record(&root).unwrap();
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert!(names.iter().all(|name| record.contains_key(*name)), "{record:?}");
        assert_eq!(record.len(), names.len(), "{record:?}");
    }

    #[test]
    fn a_line_tells_the_share_of_the_record() {
        assert!(line("kind", 1050, Some(1000)).ends_with("kind  (1.050)"));
        assert!(line("kind", 800, Some(1000)).contains("write it anew"));
        assert!(line("kind", 800, None).ends_with("(not in the record)"));
    }
}
