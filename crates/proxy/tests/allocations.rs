//! How many allocations one more request costs a proxy that serves them: a whole proxy in this process, from the
//! bootstrap that `cargo xtask instructions` uses, with a client and a server on threads that are not counted.
#![expect(clippy::disallowed_methods, reason = "a test waits for threads of its own")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use rajut_platform::allocations::{self, Counting};
use rajut_proxy::run::{ProxyOptions, run};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of an HTTP/1.1 request without a body: for each of the two heads the list of its lines and the lines that the proxy wrote into
/// it. Nothing for buffers, timers, decisions, pools or counters.
const PER_REQUEST: u64 = 4;
/// Of a request by HTTP/2 on both sides, without a body and answered with a small one. For each of the two heads its block, the
/// list of its lines, what of the block is shared, and the lines that the proxy wrote into it; the stream's task, its future
/// and its exchange. Nothing for frames, windows, compression or queues.
const PER_HTTP2_REQUEST: u64 = 11;
/// The counter is one for the whole program.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const WARM: u32 = 100;
const COUNTED: u32 = 500;
const LIMIT: Duration = Duration::from_secs(20);

const REQUEST: &[u8] =
    b"GET /bench/item?id=42 HTTP/1.1\r\nhost: bench.example\r\nuser-agent: counted\r\naccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nserver: counted\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

fn serve(backend: &TcpListener) {
    for mut socket in backend.incoming().flatten() {
        thread::spawn(move || {
            allocations::ignore_this_thread();
            let mut buffer = [0; 4096];
            while let Ok(1..) = socket.read(&mut buffer) {
                socket.write_all(ANSWER).expect("the proxy listens");
            }
        });
    }
}

fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST).expect("the proxy listens");
    let (mut buffer, mut length) = ([0; 4096], 0);
    while !buffer[..length].ends_with(b"\r\n\r\nhello") {
        let count = client.read(&mut buffer[length..]).expect("an answer in time");
        assert!(count > 0, "closed before the answer was complete");
        length += count;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200"));
}

/// A proxy before `to`, until this process ends; where it listens.
fn proxy(name: &str, to: u16, edit: impl Fn(String) -> String) -> u16 {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a test that can run");
        listener.local_addr().expect("a test that can run").port()
    };
    let (front, everything, http2) = (free(), free(), free());
    let text = include_str!("../../../bench/instructions.yaml")
        .replace("{{plain}}", &front.to_string())
        .replace("{{everything}}", &everything.to_string())
        .replace("{{http2}}", &http2.to_string())
        .replace("{{backend}}", &to.to_string());
    let bootstrap = scratch(name).join("bootstrap.yaml");
    std::fs::create_dir_all(scratch(name)).expect("a test that can run");
    std::fs::write(&bootstrap, edit(text)).expect("a test that can run");
    let options = ProxyOptions {
        bootstrap,
        concurrency: 1,
        enrolment: None,
        dns: None,
        drain_time: Duration::ZERO,
        last_known: None,
        on_demand: None,
    };
    thread::spawn(move || run(options));
    front
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("rajut-allocations-{name}-{}", std::process::id()))
}

fn connect(port: u16) -> TcpStream {
    let start = Instant::now();
    let client = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(client) => break client,
            Err(error) => assert!(start.elapsed() < LIMIT, "the proxy does not answer: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    client.set_read_timeout(Some(LIMIT)).expect("a test that can run");
    client.set_nodelay(true).expect("a test that can run");
    client
}

/// Allocations of one more `ask`, rounded: what the second-long rounds of the proxy allocate meanwhile is far less than
/// one per request.
fn each(mut ask: impl FnMut()) -> u64 {
    (0..WARM).for_each(|_| ask());
    let before = allocations::count();
    (0..COUNTED).for_each(|_| ask());
    let more = allocations::count() - before;
    (more + u64::from(COUNTED) / 2) / u64::from(COUNTED)
}

#[test]
fn a_request_costs_no_allocation_but_those_of_its_two_heads() {
    let _turn = ONE_AT_A_TIME.lock().expect("a test that can run");
    allocations::ignore_this_thread();
    let backend = TcpListener::bind("127.0.0.1:0").expect("a test that can run");
    let to = backend.local_addr().expect("a test that can run").port();
    thread::spawn(move || {
        allocations::ignore_this_thread();
        serve(&backend);
    });
    let mut client = connect(proxy("http1", to, |text| text));
    let each = each(|| ask(&mut client));
    std::fs::remove_dir_all(scratch("http1")).expect("a test that can run");
    assert_eq!(each, PER_REQUEST);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a test that can run")
}

fn asynchronous(socket: TcpStream) -> rajut_platform::socket::TcpStream {
    socket.set_nonblocking(true).expect("a test that can run");
    rajut_platform::socket::TcpStream::from_std(socket).expect("a test that can run")
}

fn serve_http2(backend: &TcpListener) {
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime(), async {
        // The proxy has one worker with one connection.
        let (socket, _) = backend.accept().expect("the proxy connects");
        let mut connection = h2::server::handshake(asynchronous(socket))
            .await
            .expect("a test that can run");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let answer = http::Response::builder()
                .header("server", "counted")
                .header("content-type", "text/plain");
            let mut body = respond
                .send_response(answer.body(()).expect("a test that can run"), false)
                .expect("a test that can run");
            body.send_data(Bytes::from_static(b"hello"), true)
                .expect("a test that can run");
        }
    });
}

#[test]
fn a_request_by_http2_costs_as_many_allocations_as_are_known() {
    let _turn = ONE_AT_A_TIME.lock().expect("a test that can run");
    allocations::ignore_this_thread();
    let backend = TcpListener::bind("127.0.0.1:0").expect("a test that can run");
    let to = backend.local_addr().expect("a test that can run").port();
    thread::spawn(move || {
        allocations::ignore_this_thread();
        serve_http2(&backend);
    });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let http2 = format!(
        "  - name: backend\n    typed_extension_protocol_options: {{{options}: {{\"@type\": type.googleapis.com/{options}, \
         explicit_http_config: {{http2_protocol_options: {{}}}}}}}}\n"
    );
    let front = proxy("http2", to, |text| text.replace("  - name: backend\n", &http2));
    let runtime = runtime();
    let local = tokio::task::LocalSet::new();
    let socket = connect(front);
    let mut client = local.block_on(&runtime, async {
        let (client, connection) = h2::client::handshake(asynchronous(socket))
            .await
            .expect("a test that can run");
        tokio::task::spawn_local(connection);
        client
    });
    let each = each(|| {
        local.block_on(&runtime, async {
            let request = http::Request::get("http://bench.example/bench/item?id=42")
                .header("user-agent", "counted")
                .header("accept", "*/*");
            let (answer, _) = client
                .send_request(request.body(()).expect("a test that can run"), true)
                .expect("a test that can run");
            let asked = tokio::time::timeout(LIMIT, async {
                let answer = answer.await.expect("a test that can run");
                assert_eq!(answer.status(), 200);
                let mut body = answer.into_body();
                assert_eq!(
                    body.data()
                        .await
                        .expect("a test that can run")
                        .expect("a test that can run"),
                    "hello"
                );
                assert!(body.data().await.is_none());
            });
            asked.await.expect("an answer in time");
        });
    });
    std::fs::remove_dir_all(scratch("http2")).expect("a test that can run");
    assert_eq!(each, PER_HTTP2_REQUEST);
}
