//! What a proxy holds while nothing happens, and after much has happened: counted on the real process, with its allocator.
//!
//! The bounds are for a debug build (its code is larger; what it allocates is not): memory that belongs to the process
//! alone (`Pss_Anon`), not the pages of its file. Every test prints what it saw. With `RAJUT_BIN` it is of that program, which
//! may be a release build.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of whole processes wait for them and measure them"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rajut_ir::{
    ResourceKind,
    wire::{self, bootstrap},
};
use rajut_proxy::last_known::{LastKnown, Remembered};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a large answer.
const LARGE: usize = 4 << 20;

/// What is tested.
fn program() -> PathBuf {
    std::env::var_os("RAJUT_BIN").map_or_else(|| env!("CARGO_BIN_EXE_rajut").into(), PathBuf::from)
}

/// A proxy that runs on a bootstrap file alone, before a backend of this process.
struct Proxy {
    process: Child,
    listen: SocketAddr,
    folder: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().expect("it was running");
        self.process.wait().expect("it was started here");
        fs::remove_dir_all(&self.folder).expect("its folder was made here");
    }
}

impl Proxy {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rajut-footprint-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        let listen = free_address();
        let bootstrap = folder.join("bootstrap.yaml");
        fs::write(&bootstrap, bootstrap_text(listen, backend())).expect("the bootstrap file");
        let process = Command::new(program())
            .args(["proxy", "-c"])
            .arg(&bootstrap)
            .env("RAJUT_STATE_DIR", &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        let proxy = Self {
            process,
            listen,
            folder,
        };
        until("the proxy answers", || {
            TcpStream::connect(proxy.listen).is_ok().then_some(())
        });
        // Code and allocations of the first requests are not what is counted.
        for _ in 0..20 {
            proxy.request("/small");
        }
        proxy
    }

    /// KiB that belong to the process alone.
    fn anonymous(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = fs::read_to_string(path).expect("the process runs");
        let line = text.lines().find(|line| line.starts_with("Pss_Anon:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .expect("a number of KiB")
    }

    /// What it holds once it has not fallen below `enough` KiB for a while, or as soon as it has.
    fn settled(&self, enough: u64) -> u64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.anonymous();
            if now <= enough || Instant::now() > end {
                return now;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// One request on a connection of its own, which is given back open.
    fn request(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.listen).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: footprint\r\n\r\n").expect("the request goes out");
        let length = read_answer(&mut stream);
        assert_eq!(length, if path == "/large" { LARGE } else { 5 });
        stream
    }
}

/// Reads one answer; gives the length of its body.
fn read_answer(stream: &mut TcpStream) -> usize {
    let (mut buffer, mut head) = (vec![0; 64 * 1024], Vec::new());
    let end = loop {
        let count = stream.read(&mut buffer).expect("an answer");
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&buffer[..count]);
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
    assert!(text.starts_with("http/1.1 200"), "{text}");
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|number| number.parse::<usize>().ok())
        .expect("a length");
    let mut got = head.len() - end;
    while got < length {
        let count = stream.read(&mut buffer).expect("the body");
        assert!(count > 0, "the body is cut off");
        got += count;
    }
    length
}

/// An address that is free now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

/// A server that answers `/large` with [`LARGE`] bytes and all else with five; ends with the test's process.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_all(stream));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        received.extend_from_slice(&buffer[..count]);
        while let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let large = received.starts_with(b"GET /large");
            received.drain(..at + 4);
            let body = if large {
                vec![b'x'; LARGE]
            } else {
                b"small".to_vec()
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&body).is_err() {
                return;
            }
        }
    }
}

fn bootstrap_text(listen: SocketAddr, backend: SocketAddr) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: 127.0.0.1, port_value: {front}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: backend}}
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {backend}}}}}}}
"#,
        front = listen.port(),
        backend = backend.port()
    )
}

/// A bootstrap of a proxy that has everything from its control plane, which is not there.
fn bootstrap_without_control_plane() -> String {
    let nobody = free_address().port();
    format!(
        r"
node: {{id: footprint}}
dynamic_resources:
  ads_config: {{api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  lds_config: {{ads: {{}}}}
  cds_config: {{ads: {{}}}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {nobody}}}}}}}
"
    )
}

/// The goal is 20 ms from the file to ready, 100 ms from the first configuration; the deadline is ten times the latter for a
/// process that a debug build starts.
#[test]
fn a_proxy_starts_from_its_last_known_configuration_without_a_control_plane() {
    let folder = std::env::temp_dir().join(format!("rajut-footprint-start-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the test");
    let listen = free_address();
    let given = bootstrap::parse_bootstrap(&bootstrap_text(listen, backend())).expect("a bootstrap");
    let remembered = |encoded: wire::Encoded, kind| Remembered {
        kind,
        name: encoded.name,
        version: "1".into(),
        body: encoded.value,
    };
    let clusters = given.resources.clusters.values();
    let clusters = clusters.map(|cluster| remembered(wire::encode_cluster(cluster), ResourceKind::Cluster));
    let listeners = given.resources.listeners.values();
    let listeners =
        listeners.map(|listener| remembered(wire::encode_listener(listener), ResourceKind::Listener));
    let file = folder.join("last-known");
    LastKnown::new(&file, "footprint".into())
        .write(&clusters.chain(listeners).collect::<Vec<_>>(), SystemTime::now())
        .expect("the file is written");
    let bootstrap = folder.join("bootstrap.yaml");
    fs::write(&bootstrap, bootstrap_without_control_plane()).expect("the bootstrap file");

    let started = Instant::now();
    let process = Command::new(program())
        .args(["proxy", "--on-demand", "-c"])
        .arg(&bootstrap)
        .arg("--last-known")
        .arg(&file)
        .env("RAJUT_STATE_DIR", &folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the proxy starts");
    let proxy = Proxy {
        process,
        listen,
        folder,
    };
    while TcpStream::connect(listen).is_err() {
        assert!(started.elapsed() < PATIENCE, "it does not start");
        thread::sleep(Duration::from_millis(1));
    }
    let took = started.elapsed();
    proxy.request("/small");
    println!("ready {took:?} after the process began");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Asks until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The goal is 10 MiB in all for the release build, of which this part is the smaller half.
#[test]
fn an_idle_proxy_holds_less_than_eight_mebibytes_of_its_own() {
    let proxy = Proxy::start("idle");
    let held = proxy.settled(8 * 1024);
    println!("an idle proxy holds {held} KiB of its own");
    assert!(held <= 8 * 1024, "{held} KiB");
}

/// The goal is 8 KiB; what an idle connection holds is its task and the codec's state, and no buffer.
#[test]
fn an_idle_connection_holds_less_than_eight_kibibytes() {
    const CONNECTIONS: u64 = 500;
    let proxy = Proxy::start("connections");
    let before = proxy.settled(8 * 1024);
    let open: Vec<_> = (0..CONNECTIONS).map(|_| proxy.request("/small")).collect();
    let bound = before + 8 * CONNECTIONS;
    let held = proxy.settled(bound - 4 * CONNECTIONS);
    let each = held.saturating_sub(before) * 1024 / CONNECTIONS;
    println!("an idle connection holds {each} bytes ({before} -> {held} KiB)");
    assert!(held <= bound, "{each} bytes for each connection");
    // They still work.
    for mut stream in open {
        write!(stream, "GET /small HTTP/1.1\r\nhost: footprint\r\n\r\n").expect("the request goes out");
        assert_eq!(read_answer(&mut stream), 5);
    }
}

#[test]
fn memory_goes_back_after_a_burst_of_large_bodies() {
    let proxy = Proxy::start("burst");
    let before = proxy.settled(8 * 1024);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..4 {
                    proxy.request("/large");
                }
            });
        }
    });
    let most = proxy.anonymous();
    let bound = before + 2 * 1024;
    let held = proxy.settled(bound);
    println!("{before} KiB before the burst, {most} KiB right after it, {held} KiB when it was over");
    assert!(held <= bound, "{held} KiB are held, {before} were before");
}
