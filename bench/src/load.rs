//! The load generator: closed loop (as fast as the connections go) or open loop (a fixed average rate).
//!
//! In the open loop arrivals are Poisson; a request goes to a free connection or stream or waits in a queue, and its
//! latency counts from the moment it was *due*, so that a slow proxy is never excused (no coordinated omission). Every
//! answer is checked: status 200 and the whole body. `--fresh` opens a connection for each request when it begins;
//! `--hold` opens each of the connections, has one request answered on it and keeps it. Prints one JSON line.

mod session;
mod wire;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use crate::args::Args;
use crate::poll::{Poll, Ready, Timer, now_ns};
use crate::shape;
use crate::stats::percentile;
use session::{Finished, Session};
use wire::{Tls, Wire};

/// Token of the timer.
const TIMER: u64 = u64::MAX;
/// Requests that may wait for a free connection; beyond that the rest is counted as errors (the proxy is far too slow).
const QUEUE_MAX: usize = 1 << 16;
/// Connections that failed are opened again so often, all together.
const RECONNECTS_MAX: u64 = 1000;
/// After the end, answers are awaited so long; what is then still owed counts as errors.
const GRACE_NS: u64 = 5_000_000_000;
/// Kept connections must be able to take requests within so long; the clock starts then.
const READY_NS: u64 = 10_000_000_000;
/// Before the measured time, so long is not measured (caches fill).
const WARM_UP_NS: u64 = 200_000_000;
/// So many requests are under way at a time while connections are opened to be held.
const OPENING_MAX: usize = 32;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// All are opened at the start and kept for many requests.
    Kept,
    /// Each request opens one, which is closed after its answer.
    Fresh,
    /// Each is opened for its only request and then left open.
    Held,
}

#[derive(Debug)]
struct Connection {
    /// `None`: not opened yet, or closed after its only request.
    wire: Option<Wire>,
    session: Session,
    out: Vec<u8>,
    blocked: bool,
    touched: bool,
}

/// When requests are due.
#[derive(Debug)]
enum Pace {
    /// Whenever a slot is free.
    Closed,
    Open {
        gap_ns: f64,
        random: u64,
        due: u64,
        queue: VecDeque<u64>,
    },
}

struct Load {
    poll: Poll,
    timer: Timer,
    port: u16,
    kept: Use,
    tls: Option<Tls>,
    opened: usize,
    proto: String,
    streams: usize,
    expect: usize,
    connections: Vec<Connection>,
    /// A connection stands here once for each request that it could take now.
    free: VecDeque<usize>,
    pace: Pace,
    /// The measured time, in nanoseconds of the monotonic clock.
    from: u64,
    until: u64,
    /// Answered, whenever.
    total: u64,
    errors: u64,
    reconnects: u64,
    in_flight: usize,
    latencies_ns: Vec<u64>,
}

/// Runs the load and prints its figures.
pub(crate) fn load(args: &Args) -> Result<()> {
    let seconds: f64 = args.number("secs", 4.0)?;
    let mut load = prepared(args, seconds)?;
    load.await_ready()?;
    load.start((seconds * 1e9) as u64);
    load.run()?;
    let kept = load.kept;
    load.print(seconds);
    if kept == Use::Held {
        // Until the orchestrator ends this process.
        std::io::stdout().flush()?;
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// Reads what is asked for, and opens the connections that are kept.
fn prepared(args: &Args, seconds: f64) -> Result<Load> {
    let rate: f64 = args.number("rate", 0.0)?;
    let connections: usize = args.number("conns", 32)?;
    if !(0.05..=600.0).contains(&seconds)
        || !(1..=10_000).contains(&connections)
        || !(0.0..=1e6).contains(&rate)
    {
        bail!("--secs 0.05 to 600, --conns 1 to 10000, --rate up to 1000000");
    }
    let pace = if rate > 0.0 {
        Pace::Open {
            gap_ns: 1e9 / rate,
            random: 0x9E37_79B9_7F4A_7C15,
            due: 0,
            queue: VecDeque::new(),
        }
    } else {
        Pace::Closed
    };
    let kept = match (args.flag("fresh"), args.flag("hold")) {
        (true, _) => Use::Fresh,
        (_, true) => Use::Held,
        _ => Use::Kept,
    };
    let mut load = Load {
        poll: Poll::new()?,
        timer: Timer::new()?,
        port: args.number("port", 0)?,
        kept,
        tls: args.text("tls").map(|dir| wire::tls(dir.as_ref())).transpose()?,
        opened: 0,
        proto: args.text("proto").unwrap_or("http1").to_owned(),
        streams: args.number("streams", 10)?,
        expect: args.number("expect", shape::BODY_BYTES)?,
        connections: Vec::with_capacity(connections),
        free: VecDeque::new(),
        pace,
        from: 0,
        until: 0,
        total: 0,
        errors: 0,
        reconnects: 0,
        in_flight: 0,
        latencies_ns: Vec::new(),
    };
    for index in 0..connections {
        let connection = Connection {
            wire: None,
            session: Session::new(&load.proto, load.streams, load.expect, &mut Vec::new())?,
            out: Vec::new(),
            blocked: false,
            touched: false,
        };
        load.connections.push(connection);
        if kept == Use::Kept {
            load.open(index)?;
        }
    }
    Ok(load)
}

impl Load {
    fn open(&mut self, index: usize) -> Result<()> {
        self.opened += 1;
        let wire = Wire::connect(self.port, self.opened, self.tls.as_ref())?;
        self.poll.add(&wire.socket, index as u64)?;
        let connection = &mut self.connections[index];
        connection.out.clear();
        connection.session = Session::new(&self.proto, self.streams, self.expect, &mut connection.out)?;
        connection.wire = Some(wire);
        connection.blocked = false;
        Ok(())
    }

    /// Waits until every kept connection can take requests: over HTTP/2 that is when the proxy's settings have come,
    /// and a proxy that is slow to greet would otherwise be measured before it was asked anything.
    fn await_ready(&mut self) -> Result<()> {
        let until = now_ns() + READY_NS;
        let (mut ready, mut buffer, mut finished) = (Vec::new(), vec![0; 256 * 1024], Vec::new());
        loop {
            let mut waiting = 0;
            for index in 0..self.connections.len() {
                if self.kept == Use::Kept && !self.connections[index].session.can_begin() {
                    waiting += 1;
                    self.flush(index)?;
                }
            }
            if waiting == 0 {
                return Ok(());
            }
            if now_ns() > until {
                bail!(
                    "{waiting} of {} connections were not greeted within {} s",
                    self.connections.len(),
                    READY_NS / 1_000_000_000
                );
            }
            self.poll.wait(Some(Duration::from_millis(50)), &mut ready)?;
            for event in &ready {
                self.step(*event, &mut buffer, &mut finished)?;
            }
        }
    }

    /// Starts the clock.
    fn start(&mut self, measured_ns: u64) {
        let now = now_ns();
        if let Pace::Open { due, .. } = &mut self.pace {
            *due = now;
        }
        self.from = now + WARM_UP_NS;
        self.until = self.from + measured_ns;
    }

    /// Requests that were due and have no answer yet.
    fn owed(&self) -> usize {
        match &self.pace {
            Pace::Closed => self.in_flight,
            Pace::Open { queue, .. } => self.in_flight + queue.len(),
        }
    }

    fn run(&mut self) -> Result<()> {
        self.poll.add(&self.timer, TIMER)?;
        let (mut ready, mut touched) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 256 * 1024];
        let mut finished = Vec::new();
        for index in 0..self.connections.len() {
            self.add_slots(index);
            touched.push(index);
        }
        loop {
            let now = now_ns();
            self.begin(now, &mut touched)?;
            for index in touched.drain(..) {
                self.connections[index].touched = false;
                if self.flush(index).is_err() {
                    self.reconnect(index)?;
                }
            }
            if self.kept == Use::Held && self.total + self.errors >= self.connections.len() as u64 {
                return Ok(());
            }
            if now > self.until && (self.owed() == 0 || now > self.until + GRACE_NS) {
                // What is still owed was never answered.
                self.errors += self.owed() as u64;
                return Ok(());
            }
            self.poll.wait(Some(Duration::from_millis(50)), &mut ready)?;
            for event in &ready {
                if event.token == TIMER {
                    continue;
                }
                let index = event.token as usize;
                if self.step(*event, &mut buffer, &mut finished).is_err() {
                    self.reconnect(index)?;
                }
                self.settle(index, &mut finished);
                self.touch(index, &mut touched);
            }
        }
    }

    /// Begins what is due on what is free.
    fn begin(&mut self, now: u64, touched: &mut Vec<usize>) -> Result<()> {
        if let Pace::Open {
            gap_ns,
            random,
            due,
            queue,
        } = &mut self.pace
        {
            while *due <= now && *due < self.until {
                if queue.len() < QUEUE_MAX {
                    queue.push_back(*due);
                } else {
                    self.errors += 1;
                }
                *due += gap(random, *gap_ns);
            }
        }
        while let Some(&index) = self.free.front() {
            if self.kept == Use::Held && self.in_flight >= OPENING_MAX {
                break;
            }
            let due = match &mut self.pace {
                Pace::Closed if now < self.until => now,
                Pace::Closed => break,
                Pace::Open { queue, .. } => match queue.pop_front() {
                    Some(due) => due,
                    None => break,
                },
            };
            self.free.pop_front();
            if self.kept != Use::Kept {
                self.open(index)?;
                // The one slot that it has is what is taken now.
                self.connections[index].session.take_slots();
            }
            let connection = &mut self.connections[index];
            connection.session.begin(due, &mut connection.out);
            self.in_flight += 1;
            self.touch(index, touched);
        }
        if let Pace::Open { due, .. } = self.pace {
            // An expiry that nobody clears would keep this process awake, and under the real-time scheduler the
            // backend on the same core asleep.
            self.timer.arm(if due < self.until { due } else { 0 })?;
        }
        Ok(())
    }

    fn touch(&mut self, index: usize, touched: &mut Vec<usize>) {
        if !std::mem::replace(&mut self.connections[index].touched, true) {
            touched.push(index);
        }
    }

    /// Reads what is there (under TLS that may be more than one buffer's fill).
    fn step(&mut self, event: Ready, buffer: &mut [u8], finished: &mut Vec<Finished>) -> Result<()> {
        let connection = &mut self.connections[event.token as usize];
        let Some(wire) = &mut connection.wire else {
            return Ok(());
        };
        if !event.readable {
            return Ok(());
        }
        if let Some(n) = wire.read(buffer)? {
            connection
                .session
                .input(&buffer[..n], &mut connection.out, finished)?;
        }
        Ok(())
    }

    /// Books what has finished and makes its slots free.
    fn settle(&mut self, index: usize, finished: &mut Vec<Finished>) {
        let now = if finished.is_empty() { 0 } else { now_ns() };
        for Finished { due, ok } in finished.drain(..) {
            self.in_flight -= 1;
            if ok {
                self.total += 1;
            } else {
                self.errors += 1;
            }
            if ok && due >= self.from && due < self.until {
                self.latencies_ns.push(now - due);
            }
        }
        // A connection without a slot left is one whose only request is not answered yet.
        let connection = &mut self.connections[index];
        match self.kept {
            Use::Kept => self.add_slots(index),
            Use::Held => {}
            Use::Fresh if connection.wire.is_some() && connection.session.in_flight() == 0 => {
                connection.wire = None;
                self.add_slots(index);
            }
            Use::Fresh => {}
        }
    }

    fn add_slots(&mut self, index: usize) {
        for _ in 0..self.connections[index].session.take_slots() {
            self.free.push_back(index);
        }
    }

    fn flush(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let Some(wire) = &mut connection.wire else {
            return Ok(());
        };
        let blocked = wire.write(&mut connection.out)?;
        if blocked != connection.blocked {
            connection.blocked = blocked;
            self.poll.want(&wire.socket, index as u64, true, blocked)?;
        }
        Ok(())
    }

    /// Replaces a connection that failed; what was under way on it counts as errors.
    fn reconnect(&mut self, index: usize) -> Result<()> {
        self.reconnects += 1;
        if self.reconnects > RECONNECTS_MAX {
            bail!("more than {RECONNECTS_MAX} connections failed");
        }
        let lost = self.connections[index].session.in_flight();
        self.errors += lost as u64;
        self.in_flight -= lost;
        self.free.retain(|free| *free != index);
        self.open(index)?;
        self.add_slots(index);
        Ok(())
    }

    fn print(mut self, seconds: f64) {
        self.latencies_ns.sort_unstable();
        let us = |quantile| percentile(&self.latencies_ns, quantile).map(|ns| ns as f64 / 1e3);
        println!(
            "{}",
            json!({
                "done": self.latencies_ns.len(), "total": self.total, "errors": self.errors,
                "reconnects": self.reconnects, "per_second": self.latencies_ns.len() as f64 / seconds,
                "p50_us": us(0.5), "p90_us": us(0.9), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0),
            })
        );
    }
}

/// One request on a connection of its own, with a bound of half a second per read: whether a proxy answers.
/// `tls`: the folder of the certificates where the proxy wants to see one.
pub(crate) fn probe(proto: &str, port: u16, expect: usize, tls: Option<&Path>) -> Result<()> {
    if let Some(dir) = tls {
        return probe_tls(port, expect, &wire::tls(dir)?);
    }
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut out, mut finished, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    let mut session = Session::new(proto, 1, expect, &mut out)?;
    while finished.is_empty() {
        if session.take_slots() > 0 {
            session.begin(0, &mut out);
        }
        socket.write_all(&std::mem::take(&mut out))?;
        let n = socket.read(&mut buffer)?;
        if n == 0 {
            bail!("closed without an answer");
        }
        session.input(&buffer[..n], &mut out, &mut finished)?;
    }
    if !finished[0].ok {
        bail!("not the answer of the backend");
    }
    Ok(())
}

/// [`probe`] under TLS, HTTP/1.1.
fn probe_tls(port: u16, expect: usize, tls: &Tls) -> Result<()> {
    let mut wire = Wire::connect(port, 0, Some(tls))?;
    let (mut out, mut finished, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    let mut session = Session::new("http1", 1, expect, &mut out)?;
    session.begin(0, &mut out);
    let until = now_ns() + 1_000_000_000;
    while finished.is_empty() {
        wire.write(&mut out)?;
        match wire.read(&mut buffer)? {
            Some(n) => session.input(&buffer[..n], &mut out, &mut finished)?,
            None => std::thread::sleep(Duration::from_micros(200)),
        }
        if now_ns() > until {
            bail!("no answer within a second");
        }
    }
    if !finished[0].ok {
        bail!("not the answer of the backend");
    }
    Ok(())
}

/// One request for `host` on a connection of its own: how long until its answer was whole, at most two seconds.
pub(crate) fn ask(port: u16, host: &str) -> Result<Duration> {
    let begin = std::time::Instant::now();
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.write_all(&shape::http1_request(host, shape::FEW))?;
    let mut answer = Vec::new();
    let whole = shape::http1_response(shape::BODY_BYTES).len();
    let mut buffer = [0; 4096];
    while !answer.ends_with(&[b'x'; shape::BODY_BYTES]) {
        let n = socket.read(&mut buffer)?;
        if n == 0 || answer.len() > 2 * whole {
            bail!("not the answer of the backend");
        }
        answer.extend_from_slice(&buffer[..n]);
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("not answered with 200");
    }
    Ok(begin.elapsed())
}

/// The time until the next arrival: exponential, by inversion of a xorshift draw.
fn gap(random: &mut u64, mean_ns: f64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let uniform = ((*random >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    (-uniform.ln() * mean_ns) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc;

    #[test]
    fn a_proxy_that_greets_late_is_measured_from_then_on() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a connection");
            std::thread::sleep(Duration::from_millis(600));
            let (mut out, mut buffer) = (Vec::new(), [0; 65536]);
            let mut server = grpc::Server::new(grpc::ANSWER_BYTES, &mut out);
            loop {
                socket
                    .write_all(&std::mem::take(&mut out))
                    .expect("the client is there");
                match socket.read(&mut buffer).expect("the client is there") {
                    0 => return,
                    n => server.input(&buffer[..n], &mut out).expect("calls"),
                }
            }
        });
        let words = format!("--proto grpc --port {port} --conns 1 --rate 200 --secs 0.1");
        let args = Args::parse(words.split(' ').map(str::to_owned)).expect("a command line");
        let mut load = prepared(&args, 0.1).expect("connected");
        load.await_ready().expect("greeted");
        load.start(100_000_000);
        load.run().expect("answered");
        assert!(load.total > 20, "of about 60 that were due: {}", load.total);
        assert_eq!((load.errors, load.owed()), (0, 0));
        load.latencies_ns.sort_unstable();
        let median = percentile(&load.latencies_ns, 0.5).expect("some were measured");
        assert!(
            median < 300_000_000,
            "the greeting is in the figures: {median} ns"
        );
        drop(load);
        server.join().expect("the server ended well");
    }

    #[test]
    fn arrivals_have_the_mean_and_spread_of_poisson() {
        let mut random = 0x9E37_79B9_7F4A_7C15;
        let gaps: Vec<f64> = (0..100_000).map(|_| gap(&mut random, 500_000.0) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean / 500_000.0 - 1.0).abs() < 0.02, "mean {mean}");
        let beyond = gaps.iter().filter(|g| **g > 1_000_000.0).count() as f64 / gaps.len() as f64;
        assert!(
            (beyond - (-2.0f64).exp()).abs() < 0.01,
            "{beyond} of the gaps are over twice the mean"
        );
    }
}
