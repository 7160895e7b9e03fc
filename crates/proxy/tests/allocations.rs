//! How many allocations one more request costs a proxy that serves them: a whole proxy in this process, from the
//! bootstrap that `cargo xtask instructions` uses, with a client and a server on threads that are not counted.
#![expect(clippy::disallowed_methods, reason = "a test waits for threads of its own")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rajut_platform::allocations::{self, Counting};
use rajut_proxy::run::{ProxyOptions, run};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of a request without a body: for each of the two heads the list of its lines and the lines that the proxy wrote into
/// it. Nothing for buffers, timers, decisions, pools or counters.
const PER_REQUEST: u64 = 4;
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

#[test]
fn a_request_costs_no_allocation_but_those_of_its_two_heads() {
    allocations::ignore_this_thread();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = backend.local_addr().unwrap().port();
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (front, everything, http2) = (free(), free(), free());
    let text = include_str!("../../../bench/instructions.yaml")
        .replace("{{plain}}", &front.to_string())
        .replace("{{everything}}", &everything.to_string())
        .replace("{{http2}}", &http2.to_string())
        .replace("{{backend}}", &to.to_string());
    let folder = std::env::temp_dir().join(format!("rajut-allocations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let bootstrap = folder.join("bootstrap.yaml");
    std::fs::write(&bootstrap, text).unwrap();
    thread::spawn(move || {
        allocations::ignore_this_thread();
        serve(&backend);
    });
    let options = ProxyOptions {
        bootstrap,
        concurrency: 1,
        enrolment: None,
        dns: None,
        drain_time: Duration::ZERO,
        last_known: None,
        on_demand: None,
    };
    // It runs until this process ends.
    thread::spawn(move || run(options));
    let start = Instant::now();
    let mut client = loop {
        match TcpStream::connect(("127.0.0.1", front)) {
            Ok(client) => break client,
            Err(error) => assert!(start.elapsed() < LIMIT, "the proxy does not answer: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_nodelay(true).unwrap();
    (0..WARM).for_each(|_| ask(&mut client));
    let before = allocations::count();
    (0..COUNTED).for_each(|_| ask(&mut client));
    let more = allocations::count() - before;
    std::fs::remove_dir_all(&folder).unwrap();
    // What the second-long rounds of the proxy allocate meanwhile is far less than one per request.
    let each = (more + u64::from(COUNTED) / 2) / u64::from(COUNTED);
    assert_eq!(each, PER_REQUEST, "{more} for {COUNTED} requests");
}
