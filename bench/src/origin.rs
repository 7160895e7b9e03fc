//! The server behind the probes: says in its body what it saw of a request, and misbehaves on demand.
//!
//! HTTP/1.1, a thread for each connection (the probes come one by one). Paths that end in `/origin/WHAT` choose an
//! answer; all others get 200. Bounds: a head of at most 256 KiB, a body of at most 1 MiB, ten seconds of silence.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

/// A head has at most so many bytes.
const HEAD_MAX: u64 = 256 * 1024;
/// A body has at most so many bytes.
const BODY_MAX: usize = 1 << 20;
/// Fields whose value is made up by a proxy for each request.
const MADE_UP: &[&str] = &["x-request-id", "traceparent", "tracestate"];
/// What is left of a timeout when a request is tried again depends on the time.
const TIMED: &str = "x-envoy-expected-rq-timeout-ms";

/// How often each probe arrived, for answers that change.
type Counts = Arc<Mutex<HashMap<String, usize>>>;
/// Forgets the counts, so that the next proxy's begin anew.
pub(crate) const RESET: &str = "/origin/reset-counts";

/// Serves until the process is ended; prints its port as one JSON line.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", json!({ "origin": listener.local_addr()?.port() }));
    let counts = Counts::default();
    for socket in listener.incoming() {
        let (socket, counts) = (socket?, counts.clone());
        std::thread::spawn(move || {
            // The end of a connection is nobody's concern.
            let _ = talk(&socket, &counts);
        });
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Request {
    line: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The path without its query.
    fn path(&self) -> &str {
        let target = self.line.split(' ').nth(1).unwrap_or_default();
        target.split('?').next().unwrap_or_default()
    }
}

fn talk(socket: &TcpStream, counts: &Counts) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket.try_clone()?);
    loop {
        let request = read(&mut reader)?;
        let count = {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            if request.path() == RESET {
                counts.clear();
            }
            let probe = request.field("x-probe").unwrap_or_default().to_owned();
            let count = counts.entry(probe).or_default();
            *count += 1;
            *count
        };
        let what = request
            .path()
            .rsplit_once("/origin/")
            .map_or("", |(_, what)| what)
            .to_owned();
        if !answer(socket, &request, &what, count)? {
            return Ok(());
        }
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    reader.take(HEAD_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        bail!("the end, or a line that is too long");
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn read(reader: &mut impl BufRead) -> Result<Request> {
    let mut request = Request {
        line: line(reader)?,
        ..Request::default()
    };
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(':') else {
            break;
        };
        request
            .fields
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let chunked = request
        .field("transfer-encoding")
        .is_some_and(|value| value.contains("chunked"));
    let length = request
        .field("content-length")
        .and_then(|value| value.parse().ok());
    if chunked {
        loop {
            let size = line(reader)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
            if size == 0 {
                break;
            }
            take(reader, size, &mut request.body)?;
            line(reader)?;
        }
        loop {
            let trailer = line(reader)?;
            if trailer.is_empty() {
                break;
            }
            request.trailers.push(trailer);
        }
    } else if let Some(length) = length {
        take(reader, length, &mut request.body)?;
    }
    Ok(request)
}

fn take(reader: &mut impl BufRead, bytes: usize, body: &mut Vec<u8>) -> Result<()> {
    if body.len() + bytes > BODY_MAX {
        bail!("a body that is too long");
    }
    let at = body.len();
    body.resize(at + bytes, 0);
    Ok(reader.read_exact(&mut body[at..])?)
}

/// What it saw, in an order that does not depend on the proxy.
fn seen(request: &Request, count: usize) -> String {
    let mut text = format!("{}\n", request.line);
    let mut fields: Vec<String> = request
        .fields
        .iter()
        .map(|(name, value)| {
            let made_up = MADE_UP.contains(&name.as_str()) && value.len() >= 32;
            let value = if made_up || (name == TIMED && count > 1) {
                "*"
            } else {
                value
            };
            format!("{name}: {value}\n")
        })
        .collect();
    fields.sort();
    text.push_str(&fields.concat());
    let sum: u32 = request.body.iter().map(|b| u32::from(*b)).sum();
    text.push_str(&format!("body {} bytes, sum {sum}\n", request.body.len()));
    for trailer in &request.trailers {
        text.push_str(&format!("trailer {trailer}\n"));
    }
    text.push_str(&format!("asked {count} times\n"));
    text
}

/// Answers; whether the connection stays.
fn answer(mut socket: &TcpStream, request: &Request, what: &str, count: usize) -> Result<bool> {
    let head = request.line.starts_with("HEAD ");
    let body = seen(request, count);
    let fields = "server: origin\r\ncontent-type: text/plain\r\nx-origin: here\r\nx-origin-secret: 1\r\n";
    let whole = |status: &str, more: &str, body: &str| {
        let body_sent = if head { "" } else { body };
        format!(
            "HTTP/1.1 {status}\r\n{fields}{more}content-length: {}\r\n\r\n{body_sent}",
            body.len()
        )
    };
    let text = match what {
        "" | "reset-counts" => whole("200 OK", "", &body),
        "chunked" => {
            let (first, rest) = body.split_at(body.len() / 2);
            let chunks = format!(
                "{:x}\r\n{first}\r\n{:x};why=not\r\n{rest}\r\n0\r\n\r\n",
                first.len(),
                rest.len()
            );
            format!(
                "HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n\r\n{}",
                if head { "" } else { &chunks }
            )
        }
        "trailers" => format!(
            "HTTP/1.1 200 OK\r\n{fields}trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"
        ),
        "until-closed" => {
            socket.write_all(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}").as_bytes())?;
            return Ok(false);
        }
        "says-close" => {
            socket.write_all(whole("200 OK", "connection: close\r\n", &body).as_bytes())?;
            return Ok(false);
        }
        "http10" => {
            socket.write_all(format!("HTTP/1.0 200 OK\r\n{fields}\r\n{body}").as_bytes())?;
            return Ok(false);
        }
        "no-content" => format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"),
        "not-modified" => format!("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n{fields}\r\n"),
        "many" => whole(
            "200 OK",
            "set-cookie: a=1\r\nset-cookie: b=2\r\nx-twice: 1\r\nx-twice: 2\r\nX-Case: Kept?\r\nvary: accept\r\nx-empty:\r\n",
            &body,
        ),
        "hop-by-hop" => whole(
            "200 OK",
            "connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n",
            &body,
        ),
        "reason" => whole("200 Splendid", "", &body),
        "big-field" => whole("200 OK", &format!("x-big: {}\r\n", "b".repeat(80_000)), &body),
        "early" => format!(
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n{}",
            whole("200 OK", "", &body)
        ),
        "both-lengths" => format!(
            "HTTP/1.1 200 OK\r\n{fields}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ),
        "short" => {
            socket.write_all(
                format!("HTTP/1.1 200 OK\r\n{fields}content-length: 100\r\n\r\nshort").as_bytes(),
            )?;
            return Ok(false);
        }
        "garbage" => {
            socket.write_all(b"this is no answer\r\n\r\n")?;
            return Ok(false);
        }
        "silent" => return Ok(false),
        "slow" => {
            std::thread::sleep(Duration::from_millis(1200));
            whole("200 OK", "", &body)
        }
        "second-time" if count < 2 => whole("503 Service Unavailable", "", "not yet\n"),
        "second-time" => whole("200 OK", "", &body),
        "second-silent" if count < 2 => return Ok(false),
        "second-silent" => whole("200 OK", "", &body),
        "grpc-error" => whole("200 OK", "grpc-status: 14\r\ngrpc-message: gone\r\n", ""),
        "switch" => format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n{body}"
        ),
        status => match status.parse::<u16>() {
            Ok(status) => whole(&format!("{status} Number"), "", &body),
            Err(_) => bail!("no such answer: {what}"),
        },
    };
    socket.write_all(text.as_bytes())?;
    Ok(what != "switch")
}
