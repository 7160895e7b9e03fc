//! A small HTTP/1.1 client for tests: it does what it is told, byte for byte, and tells exactly what went wrong.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::runner::Result;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", self.text()).into())
    }
}

/// A connection that is kept.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: &str) -> Result<Self> {
        let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result {
        self.reader.get_mut().write_all(bytes)?;
        Ok(())
    }

    /// Sends a request without a body or with a fixed length and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        self.answer(method)
    }

    /// Reads one answer (interim ones are skipped).
    pub fn answer(&mut self, method: &str) -> Result<Answer> {
        loop {
            let answer = self.any_answer(method)?;
            if answer.status >= 200 || answer.status == 101 {
                return Ok(answer);
            }
        }
    }

    /// Reads one answer, be it interim.
    pub fn any_answer(&mut self, method: &str) -> Result<Answer> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err("the connection was closed before an answer".into());
        }
        let status: u16 = line
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok())
            .ok_or(format!("not a status line: {line:?}"))?;
        let headers = self.headers()?;
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let bodiless = method == "HEAD" || (100..200).contains(&status) || status == 204 || status == 304;
        if !bodiless {
            self.body(&mut answer)?;
        }
        Ok(answer)
    }

    fn headers(&mut self) -> Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err("the connection was closed inside a head".into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or(format!("not a header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, answer: &mut Answer) -> Result {
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                self.reader.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| format!("not a chunk size: {line:?}"))?;
                if size == 0 {
                    let trailers = self.headers()?;
                    answer.headers.extend(
                        trailers
                            .into_iter()
                            .map(|(name, value)| (format!("trailer:{name}"), value)),
                    );
                    return Ok(());
                }
                let at = answer.body.len();
                answer.body.resize(at + size, 0);
                self.reader.read_exact(&mut answer.body[at..])?;
                let mut end = [0; 2];
                self.reader.read_exact(&mut end)?;
            }
        }
        if let Some(length) = answer
            .header("content-length")
            .and_then(|text| text.parse::<usize>().ok())
        {
            answer.body.resize(length, 0);
            self.reader.read_exact(&mut answer.body)?;
        } else {
            self.reader.read_to_end(&mut answer.body)?;
        }
        Ok(())
    }
}

/// One GET on a connection of its own. `host` is the authority; `address` where to connect.
pub fn get(address: &str, host: &str, path: &str) -> Result<Answer> {
    Connection::open(address)?.request("GET", host, path, &[("connection", "close")], b"")
}

/// What a steady load saw.
#[derive(Debug, Default)]
pub struct Load {
    pub sent: AtomicU64,
    pub failed: AtomicU64,
    pub first_failure: std::sync::Mutex<Option<String>>,
    /// (seconds since the start, label of the answer), in the order of arrival.
    pub answers: std::sync::Mutex<Vec<(f64, String)>>,
}

impl Load {
    fn failure(&self, text: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure
            .lock()
            .expect("not poisoned")
            .get_or_insert(text);
    }

    /// An error where a request failed.
    pub fn check(&self) -> Result {
        match (
            self.failed.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        ) {
            (0, sent) if sent > 0 => Ok(()),
            (failed, sent) => {
                let first = self
                    .first_failure
                    .lock()
                    .expect("not poisoned")
                    .clone()
                    .unwrap_or_default();
                Err(format!("{failed} of {sent} requests failed, the first: {first}").into())
            }
        }
    }
}

/// Sends `rate` requests a second for as long as `going` says so, open loop over `threads` threads: a request is due at its
/// time whether or not earlier ones were slow. Every second thread keeps its connection, the others open one per request.
pub fn steady(
    load: &Load,
    address: &str,
    host: &str,
    path: &str,
    rate: u32,
    threads: u32,
    going: &(dyn Fn() -> bool + Sync),
    label: &(dyn Fn(&Answer) -> String + Sync),
) {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let gap = Duration::from_secs_f64(f64::from(threads) / f64::from(rate));
                let mut due = started + gap.mul_f64(f64::from(thread) / f64::from(threads));
                let mut kept: Option<Connection> = None;
                while going() {
                    if let Some(pause) = due.checked_duration_since(Instant::now()) {
                        std::thread::sleep(pause);
                    }
                    due += gap;
                    load.sent.fetch_add(1, Ordering::Relaxed);
                    match one(&mut kept, thread % 2 == 0, address, host, path) {
                        Ok(answer) if answer.status == 200 => {
                            let at = started.elapsed().as_secs_f64();
                            load.answers
                                .lock()
                                .expect("not poisoned")
                                .push((at, label(&answer)));
                        }
                        Ok(answer) => load.failure(format!("{} {}", answer.status, answer.text())),
                        Err(error) => {
                            kept = None;
                            load.failure(error.to_string());
                        }
                    }
                }
            });
        }
    });
}

fn one(kept: &mut Option<Connection>, keep: bool, address: &str, host: &str, path: &str) -> Result<Answer> {
    if !keep {
        return get(address, host, path);
    }
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address)?,
    };
    let answer = connection.request("GET", host, path, &[], b"")?;
    if answer.header("connection") != Some("close") {
        *kept = Some(connection);
    }
    Ok(answer)
}
