//! What is open stays open: answers that take long, across changes of the configuration and new certificates.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    client::{Load, steady},
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_long_answer_is_not_cut_by_20_changes_of_its_route_and_cluster",
        planes: BOTH,
        run: changes,
    },
    Scenario {
        name: "a_grpc_stream_is_not_cut_by_20_changes_of_weights",
        planes: BOTH,
        run: grpc,
    },
    Scenario {
        name: "new_certificates_cut_no_connection_and_fail_no_request",
        planes: BOTH,
        run: rotation,
    },
];

/// What certificates live in the second scenario; they are renewed at half of that.
const LIFE: &str = "20s";

pub(super) fn two() -> Setup {
    let one = |name| {
        lab::yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas: 1,
            run: format!("exec {} sample", env!("CARGO_BIN_EXE_rajut")),
            more: "",
        })
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n";
    let text = format!("{namespace}{}{}{}", lab::STRICT, one("web"), one("client"));
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

/// An answer that comes line by line for as long as it is read, from `client` to `web`.
pub(super) struct Stream {
    child: Child,
    lines: Arc<AtomicU64>,
    last: Arc<Mutex<String>>,
}

impl Stream {
    pub(super) fn open(mesh: &Mesh) -> Result<Self> {
        // An hour: longer than any test.
        let url = "http://web:8080/stream?chunks=180000&interval=20";
        Self::of(mesh, &["curl", "-sSN", "--fail", url])
    }

    /// The lines that a program inside `client` prints.
    fn of(mesh: &Mesh, program: &[&str]) -> Result<Self> {
        let mut arguments = vec!["exec", "client-0.lab", "--"];
        arguments.extend(program);
        let mut child = mesh
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let (lines, last) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(String::new())));
        let (counted, seen) = (lines.clone(), last.clone());
        std::thread::spawn(move || {
            for line in output.lines().map_while(std::result::Result::ok) {
                *seen.lock().expect("not poisoned") = line;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let stream = Self { child, lines, last };
        stream.goes_on()?;
        Ok(stream)
    }

    /// More lines come.
    pub(super) fn goes_on(&self) -> Result<u64> {
        let before = self.lines.load(Ordering::Relaxed);
        let more = || {
            let now = self.lines.load(Ordering::Relaxed);
            (now > before + 10).then_some(now)
        };
        eventually("more of the answer", Duration::from_secs(20), more).map_err(|error| {
            let last = self.last.lock().expect("not poisoned").clone();
            format!("the answer ended after {before} lines, the last one {last:?}: {error}").into()
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Route and cluster are other ones each time.
fn change(number: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: lab}}
spec:
  hosts: [web]
  http:
  - headers: {{response: {{set: {{x-change: '{number}'}}}}}}
    route: [{{destination: {{host: web}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: lab}}
spec:
  host: web
  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}}}}}}}
",
        100 + number
    )
}

fn changes(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &two())?;
    let stream = Stream::open(&mesh)?;
    let started = Instant::now();
    for number in 0..20 {
        let applied = mesh.apply(&change(number))?;
        if applied["rejected"]
            .as_array()
            .is_some_and(|refused| !refused.is_empty())
        {
            return Err(format!("refused: {applied:#}").into());
        }
    }
    let took = started.elapsed().as_secs_f64();
    // The last change is in force for what is asked now, and the answer of before still comes.
    let call = [
        "curl",
        "-sS",
        "-D-",
        "--max-time",
        "10",
        "http://web:8080/status/200",
    ];
    let head = mesh.exec("client-0.lab", &call)?;
    if !head.to_lowercase().contains("x-change: 19") {
        return Err(format!("the last change is not in force: {head}").into());
    }
    println!(
        "    20 changes in {took:.1} s, {} lines of the answer",
        stream.goes_on()?
    );
    drop(stream);
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// Calls of `rpc` go to one of two deployments, or to the other.
fn weights(first: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: rpc, namespace: lab}}
spec:
  hosts: [rpc]
  http:
  - route:
    - {{destination: {{host: rpc}}, weight: {first}}}
    - {{destination: {{host: rpc-next}}, weight: {}}}
",
        100 - first
    )
}

fn two_grpc() -> Setup {
    let mut setup = two();
    let run = format!(
        "exec {} {} ${{PORT:-9000}}",
        lab::python(),
        lab::app("grpc_server.py").display()
    );
    for name in ["rpc", "rpc-next"] {
        let text = lab::yaml(&Workload {
            name,
            port: 9000,
            port_name: "grpc",
            replicas: 1,
            run: run.clone(),
            more: "",
        });
        setup.files.push((format!("{name}.yaml"), text));
    }
    setup
}

/// Which process answers a call that begins now.
fn answering(mesh: &Mesh) -> Result<u64> {
    let script = "import grpc, json
channel = grpc.insecure_channel('rpc:9000')
answer = channel.unary_unary('/test.Echo/Caller')(b'', timeout=10, wait_for_ready=True)
print(json.loads(answer)['server'])";
    Ok(lab::from_client(mesh, script)?.trim().parse()?)
}

fn grpc(plane: Plane) -> Result<Outcome> {
    if !lab::python_has("grpc") {
        return Ok(Outcome::Skipped("grpcio is not here".into()));
    }
    let mesh = Mesh::up(plane, &two_grpc())?;
    mesh.apply(&weights(100))?;
    let pid = |name: &str| -> Result<u64> {
        let row = mesh.workload(name)?;
        row["application"]["pid"]
            .as_u64()
            .ok_or_else(|| "no process".into())
    };
    let (first, next) = (pid("rpc-0")?, pid("rpc-next-0")?);
    if answering(&mesh)? != first {
        return Err("the first weights are not in force".into());
    }
    let client = lab::app("grpc_chat.py").display().to_string();
    let stream = Stream::of(&mesh, &[&lab::python(), &client, "rpc:9000"])?;
    let started = Instant::now();
    for number in 0..20 {
        let applied = mesh.apply(&weights(100 * (number % 2)))?;
        if applied["acknowledged"].as_u64().unwrap_or(0) == 0 {
            return Err(format!("nobody took it: {applied:#}").into());
        }
        stream.goes_on()?;
    }
    let took = started.elapsed().as_secs_f64();
    mesh.apply(&weights(0))?;
    // What begins now goes the new way; what began before the first change still comes; its client
    // ends at a message that is missing or comes twice.
    if answering(&mesh)? != next {
        return Err("the last weights are not in force".into());
    }
    let lines = stream.goes_on()?;
    println!("    20 changes in {took:.1} s, {lines} messages on one stream");
    drop(stream);
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// When each workload's certificate ends.
fn ends(mesh: &Mesh) -> Option<Vec<String>> {
    let status = mesh.status().ok()?;
    let rows = status["workloads"].as_array()?;
    let end = |row: &Value| row["certificate"]["notAfter"].as_str().map(str::to_owned);
    rows.iter().map(end).collect()
}

fn rotation(plane: Plane) -> Result<Outcome> {
    let setup = two();
    let mesh = Mesh::prepare(plane, &setup)?;
    let folder = mesh.folder.display().to_string();
    let up = [
        "up",
        "--detach",
        "-n",
        "lab",
        "--data-plane",
        plane.name(),
        &folder,
    ];
    let output = mesh.command(&up).env("RAJUT_CERTIFICATE_TTL", LIFE).output()?;
    if !output.status.success() {
        return Err(format!("`up` failed: {}", String::from_utf8_lossy(&output.stdout)).into());
    }
    let address = mesh.host_address("web")?;
    let stream = Stream::open(&mesh)?;
    let (load, going) = (Load::default(), AtomicBool::new(true));
    let started = Instant::now();
    std::thread::scope(|scope| -> Result {
        scope.spawn(|| {
            let on = || going.load(Ordering::Relaxed);
            let label = |_: &crate::client::Answer| String::new();
            steady(&load, &address, &address, "/status/200", 100, 4, &on, &label);
        });
        // Twice each, so that those that were issued first have ended before the test does.
        let rotated = (1..=2).try_for_each(|round| {
            let before = eventually("certificates", Duration::from_secs(20), || ends(&mesh))?;
            eventually("new certificates everywhere", Duration::from_mins(2), || {
                let now = ends(&mesh)?;
                let all_new = now.iter().zip(&before).all(|(now, before)| now != before);
                all_new.then_some(())
            })?;
            println!("    round {round} after {:.1} s", started.elapsed().as_secs_f64());
            Ok(())
        });
        going.store(false, Ordering::Relaxed);
        rotated
    })?;
    load.check()?;
    println!(
        "    {} requests and {} lines of one answer",
        load.sent.load(Ordering::Relaxed),
        stream.goes_on()?
    );
    drop(stream);
    mesh.down()?;
    Ok(Outcome::Passed)
}
