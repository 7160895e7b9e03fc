//! Node's defaults, which have broken many a proxy: an idle connection is closed after 5 s, just when the next request
//! comes, and `server.close()` on SIGTERM closes those that are idle at that moment.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    client::Connection,
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "node_20000_requests_across_its_idle_timeout_none_fails_no_post_comes_twice",
        planes: BOTH,
        run: idle,
    },
    Scenario {
        name: "node_replicas_restart_one_by_one_under_load_and_nothing_fails",
        planes: BOTH,
        run: restarts,
    },
    Scenario {
        name: "node_replicas_end_under_load_unannounced_few_get_a_503_and_no_post_comes_twice",
        planes: BOTH,
        run: terminations,
    },
];

/// All requests, at least.
const REQUESTS: u32 = 20_000;
/// Clients that pause for as long as Node keeps an idle connection.
const SLOW: u32 = 120;
/// Their requests each.
const ROUNDS: u32 = 8;
/// Clients that don't pause.
const FAST: u32 = 12;
/// Just before the end of Node's `keepAliveTimeout`.
const EARLIEST: Duration = Duration::from_millis(5_000 - 60);

/// What the clients share.
#[derive(Default)]
struct Tally {
    next: AtomicU32,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn sent(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// One request with an id of its own, GET and POST in turn.
    fn send(&self, kept: &mut Option<Connection>, address: &str) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let method = if id.is_multiple_of(2) { "GET" } else { "POST" };
        let body: &[u8] = if method == "POST" { b"a body" } else { b"" };
        let mut call = || -> Result {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(address)?,
            };
            let answer = connection.request(method, address, &format!("/id/{id}"), &[], body)?;
            if (answer.status, answer.text()) != (200, format!("{method} {id}")) {
                return Err(format!("{} {}", answer.status, answer.text()).into());
            }
            if answer.header("connection") != Some("close") {
                *kept = Some(connection);
            }
            Ok(())
        };
        if let Err(error) = call() {
            self.failures
                .lock()
                .expect("not poisoned")
                .push(format!("{method} {id}: {error}"));
        }
    }
}

fn server(deliveries: &str) -> Setup {
    let run = format!(
        "DELIVERIES={deliveries} exec node {} ${{PORT:-8080}}",
        lab::app("node_server.mjs").display()
    );
    let yaml = lab::yaml(&Workload {
        name: "node",
        port: 8080,
        port_name: "http",
        replicas: 2,
        run,
        more: "",
    });
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n";
    Setup::yaml(&format!("{namespace}{}{yaml}", lab::STRICT)).arguments(&["-n", "lab"])
}

/// Ends one replica's process behind the mesh's back, and waits until its successor is ready.
fn terminate(mesh: &Mesh, replica: &str) -> Result {
    let pid = |row: &serde_json::Value| row["application"]["pid"].as_u64();
    let before = pid(&mesh.workload(replica)?).ok_or("no process")?;
    let started = Instant::now();
    let ended = std::process::Command::new("kill")
        .args(["-TERM", &before.to_string()])
        .status()?;
    if !ended.success() {
        return Err(format!("{replica} has no process {before}").into());
    }
    eventually(&format!("{replica} is back"), Duration::from_mins(1), || {
        let row = mesh.workload(replica).ok()?;
        (row["ready"] == true && pid(&row) != Some(before)).then_some(())
    })?;
    println!(
        "    {replica} is back after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Starts one replica anew as `rajut` does.
fn restart(mesh: &Mesh, replica: &str) -> Result {
    print!("    {}", mesh.rajut(&["restart", replica])?);
    Ok(())
}

/// Requests whose connection has been idle for as long as Node keeps it, give or take 60 ms.
fn slow_client(tally: &Tally, number: u32, address: &str) {
    let mut kept = None;
    for round in 0..ROUNDS {
        tally.send(&mut kept, address);
        let jitter = Duration::from_millis(u64::from((number * 7 + round * 13) % 120));
        std::thread::sleep(EARLIEST + jitter);
    }
}

/// Two replicas, and what their clients sent.
struct Bench {
    mesh: Mesh,
    address: String,
    deliveries: PathBuf,
    tally: Tally,
}

impl Bench {
    fn start(plane: Plane, name: &str) -> Result<Self> {
        let file = format!("rajut-{name}-{}-{}", std::process::id(), plane.name());
        let deliveries = std::env::temp_dir().join(file);
        let mesh = Mesh::up(plane, &server(&deliveries.display().to_string()))?;
        Ok(Self {
            address: mesh.host_address("node")?,
            mesh,
            deliveries,
            tally: Tally::default(),
        })
    }

    /// Requests one after the other for as long as `going` says so.
    fn fast_client(&self, going: impl Fn() -> bool) {
        let mut kept = None;
        while going() {
            self.tally.send(&mut kept, &self.address);
        }
    }

    /// `lost_max`: POSTs that may have failed, each of which nobody can know not to have been processed.
    fn finish(self, started: Instant, lost_max: usize) -> Result<Outcome> {
        let sent = self.tally.sent();
        println!("    {sent} requests in {:.1} s", started.elapsed().as_secs_f64());
        let text = fs::read_to_string(&self.deliveries)?;
        fs::remove_file(&self.deliveries)?;
        judge(&self.tally, sent, &text, lost_max)?;
        self.mesh.down()?;
        Ok(Outcome::Passed)
    }
}

fn idle(plane: Plane) -> Result<Outcome> {
    if !crate::mesh::have("node") {
        return Ok(Outcome::Skipped("node is not here".into()));
    }
    let bench = Bench::start(plane, "idle")?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..SLOW {
            let bench = &bench;
            scope.spawn(move || slow_client(&bench.tally, number, &bench.address));
        }
        for _ in 0..FAST {
            scope.spawn(|| bench.fast_client(|| bench.tally.sent() < REQUESTS));
        }
    });
    bench.finish(started, 0)
}

fn restarts(plane: Plane) -> Result<Outcome> {
    one_by_one(plane, "restarts", restart, 0)
}

/// `server.close()` closes connections on which a request has arrived that it has not read yet. From outside that looks
/// like one that was processed and then reset, so a POST is not sent again: its client is told. So is, rarely, one that
/// sent a GET: where the connection that the server closed was new, nobody repeats it without a retry policy that says so.
fn terminations(plane: Plane) -> Result<Outcome> {
    let under_way = FAST as usize;
    one_by_one(plane, "terminations", terminate, REPLICAS.len() * under_way)
}

/// The replicas in the order in which they end.
const REPLICAS: [&str; 3] = ["node-0", "node-1", "node-0"];

fn one_by_one(plane: Plane, name: &str, end: fn(&Mesh, &str) -> Result, lost_max: usize) -> Result<Outcome> {
    if !crate::mesh::have("node") {
        return Ok(Outcome::Skipped("node is not here".into()));
    }
    let bench = Bench::start(plane, name)?;
    let (started, going) = (Instant::now(), AtomicBool::new(true));
    std::thread::scope(|scope| -> Result {
        for _ in 0..FAST {
            scope.spawn(|| bench.fast_client(|| going.load(Ordering::Relaxed)));
        }
        let ended = REPLICAS.iter().try_for_each(|replica| {
            // Every replica has taken requests again before the next one goes.
            let before = bench.tally.sent();
            let more = || (bench.tally.sent() > before + 500).then_some(());
            eventually("more requests", Duration::from_mins(1), more)?;
            end(&bench.mesh, replica)
        });
        going.store(false, Ordering::Relaxed);
        ended
    })?;
    bench.finish(started, lost_max)
}

fn judge(tally: &Tally, sent: u32, deliveries: &str, lost_max: usize) -> Result {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for line in deliveries.lines() {
        *counts.entry(line).or_default() += 1;
    }
    let twice: Vec<_> = counts
        .iter()
        .filter(|(line, count)| line.starts_with("POST") && **count > 1)
        .collect();
    let failures = tally.failures.lock().expect("not poisoned");
    let is_lost = |failure: &&String| failure.contains(": 503 ");
    let lost = failures.iter().filter(is_lost).count().min(lost_max);
    if !twice.is_empty() || failures.len() > lost {
        return Err(format!(
            "{} of {sent} requests failed: {:?}\n{} POSTs were delivered twice: {twice:?}",
            failures.len(),
            failures.iter().take(5).collect::<Vec<_>>(),
            twice.len(),
        )
        .into());
    }
    if lost > 0 {
        println!("    {lost} requests that were under way were answered 503");
    }
    if counts.len() + lost < sent as usize {
        return Err(format!("{sent} were answered, {} delivered", counts.len()).into());
    }
    Ok(())
}
