//! The sink of the bulk measurement: asks `source` with one byte per connection, then counts what comes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::args::Args;
use crate::poll::{Poll, now_ns};

/// One read takes at most so much.
const READ_BYTES: usize = 256 * 1024;

/// Receives for `--secs` and prints how much.
pub(crate) fn sink(args: &Args) -> Result<()> {
    let port: u16 = args.number("port", 0)?;
    let seconds: f64 = args.number("secs", 4.0)?;
    let mut poll = Poll::new()?;
    let mut sockets = Vec::new();
    for token in 0..args.number("conns", 4u64)? {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        socket.write_all(b"g")?;
        socket.set_nonblocking(true)?;
        poll.add(&socket, token)?;
        sockets.push(socket);
    }
    let (mut buffer, mut ready, mut bytes) = (vec![0; READ_BYTES], Vec::new(), 0u64);
    let start = now_ns();
    let until = start + (seconds * 1e9) as u64;
    let mut now = start;
    while now < until {
        poll.wait(Some(Duration::from_millis(50)), &mut ready)?;
        for event in &ready {
            match sockets[event.token as usize].read(&mut buffer) {
                Ok(0) => bail!("the source's end of a connection was closed"),
                Ok(n) => bytes += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        now = now_ns();
    }
    println!(
        "{}",
        json!({ "bytes": bytes, "secs": (now - start) as f64 / 1e9 })
    );
    Ok(())
}
