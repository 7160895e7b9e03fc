//! What is open and would be refused after a change of the rules.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::spawn,
    time::{Duration, Instant},
};

use crate::{
    lab::{self, Workload, python},
    mesh::{Mesh, Setup},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    // Envoy judges a connection once, and a request once.
    Scenario {
        name: "what_is_open_ends_when_a_policy_that_asks_for_it_would_refuse_it",
        planes: OURS,
        run,
    },
];

const MISSING: &str = "grpcio is not here (pip install grpcio)";

/// Opens a connection, a WebSocket and a gRPC stream, says so once bytes have passed both ways, and then which of them ends.
const OPEN: &str = r#"
import socket, threading
import grpc

def tcp():
    s = socket.create_connection(("pipe", 7001), 10)
    s.sendall(b"ping")
    s.recv(4)
    return s

def websocket():
    s = socket.create_connection(("web", 8080), 10)
    s.sendall(b"GET /upgrade HTTP/1.1\r\nhost: web:8080\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
              b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += s.recv(1)
    s.sendall(b"ping")
    s.recv(4)
    return s

left = threading.Semaphore(0)
silent = threading.Event()

def ended(name):
    print("ended " + name, flush=True)
    left.release()

def watch(name, s):
    s.settimeout(None)
    try:
        while s.recv(100):
            pass
    except OSError:
        pass
    ended(name)

def chat():
    channel = grpc.insecure_channel("rpc:9000")
    def numbers():
        yield b"0"
        silent.wait(60)
    replies = channel.stream_stream("/test.Echo/Chat")(numbers(), wait_for_ready=True)
    next(replies)
    def wait():
        try:
            for _ in replies:
                pass
        except grpc.RpcError:
            pass
        ended("grpc")
    threading.Thread(target=wait, daemon=True).start()

for name, s in (("tcp", tcp()), ("websocket", websocket())):
    threading.Thread(target=watch, args=(name, s), daemon=True).start()
chat()
print("open", flush=True)
for _ in range(3):
    left.acquire(timeout=60)
silent.set()
"#;

/// The caller's side, ended when dropped.
struct Caller {
    process: Child,
    lines: Receiver<String>,
}

impl Caller {
    fn start(mesh: &Mesh) -> Result<Self> {
        let mut process = mesh
            .command(&["exec", "nurse-0.lab", "--", &python(), "-c", OPEN])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let (send, lines) = channel();
        spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let caller = Self { process, lines };
        match caller.lines.recv_timeout(Duration::from_secs(30)) {
            Ok(line) if line == "open" => Ok(caller),
            other => Err(format!("nothing is open: {other:?}").into()),
        }
    }

    /// What ends within a time, or until all of `wanted` have.
    fn ended(&self, within: Duration, wanted: usize) -> BTreeSet<String> {
        let until = Instant::now() + within;
        let mut ended = BTreeSet::new();
        while ended.len() < wanted
            && let Ok(line) = self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            ended.extend(line.strip_prefix("ended ").map(str::to_owned));
        }
        ended
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn refuse(closes: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: no, namespace: lab, annotations: {{{closes}}}}}\n\
         spec: {{action: DENY, rules: [{{from: [{{source: {{principals: [cluster.local/ns/lab/sa/nurse]}}}}]}}]}}\n"
    )
}

fn run(plane: Plane) -> Result<Outcome> {
    if !lab::python_has("grpc") {
        return Ok(Outcome::Skipped(MISSING.to_owned()));
    }
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
        lab::STRICT
    );
    let rpc = format!(
        "exec {} {} ${{PORT:-9000}}",
        python(),
        lab::app("grpc_server.py").display()
    );
    for (name, port, port_name, run) in [
        ("web", 8080, "http", lab::server("http", 8080)),
        ("nurse", 8080, "http", lab::server("http", 8080)),
        ("pipe", 7001, "tcp", lab::server("echo", 7001)),
        ("rpc", 9000, "grpc", rpc),
    ] {
        text += &lab::yaml(&Workload {
            name,
            port,
            port_name,
            replicas: 1,
            run,
            more: "",
        });
    }
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let mut caller = Caller::start(&mesh)?;

    // A policy that does not ask for it ends nothing.
    mesh.apply(&refuse(""))?;
    let ended = caller.ended(Duration::from_secs(3), 3);
    if !ended.is_empty() {
        return Err(format!("{ended:?} ended without having been asked to").into());
    }
    mesh.delete(&refuse(""))?;

    let start = Instant::now();
    mesh.apply(&refuse("mesh.rajut.dev/close-open: \"true\""))?;
    let ended = caller.ended(Duration::from_secs(10), 3);
    let took = start.elapsed();
    if ended.len() != 3 || took > Duration::from_secs(2) {
        return Err(format!("{ended:?} ended within {took:?}").into());
    }
    println!("    all three ended within {} ms", took.as_millis());
    // It ends by itself.
    caller.process.wait()?;
    drop(caller);
    mesh.down()?;
    Ok(Outcome::Passed)
}
