//! `cargo xtask instructions`: how many instructions a request costs, against the record in `bench/instructions.toml`.
//!
//! Each kind is run under callgrind, once without and once with many of it; the difference over their number is its cost,
//! without start-up. Instructions do not depend on how busy the machine is (system calls count as what
//! leads to them, so that a new one shows little: `bench/` measures those). Fails when a figure exceeds its record by more
//! than [`TOLERANCE`]; `--update` writes the record, which then belongs to the same commit as what changed it.
//!
//! A request goes through the proxy that was built for release, from a client through one hop to a server, both in this
//! process, on one connection, one after the other. Everything is bounded in time.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// Growth that fails.
const TOLERANCE: f64 = 0.10;
/// The record.
const RECORD: &str = "bench/instructions.toml";
/// The bootstrap of the proxy through which requests go.
const BOOTSTRAP: &str = "bench/instructions.yaml";
/// Requests of every run, so that pools and caches are filled; and those that are counted.
const WARM: u32 = 200;
const COUNTED: u32 = 1000;
/// Longest wait for a program under callgrind to start, to answer and to end.
const PATIENCE: Duration = Duration::from_secs(120);

const HEAD: &str = "\
# Instructions of one piece of work (callgrind), on the machine of the last update; the record that
# `cargo xtask ci` holds new figures against: more than 10 % above fails.
# A change that is worth its cost updates it in the same commit: `cargo xtask instructions --update`.
";

/// A kind of request: it goes through the proxy's listener of that mark.
struct Kind {
    name: &'static str,
    listener: &'static str,
    request: &'static str,
}

const GET: &str =
    "GET /bench/item?id=42 HTTP/1.1\r\nhost: bench.example\r\nuser-agent: counted\r\naccept: */*\r\n\r\n";
const BROWSER: &str = "GET /bench/item?id=42 HTTP/1.1\r\nhost: bench.example\r\nconnection: keep-alive\r\n\
cache-control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/140.0.0.0 Safari/537.36\r\naccept: application/json, text/plain, */*\r\norigin: https://app.bench.example\r\n\
sec-fetch-site: same-site\r\nsec-fetch-mode: cors\r\nsec-fetch-dest: empty\r\n\
referer: https://app.bench.example/patients/4711/encounters?page=2\r\naccept-encoding: gzip, deflate, br, zstd\r\n\
accept-language: de-CH,de;q=0.9,en;q=0.8,id;q=0.7\r\ncookie: session=6f1d0c9a7be34c2f8d3e5a1b; theme=dark\r\n\r\n";
const POST: &str = "POST /bench/item HTTP/1.1\r\nhost: bench.example\r\nuser-agent: counted\r\n\
content-type: text/plain\r\ncontent-length: 17\r\n\r\nseventeen bytes.\n";

const KINDS: &[Kind] = &[
    Kind {
        name: "request, 3 headers",
        listener: "plain",
        request: GET,
    },
    Kind {
        name: "request, 16 headers",
        listener: "plain",
        request: BROWSER,
    },
    Kind {
        name: "request with a body",
        listener: "plain",
        request: POST,
    },
    Kind {
        name: "request, JSON access log",
        listener: "logged",
        request: GET,
    },
];

/// Counts, and checks or (`--update`) writes the record.
#[expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
pub(crate) fn run(root: &Path, words: &[String]) -> Result<()> {
    let update = words.iter().any(|word| word == "--update");
    let found = Command::new("valgrind").arg("--version").output();
    ensure!(
        found.is_ok_and(|found| found.status.success()),
        "valgrind is needed (Debian: apt-get install valgrind)"
    );
    let program = proxy(root)?;
    let record = read_record(root)?;
    let mut counted = BTreeMap::new();
    let mut grown = Vec::new();
    let mut bases = BTreeMap::new();
    println!("{:>12} {:>12}  instructions of", "now", "record");
    for kind in KINDS {
        let now = count(root, &program, kind, &mut bases).with_context(|| kind.name)?;
        let before = record.get(kind.name).copied();
        let shown = before.map_or("-".to_owned(), |before| before.to_string());
        println!("{now:>12} {shown:>12}  {}", kind.name);
        #[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
        if before.is_none_or(|before| now as f64 > before as f64 * (1.0 + TOLERANCE)) {
            grown.push(kind.name);
        }
        counted.insert(kind.name, now);
    }
    if update {
        let mut text = HEAD.to_owned();
        for kind in KINDS {
            let _ = writeln!(text, "{:?} = {}", kind.name, counted[kind.name]);
        }
        return fs::write(root.join(RECORD), text).context(RECORD);
    }
    if grown.is_empty() {
        return Ok(());
    }
    bail!(
        "more than {:.0} % above {RECORD}, or not in it: {}. If it is worth that, `cargo xtask instructions --update` writes the new \
         figures; commit them with the change",
        TOLERANCE * 100.0,
        grown.join("; ")
    )
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

/// The proxy: built for release now, or the file that `RAJUT_BIN` names, as for `cargo xtask bench`.
fn proxy(root: &Path) -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("RAJUT_BIN") {
        return Ok(program.into());
    }
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "rajut"])
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "the build ended with {status}");
    Ok(root.join("target/release/rajut"))
}

/// `bases`, by listener: start-up and the warm requests, which every kind's figure goes without.
fn count(root: &Path, program: &Path, kind: &Kind, bases: &mut BTreeMap<&'static str, u64>) -> Result<u64> {
    let base = match bases.get(kind.listener) {
        Some(base) => *base,
        None => requests(root, program, kind, 0)?,
    };
    bases.insert(kind.listener, base);
    let all = requests(root, program, kind, COUNTED)?;
    Ok(all.saturating_sub(base) / u64::from(COUNTED))
}

/// Instructions of a proxy from its start over [`WARM`] plain requests and `more` of this one to its end.
fn requests(root: &Path, program: &Path, kind: &Kind, more: u32) -> Result<u64> {
    let backend = TcpListener::bind("127.0.0.1:0")?;
    let mut text = fs::read_to_string(root.join(BOOTSTRAP)).context(BOOTSTRAP)?;
    let mut front = 0;
    for mark in ["plain", "logged"] {
        let port = free_port()?;
        if mark == kind.listener {
            front = port;
        }
        text = text.replace(&format!("{{{{{mark}}}}}"), &port.to_string());
    }
    text = text.replace("{{backend}}", &backend.local_addr()?.port().to_string());
    let file = scratch(root)?.join("bootstrap.yaml");
    fs::write(&file, text)?;
    thread::spawn(move || {
        for socket in backend.incoming().flatten() {
            thread::spawn(move || answer(socket));
        }
    });
    callgrind(
        root,
        program,
        &["proxy", "-c", &file.to_string_lossy()],
        |child| {
            let mut client = connect(front, child)?;
            for _ in 0..WARM {
                ask(&mut client, GET)?;
            }
            for _ in 0..more {
                ask(&mut client, kind.request)?;
            }
            drop(client);
            let pid = child.id().to_string();
            let told = Command::new("kill").args(["-TERM", &pid]).status()?;
            ensure!(told.success(), "the proxy can't be told to end");
            wait(child)
        },
    )
}

fn connect(port: u16, child: &mut Child) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(error) => {
                if let Some(status) = child.try_wait()? {
                    bail!("the proxy ended before it answered: {status}");
                }
                ensure!(start.elapsed() < PATIENCE, "the proxy does not answer: {error}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Bytes of every answer's body.
const BODY: usize = 1024;

/// Answers each message that ends an HTTP request here: by its last bytes, since the requests are our own.
fn answer(mut socket: TcpStream) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: counted\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let mut whole = head.into_bytes();
    whole.resize(whole.len() + BODY, b'x');
    let (mut buffer, mut seen) = ([0; 16 * 1024], Vec::new());
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        let body = POST.split("\r\n\r\n").nth(1).unwrap_or_default().as_bytes();
        let complete = seen.ends_with(body) || seen.ends_with(b"\r\n\r\n") && !seen.starts_with(b"POST");
        if complete {
            seen.clear();
            if socket.write_all(&whole).is_err() {
                return;
            }
        }
    }
}

fn ask(socket: &mut TcpStream, request: &str) -> Result<()> {
    socket.write_all(request.as_bytes())?;
    let (mut buffer, mut seen) = ([0; 16 * 1024], Vec::new());
    loop {
        let count = socket.read(&mut buffer).context("no answer")?;
        ensure!(count > 0, "closed without an answer");
        seen.extend_from_slice(&buffer[..count]);
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n")
            && seen.len() == end + 4 + BODY
        {
            ensure!(seen.starts_with(b"HTTP/1.1 200"), "another answer than 200");
            return Ok(());
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn scratch(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/instructions");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Runs a program under callgrind while `meanwhile` uses it, and gives the instructions that it took.
fn callgrind(
    root: &Path,
    program: &Path,
    words: &[&str],
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
    let text = fs::read_to_string(&out).with_context(|| format!("{}", out.display()))?;
    fs::remove_file(&out)?;
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
