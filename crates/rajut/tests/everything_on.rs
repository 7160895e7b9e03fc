//! One Envoy bootstrap with everything on (access control, rate limits, faults, cross-origin rules, a JSON access log,
//! tracing), run by Envoy and by `rajut proxy`: the same answers, the same log fields, the same counters, the same spans. Without an `envoy` on the
//! path the comparison is skipped, and said so; what we answer is checked all the same.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of whole processes wait for them and measure them"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const BOOTSTRAP: &str = include_str!("../../ir/tests/bootstraps/everything-on.yaml");
/// For whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request: method, path, headers.
type Probe = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// What both are asked.
const PROBES: &[Probe] = &[
    ("GET", "/public/x", &[]),
    ("GET", "/", &[]),
    ("GET", "/?x=/public/", &[]),
    ("GET", "/private", &[]),
    ("HEAD", "/private", &[]),
    ("GET", "/public/../private", &[]),
    ("DELETE", "/public/x", &[]),
    ("GET", "/local", &[]),
    ("GET", "/local", &[("x-forwarded-for", "9.9.9.9")]),
    ("GET", "/admin/a", &[]),
    ("GET", "/admin/a", &[("x-admin", "yes")]),
    ("DELETE", "/admin/a", &[("x-admin", "yes")]),
    ("GET", "/public/teapot", &[]),
    ("GET", "/public/moved", &[]),
    ("GET", "/open/anything", &[]),
    ("GET", "/guarded/x", &[]),
    ("POST", "/guarded/x", &[]),
    ("GET", "/public/x", &[("x-client", "slow")]),
    ("GET", "/public/x", &[("x-client", "slow")]),
    ("GET", "/public/x", &[("x-client", "slow")]),
    ("GET", "/public/x", &[("x-client", "fast")]),
    ("POST", "/private", &[("content-type", "application/grpc")]),
    (
        "POST",
        "/public/x",
        &[("content-type", "application/grpc"), ("x-client", "slow")],
    ),
    // Traced: by the id, by the client; not traced: a caller's flag, a force from outside.
    (
        "GET",
        "/public/t",
        &[("x-request-id", "6f8f94b2-b6cd-9a32-ae86-8f84ba8db7cf")],
    ),
    ("GET", "/private", &[("x-client-trace-id", "5")]),
    (
        "GET",
        "/public/teapot",
        &[
            ("x-client-trace-id", "6"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("tracestate", "a=b"),
        ],
    ),
    (
        "GET",
        "/public/t",
        &[(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        )],
    ),
    ("GET", "/public/t", &[("x-envoy-force-trace", "true")]),
    // Faults.
    ("GET", "/broken/abort", &[]),
    ("POST", "/broken/abort", &[("content-type", "application/grpc")]),
    ("GET", "/broken/grpc", &[]),
    ("POST", "/broken/grpc", &[("content-type", "application/grpc")]),
    ("GET", "/broken/late", &[]),
    ("HEAD", "/broken/both", &[]),
    ("GET", "/broken/some", &[]),
    ("GET", "/broken/some", &[("x-broken", "")]),
    ("GET", "/broken/in-place", &[("origin", PAGE)]),
    // Cross-origin rules.
    ("GET", "/pages", &[]),
    ("GET", "/pages", &[("origin", PAGE)]),
    ("GET", "/pages", &[("origin", "https://a.clinic.example")]),
    ("GET", "/pages", &[("origin", "https://other.example")]),
    (
        "OPTIONS",
        "/pages",
        &[("origin", PAGE), ("access-control-request-method", "PUT")],
    ),
    (
        "OPTIONS",
        "/pages",
        &[
            ("origin", PAGE),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-two"),
            ("access-control-request-private-network", "true"),
        ],
    ),
    (
        "OPTIONS",
        "/pages",
        &[
            ("origin", "https://other.example"),
            ("access-control-request-method", "PUT"),
        ],
    ),
    (
        "OPTIONS",
        "/pages/in-place",
        &[("origin", PAGE), ("access-control-request-method", "PUT")],
    ),
];

const PAGE: &str = "https://shop.example";

/// Counters that are compared.
const STATS: [&str; 5] = [
    "envoy_http_rbac",
    "envoy_http_local_rate",
    "envoy_http_fault_delays",
    "envoy_http_fault_aborts",
    "envoy_http_cors",
];

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An application that answers with what it got.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(end) = read.windows(4).position(|it| it == b"\r\n\r\n") {
            let head: Vec<u8> = read.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let mut lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).collect();
            lines[1..].sort_unstable();
            let body = lines.join("\n");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&piece[..count]),
        }
    }
}

/// A collector of spans: gRPC, the messages as they came.
fn collector() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let got = Arc::new(Mutex::new(Vec::new()));
    let messages = got.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for stream in listener.incoming().flatten() {
            // The proxy keeps one connection, and closes it.
            let _ = runtime.block_on(collect(stream, &messages));
        }
    });
    (address, got)
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn collect(stream: TcpStream, messages: &Arc<Mutex<Vec<Vec<u8>>>>) -> Result<(), Failed> {
    stream.set_nonblocking(true)?;
    let stream = rajut_platform::socket::TcpStream::from_std(stream)?;
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(take(request, respond, messages.clone()));
    }
    Ok(())
}

async fn take(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
) -> Result<(), Failed> {
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    messages.lock().expect("no panic").push(message);
    let head = http::Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut send = respond.send_response(head, false)?;
    send.send_data(bytes::Bytes::from_static(&[0; 5]), false)?;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}

/// The fields of a protobuf message: number and content (of numbers: as text).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                let number = varint(&mut bytes);
                out.push((key >> 3, number.to_string().into_bytes()));
                continue;
            }
            1 => 8,
            5 => 4,
            _ => usize::try_from(varint(&mut bytes)).expect("a length"),
        };
        let (content, rest) = bytes.split_at(length);
        bytes = rest;
        out.push((key >> 3, content.to_vec()));
    }
    out
}

fn inside(message: &[u8], number: u64) -> Vec<Vec<u8>> {
    let all = fields(message).into_iter();
    all.filter(|(it, _)| *it == number)
        .map(|(_, content)| content)
        .collect()
}

/// What a span says, without what differs from run to run: name, kind, whether it has a parent, state, status and
/// attributes.
fn spans(message: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out = Vec::new();
    for resource_spans in inside(&message[5..], 1) {
        for span in inside(&resource_spans, 2)
            .iter()
            .flat_map(|scope| inside(scope, 2))
        {
            let one = |number| {
                inside(&span, number)
                    .first()
                    .map(|it| text(it))
                    .unwrap_or_default()
            };
            let mut attributes: Vec<_> = inside(&span, 9)
                .iter()
                .map(|pair| {
                    let key = inside(pair, 1).first().map(|it| text(it)).unwrap_or_default();
                    let value = inside(pair, 2).first().map(|any| inside(any, 1));
                    let value = value
                        .unwrap_or_default()
                        .first()
                        .map(|it| text(it))
                        .unwrap_or_default();
                    match &*key {
                        // The answers' sizes hold the identifiers' and the ports' lengths.
                        "guid:x-request-id" | "response_size" => key,
                        _ => format!("{key}={value}"),
                    }
                })
                .collect();
            attributes.sort_unstable();
            let status = inside(&span, 15).first().map(|it| fields(it));
            out.push(format!(
                "{} kind {} parent {} state {:?} status {:?} {}",
                one(5),
                one(6),
                !one(4).is_empty(),
                one(3),
                status.unwrap_or_default(),
                attributes.join(" ")
            ));
        }
    }
    out
}

/// An answer without what differs from run to run; header names in lower case and sorted, since Envoy has an order of
/// its own.
fn ask(proxy: SocketAddr, probe: &Probe) -> String {
    let (method, path, headers) = probe;
    let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: clinic.example\r\nuser-agent: probe\r\n");
    for (name, value) in *headers {
        request.extend([*name, ": ", *value, "\r\n"]);
    }
    request.push_str("connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the proxy reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let same = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let (name, value) = (name.to_lowercase(), value.trim());
        match &*name {
            "date" | "x-envoy-upstream-service-time" | "x-request-id" => name,
            // The application's echo holds identifiers.
            "content-length" if value.len() > 2 => name,
            // It runs down while the test does.
            "x-ratelimit-reset" if value != "0" => name,
            // Of a trace the flags stay.
            "traceparent" => format!("{name}: {}", &value[53..]),
            // Envoy sends an empty one.
            "tracestate" if value.is_empty() => String::new(),
            _ => format!("{name}: {value}"),
        }
    };
    let part = |text: &str| {
        let mut lines: Vec<_> = text
            .lines()
            .skip(1)
            .map(same)
            .filter(|it| !it.is_empty())
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    let body = match body.split_once('\n') {
        Some((first, _)) if first.ends_with("http/1.1") => format!("{first}\n{}", part(body)),
        _ => body.to_owned(),
    };
    format!("{method} {path} {headers:?}: {status}\n{}\n\n{body}", part(head))
}

/// What a proxy did with all probes.
#[derive(Debug, Default)]
struct Seen {
    answers: Vec<String>,
    log: Vec<BTreeMap<String, Value>>,
    stats: BTreeMap<String, String>,
    spans: Vec<String>,
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A field that differs from run to run is only told to be there.
fn log_fields(line: &str) -> BTreeMap<String, Value> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_str(line).expect("a line is JSON");
    for name in [
        "start_time",
        "duration",
        "request_id",
        "upstream_local_address",
        "upstream_service_time",
        "upstream_host",
        "downstream_local_address",
        "bytes_sent",
    ] {
        let field = fields.get_mut(name).expect("a field of the format");
        if !field.is_null() && (name == "duration" || *field != 0) {
            *field = "some".into();
        }
    }
    let remote = fields
        .get_mut("downstream_remote_address")
        .expect("a field of the format");
    if remote.as_str().is_some_and(|it| it.starts_with("127.0.0.1:")) {
        *remote = "the client".into();
    }
    fields
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

fn stats(admin: SocketAddr, wanted: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream
        .write_all(b"GET /stats/prometheus HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let is_wanted = |line: &&str| wanted.iter().any(|name| line.starts_with(name));
    let rows = answer
        .lines()
        .filter(is_wanted)
        .filter_map(|line| line.rsplit_once(' '));
    Some(
        rows.filter(|(name, _)| !name.contains("shadow_mode"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// A proxy that runs the bootstrap.
struct Proxy {
    listener: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    _running: Running,
}

fn start(name: &str, command: impl FnOnce(&Path) -> Command, folder: &Path, collector: u16) -> Proxy {
    let application = application();
    let (listener, admin) = (free_port(), free_port());
    let log = folder.join(format!("{name}.log"));
    let file = folder.join(format!("{name}.yaml"));
    let bootstrap = BOOTSTRAP
        .replace("18080", &listener.to_string())
        .replace("18081", &application.port().to_string())
        .replace("18082", &collector.to_string())
        .replace("18090", &admin.to_string())
        .replace("/tmp/everything-on.log", &log.to_string_lossy())
        // The draw is random: of what nobody asked for nothing is traced here.
        .replace("random_sampling: { value: 1 }", "random_sampling: { value: 0 }");
    fs::write(&file, bootstrap).expect("the folder can be written");
    let mut command = command(&file);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Running(child.expect("the proxy starts"));
    let listener = SocketAddr::from(([127, 0, 0, 1], listener));
    wait("the listener", || TcpStream::connect(listener).ok());
    Proxy {
        listener,
        admin: SocketAddr::from(([127, 0, 0, 1], admin)),
        log,
        _running: running,
    }
}

fn run(name: &str, command: impl FnOnce(&Path) -> Command, folder: &Path) -> Seen {
    let (collector, messages) = collector();
    let Proxy {
        listener: proxy,
        admin,
        log,
        _running,
    } = start(name, command, folder, collector.port());
    let answers: Vec<_> = PROBES.iter().map(|probe| ask(proxy, probe)).collect();
    let log = wait("the log", || {
        let lines = fs::read_to_string(&log).ok()?;
        let lines: Vec<_> = lines.lines().map(log_fields).collect();
        (lines.len() >= PROBES.len()).then_some(lines)
    });
    let spans = wait("the spans", || {
        let messages = messages.lock().expect("no panic");
        let all: Vec<_> = messages.iter().flat_map(|it| spans(it)).collect();
        (all.len() >= 3).then_some(all)
    });
    Seen {
        answers,
        log,
        stats: stats(admin, &STATS).unwrap_or_default(),
        spans,
    }
}

fn ours(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rajut"));
    command.args(["proxy", "-c"]).arg(file);
    command
}

#[expect(clippy::print_stderr, reason = "a test says what it skips")]
fn envoys(folder: &Path) -> Option<Seen> {
    let there = Command::new("envoy").arg("--version").output();
    if !there.is_ok_and(|it| it.status.success()) {
        eprintln!("skipped: there is no program `envoy` on the path");
        return None;
    }
    let command = |file: &Path| {
        let mut command = Command::new("envoy");
        command
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--file-flush-interval-msec",
                "100",
                "-c",
            ])
            .arg(file);
        command
    };
    Some(run("envoy", command, folder))
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rajut-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is the system's to clean.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_same_bootstrap_answers_logs_counts_and_traces_as_on_envoy() {
    let folder = Folder::new("everything");
    let ours = run("rajut", ours, &folder.0);
    let statuses: Vec<_> = ours
        .answers
        .iter()
        .map(|answer| {
            answer
                .lines()
                .next()
                .and_then(|line| line.rsplit(' ').next())
                .unwrap_or_default()
        })
        .collect();
    assert_eq!(
        statuses,
        [
            "200", "200", "200", "403", "403", "403", "403", "200", "200", "403", "200", "403", "418", "301",
            "200", "200", "403", "200", "200", "429", "200", "200", "200", "200", "403", "418", "200", "200",
            "503", "200", "200", "200", "200", "404", "200", "418", "418", "200", "200", "200", "200", "200",
            "200", "200", "204"
        ]
    );
    assert_eq!(ours.spans.len(), 3, "{:#?}", ours.spans);
    let Some(theirs) = envoys(&folder.0) else { return };
    for (ours, theirs) in ours.answers.iter().zip(&theirs.answers) {
        assert_eq!(ours, theirs);
    }
    for (ours, theirs) in ours.log.iter().zip(&theirs.log) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.stats, theirs.stats);
    assert_eq!(ours.spans, theirs.spans);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let folder = Folder::new("collector");
    let proxy = start("rajut", ours, &folder.0, free_port());
    for _ in 0..3 {
        let answer = ask(
            proxy.listener,
            &("GET", "/public/x", &[("x-client-trace-id", "1")]),
        );
        assert!(
            answer.lines().next().is_some_and(|line| line.ends_with(" 200")),
            "{answer}"
        );
    }
    wait("the count of lost spans", || {
        let stats = stats(proxy.admin, &["envoy_tracing_opentelemetry_spans_dropped"])?;
        stats.values().any(|count| count == "3").then_some(())
    });
}
